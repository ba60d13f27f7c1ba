"""A model behind HTTP as a black box: labels, scores or logits of an endpoint that the user may attack.

An endpoint speaks the Open Inference Protocol, version 2, or any JSON that a template describes. It has no digest: what
names it is a fingerprint of its behaviour, the labels it gives to some made-up samples, taken again when the audit
ends. Every sample sent is a query; the number and its limit hold for everything that is sent, repeated tries and the
fingerprint included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.function import OUTPUTS, Calls
from casemate.adapters.oip import OpenInference, open_inference
from casemate.adapters.probing import probes
from casemate.adapters.sending import Sender, Sending
from casemate.adapters.templates import template_of
from casemate.adapters.values import as_labels, meaning_of
from casemate.core.data import texts
from casemate.core.facets import DataKind
from casemate.core.model import Model, best_of
from casemate.core.rng import stream
from casemate.core.schema import Schema
from casemate.errors import CasemateError, ConfigError, ModelError, UsageError
from casemate.formats import canonical

__all__ = ["Asking", "Codec", "Endpoint", "open_endpoint"]

Array = NDArray[Any]
_PROBES = 32  # samples of a fingerprint
_ROUNDING = 1e-6
_WORDS = (
    *("the", "a", "not", "very", "good", "bad", "free", "money", "meeting", "please", "ignore", "all", "previous"),
    *("instructions", "call", "now", "win", "great", "awful", "report", "see", "you", "tomorrow", "account"),
    *("thanks", "never", "password", "film", "service", "help", "question", "click", "here", "today", "price"),
)


class Codec(Protocol):
    """What turns samples into a request, and what comes back into answers."""

    @property
    def single(self) -> bool:
        """Whether a request carries one sample only."""

    def body(self, x: Array) -> Any:
        """The JSON of a request for samples `x (n, ...)`."""

    def answers(self, found: Any, n: int) -> Array:
        """The answers of `n` samples, `(n,)` or `(n, k)`."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Which endpoint is audited, and how it is asked; the keys of `[model]` in casemate.toml.

    `outputs` says what its answers are; left open, its first answers tell. `request` and `response` are those of
    `templates`, `tensor` and `answer` the names of the input and the output of `oip`. `headers` name variables of the
    environment. `batch` is the most samples in one request. `authorised` states that the endpoint may be attacked.
    `sent_before` are the queries of an interrupted audit that is gone on with.
    """

    url: str
    protocol: str = "oip"
    outputs: str | None = None
    request: str | None = None
    response: str | None = None
    tensor: str | None = None
    answer: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    batch: int = 64
    sending: Sending = field(default_factory=Sending)
    cost_per_query: float | None = None
    authorised: bool = False
    sent_before: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint that is ready to be asked; `casemate.wrap` and `casemate.audit` take it as they take an estimator."""

    asking: Asking
    sender: Sender

    def as_model(
        self, *, classes: Sequence[str] | None, schema: Schema | None, name: str | None, logits: bool | None
    ) -> Model:
        """The model of this endpoint; asks it for its fingerprint, and for what its answers are where nobody said it.

        Raises `ModelError` for an endpoint that does not answer as declared, `BudgetExhausted` for a limit too small.
        """
        asking, known = self.asking, tuple(classes or ())
        said = asking.outputs or (None if logits is None else "logits" if logits else "scores")
        if said is None and schema is None:
            raise ConfigError("expected outputs where there is no data to try the endpoint with, got none: declare it")
        line = _Line(self.sender, self._codec(schema, known), asking.batch, None if schema is None else schema.shape)
        x = None if schema is None else _made_up(schema)
        raw = None if x is None else line(x)
        answers = _Answers(line, said or meaning_of(np.asarray(raw)), known)
        first = None if raw is None else answers.labels_of(raw)
        labels = [] if first is None else first.tolist()
        form = {key: getattr(asking, key) for key in ("protocol", "request", "response", "tensor", "answer")}
        named = {"endpoint": asking.url, "outputs": answers.output, "labels": labels, "form": form}
        audited = _Audited(asking, answers, canonical.digest(named), x, first)
        if x is not None and self.sender.how.queries is not None:
            self.sender.reserved = len(x)
        calls = Calls(answers, answers.output, len(known))
        return Model(
            name=name or asking.url.rstrip("/").rpartition("/")[2],
            digest=audited.digest,
            labels=calls.labels,
            classes=known,
            scores=None if answers.output == "labels" else calls.scores,
            logits=calls.logits if answers.output == "logits" else None,
            estimator=audited,
            framework="http",
            notes={"endpoint": asking.url, "protocol": asking.protocol, "output": answers.output, "authorised": "yes"},
        )

    def _codec(self, schema: Schema | None, classes: tuple[str, ...]) -> Codec:
        asking = self.asking
        if asking.protocol == "json":
            return template_of(asking.request, asking.response, schema, classes)
        return open_inference(self.sender.ask(), schema, asking.tensor, asking.answer)


