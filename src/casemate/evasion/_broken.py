"""Exhibits of samples before and after: what an attack broke nearest to the originals, of as many classes as can be."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.exhibit import MOST, pictures, rows, texts_changed
from casemate.core.facets import DataKind
from casemate.core.lab import Stored
from casemate.core.model import ABSTAIN, NO_ANSWER
from casemate.core.schema import Feature, FeatureKind

__all__ = ["before_after", "broken_samples"]

Array = NDArray[Any]


def broken_samples(case: Case, kept: Stored) -> Stored | None:
    """Up to 6 samples that an attack broke, before and after, from the kept brackets of one norm; None without any.

    Only samples within the largest eps that were right as they are; nearest first, one of each class before a second.
    """
    upper, largest = np.asarray(kept["upper"]), float(np.asarray(kept["eps"]).max())
    chosen = _nearest(upper, np.asarray(kept["y"]), largest)
    if not len(chosen):
        return None
    data = case.data("test")
    places = data.places(np.asarray(kept["sample_id"])[chosen])
    before, after = data.x[places], np.asarray(kept["witness"])[chosen].astype(data.x.dtype)
    was, now = np.asarray(kept["y"])[chosen], np.asarray(case.the_model().labels(after))
    norm = str(kept["norm"])
    farthest = f"{upper[chosen].max():.3g}"
    caption = f"{len(chosen)} of the samples broken nearest to their originals, {norm} distance at most {farthest}"
    return before_after(case, before, after, was=was, now=now, about=norm, caption=caption)


def before_after(
    case: Case, before: Array, after: Array, *, was: Array, now: Array, about: str, caption: str
) -> Stored:
    """Samples `(n, ...)` of the case and what became of them, as an exhibit; `was`, `now (n,)` are the labels given."""
    schema = case.data("test").schema
    told: dict[str, Any] = {"was": _classes(case, was), "now": _classes(case, now), "about": about, "caption": caption}
    if schema.kind is DataKind.TEXT:
        texts = ([str(text) for text in array] for array in (before, after))
        return texts_changed(*texts, **told)
    if schema.kind is DataKind.IMAGE:
        bounds = _bounds(schema.features[0], before)
        return pictures(before, after, **told, bounds=bounds)
    old, new = (_texts(schema.features, matrix) for matrix in (before, after))
    return rows(old, new, names=schema.names, **told)


def _nearest(upper: Array, y: Array, largest: float) -> NDArray[np.int64]:
    """The rows to show: in each round of classes the nearest one not yet taken, rounds in order of distance."""
    there = np.flatnonzero((upper > 0) & (upper <= largest * (1 + 1e-6)))
    there = there[np.argsort(upper[there], kind="stable")]
    turn = np.array([int(np.sum(y[there[:i]] == y[row])) for i, row in enumerate(there)], dtype=np.int64)
    return np.asarray(there[np.argsort(turn, kind="stable")][:MOST], dtype=np.int64)


def _classes(case: Case, labels: Array) -> list[str]:
    names = case.the_model().classes
    known = {ABSTAIN: "refused", NO_ANSWER: "no answer", **dict(enumerate(names))}
    return [known.get(int(label), str(int(label))) for label in labels]


def _bounds(pixel: Feature, images: Array) -> tuple[float, float]:
    if np.isfinite(pixel.lo) and np.isfinite(pixel.hi):
        return float(pixel.lo), float(pixel.hi)
    return float(images.min()), float(images.max())


def _texts(features: tuple[Feature, ...], matrix: Array) -> Array:
    """A matrix `(n, d)` as people read it: names of categories, whole numbers whole, four digits of others."""
    return np.array([[_text(f, float(v)) for f, v in zip(features, row, strict=True)] for row in matrix], dtype=object)


def _text(feature: Feature, value: float) -> str:
    if np.isnan(value):
        return "missing"
    if feature.kind is FeatureKind.CATEGORY:
        index = int(value)
        return feature.categories[index] if 0 <= index < len(feature.categories) else f"category {index}"
    if value == round(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) >= 1000 else f"{value:.4g}"
