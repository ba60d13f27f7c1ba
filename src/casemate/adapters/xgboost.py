"""XGBoost: boosters, their `.ubj` and `.json` files, and the estimators around them."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from casemate.core.trees import Trees, float32_threshold
from casemate.errors import ModelError
from casemate.formats.digests import Hasher

__all__ = ["check_booster", "open_booster", "trees_inside", "wrap_booster"]

Array = NDArray[Any]
_READER = """
import json, sys, numpy, xgboost
booster = xgboost.Booster()
booster.load_model(bytearray(sys.stdin.buffer.read()))
booster.save_raw()
told = json.loads(booster.save_config())["learner"]["learner_model_param"]
if max(int(told[key]) for key in ("num_class", "num_target", "num_feature")) > 100_000:
    raise ValueError("more than 100,000 classes or features")
rows = numpy.random.default_rng(0).normal(size=(64, booster.num_features()))
booster.predict(xgboost.DMatrix(rows, nthread=1), validate_features=False)
"""
_UNIT = 2.0**-24  # its sums are in float32
_TWO = ("binary:logistic", "binary:logitraw", "reg:logistic")
_MANY = ("multi:softmax", "multi:softprob")


def open_booster(path: Path, declared: Declared) -> Any:
    """The booster in a `.ubj` or `.json` file, for `loading`; reading it runs no code of the file's.

    Raises `ModelError` for a damaged file and `Unavailable` without xgboost.
    """
    xgboost = need("xgboost", f"read {path.name}")
    held = hold(path)
    check_verdict(held, runs=False, trust=declared.trust, notes=declared.notes)
    data = held.data
    try:
        if path.suffix.lower() == ".json" and "learner" not in json.loads(data):
            raise ValueError("no learner in it")
        read_apart(_READER, data)
        booster = xgboost.Booster()
        booster.load_model(bytearray(data))
        check_booster(booster)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, xgboost.core.XGBoostError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ModelError(
            f"expected a booster of XGBoost in {path.name}, got {(lines or ['no message'])[0][:200]}: save it with "
            "Booster.save_model"
        ) from error
    return booster


def wrap_booster(
    native: Any,
    *,
    classes: Sequence[str] | None = None,
    schema: Schema | None = None,
    name: str | None = None,
    logits: bool | None = None,
) -> Model:
    """A model around a `Booster`, or around a fitted `XGBClassifier` as `sklearn.wrap_estimator` does.

    A booster that XGBoost's own estimator saved after early stopping answers with its best iteration, as there. Raises
    `ModelError` for another objective than classification, and for features that are categories in a bare booster.
    """
    if hasattr(native, "get_booster") and native.objective == "binary:logitraw":
        raise ModelError(
            "expected an XGBClassifier that answers with probabilities, got binary:logitraw: fit it with "
            "binary:logistic, or audit its booster"
        )
    return wrap_native(native, _booster, "xgboost", classes=classes, schema=schema, name=name, logits=logits)


@dataclass(frozen=True)
class _Answer:
    """`predict` of a booster, as margins or as probabilities, on one thread."""

    booster: Any
    rounds: tuple[int, int]
    margins: bool

    def __call__(self, x: Array) -> Array:
        import xgboost

        matrix = xgboost.DMatrix(x, nthread=1)
        return np.asarray(
            self.booster.predict(
                matrix,
                output_margin=self.margins,
                iteration_range=self.rounds,
                validate_features=False,
                strict_shape=False,
            )
        )


def _booster(native: Any) -> Booster:
    learner = json.loads(native.save_config())["learner"]
    objective = learner["objective"]["name"]
    if objective not in (*_TWO, *_MANY):
        raise ModelError(
            f"expected a classifier ({', '.join((*_TWO, *_MANY))}), got a booster for {objective}: wrap its answers as "
            "a function"
        )
    if "c" in (native.feature_types or ()):
        raise ModelError("expected a booster of numbers, got one with categories: audit the XGBClassifier around it")
    k = 2 if objective in _TWO else int(learner["learner_model_param"]["num_class"])
    notes = {"objective": objective, "rounds": f"{native.num_boosted_rounds():,}"}
    rounds = _rounds(native)
    if rounds[1]:
        notes["rounds"] = f"{rounds[1]:,} of {notes['rounds']}, the best"
    native = native.copy()  # the user's own keeps its threads
    native.set_param({"nthread": 1})
    # Of logitraw and softmax, `predict` gives no probabilities.
    plain = _Answer(native, rounds, margins=True)
    scores = (
        _Answer(native, rounds, margins=False)
        if objective in {"binary:logistic", "multi:softprob", "reg:logistic"}
        else _Normalised(plain)
    )
    return Booster(
        native,
        plain,
        scores,
        k,
        int(native.num_features()),
        tuple(native.feature_names or ()),
        Hasher("casemate.xgboost.1").add(bytes(native.save_raw("ubj"))).digest(),
        "xgboost",
        notes,
        partial(_trees, native, rounds[1]),
        base_unit=_UNIT,
    )


def trees_inside(estimator: Any) -> Trees:
    """The trees of a fitted `XGBClassifier` up to its best iteration, for `sklearn_trees`.

    Raises `ModelError` where they alone do not make the answer.
    """
    if estimator.missing is not None and not np.isnan(estimator.missing):
        raise ModelError(f"expected NaN for what is missing, got missing={estimator.missing}: audited by its scores")
    best = getattr(estimator, "best_iteration", None)
    return _trees(estimator.get_booster(), 0 if best is None else int(best) + 1)


def _told(native: Any) -> tuple[Any, Any]:
    """What a booster's JSON says of it, and of the trees in it."""
    learner = json.loads(bytes(native.save_raw("json")))["learner"]
    booster = learner["gradient_booster"]
    return learner, booster.get("gbtree", booster).get("model")


