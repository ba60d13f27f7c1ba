"""The laws that every model of every adapter keeps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.facets import Facet
from casemate.core.model import Model, Task
from casemate.errors import CasemateError, LawBroken

__all__ = ["check_model"]

Array = NDArray[Any]
_Native = Callable[[Array], Any]
_SHOWN = 6  # how many samples are also asked one by one


def check_model(
    model: Model,
    native_predict: _Native,
    x: Array,
    *,
    native_scores: _Native | None = None,
    native_logits: _Native | None = None,
    reopened: Model | None = None,
    other: Model | None = None,
    refused: Mapping[str, Callable[[], object]] | None = None,
    tolerance: float = 1e-6,
) -> None:
    """Hold a model to what an audit relies on; raises `LawBroken`.

    On samples `x (n, ...)`: labels equal those of `native_predict(x) (n,)`, class indices by the framework; scores
    and logits `(n, k)` are finite and within `tolerance` of `native_scores(x)` and `native_logits(x)`, scores are
    probabilities, and both point at the label; an answer depends neither on the rest of the batch, nor on its order,
    nor on the memory layout; no batch is too small; the samples stay untouched; tables of another width raise. The
    model still answers so after a journey to another process. `reopened` (the same model, saved and opened again) has
    the same digest, `other` (other weights) another one. Each of `refused` raises an error that names the mend.
    """
    labels = _labels(model, x)
    expected = np.asarray(native_predict(x))
    _expect(expected.shape == (len(x),), f"native labels of shape ({len(x)},)", expected.shape)
    same = np.array_equal(labels, expected) if model.classes else np.allclose(labels, expected, rtol=tolerance)
    _expect(same, "the labels of the native library", f"{int((labels != expected).sum())} others of {len(x)}")
    for facet, native in ((Facet.SCORES, native_scores), (Facet.LOGITS, native_logits)):
        if facet in model.offers:
            _columns(model, facet, x, native, tolerance=tolerance)
        else:
            _expect(native is None, f"a model that offers {facet}", sorted(model.offers))
    _stands_alone(model, x, tolerance=tolerance)
    _travels(model, x)
    _named(model, reopened, other)
    _refuses(model, x, refused or {})


def _labels(model: Model, x: Array) -> Array:
    before = x.tobytes() if x.dtype.kind != "T" else x.tolist()
    labels = np.asarray(model.labels(x))
    _expect((x.tobytes() if x.dtype.kind != "T" else x.tolist()) == before, "untouched samples", "changed ones")
    wanted = np.dtype(np.int64 if model.task is Task.CLASSIFICATION else np.float64)
    _expect(labels.shape == (len(x),), f"labels of shape ({len(x)},)", labels.shape)
    _expect(labels.dtype == wanted, f"labels as {wanted}", labels.dtype)
    return labels


def _columns(model: Model, facet: Facet, x: Array, native: _Native | None, *, tolerance: float) -> None:
    found = np.asarray(model.ask(facet, x))
    k = len(model.classes) or found.shape[-1]
    _expect(found.shape == (len(x), k), f"{facet} of shape ({len(x)}, {k})", found.shape)
    _expect(found.dtype.kind == "f" and bool(np.isfinite(found).all()), f"finite floats as {facet}", found.dtype)
    if facet is Facet.SCORES:
        whole = np.abs(found.sum(axis=1) - 1).max(initial=0.0)
        _expect(whole <= 1e-5 and found.min(initial=0.0) >= 0, "scores that are probabilities", f"a sum off by {whole}")
    if model.task is Task.CLASSIFICATION:
        labels = model.labels(x)
        behind = found.max(axis=1) - np.take_along_axis(found, labels[:, None], axis=1)[:, 0]
        _expect(bool((behind <= tolerance).all()), f"{facet} that point at the label", f"{behind.max()} behind")
    if native is not None:
        off = np.abs(found - np.asarray(native(x))).max(initial=0.0)
        _expect(bool(off <= tolerance), f"the {facet} of the native library within {tolerance}", f"{off} off")


def _stands_alone(model: Model, x: Array, *, tolerance: float) -> None:
    """An answer is the same alone, in reverse order, in another memory layout and for read-only samples."""
    facets = [facet for facet in (Facet.LABELS, Facet.SCORES, Facet.LOGITS) if facet in model.offers]
    still = np.array(x, copy=True)
    still.setflags(write=False)
    back = np.ascontiguousarray(x[::-1])
    for facet in facets:
        whole = np.asarray(model.ask(facet, x))
        others = {
            "in reverse order": np.asarray(model.ask(facet, back))[::-1],
            "read-only": np.asarray(model.ask(facet, still)),
            "in columns": np.asarray(model.ask(facet, np.asfortranarray(x))),
        }
        for how, found in others.items():
            _agrees(facet, found, whole, how, tolerance=tolerance)
        alone = [np.asarray(model.ask(facet, x[i : i + 1])) for i in range(min(_SHOWN, len(x)))]
        _agrees(facet, np.concatenate(alone), whole[: len(alone)], "one by one", tolerance=tolerance)
        none = np.asarray(model.ask(facet, x[:0]))
        _expect(none.shape == (0, *whole.shape[1:]), f"an answer {facet} to no samples", none.shape)


def _agrees(facet: Facet, found: Array, whole: Array, how: str, *, tolerance: float) -> None:
    exact = facet is Facet.LABELS and found.dtype.kind == "i"
    same = np.array_equal(found, whole) if exact else np.allclose(found, whole, rtol=tolerance, atol=tolerance)
    _expect(same, f"the same {facet} {how}", "others")


def _travels(model: Model, x: Array) -> None:
    import cloudpickle

    sent = cloudpickle.loads(cloudpickle.dumps(model))
    _expect(np.array_equal(sent.labels(x), model.labels(x)), "the same labels in another process", "others")


def _named(model: Model, reopened: Model | None, other: Model | None) -> None:
    _expect(bool(re.fullmatch(r"sha256:[0-9a-f]{64}", model.digest)), "a digest sha256:...", model.digest)
    if reopened is not None:
        _expect(reopened.digest == model.digest, "the same digest after it is opened again", "another")
    if other is not None:
        _expect(other.digest != model.digest, "another digest for another model", "the same")


def _refuses(model: Model, x: Array, refused: Mapping[str, Callable[[], object]]) -> None:
    if x.ndim == 2 and x.shape[1] > 1:
        try:
            model.labels(np.array(x[:, :-1]))
        except Exception:  # a framework's own error is told by the adapter when it is wrapped, see `refused`
            pass
        else:
            _expect(False, f"an error for samples of {x.shape[1] - 1} features", "labels")
    for what, try_it in refused.items():
        try:
            try_it()
        except CasemateError as error:
            _expect(bool(re.match(r"expected .+, got .+: .+", str(error))), f"the mend in the error for {what}", error)
        else:
            _expect(False, f"an error for {what}", "none")


def _expect(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise LawBroken(f"expected {expected}, got {got}: mend the adapter")
