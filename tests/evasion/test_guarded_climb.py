"""Climbs on models that refuse, or answer otherwise, just past the boundary of their logits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.evasion.makers import attacked, batch_from, cnn, image_case, torch_model
from torch import nn

from casemate.core.bracket import Goal
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.model import ABSTAIN, Model
from casemate.core.norms import Norm
from casemate.core.plugin import Plugin
from casemate.core.schema import Feature, Schema
from casemate.evasion.apgd import ApgdOptions, apgd_attack
from casemate.evasion.apgd_t import ApgdTOptions, apgd_t_attack

WEIGHTS = np.array([2.0, -1.0, 0.5, 1.5])
BAND = 0.7
DUALS = {
    Norm.LINF: float(np.abs(WEIGHTS).sum()),
    Norm.L2: float(np.sqrt((WEIGHTS**2).sum())),
    Norm.L1: float(np.abs(WEIGHTS).max()),
}
ATTACKS = [(apgd_attack, ApgdOptions(steps=30)), (apgd_t_attack, ApgdTOptions(steps=30, restarts=2))]


def banded(answer: int) -> Case:
    """A linear model of two classes, rows of the second one; what is nearer than a band to the plane gets `answer`."""
    layer = nn.Linear(4, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(np.array([np.zeros(4), WEIGHTS])))
        layer.bias.zero_()
    plain = torch_model(layer)
    schema = Schema(DataKind.TABLE, (4,), tuple(Feature(f"f{i}", lo=-9.0, hi=9.0) for i in range(4)))
    x = np.random.default_rng(0).normal(size=(120, 4))
    x = x[x @ WEIGHTS > BAND]

    def labels(v: np.ndarray) -> np.ndarray:
        ahead = v @ WEIGHTS
        return np.where(np.abs(ahead) < BAND, answer, ahead > 0)

    model = replace(plain, labels=labels)
    return Case(model=model, splits=Splits(test=Data(x, schema, plain.labels(x))))


@pytest.mark.parametrize("norm", list(DUALS))
@pytest.mark.parametrize(("attack", "options"), ATTACKS, ids=["apgd", "apgd_t"])
@pytest.mark.parametrize("answer", [ABSTAIN, 1], ids=["refused", "threshold"])
def test_beyond_the_band_of_a_linear_model_exactly_those_fall_that_can_reach_it(
    norm: Norm, attack: Plugin, options: Any, answer: int
) -> None:
    """Once each row was given up where its logits crossed, and most of these stood."""
    case = banded(answer)
    needed = (case.data("test").x @ WEIGHTS + BAND) / DUALS[norm]
    eps = float(np.quantile(needed, 0.6))
    ledger, _ = attacked(attack, case, Goal(norm, eps), options=options)
    clear = np.abs(needed / eps - 1) > 0.01
    assert (needed < eps).sum() > 20
    assert np.array_equal(ledger.broken(eps)[clear], (needed < eps)[clear])


def confident(threshold: float) -> Model:
    """The digits net, which refuses what it is less sure of."""
    net = torch_model(cnn())
    ask = net.scores
    assert ask is not None

    def labels(x: np.ndarray) -> np.ndarray:
        scores = ask(x)
        return np.where(scores.max(axis=1) < threshold, ABSTAIN, scores.argmax(axis=1))

    return replace(net, labels=labels)


def stepped_on(case: Case, eps: float) -> np.ndarray:
    """Who falls to plain targeted PGD of 40 steps when every step's label is looked at."""
    x, y = torch.tensor(case.data("test").x), torch.tensor(case.data("test").labels)
    fell = np.zeros(len(y), dtype=bool)
    for target in range(10):
        at = x.clone()
        for _ in range(40):
            leaf = at.clone().requires_grad_(True)
            loss = -nn.functional.cross_entropy(cnn()(leaf), torch.full_like(y, target), reduction="sum")
            (slope,) = torch.autograd.grad(loss, [leaf])
            at = (x + (at + 0.02 * slope.sign() - x).clamp(-eps, eps)).clamp(0, 1)
            labels = case.the_model().labels(at.numpy())
            fell |= (labels != y.numpy()) & (labels != ABSTAIN)
    return fell


def test_a_net_that_refuses_the_unsure_falls_as_to_a_search_that_looks_at_every_label() -> None:
    case, eps = image_case(confident(0.6), 48), 0.2
    ledger, _ = attacked(apgd_t_attack, case, Goal(Norm.LINF, eps), options=ApgdTOptions(steps=40, restarts=3))
    right = ledger.upper_by != "clean"
    peer = stepped_on(case, eps) & right
    assert peer.sum() > 20
    assert (peer & ~ledger.broken(eps)).sum() <= 0.15 * peer.sum()  # once 28 of 29 stood
    found = np.flatnonzero(ledger.upper_by == "evasion/apgd_t")
    answers = case.the_model().labels(ledger.witness[found])
    assert not np.isin(answers, [ABSTAIN]).any()
    assert (answers != case.data("test").labels[found]).all()


def test_no_fate_depends_on_whom_the_model_refuses_beside_it() -> None:
    case, goal = image_case(confident(0.6), 32), Goal(Norm.LINF, 0.15)
    options = ApgdTOptions(steps=25, restarts=1)
    whole, _ = attacked(apgd_t_attack, case, goal, options=options)
    halves = [
        attacked(apgd_t_attack, case, goal, options=options, batch=batch_from(case, rows))[0]
        for rows in (np.arange(0, 32, 2), np.arange(1, 32, 2))
    ]
    assert 0 < whole.broken(0.15).sum() < 32
    for offset, half in enumerate(halves):
        assert np.array_equal(half.broken(0.15), whole.broken(0.15)[offset::2])


def test_who_is_not_refused_pays_no_look_and_climbs_once() -> None:
    net = torch_model(cnn())
    asked: list[int] = []
    counted = replace(net, labels=lambda x: (asked.append(len(x)), net.labels(x))[1])
    case = image_case(counted, 64)
    ledger, lab = attacked(apgd_attack, case, Goal(Norm.LINF, 0.3), options=ApgdOptions(steps=20))
    assert ledger.broken(0.3).all()
    assert asked == [64, 64]  # as they are; by the harness, whose verdict the attack is sent
    assert lab.meter.spent.backwards < 20 * 64


class Shaken(nn.Module):
    """A net that sees its input through noise."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(x + 0.2 * torch.randn_like(x))
        return logits


@pytest.mark.parametrize("model", [confident(0.6), torch_model(Shaken(cnn()))], ids=["refusing", "random"])
def test_wherever_its_budget_ends_it_asks_no_further(model: Model) -> None:
    """A random model's claims were judged once more after the budget had ended, which breaks the law."""
    case, found = image_case(model, 8), []
    for limit in range(60, 4000, 290):
        ledger, lab = attacked(
            apgd_attack, case, Goal(Norm.LINF, 0.3), options=ApgdOptions(steps=15, losses=("margin",)), limit=limit
        )
        assert lab.meter.refusals <= 1
        found.append(int(ledger.broken(0.3).sum()))
    assert found == sorted(found)
    assert found[-1] > found[0]


def test_who_says_how_near_it_came_after_the_budget_ended_asks_no_further() -> None:
    case = image_case(torch_model(Shaken(cnn())), 8)
    for limit in range(380, 620, 6):
        _, lab = attacked(
            apgd_t_attack, case, Goal(Norm.LINF, 0.06), options=ApgdTOptions(steps=8, restarts=0), limit=limit
        )
        assert lab.meter.refusals <= 1
