"""LightGBM: boosters, their `.txt` files, and the estimators around them."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.apart import read_apart
from casemate.adapters.boosting import Booster, check_links, wrap_native
from casemate.adapters.extras import need
from casemate.adapters.loading import Declared
from casemate.adapters.tree_models import Tree, build_trees
from casemate.adapters.verdicts import check_verdict, hold
from casemate.core.model import Model
from casemate.core.schema import Schema
from casemate.core.trees import Trees
from casemate.errors import ModelError
from casemate.formats.digests import Hasher

__all__ = ["check_booster", "check_text", "open_booster", "trees_inside", "wrap_booster"]

Array = NDArray[Any]
_READER = """
import sys, numpy, lightgbm
booster = lightgbm.Booster(model_str=sys.stdin.buffer.read().decode())
booster.model_to_string(), booster.dump_model()
rows = numpy.random.default_rng(0).normal(size=(64, booster.num_feature()))
booster.predict(rows, num_threads=1, validate_features=False)
"""
_LINE = re.compile(r"([a-z_]+=[-+.0-9eaifn ]*)?")  # of a tree; Python reads more as a number than C++ does
_ZERO = 1.0000000180025095e-35  # up to here LightGBM holds a number for zero
_OBJECTIVES = ("binary", "multiclass", "multiclassova")


def open_booster(path: Path, declared: Declared) -> Any:
    """The booster in a `.txt` file, for `loading`; reading it runs no code of the file's.

    Raises `ModelError` for a damaged file and `Unavailable` without lightgbm.
    """
    lightgbm = need("lightgbm", f"read {path.name}")
    held = hold(path)
    check_verdict(held, runs=False, trust=declared.trust, notes=declared.notes)
    try:
        text = io.TextIOWrapper(io.BytesIO(held.data), encoding="utf-8").read()
        check_text(text)
        read_apart(_READER, text.encode())
        return lightgbm.Booster(model_str=text)
    except (OSError, ArithmeticError, ValueError, KeyError, TypeError, lightgbm.basic.LightGBMError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ModelError(
            f"expected a booster of LightGBM in {path.name}, got {(lines or ['no message'])[0][:200]}: save it with "
            "Booster.save_model"
        ) from error


def wrap_booster(
    native: Any,
    *,
    classes: Sequence[str] | None = None,
    schema: Schema | None = None,
    name: str | None = None,
    logits: bool | None = None,
) -> Model:
    """A model around a `Booster`, or around a fitted `LGBMClassifier` as `sklearn.wrap_estimator` does.

    Answers are those of the best iteration where there is one, as LightGBM gives them. Raises `ModelError` for another
    objective than classification, and for a bare booster that was trained on categories of a data frame.
    """
    return wrap_native(native, _booster, "lightgbm", classes=classes, schema=schema, name=name, logits=logits)


@dataclass(frozen=True)
class _Answer:
    """`predict` of a booster, as margins or as probabilities, on one thread."""

    booster: Any
    margins: bool

    def __call__(self, x: Array) -> Array:
        found = self.booster.predict(
            np.asarray(x, dtype=np.float64), raw_score=self.margins, num_threads=1, validate_features=False
        )
        return np.asarray(found)


def _booster(native: Any) -> Booster:
    told = native.dump_model(num_iteration=1)
    objective = str(told.get("objective", "none"))
    if objective.partition(" ")[0] not in _OBJECTIVES:
        raise ModelError(
            f"expected a classifier ({', '.join(_OBJECTIVES)}), got a booster for {objective}: wrap its answers as a "
            "function"
        )
    if native.pandas_categorical:
        raise ModelError("expected a booster of numbers, got one with categories: audit the LGBMClassifier around it")
    # What it was trained with is no part of what it answers, and another after each reload.
    weights = native.model_to_string().partition("\nparameters:")[0]
    return Booster(
        native,
        _Answer(native, margins=True),
        _Answer(native, margins=False),
        max(2, int(told["num_class"])),
        int(native.num_feature()),
        tuple(native.feature_name()),
        Hasher("casemate.lightgbm.1").add(weights).digest(),
        "lightgbm",
        {"objective": objective, "rounds": f"{native.current_iteration():,}"},
        partial(_trees, native),
    )


def trees_inside(estimator: Any) -> Trees:
    """The trees of a fitted `LGBMClassifier` up to its best iteration, for `sklearn_trees`.

    Raises `ModelError` where they alone do not make the answer.
    """
    return _trees(estimator.booster_)


def _trees(native: Any) -> Trees:
    """The trees of a booster up to its best iteration, from its text, which has every number in full."""
    told, *texts = _told(native.model_to_string())
    each, k = int(told["num_tree_per_iteration"]), max(2, int(told["num_class"]))
    parts = [_tree(text, 1 if each == 1 else number % each) for number, text in enumerate(texts)]
    return build_trees(parts, k, unit=2.0**-53, floor=1e-12)


def _told(text: str) -> list[dict[str, str]]:
    """What a booster's text says of it, and then of each of its trees."""
    return [dict(_pairs(part)) for part in text.partition("\nend of trees")[0].split("\nTree=")]


def _pairs(part: str) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (line.partition("=") for line in part.split("\n") if line)]


