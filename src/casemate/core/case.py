"""The case: a model, the data it is judged on, and how it was made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind, Facet
from casemate.core.model import Model
from casemate.core.records import Calibration
from casemate.core.schema import Schema
from casemate.errors import Unavailable

__all__ = ["Bundle", "Candidate", "Case", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """How to train such a model again: `fit(data, init, rng) -> Model`.

    `init` is a mapping of settings that override the recipe's own (`knobs` names those that exist, each with the values
    a sweep may try, the weakest regularisation first); `rng` decides everything random. `digest` names the code.
    """

    fit: Callable[[Data, Mapping[str, Any], np.random.Generator], Model]
    digest: str
    knobs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What is audited, signed and served: a manifest of every part by digest, with one digest of the whole.

    `parts` maps the path of a file inside the bundle to its SHA-256; transforms, guards and calibrations are files too.
    """

    digest: str
    parts: Mapping[str, str]
    loader: str = ""
    transforms: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()
    calibrations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """What is under audit. A case without model, data or recipe is ordinary; `.offers` says what can be asked."""

    name: str = "case"
    model: Model | None = None
    bundle: Bundle | None = None
    splits: Splits = field(default_factory=Splits)
    recipe: Recipe | None = None
    declared: Mapping[str, float] = field(default_factory=dict)
    calibrations: tuple[Calibration, ...] = ()
    surrogates: tuple[
        Model, ...
    ] = ()  # models whose gradients an attacker may borrow, such as the one before hardening
    files: tuple[Path, ...] = ()  # what the model was loaded from

    @property
    def offers(self) -> frozenset[Facet]:
        """The facets of this case."""
        parts = self.splits.parts()
        facets = set(self.model.offers) if self.model else set()
        facets |= {Facet(name) for name in parts}
        if self.files:
            facets.add(Facet.FILE)
        if self.recipe is not None:
            facets.add(Facet.RECIPE)
        if any(model.module is not None for model in self.surrogates):
            facets.add(Facet.SURROGATES)
        if any(data.groups for data in parts.values()):
            facets.add(Facet.GROUPS)
        if any(data.source is not None for data in parts.values()):
            facets.add(Facet.SOURCES)
        return frozenset(facets)

    @property
    def schema(self) -> Schema | None:
        """The schema shared by the splits, if there is data."""
        return next((data.schema for data in self.splits.parts().values()), None)

    @property
    def kind(self) -> DataKind | None:
        """What one sample is, if there is data."""
        return self.schema.kind if self.schema else None

    def the_model(self) -> Model:
        """The model; raises `Unavailable` for a case without one."""
        if self.model is None:
            raise Unavailable("expected a case with a model, got one without: name a model")
        return self.model

    def data(self, part: str) -> Data:
        """One split by name; raises `Unavailable` where it is not there."""
        found = self.splits.parts().get(part)
        if found is None:
            raise Unavailable(f"expected {part} data, got none: name a {part} file under [data]")
        return found

    def without_test(self) -> Case:
        """The case as hardening sees it."""
        return replace(self, splits=self.splits.without_test())


@dataclass(frozen=True)
class Candidate:
    """What a hardening proposes: a new model, what was done, and how it could be made again."""

    model: Model
    summary: str
    settings: Mapping[str, Any]
    recipe: Recipe | None = None
    calibrations: tuple[Calibration, ...] = ()
