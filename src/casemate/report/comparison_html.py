"""The page of a comparison: what got worse, what got better, what cannot be told apart; in the style of report.html."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from casemate.core.report import Report
from casemate.report import drawing, words
from casemate.report.html import template

__all__ = ["Compared", "Group", "Line", "render"]

_MOST = 150  # lines of a group; the others are counted
_LONGEST = 120  # characters of one text: the page stays below 2.5 MB
_ALWAYS = ".clean_accuracy"  # a note, and the first thing that is asked of two models


class Compared(Protocol):
    """One measurement in two reports, as a comparison gives it; `better` is +1 where more is better, -1, or 0."""

    @property
    def metric(self) -> str:
        """The metric's name."""

    @property
    def about(self) -> str:
        """Whom it is about."""

    @property
    def at(self) -> str:
        """Where it was measured, in words."""

    @property
    def a(self) -> float:
        """The value in the first report."""

    @property
    def b(self) -> float:
        """The value in the second."""

    @property
    def value(self) -> float:
        """The difference `b - a`."""

    @property
    def low(self) -> float:
        """The lower end of its interval."""

    @property
    def high(self) -> float:
        """The upper end of its interval."""

    @property
    def n(self) -> int:
        """How many samples."""

    @property
    def paired(self) -> bool:
        """Whether both reports kept the same samples."""

    @property
    def p(self) -> float | None:
        """The adjusted p-value, where there is one."""

    @property
    def noted(self) -> bool:
        """Whether the metric is never judged."""

    @property
    def better(self) -> int:
        """+1 where a larger value is better, -1 where it is worse, 0 where that is not said."""

    @property
    def same(self) -> bool:
        """Whether the two are one number without sampling error."""

    @property
    def differs(self) -> bool:
        """Whether the two can be told apart."""


@dataclass(frozen=True, slots=True)
class Line:
    """One measurement of a group: its subject in words, and its place on the group's axis."""

    row: Compared
    name: str
    place: drawing.Difference | None


@dataclass(frozen=True, slots=True)
class Group:
    """Lines with one verdict, on one axis from `-reach` to `reach`."""

    id: str
    title: str
    shape: str
    lines: tuple[Line, ...]
    left_out: int
    reach: float


_GROUPS = (
    ("worse", "Worse in B", "failed"),
    ("better", "Better in B", "passed"),
    ("other", "Differs, and nobody says which way is better", "none"),
    ("unclear", "Unclear: these samples cannot tell the two apart", "undecided"),
    ("same", "The same in both", "low"),
    ("notes", "Notes, which are never judged", "none"),
)


def render(rows: Sequence[Compared], a: Report, b: Report, *, same_samples: bool = True) -> str:
    """The whole page of the comparison of report `a` with report `b`; equal input gives equal pages."""
    kept: dict[str, list[Compared]] = {}
    for row in rows:
        kept.setdefault(_verdict(row), []).append(row)
    groups = [_group(key, title, shape, kept[key]) for key, title, shape in _GROUPS if key in kept]
    return template("comparison.html.j2").render(
        a=a, b=b, groups=groups, rows=rows, longest=_LONGEST, same_samples=same_samples
    )


def _verdict(row: Compared) -> str:
    if row.noted and not row.metric.endswith(_ALWAYS):
        return "notes"
    if row.same:
        return "same"
    if not row.differs:
        return "unclear"
    if not row.better:
        return "other"
    return "better" if row.better * row.value > 0 else "worse"


def _group(key: str, title: str, shape: str, rows: Sequence[Compared]) -> Group:
    order = sorted(rows, key=lambda row: (row.noted, -abs(row.value), row.metric, row.about, row.at))
    within = [abs(end) for row in order for end in (row.low, row.high) if abs(end) <= 1]
    reach = max(within, default=0.0)
    lines = tuple(_line(row, reach) for row in order[:_MOST])
    return Group(key, title, shape, lines, len(order) - len(lines), reach)


def _line(row: Compared, reach: float) -> Line:
    drawn = max(abs(row.low), abs(row.high)) <= 1  # shares on one axis; what has a unit has no place there
    known = row.about, words.notation(f"norm = {row.about}").removeprefix("norm = ")
    places = [part.split(" = ", 1) for part in row.at.split(", ") if part.partition(" = ")[2] not in known]
    told = [" = ".join([words.metric(key), *rest]) for key, *rest in places]
    parts = words.sentence(words.metric(row.metric)), words.subject(row.about, row.metric), *told
    name = ", ".join(part for part in parts if part)
    return Line(row, name, drawing.difference(row.low, row.value, row.high, reach) if drawn else None)
