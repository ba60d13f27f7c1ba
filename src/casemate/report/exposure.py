"""What the page says of a whole report: the exposure by threat, the most valuable mends, and what was not tested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from casemate.core.evidence import Quantity
from casemate.core.outcome import Clean, Failed, Finding, Inconclusive, Outcome, Severity, Skipped, SkipReason, Threat
from casemate.core.report import Report
from casemate.report import words

__all__ = ["Exposure", "Mend", "Untested", "best_mends", "by_reason", "by_threat", "severities"]

_MENDS = 5


@dataclass(frozen=True, slots=True)
class Exposure:
    """One threat: how bad the worst finding is, how bad it could be, and how much was looked at.

    `open`, `accepted`, `unclear`, `passed` and `untested` count outcomes; `broken` counts those of `untested` that
    leave a question open. `ids` are pairs of a public list and the threat's ids in it.
    """

    name: str
    title: str
    ids: tuple[tuple[str, str], ...]
    worst: Severity
    could_be: Severity
    open: int
    accepted: int
    unclear: int
    passed: int
    untested: int
    broken: int

    @property
    def tested(self) -> bool:
        """Whether anything was measured."""
        return bool(self.open + self.accepted + self.unclear + self.passed)

    @property
    def state(self) -> str:
        """`untested`, `found`, `unclear`, `incomplete` (what was tested passed), `accepted` or `passed`."""
        if not self.tested:
            return "untested"
        if self.open:
            return "found"
        if self.unclear:
            return "unclear"
        return "incomplete" if self.broken else "accepted" if self.accepted else "passed"

    @property
    def told(self) -> str:
        """The counts in words."""
        parts = (
            words.counted(self.open, "finding") if self.open else "",
            f"{self.accepted:,} accepted" if self.accepted else "",
            f"{self.unclear:,} inconclusive" if self.unclear else "",
            f"{self.passed:,} passed" if self.passed else "",
            f"{self.untested:,} not tested" if self.untested else "",
        )
        return ", ".join(part for part in parts if part) or "facts were noted, nothing was judged"


@dataclass(frozen=True, slots=True)
class Mend:
    """One remedy and the open findings that it is for, worst first."""

    text: str
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Severity:
        """The severity of the worst of its findings."""
        return self.findings[0].severity

    @property
    def told(self) -> str:
        """How many findings of which severity: `1 critical, 2 low`."""
        return severities(self.findings)


@dataclass(frozen=True, slots=True)
class Untested:
    """What was not tested for one reason: `opens` says that a gate which depends on it is undecided."""

    reason: str
    opens: bool
    items: tuple[Skipped | Failed, ...]


def by_threat(report: Report) -> list[Exposure]:
    """One row for each threat that the plan names, the worst first, untested ones before those that passed."""
    threats: dict[str, Threat] = {}
    found: dict[str, list[Outcome]] = {}
    for outcome in report.outcomes:
        threat = _threat(report, outcome.plugin)
        threats.setdefault(threat.name, threat)
        found.setdefault(threat.name, []).append(outcome)
    rows = [_exposure(threat, found[name], set(report.ruling.accepted)) for name, threat in threats.items()]
    return sorted(rows, key=lambda row: (-row.worst.rank, -row.could_be.rank, -row.broken, row.tested, row.title))


def _threat(report: Report, plugin: str) -> Threat:
    """The threat of a plug-in; one that the report has no facts of stands under the name of its room."""
    if plugin in report.plugins:
        return report.plugins[plugin].threat
    room = plugin.partition("/")[0]
    return Threat(room, room.replace("_", " ").capitalize())


def _exposure(threat: Threat, outcomes: Sequence[Outcome], accepted: set[str]) -> Exposure:
    findings = [o for o in outcomes if isinstance(o, Finding)]
    opened = [o for o in findings if o.id not in accepted]
    unclear = [o for o in outcomes if isinstance(o, Inconclusive)]
    untested = [o for o in outcomes if isinstance(o, Skipped | Failed)]
    return Exposure(
        name=threat.name,
        title=threat.title,
        ids=tuple(words.names(threat)),
        worst=_worst([o.severity for o in opened]),
        could_be=_worst([*(o.could_be for o in opened), *(o.could_be for o in unclear)]),
        open=len(opened),
        accepted=len(findings) - len(opened),
        unclear=len(unclear),
        passed=sum(isinstance(o, Clean) and any(e.quantity is not Quantity.NOTE for e in o.evidence) for o in outcomes),
        untested=len(untested),
        broken=sum(isinstance(o, Failed) or o.reason is not SkipReason.NOT_APPLICABLE for o in untested),
    )


def _worst(found: Sequence[Severity]) -> Severity:
    return max(found, key=lambda severity: severity.rank, default=Severity.NONE)


def best_mends(findings: Sequence[Finding]) -> list[Mend]:
    """The five remedies that mend most: by the number of critical findings, then of high ones, and so on."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.mend:
            found.setdefault(finding.mend, []).append(finding)
    mends = [Mend(text, tuple(sorted(items, key=lambda f: -f.severity.rank))) for text, items in found.items()]
    return sorted(mends, key=_worth)[:_MENDS]


def _worth(mend: Mend) -> tuple[list[int], str]:
    counts = Counter(finding.severity for finding in mend.findings)
    return [-counts[severity] for severity in reversed(Severity)], mend.text


def severities(findings: Sequence[Finding]) -> str:
    """How many findings of which severity: `1 critical, 2 low`."""
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(f"{counts[s]:,} {s}" for s in reversed(Severity) if counts[s])


def by_reason(report: Report) -> list[Untested]:
    """What was not tested, by reason: what broke first, what does not apply last."""
    broke = tuple(o for o in report.untested if isinstance(o, Failed))
    groups = [Untested("It broke", True, broke)]
    for reason in (SkipReason.UNAVAILABLE, SkipReason.BUDGET, SkipReason.NOT_APPLICABLE):
        items = tuple(o for o in report.untested if isinstance(o, Skipped) and o.reason is reason)
        groups.append(Untested(words.sentence(words.SKIPPED[reason]), reason is not SkipReason.NOT_APPLICABLE, items))
    return [group for group in groups if group.items]
