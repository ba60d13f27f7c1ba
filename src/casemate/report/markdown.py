"""Markdown for a comment on a pull request: the verdict, the gates, what was found, what was not tested.

What a model or data set brings in (names of classes, columns, files) is text here: it makes no link, picture, mention,
table cell or tag. The whole stays below what a comment may hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from casemate.core.evidence import Evidence, Quantity
from casemate.core.judgement import Status, severity_range
from casemate.core.outcome import Clean, Failed, Finding, Inconclusive, Skipped
from casemate.core.report import Report
from casemate.report import acceptance, words

__all__ = ["MOST", "render"]

MOST = 60_000
"""Characters at most: a comment on GitHub holds 65,536."""
_WORD: Mapping[Status, str] = {Status.PASSED: "passed", Status.FAILED: "**FAILED**", Status.UNDECIDED: "**undecided**"}
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$@])")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069]+")
_NUMBERS = 3  # of a finding
_LONGEST = 300  # characters of one text
_CUT = "\n\nThe rest is in the report.\n"


def render(report: Report) -> str:
    """The comment; at most `MOST` characters, cut at the end of a paragraph and saying so where there is more."""
    parts = [_head(report), _gates(report), *_findings(report), *_unclear(report), *_untested(report)]
    parts += [*_accepted(report), _foot(report)]
    text = "\n\n".join(parts) + "\n"
    if len(text) <= MOST:
        return text
    return text[: text.rindex("\n", 0, MOST - len(_CUT))].rstrip() + _CUT


def _head(report: Report) -> str:
    return f"## Casemate: {_text(report.name)}\n\n**{words.VERDICT[report.ruling.status]}**"


def _gates(report: Report) -> str:
    rows = [
        f"| {_WORD[gate.status]} | {_text(words.notation(gate.gate))} | {_text(words.notation(gate.reason))} |"
        for gate in report.ruling.gates
    ]
    return "\n".join(["| | gate | why |", "| --- | --- | --- |", *rows])


def _findings(report: Report) -> list[str]:
    found = [finding for finding in report.findings if acceptance(report, finding) is None]
    return [f"### Findings ({len(found)})", "\n".join(line for f in found for line in _finding(f))] if found else []


def _finding(finding: Finding) -> list[str]:
    lines = [
        f"- **{finding.severity}**: {_text(words.sentence(finding.title))} ({_text(words.notation(finding.about))})"
    ]
    lines += _measured(finding.evidence)
    if finding.mend:
        lines.append(f"    - mend: {_text(finding.mend)}")
    return [*lines, f"    - `casemate explain '{finding.id}'`"]


def _measured(evidence: Sequence[Evidence]) -> list[str]:
    judged = [item for item in evidence if item.quantity is not Quantity.NOTE]
    shown = sorted(judged, key=lambda item: [s.rank for s in severity_range(item)], reverse=True)[:_NUMBERS]
    lines = []
    for item in words.in_order(shown):
        told = ", ".join(part for part in (words.told(item), words.place(item), words.size(item)) if part)
        # a gap says little without the groups at its ends, which its method names
        how = f"; {words.separated(item.method)}" if item.quantity is Quantity.RATE_GAP else ""
        lines.append(f"    - {_text(told + how)}")
    return lines + ([f"    - and {len(judged) - len(shown)} more"] if len(judged) > len(shown) else [])


def _unclear(report: Report) -> list[str]:
    unclear = [outcome for outcome in report.outcomes if isinstance(outcome, Inconclusive)]
    lines = []
    for outcome in sorted(unclear, key=lambda o: (-o.could_be.rank, o.plugin, o.about)):
        lines.append(
            f"- could be **{outcome.could_be}**: {_text(words.notation(outcome.about))}; {_text(outcome.need)}"
        )
        lines += _measured(outcome.evidence)
    return [f"### Inconclusive ({len(unclear)})", "\n".join(lines)] if unclear else []


def _untested(report: Report) -> list[str]:
    rows = []
    for outcome in sorted(report.untested, key=lambda o: (not isinstance(o, Failed), o.plugin)):
        why = f"it broke: {outcome.error}" if isinstance(outcome, Failed) else outcome.detail
        rows.append(f"| {_text(outcome.plugin)} | {_text(_kind(outcome))} | {_text(why)} |")
    if not rows:
        return []
    head = f"<details><summary>Not tested ({len(rows)})</summary>"
    return [head, "\n".join(["| | reason | |", "| --- | --- | --- |", *rows]), "</details>"]


def _kind(outcome: Skipped | Failed) -> str:
    return "broke" if isinstance(outcome, Failed) else words.SKIPPED[outcome.reason]


def _accepted(report: Report) -> list[str]:
    lines = []
    for finding in report.findings:
        if (accepted := acceptance(report, finding)) is not None:
            why = f"accepted until {accepted.until.isoformat()}: {accepted.reason}"
            lines.append(f"- {finding.severity}: {_text(words.sentence(finding.title))}; {_text(why)}")
    return [f"### Accepted ({len(lines)})", "\n".join(lines)] if lines else []


def _foot(report: Report) -> str:
    clean = sum(
        isinstance(o, Clean) and any(e.quantity is not Quantity.NOTE for e in o.evidence) for o in report.outcomes
    )
    facts = [
        f"{words.counted(clean, 'measurement')} held up",
        f"profile {report.settings.get('profile', '')}",
        f"seed {report.seed}",
        f"Casemate {report.versions.get('casemate', '')}",
        f"bundle {report.bundle or 'none'}",
    ]
    notes = [_text(note) for note in report.notes]
    return "\n\n".join([*notes, f"<sub>{_text(', '.join(facts))}</sub>"])


def _text(text: str) -> str:
    """One line of plain text: special characters escaped, and nothing that a host would turn into a link or mention."""
    line = words.visible(_BLANK.sub(" ", text)).strip()
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST - 1]}…"
    line = _SPECIAL.sub(r"\\\1", line)
    for whole, parted in (
        ("@", "@<!-- -->"),
        ("://", ":<!-- -->//"),
        ("www.", "www<!-- -->."),
        ("WWW.", "WWW<!-- -->."),
    ):
        line = line.replace(whole, parted)
    return line
