from __future__ import annotations

import copy
import gc
import warnings
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

from casemate.core.budget import Meter, Spent
from casemate.core.model import Model
from casemate.engine import kept, prepared
from casemate.engine.prepared import Prepared, prepare
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
    meter = Meter(limit=92)
    ready = prepare(model_of(norms_with_statistics(sequential(), torch.tensor(x))), x, meter)
    spent = meter.spent
    # Two rows for their size; plain, plain again and folded with a gradient each, channels last.
    assert spent == Spent(42, 20)
    ready.gradient(ready.tensor(x), lambda z: z[:, 0])
    assert meter.spent == spent + Spent(10, 10)
    with pytest.raises(BudgetExhausted):
        ready.gradient(ready.tensor(x), lambda z: z[:, 0])
    assert meter.spent == spent + Spent(10, 10)


class Own(torch.autograd.Function):
    """The input rounded; backwards the gradient times a factor."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return torch.round(3 * x) / 3

    @staticmethod
    def backward(ctx: Any, *pulls: torch.Tensor) -> Any:
        return ctx.factor * pulls[0], None


class OneWay(torch.autograd.Function):
    """The input as it is, without a way back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()


class Front(nn.Module):
    def __init__(self, change: Any, inner: nn.Module) -> None:
        super().__init__()
        self.change, self.inner = change, inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.inner(self.change(x))
        return answer


def halted(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return 1.0 * x


@pytest.mark.parametrize(
    "change",
    [lambda x: Own.apply(x, 1.0), lambda x: Own.apply(x, -1.0), halted, OneWay.apply],
    ids=["straight-through", "reversed", "no_grad", "no way back"],
)
def test_a_backward_pass_of_its_own_is_kept(change: Any) -> None:
    # Once a trace forgot it: of a straight-through rounding attacks saw gradient 0, of a reversed one the honest one.
    x = images()
    net = Front(change, norms_with_statistics(sequential(), torch.tensor(x))).eval()
    ready = prepare(model_of(net), x)
    assert "not folded: the folded model has other gradients" in ready.notes
    _, _, slope = ready.gradient(ready.tensor(x), lambda z: z[:, 0])
    leaf = torch.tensor(x).requires_grad_(True)
    if change in (halted, OneWay.apply):
        assert not slope.any()
    else:
        (truth,) = torch.autograd.grad(net(leaf)[:, 0].sum(), [leaf])
        assert truth.any()
        assert torch.allclose(slope, truth, atol=1e-5)


@pytest.mark.parametrize("end", [nn.LogSoftmax(1), nn.Softmax(1), nn.Identity()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ordinary_nets_stay_folded_whatever_their_end_and_precision(end: nn.Module, dtype: torch.dtype) -> None:
    x = images()
    net = nn.Sequential(norms_with_statistics(sequential(), torch.tensor(x)), end).eval().to(dtype)
    assert "folded 3 BatchNorm layers" in prepare(model_of(net), x).notes


def test_a_module_that_cannot_be_copied_is_refused_and_left_as_it_is() -> None:
    # Once it was attacked itself, in train mode: its answers were random, and its statistics changed.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the old way to norm weights, which keeps such a tensor
        normed = nn.utils.weight_norm(nn.Linear(64, 8))
    net = nn.Sequential(nn.Flatten(), normed, nn.BatchNorm1d(8), nn.Dropout(0.5)).train()
    net(torch.tensor(images()))
    before = net[2].running_mean.clone()
    with pytest.raises(Unavailable, match="expected a module that can be copied, got RuntimeError"):
        prepare(model_of(net), images())
    assert torch.equal(net[2].running_mean, before)
    assert net.training


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


def test_a_part_whose_rows_are_all_done_is_not_sent_back_and_the_others_are_what_they_were() -> None:
    x = images(150)
    meter = Meter()
    ready = prepare(model_of(norms_with_statistics(sequential(), torch.tensor(x)).double()), x, meter)
    done = (torch.arange(150) < 64) | (torch.arange(150) == 100)  # the first part, and one row of the second
    expected = ready.gradient(ready.tensor(x), lambda z: z[:, 1])
    before = meter.spent
    got = ready.gradient(ready.tensor(x), lambda z: z[:, 1], lambda z: done)
    assert meter.spent == before + Spent(150, 150 - 64)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])
    assert not got[2][:64].any()
    assert torch.equal(got[2][64:], expected[2][64:])


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


class Noisy(nn.Module):
    """A linear net behind noise: the mean of its logits is that of the net alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.BatchNorm1d(64), nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(self.norm(x.flatten(1) + torch.randn(len(x), 64)))
        return logits


def test_a_random_module_answers_with_the_mean_of_several_draws_from_its_seed() -> None:
    x, net = images(), Noisy().eval()
    meter = Meter()
    ready = prepare(model_of(net), x, meter, seed=3)
    assert ready.random
    assert ready.draws == 8
    assert not any("folded" in note for note in ready.notes)
    before, spent = torch.get_rng_state(), meter.spent
    many = [prepare(model_of(net), x, Meter(), seed=3, draws=400) for _ in range(2)]
    first, second = (other.logits(other.tensor(x)) for other in many)
    with torch.no_grad():
        expected = net.out(net.norm(torch.tensor(x).flatten(1)))
    assert torch.equal(first, second)
    assert float((first - expected).abs().max()) < 0.2  # of a standard deviation of 0.6 / sqrt(400) each
    assert not torch.equal(first, many[0].logits(many[0].tensor(x)))  # the next call draws anew
    _, _, slope = ready.gradient(ready.tensor(x), lambda z: z[:, 1])
    leaf = torch.tensor(x).requires_grad_(True)
    (truth,) = torch.autograd.grad(net.out(net.norm(leaf.flatten(1)))[:, 1].sum(), [leaf])
    assert torch.allclose(slope, truth, atol=1e-5)  # of a linear net every draw has the same
    assert meter.spent == spent + Spent(20 * 8, 20 * 8)
    assert torch.equal(before, torch.get_rng_state())
    assert not prepare(model_of(sequential().eval()), x).random


def test_luck_is_no_success_of_a_random_module() -> None:
    class Coin(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            up = (torch.rand(len(x)) < x.flatten(1)[:, 0]).to(x.dtype)
            return torch.stack([1 - up, up], dim=1)

    chances = np.array([0.0, 0.2, 0.75, 1.0], dtype=np.float32)
    x = np.repeat(chances, 100)[:, None, None, None]
    logits, _, _ = (ready := prepare(model_of(Coin()), x[::25])).gradient(ready.tensor(x), lambda z: z[:, 0])
    lead = (logits[:, 1] - logits[:, 0]).reshape(4, 100) / logits.abs().amax(1).reshape(4, 100)
    clear, wins = (lead > 1e-3).double().mean(1), (lead > 0).double().mean(1)
    assert clear[0] == wins[0] == 0
    assert clear[3] == wins[3] == 1
    assert clear[1] < 0.02
    assert wins[1] < 0.1
    assert clear[2] < 0.3
    assert wins[2] > 0.75


def test_copies_are_made_once_and_never_served_of_a_module_that_changed() -> None:
    x, net = images(), norms_with_statistics(sequential(), torch.tensor(images()))
    with patch.object(prepared, "fold", wraps=prepared.fold) as folds:
        meters = [Meter(), Meter()]
        first = [prepare(model_of(net), x, meter) for meter in meters for _ in range(2)]
        assert folds.call_count == 1
        assert meters[0].spent == meters[1].spent  # as if each had been the first: no report depends on the other
        net[0].weight.data.mul_(2.0)  # which no version counter sees
        changed = prepare(model_of(net), x)
        assert folds.call_count == 2
        net.gain = 2.0
        prepare(model_of(net), x)
        assert folds.call_count == 3
    with torch.no_grad():
        assert torch.allclose(changed.logits(changed.tensor(x)), net(torch.tensor(x)), atol=1e-4)
    assert not torch.allclose(changed.logits(changed.tensor(x)), first[0].logits(first[0].tensor(x)), atol=1e-4)
    own = id(net)
    del net, folds
    gc.collect()
    assert own not in kept._SHELF


@pytest.mark.parametrize("place", range(12))
def test_a_change_in_any_layer_is_seen(place: int) -> None:
    """Records made on the way once took each other's place in memory, and the last layers went unseen."""
    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(12)))
    same = copy.deepcopy(net).eval()
    assert kept.alike(net, same)
    same[place].bias.data[0] += 1
    assert not kept.alike(net, same)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_as_it_is_and_searched_in_float32(dtype: torch.dtype) -> None:
    x, net = images(), nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    ready = prepare(model_of(net), x)
    logits, _, slope = ready.gradient(ready.tensor(x), lambda z: z[:, 0])
    with torch.no_grad():
        assert torch.equal(logits, net(torch.tensor(x, dtype=dtype)).float())
    assert ready.tensor(x).numpy().dtype == slope.numpy().dtype == np.float32
    assert bool((slope != 0).any())


