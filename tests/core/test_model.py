"""What a model's scores say."""

from __future__ import annotations

import numpy as np

from casemate.core.model import NO_ANSWER, best_of


def test_scores_that_are_no_numbers_are_right_about_nothing() -> None:
    answers = np.array([[0.1, 0.9], [np.nan, 0.2], [0.3, np.nan], [np.nan, np.nan]])
    assert best_of(answers).tolist() == [1, NO_ANSWER, NO_ANSWER, NO_ANSWER]


def test_finite_scores_are_as_argmax_has_them() -> None:
    answers = np.random.default_rng(0).normal(size=(50, 4))
    np.testing.assert_array_equal(best_of(answers), answers.argmax(axis=1))
