"""scikit-learn estimators and pipelines as models, and as recipes: clone and fit."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.affine import affine_of
from casemate.adapters.digest import fingerprint
from casemate.adapters.labels import class_name
from casemate.adapters.loading import Declared
from casemate.adapters.probing import probes
from casemate.adapters.rows import Rows, rows_for
from casemate.adapters.sklearn_trees import margins_of, offer_trees
from casemate.adapters.skops import load_estimator, load_skops, save_skops
from casemate.core.case import Recipe
from casemate.core.data import Data
from casemate.core.model import Affine, Model, Task
from casemate.core.schema import Schema
from casemate.errors import ModelError
from casemate.formats.digests import Hasher

__all__ = [
    "KNOBS",
    "check_fitted",
    "load_estimator",
    "load_skops",
    "open_estimator",
    "save_skops",
    "sklearn_recipe",
    "wrap_estimator",
]

Array = NDArray[Any]

KNOBS: Mapping[str, tuple[Any, ...]] = {
    "C": (100.0, 10.0, 1.0, 0.1, 0.01, 0.001),
    "alpha": (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0),
    "l2_regularization": (0.0, 0.1, 1.0, 10.0, 100.0),
    "max_depth": (None, 16, 8, 4, 2),
    "min_samples_leaf": (1, 2, 5, 10, 20, 50),
    "ccp_alpha": (0.0, 1e-4, 1e-3, 1e-2),
}
"""What a sweep may try of an estimator's parameters, the weakest regularisation first."""


def open_estimator(path: Path, declared: Declared) -> Any:
    """The estimator in a skops file or a pickle, for `loading`; as `load_estimator`."""
    return load_estimator(path, trusted=declared.trusted, trust=declared.trust, notes=declared.notes)


def wrap_estimator(
    estimator: Any, *, classes: Sequence[str] | None = None, schema: Schema | None = None, name: str | None = None
) -> Model:
    """A model around a fitted classifier or regressor; nothing of it is changed.

    Labels are indices into `classes` (default: the estimator's own, by name; where the names differ, an estimator that
    was fitted on `0 ... k - 1` is matched by index). Scores come from `predict_proba`, logits from `decision_function`
    or a booster's margins, where a binary one `d` becomes the columns `(-d / 2, d / 2)`; both are absent where the
    estimator lacks them. Rows become the data frame that it was fitted on. A linear one offers its closed form once
    that is checked.
    Raises `ModelError` for one that is not fitted or fits neither the classes nor the schema.
    """
    calls = _calls(estimator, classes, schema)
    _try_rows(calls, schema)
    regression = calls.classes == ()
    scores = calls.scores if not regression and hasattr(estimator, "predict_proba") else None
    logits = calls.logits if calls.has_logits() else None
    model = Model(
        name=name or _short_name(estimator),
        digest=fingerprint(estimator),
        labels=calls.labels,
        classes=calls.classes,
        task=Task.REGRESSION if regression else Task.CLASSIFICATION,
        scores=scores,
        logits=logits,
        estimator=estimator,
        affine=_affine(calls, schema) if logits is not None else None,
        framework="sklearn",
        notes=_notes(estimator, calls),
    )
    if calls.rows.categories or calls.rows.texts:
        return model
    raw, places = logits or scores, calls.rows.take
    return offer_trees(model, calls.estimator, raw, positions=calls.positions, places=places, schema=schema)


def sklearn_recipe(estimator: Any, schema: Schema | None = None, *, classes: Sequence[str] | None = None) -> Recipe:
    """The recipe of a fitted estimator: clone it, set parameters, draw every `random_state` from the generator, fit.

    `init` may name a knob (of the last step of a pipeline) or any parameter of `get_params`. `classes` are those of the
    data. Raises `ModelError`, also from `fit`, with the estimator's own words where it refuses.
    """
    from sklearn.base import clone

    calls = _calls(estimator, classes, schema)
    prefix = _prefix(estimator)
    params = estimator.get_params(deep=True)
    knobs = {key: values for key, values in KNOBS.items() if prefix + key in params}
    plan = _Refit(clone(estimator), calls.rows, calls.classes, calls.positions, calls.native, prefix, schema)
    state = Hasher("casemate.recipe.sklearn.1").add(fingerprint(plan.estimator), json.dumps(sorted(calls.classes)))
    return Recipe(plan, state.digest(), knobs=knobs, settings={key: params[prefix + key] for key in knobs})