def _tree(told: Mapping[str, str], column: int) -> Tree:
    if int(told["num_cat"]) or int(told.get("is_linear", "0")):
        raise ModelError("expected splits of numbers and one number a leaf, got others: audited by its scores")
    leaf = _numbers(told, "leaf_value")
    left, right, feature = _links(told)
    if len(leaf) == 1:
        return Tree(feature, np.zeros(1), left, right, np.zeros(1, dtype=bool), leaf, column)
    inner = _numbers(told, "threshold")
    # Samples of that size become 0 before they are compared.
    inner = np.where(np.abs(inner) <= _ZERO, np.where(inner >= 0, _ZERO, np.nextafter(-_ZERO, -np.inf)), inner)
    kind = _numbers(told, "decision_type").astype(np.int64)
    return Tree(
        feature,
        np.concatenate([inner, np.zeros(len(leaf))]),
        left,
        right,
        np.concatenate([_missing_left(inner, kind), np.zeros(len(leaf), dtype=bool)]),
        np.concatenate([np.zeros(len(inner)), leaf]),
        column,
    )


def _links(told: Mapping[str, str]) -> tuple[Array, Array, Array]:
    """Both children and the feature of every node; leaves, which LightGBM counts from -1 down, are put at the end."""
    leaves = int(told["num_leaves"])
    ends = np.full(leaves, -1)
    if leaves == 1:
        return ends, ends, ends
    left, right, feature = (
        np.array(told[key].split(), dtype=np.int64) for key in ("left_child", "right_child", "split_feature")
    )
    left, right = (np.where(side < 0, leaves - 2 - side, side) for side in (left, right))
    return np.concatenate([left, ends]), np.concatenate([right, ends]), np.concatenate([feature, ends])


def _numbers(told: Mapping[str, str], key: str) -> Array:
    return np.array(told.get(key, "").split(), dtype=np.float64)


def _missing_left(threshold: Array, kind: Array) -> Array:
    """Where a missing value goes: as a 0 would (type 0), as told (type 2); as told, and zeros with it (type 1)."""
    told_left, missing = (kind & 2) > 0, (kind >> 2) & 3
    zeros = np.where(told_left, threshold >= _ZERO, threshold < -_ZERO)
    if (~zeros & (missing == 1)).any():
        raise ModelError("expected zeros that are numbers, got zeros that are missing values: audited by its scores")
    return np.asarray(np.where(missing == 0, threshold >= 0, told_left))


def check_booster(native: Any) -> None:
    """Hold the text of a `Booster` to its own counts and links; raises `ValueError` where they are not sound."""
    check_text(native.model_to_string())


def check_text(text: str) -> None:
    """Hold the counts and links in a booster's text against what is there; LightGBM's own reader believes them.

    Raises `ValueError` where they do not fit, and what else a text without the usual keys leads to.
    """
    if not text.startswith("tree\n"):
        raise ValueError("a text that does not begin with tree")
    body, ended, _ = text.partition("\nend of trees")
    header, *blocks = body.split("\nTree=")
    told, *trees = _told(text)
    sizes = [str(len(f"Tree={block}\n".encode())) for block in blocks]
    if not ended or told.get("tree_sizes", "").split() != sizes:
        raise ValueError(f"{len(trees)} trees, and not all that its header tells of")
    if any(len(dict(pairs)) < len(pairs) for pairs in map(_pairs, (header, *blocks))):
        raise ValueError("a key that is told twice")
    width, each = int(told["max_feature_idx"]) + 1, int(told["num_tree_per_iteration"])
    if each < 1 or each != int(told["num_class"]) or len(trees) % each or (each > 1 and not trees):
        raise ValueError(f"{len(trees)} trees for {told['num_class']} classes")
    if width < 1 or width != len(told["feature_names"].split()):
        raise ValueError(f"{len(told['feature_names'].split())} names for {width} features")
    for tree, block in zip(trees, blocks, strict=True):
        if not all(_LINE.fullmatch(line) for line in block.split("\n")[1:]):
            raise ValueError("a tree of other signs than those of numbers")
        _check_tree(tree, width)


def _check_tree(told: Mapping[str, str], width: int) -> None:
    leaves, leaf = int(told["num_leaves"]), _numbers(told, "leaf_value")
    threshold, kind = (_numbers(told, key) if leaves > 1 else np.empty(0) for key in ("threshold", "decision_type"))
    if len(leaf) != leaves or not len(threshold) == len(kind) == leaves - 1:
        raise ValueError("leaves or thresholds in another number than its tree has")
    if not np.isfinite(leaf).all() or np.isnan(threshold).any():
        raise ValueError("leaves or thresholds that are no numbers")
    check_links(*_links(told), width)
    _check_sets(told, threshold[kind.astype(np.int64) & 1 > 0])
    if int(told.get("is_linear", "0")):
        counts, features = (_numbers(told, key) for key in ("num_features", "leaf_features"))
        one = len({len(features), len(_numbers(told, "leaf_coeff")), int(counts.sum())}) == 1
        if not one or len(counts) != leaves or (counts < 0).any() or not np.isin(features, np.arange(width)).all():
            raise ValueError("a leaf of features that are not there")


def _check_sets(told: Mapping[str, str], chosen: Array) -> None:
    """The sets of categories of a tree, and those that its splits choose, by number."""
    sets = int(told["num_cat"])
    edges = _numbers(told, "cat_boundaries") if sets else np.zeros(1)
    words = len(_numbers(told, "cat_threshold")) if sets else 0
    whole = len(edges) == sets + 1 and edges[0] == 0 and edges[-1] == words and (np.diff(edges) >= 0).all()
    if not whole or not np.isin(chosen, np.arange(sets)).all():
        raise ValueError("a split by categories that are not there")
