"""Closed forms: the logits of a linear classifier behind affine steps, offered only where the model agrees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.model import Affine, Answer
from casemate.core.rng import stream

__all__ = ["affine_of", "agrees"]

Array = NDArray[Any]
_LINEAR = frozenset({"LogisticRegression", "LogisticRegressionCV", "RidgeClassifier", "RidgeClassifierCV", "LinearSVC"})
_LINEAR_TOO = frozenset({"SGDClassifier", "Perceptron", "PassiveAggressiveClassifier", "LinearDiscriminantAnalysis"})
_TOLERANCE = 1e-6


def affine_of(estimator: Any, logits: Answer, x: Array, take: Sequence[int] = ()) -> Affine | None:
    """`weights (k, d)`, `bias (k,)` with `logits(x) = weights @ x + bias`, or `None` where there is no such form.

    For linear classifiers alone or behind scaling, centring and PCA. Offered only if it agrees with `logits` on the
    probes `x (n, d)` and on larger ones, to 1e-6 of the largest logit. `take` are the columns of x that the estimator
    is given, in its order; all others weigh nothing.
    """
    steps = [step for _, step in getattr(estimator, "steps", ())] or [estimator]
    last = steps[-1]
    if type(last).__name__ not in _LINEAR | _LINEAR_TOO or not hasattr(last, "coef_"):
        return None
    weights, bias = _two_columns(np.asarray(last.coef_, np.float64), np.asarray(last.intercept_, np.float64))
    for step in reversed(steps[:-1]):
        maker = _STEPS.get(type(step).__name__) if not isinstance(step, str) else _STEPS["str"]
        form = maker(step, weights.shape[1]) if maker else None
        if form is None:
            return None
        matrix, offset = form
        bias = bias + weights @ offset
        weights = weights * matrix if matrix.ndim == 1 else weights @ matrix
    if take:
        spread = np.zeros((len(weights), x.shape[1]))
        spread[:, list(take)] = weights
        weights = spread
    found = Affine(weights, bias)
    return found if agrees(found, logits, x) else None


def agrees(affine: Affine, logits: Answer, x: Array) -> bool:
    """Whether the closed form gives the model's logits on `x` and on mixtures that leave its range."""
    mixed = stream(0, "adapters", "affine").normal(size=(len(x), len(x))) @ np.asarray(x, np.float64).reshape(
        len(x), -1
    )
    tries = np.concatenate([np.asarray(x, np.float64), mixed.reshape(x.shape)]).astype(x.dtype)
    expected = np.asarray(logits(tries), dtype=np.float64)
    got = tries.reshape(len(tries), -1).astype(np.float64) @ affine.weights.T + affine.bias
    if got.shape != expected.shape:
        return False
    precision = max(_TOLERANCE, 50 * float(np.finfo(tries.dtype).eps)) if tries.dtype == np.float32 else _TOLERANCE
    return bool(np.abs(got - expected).max() <= precision * max(1.0, float(np.abs(expected).max())))


def _two_columns(weights: Array, bias: Array) -> tuple[Array, Array]:
    """A binary decision function `d` as the logits `(-d / 2, d / 2)`, see `sklearn`."""
    weights = np.atleast_2d(weights)
    bias = np.broadcast_to(bias, (len(weights),))
    if len(weights) > 1:
        return weights, bias
    sides = np.array([[-0.5], [0.5]])
    return sides * weights, (sides * bias).reshape(-1)


_Form = tuple[Array, Array] | None
"""`step(x) = matrix @ x + offset`; a vector as matrix is a diagonal one."""


def _standard(step: Any, d: int) -> _Form:
    scale = 1.0 / step.scale_ if step.with_std else np.ones(d)
    return scale, -step.mean_ * scale if step.with_mean else np.zeros(d)


def _robust(step: Any, d: int) -> _Form:
    scale = 1.0 / step.scale_ if step.with_scaling else np.ones(d)
    return scale, -step.center_ * scale if step.with_centering else np.zeros(d)


def _min_max(step: Any, d: int) -> _Form:
    del d
    return None if step.clip else (step.scale_, step.min_)


def _max_abs(step: Any, d: int) -> _Form:
    return None if getattr(step, "clip", False) else (1.0 / step.scale_, np.zeros(d))


def _pca(step: Any, d: int) -> _Form:
    del d
    matrix = step.components_
    if step.whiten:
        matrix = matrix / np.sqrt(step.explained_variance_)[:, None]
    return matrix, -matrix @ step.mean_


def _identity(step: Any, d: int) -> _Form:
    del step
    return np.ones(d), np.zeros(d)


_STEPS: Mapping[str, Callable[[Any, int], _Form]] = {
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MinMaxScaler": _min_max,
    "MaxAbsScaler": _max_abs,
    "PCA": _pca,
    "str": _identity,  # "passthrough"
    "NoneType": _identity,
}
