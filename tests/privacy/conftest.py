from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from casemate.core.case import Case, Recipe
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.plugin import Plugin
from casemate.core.schema import Feature, Schema
from casemate.formats import arrays


def table(x: np.ndarray, y: np.ndarray, first_id: int = 0) -> Data:
    features = tuple(Feature(f"f{i}") for i in range(x.shape[1]))
    return Data(x, Schema(DataKind.TABLE, (x.shape[1],), features), y, sample_id=np.arange(len(x)) + first_id)


def blobs(n: int, rng: np.random.Generator, *, noise: float = 1.5, shift: float = 0.0, first_id: int = 0) -> Data:
    """Two overlapping classes in five dimensions: nobody can be right on all of them without learning rows by heart."""
    y = rng.permutation(np.arange(n) % 2)
    return table(rng.normal(size=(n, 5)) * noise + y[:, None] + shift, y.astype(np.int64), first_id)


def model_of(estimator: Any) -> Model:
    return Model("toy", "sha256:toy", estimator.predict, classes=("0", "1"), scores=estimator.predict_proba)


def fit(estimator: Any, data: Data, init: Mapping[str, Any], rng: np.random.Generator) -> Model:
    fresh = clone(estimator).set_params(**init)
    if "random_state" in fresh.get_params():
        fresh.set_params(random_state=int(rng.integers(2**31)))
    return model_of(fresh.fit(data.x, data.labels))


def recipe_for(estimator: Any, **knobs: tuple[Any, ...]) -> Recipe:
    return Recipe(partial(fit, estimator), "sha256:recipe", knobs=knobs)


def case_of(estimator: Any, train: Data, test: Data, tune: Data | None = None, **knobs: tuple[Any, ...]) -> Case:
    recipe = recipe_for(estimator, **knobs)
    model = recipe.fit(train, {}, np.random.default_rng(0))
    return Case(model=model, splits=Splits(train=train, test=test, tune=tune), recipe=recipe)


class Bench:
    """A lab that builds resources and keeps files as an audit does: everything passes through the container."""

    def __init__(self, plugin: Plugin, *resources: tuple[Plugin, Any], seed: int = 0, **options: Any) -> None:
        self.kept: dict[str, Any] = {}
        self.resources = dict((p.id, (p, o)) for p, o in resources)
        self.seed = seed
        self.lab = Lab(plugin.id, seed, plugin.options(**options), keeper=self._keep, getter=self._get)

    def _keep(self, name: str, values: Mapping[str, Any]) -> str:
        self.kept[name] = arrays.unpack(arrays.pack(values))
        return f"sha256:{name}"

    def _get(self, name: str, case: Case) -> Mapping[str, Any]:
        plugin, options = self.resources[name]
        return arrays.unpack(arrays.pack(plugin(case, Lab(name, self.seed, options))))


@pytest.fixture
def make_blobs() -> Callable[..., Data]:
    return blobs


@pytest.fixture
def make_case() -> Callable[..., Case]:
    return case_of


@pytest.fixture
def make_bench() -> type[Bench]:
    return Bench
