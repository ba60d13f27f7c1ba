"""What one sample looks like, and which changes to it are possible."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from casemate.core.facets import DataKind
from casemate.core.norms import Switch
from casemate.errors import DataError

__all__ = ["Feature", "FeatureKind", "Relation", "Schema"]

_TOLERANCE = 1e-6  # float32 inputs carry about seven digits; a bound is not broken by rounding
_ROUNDING = 2.0**-24  # of a whole number in float32, which stays whole: below 2^24 none at all
_CELLS = 1 << 20  # values that are looked at together, so that a large matrix is never copied whole


class FeatureKind(StrEnum):
    """How the values of a feature are written in the float matrix."""

    NUMERIC = "numeric"
    INTEGER = "integer"
    CATEGORY = "category"  # the value is an index into `categories`


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of a table, or every pixel of an image at once.

    `scale` is the unit in which a perturbation of this feature is measured (a table's eps is in units of it); an
    `immutable` feature cannot be changed by an attacker. Bounds of `-inf` and `inf` mean none are known. A category has
    no distance: an attacker changes it only where the user gives its `switch_cost` (all columns of a block the same).
    """

    name: str
    kind: FeatureKind = FeatureKind.NUMERIC
    lo: float = float("-inf")
    hi: float = float("inf")
    scale: float = 1.0
    immutable: bool = False
    missing_ok: bool = False
    categories: tuple[str, ...] = ()
    block: str = ""  # the name of the one-hot block this column belongs to
    switch_cost: float = float("inf")  # what another category (of the block) costs an attacker, in units of eps

    def __post_init__(self) -> None:
        if not self.lo <= self.hi:
            raise DataError(f"expected lo <= hi for feature {self.name!r}, got [{self.lo}, {self.hi}]: swap the bounds")
        if not 0 < self.scale < float("inf"):
            raise DataError(f"expected a positive scale for feature {self.name!r}, got {self.scale}: declare a scale")
        if not self.switch_cost > 0:
            raise DataError(
                f"expected a positive switch_cost for feature {self.name!r}, got {self.switch_cost}: declare its price"
            )
        if self.switch_cost < float("inf") and self.kind is not FeatureKind.CATEGORY and not self.block:
            raise DataError(
                f"expected switch_cost for a category or a one-hot column only, got it for {self.name!r}: set its scale"
            )


@dataclass(frozen=True, slots=True)
class Relation:
    """`left <= right` holds between two columns of every real row."""

    left: str
    right: str


