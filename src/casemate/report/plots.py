"""The geometry of plain line plots: curves that a probe shows, such as a ROC, and accuracy against a severity.

Numbers only, in units of the view box; the template draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.evidence import Evidence
from casemate.core.report import Report
from casemate.report import words

__all__ = ["Line", "Panel", "Plot", "Trend", "line_plots", "trends"]

Values = NDArray[Any]

WIDTH, HEIGHT = 314.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 10.0, 10.0, 42.0
PANEL_WIDTH, PANEL_HEIGHT = 150.0, 88.0
_FLOOR = 1e-4  # the least rate that a logarithmic axis shows
_HUGE = 1e100  # beyond it, differences overflow
_POINTS = 300  # most points of a line
_LINES = 4  # most lines that a reader can tell apart by dashes
_PANELS = 12
_FEWEST = 3  # values of a coordinate that make a trend


@dataclass(frozen=True, slots=True)
class Line:
    """One curve by name, as the points of an SVG polyline."""

    name: str
    points: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves on one pair of axes; `chance` is the diagonal, or nothing."""

    scale: str
    x_title: str
    y_title: str
    lines: tuple[Line, ...]
    left_out: int
    chance: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One small picture of a trend: points (x, y, y of the interval's ends), and its first and last value in words."""

    name: str
    points: tuple[tuple[float, float, float, float], ...]
    items: tuple[Evidence, ...]
    band: str
    first: str
    last: str

    @property
    def line(self) -> str:
        """The line as the points of an SVG polyline."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in self.points)


@dataclass(frozen=True, slots=True)
class Trend:
    """How a share changes with one coordinate, a panel for each subject."""

    plugin: str
    title: str
    key: str
    panels: tuple[Panel, ...]
    left_out: int


def line_plots(
    series: Mapping[str, tuple[Values, Values]], titles: tuple[str, str], *, x_log: bool, diagonal: bool
) -> tuple[Plot, ...]:
    """Curves `(x (m,), y (m,))` on even axes; with `x_log` on logarithmic ones too (y as well beside a diagonal).

    Raises `ValueError` for a curve that is empty, not finite or of unequal lengths.
    """
    for x, y in series.values():
        if x.ndim != 1 or x.shape != y.shape or not len(x) or not (np.abs(np.stack([x, y])) < _HUGE).all():
            raise ValueError("expected finite x and y of equal length")
    if not series:
        raise ValueError("expected at least one curve")
    plain = _plot(series, titles, log=(False, False), diagonal=diagonal)
    return (plain, _plot(series, titles, log=(True, diagonal), diagonal=diagonal)) if x_log else (plain,)


def _plot(
    series: Mapping[str, tuple[Values, Values]], titles: tuple[str, str], *, log: tuple[bool, bool], diagonal: bool
) -> Plot:
    shown = dict(list(series.items())[:_LINES])
    ends = [_domain(np.concatenate([pair[axis] for pair in shown.values()]), log=log[axis]) for axis in (0, 1)]
    if diagonal:
        ends = [(min(e[0] for e in ends), max(e[1] for e in ends))] * 2

    def across(x: Values) -> Values:
        return LEFT + (WIDTH - LEFT - RIGHT) * _share(x, ends[0], log=log[0])

    def up(y: Values) -> Values:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - _share(y, ends[1], log=log[1]))

    corners = np.array(ends[0])
    ticks = [_ticks(end, log=on) for end, on in zip(ends, log, strict=True)]
    return Plot(
        scale={(False, False): "even axes", (True, True): "both axes logarithmic"}.get(log, "x logarithmic"),
        x_title=titles[0],
        y_title=titles[1],
        lines=tuple(Line(name, _joined(across(x), up(y))) for name, (x, y) in shown.items()),
        left_out=len(series) - len(shown),
        chance=_joined(across(corners), up(corners)) if diagonal else "",
        x_ticks=tuple((round(float(across(np.array(t))), 1), f"{t:g}") for t in ticks[0]),
        y_ticks=tuple((round(float(up(np.array(t))), 1), f"{t:g}") for t in ticks[1]),
    )


def _domain(values: Values, *, log: bool) -> tuple[float, float]:
    """Rates are drawn on all of [0, 1], other values from the least to the largest."""
    low, high = float(values.min()), float(values.max())
    if log:
        positive = values[values > 0]
        least = max(float(positive.min()) if len(positive) else _FLOOR, _FLOOR)
        return 10 ** math.floor(math.log10(least)), max(1.0, high)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _share(values: Values, ends: tuple[float, float], *, log: bool) -> Values:
    held = np.clip(values, *ends)
    if log:
        return np.asarray(np.log(held / ends[0]) / math.log(ends[1] / ends[0]))
    return np.asarray((held - ends[0]) / (ends[1] - ends[0]))


def _ticks(ends: tuple[float, float], *, log: bool) -> list[float]:
    if log:
        decades = range(round(math.log10(ends[0])), math.floor(math.log10(ends[1])) + 1)
        return [10.0**k for k in decades[:: math.ceil(len(decades) / 6)]]
    return [ends[0] + (ends[1] - ends[0]) * k / 4 for k in range(5)]


def _joined(x: Values, y: Values) -> str:
    """The points of a line, to a tenth of a unit, without repeats and at most some hundreds."""
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), 4 * _POINTS)).astype(np.int64))
    told = [f"{a:.1f},{b:.1f}" for a, b in zip(x[keep], y[keep], strict=True)]
    found = [point for i, point in enumerate(told) if i == 0 or point != told[i - 1]]
    step = math.ceil(len(found) / _POINTS)
    return " ".join([*found[:-1:step], found[-1]])


def trends(report: Report) -> list[Trend]:
    """Shares that were measured at three values or more of one coordinate other than eps, by plug-in and metric."""
    found: dict[tuple[str, str, str], dict[str, list[Evidence]]] = {}
    for outcome in report.outcomes:
        for item in outcome.evidence:
            key = _coordinate(item)
            if key:
                panels = found.setdefault((outcome.plugin, item.metric, key), {})
                panels.setdefault(_name(item, key), []).append(item)
    drawn = []
    for (plugin, metric, key), panels in sorted(found.items()):
        wide = {name: items for name, items in sorted(panels.items()) if len({i.at[key] for i in items}) >= _FEWEST}
        if wide:
            shown = tuple(_panel(name, items, key) for name, items in list(wide.items())[:_PANELS])
            drawn.append(Trend(plugin, words.metric(metric), key, shown, len(wide) - len(shown)))
    return drawn


def _coordinate(item: Evidence) -> str:
    """The one numeric coordinate of a share, or nothing."""
    numeric = [key for key, x in item.at.items() if isinstance(x, int | float) and not isinstance(x, bool)]
    return numeric[0] if item.unit == "share" and len(numeric) == 1 and numeric[0] != "eps" else ""


def _name(item: Evidence, key: str) -> str:
    return ", ".join(words.parts(replace(item, at={k: x for k, x in item.at.items() if k != key})))


def _panel(name: str, items: list[Evidence], key: str) -> Panel:
    by_x = {float(item.at[key]): item for item in items}
    order = sorted(by_x)
    span = order[-1] - order[0]
    places = [6 + (PANEL_WIDTH - 12) * (x - order[0]) / span for x in order]
    chosen = tuple(by_x[x] for x in order)
    points = tuple((round(x, 1), _y(i.value), _y(i.low), _y(i.high)) for x, i in zip(places, chosen, strict=True))
    corners = [(x, high) for x, _, _, high in points] + [(x, low) for x, _, low, _ in points[::-1]]
    band = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return Panel(name, points, chosen, band, words.plain(chosen[0]), words.plain(chosen[-1]))


def _y(share: float) -> float:
    return round(6 + (PANEL_HEIGHT - 12) * (1 - min(max(share, 0.0), 1.0)), 1)
