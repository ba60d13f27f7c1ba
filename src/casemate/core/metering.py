"""A metered model: every sample that it answers is charged to a meter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.model import Answer, Model, Saliency

__all__ = ["metered", "metered_case", "observed", "unmetered", "unmetered_case"]

Array = NDArray[Any]


def metered(model: Model, meter: Meter) -> Model:
    """The same model with every answered sample charged to `meter`, which may refuse (`BudgetExhausted`).

    Code that goes round the functions (gradients on `module`, a prepared copy) charges the meter itself. A model that
    is metered already is charged to the new meter only.
    """
    plain = unmetered(model)

    @overload
    def charged(answer: Answer) -> Answer: ...
    @overload
    def charged(answer: None) -> None: ...
    def charged(answer: Answer | None) -> Answer | None:
        if answer is None:
            return None

        def ask(x: Array) -> Array:
            meter.charge(forwards=len(x))
            return answer(x)

        return ask

    return replace(
        plain,
        labels=charged(plain.labels),
        scores=charged(plain.scores),
        logits=charged(plain.logits),
        activations=charged(plain.activations),
        saliency=None if plain.saliency is None else _charged_saliency(plain.saliency, meter),
        inner=plain,
    )


def _charged_saliency(saliency: Saliency, meter: Meter) -> Saliency:
    def ask(x: Array, y: Array) -> list[NDArray[np.float64]]:
        meter.charge(forwards=len(x), backwards=len(x))
        return saliency(x, y)

    return ask


def unmetered(model: Model) -> Model:
    """The model under the meter."""
    return model if model.inner is None else model.inner


def observed(model: Model, meter: Meter) -> Model:
    """The same model with its labels counted but never refused: for the harness's own measurements."""
    plain = unmetered(model)

    def labels(x: Array) -> Array:
        meter.observe(len(x))
        return plain.labels(x)

    return replace(plain, labels=labels, inner=plain)


def metered_case(case: Case, meter: Meter) -> Case:
    """The case with its model metered."""
    return case if case.model is None else replace(case, model=metered(case.model, meter))


def unmetered_case(case: Case) -> Case:
    """The case with its model as the user gave it."""
    return case if case.model is None else replace(case, model=unmetered(case.model))
