"""Groups of rows: one for each value of an attribute, each bin of a continuous one, each cell of two attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.errors import ConfigError

__all__ = ["Attribute", "attributes", "crossed", "with_intersections"]

Array = NDArray[Any]
_MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Attribute:
    """A sensitive attribute: `codes (n,)` index `names`; `edges` are the inner edges of a continuous one's bins."""

    name: str
    codes: NDArray[np.int64]
    names: tuple[str, ...]
    edges: tuple[float, ...] = ()


def attributes(
    groups: Mapping[str, Array], *, edges: Mapping[str, Sequence[float]], bins: int, most_values: int
) -> list[Attribute]:
    """The attributes in order of name; missing values are a group of their own.

    Numbers with more than `most_values` values, or with declared `edges`, are binned: bin j holds
    edges[j-1] <= value < edges[j]; undeclared edges are the quantiles that cut the rows into `bins` equal parts. Raises
    `ConfigError` for edges of an attribute that does not exist or holds no numbers, or edges that do not rise.
    """
    unknown = sorted(set(edges) - set(groups))
    if unknown:
        raise ConfigError(f"expected edges for sensitive attributes ({', '.join(sorted(groups))}), got {unknown[0]!r}")
    return [_attribute(name, groups[name], edges.get(name), bins, most_values) for name in sorted(groups)]


def with_intersections(single: Sequence[Attribute]) -> list[Attribute]:
    """The attributes and every pair of them crossed."""
    return [*single, *(crossed(a, b) for a, b in combinations(single, 2))]


def crossed(a: Attribute, b: Attribute) -> Attribute:
    """The cells of two attributes, named `sex x age`."""
    names = tuple(f"{left} x {right}" for left in a.names for right in b.names)
    return Attribute(f"{a.name} x {b.name}", a.codes * len(b.names) + b.codes, names)


def _attribute(name: str, values: Array, edges: Sequence[float] | None, bins: int, most_values: int) -> Attribute:
    values = np.asarray(values)
    numeric = values.dtype.kind in "iuf"
    if edges is not None and not numeric:
        raise ConfigError(f"expected numbers in {name!r} to bin at edges, got {values.dtype}: remove its edges")
    missing = _missing(values)
    if numeric and (edges is not None or len(np.unique(values[~missing])) > most_values):
        return _binned(name, values.astype(np.float64), missing, edges, bins)
    if values.dtype.kind != "O" and not missing.any():
        found, codes = np.unique(values, return_inverse=True)
        return Attribute(name, codes.astype(np.int64), tuple(_text(value) for value in found.tolist()))
    texts = np.array([_MISSING if lost else _text(value) for value, lost in zip(values, missing, strict=True)])
    found, codes = np.unique(texts, return_inverse=True)
    return Attribute(name, codes.astype(np.int64), tuple(str(value) for value in found))


def _binned(
    name: str, values: NDArray[np.float64], missing: NDArray[np.bool_], edges: Sequence[float] | None, bins: int
) -> Attribute:
    if edges is None:
        finite = values[np.isfinite(values)]  # infinite ones fall into the bins at the ends
        inner = np.unique(np.quantile(finite, np.arange(1, bins) / bins))
        # A quantile that is the smallest value would open an empty bin below it.
        inner = inner[inner > values[~missing].min()]
    else:
        try:
            inner = np.asarray(edges, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"expected numbers as edges for {name!r}, got {list(edges)}: write numbers") from error
        if inner.ndim != 1 or not np.isfinite(inner).all() or (np.diff(inner) <= 0).any():
            raise ConfigError(f"expected rising edges for {name!r}, got {list(edges)}: sort them")
    codes = np.searchsorted(inner, values, side="right").astype(np.int64)
    codes[missing] = len(inner) + 1
    names = [*_bin_names(inner.tolist()), *([_MISSING] if missing.any() else [])]
    return Attribute(name, codes, tuple(names), tuple(inner.tolist()))


def _bin_names(edges: Sequence[float]) -> list[str]:
    if not edges:
        return ["all"]
    between = [f"[{lo:g}, {hi:g})" for lo, hi in pairwise(edges)]
    return [f"< {edges[0]:g}", *between, f">= {edges[-1]:g}"]


def _missing(values: Array) -> NDArray[np.bool_]:
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind == "O":
        # None, and NaN or NA, which are the values that do not equal themselves (NA: whose equality has no truth).
        return np.array([value is None or str(value) in {"nan", "NaN", "<NA>", "NaT"} for value in values], dtype=bool)
    return np.zeros(len(values), dtype=bool)


def _text(value: object) -> str:
    """A value in words; different numbers never in the same words."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))
