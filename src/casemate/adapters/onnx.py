"""ONNX graphs as models: answers by onnxruntime, gradients where the graph converts to torch and answers the same.

What the outputs mean is read from the graph and from a few samples: a column for each class before or after a softmax
(or a sigmoid), maps from class to probability, class labels as numbers or text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.function import softmax
from casemate.adapters.labels import class_name, encode
from casemate.adapters.loading import Declared
from casemate.adapters.onnx_heads import Scored, class_values, label_output, scored, told
from casemate.adapters.onnx_session import Feed, Given, Session, fitted, graph_digest, input_of, read_graph
from casemate.adapters.probing import probes
from casemate.core.data import texts
from casemate.core.facets import DataKind
from casemate.core.model import Model, best_of
from casemate.core.rng import stream
from casemate.core.schema import Schema
from casemate.errors import DataError, ModelError, Unavailable

__all__ = ["OnnxModel", "open_onnx"]

Array = NDArray[Any]
_PROBES = 16
_TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
"""How far the logits of the converted graph may be from onnxruntime's, relative to the largest one (at least 1)."""


def open_onnx(path: Path, declared: Declared) -> OnnxModel:
    """The model in an `.onnx` file, for `loading`; of what is declared only `trust` matters to it.

    Raises `ModelError` as `onnx_session.read_graph`, and `Unavailable` where onnx or onnxruntime is not installed.
    """
    session = Session(read_graph(path, trust=declared.trust, notes=declared.notes), path.name)
    _ = session.live  # what does not run is said when the file is opened
    return OnnxModel(session)


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX model that was opened and not yet told what its data is."""

    session: Session

    def as_model(
        self, *, classes: Sequence[str] | None, schema: Schema | None, name: str | None, logits: bool | None
    ) -> Model:
        """The graph as a model of class labels, with scores, logits and gradients as far as it has them.

        `logits` says what its columns are; left open, the graph tells (a softmax in the end is cut off, and its input
        are the logits), and else columns that are shares of one on samples of the schema are probabilities. One column
        is one logit, or the probability of the second class. Raises `ModelError` for a graph with several inputs, for
        one whose outputs are not those of a classifier, and for one that fits neither classes nor schema.
        """
        import onnx

        proto = onnx.load_model_from_string(self.session.data)
        given = input_of(self.session)
        x = _samples(schema, given)
        axes, shape = fitted(x.shape[1:], given) if x.dtype.kind != "T" else ((), None)
        feed = _tried(Feed(self.session, given, axes, _text_shape(given) or shape, given.batch), x)
        label = label_output(feed, x)
        head = scored(feed, proto, x, logits=logits, pair=label is not None or len(classes or ()) == 2)
        if head is None and label is None:
            raise ModelError(
                f"expected an output with a column for each class, (n, k), or class labels (n,), got "
                f"{told(feed, x)}: not a classifier; wrap a function that gives one row of scores for each sample"
            )
        answers = _answers(feed, proto, head, label, classes).checked(x)
        module, why = _module(answers, x)
        return Model(
            name=name or Path(self.session.name).stem,
            digest=graph_digest(proto),
            labels=answers.labels,
            classes=answers.classes,
            scores=answers.scores if answers.head else None,
            logits=answers.logits if answers.has_logits(module) else None,
            module=module,
            framework="onnx",
            notes=_notes(answers, proto, why),
        )


@dataclass(frozen=True)
class _Answers:
    """The answers of a graph: `values` are its own classes, `positions` their indices in `classes`."""

    feed: Feed
    head: Scored | None
    label: str | None
    classes: tuple[str, ...]
    values: tuple[Any, ...]
    positions: tuple[int, ...]
    note: str = ""

    def labels(self, x: Array) -> Array:
        if len(x) == 0:
            return np.empty(0, dtype=np.int64)
        if self.label is None:
            found = best_of(self.columns(x))
            return np.where(found < 0, found, np.asarray(self.positions, dtype=np.int64)[found])
        (found,) = self.feed(x, [self.label])
        return self._indices(found.reshape(len(x)))

    def scores(self, x: Array) -> Array:
        out = np.zeros((len(x), len(self.classes)))
        if len(x):
            found = self.columns(x)
            if self.head is not None and self.head.probabilities:
                found = np.asarray(found, dtype=np.float64)
                out[:, self.positions] = found / found.sum(axis=1, keepdims=True)  # of float32 shares of one
            else:
                out[:, self.positions] = softmax(found)
        return out

    def logits(self, x: Array) -> Array:
        if len(x) == 0:
            return np.empty((0, len(self.classes)))
        if self.head is not None and self.head.probabilities:
            return np.log(np.maximum(self.scores(x), np.finfo(np.float32).tiny))
        found = self.columns(x)
        out = np.empty((len(x), len(self.classes)), dtype=found.dtype)
        out[:, self.positions] = found
        return out

    def columns(self, x: Array) -> Array:
        """One column for each class of the graph, in its own order."""
        assert self.head is not None
        (found,) = self.feed(x, [self.head.tensor])
        return self.head.columns(found)

    def has_logits(self, module: Any) -> bool:
        """Whether there is a logit for each class; of probabilities alone only beside a module, to match it."""
        if self.head is None or len(self.positions) != len(self.classes):
            return False
        return not self.head.probabilities or module is not None

    def checked(self, x: Array) -> _Answers:
        """The same, without scores where their largest column is not the label that the graph gives."""
        if self.head is None or self.label is None:
            return self
        order = np.asarray(self.positions, dtype=np.int64)
        if np.array_equal(order[self.columns(x).argmax(axis=1)], self.labels(x)):
            return self
        note = "no scores: the largest is not always the label that the graph gives"
        return replace(self, head=None, note=note)

    def _indices(self, found: Array) -> Array:
        if self.values:
            place = {value: index for value, index in zip(self.values, self.positions, strict=True)}
        elif found.dtype.kind in "iub":
            place = {index: index for index in range(len(self.classes))}
        else:
            place = {value: index for index, value in enumerate(self.classes)}
        unique, inverse = np.unique(found, return_inverse=True)
        unknown = [class_name(value) for value in unique.tolist() if value not in place]
        if unknown:
            raise ModelError(
                f"expected labels among the classes {', '.join(self.classes[:6])}, got {', '.join(unknown[:6])}: list "
                "all classes of the model"
            )
        return np.array([place[value] for value in unique.tolist()], dtype=np.int64)[inverse.reshape(-1)]


def _samples(schema: Schema | None, given: Given) -> Array:
    """A few samples to ask the graph what it is."""
    if given.kind == "tensor(string)":
        if schema is not None and schema.kind is not DataKind.TEXT:
            raise ModelError(f"expected texts as data, as {given.name} takes, got {schema.kind}: name the right data")
        if set(given.shape) - {None, 1}:
            raise ModelError(
                f"expected one text a sample, got {given.name} {given.shape}: join the columns of the model"
            )
        return texts(["a short text", "", "Another one, with 2 numbers: 17 and 42.", "free money now!!!"] * 4)
    if schema is not None and schema.kind is DataKind.TEXT:
        raise ModelError(f"expected numbers as data, as {given.name} takes, got texts: name the data of this model")
    if schema is not None:
        return probes(schema, _PROBES)
    if None in given.shape:
        raise ModelError(f"expected a schema for samples of any size, as {given.name} takes, got none: pass the data")
    shape = tuple(size for size in given.shape if size is not None)
    return stream(0, "adapters", "onnx").random((_PROBES, *shape))


def _text_shape(given: Given) -> tuple[int, ...] | None:
    """Texts are one string a sample: `(n,)` or `(n, 1)`."""
    return (1,) * len(given.shape) if given.kind == "tensor(string)" else None


def _tried(feed: Feed, x: Array) -> Feed:
    """The feed with a batch size that works: some graphs say any and hold one that was fixed at export."""
    names = [item.name for item in feed.session.live.get_outputs()]
    given = {feed.given.name: feed.sent(x)}
    if feed.batch:
        return feed
    try:
        feed.session.run(names, given)
    except ModelError as error:
        one = replace(feed, batch=1)
        try:
            feed.session.run(names, {feed.given.name: feed.sent(x[:1])})
        except ModelError:
            raise error from None
        return one
    return feed


def _answers(feed: Feed, proto: Any, head: Scored | None, label: str | None, classes: Sequence[str] | None) -> _Answers:
    values = class_values(proto, label, head)
    if head is not None:
        feed = replace(feed, session=Session(head.data, feed.session.name))
    k = len(values) or (head.k if head is not None else 0)
    if head is not None and k != head.k:
        raise ModelError(
            f"expected a column for each of the classes {values[:6]}, got {head.k}: export the model again"
        )
    if classes is None and not k:
        raise ModelError("expected the names of the classes beside a graph of labels alone, got none: list the classes")
    own = [class_name(value) for value in values] or [str(index) for index in range(k)]
    chosen = tuple(classes) if classes else tuple(own)
    if head is not None and not values and k != len(chosen):
        raise ModelError(f"expected {len(chosen)} columns, one for each class, got {k}: list the classes of the model")
    try:
        positions = encode(np.asarray(values if values else np.arange(k)), chosen, where="the model's classes")
    except DataError as error:
        raise ModelError(
            f"expected a model for the classes {', '.join(chosen[:6])}, got one that answers {', '.join(own[:6])}: "
            "name the target that it was fitted on, or list all classes"
        ) from error
    return _Answers(feed, head, label, chosen, values, tuple(int(index) for index in positions))


def _module(answers: _Answers, x: Array) -> tuple[Any, str]:
    """The graph as a torch module where it answers as onnxruntime does on `x`, and what is to be said of it."""
    kind = answers.feed.given.dtype.name
    if answers.head is None or len(answers.positions) != len(answers.classes):
        return None, "none: the graph has no score for each class"
    if kind not in _TOLERANCE:
        return None, f"none: the input is of type {'text' if kind == 'object' else kind}"
    try:
        import torch

        from casemate.adapters.onnx_graph import graph_module

        module = graph_module(answers.feed, answers.head, np.argsort(answers.positions).tolist())
        found = module(torch.tensor(np.asarray(x, dtype=kind)).requires_grad_())
    except ModuleNotFoundError:
        return None, "none: torch is not installed; pip install 'casemate[torch]'"
    except Unavailable as error:
        return None, f"none: {error}"
    except Exception as error:  # torch says in many ways that shapes or types do not fit
        return (
            None,
            f"none: the converted graph fails with {type(error).__name__}: {' '.join(str(error).split())[:200]}",
        )
    if not found.requires_grad:
        return None, "none: no gradient reaches the input"
    return _compared(module, found.detach().numpy(), answers, x)


def _compared(module: Any, found: Array, answers: _Answers, x: Array) -> tuple[Any, str]:
    expected = answers.logits(x)
    if answers.head is not None and answers.head.probabilities:  # logarithms of tiny ones are far apart and mean little
        found, expected = softmax(found), answers.scores(x)
    gap = float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
    limit = _TOLERANCE[answers.feed.given.dtype.name]
    if not gap <= limit or not np.array_equal(found.argmax(axis=1), expected.argmax(axis=1)):
        return None, f"none: the converted graph answers otherwise than onnxruntime (by {gap:.1e}, allowed {limit:.0e})"
    return module, f"of the graph in torch, which answers as onnxruntime does to {gap:.1e} on {len(x)} samples"


def _notes(answers: _Answers, proto: Any, gradients: str) -> Mapping[str, str]:
    opset = next((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), 0)
    feed, head = answers.feed, answers.head
    notes = {
        "format": f"ONNX opset {opset}, made by {proto.producer_name or 'an unknown program'}",
        "dtype": feed.given.dtype.name,
        "outputs": answers.note or "labels",
        "gradients": gradients,
    }
    if head is not None:
        notes["outputs"] = "probabilities" if head.probabilities else "logits"
        if head.probabilities and gradients.startswith("of"):
            notes["outputs"] = "probabilities; logits are their logarithms"
        if head.cut:
            notes["outputs"] = f"logits, read before the last {head.cut.lower()}"
    if feed.batch:
        notes["batch"] = (
            f"the graph takes {feed.batch} samples at once: the last one is repeated until there are so many"
        )
    if feed.axes:
        notes["layout"] = "channels last: transposed"
    if feed.given.dtype.kind in "iu":
        notes["inputs"] = f"rounded to {feed.given.dtype.name}"
    return notes
