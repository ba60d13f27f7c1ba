"""The trees of estimators: scikit-learn's own forests and boosting as plain arrays, and boosters through theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.digest import from_framework
from casemate.adapters.tree_models import Tree, build_trees, with_trees
from casemate.core.model import Model
from casemate.core.schema import Schema
from casemate.core.trees import Trees, float32_threshold
from casemate.errors import ModelError

__all__ = ["margins_of", "offer_trees"]

Array = NDArray[Any]
_UNIT = 2.0**-53
_BOOSTERS = {"xgboost": 2.0**-24, "lightgbm": None}
"""Whose estimators, which its adapter knows -> the roundoff of the sum to which a constant is added."""

_MARGINS = {"xgboost": "output_margin", "lightgbm": "raw_score"}
"""Whose estimators -> the keyword with which `predict` gives margins."""


def offer_trees(
    model: Model,
    estimator: Any,
    raw: Callable[[Array], Array] | None,
    *,
    positions: Sequence[int],
    places: Sequence[int],
    schema: Schema | None,
) -> Model:
    """The model of a fitted classifier with its trees, where it is a bare forest, boosting or booster; else as it is.

    `raw` are its sums (logits, or else scores), `positions` the indices of its classes, `places` the columns of a
    sample that its features are. A note says why trees that are there are not used: what stands in front of them in a
    pipeline may move thresholds, which nothing here accounts for.
    """
    k = len(model.classes)
    if not k or raw is None:
        return model
    if (steps := getattr(estimator, "steps", None)) is not None:
        if not _is_trees(steps[-1][1]):
            return model
        return replace(model, notes={**model.notes, "trees": "not used: steps in front of them may move thresholds"})
    if not _is_trees(estimator):
        return model
    width = int(estimator.n_features_in_)
    build = partial(_trees_of, estimator, positions, k)
    return with_trees(model, build, raw, width=width, places=places, schema=schema, base_unit=_base_unit(estimator))


def margins_of(estimator: Any) -> Callable[[Any], Array] | None:
    """`decision_function` of an estimator or pipeline, or the margins of a booster's classifier, which may have none.

    Of rows as the estimator wants them, `(n,)` for two classes, else `(n, k)`; None where it has neither.
    """
    last = estimator.steps[-1][1] if getattr(estimator, "steps", None) else estimator
    for framework, keyword in _MARGINS.items():
        if from_framework(last, framework) and hasattr(last, "predict_proba"):
            return partial(estimator.predict, **{keyword: True})
    return getattr(estimator, "decision_function", None)


def _is_trees(estimator: Any) -> bool:
    if hasattr(estimator, "tree_") or hasattr(estimator, "_predictors") or _framework(estimator):
        return True
    inner = np.asarray(getattr(estimator, "estimators_", ()), dtype=object).reshape(-1)
    return len(inner) > 0 and all(hasattr(part, "tree_") for part in inner)


def _framework(estimator: Any) -> str | None:
    return next((framework for framework in _BOOSTERS if from_framework(estimator, framework)), None)


def _base_unit(estimator: Any) -> float | None:
    """The roundoff of the sum to which a constant is added; None where there is none."""
    if (framework := _framework(estimator)) is not None:
        return _BOOSTERS[framework]
    added = hasattr(estimator, "_predictors") or np.ndim(getattr(estimator, "estimators_", ())) == 2
    return _UNIT if added else None


def _trees_of(estimator: Any, positions: Sequence[int], k: int) -> Trees:
    """Raises `ModelError` where the trees alone do not make the answer."""
    if len(positions) != k:
        raise ModelError("expected trees fitted on every class, got some without: fit it on all of them")
    order = np.asarray(positions)
    if (framework := _framework(estimator)) is not None:
        inside: Trees = import_module(f"casemate.adapters.{framework}").trees_inside(estimator)
        return replace(inside, column=order[inside.column])
    if hasattr(estimator, "_predictors"):
        return _histograms(estimator, order, k)
    if hasattr(estimator, "tree_"):
        return build_trees([_votes(estimator, order, 1)], k, unit=_UNIT)
    inner = np.asarray(estimator.estimators_, dtype=object)
    if inner.ndim == 2:
        return _boosting(estimator, inner, order, k)
    if not hasattr(estimator, "min_impurity_decrease"):  # forests have it; bagging and AdaBoost weigh or pick features
        raise ModelError(f"expected a forest or boosting, got {type(estimator).__name__}: audited by its scores")
    return build_trees([_votes(part, order, len(inner)) for part in inner], k, unit=_UNIT)


def _votes(estimator: Any, order: Array, trees: int) -> Tree:
    """A tree whose leaves hold probabilities, in one of `trees` equal parts."""
    values = np.asarray(estimator.tree_.value, dtype=np.float64)[:, 0, :]
    sums = values.sum(axis=1, keepdims=True)  # counts in older releases, shares since 1.3
    out = np.zeros_like(values)
    out[:, order] = np.divide(values, sums, out=np.zeros_like(values), where=sums > 0) / trees
    return _plain(estimator.tree_, out)


def _plain(tree: Any, value: Array, column: int = -1) -> Tree:
    missing = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count, dtype=bool))
    inner = tree.children_left >= 0
    threshold = float32_threshold(np.where(inner, tree.threshold, 0.0), strict=False)  # samples become float32
    return Tree(tree.feature, threshold, tree.children_left, tree.children_right, np.asarray(missing), value, column)


def _boosting(estimator: Any, inner: Array, order: Array, k: int) -> Trees:
    rate = float(estimator.learning_rate)
    if estimator.init_ != "zero" and type(estimator.init_).__name__ != "DummyClassifier":
        raise ModelError("expected boosting that starts from a constant, got one from an estimator: audited by scores")
    columns = order if k > 2 else order[1:]
    parts = [
        _plain(stage[c].tree_, stage[c].tree_.value[:, 0, 0] * rate, int(column))
        for stage in inner
        for c, column in enumerate(columns)
    ]
    return build_trees(parts, k, unit=_UNIT, floor=1e-12)


def _histograms(estimator: Any, order: Array, k: int) -> Trees:
    if getattr(estimator, "is_categorical_", None) is not None and np.any(estimator.is_categorical_):
        raise ModelError("expected numbers, got boosting over categories: audited by its scores")
    columns = order if k > 2 else order[1:]
    parts = []
    for stage in estimator._predictors:
        for column, predictor in zip(columns, stage, strict=True):
            nodes = predictor.nodes
            inner = nodes["is_leaf"] == 0
            left, right = (np.where(inner, nodes[side].astype(np.int64), -1) for side in ("left", "right"))
            threshold, missing = nodes["num_threshold"], nodes["missing_go_to_left"] > 0
            feature = nodes["feature_idx"].astype(np.int64)
            parts.append(Tree(feature, threshold, left, right, missing, nodes["value"].copy(), int(column)))
    return build_trees(parts, k, unit=_UNIT, floor=1e-12)
