"""A model with its guard in front: what an audit attacks when the guard is part of what is shipped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.data import digest_of_arrays
from casemate.core.facets import Facet, Phase, PluginKind
from casemate.core.model import ABSTAIN, Model
from casemate.core.plugin import Plugin
from casemate.core.records import Calibration, Request, Verdict
from casemate.errors import LawBroken, UsageError

__all__ = ["Ask", "with_guard"]

Array = NDArray[Any]

Ask = Callable[[Facet, Array], Array]
"""How a guard asks the model behind it: `ask(facet, x (n, ...)) -> (n, ...)`."""


def with_guard(model: Model, guard: Plugin, calibration: Calibration, *, principal: str = "audit") -> Model:
    """The same model whose labels are `ABSTAIN` for the samples that the guard refuses; a flag refuses nothing.

    Scores, logits, activations and module stay as they are, so that gradient attacks work: the harness judges by
    labels, and a refused witness is no success. Each call is one request from `principal` and starts without state,
    so that an answer depends on the sample only; a guard that needs a history shows nothing here. What the guard
    itself asks of the model is not on the meter of an audit. Raises `UsageError` for a plug-in that is no guard or a
    calibration of another one, `LawBroken` for a verdict that does not fit the request.
    """
    if guard.kind is not PluginKind.GUARD:
        raise UsageError(f"expected a guard, got {guard.id}, which is a {guard.kind}: name a guard")
    if calibration.plugin != guard.id:
        raise UsageError(f"expected a calibration of {guard.id}, got one of {calibration.plugin}: calibrate the guard")

    def labels(x: Array) -> Array:
        answers = np.array(model.labels(x), copy=True)
        seen = None if guard.phase is Phase.ADMIT else answers
        request = Request(principal, x, 0.0, answer=seen)
        _, verdict = guard(request, None, calibration, model.ask)
        answers[_refused(guard, verdict, len(x))] = ABSTAIN
        return answers

    return replace(
        model,
        name=f"{model.name} behind {guard.id}",
        digest=_digest(model, guard, calibration),
        labels=labels,
        notes={**model.notes, "guard": guard.id},
    )


def _refused(guard: Plugin, verdict: Verdict, n: int) -> NDArray[np.bool_]:
    refused = np.asarray(verdict.refused)
    if refused.shape != (n,) or refused.dtype != bool:
        raise LawBroken(f"expected {guard.id} to say of each of {n} samples whether it is refused, got {refused.shape}")
    return refused


def _digest(model: Model, guard: Plugin, calibration: Calibration) -> str:
    hasher = hashlib.sha256()
    numbers = [f"{name}={value!r}" for name, value in sorted(calibration.numbers.items())]
    for part in (model.digest, guard.id, *numbers, digest_of_arrays(calibration.arrays)):
        hasher.update(len(part).to_bytes(8, "little") + part.encode())
    return "sha256:" + hasher.hexdigest()
