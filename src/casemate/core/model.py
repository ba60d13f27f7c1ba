"""A model is a record of the functions that it offers; what it can do follows from which are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.facets import Facet
from casemate.core.trees import Trees
from casemate.errors import Unavailable

__all__ = ["ABSTAIN", "NO_ANSWER", "Affine", "Answer", "Model", "Saliency", "Task", "best_of"]

Array = NDArray[Any]
Answer = Callable[[Array], Array]
Saliency = Callable[[Array, Array], list[NDArray[np.float64]]]

ABSTAIN = -1
"""The label of a model that refuses to answer (a guard in front of it said no)."""
NO_ANSWER = -2
"""The label of a sample whose scores are not all numbers: that of no class, so it is never right."""


class Task(StrEnum):
    """What the model predicts."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"


@dataclass(frozen=True, slots=True)
class Affine:
    """Logits that are an affine function of the flattened sample: `weights (k, d) @ x + bias (k,)`."""

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """What an audit may ask of a model; made by an adapter.

    `labels`: `(n, ...) -> (n,)` class indices int64 (`ABSTAIN` for a refused sample), or floats for regression.
    `scores`: `-> (n, k)` probabilities. `logits`: `-> (n, k)`. `activations`: `-> (n, m)` penultimate features.
    `saliency`: of texts `(n,)` and their labels `(n,)`, for each text how much each of its words (split at white space)
    carries the label, from gradients at the embeddings. `module`: the torch module whose output are the logits, on its
    device, for attacks that need gradients; it takes exactly the array that the functions take. `estimator`: the native
    object. `affine`: the logits in closed form. `trees`: the ensemble of trees that it is, checked against its answers.
    `digest` names the weights; `notes` are facts the report repeats (device, dtype, what was folded).
    """

    name: str
    digest: str
    labels: Answer
    classes: tuple[str, ...] = ()
    task: Task = Task.CLASSIFICATION
    scores: Answer | None = None
    logits: Answer | None = None
    activations: Answer | None = None
    saliency: Saliency | None = None
    module: Any = None
    estimator: Any = None
    affine: Affine | None = None
    trees: Trees | None = None
    framework: str = "callable"
    notes: Mapping[str, str] = field(default_factory=dict)
    inner: Model | None = None  # the model under a meter, see `metering`

    @property
    def offers(self) -> frozenset[Facet]:
        """The facets of this model."""
        there = {
            Facet.LABELS: True,
            Facet.SCORES: self.scores is not None,
            Facet.LOGITS: self.logits is not None,
            Facet.GRADIENTS: self.module is not None,
            Facet.ACTIVATIONS: self.activations is not None,
            Facet.AFFINE: self.affine is not None,
            Facet.TREES: self.trees is not None,
        }
        return frozenset(facet for facet, present in there.items() if present)

    def ask(self, facet: Facet, x: Array) -> Array:
        """Labels, scores, logits or activations of `x (n, ...)`; raises `Unavailable` where the model has none."""
        answers = {
            Facet.LABELS: self.labels,
            Facet.SCORES: self.scores,
            Facet.LOGITS: self.logits,
            Facet.ACTIVATIONS: self.activations,
        }
        answer = answers.get(facet)
        if answer is None:
            raise Unavailable(f"expected a model that offers {facet}, got {sorted(self.offers)}: use another model")
        return answer(x)


def best_of(answers: Array) -> NDArray[np.int64]:
    """The class of the highest score or logit of each row `(n, k)`, `NO_ANSWER` where one is NaN.

    `argmax` alone takes the first NaN for the highest: a broken model would be right on all samples of that class.
    """
    labels = np.asarray(answers.argmax(axis=1), dtype=np.int64)
    unknown = np.isnan(answers).any(axis=1)
    if unknown.any():
        labels[unknown] = NO_ANSWER
    return labels
