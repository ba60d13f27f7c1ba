"""Probes: a few made-up samples of a schema, to ask a model what it is before any data is there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.facets import DataKind
from casemate.core.rng import stream
from casemate.core.schema import FeatureKind, Schema

__all__ = ["probes"]


def probes(schema: Schema, n: int) -> NDArray[Any]:
    """`n` samples that keep the schema's bounds, kinds and categories (not its relations); always the same ones.

    Where a bound is not known, three scales around zero or around the other bound.
    """
    rng = stream(0, "adapters", "probes")
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
