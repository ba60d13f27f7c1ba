"""What belongs together on the page: outcomes of one plug-in with one title are one card with a line for each subject.

Seventeen gaps between groups are four kinds of unfairness: a reader wants four cards, each with its subjects beside
each other on one scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from casemate.core.evidence import Evidence, Quantity
from casemate.core.judgement import TABLE, severity_range
from casemate.core.outcome import Clean, Finding, Inconclusive, Severity
from casemate.core.report import PluginFacts, Report
from casemate.report import words
from casemate.report.drawing import Curve
from casemate.report.exhibits import Exhibit
from casemate.report.plots import Trend

__all__ = ["Drawn", "Family", "Row", "drawn_with", "grouped"]

_ROWS = 40  # lines of a card; the others are counted, and in report.json

Judged = Finding | Inconclusive | Clean


@dataclass(frozen=True, slots=True)
class Row:
    """One judged measurement of a family: what sets it apart, and the outcome of which it may be the `first` row."""

    item: Evidence
    outcome: Judged
    first: bool
    name: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """The pictures of a plug-in, or those of them that belong to one family."""

    curves: tuple[Curve, ...] = ()
    trends: tuple[Trend, ...] = ()
    exhibits: tuple[Exhibit, ...] = ()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.curves) + len(self.trends) + len(self.exhibits)

    def first(self, most: int) -> Drawn:
        """The first `most` of each kind."""
        return Drawn(self.curves[:most], self.trends[:most], self.exhibits[:most])


@dataclass(frozen=True, slots=True)
class Family:
    """Outcomes of one plug-in with one title, the worst first; `lead` is the gravest measurement, `rows` the others.

    `left_out` counts lines beyond the most that a card shows; `again` says that a card above is of the same plug-in.
    """

    plugin: str
    title: str
    outcomes: tuple[Judged, ...]
    lead: Evidence | None
    rows: tuple[Row, ...]
    left_out: int
    facts: PluginFacts | None
    shared: tuple[str, ...] = ()
    drawn: Drawn = field(default_factory=Drawn)
    again: bool = False
    mended: bool = False

    @property
    def severity(self) -> Severity:
        """The severity of the worst finding; none where there is no finding."""
        return _highest(o.severity for o in self.outcomes if isinstance(o, Finding))

    @property
    def could_be(self) -> Severity:
        """How bad the outcomes could be at the unfavourable end of their intervals."""
        return _highest(o.could_be for o in self.outcomes if isinstance(o, Finding | Inconclusive))

    @property
    def mends(self) -> tuple[str, ...]:
        """The remedies of its findings, each once; or what would decide what is inconclusive."""
        told = [o.mend if isinstance(o, Finding) else getattr(o, "need", "") for o in self.outcomes]
        return tuple(dict.fromkeys(text for text in told if text))

    @property
    def replayable(self) -> tuple[str, ...]:
        """The ids of the findings whose audit kept what a replay needs."""
        found = [o for o in self.outcomes if isinstance(o, Finding)]
        return tuple(o.id for o in found if any(item.files for item in o.evidence))

    @property
    def several(self) -> bool:
        """Whether there is more than one outcome."""
        return len(self.outcomes) > 1


def grouped(report: Report, outcomes: Iterable[Judged]) -> list[Family]:
    """Outcomes as families, the worst first, families of one plug-in with equal severity beside each other."""
    groups: dict[tuple[str, str], list[Judged]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.plugin, _title(outcome)), []).append(outcome)
    found = [_family(report, plugin, title, items) for (plugin, title), items in groups.items()]
    found.sort(key=lambda f: (-f.severity.rank, -f.could_be.rank, f.plugin))
    seen: dict[str, set[str]] = {}
    marked = []
    for family in found:
        known = seen.setdefault(family.plugin, set())
        marked.append(replace(family, again=bool(known), mended=known >= {"", *family.mends}))
        known |= {"", *family.mends}
    return marked


def _title(outcome: Judged) -> str:
    if isinstance(outcome, Finding):
        return words.sentence(outcome.title)
    return words.topic(outcome.about.partition(": ")[0]) if outcome.about else outcome.plugin


def _family(report: Report, plugin: str, title: str, items: Sequence[Judged]) -> Family:
    order = sorted(items, key=lambda o: (*_rank(o), o.about))
    judged = [[e for e in outcome.evidence if e.quantity is not Quantity.NOTE] for outcome in order]
    every = [item for group in judged for item in group]
    shared = [part for part in words.parts(every[0]) if all(part in words.parts(i) for i in every)] if every else []
    rows = [
        Row(item, outcome, position == 0, ", ".join(part for part in words.parts(item) if part not in shared))
        for outcome, group in zip(order, judged, strict=True)
        for position, item in enumerate(words.in_order(group))
    ]
    if len(rows) == 1:
        rows = []  # the figure says it all
    return Family(
        plugin=plugin,
        title=title,
        outcomes=tuple(order),
        lead=min(every, key=_gravity, default=None),
        rows=tuple(rows[:_ROWS]),
        left_out=max(len(rows) - _ROWS, 0),
        facts=report.plugins.get(plugin),
        shared=tuple(shared),
    )


def _rank(outcome: Judged) -> tuple[float, ...]:
    """The worst first: by severity, by how bad it could be, then by its gravest measurement."""
    severity = outcome.severity.rank if isinstance(outcome, Finding) else 0
    could_be = 0 if isinstance(outcome, Clean) else outcome.could_be.rank
    gravest = min((_gravity(item) for item in outcome.evidence), default=())
    return -severity, -could_be, *gravest


def _gravity(item: Evidence) -> tuple[float, ...]:
    """The gravest first: by severity at the better end, at the worse end, then by the value."""
    best, worst = severity_range(item)
    scale = TABLE.get(item.quantity)
    return -best.rank, -worst.rank, -(scale.worse if scale else 0) * item.value / (item.baseline or 1.0)


def _highest(found: Iterable[Severity]) -> Severity:
    return max(found, key=lambda severity: severity.rank, default=Severity.NONE)


def drawn_with(found: Sequence[Family], drawn: Drawn) -> tuple[list[Family], Drawn]:
    """The families, each with the pictures that are about it, and the pictures that are left.

    An exhibit belongs to the first family of its plug-in that has its subject, and its metric where it names one;
    curves and trends belong to the first of their plug-in.
    """
    told = []
    for family in found:
        measured = [item for outcome in family.outcomes for item in outcome.evidence]
        subjects, metrics = {item.about for item in measured} | {""}, {item.metric for item in measured} | {""}
        mine = Drawn(
            tuple(c for c in drawn.curves if c.plugin == family.plugin),
            tuple(t for t in drawn.trends if t.plugin == family.plugin),
            tuple(
                e for e in drawn.exhibits if e.plugin == family.plugin and e.about in subjects and e.metric in metrics
            ),
        )
        told.append(replace(family, drawn=mine))
        drawn = Drawn(
            tuple(c for c in drawn.curves if c not in mine.curves),
            tuple(t for t in drawn.trends if t not in mine.trends),
            tuple(e for e in drawn.exhibits if e not in mine.exhibits),
        )
    return told, drawn
