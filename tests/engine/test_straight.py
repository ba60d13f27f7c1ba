from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from casemate.engine.straight import Straight

X = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05


class Step(nn.Module):
    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x)


def without_graph(x: Tensor) -> Tensor:
    with torch.no_grad():
        return (x * 4).round() / 4


def in_place(x: Tensor) -> Tensor:
    y = x.detach()
    y.mul_(4).round_()
    return y / 4


def in_place_with_graph(x: Tensor) -> Tensor:
    y = x * 4
    y.round_()
    return y / 4


# What a user may write, and the slope of its smooth stand-in.
STEPS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "round": (lambda x: torch.round(4 * x) / 4, 1),
    "floor": (lambda x: (x * 4 + 0.5).floor() / 4, 1),
    "sign": (lambda x: torch.sign(x - 0.5), 1),
    "heaviside": (lambda x: torch.heaviside(x - 0.5, torch.tensor(0.0)), 1),
    "compared": (lambda x: (x > 0.5).float(), 1),
    "compared the other way": (lambda x: 1 - (x < 0.5).to(torch.float32), 1),
    "negated": (lambda x: (~(x < 0.5)).float(), 1),
    "where": (lambda x: torch.where(x > 0.5, 1.0, -1.0), 2),
    "bytes": (lambda x: (x * 255).to(torch.uint8).float() / 255, 1),
    "fewer bytes": (lambda x: ((x * 255).byte() // 16 * 16).float() / 255, 1),
    "clamped whole numbers": (lambda x: (x * 255).int().clamp(0, 255).float() / 255, 1),
    "whole numbers divided": (lambda x: (x * 8).long() / 8, 1),
    "thermometer": (lambda x: (x[:, None] > torch.arange(4)[:, None] / 4).float(), 4),
    "thermometer counted": (lambda x: (x[:, None] > torch.arange(4)[:, None] / 4).sum(1) / 4, 1),
    "floor division": (lambda x: x // 0.25 * 0.25, 1),
    "remainder": (lambda x: x - x % 0.25, 1),
    "levels": (lambda x: torch.linspace(0, 1, 9)[(x * 8).long()], 1),
    "buckets": (lambda x: torch.linspace(0, 1, 5)[torch.bucketize(x, torch.linspace(0.2, 0.8, 4))], 1.25),
    "detached": (lambda x: x.detach() * 1, 1),
    "data": (lambda x: x.data * 1, 1),
    "without a graph": (without_graph, 1),
    "in place": (in_place, 1),
    "in place with a graph": (in_place_with_graph, 1),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_answer_is_exact_and_the_slope_is_that_of_the_smooth_stand_in(name: str) -> None:
    step, slope = STEPS[name]
    plain, straight = Step(step), Straight(Step(step))
    leaf, bare = X.clone().requires_grad_(True), X.clone().requires_grad_(True)
    out = straight(leaf)
    assert torch.equal(out, plain(X.clone()))
    (found,) = torch.autograd.grad(out.sum(), [leaf])
    assert torch.allclose(found, torch.full_like(X, slope), atol=1e-5)
    hidden = plain(bare) if name != "in place" else torch.zeros(1)  # which spoils its own input
    if hidden.requires_grad:
        lost = None
        with suppress(RuntimeError):  # some have no derivative, not even 0
            (lost,) = torch.autograd.grad(hidden.sum(), [bare], allow_unused=True)
        assert lost is None or not lost.any()
    with torch.no_grad():
        assert torch.equal(straight(X), plain(X.clone()))
    assert straight.bypassed


def test_an_honest_net_is_passed_by_untouched() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(5, 4, 1), nn.GELU(), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 2)).eval()
    straight, x = Straight(net), X[:, :, None]
    leaf, bare = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    found, truth = (torch.autograd.grad(f(z)[:, 0].sum(), [z])[0] for f, z in ((straight, leaf), (net, bare)))
    assert torch.equal(found, truth)
    assert not straight.bypassed


def test_a_stand_in_of_the_user_is_used_on_the_way_back_only() -> None:
    class Lookup(nn.Module):
        """Nothing that can be passed over: the values leave torch."""

        stand_in: Any = staticmethod(lambda x: 3 * x)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor((x.detach().numpy() > 0.5).astype("float32"))

    net = nn.Sequential(Lookup(), nn.Linear(5, 1, bias=False))
    straight = Straight(net)
    leaf = X.clone().requires_grad_(True)
    out = straight(leaf)
    (found,) = torch.autograd.grad(out.sum(), [leaf])
    assert straight.stands_in
    assert torch.equal(out, net(X))
    assert torch.allclose(found, 3 * net[1].weight.expand(3, 5))
    assert not net[0]._forward_hooks
