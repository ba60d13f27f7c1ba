from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from casemate.core.budget import Meter, Spent
from casemate.core.model import Model
from casemate.engine.prepared import prepare
from casemate.errors import BudgetExhausted, ModelError, Unavailable


def answers(x: np.ndarray) -> np.ndarray:
    raise AssertionError("a prepared model never asks the functions")


def model_of(module: nn.Module) -> Model:
    return Model("net", "net", labels=answers, module=module)


def norms_with_statistics(net: nn.Module, x: torch.Tensor) -> nn.Module:
    """Run in train mode a few times, so that the folded statistics are not the identity."""
    net.train()
    for _ in range(3):
        net(x * torch.rand(1) + torch.rand(1))
    return net.eval()


class Branching(nn.Module):
    """One convolution whose output goes through its norm and around it: folding it would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.conv(x)
        mixed: torch.Tensor = self.out((features + self.norm(features)).mean((2, 3)))
        return mixed


def images(n: int = 20, c: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, c, 8, 8)).astype(np.float32)


def sequential() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4),
    )  # fmt: skip


def test_every_norm_is_folded_and_the_answers_and_gradients_stay() -> None:
    x = images()
    net = norms_with_statistics(sequential(), torch.tensor(x))
    ready = prepare(model_of(net), x)
    assert any("folded 3 BatchNorm layers" in note for note in ready.notes)
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in ready.module.modules())
    at = torch.tensor(x)
    with torch.no_grad():
        expected = net(at)
    logits, values, slope = ready.gradient(ready.tensor(x), lambda z: z[:, 0] ** 2)
    leaf = at.clone().requires_grad_(True)
    (truth,) = torch.autograd.grad((net(leaf)[:, 0] ** 2).sum(), [leaf])
    assert torch.allclose(logits, expected, atol=1e-4)
    assert torch.allclose(values, expected[:, 0] ** 2, atol=1e-4)
    assert torch.allclose(slope, truth, atol=1e-4)


def test_the_users_module_stays_as_it_was() -> None:
    net = norms_with_statistics(sequential(), torch.tensor(images())).train()
    before = copy.deepcopy(net.state_dict())
    prepare(model_of(net), images())
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_norm_that_cannot_be_folded_is_left_in_place() -> None:
    x = images(c=8)
    net = norms_with_statistics(Branching(), torch.tensor(x))
    ready = prepare(model_of(net), x)
    assert not any("folded" in note for note in ready.notes)
    with torch.no_grad():
        assert torch.allclose(ready.logits(ready.tensor(x)), net(torch.tensor(x)), atol=1e-4)


def test_a_module_whose_trace_answers_otherwise_is_used_unfolded() -> None:
    """The trace takes the branch of a stand-in once and for all; only the comparison on real samples can see that."""

    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 3, 8), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shift = 0.0 if isinstance(x, torch.fx.Proxy) else 5.0
            out: torch.Tensor = self.norm(self.conv(x)).flatten(1)
            return out + torch.tensor([shift, 0.0, 0.0])

    ready = prepare(model_of(Fickle().eval()), images())
    assert any("not folded" in note for note in ready.notes)


def test_every_propagation_is_charged_before_it_happens() -> None:
    x = images(10)
    meter = Meter(limit=60)
    ready = prepare(model_of(norms_with_statistics(sequential(), torch.tensor(x))), x, meter)
    spent = meter.spent
    assert spent.backwards == 0
    assert spent.forwards == 30  # plain, folded, channels last
    ready.gradient(ready.tensor(x), lambda z: z[:, 0])
    assert meter.spent == spent + Spent(10, 10)
    with pytest.raises(BudgetExhausted):
        ready.gradient(ready.tensor(x), lambda z: z[:, 0])
    assert meter.spent == spent + Spent(10, 10)


def test_a_large_batch_gives_what_its_samples_give_one_by_one() -> None:
    x = images(150)
    ready = prepare(model_of(norms_with_statistics(sequential(), torch.tensor(x)).double()), x)
    y = torch.arange(150) % 4
    logits, values, slope = ready.gradient(
        ready.tensor(x), lambda z: nn.functional.cross_entropy(z, y, reduction="none")
    )
    for row in (0, 63, 64, 149):
        only = torch.tensor([int(y[row])])
        one = ready.gradient(
            ready.tensor(x[row : row + 1]), lambda z, y=only: nn.functional.cross_entropy(z, y, reduction="none")
        )
        for got, expected in zip((logits, values, slope), one, strict=True):
            assert torch.allclose(got[row], expected[0], atol=1e-10)


def test_a_model_without_a_differentiable_path_has_gradient_zero() -> None:
    class Detached(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :3].detach() * 2

    x = images(4)
    _, values, slope = prepare(model_of(Detached()), x).gradient(torch.tensor(x), lambda z: z[:, 0])
    assert torch.equal(slope, torch.zeros_like(slope))
    assert torch.allclose(values, torch.tensor(x[:, 0, 0, 0] * 2))


def test_what_cannot_be_attacked_is_refused() -> None:
    with pytest.raises(Unavailable, match="torch module"):
        prepare(Model("forest", "forest", labels=answers), images())
    with pytest.raises(ModelError, match="expected logits"):
        prepare(model_of(nn.Sequential(nn.Flatten(0), nn.Linear(64, 1))), images(1))
