from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evasion.makers import (
    NORMS,
    attacked,
    batch_from,
    cnn,
    image_case,
    sklearn_linear,
    table_case,
    torch_linear,
    torch_model,
    uneven_table,
)
from torch import nn

from casemate.core.bracket import Goal
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance
from casemate.engine.reach import reach_of
from casemate.errors import UsageError
from casemate.evasion.linear import linear_attack
from casemate.evasion.spsa import SpsaOptions, _Descent, spsa_attack

INF = float("inf")


class Rounded(nn.Module):
    """A planted defence that only hides the gradient: the input is rounded, and the logits are blown up."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = 1e4 * self.net(torch.round(x * 8) / 8)
        return out


def test_a_model_that_hides_its_gradient_is_broken() -> None:
    net = Rounded(cnn())
    case = image_case(torch_model(net), n=32)
    x = torch.tensor(np.array(case.data("test").x), requires_grad=True)
    net(x).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()
    ledger, _ = attacked(spsa_attack, case, Goal(Norm.LINF, 0.2), options=SpsaOptions(queries=300))
    assert ledger.broken(0.2).mean() > 0.8


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["image", "table"])
def test_a_linear_model_breaks_at_little_more_than_the_optimum_and_never_below(norm: Norm, kind: str) -> None:
    case = image_case(torch_linear(), n=60) if kind == "image" else table_case(sklearn_linear(), n=60)
    exact, _ = attacked(linear_attack, case, Goal(norm, INF))
    for share in (0.4, 0.8):
        eps = float(np.quantile(exact.upper[exact.upper > 0], share))
        broken = attacked(spsa_attack, case, Goal(norm, eps))[0].broken(eps)
        assert broken[exact.upper <= eps / 1.02].mean() >= 0.93  # the rest stand in a local optimum of ten classes
        assert not broken[exact.upper > eps * (1 + 1e-4)].any()


def test_the_directions_of_a_round_are_orthogonal_signs_and_none_comes_twice() -> None:
    case = image_case(torch_linear(), n=4)
    batch, goal = batch_from(case), Goal(Norm.LINF, 0.1)
    reach = reach_of(Norm.LINF, 0.1, batch.x, case.schema)
    descent = _Descent(case.the_model(), goal, SpsaOptions(pairs=8), 0, reach)
    descent.level = 0
    drawn = [descent._lines(64) for _ in range(9)]
    assert [epoch for _, epoch in drawn] == [0] * 8 + [1]
    round_ = np.concatenate([lines for lines, _ in drawn[:8]]).astype(int)
    assert np.array_equal(round_ @ round_.T, 64 * np.eye(64, dtype=int))


@settings(max_examples=12)
@given(st.integers(0, 1000), st.sampled_from(NORMS), st.floats(0.05, 1.0))
def test_claims_are_wrong_and_inside_and_leave_fixed_features_alone(seed: int, norm: Norm, eps: float) -> None:
    case, schema = uneven_table(seed)
    batch = batch_from(case)
    lab = Lab("evasion/spsa", seed, options=SpsaOptions(queries=60))
    for claim in spsa_attack(case, batch, Goal(norm, eps), lab):
        assert claim.x is not None
        assert (distance(norm, batch.x[claim.rows], claim.x, schema.scale) <= eps * (1 + 1e-12)).all()
        assert schema.allowed(claim.x).all()
        assert (case.the_model().labels(claim.x) != batch.y[claim.rows]).all()
        assert np.array_equal(claim.x[:, 1], batch.x[claim.rows, 1])


@pytest.mark.parametrize("norm", NORMS)
def test_a_sample_fares_the_same_whichever_samples_share_its_batch(norm: Norm) -> None:
    case = image_case(torch_linear(torch.float64), n=30, dtype=np.float64)
    goal = Goal(norm, 0.1 if norm is Norm.LINF else 0.6)
    whole, _ = attacked(spsa_attack, case, goal, options=SpsaOptions(queries=200))
    rows = np.arange(29, 0, -4)
    part, _ = attacked(spsa_attack, case, goal, options=SpsaOptions(queries=200), batch=batch_from(case, rows))
    assert np.array_equal(part.broken(goal.eps), whole.broken(goal.eps)[rows])
    assert np.array_equal(part.witness, whole.witness[rows])


def test_broken_samples_cost_nothing_further_and_others_no_more_than_their_queries() -> None:
    case = image_case(torch_linear(), n=30)
    ledger, lab = attacked(spsa_attack, case, Goal(Norm.LINF, 0.5))
    assert ledger.broken(0.5).all()
    assert lab.meter.spent.forwards < 30 * 60
    nothing, lab = attacked(spsa_attack, case, Goal(Norm.LINF, 1e-6), options=SpsaOptions(queries=100))
    assert not (nothing.upper_by == "evasion/spsa").any()
    assert lab.meter.spent.forwards <= 30 * 100
    ledger, lab = attacked(spsa_attack, case, Goal(Norm.LINF, 0.2), limit=1500)
    assert lab.meter.refusals == 1
    assert ledger.broken(0.2).any()


def test_the_target_is_the_only_success_of_a_targeted_goal() -> None:
    case = image_case(torch_linear(), n=30)
    ledger, _ = attacked(spsa_attack, case, Goal(Norm.LINF, 0.4, target=8), options=SpsaOptions(queries=300))
    found = ledger.upper_by == "evasion/spsa"
    assert found.sum() > 10
    assert np.all(case.the_model().labels(ledger.witness[found]) == 8)


def test_scores_that_are_all_but_certain_still_show_the_way() -> None:
    """Probabilities of a confident net in float32 round to one and zeros; their logarithms do not."""
    case = image_case(torch_linear(), n=30)
    logits = case.the_model().ask

    def sure(x: np.ndarray) -> np.ndarray:
        from casemate.core.facets import Facet

        return torch.tensor(5 * logits(Facet.LOGITS, x)).softmax(1).numpy()

    only = dataclasses.replace(case, model=dataclasses.replace(case.the_model(), scores=sure, logits=None, module=None))
    goal = Goal(Norm.LINF, 0.15)
    plain, _ = attacked(spsa_attack, case, goal)
    found, _ = attacked(spsa_attack, only, goal)
    assert found.broken(goal.eps).sum() >= plain.broken(goal.eps).sum() - 1


def test_it_refuses_no_ball_and_spends_few_queries_on_fewer_pairs() -> None:
    case = image_case(torch_linear(), n=4)
    with pytest.raises(UsageError, match="finite eps"):
        attacked(spsa_attack, case, Goal(Norm.LINF, INF))
    for queries, spent in ((16, 15), (3, 3), (2, 0)):
        _, lab = attacked(spsa_attack, case, Goal(Norm.LINF, 1e-6), options=SpsaOptions(queries=queries))
        assert lab.meter.spent.forwards // 4 == spent
