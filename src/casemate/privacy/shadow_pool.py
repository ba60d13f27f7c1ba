"""Shadow models: models of one recipe, each trained on a random half of the rows, and what they say of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from casemate.core.case import Case, Recipe
from casemate.core.data import Data
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.model import Model
from casemate.core.options import Count, Within
from casemate.core.plugin import resource
from casemate.engine.trainers import as_torch, fit_many, training_cost
from casemate.errors import ConfigError, DataError, ModelError, Unavailable
from casemate.privacy import THREAT

__all__ = [
    "CLIP",
    "ShadowPoolOptions",
    "confidence_signal",
    "in_other",
    "paired_masks",
    "signal_facet",
    "train_shadows",
]

Array = NDArray[Any]
CLIP = 1e-12
"""Probabilities are kept this far from 0 and 1, so that the signal of a certain model is finite."""

_FINITE = 1e9
_AT_ONCE = 16
"""Modules trained together: enough to gain by vectorising, few enough to share among processes."""
_PARTS = ("train", "test", "tune")


@dataclass(frozen=True, slots=True)
class ShadowPoolOptions:
    """`models` (even) shadow models, trained on halves of at most `rows` rows."""

    models: Annotated[int, Within(least=2)] = 16
    rows: Count = 4000

    def __post_init__(self) -> None:
        if self.models % 2:
            raise ConfigError(f"expected an even number of shadow models, got {self.models}: set models = 16")


@resource(
    threat=THREAT,
    source="Carlini et al., Membership inference attacks from first principles, 2022, sections IV and V-A",
    needs={Facet.RECIPE, Facet.TRAIN, Facet.LABELS},
    kinds={DataKind.TABLE, DataKind.IMAGE, DataKind.TEXT},
    cost=Cost.EXPENSIVE,
    options=ShadowPoolOptions,
    profiles={Profile.QUICK: {"models": 8, "rows": 1000}, Profile.FULL: {"models": 64, "rows": 20_000}},
)
def train_shadows(case: Case, lab: Lab) -> Stored:
    """Train shadow models on halves of the rows and store their confidence in the true class of every row.

    Of `n` rows (train, test, tune; a seeded subsample, stratified by class and split, where `options.rows` is less;
    every class is cut to an even count) and `k` models: `phi (k, n)` the logit-scaled confidence `log p / (1 - p)` of
    each shadow, `inside (k, n)` whether the row was in its training half (each row in exactly `k / 2`), `target (n,)`
    the audited model's own, `member (n,)` whether the row was in *its* training set, `part (n,)` (0 train, 1 test, 2
    tune), `sample_id (n,)`, and `sampled`, which says what was taken. Charged: `training_cost` and one forward a row
    and model.

    Raises `ConfigError` for an odd number of models, `DataError` for too few rows, `Unavailable` without non-members.
    """
    options: ShadowPoolOptions = lab.options
    pool = _everyone(case)
    own = np.flatnonzero(~_on_both_sides(pool))
    rows = own[_population(pool.y[own], pool.part[own], options.rows, lab.rows_rng("population"))]
    data, part = pool.take(rows), pool.part[rows]
    facet = signal_facet(case.the_model())
    target = confidence_signal(case.the_model(), data.x, data.labels, facet=facet)
    inside = paired_masks(data.labels, options.models, lab.rng("masks"))
    group = 2 if as_torch(_recipe(case)) is None else _AT_ONCE
    items = [
        {"first": first, "rows": rows, "inside": inside[first : first + group], "facet": facet.value}
        for first in range(0, options.models, group)
    ]
    found = lab.map(_shadows, case, items)
    return {
        "phi": np.concatenate([item["phi"] for item in found]),
        "inside": inside,
        "target": target,
        "member": part == 0,
        "part": part,
        "sample_id": pool.sample_id[rows],
        "facet": facet.value,
        "sampled": f"{len(rows)} of {len(pool.y)} rows ({', '.join(_counts(part))}), seeded, by class and split"
        + (f", without {len(pool.y) - len(own)} rows that are in train and outside" if len(own) < len(pool.y) else ""),
    }


def signal_facet(model: Model) -> Facet:
    """The best that a model offers to read its confidence from: logits, else scores, else labels."""
    return next((f for f in (Facet.LOGITS, Facet.SCORES) if f in model.offers), Facet.LABELS)


def confidence_signal(model: Model, x: Array, y: Array, *, facet: Facet | None = None) -> NDArray[np.float64]:
    """Logit-scaled confidence in the true class, `phi (n,) = log p_y / (1 - p_y)`, float64; it rises as the loss falls.

    From logits `z_y - logsumexp of the others`, which no rounding of probabilities can flatten; from scores with
    probabilities kept `CLIP` from 0 and 1; from labels +-log(1 / CLIP), right or wrong. Raises `ModelError` for answers
    that have no column for some label.
    """
    facet = facet or signal_facet(model)
    answer = np.asarray(model.ask(facet, x), dtype=np.float64)
    limit = np.log(1 / CLIP) if facet is not Facet.LOGITS else _FINITE
    if facet is Facet.LABELS:
        return np.where(answer == y, limit, -limit)
    if answer.ndim != 2 or len(answer) != len(y) or (len(y) and int(np.max(y)) >= answer.shape[1]):
        raise ModelError(
            f"expected {facet} of shape ({len(y)}, classes) with a column for each label, got {answer.shape}: "
            "give the recipe all classes"
        )
    theirs = np.arange(len(y)), np.asarray(y, dtype=np.int64)
    if facet is Facet.SCORES:
        answer = np.log(np.clip(answer, CLIP / answer.shape[1], None))
    true = answer[theirs].copy()
    answer = np.array(answer, copy=True)
    answer[theirs] = -np.inf
    return np.asarray(np.clip(true - logsumexp(answer, axis=1), -limit, limit))


def in_other(a: Data, b: Data) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows of each have their record (features and label) in the other too, `(n,)` and `(m,)`.

    Such a row is a member and a non-member at once, and every attacker would be wrong about one of the two.
    """
    ours, theirs = _record_keys(a), _record_keys(b)
    return np.isin(ours, theirs), np.isin(theirs, ours)


