"""Labels: what is refused as the target of a regression, and how a regression is declared instead."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import casemate
from casemate.adapters.labels import check_labels
from casemate.adapters.torch import wrap_module
from casemate.core.model import Task
from casemate.core.outcome import Failed
from casemate.errors import DataError

HOW = r"task = 'regression' \(in Python, .* by casemate.adapters.torch.wrap_module\(net, regression=True\)\)"


@pytest.mark.parametrize("y", [np.linspace(0, 1, 60), np.arange(1200), np.arange(100)])
def test_the_target_of_a_regression_is_refused_with_how_to_declare_one(y: np.ndarray) -> None:
    with pytest.raises(DataError, match=HOW):
        check_labels(y, "test")


@pytest.mark.parametrize("y", [np.arange(99), np.arange(100) // 2, np.repeat([0.0, 1.0], 30), np.array(["a", "b"])])
def test_labels_of_classes_are_not(y: np.ndarray) -> None:
    check_labels(y, "test")


def test_what_the_message_says_works_for_a_bare_net_with_one_output() -> None:
    torch.manual_seed(0)
    net, x = nn.Linear(5, 1).eval(), np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    y = x.sum(axis=1)
    with pytest.raises(DataError, match=HOW):
        casemate.audit(net, test=(x, y))
    model = wrap_module(net, regression=True)
    assert model.task is Task.REGRESSION
    report = casemate.audit(
        model, test=(x, y), only=["evasion/regression"], options={"evasion/regression": {"eps": 0.1}}
    )
    assert not any(isinstance(outcome, Failed) for outcome in report.outcomes)
    assert any(item.metric.startswith("evasion.") for outcome in report.outcomes for item in outcome.evidence)
