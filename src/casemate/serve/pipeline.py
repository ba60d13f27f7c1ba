"""The pipeline in one process: admission by attestation, then for each request schema, guards, answer, event."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate._attest import hold
from casemate.core.facets import Facet, Phase, Scope
from casemate.core.model import ABSTAIN, Model
from casemate.core.plugin import Plugin
from casemate.core.records import Calibration, Decision, Event, Request, Verdict
from casemate.core.schema import Schema
from casemate.engine.bundles import bundle_of
from casemate.errors import DataError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["Pipeline", "Response", "admit"]

Array = NDArray[Any]
Sink = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Response:
    """What a client gets: a label for each sample (`ABSTAIN` where a guard refused), and the id of the event."""

    labels: NDArray[np.int64]
    decision: Decision
    event: str


@dataclass(slots=True)
class Pipeline:
    """A served model. Make one with `admit`, which checks the attestation first."""

    model: Model
    schema: Schema
    bundle_digest: str
    guards: tuple[tuple[Plugin, Calibration], ...]
    sink: Sink
    clock: Callable[[], float] = time.time
    _states: dict[tuple[str, str], Any] = field(default_factory=dict)
    _served: int = 0

    def answer(self, principal: str, x: Array) -> Response:
        """Answer `x (n, ...)`; raises `DataError` for samples that break the schema, before anything is asked."""
        request = Request(principal, self._checked(x), self.clock())
        verdicts = self._guarded(request, Phase.ADMIT)
        refused = self._refused(verdicts, len(x))
        labels = np.full(len(x), ABSTAIN, dtype=np.int64)
        if not refused.all():
            labels[~refused] = self.model.labels(request.x[~refused])
        answered = Request(principal, request.x, request.received_at, answer=labels)
        late = self._guarded(answered, Phase.ANSWER)
        labels[self._refused(late, len(x))] = ABSTAIN
        event = self._event(answered, labels, [*verdicts, *late])
        self.sink(event)
        self._guarded(answered, Phase.AFTER)
        return Response(labels, event.decision, event.id)

    def _checked(self, x: Array) -> Array:
        x = np.asarray(x)
        if x.ndim != len(self.schema.shape) + 1 or len(x) == 0:
            raise DataError(
                f"expected samples of shape (n, {', '.join(map(str, self.schema.shape))}), got {x.shape}: reshape"
            )
        if problems := self.schema.problems(x):
            rule, rows = next(iter(problems.items()))
            raise DataError(
                f"expected samples that keep the schema, got {int(rows.sum())} that break it ({rule}): mend them"
            )
        return x

    def _guarded(self, request: Request, phase: Phase) -> list[Verdict]:
        verdicts = []
        for plugin, calibration in self.guards:
            if plugin.phase is phase:
                key = (plugin.id, request.principal if plugin.scope is Scope.PRINCIPAL else "")
                state, verdict = plugin.function(request, self._states.get(key), calibration, self._ask)
                if plugin.scope is not Scope.NONE:
                    self._states[key] = state
                verdicts.append(verdict)
        return verdicts

    def _ask(self, facet: Facet, x: Array) -> Array:
        return self.model.ask(facet, x)

    @staticmethod
    def _refused(verdicts: Iterable[Verdict], n: int) -> NDArray[np.bool_]:
        refused = np.zeros(n, dtype=bool)
        for verdict in verdicts:
            refused |= verdict.refused
        return refused

    def _event(self, request: Request, labels: Array, verdicts: list[Verdict]) -> Event:
        self._served += 1
        decision = max((v.decision for v in verdicts), key=list(Decision).index, default=Decision.ALLOW)
        scores = verdicts[0].score if verdicts else np.zeros(len(labels))
        flat = np.asarray(request.x, dtype=np.float64).reshape(len(labels), -1)
        return Event(
            id=f"{self.bundle_digest[7:19]}-{time.time_ns():x}-{self._served:x}",
            bundle_digest=self.bundle_digest,
            principal=request.principal,
            received_at=request.received_at,
            n=len(labels),
            decision=decision,
            labels=tuple(int(label) for label in labels),
            scores=tuple(float(score) for score in scores),
            guards={v.plugin: str(v.decision) for v in verdicts},
            features=tuple(tuple(float(value) for value in row) for row in flat),
        )


def admit(
    model: Model,
    schema: Schema,
    guards: Iterable[tuple[Plugin, Calibration]],
    *,
    envelope: Mapping[str, Any],
    keys: Iterable[Ed25519PublicKey],
    sink: Sink,
    now: dt.datetime | None = None,
) -> Pipeline:
    """A pipeline for exactly the bundle that was audited and signed.

    Raises `IntegrityError` when the signature does not hold, the attestation is about another bundle, its verdict is
    not `passed`, or it has expired.
    """
    pairs = tuple(guards)
    bundle = bundle_of(model, schema, [calibration for _, calibration in pairs])
    hold(envelope, keys, bundle=bundle.digest, now=now)
    return Pipeline(model, schema, bundle.digest, pairs, sink)