def open_endpoint(asking: Asking) -> Endpoint:
    """The endpoint that `asking` names; nothing is sent yet.

    Raises `UsageError` where nobody said that it may be attacked, and `ConfigError` for what does not fit together.
    """
    if not asking.authorised:
        raise UsageError(
            "expected the word that this endpoint may be attacked, got none: an audit sends it thousands of hostile "
            "queries; ask its owner, then pass --i-am-authorised (authorised=True in Python)"
        )
    if asking.protocol not in ("json", "oip"):
        raise ConfigError(f"expected protocol = 'oip' or 'json', got {asking.protocol!r}: choose one")
    if asking.outputs not in (None, *OUTPUTS):
        raise ConfigError(f"expected outputs as one of {', '.join(OUTPUTS)}, got {asking.outputs!r}: choose one")
    others = ("tensor", "answer") if asking.protocol == "json" else ("request", "response")
    if wrong := [name for name in others if getattr(asking, name) is not None]:
        raise ConfigError(f"expected no model.{wrong[0]} for protocol = '{asking.protocol}', got one: leave it out")
    if asking.batch < 1 or asking.sending.tries < 1:
        raise ConfigError("expected batch and tries of at least 1, got less: mend them")
    path = "" if asking.protocol == "json" else "/infer"
    url = asking.url.rstrip("/").removesuffix(path) if path else asking.url
    return Endpoint(replace(asking, url=url), Sender(url, asking.sending, asking.headers, before=asking.sent_before))


@dataclass(frozen=True, slots=True)
class _Line:
    """Samples in, the endpoint's own answers out, a batch at a time."""

    sender: Sender
    codec: Codec
    batch: int
    shape: tuple[int, ...] | None

    def __call__(self, x: Array) -> Array:
        if self.shape is not None and x.shape[1:] != self.shape:
            raise ModelError(f"expected samples of shape {self.shape}, got {x.shape[1:]}: reshape the data")
        path = "/infer" if isinstance(self.codec, OpenInference) else ""
        size = 1 if self.codec.single else self.batch
        parts = []
        for top in range(0, len(x), size):
            part = x[top : top + size]
            found = self.sender.ask(path, self.codec.body(part), len(part))
            parts.append(self.codec.answers(found, len(part)))
        shapes = {part.shape[1:] for part in parts}
        if len(shapes) > 1:
            raise ModelError(f"expected answers of one shape, got {sorted(shapes)}: mend the endpoint")
        return np.concatenate(parts) if parts else np.empty(0)