@dataclass(frozen=True)
class Schema:
    """The shape of one sample and what is known of its features.

    Tables are float matrices `(n, d)` with one `Feature` a column (categories are indices); images are `(n, c, h, w)`
    and have a single `Feature` that describes every pixel. Texts `(n,)` have none and the shape `()`.
    """

    kind: DataKind
    shape: tuple[int, ...]
    features: tuple[Feature, ...] = ()
    relations: tuple[Relation, ...] = ()

    def __post_init__(self) -> None:
        if self.kind is DataKind.TABLE and (len(self.shape) != 1 or len(self.features) != self.shape[0]):
            raise DataError(
                f"expected one feature for each column of a table, got {len(self.features)} features for shape "
                f"{self.shape}: describe every column"
            )
        if self.kind is DataKind.TEXT and (self.shape or self.features):
            raise DataError(f"expected no features and shape () for texts, got {self.shape}: describe nothing")
        if self.kind is DataKind.IMAGE and len(self.features) != 1:
            raise DataError(f"expected one feature that describes all pixels, got {len(self.features)}: give one")
        names = set(self.names)
        for relation in self.relations:
            if not {relation.left, relation.right} <= names:
                raise DataError(f"expected known columns in the relation {relation.left} <= {relation.right}: mend it")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features, in column order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def lo(self) -> NDArray[np.float64]:
        """Lower bounds, broadcastable to one sample."""
        return self._spread([feature.lo for feature in self.features])

    @cached_property
    def hi(self) -> NDArray[np.float64]:
        """Upper bounds, broadcastable to one sample."""
        return self._spread([feature.hi for feature in self.features])

    @cached_property
    def scale(self) -> NDArray[np.float64]:
        """The unit of each feature, broadcastable to one sample; 0 where an attacker cannot change it."""
        units = [0.0 if self.fixed(feature) else feature.scale for feature in self.features]
        return self._spread(units)

    @cached_property
    def switches(self) -> tuple[Switch, ...]:
        """The categories and one-hot blocks that an attacker can change, each at its price."""
        groups: dict[str, list[int]] = {}
        for index, feature in enumerate(self.features):
            if feature.block or feature.kind is FeatureKind.CATEGORY:
                groups.setdefault(f"block {feature.block}" if feature.block else f"column {index}", []).append(index)
        found = []
        for columns in groups.values():
            members = [self.features[i] for i in columns]
            if not any(member.immutable or math.isinf(member.switch_cost) for member in members):
                found.append(Switch(tuple(columns), max(member.switch_cost for member in members)))
        return tuple(found)

    @staticmethod
    def fixed(feature: Feature) -> bool:
        """Whether a norm-bounded attacker must leave this feature alone (categories have no distance)."""
        return feature.immutable or feature.kind is FeatureKind.CATEGORY or bool(feature.block)

    def problems(self, x: NDArray[np.generic]) -> dict[str, NDArray[np.bool_]]:
        """Which rows break which rule: rule -> mask `(n,)`; only rules that some row breaks are in it.

        Bounds have slack for float32; whole numbers, categories and one-hot blocks have to be exactly that. Raises
        `DataError` for samples of another shape.
        """
        if x.shape[1:] != self.shape:
            raise DataError(f"expected samples of shape {self.shape}, got {x.shape[1:]}: reshape the data")
        if self.kind is DataKind.TEXT:
            return {}
        step = max(1, _CELLS // max(1, math.prod(self.shape)))
        parts = [self._broken(x[start : start + step]) for start in range(0, max(len(x), 1), step)]
        found = {rule: np.concatenate([part[rule] for part in parts]) for rule in parts[0]}
        return {rule: mask for rule, mask in found.items() if mask.any()}

    def allowed(self, x: NDArray[np.generic]) -> NDArray[np.bool_]:
        """Which rows keep every rule, mask `(n,)`."""
        good = np.ones(len(x), dtype=bool)
        for mask in self.problems(x).values():
            good &= ~mask
        return good

    def _broken(self, x: NDArray[np.generic]) -> dict[str, NDArray[np.bool_]]:
        flat = np.asarray(x, dtype=np.float64).reshape(len(x), math.prod(self.shape))
        found = {"not finite": _rows(~np.isfinite(flat) & ~self._missing_mask(flat))}
        lo, hi = self._flat(self.lo), self._flat(self.hi)
        out = _rows(~((flat >= lo) & (flat <= hi)))  # the few for which it is worth asking by how much
        part = flat[out]
        slack = np.where(self._whole, _ROUNDING * np.abs(part), _TOLERANCE * np.maximum(hi - lo, np.abs(part)))
        np.minimum(slack, _TOLERANCE * np.maximum(1.0, np.abs(part)), out=slack)  # never wider than a unit's
        out[out] = _rows((part < lo - slack) | (part > hi + slack))
        found["out of bounds"] = out
        if self.kind is DataKind.TABLE:
            found |= self._table_problems(flat)
        return found

    @cached_property
    def _whole(self) -> NDArray[np.bool_]:
        whole = [feature.kind is not FeatureKind.NUMERIC for feature in self.features]
        return self._flat(self._spread([float(flag) for flag in whole])) > 0

    def _missing_mask(self, flat: NDArray[np.float64]) -> NDArray[np.bool_]:
        allowed = self._flat(self._spread([float(feature.missing_ok) for feature in self.features])) > 0
        return np.isnan(flat) & allowed

    def _table_problems(self, flat: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
        found = {"not an integer": _rows(np.isfinite(flat) & (flat != np.rint(flat)) & self._whole)}
        sizes = [float(len(f.categories)) if f.categories else np.inf for f in self.features]
        is_category = np.array([feature.kind is FeatureKind.CATEGORY for feature in self.features])
        found["unknown category"] = _rows(is_category & np.isfinite(flat) & ((flat < 0) | (flat >= np.array(sizes))))
        for block in sorted({feature.block for feature in self.features if feature.block}):
            columns = [i for i, feature in enumerate(self.features) if feature.block == block]
            part = flat[:, columns]
            found[f"not one-hot: {block}"] = ((part != 0) & (part != 1)).any(axis=1) | (part.sum(axis=1) != 1)
        for relation in self.relations:
            left, right = self.names.index(relation.left), self.names.index(relation.right)
            gap = flat[:, [left]] - flat[:, [right]]
            found[f"breaks {relation.left} <= {relation.right}"] = _rows(gap > _TOLERANCE)
        return found

    def _spread(self, values: list[float]) -> NDArray[np.float64]:
        if self.kind is DataKind.TABLE:
            out = np.asarray(values, dtype=np.float64)
        else:
            out = np.full((1,) * len(self.shape), values[0] if values else np.nan, dtype=np.float64)
        out.setflags(write=False)
        return out

    def _flat(self, spread: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.broadcast_to(spread, self.shape).reshape(-1)


def _rows(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(mask.any(axis=1), dtype=np.bool_)
