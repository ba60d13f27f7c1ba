"""Trees beside a model: built by an adapter, held against the model's answers, and offered only where they agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.probing import probes
from casemate.core.facets import DataKind
from casemate.core.model import Model
from casemate.core.schema import Schema
from casemate.core.trees import Trees
from casemate.errors import ModelError

__all__ = ["Tree", "build_trees", "with_trees"]

Array = NDArray[Any]
_ROWS = 32
_EDGES = 64  # thresholds that are tried from both sides
_MOST = 5_000_000  # numbers in all leaves; more takes too much memory to search


@dataclass(frozen=True)
class Tree:
    """One tree as its library keeps it: arrays over its nodes `(m,)`, node 0 is the root, a leaf has `left` -1.

    `threshold` is already that of `x <= threshold` in float64, see `core.trees`. `value` is `(m,)` or `(m, k)`.
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    value: Array
    column: int = -1


def build_trees(parts: Sequence[Tree], k: int, *, unit: float, floor: float = 0.0) -> Trees:
    """The ensemble of trees for `k` classes, without the nodes that no root leads to.

    `unit` is the roundoff of the library's sums, `floor` what it rounds away after them: together they give the slack.
    Raises `ModelError` for no trees, for too many, and for arrays that are no trees.
    """
    if not parts or sum(part.value.size for part in parts) > _MOST:
        raise ModelError(f"expected 1 to {_MOST:,} numbers in all leaves, got {len(parts)} trees: audit by scores")
    arrays: dict[str, list[Array]] = {
        name: [] for name in ("feature", "threshold", "left", "right", "missing", "value")
    }
    roots, most, counts = [], np.zeros(k), np.zeros(k)
    for part in parts:
        kept, left, right = _reachable(part)
        inner, top = left >= 0, sum(map(len, arrays["left"]))
        value = np.where(inner[:, None], 0.0, part.value[kept].reshape(len(kept), -1))
        for name, array in (
            ("feature", np.where(inner, part.feature[kept], -1)),
            ("threshold", np.where(inner, part.threshold[kept], 0.0)),
            ("left", np.where(inner, left + top, -1)),
            ("right", np.where(inner, right + top, -1)),
            ("missing", part.missing_left[kept].astype(bool)),
            ("value", value.astype(np.float64)),
        ):
            arrays[name].append(array)
        columns = slice(None) if part.column < 0 else part.column
        most[columns] += float(np.abs(value).max())
        counts[columns] += 1
        roots.append(top)
    joined = {name: np.concatenate(found) for name, found in arrays.items()}
    return Trees(
        feature=joined["feature"].astype(np.int64),
        threshold=joined["threshold"].astype(np.float64),
        left=joined["left"].astype(np.int64),
        right=joined["right"].astype(np.int64),
        missing_left=joined["missing"],
        value=joined["value"],
        roots=np.array(roots, dtype=np.int64),
        column=np.array([part.column for part in parts], dtype=np.int64),
        base=np.zeros(k),
        # Two sums of a class's trees and the base, in any order (Higham, section 4.2), and as much again for ours.
        slack=4 * float(((counts + 8) * most).max()) * unit + floor,
    )


def with_trees(
    model: Model,
    build: Callable[[], Trees],
    raw: Callable[[Array], Array],
    *,
    width: int,
    places: Sequence[int] = (),
    schema: Schema | None = None,
    base_unit: float | None = None,
) -> Model:
    """The model with its trees if these answer as it does on rows of the schema and at thresholds; else a note why not.

    `raw(x) -> (n, k)` are the library's own sums, up to a shift common to all classes, of samples of `width` features
    where no schema describes them. `places` are the columns of a sample that the trees' features are. With `base_unit`,
    the roundoff of the library's sums, the constant that it adds to the leaves is taken from its answers.
    """
    try:
        trees = _placed(build(), places)
        x = _rows(trees, schema, width)
        if base_unit is not None:
            trees = _based(trees, _answer(raw, x), x, base_unit)
        _hold(model, trees, raw, x)
    except ModelError as error:
        return replace(model, notes={**model.notes, "trees": f"not used: {error}"})
    return replace(model, trees=trees)


