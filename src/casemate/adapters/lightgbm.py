"""LightGBM: boosters, their `.txt` files, and the estimators around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.boosting import Booster, read_apart
from casemate.adapters.extras import need
from casemate.adapters.loading import Declared
from casemate.adapters.tree_models import Tree, build_trees
from casemate.core.model import Model
from casemate.core.schema import Schema
from casemate.core.trees import Trees
from casemate.errors import ModelError
from casemate.formats.digests import Hasher

__all__ = ["Inside", "open_booster", "trees_inside", "wrap_booster"]

Array = NDArray[Any]
_READER = """
import sys, numpy, lightgbm
booster = lightgbm.Booster(model_str=sys.stdin.buffer.read().decode())
booster.model_to_string(), booster.dump_model()
rows = numpy.random.default_rng(0).normal(size=(64, booster.num_feature()))
booster.predict(rows, num_threads=1, validate_features=False)
"""
_ZERO = 1.0000000180025095e-35  # up to here LightGBM holds a number for zero
_OBJECTIVES = ("binary", "multiclass", "multiclassova")


def open_booster(path: Path, declared: Declared) -> Any:
    """The booster in a `.txt` file, for `loading`; reading it runs no code of the file's.

    Raises `ModelError` for a damaged file and `Unavailable` without lightgbm.
    """
    del declared
    lightgbm = need("lightgbm", f"read {path.name}")
    try:
        text = path.read_text(encoding="utf-8")
        _check_text(text)
        read_apart(_READER, text.encode())
        return lightgbm.Booster(model_str=text)
    except (OSError, ValueError, TypeError, lightgbm.basic.LightGBMError) as error:
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
    if hasattr(native, "booster_") or hasattr(native, "get_params"):
        from casemate.adapters.sklearn import wrap_estimator

        return replace(wrap_estimator(native, classes=classes, schema=schema, name=name), framework="lightgbm")
    return _booster(native).as_model(classes=classes, schema=schema, name=name, logits=logits)


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


@dataclass(frozen=True)
class Inside:
    """The booster inside an estimator: its margins `(n, k)`, and what builds its trees."""

    estimator: Any

    def margins(self, x: Array) -> Array:
        """The margins of samples `(n, ...)`, those of two classes as `(0, d)`."""
        found = _Answer(self.estimator.booster_, margins=True)(np.asarray(x).reshape(len(x), -1))
        return np.stack([np.zeros(len(x)), found], axis=1) if found.ndim == 1 else found

    def build(self) -> Trees:
        """Its trees up to the best iteration; raises `ModelError` where they alone do not make the answer."""
        return _trees(self.estimator.booster_)


def trees_inside(estimator: Any) -> Inside:
    """The booster of a fitted `LGBMClassifier`, for `sklearn_trees`."""
    return Inside(estimator)


def _trees(native: Any) -> Trees:
    """The trees of a booster up to its best iteration, from its text, which has every number in full."""
    header, *texts = native.model_to_string().partition("\nend of trees")[0].split("\nTree=")
    told = dict(line.partition("=")[::2] for line in header.splitlines())
    each, k = int(told["num_tree_per_iteration"]), max(2, int(told["num_class"]))
    parts = [_tree(text, 1 if each == 1 else number % each) for number, text in enumerate(texts)]
    return build_trees(parts, k, unit=2.0**-53, floor=1e-12)


def _tree(text: str, column: int) -> Tree:
    told = dict(line.partition("=")[::2] for line in text.splitlines())
    if int(told["num_cat"]) or int(told.get("is_linear", "0")):
        raise ModelError("expected splits of numbers and one number a leaf, got others: audited by its scores")
    leaf = np.array(told["leaf_value"].split(), dtype=np.float64)
    if int(told["num_leaves"]) == 1:
        none = np.array([-1])
        return Tree(none, np.zeros(1), none, none, np.zeros(1, dtype=bool), leaf[:1], column)
    inner = np.array(told["threshold"].split(), dtype=np.float64)
    # Samples of that size become 0 before they are compared.
    inner = np.where(np.abs(inner) <= _ZERO, np.where(inner >= 0, _ZERO, np.nextafter(-_ZERO, -np.inf)), inner)
    kind = np.array(told["decision_type"].split(), dtype=np.int64)
    ends = np.full(len(leaf), -1)
    # Children below 0 are leaves, counted from the end: they are put behind the inner nodes.
    left, right = (
        np.concatenate([np.where(side < 0, len(inner) - side - 1, side), ends])
        for side in (np.array(told[key].split(), dtype=np.int64) for key in ("left_child", "right_child"))
    )
    return Tree(
        np.concatenate([np.array(told["split_feature"].split(), dtype=np.int64), ends]),
        np.concatenate([inner, np.zeros(len(leaf))]),
        left,
        right,
        np.concatenate([_missing_left(inner, kind), np.zeros(len(leaf), dtype=bool)]),
        np.concatenate([np.zeros(len(inner)), leaf]),
        column,
    )


def _missing_left(threshold: Array, kind: Array) -> Array:
    """Where a missing value goes: as a 0 would (type 0), as told (type 2); as told, and zeros with it (type 1)."""
    told_left, missing = (kind & 2) > 0, (kind >> 2) & 3
    zeros = np.where(told_left, threshold >= _ZERO, threshold < -_ZERO)
    if (~zeros & (missing == 1)).any():
        raise ModelError("expected zeros that are numbers, got zeros that are missing values: audited by its scores")
    return np.asarray(np.where(missing == 0, threshold >= 0, told_left))


def _check_text(text: str) -> None:
    """LightGBM's reader trusts the counts in its header; hold them against what is there."""
    if not text.startswith("tree\n"):
        raise ValueError("a text that does not begin with tree")
    header, _, rest = text.partition("\nTree=")
    sizes = [line for line in header.splitlines() if line.startswith("tree_sizes=")]
    trees = text.count("\nTree=")
    if len(sizes) != 1 or len(sizes[0].partition("=")[2].split()) != trees or "\nend of trees" not in rest:
        raise ValueError(f"{trees} trees, and not all that its header tells of")
