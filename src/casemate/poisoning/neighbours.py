"""Rows whose label is not that of the rows most like them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.facets import Facet
from casemate.core.lab import Lab, Stored
from casemate.core.options import Count
from casemate.core.plugin import detector
from casemate.errors import Unavailable
from casemate.poisoning import THREAT

__all__ = ["NeighboursOptions", "disagreement", "neighbours_disagree"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
_CELLS = 1 << 24  # distances that are held at a time


@dataclass(frozen=True, slots=True)
class NeighboursOptions:
    """`k` neighbours, looked for among at most `landmarks` rows."""

    k: Count = 10
    landmarks: Count = 10_000


@detector(
    threat=THREAT,
    source="Fix and Hodges, USAF School of Aviation Medicine, 1951 (nearest neighbours); Wilson, IEEE Trans. SMC 2, "
    "1972 (rows that their neighbours contradict); Dudani, IEEE Trans. SMC 6, 1976 (weights by distance)",
    needs={Facet.TRAIN},
    options=NeighboursOptions,
)
def neighbours_disagree(case: Case, lab: Lab) -> Stored:
    """The share of each row's nearest neighbours (by content alone) that have another label, the nearer counting more.

    Blind to a trigger that moves a row in the embedding so far that its neighbours carry it too.
    """
    options: NeighboursOptions = lab.options
    data = case.data("train")
    if data.y is None or data.y.dtype.kind == "f":
        raise Unavailable("expected rows with classes, got none: name the target column")
    found = lab.get("poisoning/embeddings", case)
    among = np.sort(lab.rng("landmarks").permutation(len(data))[: options.landmarks])
    score = disagreement(np.asarray(found["content"]), data.labels, among, options.k)
    told = f"nearest {options.k} rows by {found['of']}, among {len(among):,} rows"
    return {"score": score, "reason": "other rows like it have another label", "method": told}


def disagreement(content: Array, y: Array, among: Array, k: int) -> Floats:
    """Share of the weight of each row's `k` nearest rows of `among` (itself not) with another label, `(n,)`.

    The weight of a neighbour falls linearly from 1 at distance 0 to 0 at the distance of the (k + 1)-th.
    """
    k = min(k, len(among) - 2)
    if k < 1:
        return np.zeros(len(content))
    points = content[among].astype(np.float32)
    size = (points**2).sum(axis=1)
    place = np.full(len(content), -1)
    place[among] = np.arange(len(among))
    score = np.empty(len(content))
    step = max(1, _CELLS // len(among))
    for begin in range(0, len(content), step):
        part = slice(begin, begin + step)
        rows = content[part].astype(np.float32)
        far = size[None, :] - 2 * rows @ points.T + (rows**2).sum(axis=1)[:, None]
        own = place[part]
        far[np.flatnonzero(own >= 0), own[own >= 0]] = np.inf
        near = np.argpartition(far, k, axis=1)[:, : k + 1]
        distance = np.sqrt(np.maximum(np.take_along_axis(far, near, axis=1), 0.0).astype(np.float64))
        weight = 1 - distance / np.maximum(distance.max(axis=1, keepdims=True), 1e-12)
        weight += 1e-9  # all as far as each other: each counts the same
        other = y[among][near] != y[part, None]
        score[part] = (weight * other).sum(axis=1) / weight.sum(axis=1)
    return score