@dataclass(frozen=True)
class _Calls:
    """The answers of an estimator as a model gives them.

    `native` are its own classes, `positions` their indices in `classes`; both are empty for a regression.
    """

    estimator: Any
    rows: Rows
    classes: tuple[str, ...]
    native: Array
    positions: tuple[int, ...]

    def labels(self, x: Array) -> Array:
        if len(x) == 0:
            return np.empty(0, dtype=np.int64 if self.classes else np.float64)
        found = np.asarray(self.estimator.predict(self.rows(x)))
        if not self.classes:
            return found.astype(np.float64).reshape(len(x))
        order = np.argsort(self.native)
        at = order[np.clip(np.searchsorted(self.native, found, sorter=order), 0, len(order) - 1)]
        if not (self.native[at] == found).all():
            raise ModelError("expected predictions among the estimator's classes_, got others: mend the estimator")
        return np.asarray(self.positions, dtype=np.int64)[at]

    def scores(self, x: Array) -> Array:
        if len(x) == 0:
            return np.empty((0, len(self.classes)))
        found = np.asarray(self.estimator.predict_proba(self.rows(x)))
        if found.shape != (len(x), len(self.positions)):
            raise ModelError(
                f"expected probabilities of shape ({len(x)}, {len(self.positions)}), a column for each of the "
                f"estimator's classes_, got {found.shape}: fit it on samples of every class, on one target"
            )
        out = np.zeros((len(x), len(self.classes)))
        out[:, self.positions] = found
        return out

    def logits(self, x: Array) -> Array:
        if len(x) == 0:
            return np.empty((0, len(self.classes)))
        decide = margins_of(self.estimator)
        assert decide is not None  # see `has_logits`
        found = np.asarray(decide(self.rows(x)), dtype=np.float64)
        if found.ndim == 1:
            found = np.stack([-found / 2, found / 2], axis=1)
        out = np.empty_like(found)
        out[:, self.positions] = found
        return out

    def has_logits(self) -> bool:
        """Whether there is one column for each class: not for one-vs-one machines, nor where a class was never seen."""
        return (
            len(self.classes) > 1
            and len(self.positions) == len(self.classes)
            and margins_of(self.estimator) is not None
            and (
                len(self.classes) == 2 or getattr(_last_step(self.estimator), "decision_function_shape", "ovr") == "ovr"
            )
        )


