"""Regularisation sweep: of the recipe's settings, the one that gives least away at hardly any loss of accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Candidate, Case, Recipe
from casemate.core.data import Data
from casemate.core.facets import Cost, DataKind, Facet
from casemate.core.lab import Lab, Stored
from casemate.core.options import OpenShare, Share
from casemate.core.outcome import Outcome
from casemate.core.plugin import hardening
from casemate.core.stats import roc_auc
from casemate.engine.trainers import training_cost, with_settings
from casemate.errors import DataError, Unavailable
from casemate.privacy import THREAT
from casemate.privacy.shadow_pool import confidence_signal

__all__ = ["RegularisationOptions", "sweep_regularisation"]

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RegularisationOptions:
    """At most `accuracy_loss` below the best; `holdout` is the share of train kept back where tune is missing."""

    accuracy_loss: Share = 0.02
    holdout: OpenShare = 0.25


@hardening(
    threat=THREAT,
    source="Yeom et al., Privacy risk in machine learning, 2018, section 3: overfitting is the loss attack's advantage",
    needs={Facet.RECIPE, Facet.TRAIN},
    kinds={DataKind.TABLE, DataKind.IMAGE, DataKind.TEXT},
    cost=Cost.EXPENSIVE,
    options=RegularisationOptions,
)
def sweep_regularisation(case: Case, findings: Iterable[Outcome], lab: Lab) -> Candidate:
    """Try every value of every knob of the recipe and keep the one whose model gives least away.

    For each candidate `{}` and `{knob: value}`: train, then measure the accuracy on the tune split (without one, on a
    seeded, stratified holdout of train) and the AUC of the loss attack between fitted and tune rows. Chosen is the
    smallest AUC (below one half counts as one half) among those within `accuracy_loss` of the best accuracy, and it is
    trained on all of train. The test split is never read. The chosen AUC errs low, as the smallest of several: the
    audit that follows measures it anew.

    Raises `Unavailable` for a recipe without knobs and for regression, `DataError` for too few rows to hold some out.
    """
    del findings  # which weakness was found does not change what is tried
    case = case.without_test()
    recipe = _recipe(case)
    tried = _candidates(recipe)
    fit, tune = _fit_and_tune(case, lab)
    found = lab.map(_try, case, [{"candidate": i} for i in range(len(tried))])
    accuracy = np.array([float(item["accuracy"]) for item in found])
    auc = np.array([float(item["auc"]) for item in found])
    best = _choose(accuracy, auc, lab.options.accuracy_loss)
    settings = tried[best]
    train = case.data("train")
    _pay(lab, recipe, len(train), settings)
    fixed = with_settings(recipe, settings)
    model = fixed.fit(train, {}, lab.rng("candidate"))
    return Candidate(
        model, _summary(settings, accuracy, auc, best, n=(len(fit), len(tune))), dict(settings), recipe=fixed
    )


def _candidates(recipe: Recipe) -> list[dict[str, Any]]:
    """The recipe as it is, then each knob's values, the weakest first."""
    singles = [{knob: value} for knob, values in sorted(recipe.knobs.items()) for value in values]
    return [{}, *(single for single in singles if not _same_as_now(recipe, single))]


def _same_as_now(recipe: Recipe, single: Settings) -> bool:
    return any(knob in recipe.settings and recipe.settings[knob] == value for knob, value in single.items())


def _try(case: Case, item: Stored, lab: Lab) -> Stored:
    recipe = _recipe(case)
    settings = _candidates(recipe)[int(item["candidate"])]
    fit, tune = _fit_and_tune(case, lab)
    _pay(lab, recipe, len(fit), settings)
    # One stream for all candidates: they start from the same weights, so that they differ by their settings alone.
    model = recipe.fit(fit, settings, lab.rng("candidate"))
    lab.meter.charge(forwards=len(fit) + 2 * len(tune))
    inner = confidence_signal(model, fit.x, fit.labels)
    outer = confidence_signal(model, tune.x, tune.labels)
    right = np.asarray(model.labels(tune.x)) == tune.labels
    return {"accuracy": float(right.mean()), "auc": roc_auc(inner, outer).value}


def _fit_and_tune(case: Case, lab: Lab) -> tuple[Data, Data]:
    train = case.data("train")
    if train.labels.dtype.kind not in "iu":
        raise Unavailable(f"expected class labels, got {train.labels.dtype}: the sweep covers classifiers only")
    if case.splits.tune is not None:
        return train, case.splits.tune
    held = _holdout(train.labels, lab.options.holdout, lab.rows_rng("holdout"))
    if not 0 < held.sum() < len(train):
        raise DataError(f"expected enough train rows to hold some out, got {len(train)}: name a tune file under [data]")
    return train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))


def _holdout(y: NDArray[Any], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A mask of about `share` of each class, at least one row of it left to train on."""
    held = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        held[rng.permutation(rows)[: min(round(share * len(rows)), len(rows) - 1)]] = True
    return held


def _choose(accuracy: NDArray[np.float64], auc: NDArray[np.float64], loss: float) -> int:
    """The smallest AUC among the accurate ones; of equal ones the most accurate, then the first."""
    good = np.flatnonzero(accuracy >= accuracy.max() - loss - 1e-12)
    leak = np.maximum(auc, 0.5)  # below one half is chance, not privacy
    return int(min(good, key=lambda i: (leak[i], -accuracy[i], i)))


def _summary(
    settings: Settings, accuracy: NDArray[np.float64], auc: NDArray[np.float64], best: int, *, n: tuple[int, int]
) -> str:
    chosen = ", ".join(f"{knob} = {value}" for knob, value in settings.items()) or "the recipe as it is"
    return (
        f"chose {chosen} of {len(auc)} settings on {n[0]} fitted and {n[1]} tune rows: membership AUC "
        f"{auc[0]:.3f} -> {auc[best]:.3f}, accuracy {accuracy[0]:.3f} -> {accuracy[best]:.3f}"
    )


def _recipe(case: Case) -> Recipe:
    if case.recipe is None:
        raise Unavailable("expected a case with a recipe, got none: name one under [train]")
    if not case.recipe.knobs:
        raise Unavailable(
            "expected a recipe with knobs to turn, got none: set Recipe.knobs, e.g. {'C': (1.0, 0.1, 0.01)}"
        )
    return case.recipe


def _pay(lab: Lab, recipe: Recipe, n: int, settings: Settings) -> None:
    cost = training_cost(recipe, n, settings)
    lab.meter.charge(cost.forwards, cost.backwards)