def paired_masks(y: Array, models: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which rows each model trains on, `(k, n)`: each row in exactly half of them, each class halved within a pair."""
    inside = np.zeros((models, len(y)), dtype=bool)
    by_class = [np.flatnonzero(y == label) for label in np.unique(y)]
    for first in range(0, models, 2):
        for rows in by_class:
            inside[first, rng.permutation(rows)[: len(rows) // 2]] = True
        inside[first + 1] = ~inside[first]
    return inside


def _shadows(case: Case, item: Stored, lab: Lab) -> Stored:
    data, recipe = _everyone(case).take(item["rows"]), _recipe(case)
    inside = np.asarray(item["inside"])
    facet = Facet(item["facet"])
    models = _trained(recipe, data, inside, first=int(item["first"]), lab=lab)
    phi = []
    for model in models:
        lab.meter.charge(forwards=len(data))
        phi.append(confidence_signal(model, data.x, data.labels, facet=facet))
    return {"phi": np.stack(phi)}


def _trained(recipe: Recipe, data: Data, inside: NDArray[np.bool_], *, first: int, lab: Lab) -> Sequence[Model]:
    rngs = [lab.rng("shadow", first + i) for i in range(len(inside))]
    costs = [training_cost(recipe, int(mask.sum())) for mask in inside]
    torch_recipe = as_torch(recipe)
    if torch_recipe is not None:
        lab.meter.charge(sum(cost.forwards for cost in costs), sum(cost.backwards for cost in costs))
        return fit_many(torch_recipe, data, np.stack([np.flatnonzero(mask) for mask in inside]), rngs)
    models = []
    for mask, rng, cost in zip(inside, rngs, costs, strict=True):
        lab.meter.charge(cost.forwards, cost.backwards)
        models.append(recipe.fit(data.take(np.flatnonzero(mask)), {}, rng))
    return models


def _recipe(case: Case) -> Recipe:
    if case.recipe is None:
        raise Unavailable("expected a case with a recipe, got none: name one under [train]")
    return case.recipe


@dataclass(frozen=True)
class _Pool:
    """All rows of train, test and tune, where they are: a million rows are not copied to draw four thousand.

    `y (n,)` are their labels, `part (n,)` the place in `_PARTS` of the split that a row is from, `sample_id (n,)` its
    id there.
    """

    parts: tuple[Data, ...]
    y: Array
    part: NDArray[np.int64]
    sample_id: NDArray[np.int64]

    def take(self, rows: Array) -> Data:
        """The rows at the given positions, which rise; their ids are these positions."""
        ends = np.cumsum([len(data) for data in self.parts])
        cuts = np.searchsorted(rows, ends)
        x = [
            data.x[rows[top:bottom] - (end - len(data))]
            for data, top, bottom, end in zip(self.parts, [0, *cuts[:-1]], cuts, ends, strict=True)
        ]
        return Data(np.concatenate(x), self.parts[0].schema, self.y[rows], sample_id=rows)


def _everyone(case: Case) -> _Pool:
    parts = {code: data for code, name in enumerate(_PARTS) if (data := case.splits.parts().get(name)) is not None}
    if len(parts) < 2:
        raise Unavailable("expected rows that the model was not trained on, got train only: name a test or tune file")
    y = np.concatenate([data.labels for data in parts.values()])
    if y.dtype.kind not in "iu":
        raise DataError(f"expected class labels for shadow models, got {y.dtype}: they cover classifiers only")
    part = np.concatenate([np.full(len(data), code) for code, data in parts.items()])
    return _Pool(tuple(parts.values()), y, part, np.concatenate([data.sample_id for data in parts.values()]))


def _on_both_sides(pool: _Pool) -> NDArray[np.bool_]:
    """Rows of train whose record is outside it too, and the other way round, `(n,)`."""
    keys, inner = np.concatenate([_record_keys(data) for data in pool.parts]), pool.part == 0
    both = np.zeros(len(keys), dtype=bool)
    both[inner], both[~inner] = np.isin(keys[inner], keys[~inner]), np.isin(keys[~inner], keys[inner])
    return both


def _record_keys(data: Data) -> NDArray[np.int64]:
    """64 bits for each row, equal for equal features and labels in one process, `(n,)`."""
    keys = np.empty(len(data), dtype=np.int64)
    plain = data.x.dtype.kind in "fiub"
    for row, (x, y) in enumerate(zip(data.x, data.labels, strict=True)):
        # Adding 0 turns -0.0 into 0.0, which is equal and has other bits.
        record = (np.asarray(x, dtype=np.float64) + 0.0).tobytes() if plain else str(x)
        keys[row] = hash((record, float(y)))
    return keys


def _population(y: Array, part: Array, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """At most `most` rows, systematically sampled by class and split, an even count of each class, in order."""
    n = len(y)
    order = np.lexsort((rng.random(n), part, y))
    if n > most:
        order = order[np.floor((np.arange(most) + rng.random()) * n / most).astype(np.int64)]
    labels = y[order]
    shuffled = [rng.permutation(order[labels == label]) for label in np.unique(labels)]
    rows = np.sort(np.concatenate([mine[: len(mine) // 2 * 2] for mine in shuffled]))
    if len(rows) < 4 or len(np.unique(part[rows] == 0)) < 2:
        raise DataError(f"expected at least two rows of a class, in train and outside, got {len(rows)}: give more data")
    return rows


def _counts(part: Array) -> list[str]:
    return [f"{int((part == code).sum())} {name}" for code, name in enumerate(_PARTS) if (part == code).any()]
