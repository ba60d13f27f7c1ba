"""The digits example: its splits keep apart what they must, its net learns, its configuration is what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from casemate import config
from casemate.adapters.imports import import_object
from casemate.core.facets import Facet
from casemate.engine.trainers import TorchRecipe, recipe_of, train_module

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest.fixture(scope="module")
def net() -> object:
    """The example's own modules, found as an audit finds them."""
    import_object("train:main", folder=FOLDER)
    return sys.modules["train"]


@pytest.fixture(scope="module")
def mnist(net):
    """All digits and the rows of each split."""
    x, y = net.digits()
    return x, y, net.split(y, np.random.default_rng(0))


def test_no_digit_is_in_two_splits_and_every_class_is_in_each_as_often(net, mnist) -> None:
    _, y, parts = mnist
    rows = np.concatenate(list(parts.values()))
    assert len(np.unique(rows)) == len(rows) == 5000
    for name, wanted in net.SPLITS.items():
        assert np.bincount(y[parts[name]]).tolist() == [wanted] * 10


def test_the_pixels_are_within_the_declared_bounds(mnist) -> None:
    x, *_ = mnist
    settings = config.load(FOLDER / "casemate.toml")
    assert (x.dtype, x.shape) == (np.float32, (5000, 1, 28, 28))
    assert (float(x.min()), float(x.max())) == settings.data.bounds


def test_the_net_is_as_large_as_it_says_and_learns_in_a_few_steps(mnist) -> None:
    recipe = import_object("net:recipe", folder=FOLDER, what="recipe")
    module = recipe.build()
    assert f"{sum(part.numel() for part in module.parameters()):,} weights" in recipe.build.__doc__
    x, y, parts = mnist
    rows, held_out = parts["tune"], parts["reference"]
    trained = train_module(module, x[rows], y[rows], rng=np.random.default_rng(0), epochs=2, lr=recipe.lr)
    import torch

    with torch.no_grad():
        labels = trained(torch.from_numpy(x[held_out])).argmax(dim=1).numpy()
    assert (labels == y[held_out]).mean() > 0.5  # chance is 0.1


def test_the_configuration_makes_the_case_that_it_describes(mnist, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "out").mkdir()
    for name in ("casemate.toml", "net.py"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    x, y, parts = mnist
    for name, rows in parts.items():
        np.savez(tmp_path / "out" / f"{name}.npz", x=x[rows[:40]], y=y[rows[:40]])
    recipe = import_object("net:recipe", folder=FOLDER, what="recipe")
    save_file(recipe.build().state_dict(), tmp_path / "out" / "digits.safetensors")

    case = config.case_of(config.load(tmp_path / "casemate.toml"))

    assert {Facet.GRADIENTS, Facet.ACTIVATIONS, Facet.TRAIN, Facet.REFERENCE, Facet.RECIPE} <= case.offers
    assert case.name == "digits"
    assert case.the_model().classes == tuple("0123456789")
    assert case.recipe is not None
    assert case.recipe.settings == recipe_of(recipe).settings
    assert isinstance(recipe, TorchRecipe)
