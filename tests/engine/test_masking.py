"""Signs of masking: a chance gradient guides one row in nine, an honest one nearly all; every sign is relative."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from casemate.adapters import wrap
from casemate.core.data import Data
from casemate.core.facets import DataKind
from casemate.core.model import Model
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.engine.masking import guidance, is_random, signs_of_masking

SCHEMA = Schema(DataKind.TABLE, (20,), tuple(Feature(f"f{i}", scale=1.0 + i % 3) for i in range(20)))


class Straight(nn.Module):
    """Rounds its input, and shows the gradient of the net behind (straight-through): attacks see what they need."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.inner(x + (torch.round(8 * x) / 8 - x).detach())
        return answer


class Flat(Straight):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.inner(torch.round(8 * x) / 8)
        return answer


class Noisy(Straight):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.inner(x + 0.1 * torch.randn_like(x))
        return answer


def net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3)).double().eval()


def wrapped(module: nn.Module) -> Model:
    return wrap(module.eval(), classes=("a", "b", "c"), schema=SCHEMA)


@pytest.fixture
def data() -> Data:
    x = np.random.default_rng(1).normal(size=(64, 20)) * SCHEMA.scale
    return Data(x, SCHEMA, y=np.asarray(wrapped(net()).labels(x), dtype=np.int64))


def rivals(data: Data) -> np.ndarray:
    return np.random.default_rng(2).choice([-1.0, 1.0], size=(8, *data.x.shape))


def test_an_honest_gradient_beats_random_steps_and_a_flat_one_never_does(data: Data) -> None:
    assert guidance(wrapped(net()), data, rivals(data)) > 0.95
    assert guidance(wrapped(Straight(net())), data, rivals(data)) > 0.95
    assert guidance(wrapped(Flat(net())), data, rivals(data)) < 0.05


def test_the_gradient_of_another_net_guides_no_more_than_chance_does(data: Data) -> None:
    guided = guidance(replace(wrapped(net()), module=net(7)), data, rivals(data))
    assert guided < 0.5


def test_an_honest_gradient_guides_by_closed_form_on_a_linear_model(data: Data) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(20, 3).double()
    labelled = replace(data, y=np.asarray(wrapped(linear).labels(data.x), dtype=np.int64))
    # Two classes would be exact; with three, a step that changes the best other class may overshoot, which only helps.
    assert guidance(wrapped(linear), labelled, rivals(data)) == 1.0


def test_a_model_is_random_when_its_answers_are(data: Data) -> None:
    assert is_random(wrapped(Noisy(net())), data)
    assert not is_random(wrapped(net()), data)


def test_a_sign_counts_only_where_the_model_before_did_not_show_it(data: Data) -> None:
    rng = np.random.default_rng(0)
    honest, flat, noisy = wrapped(net()), wrapped(Flat(net())), wrapped(Noisy(net()))
    assert signs_of_masking(honest, wrapped(net(3)), data, rng) == ()
    assert signs_of_masking(honest, wrapped(Straight(net())), data, rng) == ()
    assert "lead nowhere" in signs_of_masking(honest, flat, data, rng)[0]
    assert "differently" in signs_of_masking(honest, noisy, data, rng)[0]
    assert signs_of_masking(flat, flat, data, rng) == ()
    assert signs_of_masking(noisy, noisy, data, rng) == ()
    silent = replace(honest, module=None, logits=None)
    assert "gradients, logits" in signs_of_masking(honest, silent, data, rng)[0]
    assert signs_of_masking(silent, honest, data, rng) == ()


def test_immutable_and_whole_features_are_left_to_the_schema() -> None:
    features = (Feature("a", immutable=True), Feature("b", FeatureKind.INTEGER, scale=9.0), Feature("c"))
    schema = Schema(DataKind.TABLE, (3,), features)
    x = np.column_stack([np.arange(40.0), np.arange(40) % 7 * 9.0, np.linspace(-1, 1, 40)])
    linear = nn.Linear(3, 2).double()
    model = wrap(linear.eval(), classes=("a", "b"), schema=schema)
    data = Data(x, schema, y=np.asarray(model.labels(x), dtype=np.int64))
    asked: list[np.ndarray] = []

    def spy(points: np.ndarray) -> np.ndarray:
        asked.append(points)
        assert model.logits is not None
        return model.logits(points)

    steps = np.random.default_rng(0).choice([-1.0, 1.0], size=(2, *x.shape))
    assert guidance(replace(model, logits=spy), data, steps) > 0.3
    assert len(asked) == 4
    for points in asked:
        assert schema.allowed(points).all()
        assert np.array_equal(points[:, 0], x[:, 0])