def test_a_part_holds_as_many_rows_as_fit_the_memory_and_the_answers_stay() -> None:
    x, net = images(), norms_with_statistics(sequential(), torch.tensor(images())).double()
    whole = prepare(model_of(net), x)
    assert whole.part == 64
    y = torch.arange(20) % 4

    def asked(ready: Prepared) -> list[torch.Tensor]:
        loss = nn.CrossEntropyLoss(reduction="none")
        return [*ready.gradient(ready.tensor(x), lambda z: loss(z, y)), ready.logits(ready.tensor(x))]

    expected, sizes = asked(whole), []
    ends = net[-1].register_forward_hook(lambda part, args, out: sizes.append(len(out)))
    with patch.object(prepared, "_MEMORY", 3 * whole.row_bytes + 1):
        small = prepare(model_of(net), x)
        assert small.part == 3
        assert any(note.startswith("3 rows at once") for note in small.notes)
        for got, wanted in zip(asked(small), expected, strict=True):
            assert torch.allclose(got, wanted, atol=1e-10)
    ends.remove()
    activations = 8 * (2 * 8 * 36 + 2 * 8 * 16 + 16)  # of a row, in float64: what every ReLU keeps, at least
    assert activations / 2 < whole.row_bytes < 20 * activations


def test_an_operation_without_a_derivative_has_gradient_zero() -> None:
    class Jump(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.heaviside(x.flatten(1)[:, :3], torch.tensor(0.0))

    ready = prepare(model_of(Jump()), images())
    _, _, slope = ready.gradient(ready.tensor(images()), lambda z: z[:, 0])
    assert torch.equal(slope, torch.zeros_like(slope))


def test_a_straight_gradient_passes_what_has_none_and_the_answers_stay() -> None:
    class Rounding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.round(4 * x.flatten(1)) / 4

    x, net = images(), nn.Sequential(Rounding(), nn.Linear(64, 3))
    ready = prepare(model_of(net), x)
    straight = ready.straight()
    plain, exact = (way.gradient(way.tensor(x), lambda z: z[:, 1]) for way in (ready, straight))
    assert torch.equal(plain[0], exact[0])
    assert not plain[2].any()
    assert torch.allclose(exact[2].flatten(1), net[1].weight[1].expand(20, 64))
