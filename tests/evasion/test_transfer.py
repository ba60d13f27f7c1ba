"""Transfer attacks: on a linear pair the result has a closed form; a model that hides its gradients falls to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from casemate.adapters import wrap
from casemate.core.bracket import Batch, Goal, Ledger
from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.norms import Norm, distance
from casemate.core.planner import applicable
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.engine.harness import batch_of, open_ledger, pursue, wrong
from casemate.errors import Unavailable, UsageError
from casemate.evasion.transfer import TransferOptions, transfer_attack

CLASSES = ("no", "yes")
SCHEMA = Schema(DataKind.TABLE, (6,), tuple(Feature(f"f{i}", lo=-4.0, hi=4.0, scale=1.0 + i % 2) for i in range(6)))


class Rounded(nn.Module):
    """The same net behind an input that is rounded: its own gradient is zero everywhere."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = torch.arange(-512, 513, dtype=x.dtype) / 64
        answer: torch.Tensor = self.inner(levels[torch.searchsorted(levels[:-1] + 1 / 128, x.contiguous())])
        return answer


def linear_net() -> nn.Module:
    net = nn.Linear(6, 2).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0] * 6, [1.0, -2.0, 0.5, 1.5, -1.0, 0.25]]))
        net.bias.copy_(torch.tensor([0.0, 0.1]))
    return net


def case_of(module: nn.Module, *surrogates: nn.Module, schema: Schema = SCHEMA, n: int = 60) -> Case:
    x = np.random.default_rng(3).uniform(-1.5, 1.5, size=(n, *schema.shape))
    x = np.where([feature.kind is FeatureKind.INTEGER for feature in schema.features], np.rint(x), x)
    models = [wrap(one.eval(), classes=CLASSES, schema=schema) for one in (module, *surrogates)]
    test = Data(x, schema, y=np.asarray(models[0].labels(x), dtype=np.int64))
    return Case(model=models[0], splits=Splits(test=test), surrogates=tuple(models[1:]))


def pursued(case: Case, goal: Goal, *, options: TransferOptions | None = None, meter: Meter | None = None) -> Ledger:
    test = case.data("test")
    batch = batch_of(test.x, test.labels, test.sample_id)
    ledger = open_ledger(case, batch, goal.norm)
    lab = Lab(transfer_attack.id, 5, options or TransferOptions(), meter=meter or Meter())
    pursue(transfer_attack, case, batch, goal, lab, ledger=ledger, rows=np.arange(len(batch)))
    return ledger


def breakable(case: Case, goal: Goal) -> np.ndarray:
    """Closed form: |w x + b| is at most what the ball can change (no bound of the box is met at these eps)."""
    w = np.array([1.0, -2.0, 0.5, 1.5, -1.0, 0.25]) * case.data("test").schema.scale
    lead = np.abs(case.data("test").x @ (w / case.data("test").schema.scale) + 0.1)
    return np.asarray(lead < goal.eps * (np.abs(w).sum() if goal.norm is Norm.LINF else np.sqrt((w**2).sum())))


@pytest.mark.parametrize("goal", [Goal(Norm.LINF, 0.25), Goal(Norm.L2, 0.5)], ids=["linf", "l2"])
def test_a_surrogate_with_the_models_own_gradients_finds_every_breakable_row_and_no_other(goal: Goal) -> None:
    case = case_of(Rounded(linear_net()), linear_net())
    found, expected = pursued(case, goal).broken(goal.eps), breakable(case, goal)
    assert 5 < expected.sum() < len(expected) - 5
    # Rounding moves the answer a little: only rows within 1/64 of the edge may differ.
    assert (found != expected).sum() <= 2


def test_a_model_that_shows_no_gradient_at_all_falls_to_those_of_another() -> None:
    case, goal = case_of(Rounded(linear_net()), linear_net()), Goal(Norm.LINF, 0.25)
    x = torch.tensor(np.array(case.data("test").x), requires_grad=True)
    assert torch.autograd.grad(case.the_model().module(x).sum(), [x], allow_unused=True) == (None,)
    assert pursued(case, goal).broken(goal.eps).sum() >= breakable(case, goal).sum() - 2


def test_a_surrogate_without_gradients_does_not_hide_those_of_another() -> None:
    goal = Goal(Norm.LINF, 0.25)
    alone = pursued(case_of(Rounded(linear_net()), linear_net()), goal)
    beside = pursued(case_of(Rounded(linear_net()), Rounded(linear_net()), linear_net()), goal)
    assert np.array_equal(alone.broken(goal.eps), beside.broken(goal.eps))


