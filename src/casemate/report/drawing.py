"""The geometry of the report's pictures: where an interval lies among the severities, and accuracy against eps.

Only numbers come from here, in percent of the width (bars) or in units of the view box (curves); the template draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from casemate.core.evidence import Direction, Evidence, Quantity
from casemate.core.judgement import TABLE, Scale
from casemate.core.policy import Gate
from casemate.core.report import Report
from casemate.report import words

__all__ = ["Bar", "Curve", "Difference", "Point", "Series", "Zone", "bar", "curves", "difference"]

_LOGARITHMIC = frozenset({Quantity.LIFT, Quantity.P_VALUE})
_SEVERITIES = ("none", "low", "medium", "high", "critical")
_LEAST_P = 1e-10


@dataclass(frozen=True, slots=True)
class Zone:
    """The stretch of a bar that one severity takes, in percent of the width."""

    x: float
    width: float
    word: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its interval among the zones of severity; all positions in percent of the width."""

    low: float
    value: float
    high: float
    zones: tuple[Zone, ...]
    errs: Direction


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference with its interval on an axis whose middle is 0; all positions in percent of the width."""

    low: float
    value: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement of a curve: where it is drawn, and the measurement."""

    x: float
    y: float
    y_low: float
    y_high: float
    item: Evidence


@dataclass(frozen=True, slots=True)
class Series:
    """One line: the tightest bounds of `metrics`; `upper` ones come from attacks, lower ones from certificates."""

    metrics: str
    upper: bool
    points: tuple[Point, ...]

    @property
    def line(self) -> str:
        """The line as the points of an SVG polyline."""
        return " ".join(f"{p.x:.1f},{p.y:.1f}" for p in self.points)


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy against eps: the truth lies in `band`, between the lowest upper and the highest lower bound.

    `bars` are what the policy's gates ask for: where, how much, and in words.
    """

    title: str
    plugin: str
    series: tuple[Series, ...]
    band: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    bars: tuple[tuple[float, float, str], ...] = ()

    @property
    def certified(self) -> bool:
        """Whether there is a lower bound at all."""
        return any(not series.upper for series in self.series)


WIDTH, HEIGHT = 440.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 34.0, 8.0, 10.0, 36.0


def bar(item: Evidence, peers: Sequence[Evidence] = ()) -> Bar | None:
    """The bar of one measurement, or `None` for what no severity is read from (notes) and for a plain yes or no.

    Measurements of one kind that are drawn below each other are each other's `peers`: they share a scale.
    """
    scale = TABLE.get(item.quantity)
    if scale is None or item.quantity is Quantity.DEFECT:
        return None
    numbers = _in_units(item)
    shown = [numbers, *(_in_units(peer) for peer in peers if peer.quantity is item.quantity)]
    low, high = _domain(item.quantity, min(x[0] for x in shown), max(x[2] for x in shown))
    logarithmic = item.quantity in _LOGARITHMIC

    def at(x: float) -> float:
        x = min(max(x, low), high)
        if logarithmic:
            return round(100 * math.log(x / low) / math.log(high / low), 2)
        return round(100 * (x - low) / (high - low), 2)

    places = [at(x) for x in numbers]
    zones = tuple(Zone(at(a), round(at(b) - at(a), 2), word) for a, b, word in _stretches(scale, low, high))
    return Bar(places[0], places[1], places[2], tuple(z for z in zones if z.width > 0), item.errs)


def _in_units(item: Evidence) -> list[float]:
    unit = item.baseline if item.quantity is Quantity.LIFT and item.baseline else 1.0
    return [x / unit for x in (item.low, item.value, item.high)]


def _domain(quantity: Quantity, low: float, high: float) -> tuple[float, float]:
    if quantity is Quantity.RATE_GAP:
        return 0.0, max(0.6, min(1.0, high * 1.05))
    if quantity is Quantity.AUC:
        return min(0.5, low), 1.0
    if quantity is Quantity.LIFT:
        return max(0.1, min(1.0, low)), max(100.0, high)
    if quantity is Quantity.P_VALUE:
        return _LEAST_P, 1.0
    return min(0.0, low), max(1.0, high)


def _stretches(scale: Scale, low: float, high: float) -> Iterable[tuple[float, float, str]]:
    begins = [scale.low, scale.medium, scale.high, scale.critical]
    if scale.worse > 0:
        edges, zones = [low, *begins, high], _SEVERITIES
    else:
        edges, zones = [low, *begins[::-1], high], _SEVERITIES[::-1]
    edges = [min(max(edge, low), high) for edge in edges]
    return zip(edges, edges[1:], zones, strict=False)


def difference(low: float, value: float, high: float, reach: float) -> Difference | None:
    """Where a difference lies on an axis from `-reach` to `reach`; what is beyond is drawn at the end."""
    if not reach > 0:
        return None
    return Difference(*(round(50 + 50 * min(max(x / reach, -1.0), 1.0), 2) for x in (low, value, high)))


def curves(report: Report) -> list[Curve]:
    """One picture for each plug-in, subject and norm whose robustness was measured at two values of eps or more."""
    groups: dict[tuple[str, str], list[Evidence]] = {}
    for outcome in report.outcomes:
        for item in outcome.evidence:
            if _is_bound(item):
                groups.setdefault((outcome.plugin, _subject(item)), []).append(item)
    return [
        _curve(plugin, subject, items, report.policy.gates)
        for (plugin, subject), items in sorted(groups.items())
        if any(item.quantity is Quantity.ROBUSTNESS for item in items) and len({_eps(item) for item in items}) > 1
    ]


def _is_bound(item: Evidence) -> bool:
    """Whether this bounds an accuracy at some eps: an attack's robustness, or a note beside it with the same unit."""
    eps = item.at.get("eps")
    return (
        item.quantity in (Quantity.ROBUSTNESS, Quantity.NOTE)
        and item.unit == "share"
        and item.errs in (Direction.TOO_HIGH, Direction.TOO_LOW)
        and isinstance(eps, int | float)
        and math.isfinite(eps)
    )


