"""The geometry of bars by group: each group's rate from zero, with its interval, all subjects of a metric on one axis.

Numbers only, in percent of the width; the template draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.exhibit import GROUPS, SUBJECTS

__all__ = ["GroupBar", "Subject", "subjects"]

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GroupBar:
    """One group: its numbers, whether it is the `highest` or `lowest` of its subject, and where each end is drawn."""

    name: str
    value: float
    low: float
    high: float
    n: int
    end: str
    x: float
    width: float
    x_low: float
    x_high: float


@dataclass(frozen=True, slots=True)
class Subject:
    """The groups of one subject; the axis reaches from `least` to `most`, with 0 at `zero` percent of the width.

    `thin` names the groups with too few rows, `between` counts those that are not drawn, `left_out` other subjects.
    """

    about: str
    bars: tuple[GroupBar, ...]
    thin: tuple[str, ...]
    between: int
    left_out: int
    confidence: float
    least: float
    most: float
    zero: float

    def told(self, x: float) -> str:
        """A number of these groups: three decimals, or five where all are small."""
        return f"{x:.{3 if max(-self.least, self.most) >= 0.02 else 5}f}".replace("-", "\u2212")


def subjects(kept: Mapping[str, Any]) -> list[Subject]:
    """The subjects of an exhibit of bars. Raises `ValueError` or `KeyError` for one that no probe would make."""
    abouts = [str(about) for about in kept["subjects"]][:SUBJECTS]
    numbers = [_numbers(kept, place) for place in range(len(abouts))]
    if not numbers:
        raise ValueError("expected at least one subject")
    ends = np.concatenate([part[:3].ravel() for part in numbers])
    confidence = float(kept["confidence"])
    if not 0 < confidence < 1:
        raise ValueError("expected a confidence between 0 and 1")
    least, most = min(0.0, float(ends.min())), max(0.0, float(ends.max()))
    span = (most - least) or 1.0
    return [
        Subject(
            about,
            _bars([str(name) for name in kept[f"names{i}"]], numbers[i], least, span),
            tuple(str(name) for name in kept[f"thin{i}"])[: GROUPS + 1],
            max(int(kept[f"between{i}"]), 0),
            max(int(kept["left_out"]), 0),
            confidence,
            least,
            most,
            _zero(least, span),
        )
        for i, about in enumerate(abouts)
    ]


def _numbers(kept: Mapping[str, Any], place: int) -> Values:
    """Value, low, high and n of the groups, `(4, g)`."""
    found = np.stack([np.asarray(kept[f"{name}{place}"], np.float64) for name in ("value", "low", "high", "n")])
    value, low, high, n = found
    if found.ndim != 2 or not 0 < found.shape[1] <= GROUPS or found.shape[1] != len(kept[f"names{place}"]):
        raise ValueError(f"expected between 1 and {GROUPS} groups with a name each")
    if not (np.isfinite(found).all() and (np.abs(found[:3]) <= 1).all() and ((n >= 0) & (n < 2**53)).all()):
        raise ValueError("expected rates in [-1, 1] and counts")
    if not ((low <= value) & (value <= high)).all():
        raise ValueError("expected intervals that hold their values")
    return found


def _bars(names: list[str], numbers: Values, least: float, span: float) -> tuple[GroupBar, ...]:
    value = numbers[0]
    ends = {int(np.argmin(value)): "lowest", int(np.argmax(value)): "highest"} if np.ptp(value) > 0 else {}
    zero, found = _zero(least, span), []
    for i, name in enumerate(names):
        at, low, high = (round(100 * (float(x) - least) / span, 2) for x in numbers[:3, i])
        shown, told = (min(zero, at), round(abs(at - zero), 2), low, high), [float(x) for x in numbers[:3, i]]
        found.append(GroupBar(name, told[0], told[1], told[2], int(numbers[3, i]), ends.get(i, ""), *shown))
    return tuple(found)


def _zero(least: float, span: float) -> float:
    return round(100 * abs(least) / span, 2)
