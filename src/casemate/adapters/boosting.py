"""What XGBoost's and LightGBM's boosters have in common: margins of every class, columns by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.rows import places_of
from casemate.adapters.tree_models import with_trees
from casemate.core.facets import DataKind
from casemate.core.model import Model
from casemate.core.schema import Schema
from casemate.core.trees import Trees
from casemate.errors import ModelError

__all__ = ["Booster", "check_links", "wrap_native"]

Array = NDArray[Any]


def check_links(left: Array, right: Array, feature: Array, width: int) -> None:
    """Hold the nodes `(m,)` of a tree to its links: compiled readers follow them without looking.

    Node 0 is the root, a leaf has `left` -1, an inner node looks at one of `width` features. Raises `ValueError` where
    a child is no node, or that of two parents, which includes every circle below the root.
    """
    m = len(left)
    if not len(right) == len(feature) == m or not m:
        raise ValueError("trees without all of their nodes")
    inner = left >= 0
    children = np.concatenate([left[inner], right[inner]])
    if len(children) and (children.min() < 1 or children.max() >= m or len(np.unique(children)) < len(children)):
        raise ValueError("a tree with a child that is no node of it, or that of two parents")
    if ((feature[inner] < 0) | (feature[inner] >= width)).any():
        raise ValueError(f"a split at a feature that is none of {width}")


def wrap_native(native: Any, describe: Callable[[Any], Booster], framework: str, **how: Any) -> Model:
    """A model around a booster that `describe` opens, or around a fitted estimator as `sklearn.wrap_estimator` does.

    `how` are the keywords of `Booster.as_model`, all of them. Raises `ModelError` as these do, and for a booster that
    the library itself cannot describe.
    """
    if hasattr(native, "get_params"):
        from casemate.adapters.sklearn import wrap_estimator

        del how["logits"]
        model = replace(wrap_estimator(native, **how), framework=framework)
        return _one_versus_all(model, str(getattr(native, "objective_", "")))
    try:
        booster = describe(native)
    except ModelError:
        raise
    except Exception as error:  # a library's own code may raise anything
        told = (str(error).splitlines() or ["no message"])[0][:200]
        raise ModelError(
            f"expected a booster after its training, got {type(error).__name__} ({told}): train it, or save it again"
        ) from error
    return _one_versus_all(booster.as_model(**how), booster.notes.get("objective", ""))


def _one_versus_all(model: Model, objective: str) -> Model:
    if model.scores is None or not objective.startswith("multiclassova"):
        return model
    note = {"scores": "those of one class against the others, as shares of their sum"}
    return replace(model, scores=_Shares(model.scores), notes={**model.notes, **note})


@dataclass(frozen=True)
class _Shares:
    """Scores `(n, k)` that each stand for themselves, as probabilities."""

    scores: Callable[[Array], Array]

    def __call__(self, x: Array) -> Array:
        found: Array = self.scores(x)
        sums = found.sum(axis=1, keepdims=True)
        even = np.full_like(found, 1 / max(1, found.shape[1]))
        return np.asarray(np.divide(found, sums, out=even, where=sums > 0))


@dataclass(frozen=True)
class Booster:
    """A booster that was opened.

    `margins` and `scores` answer a matrix `(n, width)` with `(n, k)` in the library's precision; of two classes both
    give the second one's column only, `(n,)`. `columns` are the features' names, empty where none are known. `build`
    makes its trees, to which a constant is added in sums of roundoff `base_unit` (None: nothing is added).
    """

    native: Any
    margins: Callable[[Array], Array]
    scores: Callable[[Array], Array]
    k: int
    width: int
    columns: tuple[str, ...]
    digest: str
    framework: str
    notes: Mapping[str, str]
    build: Callable[[], Trees]
    base_unit: float | None = None

    def as_model(
        self,
        *,
        classes: Sequence[str] | None = None,
        schema: Schema | None = None,
        name: str | None = None,
        logits: bool | None = None,
    ) -> Model:
        """The model; a margin `d` of two classes becomes the logits `(-d / 2, d / 2)`.

        Columns are found by name where schema and booster name the same ones, else by their place. Raises `ModelError`
        where the booster fits neither the classes nor the schema.
        """
        del logits  # a booster says itself what it gives
        names = tuple(classes) if classes else tuple(map(str, range(self.k)))
        if len(names) != self.k:
            raise ModelError(
                f"expected a booster of {len(names)} classes ({', '.join(names[:6])}), got one of {self.k}: name the "
                "target that it was trained on"
            )
        places = self._places(schema)
        answers = _Answers(self, places)
        model = Model(
            name=name or self.framework,
            digest=self.digest,
            labels=answers.labels,
            classes=names,
            scores=answers.scores,
            logits=answers.logits,
            estimator=self.native,
            framework=self.framework,
            notes=dict(self.notes),
        )
        return with_trees(
            model,
            self.build,
            answers.logits,
            width=self.width,
            places=places,
            schema=schema,
            base_unit=self.base_unit,
        )

    def _places(self, schema: Schema | None) -> tuple[int, ...]:
        """Which column of a sample each feature of the booster is."""
        usual = tuple(range(self.width))
        if schema is None:
            return usual
        if schema.kind is DataKind.TEXT:
            raise ModelError(f"expected numbers for {self.framework}, got texts: wrap the pipeline that makes features")
        width = int(np.prod(schema.shape))
        known = schema.kind is DataKind.TABLE and not set(self.columns).isdisjoint(schema.names)
        if known or (schema.kind is DataKind.TABLE and self.columns and width == self.width):
            return places_of(self.columns, schema)
        if width != self.width:
            raise ModelError(
                f"expected data of {self.width} features for this booster, got {width}: name its columns, or exclude "
                "those that it was not trained on"
            )
        return usual


@dataclass(frozen=True)
class _Answers:
    """The answers of a booster to samples `(n, ...)`."""

    booster: Booster
    places: tuple[int, ...]

    def labels(self, x: Array) -> Array:
        if len(x) == 0:
            return np.empty(0, dtype=np.int64)
        found = np.asarray(self.booster.margins(self._matrix(x)))
        return np.asarray(found > 0 if found.ndim == 1 else found.argmax(axis=1), dtype=np.int64)

    def scores(self, x: Array) -> Array:
        if len(x) == 0:
            return np.empty((0, self.booster.k))
        found = np.asarray(self.booster.scores(self._matrix(x)), dtype=np.float64)
        return np.stack([1 - found, found], axis=1) if found.ndim == 1 else found

    def logits(self, x: Array) -> Array:
        if len(x) == 0:
            return np.empty((0, self.booster.k))
        found = np.asarray(self.booster.margins(self._matrix(x)), dtype=np.float64)
        return np.stack([-found / 2, found / 2], axis=1) if found.ndim == 1 else found

    def _matrix(self, x: Array) -> Array:
        flat = np.asarray(x).reshape(len(x), -1)
        if max(self.places, default=-1) >= flat.shape[1]:
            raise ModelError(f"expected {self.booster.width} features, got {flat.shape[1]}: reshape the samples")
        picked = flat if self.places == tuple(range(flat.shape[1])) else flat[:, self.places]
        return np.ascontiguousarray(picked)