def check_booster(native: Any) -> None:
    """Hold the trees of a `Booster` to their links, features and classes; raises `ValueError` for unsound ones."""
    learner, inside = _told(native)
    if learner["gradient_booster"]["name"] == "gblinear":
        return
    k = max(1, int(learner["learner_model_param"]["num_class"]))
    for tree, column in zip(inside["trees"], inside["tree_info"], strict=True):
        left, right, feature = (np.array(tree[key]) for key in ("left_children", "right_children", "split_indices"))
        check_links(left, right, feature, native.num_features())
        if not 0 <= column < k:
            raise ValueError(f"a tree for a class that is none of {k}")
        if any(tree["split_type"]) and "c" not in (native.feature_types or ()):
            raise ValueError("splits by categories that it does not name")
        if not np.isfinite(np.array(tree["split_conditions"], dtype=np.float64)).all():
            raise ValueError("leaves or thresholds that are no numbers")


def _rounds(native: Any) -> tuple[int, int]:
    """Which rounds answer: those up to the best where XGBoost's own estimator noted it, else all."""
    best = native.attr("best_iteration")
    if best is None or native.attr("scikit_learn") is None:
        return 0, 0
    if not best.isdecimal() or int(best) >= native.num_boosted_rounds():
        raise ModelError(
            f"expected best_iteration among {native.num_boosted_rounds():,} rounds, got {best[:20]}: save it again"
        )
    return 0, int(best) + 1


def _trees(native: Any, rounds: int) -> Trees:
    """The trees of a booster's first rounds (0: all of them); its base score is found from its answers."""
    learner, inside = _told(native[:rounds] if rounds else native)
    booster = learner["gradient_booster"]
    weights = booster.get("weight_drop")
    if booster["name"] not in ("gbtree", "dart"):
        raise ModelError(f"expected trees, got a booster {booster['name']}: audited by its scores")
    trees, classes = inside["trees"], inside["tree_info"]
    k = max(2, int(learner["learner_model_param"]["num_class"]))
    two = int(learner["learner_model_param"]["num_class"]) < 2
    parts = [
        _tree(tree, 1 if two else column, 1.0 if weights is None else float(weights[number]))
        for number, (tree, column) in enumerate(zip(trees, classes, strict=True))
    ]
    return build_trees(parts, k, unit=_UNIT, floor=2e-6)  # exp, and what softmax divides by, in float32


def _tree(told: Any, column: int, weight: float) -> Tree:
    if any(told["split_type"]) or int(told["tree_param"].get("size_leaf_vector", "1")) > 1:
        raise ModelError("expected splits of numbers and one number a leaf, got others: audited by its scores")
    left, right, feature = (np.array(told[key]) for key in ("left_children", "right_children", "split_indices"))
    value = np.array(told["split_conditions"], dtype=np.float32)  # a threshold, or at a leaf what it adds
    threshold = float32_threshold(np.where(left < 0, 0.0, value), strict=True)
    missing = np.array(told["default_left"], dtype=bool)
    return Tree(
        feature, threshold, left, right, missing, np.where(left < 0, value.astype(np.float64) * weight, 0.0), column
    )


@dataclass(frozen=True)
class _Normalised:
    """Probabilities from margins: of two classes the logistic function, else softmax."""

    margins: _Answer

    def __call__(self, x: Array) -> Array:
        from scipy.special import expit, softmax

        found = self.margins(x).astype(np.float64)
        return np.asarray(expit(found) if found.ndim == 1 else softmax(found, axis=1))
