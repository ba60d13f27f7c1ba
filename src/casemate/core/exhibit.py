"""Exhibits: the few samples, curves and bars that a report shows beside its numbers, as plain arrays.

A probe builds one here and gives it to `lab.show`; it becomes a small file of evidence, and every report format that
can draw does so. They illustrate: no number of a report is computed from one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.lab import Stored
from casemate.errors import LawBroken

__all__ = ["GROUPS", "MOST", "SUBJECTS", "Groups", "bars", "lines", "pictures", "rows", "texts_changed"]

Array = NDArray[Any]

MOST = 6
"""Most samples in one exhibit: a report is read by people."""

GROUPS, SUBJECTS = 24, 16
"""Most groups of one subject, and most subjects, in one exhibit of bars."""


@dataclass(frozen=True, slots=True)
class Groups:
    """One number for each group of a subject: `value, low, high (g,)`, from `n (g,)` rows; `thin` names those without.

    `about` is the subject of the evidence that they belong to.
    """

    about: str
    names: Sequence[str]
    value: Array
    low: Array
    high: Array
    n: Array
    thin: Sequence[str] = ()


def pictures(
    original: Array,
    changed: Array,
    *,
    was: Sequence[str],
    now: Sequence[str],
    bounds: tuple[float, float],
    about: str = "",
    caption: str = "",
) -> Stored:
    """Images `(n, c, h, w)` before and after, and what the model answered to each: `was (n,)`, `now (n,)`."""
    _same(original, changed, was, now)
    return {
        "exhibit": "pictures",
        "original": np.asarray(original[:MOST], np.float32),
        "changed": np.asarray(changed[:MOST], np.float32),
        "was": [str(item) for item in was[:MOST]],
        "now": [str(item) for item in now[:MOST]],
        "bounds": [float(bounds[0]), float(bounds[1])],
        "about": about,
        "caption": caption,
    }


def rows(
    original: Array,
    changed: Array,
    *,
    names: Sequence[str],
    was: Sequence[str],
    now: Sequence[str],
    about: str = "",
    caption: str = "",
) -> Stored:
    """Rows of a table before and after, as texts `(n, d)` that people know (a category by its name, not its index)."""
    _same(original, changed, was, now)
    return {
        "exhibit": "rows",
        "original": np.asarray(original[:MOST]).astype(str),
        "changed": np.asarray(changed[:MOST]).astype(str),
        "names": [str(name) for name in names],
        "was": [str(item) for item in was[:MOST]],
        "now": [str(item) for item in now[:MOST]],
        "about": about,
        "caption": caption,
    }


def texts_changed(
    original: Sequence[str],
    changed: Sequence[str],
    *,
    was: Sequence[str],
    now: Sequence[str],
    about: str = "",
    caption: str = "",
) -> Stored:
    """Texts before and after `(n,)`; words are told apart at white space."""
    _same(original, changed, was, now)
    return {
        "exhibit": "texts",
        "original": [str(item) for item in original[:MOST]],
        "changed": [str(item) for item in changed[:MOST]],
        "was": [str(item) for item in was[:MOST]],
        "now": [str(item) for item in now[:MOST]],
        "about": about,
        "caption": caption,
    }


def lines(
    series: dict[str, tuple[Array, Array]],
    *,
    x: str,
    y: str,
    x_log: bool = False,
    diagonal: bool = False,
    about: str = "",
    caption: str = "",
) -> Stored:
    """Curves by name, each `(x (m,), y (m,))` with y in [0, 1], such as a ROC curve (`diagonal`: chance)."""
    kept: dict[str, Any] = {"exhibit": "lines", "names": list(series), "x_title": x, "y_title": y}
    for place, (xs, ys) in enumerate(series.values()):
        if len(xs) != len(ys) or not len(xs):
            raise LawBroken(f"expected as many x as y in an exhibit, got {len(xs)} and {len(ys)}: mend the probe")
        kept[f"x{place}"], kept[f"y{place}"] = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
    return {**kept, "x_log": x_log, "diagonal": diagonal, "about": about, "caption": caption}


def bars(subjects: Sequence[Groups], *, metric: str, confidence: float, caption: str = "") -> Stored:
    """The groups behind gaps of one metric, in the order given; the intervals of one subject hold all at once.

    Of many subjects those that are furthest apart are kept, of many groups of one the highest and the lowest. Raises
    `LawBroken` for no subject, a subject of no group, or groups with fewer intervals than names.
    """
    if not subjects:
        raise LawBroken("expected at least one subject in an exhibit, got none: mend the probe")
    for item in subjects:
        _same(item.names, item.value, item.low, item.high, item.n)
    widest = sorted(range(len(subjects)), key=lambda i: -float(np.ptp(subjects[i].value)))[:SUBJECTS]
    stored: dict[str, Any] = {
        "exhibit": "bars",
        "metric": metric,
        "subjects": [subjects[i].about for i in sorted(widest)],
    }
    for place, item in enumerate(subjects[i] for i in sorted(widest)):
        order, half = np.argsort(-item.value, kind="stable"), GROUPS // 2
        shown = np.sort(order if len(order) <= GROUPS else np.concatenate([order[:half], order[-half:]]))
        stored[f"names{place}"] = [str(item.names[i]) for i in shown]
        for name in ("value", "low", "high", "n"):
            stored[f"{name}{place}"] = np.asarray(getattr(item, name), np.float64)[shown]
        more = [f"{len(item.thin) - GROUPS} more"] if len(item.thin) > GROUPS else []
        stored[f"thin{place}"] = [*(str(name) for name in item.thin[:GROUPS]), *more]
        stored[f"between{place}"] = len(order) - len(shown)
    left = len(subjects) - len(widest)
    return {**stored, "left_out": left, "confidence": float(confidence), "about": "", "caption": caption}


def _same(*parts: Sequence[Any] | Array) -> None:
    if len({len(part) for part in parts}) != 1 or not len(parts[0]):
        raise LawBroken("expected an exhibit with as many samples before as after, and at least one: mend the probe")
