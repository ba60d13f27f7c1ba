"""Compare two runs: paired differences where both kept the same samples, differences of intervals elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from casemate._replay import kept_arrays, report_in
from casemate.core.evidence import Evidence, Quantity
from casemate.core.judgement import TABLE
from casemate.core.report import Report
from casemate.core.rng import stream
from casemate.core.stats import Interval, holm, mcnemar_exact, paired_bootstrap, paired_difference
from casemate.errors import Unavailable
from casemate.report import words

__all__ = ["LEVEL", "Comparison", "Difference", "compare", "compare_reports", "same_samples"]

Values = NDArray[Any]

LEVEL = 0.05
"""The adjusted p-value up to which two measurements differ."""

_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Difference:
    """`b - a` of one measurement, with an interval.

    `paired` says that both runs kept per-sample values of the same samples; else the interval is that of two
    independent measurements, made from the ends of both, and is wider than it need be. `p` is McNemar's exact
    two-sided p-value where the paired values are 0 or 1, adjusted by Holm's method over all measurements of the
    comparison that have one (over the notes apart); it errs high. `noted` says that the metric is never judged;
    `better` is +1 where a larger value is better, -1 where it is worse, 0 where no severity says so.
    """

    metric: str
    about: str
    at: str
    a: float
    b: float
    low: float
    high: float
    n: int
    paired: bool
    p: float | None = None
    noted: bool = False
    better: int = 0

    @property
    def value(self) -> float:
        """The difference `b - a`."""
        return self.b - self.a

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    @property
    def same(self) -> bool:
        """Whether the two are the same number without any sampling error."""
        return self.low == self.high == 0

    @property
    def differs(self) -> bool:
        """Whether the two can be told apart: by the p-value where there is one, else by the interval."""
        return self.clear if self.p is None else self.p <= LEVEL


@final
class Comparison(list[Difference]):
    """The differences of reports `a` and `b`, as a list that has a page and that a notebook shows as one."""

    def __init__(self, rows: Iterable[Difference], a: Report, b: Report) -> None:
        super().__init__(rows)
        self.a, self.b = a, b

    def page(self) -> str:
        """The comparison as one HTML file."""
        from casemate.report import comparison_html

        return comparison_html.render(self, self.a, self.b, same_samples=same_samples(self.a, self.b))

    def _repr_html_(self) -> str:
        from casemate.report.html import framed

        return framed(self.page())


def compare(folder_a: Path, folder_b: Path) -> Comparison:
    """Differences for every measurement that both reports hold."""
    a, b = report_in(folder_a), report_in(folder_b)
    return Comparison(compare_reports(a, b, folder_a, folder_b), a, b)


def compare_reports(a: Report, b: Report, folder_a: Path | None, folder_b: Path | None) -> list[Difference]:
    """The same for reports that are at hand; without folders, or with other test data, nothing can be paired."""
    left, right = _measurements(a), _measurements(b)
    rows = []
    for key in left:
        if key in right:
            values = None
            if folder_a is not None and folder_b is not None and same_samples(a, b):
                values = _paired_values((folder_a, a, left[key]), (folder_b, b, right[key]))
            rows.append(_difference(left[key], right[key], values))
    return _adjusted(rows)


def same_samples(a: Report, b: Report) -> bool:
    """Whether both tested on the same rows: without that, equal sample ids are those of different samples."""
    return "test" in a.data and "test" in b.data and a.data["test"].digest == b.data["test"].digest


def _adjusted(rows: list[Difference]) -> list[Difference]:
    families = {noted: [row.p for row in rows if row.p is not None and row.noted is noted] for noted in (True, False)}
    adjusted = {noted: iter(holm(family).tolist()) for noted, family in families.items()}
    return [row if row.p is None else replace(row, p=next(adjusted[row.noted])) for row in rows]


def _measurements(report: Report) -> dict[tuple[str, str, str, str], Evidence]:
    items = [(o.plugin, e) for o in report.outcomes for e in o.evidence]
    return {(plugin, e.metric, e.about, _place(e)): e for plugin, e in items}


def _place(item: Evidence) -> str:
    return ", ".join(f"{key} = {value}" for key, value in sorted(item.at.items()))


def _paired_values(a: tuple[Path, Report, Evidence], b: tuple[Path, Report, Evidence]) -> tuple[Values, Values] | None:
    found = []
    for folder, report, item in (a, b):
        values = _values(folder, report, item)
        if values is None:
            return None
        found.append(values)
    (ids_a, x_a), (ids_b, x_b) = found
    _, rows_a, rows_b = np.intersect1d(ids_a, ids_b, return_indices=True)
    return (x_a[rows_a], x_b[rows_b]) if len(rows_a) == len(ids_a) == len(ids_b) else None


def _values(folder: Path, report: Report, item: Evidence) -> tuple[Values, Values] | None:
    from casemate import catalog

    plugin = next((p for p in catalog.plugins() if item.metric in {m.name for m in p.metrics} and p.paired), None)
    if plugin is None or plugin.paired is None or not item.files or not set(item.files) <= set(report.files):
        return None
    try:
        found = plugin.paired(kept_arrays(folder, report, list(item.files)), item)
    except Unavailable:  # the evidence was removed: what is left to compare are the two intervals
        return None
    if found is None:  # nothing was kept per sample for this one of its measurements
        return None
    ids, values = found
    # Values whose mean is another number belong to another measurement: a pairing of those would be precise and wrong.
    return (ids, values) if len(values) and abs(float(np.mean(values)) - item.value) <= _TOLERANCE else None


def _difference(a: Evidence, b: Evidence, values: tuple[Values, Values] | None) -> Difference:
    where = a.metric, a.about, words.place(a), a.value, b.value
    noted = a.quantity is Quantity.NOTE
    better = -TABLE[a.quantity].worse if a.quantity in TABLE else 0
    if values is None:
        return Difference(
            *where, b.low - a.high, b.high - a.low, min(a.n, b.n), paired=False, noted=noted, better=better
        )
    first, second = values
    got = _paired(second, first, f"{a.metric} {_place(a)}")
    p = mcnemar_exact(int(np.sum(first > second)), int(np.sum(first < second))) if _binary(values) else None
    return Difference(*where, got.low, got.high, got.n, paired=True, p=p, noted=noted, better=better)


def _paired(b: Values, a: Values, name: str) -> Interval:
    if _binary((a, b)):
        return paired_difference(b, a)
    return paired_bootstrap(b, a, rng=stream(0, "compare", name))


def _binary(values: tuple[Values, Values]) -> bool:
    return all(bool(np.isin(side, (0, 1)).all()) for side in values)
