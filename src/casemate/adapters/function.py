"""Any Python callable as a model: a black box that says what its answers mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.digest import fingerprint
from casemate.core.model import Model, Task, best_of
from casemate.errors import ModelError

__all__ = ["OUTPUTS", "Calls", "softmax", "wrap_function"]

Array = NDArray[Any]
OUTPUTS = ("labels", "scores", "logits")


def wrap_function(
    function: Callable[[Array], Any],
    *,
    output: str,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    task: Task = Task.CLASSIFICATION,
) -> Model:
    """A model around `function(x (n, ...))`, which returns what `output` says, for whole batches.

    `labels`: class indices `(n,)` (floats for a regression); `scores`: probabilities `(n, k)`; `logits`: `(n, k)`.
    Scores follow from logits by softmax and labels from either by argmax. Raises `ModelError` for another `output`, and
    when asked for an answer of the wrong shape or for a function that raises.
    """
    if not callable(function):
        raise ModelError(f"expected something to call, got {type(function).__name__}: pass a function")
    if output not in OUTPUTS:
        raise ModelError(f"expected output to be one of {', '.join(OUTPUTS)}, got {output!r}: say what it returns")
    calls = Calls(function, output, len(classes) if classes else 0, regression=task is Task.REGRESSION)
    return Model(
        name=name or str(getattr(function, "__name__", type(function).__name__)),
        digest=fingerprint(function),
        labels=calls.labels,
        classes=tuple(classes or ()),
        task=task,
        scores=calls.scores if output in ("scores", "logits") else None,
        logits=calls.logits if output == "logits" else None,
        framework="callable",
        notes={"output": output},
    )


def softmax(logits: Array) -> NDArray[np.float64]:
    """Probabilities `(n, k)` in float64, so that those near 1 keep their distance from it."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Calls:
    """The answers of a function as a model gives them; every shape is checked."""

    function: Callable[[Array], Any]
    output: str
    k: int = 0
    regression: bool = False

    def labels(self, x: Array) -> Array:
        """Class indices `(n,)`, or floats for a regression."""
        if self.output != "labels":
            return best_of(self._columns(x))
        found = self.raw(x)
        if found.shape != (len(x),):
            raise ModelError(
                f"expected labels of shape ({len(x)},), got {found.shape}: say that it returns scores or logits"
            )
        if self.regression:
            return found.astype(np.float64)
        if found.dtype.kind not in "iub":
            raise ModelError(f"expected class indices, got {found.dtype}: return whole numbers from 0")
        # -1 would stand for a refused sample (`core.model.ABSTAIN`), which labels of -1 and 1 do not mean.
        wrong = found[(found < 0) | (found >= (self.k or np.inf))]
        if len(wrong):
            raise ModelError(f"expected class indices in [0, {self.k or 'k'}), got {wrong[0]}: return them from 0")
        return found.astype(np.int64)

    def scores(self, x: Array) -> Array:
        """Probabilities `(n, k)`."""
        found = self._columns(x)
        return softmax(found) if self.output == "logits" else found

    def logits(self, x: Array) -> Array:
        """Logits `(n, k)`."""
        return self._columns(x)

    def _columns(self, x: Array) -> Array:
        found = self.raw(x)
        if found.ndim != 2 or len(found) != len(x) or (self.k and found.shape[1] != self.k):
            wanted = f"({len(x)}, {self.k or 'k'})"
            raise ModelError(f"expected {self.output} of shape {wanted}, got {found.shape}: one column for each class")
        if found.dtype.kind not in "fiub" or not (found < np.inf).all():  # NaN is not below it either
            raise ModelError(
                f"expected {self.output} that are numbers, got {found.dtype} with NaN, inf or text among them: mend it"
            )
        return found

    def raw(self, x: Array) -> Array:
        """The function's own answer as an array; raises `ModelError` where it raises."""
        try:
            return np.asarray(self.function(x))
        except Exception as error:  # the user's code may raise anything
            if type(error).__module__ == "casemate.errors":
                raise
            name = getattr(self.function, "__name__", type(self.function).__name__)
            raise ModelError(
                f"expected {name} to answer a batch of shape {x.shape}, got {type(error).__name__}: {error}: mend it"
            ) from error
