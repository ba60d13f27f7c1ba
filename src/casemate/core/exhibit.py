"""Exhibits: the few samples and curves that a report shows beside its numbers, as plain arrays.

A probe builds one here and gives it to `lab.show`; it becomes a small file of evidence, and every report format that
can draw does so. They illustrate: no number of a report is computed from one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.lab import Stored
from casemate.errors import LawBroken

__all__ = ["MOST", "lines", "pictures", "rows", "texts_changed"]

Array = NDArray[Any]

MOST = 6
"""Most samples in one exhibit: a report is read by people."""


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


def _same(*parts: Sequence[Any] | Array) -> None:
    if len({len(part) for part in parts}) != 1 or not len(parts[0]):
        raise LawBroken("expected an exhibit with as many samples before as after, and at least one: mend the probe")