@dataclass(frozen=True)
class _Refit:
    """The `fit` of a recipe; travels to other processes as plain data."""

    estimator: Any
    rows: Rows
    classes: tuple[str, ...]
    positions: tuple[int, ...]
    native: Array
    prefix: str
    schema: Schema | None

    def __call__(self, data: Data, init: Mapping[str, Any], rng: np.random.Generator) -> Model:
        from sklearn.base import clone
        from sklearn.exceptions import ConvergenceWarning

        fresh = clone(self.estimator)
        fresh.set_params(**self._parameters(init, rng))
        with warnings.catch_warnings():
            # A sweep and a shadow pool fit a hundred times with settings that are not the user's.
            warnings.simplefilter("ignore", ConvergenceWarning)
            try:
                fresh.fit(self.rows(data.x), self._targets(data.labels))
            except Exception as error:  # an estimator's own code may raise anything
                raise ModelError(
                    f"expected {type(fresh).__name__} to fit, got {type(error).__name__}: {error}: mend the data or "
                    "the recipe"
                ) from error
        return self._wrapped(fresh, data)

    def _targets(self, y: Array) -> Array:
        if not self.classes:
            return y
        order = np.argsort(self.positions)
        positions = np.asarray(self.positions)[order]
        at = np.clip(np.searchsorted(positions, y), 0, len(positions) - 1)
        if not (positions[at] == y).all():
            raise ModelError(
                "expected labels of classes that the estimator was fitted on, got others: fit it on them first"
            )
        return np.asarray(self.native[order][at])

    def _wrapped(self, fresh: Any, data: Data) -> Model:
        """By the estimator's own names: a fit that saw fewer classes must still find their indices."""
        own = list(self.classes)
        for position, value in zip(self.positions, self.native, strict=True):
            own[position] = class_name(value)
        return replace(
            wrap_estimator(fresh, classes=own or None, schema=self.schema or data.schema), classes=self.classes
        )

    def _parameters(self, init: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        params = self.estimator.get_params(deep=True)
        seeds = {
            name: int(rng.integers(2**31 - 1))
            for name in sorted(params)
            if name == "random_state" or name.endswith("__random_state")
        }
        chosen = {}
        for key, value in init.items():
            full = self.prefix + key if self.prefix + key in params else key
            if full not in params:
                known = ", ".join(key for key in KNOBS if self.prefix + key in params)
                raise ModelError(
                    f"expected a parameter of {type(self.estimator).__name__} ({known}), got {key!r}: mend it"
                )
            chosen[full] = value
        return seeds | chosen


def _calls(estimator: Any, classes: Sequence[str] | None, schema: Schema | None) -> _Calls:
    check_fitted(estimator)
    rows = rows_for(estimator, schema)
    native = getattr(estimator, "classes_", None)
    if native is None:
        _check_regressor(estimator)
        return _Calls(_sequential(estimator), rows, (), np.empty(0), ())
    if isinstance(native, list) or np.ndim(native) != 1:
        raise ModelError("expected an estimator with one target, got one with several: wrap one of its outputs")
    names = [class_name(value) for value in native]
    chosen = tuple(classes) if classes else tuple(names)
    return _Calls(_sequential(estimator), rows, chosen, np.asarray(native), _positions(names, chosen))


def _try_rows(calls: _Calls, schema: Schema | None) -> None:
    """A few rows of the schema, so that what the estimator cannot take is said before an audit begins."""
    if schema is None:
        return
    try:
        calls.labels(probes(schema, 2))
        if calls.classes and hasattr(calls.estimator, "predict_proba"):
            calls.scores(probes(schema, 2))
    except ModelError:
        raise
    except Exception as error:  # an estimator's own code may raise anything
        text = str(error).splitlines()[0] if str(error) else "no message"
        raise ModelError(
            f"expected the estimator to take rows of this data, got {type(error).__name__} ({text}): name the files, "
            "the target and the kinds of columns that it was fitted with"
        ) from error


def _positions(names: list[str], classes: tuple[str, ...]) -> tuple[int, ...]:
    unknown = [name for name in names if name not in classes]
    if not unknown:
        return tuple(classes.index(name) for name in names)
    counted = [str(index) for index in range(len(classes))]
    if names == counted or (names == ["False", "True"] and len(classes) == 2):
        return tuple(range(len(classes)))
    raise ModelError(
        f"expected an estimator for the classes {', '.join(classes[:6])}, got one that also answers "
        f"{', '.join(unknown[:6])}: name the target that it was fitted on, or list all classes"
    )


def check_fitted(estimator: Any) -> None:
    """Raise `ModelError` for an estimator before its fit."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not hasattr(estimator, "fit"):  # somebody's own object: `predict` is all that can be asked of it
        return
    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError) as error:
        raise ModelError(
            f"expected a fitted estimator, got {type(estimator).__name__} before fit: fit it first"
        ) from error


def _check_regressor(estimator: Any) -> None:
    from sklearn.base import is_classifier, is_regressor

    own = not hasattr(estimator, "__sklearn_tags__")
    if own or is_classifier(estimator) or not is_regressor(estimator):
        raise ModelError(
            f"expected a classifier with classes_ or a regressor, got {type(estimator).__name__}: wrap its answers "
            "as a function"
        )


def _sequential(estimator: Any) -> Any:
    """The estimator, or a copy without parallel jobs: a sum in the order in which threads end is not repeatable."""
    if not hasattr(estimator, "get_params"):
        return estimator
    parallel = _parallel(estimator)
    return copy.deepcopy(estimator).set_params(**dict.fromkeys(parallel, 1)) if parallel else estimator


def _parallel(estimator: Any) -> list[str]:
    params = estimator.get_params(deep=True) if hasattr(estimator, "get_params") else {}
    return [key for key, jobs in params.items() if key.rpartition("__")[2] == "n_jobs" and jobs not in (None, 1)]


def _affine(calls: _Calls, schema: Schema | None) -> Affine | None:
    if calls.rows.categories or calls.rows.texts:
        return None
    width = getattr(calls.estimator, "n_features_in_", None)
    if schema is not None:
        x = probes(schema, 16)
    elif width is not None:
        x = np.random.default_rng(0).normal(size=(16, width))
    else:
        return None
    found = affine_of(calls.estimator, _Ordered(calls), np.nan_to_num(x), calls.rows.take)
    if found is None:
        return None
    order = np.argsort(calls.positions)
    return Affine(found.weights[order], found.bias[order])


@dataclass(frozen=True)
class _Ordered:
    """Logits in the estimator's own order of classes, in which its coefficients stand."""

    calls: _Calls

    def __call__(self, x: Array) -> Array:
        return self.calls.logits(x)[:, self.calls.positions]


def _last_step(estimator: Any) -> Any:
    steps = getattr(estimator, "steps", None)
    return _last_step(steps[-1][1]) if steps else estimator


def _prefix(estimator: Any) -> str:
    """How `get_params` spells the parameters of the last step: `logisticregression__`."""
    steps = getattr(estimator, "steps", None)
    return f"{steps[-1][0]}__{_prefix(steps[-1][1])}" if steps else ""


def _short_name(estimator: Any) -> str:
    return type(_last_step(estimator)).__name__


def _notes(estimator: Any, calls: _Calls) -> dict[str, str]:
    notes = {"class": f"{type(estimator).__module__}.{type(estimator).__qualname__}"}
    if _parallel(estimator):
        notes["n_jobs"] = "evaluated with n_jobs = 1: the order of a parallel sum is not repeatable"
    if calls.rows.columns:
        notes["rows"] = f"data frame, {len(calls.rows.categories)} categorical columns as {calls.rows.text_dtype}"
    if calls.classes and [class_name(value) for value in calls.native] != [calls.classes[i] for i in calls.positions]:
        notes["classes"] = "matched by index: the estimator was fitted on other names"
    return notes