def test_a_walk_goes_on_to_the_edge_of_the_ball_though_the_surrogate_is_fooled_at_once() -> None:
    sure = linear_net()
    with torch.no_grad():
        sure.bias.add_(torch.tensor([0.0, 0.9]))  # this model says yes more readily than its surrogate
    case, goal = case_of(sure, linear_net()), Goal(Norm.LINF, 0.3)
    ledger = pursued(case, goal)
    fell = np.isfinite(ledger.upper) & (ledger.upper > 0)
    assert fell.any()
    assert ledger.upper[fell].max() > 0.99 * goal.eps


def test_fixed_and_whole_features_and_bounds_are_kept() -> None:
    features = (Feature("a", immutable=True, lo=-4, hi=4), Feature("b", FeatureKind.INTEGER, lo=-4, hi=4, scale=2.0))
    rest = tuple(Feature(f"c{i}", lo=-1.5, hi=1.5) for i in range(4))
    case = case_of(Rounded(linear_net()), linear_net(), schema=Schema(DataKind.TABLE, (6,), (*features, *rest)))
    x = case.data("test").x
    for goal in (Goal(Norm.LINF, 0.8), Goal(Norm.L2, 1.2)):
        ledger = pursued(case, goal)
        assert np.isfinite(ledger.upper).sum() > 10
        assert case.data("test").schema.allowed(ledger.witness).all()
        assert np.array_equal(ledger.witness[:, 0], x[:, 0])
        far = distance(goal.norm, x, ledger.witness, case.data("test").schema.scale)
        assert (far <= goal.eps * (1 + 1e-9)).all()


def test_a_target_is_reached_where_it_is_near_and_a_row_does_not_depend_on_its_batch() -> None:
    case, goal = case_of(Rounded(linear_net()), linear_net()), Goal(Norm.L2, 0.5, target=1)
    whole = pursued(case, goal)
    no = case.data("test").labels == 0
    assert np.array_equal(whole.broken(goal.eps) & no, breakable(case, goal) & no)
    rows = np.arange(0, 60, 3)
    part = replace(case, splits=Splits(test=case.data("test").take(rows)))
    assert np.allclose(pursued(part, goal).upper, whole.upper[rows])


def test_every_gradient_is_paid_for_and_a_spent_budget_ends_it() -> None:
    case, goal = case_of(linear_net(), linear_net()), Goal(Norm.LINF, 1e-6)
    meter = Meter()
    pursued(case, goal, options=TransferOptions(steps=8, starts=2, checks=2), meter=meter)
    assert meter.spent.backwards == 60 * 8 * 2
    tight = Meter(limit=500)
    pursued(case, goal, meter=tight)
    assert tight.refusals == 1


def test_it_needs_a_surrogate_with_gradients_and_a_finite_ball() -> None:
    case = case_of(linear_net())
    assert applicable(transfer_attack, case) is not None
    batch = Batch(case.data("test").x, case.data("test").labels, case.data("test").sample_id)
    lab = Lab(transfer_attack.id, 5, TransferOptions())
    with pytest.raises(Unavailable, match="surrogate"):
        list(transfer_attack.function(case, batch, Goal(Norm.LINF, 0.1), lab))
    with pytest.raises(UsageError, match="finite eps"):
        list(transfer_attack.function(case, batch, Goal(Norm.LINF, float("inf")), lab))


def test_claims_are_only_of_rows_that_the_model_really_gets_wrong() -> None:
    case = case_of(Rounded(linear_net()), linear_net())
    model: Model = case.the_model()
    batch = Batch(case.data("test").x, case.data("test").labels, case.data("test").sample_id)
    claims = list(
        transfer_attack.function(case, batch, Goal(Norm.L2, 0.6), Lab(transfer_attack.id, 5, TransferOptions()))
    )
    claimed = np.concatenate([claim.rows for claim in claims])
    assert len(np.unique(claimed)) == len(claimed) > 10
    for claim in claims:
        assert claim.x is not None
        assert wrong(model, claim.x, batch.y[claim.rows]).all()


def test_a_ball_larger_than_the_box_and_a_target_that_all_rows_have_are_no_trouble() -> None:
    case = case_of(linear_net(), linear_net(), n=20)
    wide = pursued(case, Goal(Norm.L2, 50.0))
    assert (wide.upper < 50).all()
    test = replace(case.data("test"), y=np.ones(20, dtype=np.int64))
    none = pursued(replace(case, splits=Splits(test=test)), Goal(Norm.LINF, 0.5, target=1))
    assert not (none.upper_by == transfer_attack.id).any()
