"""One change for all inputs, a small one or a patch: rows kept apart, how it is fitted, and what it does to answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.lab import Lab, Stored
from casemate.core.model import ABSTAIN
from casemate.core.rng import uniforms
from casemate.core.stats import Interval, clopper_pearson
from casemate.engine.harness import steadied
from casemate.engine.prepared import Prepared
from casemate.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "NOTHING_RIGHT",
    "Move",
    "Put",
    "answered",
    "fitted_change",
    "fooled_rows",
    "one_of_each",
    "pixel_range",
    "rows_apart",
    "staying",
]

Array = NDArray[Any]
Rng = np.random.Generator
Put = Callable[[Array, Array, Array, int], tuple[Array, Callable[[Array], Array]]]
"""`(change, x (b, ...), sample_id (b,), turn) -> points (b, ...)`, and what makes their gradient that of the change."""
Move = Callable[[Array, Array, float], Array]
"""`(change, direction, rate in (0, 1]) -> change`: a step that stays where the change may be."""

NOTHING_RIGHT = "no row to fit on is answered rightly, so there is no right answer to break"
"""Why a probe whose `rows_apart` are None has no evidence."""

_LEAST = 20  # rows, both to fit on and to measure on
_BATCH = 64
_CLIP = 9.0  # beta, Shafahi et al., section 4: what one input can add to the loss
_MOMENTUM = 0.9


def rows_apart(case: Case, lab: Lab, samples: int) -> tuple[Data, Data, str] | None:
    """Rows to fit on (those the model gets right), rows to measure on, at most `samples` each, and a word on the first.

    Tune rows and test rows; without labelled tune rows two halves of the test rows, told apart by sample id. The rows
    to measure on stay the same when a hardened model is audited with fresh attack seeds. Charges a forward for each
    row to fit on (of a random model one for each vote). None where no row is
    answered rightly: there is nothing to break. Raises `ConfigError` for fewer than 20 samples, `Unavailable` where
    there are fewer rows.
    """
    if samples < _LEAST:
        raise ConfigError(f"expected samples >= {_LEAST} for {lab.plugin}, got {samples}: ask for more")
    test, tune = case.data("test"), case.splits.tune
    if tune is not None and tune.y is not None and len(tune) >= _LEAST:
        fit, unseen, source = tune, test, "tune rows"
    else:
        seed = lab.seed if lab.sampling_seed is None else lab.sampling_seed
        first = uniforms(seed, "universal halves", test.sample_id) < 0.5
        _hold_enough(int(first.sum()), int((~first).sum()))
        fit, unseen, source = test.take(first), test.take(~first), "other test rows"
    fit, unseen = (_cut(part, samples, name, lab) for name, part in (("fit", fit), ("unseen", unseen)))
    right = np.asarray(steadied(case).labels(fit.x)) == fit.labels
    if not right.any():
        return None
    fit = fit.take(right)
    _hold_enough(len(fit), len(unseen))
    return fit, unseen, source


def _hold_enough(fit: int, unseen: int) -> None:
    if min(fit, unseen) < _LEAST:
        raise Unavailable(
            f"expected at least {_LEAST} rows to fit on that are answered rightly, and as many to measure on, got "
            f"{fit} and {unseen}: give more test or tune rows"
        )


def fitted_change(
    ready: Prepared, fit: Data, starts: Sequence[Array], *, put: Put, move: Move, steps: int, targets: int, rng: Rng
) -> Array:
    """The change that fools most of the rows to fit on, of all that stochastic ascents on the clipped loss meet.

    A short ascent away from the true classes and one towards each of the `targets` classes that most often come second,
    a tenth of `steps` each; then a whole one on the way that led furthest. (Without a target the rows pull apart: on
    digits most such ascents stopped at half of what the best target fooled.) All begin at the first of `starts`; the
    others are only held against what is found. Raises `BudgetExhausted`.
    """
    ways: list[int | None] = [None, *_runners_up(ready, fit, targets)]
    found = [(_fooled(ready, fit, change, put), change, ways[0]) for change in starts[1:]]
    climb = partial(_climbed, ready, fit, starts[0], put=put, move=move)
    if len(ways) > 1:
        found += [(*climb(steps=max(steps // 10, 1), batches=_batches(rng, len(fit)), target=way), way) for way in ways]
        ways = [max(found[len(starts) - 1 :], key=lambda item: item[0])[2]]
    found.append((*climb(steps=steps, batches=_batches(rng, len(fit)), target=ways[0]), ways[0]))
    return max(found, key=lambda item: item[0])[1]


def answered(case: Case, kept: Stored, views: Callable[[Data], Mapping[str, Array]]) -> dict[str, Any]:
    """`kept` with the truth `y (n,)` of its `sample_id (n,)`, and the labels `(n,)` of these rows and their views.

    `views(part)` gives some rows in other forms by name, each `(b, ...)`; "clean" are the labels of the rows as they
    are. The model as the user gave it is asked; one that answers at random by votes, so that a seed gives one report.
    """
    data, model = case.data("test"), steadied(case)
    rows = data.places(np.asarray(kept["sample_id"]))
    labels: dict[str, list[Array]] = {}
    for top in range(0, len(rows), _BATCH):
        part = data.take(rows[top : top + _BATCH])
        for name, x in {"clean": part.x, **views(part)}.items():
            labels.setdefault(name, []).append(np.asarray(model.labels(x)))
    return {**kept, "y": data.labels[rows], **{name: np.concatenate(parts) for name, parts in labels.items()}}


def staying(kept: Stored, name: str) -> Interval:
    """The share that stays right in the view `name`, of the rows that are right as they are (one at least is).

    A refusal is not wrong.
    """
    y, clean, labels = (np.asarray(kept[key]) for key in ("y", "clean", name))
    right = clean == y
    return clopper_pearson(int((right & ((labels == y) | (labels == ABSTAIN))).sum()), int(right.sum()))


def fooled_rows(kept: Stored, name: str, most: int) -> Array:
    """At most so many rows that are right as they are and wrong in the view `name`, one of each class first, `(m,)`."""
    y, clean, labels = (np.asarray(kept[key]) for key in ("y", "clean", name))
    return one_of_each(np.flatnonzero((clean == y) & (labels != y) & (labels != ABSTAIN)), y)[:most]


def one_of_each(rows: Array, y: Array) -> Array:
    """The rows in another order: one of each class of `y` before a second of any."""
    turn = np.array([int(np.sum(y[rows[:i]] == y[row])) for i, row in enumerate(rows)], dtype=np.int64)
    return np.asarray(rows[np.argsort(turn, kind="stable")])


def pixel_range(data: Data) -> tuple[float, float]:
    """The bounds of a pixel as declared, else the smallest and largest there are."""
    low, high = float(data.schema.lo.max()), float(data.schema.hi.min())
    return (low, high) if np.isfinite(high - low) else (float(np.nanmin(data.x)), float(np.nanmax(data.x)))


def _climbed(
    ready: Prepared,
    fit: Data,
    start: Array,
    *,
    put: Put,
    move: Move,
    steps: int,
    batches: Iterator[Array],
    target: int | None,
) -> tuple[int, Array]:
    """One ascent, a batch a step: how many rows its best change fools, and the change.

    After each pass over the rows, or a quarter of the way, all are answered with the change as it is.
    """
    change, drift = np.array(start), np.zeros(start.shape)
    found = []
    every = max(min(-(-len(fit) // _BATCH), steps // 4), 1)
    for step in range(steps):
        part = fit.take(next(batches))
        points, back = put(change, part.x, part.sample_id, step + 1)
        pull = back(_slope(ready, points, part.labels, target))
        drift = _MOMENTUM * drift + pull / max(float(np.abs(pull).mean()), np.finfo(np.float64).tiny)
        change = move(change, drift, 0.5 * (1 + np.cos(np.pi * step / steps)))
        if (step + 1) % every == 0 or step + 1 == steps:
            found.append((_fooled(ready, fit, change, put), change))
    return max(found, key=lambda item: item[0])


def _runners_up(ready: Prepared, fit: Data, most: int) -> list[int]:
    """The classes that most often come second, the most frequent first."""
    if most < 1:
        return []
    second = []
    for top in range(0, len(fit), _BATCH):
        part = fit.take(np.arange(top, min(top + _BATCH, len(fit))))
        logits = ready.logits(ready.tensor(part.x)).double().cpu().numpy()
        logits[np.arange(len(part)), part.labels] = -np.inf
        second.append(logits.argmax(axis=1))
    counts = np.bincount(np.concatenate(second), minlength=logits.shape[1])
    order = np.argsort(-counts, kind="stable")[: most if len(counts) > 2 else 0]  # of two classes each is all the rest
    return [int(label) for label in order]


def _slope(ready: Prepared, points: Array, y: Array, target: int | None) -> Array:
    """The gradient of the clipped loss at the points, `(b, ...)` float64."""
    import torch
    from torch.nn.functional import cross_entropy

    aim = torch.tensor(y if target is None else np.full(len(y), target), dtype=torch.int64, device=ready.device)

    def clipped(logits: Tensor) -> Tensor:
        loss = cross_entropy(logits, aim, reduction="none")
        return loss.clamp(max=_CLIP) if target is None else -loss  # which is at most 0 as it is

    _, _, slope = ready.gradient(ready.tensor(points), clipped)
    return np.asarray(slope.double().cpu().numpy())


def _fooled(ready: Prepared, fit: Data, change: Array, put: Put) -> int:
    """How many of the rows the prepared model answers wrongly with the change; places are the same at each call."""
    count = 0
    for top in range(0, len(fit), _BATCH):
        part = fit.take(np.arange(top, min(top + _BATCH, len(fit))))
        points, _ = put(change, part.x, part.sample_id, 0)
        count += int((ready.logits(ready.tensor(points)).argmax(1).cpu().numpy() != part.labels).sum())
    return count


def _batches(rng: np.random.Generator, n: int) -> Iterator[Array]:
    while True:
        yield from np.array_split(rng.permutation(n), -(-n // _BATCH))


def _cut(data: Data, samples: int, name: str, lab: Lab) -> Data:
    return data.take(np.sort(lab.rows_rng(name).permutation(len(data))[:samples]))