def _reachable(part: Tree) -> tuple[Array, Array, Array]:
    """The nodes under the root, and their children numbered anew, `(m,)` each."""
    m = len(part.left)
    if 2 * np.count_nonzero(part.left >= 0) + 1 == m:  # all of them are; `Trees` looks closer
        return np.arange(m), part.left, part.right
    seen, nodes = np.zeros(m, dtype=bool), np.zeros(min(m, 1), dtype=np.int64)
    while len(nodes):
        if nodes.min() < 0 or nodes.max() >= m or seen[nodes].any() or len(np.unique(nodes)) < len(nodes):
            raise ModelError("expected trees, got nodes with several parents: save the model again")
        seen[nodes] = True
        inner = nodes[part.left[nodes] >= 0]
        nodes = np.concatenate([part.left[inner], part.right[inner]]).astype(np.int64)
    number, kept = np.cumsum(seen) - 1, np.flatnonzero(seen)
    leaf = part.left[kept] < 0
    left, right = (np.where(leaf, -1, number[np.where(leaf, 0, side[kept])]) for side in (part.left, part.right))
    return kept, left, right


def _placed(trees: Trees, places: Sequence[int]) -> Trees:
    if not len(places):
        return trees
    where = np.asarray(places, dtype=np.int64)
    if int(trees.feature.max(initial=-1)) >= len(where):
        raise ModelError(f"expected trees over {len(where)} features, got more: name the columns it was fitted on")
    return replace(trees, feature=np.where(trees.feature < 0, -1, where[trees.feature]))


def _rows(trees: Trees, schema: Schema | None, width: int) -> Array:
    """Samples to compare on: of the schema, at thresholds and just above them, and some with missing values."""
    rng = np.random.default_rng(0)
    if schema is None:
        usual = rng.normal(size=(_ROWS, width))
    elif schema.kind is DataKind.TEXT:
        raise ModelError("expected numbers, got texts: trees over words are not searched")
    else:
        usual = np.nan_to_num(probes(schema, _ROWS).reshape(_ROWS, -1).astype(np.float64))
    inner = np.flatnonzero((trees.feature >= 0) & (np.abs(trees.threshold) < 1e30))
    picked = rng.permutation(inner)[:_EDGES]
    at = usual[rng.integers(_ROWS, size=len(picked))]
    above = at.copy()
    rows = np.arange(len(picked))
    at[rows, trees.feature[picked]] = trees.threshold[picked]
    above[rows, trees.feature[picked]] = np.nextafter(trees.threshold[picked], np.inf)
    return np.concatenate([usual, at, above])


def _based(trees: Trees, told: Array, x: Array, unit: float) -> Trees:
    base = np.median(_centred(told) - _centred(trees.raw(x)), axis=0)
    room = 4 * (len(trees.roots) + 8) * unit * float(np.abs(base).max())
    return replace(trees, base=base, slack=trees.slack + room)


def _centred(raw: Array) -> Array:
    return np.asarray(raw - raw[:, :1])


def _answer(ask: Callable[[Array], Array], x: Array) -> Array:
    try:
        return np.asarray(ask(x), dtype=np.float64)
    except Exception as error:  # a library's own code may raise anything
        raise ModelError(f"expected answers to {len(x)} rows, got {type(error).__name__}: {error}") from error


def _hold(model: Model, trees: Trees, raw: Callable[[Array], Array], x: Array) -> None:
    """Hold the trees against the library: sums within the slack, labels wherever the slack leaves no doubt."""
    _agree(trees, _answer(raw, x), _answer(model.labels, x), x)
    gaps = np.where(np.random.default_rng(1).random(x.shape) < 0.3, np.nan, x)
    try:
        told, labels = _answer(raw, gaps), _answer(model.labels, gaps)
    except ModelError:  # it takes no missing values, so none will come
        return
    _agree(trees, told, labels, gaps)


def _agree(trees: Trees, told: Array, labels: Array, x: Array) -> None:
    own = trees.raw(x)
    off = float(np.abs(_centred(own) - _centred(told)).max(initial=0.0))
    top = np.sort(own, axis=1)
    sure = top[:, -1] - top[:, -2] > trees.slack
    if not off <= trees.slack or (labels != own.argmax(axis=1))[sure].any():
        raise ModelError(f"expected the sums of the library within {trees.slack:.2g}, got sums {off:.2g} off")
