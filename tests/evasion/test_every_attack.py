"""Laws of every attack that a net on a table can be given: what is missing hides nothing, what was found is claimed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.evasion.makers import batch_from, torch_model
from torch import nn

from casemate import catalog
from casemate.core.bracket import Goal, Ledger
from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind, Facet, PluginKind, Profile
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance, halfspace_distance
from casemate.core.plugin import Plugin
from casemate.core.schema import Feature, Schema
from casemate.engine.harness import open_ledger, pursue
from casemate.evasion import hop_skip_jump, spsa

N, D, GONE = 16, 6, 2  # the last column only tells samples apart: it is fixed, and no net looks at it
ATTACKS = [
    plugin for plugin in catalog.plugins() if plugin.kind is PluginKind.ATTACK and DataKind.TABLE in plugin.kinds
]
on_nets = pytest.mark.parametrize(
    ("plugin", "norm"),
    [(one, norm) for one in ATTACKS if not one.needs & {Facet.AFFINE, Facet.TREES} for norm in sorted(one.norms)],
    ids=lambda part: getattr(part, "id", str(part)),
)


class Filled(nn.Module):
    """Linear in what is there; 0 in place of what is missing."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(5)
        self.line = nn.Linear(D, 2).double()
        with torch.no_grad():
            self.line.weight.copy_(torch.tensor(rng.normal(size=(2, D)) * (np.arange(D) < D - 1)))
            self.line.bias.copy_(torch.tensor([1.0, 1.2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.line(torch.nan_to_num(x))
        return answer


def case_of(net: nn.Module, value: float | None = None) -> Case:
    """A table of N rows, one column of which has but one value, nan or fixed, where that is given."""
    x = np.column_stack([np.random.default_rng(4).uniform(-1, 1, size=(N, D - 1)), np.arange(N)])
    fixed = {D - 1}
    if value is not None:
        x[:, GONE] = value
        fixed |= set() if np.isnan(value) else {GONE}
    features = tuple(
        Feature(f"f{i}", lo=-1.5, hi=1.5 if i < D - 1 else N, scale=0.5 + i % 2, missing_ok=True, immutable=i in fixed)
        for i in range(D)
    )
    schema = Schema(DataKind.TABLE, (D,), features)
    model = torch_model(net)
    own = torch_model(Filled())  # the surrogate of an attack that needs one
    return Case(model=model, splits=Splits(test=Data(x, schema, model.labels(x))), surrogates=(own,))


def median_distance(norm: Norm, case: Case) -> float:
    """A ball that about half of the rows must be broken in, from the closed form."""
    data, line = case.data("test"), Filled().line
    weight, bias = (part.detach().numpy() for part in (line.weight[1] - line.weight[0], line.bias[1] - line.bias[0]))
    sign = np.where(data.labels == 1, -1.0, 1.0)
    scale = np.where(np.arange(D) == GONE, 0.0, data.schema.scale) if np.isnan(data.x).any() else data.schema.scale
    bounds = {"lo": data.schema.lo, "hi": data.schema.hi, "scale": scale}
    exact, _ = halfspace_distance(norm, np.nan_to_num(data.x), sign[:, None] * weight, -sign * bias, **bounds)
    return float(np.median(exact)) * (1.0 if norm is Norm.L0 else 1.05)


def attacked(plugin: Plugin, case: Case, goal: Goal, meter: Meter | None = None) -> Ledger:
    """What is left of a case after a quick run."""
    batch = batch_from(case)
    ledger = open_ledger(case, batch, goal.norm)
    less = {"most": 60} if plugin.id == "evasion/varied" else {}  # of the many climbs that a net so small allows
    lab = Lab(plugin.id, 3, options=plugin.configured(Profile.QUICK, less), meter=meter or Meter())
    pursue(plugin, case, batch, goal, lab, ledger=ledger, rows=np.arange(len(batch)))
    return ledger


@on_nets
def test_a_missing_value_protects_a_row_no_better_than_a_fixed_one(plugin: Plugin, norm: Norm) -> None:
    missing, fixed = case_of(Filled(), np.nan), case_of(Filled(), 0.0)
    eps = median_distance(norm, missing)
    assert eps == median_distance(norm, fixed)
    goal = Goal(norm, float("inf") if plugin.minimum_norm else eps)
    broken = [int(attacked(plugin, case, goal).broken(eps).sum()) for case in (missing, fixed)]
    assert broken[1] >= N // 3
    assert broken[0] >= broken[1] - 2  # searches by chance draw other numbers


@on_nets
def test_what_was_found_before_the_budget_ended_is_claimed(
    plugin: Plugin, norm: Norm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spsa, "_CHUNK", 4 * 16 * D)  # so that a budget can end between two parts of one step
    monkeypatch.setattr(hop_skip_jump, "_CHUNK", 40 * D)
    meter, net = Meter(), Filled()
    case = case_of(net)
    data, eps = case.data("test"), median_distance(norm, case)
    known = np.full(N, np.inf)  # what was spent by the call with the first wrong point in each row's ball

    def watch(module: nn.Module, args: tuple[torch.Tensor], answer: torch.Tensor) -> None:
        points, lead = args[0].detach().numpy(), (answer[:, 1] - answer[:, 0]).detach().numpy()
        rows = points[:, -1].astype(int)
        near = distance(norm, data.x[rows], points, data.schema.scale) <= eps
        wrong = np.where(data.labels[rows] == 1, -lead, lead) > 1e-9  # what rounding decides does not count
        np.minimum.at(known, rows[near & wrong], meter.spent.propagations)

    net.register_forward_hook(watch)
    attacked(plugin, case, Goal(norm, eps), meter)
    assert np.isfinite(known).sum() >= N // 3
    for limit in np.unique(known[np.isfinite(known)]).astype(int)[:4]:
        left = attacked(plugin, replace(case, model=torch_model(Filled())), Goal(norm, eps), Meter(limit=limit))
        assert left.broken(eps)[known <= limit].all(), f"the budget of {limit} ends with a success that was not claimed"
