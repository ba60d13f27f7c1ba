from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from casemate.core.budget import Spent
from casemate.core.case import Recipe
from casemate.core.data import Data
from casemate.core.facets import DataKind
from casemate.core.schema import Feature, Schema
from casemate.engine.trainers import (
    TorchRecipe,
    as_torch,
    fit_many,
    recipe_of,
    set_dropout,
    train_module,
    training_cost,
    with_settings,
)
from casemate.errors import ModelError

torch = pytest.importorskip("torch")
nn = torch.nn


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def with_dropout():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def with_batch_norm():
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


class Fickle(nn.Module):
    """Its forward pass branches on the data, which vmap refuses."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        z = self.layer(x)
        return z if z.sum() > 0 else 2 * z


RECIPE = TorchRecipe(mlp, epochs=4, lr=0.01, batch=16)


@pytest.fixture
def data() -> Data:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 61)
    x = rng.normal(size=(61, 6)) + y[:, None]
    return Data(x, Schema(DataKind.TABLE, (6,), tuple(Feature(f"f{i}") for i in range(6))), y)


def _rngs(k: int) -> list[np.random.Generator]:
    return [np.random.default_rng(i) for i in range(k)]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("build", [mlp, with_batch_norm])
def test_many_at_once_are_the_models_that_training_one_by_one_gives(build, optimizer, data):
    recipe = replace(RECIPE, build=build, optimizer=optimizer, schedule="cosine", weight_decay=0.01)
    rows = np.stack([rng.permutation(61)[:33] for rng in _rngs(3)])
    together = fit_many(recipe, data, rows, _rngs(3))
    for picked, rng, model in zip(rows, _rngs(3), together, strict=True):
        alone = recipe_of(recipe).fit(data.take(picked), {}, rng)
        np.testing.assert_allclose(model.logits(data.x), alone.logits(data.x), rtol=0, atol=1e-5)


def test_what_cannot_be_stacked_is_trained_one_by_one(data):
    recipe = replace(RECIPE, build=Fickle)
    rows = np.stack([rng.permutation(61)[:33] for rng in _rngs(2)])
    for picked, rng, model in zip(rows, _rngs(2), fit_many(recipe, data, rows, _rngs(2)), strict=True):
        alone = recipe_of(recipe).fit(data.take(picked), {}, rng)
        np.testing.assert_array_equal(model.logits(data.x), alone.logits(data.x))


def test_training_with_dropout_at_once_is_repeatable_and_learns(data):
    recipe = replace(RECIPE, build=with_dropout, epochs=40)
    rows = np.tile(np.arange(61), (3, 1))
    first, second = (fit_many(recipe, data, rows, _rngs(3), {"dropout": 0.1}) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.logits(data.x), two.logits(data.x))
        assert np.mean(one.labels(data.x) == data.labels) > 0.7


def test_the_generator_decides_everything_and_torchs_own_state_is_left_alone(data):
    recipe = recipe_of(replace(RECIPE, build=with_dropout))
    torch.manual_seed(1)
    first = recipe.fit(data, {}, np.random.default_rng(5))
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    torch.manual_seed(99)
    second, other = (recipe.fit(data, {}, np.random.default_rng(seed)) for seed in (5, 6))
    np.testing.assert_array_equal(first.logits(data.x), second.logits(data.x))
    assert np.abs(first.logits(data.x) - other.logits(data.x)).max() > 1e-3


def test_one_step_of_sgd_is_the_closed_form_of_softmax_regression(data):
    lr, decay, n = 0.1, 0.5, len(data)
    layer = nn.Linear(6, 3).double()
    w, b = (p.detach().numpy().copy() for p in (layer.weight, layer.bias))
    train_module(
        layer,
        data.x,
        data.labels,
        rng=np.random.default_rng(0),
        epochs=1,
        lr=lr,
        batch=n,
        weight_decay=decay,
        optimizer="sgd",
    )
    z = data.x @ w.T + b
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    error = (p - np.eye(3)[data.labels]) / n
    nesterov = 1.9  # the first step of momentum 0.9: g + 0.9 g
    np.testing.assert_allclose(
        layer.weight.detach().numpy(), w - lr * nesterov * (error.T @ data.x + decay * w), atol=1e-12
    )
    np.testing.assert_allclose(layer.bias.detach().numpy(), b - lr * nesterov * (error.sum(0) + decay * b), atol=1e-12)


def test_a_net_learns_what_can_be_learned(data):
    model = recipe_of(replace(RECIPE, epochs=60)).fit(data, {}, np.random.default_rng(0))
    assert np.mean(model.labels(data.x) == data.labels) > 0.8
    assert not model.module.training


def test_a_perturbation_sees_the_net_in_eval_mode_and_is_what_gets_learned(data):
    module, seen = mlp(), []
    before = module[0].weight.detach().clone()

    def blank(net, x, y):
        seen.append((len(x), net.training))
        net(x).sum().backward()  # an attack may leave gradients behind
        return torch.zeros_like(x)

    train_module(
        module, data.x, data.labels, rng=np.random.default_rng(0), epochs=2, batch=16, optimizer="sgd", perturb=blank
    )
    assert torch.equal(module[0].weight, before)  # blank samples have no gradient on the first weights
    assert not module.training
    assert [training for _, training in seen] == [False] * 8


def test_every_epoch_sees_each_sample_once_in_batches_of_nearly_equal_size(data):
    sizes, rows = [], []

    def note(net, x, y):
        sizes.append(len(x))
        rows.append(x[:, 0].numpy())
        return x

    train_module(mlp(), data.x, data.labels, rng=np.random.default_rng(0), epochs=2, batch=12, perturb=note)
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == 2 * 6
    for epoch in (rows[:6], rows[6:]):
        np.testing.assert_allclose(np.sort(np.concatenate(epoch)), np.sort(data.x[:, 0]), rtol=1e-6)


def test_the_cosine_schedule_ends_with_steps_of_nothing(data):
    def moved(schedule):
        module, trail = mlp(), []

        def note(net, x, y):
            trail.append(net[0].weight.detach().clone())
            return x

        how = {"epochs": 20, "batch": 61, "lr": 0.01, "schedule": schedule}
        train_module(module, data.x, data.labels, rng=np.random.default_rng(0), perturb=note, **how)
        return float((module[0].weight.detach() - trail[-1]).abs().max())

    assert moved("cosine") < 0.1 * moved("constant")


def test_dropout_is_set_on_every_layer_and_refused_where_there_is_none(data):
    module = nn.Sequential(nn.Dropout(0.1), nn.Sequential(nn.Dropout2d(0.3)))
    assert set_dropout(module, 0.4) == 2
    assert module[0].p == module[1][0].p == 0.4
    with pytest.raises(ModelError, match=r"in \[0, 1\)"):
        set_dropout(module, 1.0)
    with pytest.raises(ModelError, match="with dropout layers"):
        recipe_of(RECIPE).fit(data, {"dropout": 0.5}, np.random.default_rng(0))


def test_the_knobs_are_weight_decay_and_dropout_where_there_is_any():
    assert list(recipe_of(RECIPE).knobs) == ["weight_decay"]
    knobs = recipe_of(replace(RECIPE, build=with_dropout)).knobs
    assert list(knobs) == ["weight_decay", "dropout"]
    assert all(list(values) == sorted(values) for values in knobs.values())
    assert recipe_of(replace(RECIPE, knobs={"epochs": (4, 2)})).knobs == {"epochs": (4, 2)}


def test_fixed_settings_equal_settings_given_and_can_still_be_overridden(data):
    recipe = recipe_of(RECIPE)
    fixed = with_settings(recipe, {"weight_decay": 1.0})
    for given, init in (({"weight_decay": 1.0}, {}), ({"weight_decay": 0.1}, {"weight_decay": 0.1})):
        expected = recipe.fit(data, given, np.random.default_rng(0)).logits(data.x)
        np.testing.assert_array_equal(fixed.fit(data, init, np.random.default_rng(0)).logits(data.x), expected)
    assert fixed.digest != recipe.digest
    assert fixed.settings["weight_decay"] == 1.0
    assert as_torch(fixed).weight_decay == 1.0
    assert with_settings(recipe, {}) is recipe


def _echo(data, init, rng):
    return dict(init)


def test_fixed_settings_work_for_any_recipe():
    plain = Recipe(_echo, "sha256:echo", settings={"a": 0, "b": 0})
    fixed = with_settings(plain, {"a": 1})
    assert as_torch(fixed) is None
    assert fixed.fit(None, {}, None) == {"a": 1}
    assert fixed.fit(None, {"a": 2, "b": 3}, None) == {"a": 2, "b": 3}
    assert fixed.settings == {"a": 1, "b": 0}


def test_a_digest_names_the_code_and_the_settings():
    digests = [recipe_of(r).digest for r in (RECIPE, replace(RECIPE, build=with_dropout), replace(RECIPE, lr=0.5))]
    assert len(set(digests)) == 3
    assert digests[0] == recipe_of(replace(RECIPE)).digest
    layers = [recipe_of(replace(RECIPE, build=partial(nn.Linear, 6, k))).digest for k in (3, 4)]
    assert layers[0] != layers[1]


def test_training_is_charged_by_epochs_and_what_is_not_torch_by_one_pass():
    assert training_cost(recipe_of(RECIPE), 10) == Spent(40, 40)
    assert training_cost(recipe_of(RECIPE), 10, {"epochs": 7}) == Spent(70, 70)
    assert training_cost(Recipe(_echo, "d"), 10) == Spent(10, 10)


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ({"depth": 3}, "a setting of a torch recipe"),
        ({"optimizer": "lion"}, "adam or sgd"),
        ({"schedule": "x"}, "cosine"),
    ],
)
def test_what_a_recipe_does_not_know_is_refused_with_what_it_knows(init, words, data):
    with pytest.raises(ModelError, match=words):
        recipe_of(RECIPE).fit(data, init, np.random.default_rng(0))


def test_labels_that_are_not_classes_are_refused(data):
    with pytest.raises(ModelError, match="class indices"):
        recipe_of(RECIPE).fit(replace(data, y=data.labels * 1.0), {}, np.random.default_rng(0))
