"""The checks that look into a torch module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind, Facet, Profile
from casemate.core.judgement import judge
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.outcome import Finding
from casemate.core.plugin import Plugin
from casemate.core.schema import Feature, Schema
from casemate.preflight.dtype import check_dtype
from casemate.preflight.eval_mode import check_eval_mode

torch = pytest.importorskip("torch")


def case_of(module: Any, **notes: str) -> Case:
    def logits(x: Any) -> Any:
        with torch.no_grad():
            return module(torch.as_tensor(np.array(x))).numpy()

    model = Model("net", "sha256:0", lambda x: logits(x).argmax(1), logits=logits, module=module, notes=notes)
    x = np.random.default_rng(0).random((40, 1, 4, 4)).astype(np.float32)
    schema = Schema(DataKind.IMAGE, (1, 4, 4), (Feature("pixel", lo=0, hi=1),))
    return Case(model=model, splits=Splits(test=Data(x, schema, y=np.zeros(40, dtype=np.int64))))


def found(check: Plugin, case: Case) -> set[str]:
    lab = Lab(check.id, seed=0, options=check.configured(Profile.STANDARD))
    return {o.about for o in judge(check.id, check(case, lab)) if isinstance(o, Finding)}


def net(*between: Any) -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), *between, torch.nn.Linear(8, 3))


class HomeMadeNoise(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Dropout by another name."""

    def forward(self, x: Any) -> Any:
        return x + torch.randn_like(x) if self.training else x


@pytest.mark.parametrize("layer", [torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(8), HomeMadeNoise()])
def test_train_mode_is_found_where_it_matters(layer: Any) -> None:
    module = net(layer).train()
    assert found(check_eval_mode, case_of(module)) == {"preflight.train_mode"}
    assert found(check_eval_mode, case_of(module.eval())) == set()
    # The adapter may have mended the module already: its note is what counts.
    assert found(check_eval_mode, case_of(module.eval(), mode="train")) == {"preflight.train_mode"}


def test_a_single_layer_left_in_train_mode_is_found() -> None:
    module = net(torch.nn.Dropout(0.5)).eval()
    module[2].train()
    assert found(check_eval_mode, case_of(module)) == {"preflight.train_mode"}


def test_train_mode_that_changes_nothing_is_no_defect() -> None:
    assert found(check_eval_mode, case_of(net(torch.nn.ReLU()).train())) == set()


def test_the_module_and_the_global_random_state_are_left_as_they_were() -> None:
    module = net(torch.nn.BatchNorm1d(8), HomeMadeNoise()).train()
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    found(check_eval_mode, case_of(module))
    assert module.training
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_weights_of_two_precisions_are_found() -> None:
    module = net().eval()
    assert found(check_dtype, case_of(module)) == set()

    class Casting(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = torch.nn.Linear(16, 8), torch.nn.Linear(8, 3).double()

        def forward(self, x: Any) -> Any:
            return self.last(self.first(x.flatten(1)).double())

    assert found(check_dtype, case_of(Casting().eval())) == {"preflight.mixed_dtypes"}


def test_a_case_without_a_module_does_not_ask_for_torch() -> None:
    case = case_of(net())
    plain = replace(case, model=replace(case.the_model(), module=None))
    assert Facet.GRADIENTS in check_eval_mode.needs - plain.offers
    assert found(check_dtype, plain) == set()