def _eps(item: Evidence) -> float:
    return float(item.at["eps"])


def _subject(item: Evidence) -> str:
    return ", ".join(words.parts(replace(item, at={key: x for key, x in item.at.items() if key != "eps"})))


def _curve(plugin: str, subject: str, items: Sequence[Evidence], gates: Sequence[Gate]) -> Curve:
    largest = max(_eps(item) for item in items) or 1.0
    sides = [[item for item in items if item.errs is errs] for errs in (Direction.TOO_HIGH, Direction.TOO_LOW)]
    # a proof of 0 proves nothing: without a better one the picture says that nothing was certified
    told = [side for side in sides if any(item.value > 0 or item.errs is Direction.TOO_HIGH for item in side)]
    lines = tuple(_series(side, largest) for side in told)
    ticks = [largest * k / 4 for k in range(5)]
    return Curve(
        title=subject or plugin,
        plugin=plugin,
        series=lines,
        band=_band(lines),
        x_ticks=tuple((_x(eps, largest), f"{eps:.3g}") for eps in ticks),
        y_ticks=tuple((_y(share), f"{share:g}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)),
        bars=tuple(_asked(gate, largest) for gate in gates if _concerns(gate, items)),
    )


def _concerns(gate: Gate, items: Sequence[Evidence]) -> bool:
    """Whether a gate asks for a least accuracy at an eps of this curve."""
    return gate.min is not None and any(
        item.metric == gate.metric
        and gate.about in ("", item.about)
        and "eps" in gate.at
        and all(item.at.get(key) == value for key, value in gate.at.items())
        for item in items
    )


def _asked(gate: Gate, largest: float) -> tuple[float, float, str]:
    least = 0.0 if gate.min is None else gate.min
    return _x(float(gate.at["eps"]), largest), _y(least), f"at least {least:g} at eps = {gate.at['eps']:g}"


def _series(items: Sequence[Evidence], largest: float) -> Series:
    """The tightest bound at each eps, whichever metric gave it."""
    upper = items[0].errs is Direction.TOO_HIGH
    tightest: dict[float, Evidence] = {}
    for item in sorted(items, key=lambda item: (item.value if upper else -item.value, item.metric)):
        tightest.setdefault(float(f"{_eps(item):.9g}"), item)  # 0.1 and 0.2 / 2 + 1e-17 are one eps
    points = tuple(
        Point(_x(eps, largest), _y(item.value), _y(item.low), _y(item.high), item)
        for eps, item in sorted(tightest.items())
    )
    return Series(", ".join(sorted({item.metric for item in items})), upper, points)


def _band(lines: Sequence[Series]) -> str:
    """The corners of the area between the bounds; down to 0 where nothing is certified."""
    upper = next((s.points for s in lines if s.upper), ())
    lower = next((s.points for s in lines if not s.upper), ())
    if not upper:
        return ""
    floor = [(p.x, p.y) for p in lower] or [(upper[0].x, _y(0.0)), (upper[-1].x, _y(0.0))]
    corners = [(p.x, p.y) for p in upper] + floor[::-1]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)


def _x(eps: float, largest: float) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * eps / largest, 1)


def _y(share: float) -> float:
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(share, 0.0), 1.0)), 1)