@dataclass(frozen=True, slots=True)
class _Answers:
    """The answers as a function gives them: class indices `(n,)`, or a column for each class."""

    line: _Line
    output: str
    classes: tuple[str, ...]

    def __call__(self, x: Array) -> Array:
        if not len(x):
            return np.empty(0, dtype=np.int64) if self.output == "labels" else np.empty((0, len(self.classes)))
        return self._read(self.line(x))

    def labels_of(self, raw: Array) -> NDArray[np.int64]:
        """The class indices in answers that were had already."""
        found = self._read(raw)
        return found if self.output == "labels" else best_of(found)

    def _read(self, raw: Array) -> Array:
        if self.output == "labels":
            return as_labels(raw, self.classes)
        if raw.dtype.kind not in "iuf":
            raise ModelError(f"expected {self.output}, got text: say outputs = 'labels'")
        found = raw.astype(np.float64)
        if self.output == "scores" and (found.min() < -_ROUNDING or found.max() > 1 + _ROUNDING):
            raise ModelError("expected probabilities from 0 to 1, got others: say outputs = 'logits'")
        if found.ndim == 2 and found.shape[1] > 1:
            return found
        single = found.reshape(-1, 1)  # two classes, and the number is of the second
        return np.hstack([1 - single, single] if self.output == "scores" else [-single / 2, single / 2])


@dataclass(frozen=True, slots=True)
class _Audited:
    """The endpoint of a model, and what is to be said of it when an audit ends."""

    asking: Asking
    answers: _Answers
    digest: str
    x: Array | None
    first: NDArray[np.int64] | None

    def account(self, before: int, keep: Callable[[int], None]) -> None:
        """Count on from the `before` queries that an audit had sent when it was interrupted.

        `keep` is told the sum before any more are sent.
        """
        sender = self.answers.line.sender
        sender.before, sender.keep = before, keep
        keep(before + sender.queries)

    def closing(self) -> tuple[str, ...]:
        """Sentences for the report: who allowed it, whether the endpoint is still the same, what was sent to it.

        Asks the samples of the fingerprint once more. Never raises for an endpoint that has gone.
        """
        said = (
            f"The endpoint {self.asking.url} was attacked over HTTP. Whoever ran the audit stated that it may be "
            "(--i-am-authorised)."
        )
        return (said, self._drift(), self._count())

    def _drift(self) -> str:
        if self.x is None or self.first is None:
            return "The endpoint has no digest, and without data no fingerprint: what names it is its URL."
        known = f"The endpoint has no digest. Its fingerprint is the labels of {len(self.x)} made-up samples"
        sender = self.answers.line.sender
        sender.reserved = 0
        try:
            last = self.answers.labels_of(self.answers.line(self.x))
        except CasemateError as error:
            return f"{known}; it could not be taken again when the audit ended ({error})."
        changed = int((last != self.first).sum())
        if not changed:
            return f"{known}, the same when the audit began and when it ended."
        return (
            f"{known}; {changed} of them had changed when the audit ended. The model behind the URL was replaced, or "
            "answers at random: the findings may be about two models, and the audit should be run again."
        )

    def _count(self) -> str:
        sender, price = self.answers.line.sender, self.asking.cost_per_query
        total = sender.before + sender.queries
        limit = f" of {sender.how.queries:,} allowed" if sender.how.queries is not None else ""
        before = f"; {sender.before:,} of them before the audit was interrupted" if sender.before else ""
        again = f"; {sender.repeated:,} of them were sent again after a failure" if sender.repeated else ""
        cost = "" if price is None else f" At {price:g} each they cost {total * price:,.2f}."
        others = " What other processes sent is not in these numbers." if sender.away else ""
        where, since = ("for this audit", " since") if sender.before else ("by this process", "")
        return (
            f"{total:,} queries{limit} were sent to the endpoint {where}, in {sender.requests:,} requests{since}: one "
            f"a sample, the fingerprint and every try counted{before}{again}.{cost}{others}"
        )


def _made_up(schema: Schema) -> Array:
    if schema.kind is not DataKind.TEXT:
        return probes(schema, _PROBES)
    rng = stream(0, "adapters", "probes", "texts")
    return texts(" ".join(rng.choice(_WORDS, size=size)) for size in rng.integers(3, 16, _PROBES))
