"""Every adapter's models under one law; the cases are in `tests/adapters/conforming`, one file for each adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from casemate.adapters.function import wrap_function
from casemate.errors import LawBroken
from casemate.testing import check_model

FILES = sorted(path.stem for path in (Path(__file__).parent / "conforming").glob("*.py") if path.stem != "__init__")
CASES: dict[str, Callable[[], dict[str, Any]]] = {
    f"{stem}: {name}": make
    for stem in FILES
    for name, make in import_module(f"tests.adapters.conforming.{stem}").cases().items()
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_answers_as_its_own_library_does(name: str) -> None:
    check_model(**CASES[name]())


X = np.random.default_rng(0).normal(size=(40, 3))
WEIGHTS = np.array([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]])


def honest(x: np.ndarray) -> np.ndarray:
    return x @ WEIGHTS.T


def predict(x: np.ndarray) -> np.ndarray:
    return honest(x).argmax(1)


def centred(x: np.ndarray) -> np.ndarray:
    return honest(x) - honest(x).mean()


def narrow(x: np.ndarray) -> np.ndarray:
    return x[:, :2] @ WEIGHTS[:, :2].T + 0 * x[:, -1:]


def rounded(x: np.ndarray) -> np.ndarray:
    out: np.ndarray = honest(x)
    x[:] = np.round(x)
    return out


CHEATS: dict[str, tuple[Any, str]] = {
    "labels of another type": (lambda m: replace(m, labels=lambda x: m.labels(x).astype(np.int32)), "labels as int64"),
    "a column too few": (lambda m: replace(m, scores=lambda x: m.scores(x)[:, :1]), "scores of shape"),
    "scores that are no probabilities": (lambda m: replace(m, scores=lambda x: 2 * m.scores(x)), "probabilities"),
    "classes in another order": (lambda m: replace(m, scores=lambda x: m.scores(x)[:, ::-1]), "point at the label"),
    "logits off": (lambda m: replace(m, logits=lambda x: m.logits(x) * 1.001), "of the native library within"),
    "one digest for all": (lambda m: replace(m, digest="sha256:" + "0" * 64), "same digest after"),
    "changed samples": (lambda m: replace(m, labels=wrap_function(rounded, output="logits").labels), "untouched"),
    "the batch's mean": (lambda m: replace(m, logits=centred), "of the native library within"),
    "any width": (lambda m: replace(m, labels=lambda x: wide(x, m)), "an error for samples of 2 features"),
}


def wide(x: np.ndarray, model: Any) -> np.ndarray:
    labels: np.ndarray = model.labels(np.hstack([x, np.zeros((len(x), 3 - x.shape[1]))]))
    return labels


@pytest.mark.parametrize("name", CHEATS)
def test_a_model_that_cheats_is_caught(name: str) -> None:
    model = wrap_function(honest, output="logits", classes=("no", "yes"))
    check_model(model, predict, X, native_logits=honest, reopened=model, other=replace(model, digest="sha256:1"))
    spoil, complaint = CHEATS[name]
    with pytest.raises(LawBroken, match=complaint):
        check_model(spoil(model), predict, X.copy(), native_logits=honest, reopened=model)


def test_an_answer_that_depends_on_the_batch_is_caught_without_a_native_library_beside_it() -> None:
    model = wrap_function(lambda x: honest(x) + 0.01 * len(x), output="logits", classes=("no", "yes"))
    with pytest.raises(LawBroken, match="one by one"):
        check_model(model, predict, X)


def test_what_must_be_refused_is_refused_with_the_mend() -> None:
    model = wrap_function(honest, output="logits", classes=("no", "yes"))
    with pytest.raises(LawBroken, match="an error for a wrong schema"):
        check_model(model, predict, X, refused={"a wrong schema": lambda: None})
