"""Callables as models, and what `wrap` makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from casemate.adapters import wrap
from casemate.adapters.data import from_arrays
from casemate.adapters.function import wrap_function
from casemate.core.facets import Facet
from casemate.core.model import Task
from casemate.errors import ModelError

X = np.random.default_rng(0).normal(size=(12, 3))
SCHEMA = from_arrays(X).schema


def labels(x: np.ndarray) -> np.ndarray:
    return (x[:, 0] > 0).astype(int)


def logits(x: np.ndarray) -> np.ndarray:
    return x @ np.diag([1.0, 2.0, -3.0])


def scores(x: np.ndarray) -> np.ndarray:
    e = np.exp(logits(x))
    return e / e.sum(axis=1, keepdims=True)


def test_labels_alone_offer_labels_alone() -> None:
    model = wrap_function(labels, output="labels")
    assert model.offers == {Facet.LABELS}
    np.testing.assert_array_equal(model.labels(X), labels(X))


def test_logits_give_scores_and_labels() -> None:
    model = wrap_function(logits, output="logits", classes=("a", "b", "c"))
    assert model.offers == {Facet.LABELS, Facet.SCORES, Facet.LOGITS}
    np.testing.assert_allclose(model.ask(Facet.SCORES, X), scores(X), atol=1e-12)
    np.testing.assert_array_equal(model.labels(X), scores(X).argmax(axis=1))


def test_scores_are_not_taken_for_logits() -> None:
    assert wrap_function(scores, output="scores").offers == {Facet.LABELS, Facet.SCORES}


@pytest.mark.parametrize(
    ("function", "offers"),
    [
        (labels, {Facet.LABELS}),
        (scores, {Facet.LABELS, Facet.SCORES}),
        (logits, {Facet.LABELS, Facet.SCORES, Facet.LOGITS}),
    ],
)
def test_with_a_schema_the_answers_tell_what_they_are(function: Any, offers: set[Facet]) -> None:
    assert wrap(function, schema=SCHEMA).offers == offers


def test_without_a_schema_the_caller_tells() -> None:
    assert wrap(logits, logits=True).logits is not None
    assert wrap(scores, logits=False).logits is None
    with pytest.raises(ModelError, match="say that it returns scores or logits"):
        wrap(logits).labels(X)


def test_a_model_passes_through() -> None:
    model = wrap(labels)
    assert wrap(model) is model


def test_a_regression_keeps_its_floats() -> None:
    model = wrap_function(lambda x: x[:, 0], output="labels", task=Task.REGRESSION)
    np.testing.assert_array_equal(model.labels(X), X[:, 0])


@pytest.mark.parametrize(
    ("function", "output", "message"),
    [
        (lambda x: x[:3, 0].astype(int), "labels", r"shape \(12,\)"),
        (lambda x: x[:, 0], "labels", "whole numbers from 0"),
        (lambda x: x[:, :2], "scores", r"\(12, 3\), got \(12, 2\)"),
        (lambda x: x[0], "logits", "one column for each class"),
        (lambda x: 1 // 0, "labels", "ZeroDivisionError"),
        (lambda x: np.where(x[:, 0] > 0, 1, -1), "labels", r"class indices in \[0, 3\), got -1"),  # ABSTAIN elsewhere
        (lambda x: np.full(len(x), 3), "labels", "got 3"),
        (lambda x: np.full((len(x), 3), np.nan), "scores", "that are numbers"),
        (lambda x: np.full((len(x), 3), np.inf), "logits", "that are numbers"),
        (lambda x: np.full((len(x), 3), "a"), "logits", "that are numbers"),
    ],
)
def test_an_answer_of_another_shape_is_one_clear_error(function: Any, output: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        wrap_function(function, output=output, classes=("a", "b", "c")).labels(X)


def test_a_meaning_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ModelError, match="labels, scores, logits"):
        wrap_function(labels, output="probabilities")
