"""Toy cases for the contract checks: small, real and quick. Whatever applies to anything applies to one of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from casemate.core.case import Case
from casemate.core.data import Data, Splits, texts
from casemate.core.facets import DataKind
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.engine.bundles import bundle_of
from casemate.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build_toy_net", "toy_case", "toy_cases"]

_NAMES = ("table", "linear", "image", "text")
_SHOP = {
    "offer": "free prize click now winner cash bonus limited deal buy cheap claim your reward today",
    "order": "parcel invoice delivered late order number refund size return address please thanks for my",
}
_COMMON = "the a you we is to and of in it on with this that have will"


def toy_cases() -> tuple[Case, ...]:
    """All toy cases; those of torch only where torch is installed."""
    from importlib.util import find_spec

    return tuple(toy_case(name) for name in _NAMES if name != "image" or find_spec("torch"))


@cache
def toy_case(name: str) -> Case:
    """A small case: `table`, `linear`, `image` or `text`.

    A forest with a category and groups, an affine model on digits, a small torch net, TF-IDF and a logistic regression
    on made-up messages. Each has train, tune, test and reference data and a recipe. Raises `UsageError` for another
    name.
    """
    makers = {"table": _table, "linear": _linear, "image": _image, "text": _text}
    if name not in makers:
        raise UsageError(f"expected a toy case ({', '.join(makers)}), got {name!r}: choose one")
    return makers[name]()


def _table() -> Case:
    from sklearn.ensemble import RandomForestClassifier

    from casemate import adapters
    from casemate.adapters.sklearn import sklearn_recipe

    rng = np.random.default_rng(11)
    n = 720
    category = rng.integers(0, 3, n).astype(float)
    x = np.column_stack([rng.normal(size=n), rng.normal(size=n), rng.integers(0, 9, n), category])
    y = (x[:, 0] + 0.5 * x[:, 1] + 0.3 * (category == 1) + 0.7 * rng.normal(size=n) > 0).astype(np.int64)
    features = (
        Feature("income", lo=-6, hi=6, scale=1.0),
        Feature("debt", lo=-6, hi=6, scale=1.0),
        Feature("children", FeatureKind.INTEGER, lo=0, hi=9, scale=2.0),
        Feature("region", FeatureKind.CATEGORY, lo=0, hi=2, categories=("north", "south", "west")),
    )
    schema = Schema(DataKind.TABLE, (4,), features)
    groups = {"sex": np.where(rng.random(n) < 0.5, "f", "m")}
    splits = _splits(x, y, schema, groups)
    estimator = RandomForestClassifier(n_estimators=8, max_depth=5, random_state=0)
    assert splits.train is not None
    estimator.fit(splits.train.x, splits.train.labels)
    model = adapters.wrap(estimator, classes=("no", "yes"), schema=schema, name="toy forest")
    return _case("toy table", model, splits, sklearn_recipe(estimator, schema))


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    rows = np.random.default_rng(3).permutation(np.flatnonzero(y < 4))  # the file is in the order of the writers
    return x[rows] / 16.0, y[rows].astype(np.int64)


def _linear() -> Case:
    from sklearn.linear_model import LogisticRegression

    from casemate import adapters
    from casemate.adapters.sklearn import sklearn_recipe

    x, y = _digits()
    schema = Schema(DataKind.TABLE, (64,), tuple(Feature(f"p{i}", lo=0.0, hi=1.0) for i in range(64)))
    splits = _splits(x, y, schema, {"pen": np.where(np.arange(len(y)) % 2, "left", "right")})
    assert splits.train is not None
    estimator = LogisticRegression(max_iter=300).fit(splits.train.x, splits.train.labels)
    model = adapters.wrap(estimator, classes=("0", "1", "2", "3"), schema=schema, name="toy linear")
    return _case("toy linear", model, splits, sklearn_recipe(estimator, schema))


def _image() -> Case:
    from casemate.engine.trainers import TorchRecipe, recipe_of

    x, y = _digits()
    images = x.reshape(-1, 1, 8, 8).astype(np.float32)
    schema = Schema(DataKind.IMAGE, (1, 8, 8), (Feature("pixel", lo=0.0, hi=1.0),))
    splits = _splits(images, y, schema, {"pen": np.where(np.arange(len(y)) % 2, "left", "right")})
    recipe = recipe_of(
        TorchRecipe(build_toy_net, epochs=15, lr=5e-3, batch=32, classes=("0", "1", "2", "3"), name="toy net")
    )
    assert splits.train is not None
    model = recipe.fit(splits.train, {}, np.random.default_rng(0))
    before = recipe.fit(splits.train, {"epochs": 5}, np.random.default_rng(1))
    return replace(_case("toy image", model, splits, recipe), surrogates=(before,))


def _text() -> Case:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from casemate import adapters
    from casemate.adapters.sklearn import sklearn_recipe

    rng = np.random.default_rng(17)
    n = 400
    y = rng.integers(0, 2, n)
    schema = Schema(DataKind.TEXT, ())
    groups = {"channel": np.where(rng.random(n) < 0.5, "mail", "chat")}
    splits = _splits(texts(_message(int(label), rng) for label in y), y, schema, groups)
    estimator = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10.0))
    assert splits.train is not None
    estimator.fit(splits.train.x.astype(object), splits.train.labels)
    model = adapters.wrap(estimator, classes=tuple(_SHOP), schema=schema, name="toy filter")
    return _case("toy text", model, splits, sklearn_recipe(estimator, schema, classes=tuple(_SHOP)))


def _message(label: int, rng: np.random.Generator) -> str:
    """A dozen words: half from anywhere, most others from the list of its class, some from the other."""
    own, other = (words.split() for words in list(_SHOP.values())[:: 1 - 2 * label])
    common = _COMMON.split()
    lists = [common if u < 0.5 else own if u < 0.9 else other for u in rng.random(int(rng.integers(8, 17)))]
    return " ".join(str(rng.choice(words)) for words in lists)


def build_toy_net() -> nn.Module:
    """A net of two small layers for images of 8 x 8 pixels and four classes."""
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 4))


def _splits(x: np.ndarray, y: np.ndarray, schema: Schema, groups: dict[str, np.ndarray]) -> Splits:
    whole = Data(x, schema, y=y, groups=groups)
    n = len(whole)
    edges = [0, n * 40 // 100, n * 50 // 100, n * 65 // 100, n]
    train, tune, test, reference = (whole.take(np.arange(a, b)) for a, b in pairwise(edges))
    return Splits(train=train, tune=tune, test=test, reference=reference)


def _case(name: str, model: Any, splits: Splits, recipe: Any) -> Case:
    schema = splits.parts()["train"].schema
    files = (Path(__file__),)  # any real file can be scanned
    return Case(name=name, model=model, bundle=bundle_of(model, schema), splits=splits, recipe=recipe, files=files)
