"""Probes: a few made-up samples of a schema, to ask a model what it is before any data is there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.data import texts
from casemate.core.facets import DataKind
from casemate.core.rng import stream
from casemate.core.schema import FeatureKind, Schema

__all__ = ["probes"]

_WORDS = (
    "please",
    "send",
    "the",
    "report",
    "by",
    "Friday,",
    "at",
    "10",
    "o'clock",
    "to",
    "info@example.org",
    "thanks!",
)


def probes(schema: Schema, n: int) -> NDArray[Any]:
    """`n` samples that keep the schema's bounds, kinds and categories (not its relations); always the same ones.

    Where a bound is not known, three scales around zero or around the other bound. Texts are a few words each.
    """
    rng = stream(0, "adapters", "probes")
    if schema.kind is DataKind.TEXT:
        return texts(" ".join(rng.choice(_WORDS, size=rng.integers(1, 12))) for _ in range(n))
    unit = rng.random((n, *schema.shape))
    scale = np.where(schema.scale > 0, schema.scale, 1.0)
    lo = np.where(
        np.isfinite(schema.lo), schema.lo, np.where(np.isfinite(schema.hi), schema.hi - 6 * scale, -3 * scale)
    )
    hi = np.where(np.isfinite(schema.hi), schema.hi, lo + 6 * scale)
    x = np.asarray(lo + unit * (hi - lo))
    if schema.kind is DataKind.IMAGE:
        return x.astype(np.float32)
    for column, feature in enumerate(schema.features):
        if feature.kind is not FeatureKind.NUMERIC:
            x[:, column] = np.clip(np.rint(x[:, column]), np.ceil(lo[column]), np.floor(hi[column]))
    _set_blocks(x, schema, rng)
    return x


def _set_blocks(x: NDArray[Any], schema: Schema, rng: np.random.Generator) -> None:
    for block in sorted({feature.block for feature in schema.features if feature.block}):
        columns = [i for i, feature in enumerate(schema.features) if feature.block == block]
        x[:, columns] = np.eye(len(columns))[rng.integers(len(columns), size=len(x))]
