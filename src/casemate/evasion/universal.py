"""Universal perturbations: one small change, the same for every input, that makes the model wrong on many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.evidence import Direction, Evidence, Metric, Quantity, Scalar
from casemate.core.exhibit import MOST
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.metering import unmetered_case
from casemate.core.model import ABSTAIN, Task
from casemate.core.norms import Norm
from casemate.core.plugin import probe
from casemate.core.rng import normals, signs, uniforms
from casemate.core.schema import Schema
from casemate.core.stats import clopper_pearson
from casemate.engine.prepared import Prepared, prepare
from casemate.engine.reach import reach_of
from casemate.errors import ConfigError, Unavailable
from casemate.evasion import THREAT
from casemate.evasion._broken import before_after
from casemate.evasion.standard import usual_eps

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Move",
    "Put",
    "UniversalOptions",
    "fitted_change",
    "fool_all_inputs",
    "one_of_each",
    "pixel_range",
    "rows_apart",
    "rows_of",
]

Array = NDArray[Any]
Rng = np.random.Generator
Put = Callable[[Array, Array, Array, int], tuple[Array, Callable[[Array], Array]]]
"""`(change, x (b, ...), sample_id (b,), turn) -> points (b, ...)`, and what makes their gradient that of the change."""
Move = Callable[[Array, Array, float], Array]
"""`(change, direction, rate in (0, 1]) -> change`: a step that stays where the change may be."""

_LEAST = 20  # rows, both to fit on and to measure on
_BATCH = 64
_CLIP = 9.0  # beta, Shafahi et al., section 4: what one input can add to the loss
_MOMENTUM = 0.9
_STEP = 0.25  # of eps, the first step; they shrink to nothing along a cosine

KEPT = Metric(
    "evasion.universal_kept",
    Quantity.ROBUSTNESS,
    Direction.TOO_HIGH,
    says="one small change, the same for every input, makes the model answer wrongly",
    mend="train adversarially (casemate.harden), with the one change that fits a batch or with one for each input",
)
# Exact for the change that was found; a report would draw what errs too low as a certificate.
FOOLED = Metric("evasion.universal_fooling_rate", Quantity.NOTE, Direction.EXACT)
RANDOM = Metric("evasion.universal_random_kept", Quantity.NOTE, Direction.EXACT)


@dataclass(frozen=True, slots=True)
class UniversalOptions:
    """`norm` (linf, l2 or both), `eps` (None: by the kind of data), `samples` on either side; how hard to try.

    `steps` of the whole ascent for each eps; short ones away from the true classes and towards each of `targets` others
    come before it.
    """

    norm: str | tuple[str, ...] = "linf"
    eps: float | tuple[float, ...] | None = None
    samples: int = 1000
    steps: int = 300
    targets: int = 10


def _replayed(case: Case, arrays: Mapping[str, Stored], lab: Lab) -> Iterator[Evidence]:
    """The same evidence: the kept change is added to the same rows again, and the model asked again."""
    for name in sorted(arrays):
        yield from _measured(_judged(case, arrays[name], lab), name, lab)


@probe(
    threat=THREAT,
    source="Moosavi-Dezfooli et al., Universal adversarial perturbations, CVPR 2017; found as in Shafahi et al., "
    "Universal adversarial training, AAAI 2020, section 4; intervals: Clopper-Pearson",
    needs={Facet.GRADIENTS, Facet.LABELS, Facet.TEST},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.MODERATE,
    metrics=(KEPT, FOOLED, RANDOM),
    options=UniversalOptions,
    profiles={
        Profile.QUICK: {"samples": 256, "steps": 60, "targets": 4},
        Profile.FULL: {"samples": 4000, "steps": 1000, "targets": 30},
    },
    replay=_replayed,
    requires=("torch",),
)
def fool_all_inputs(case: Case, lab: Lab) -> Iterator[Evidence]:
    """How many answers survive one small change that is the same for every input, which an attacker computes once.

    The change v, with ||v / scale|| <= eps, raises the mean over fitting rows of min(cross-entropy, 9) by stochastic
    gradients (the paper's clipped loss), or minus the cross-entropy of one class for all (ours), whichever fools more
    of the fitting rows; the step is a sign (linf) or a unit vector (l2) with momentum (ours). Measured on rows that v
    was not fitted on: of those right as they are, the share that stays right with x + v inside the bounds; the share of
    all whose answer changes (the papers' fooling rate); and as control the share that stays right after a random change
    of the same size, another for each row. Fitted on the tune rows where there are labelled ones, else on half of the
    test rows, chosen by sample id. The attacker knows the weights. A refusal is not wrong. Errs too high: another v may
    fool more.

    Raises `ConfigError` for a norm or eps that does not fit, `Unavailable` for too few rows, `BudgetExhausted`.
    """
    if case.the_model().task is Task.REGRESSION:
        return
    options: UniversalOptions = lab.options
    fit, unseen, source = rows_apart(case, lab, options.samples)
    ready = prepare(case.the_model(), fit.x, lab.meter, seed=lab.seed_for("draws"))
    for norm in _norms(options):
        starts = [np.zeros(fit.schema.shape)]
        for place, eps in enumerate(_radii(options, norm, fit.schema)):
            ways: dict[str, Any] = {
                "put": partial(_put, norm=norm, eps=eps, schema=fit.schema),
                "move": partial(_moved, norm=norm, eps=eps),
            }
            hard: dict[str, Any] = {"steps": options.steps, "targets": options.targets}
            v = fitted_change(ready, fit, starts, rng=lab.rng(f"{norm} {eps}"), **ways, **hard)
            asked = {"sample_id": unseen.sample_id, "v": v, "norm": str(norm), "eps": eps, "fitted": len(fit)}
            kept = _judged(case, {**asked, "source": source}, lab)
            yield from _measured(kept, f"{norm}-{place}", lab)
            starts[1:] = [v]  # it lies in every larger ball
        _show(case, kept, lab)


def rows_apart(case: Case, lab: Lab, samples: int) -> tuple[Data, Data, str]:
    """Rows to fit on (those the model gets right), rows to measure on, at most `samples` each, and a word on the first.

    Tune rows and test rows; without labelled tune rows two halves of the test rows, told apart by sample id. The rows
    to measure on stay the same when a hardened model is audited with fresh attack seeds. Charges a forward for each
    row to fit on. Raises `ConfigError` for fewer than 20 samples, `Unavailable` where there are fewer rows.
    """
    if samples < _LEAST:
        raise ConfigError(f"expected samples >= {_LEAST} for {lab.plugin}, got {samples}: ask for more")
    test, tune = case.data("test"), case.splits.tune
    if tune is not None and tune.y is not None and len(tune) >= _LEAST:
        fit, unseen, source = tune, test, "tune rows"
    else:
        seed = lab.seed if lab.sampling_seed is None else lab.sampling_seed
        first = uniforms(seed, "universal halves", test.sample_id) < 0.5
        fit, unseen, source = test.take(first), test.take(~first), "other test rows"
    fit, unseen = (_cut(part, samples, name, lab) for name, part in (("fit", fit), ("unseen", unseen)))
    fit = fit.take(np.asarray(case.the_model().labels(fit.x)) == fit.labels)
    if min(len(fit), len(unseen)) < _LEAST:
        raise Unavailable(
            f"expected at least {_LEAST} rows to fit on that are answered rightly, and as many to measure on, got "
            f"{len(fit)} and {len(unseen)}: give more test or tune rows"
        )
    return fit, unseen, source


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


def rows_of(data: Data, sample_id: Array) -> Array:
    """The positions `(m,)` of samples by their ids."""
    order = np.argsort(data.sample_id)
    return np.asarray(order[np.searchsorted(data.sample_id, sample_id, sorter=order)])


def one_of_each(rows: Array, y: Array) -> Array:
    """The rows in another order: one of each class of `y` before a second of any."""
    turn = np.array([int(np.sum(y[rows[:i]] == y[row])) for i, row in enumerate(rows)], dtype=np.int64)
    return np.asarray(rows[np.argsort(turn, kind="stable")])


def pixel_range(data: Data) -> tuple[float, float]:
    """The bounds of a pixel as declared, else the smallest and largest there are."""
    low, high = float(data.schema.lo.max()), float(data.schema.hi.min())
    return (low, high) if np.isfinite(high - low) else (float(np.nanmin(data.x)), float(np.nanmax(data.x)))


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


def _norms(options: UniversalOptions) -> list[Norm]:
    asked = [options.norm] if isinstance(options.norm, str) else list(options.norm)
    unknown = [name for name in asked if name not in (Norm.LINF, Norm.L2)]
    if unknown or not asked:
        raise ConfigError(f"expected norm linf or l2 for evasion/universal, got {options.norm}: choose one or both")
    return [Norm(name) for name in dict.fromkeys(asked)]


def _radii(options: UniversalOptions, norm: Norm, schema: Schema) -> Sequence[float]:
    if options.steps < 1:
        raise ConfigError(f"expected steps >= 1 for evasion/universal, got {options.steps}: ask for more")
    if options.eps is None:
        return usual_eps(norm, schema)
    radii = sorted({float(eps) for eps in np.atleast_1d(options.eps)})
    if not radii or not all(0 < eps < np.inf for eps in radii):
        raise ConfigError(f"expected positive numbers as eps of evasion/universal, got {options.eps}: mend eps")
    return radii


def _random(norm: Norm, eps: float, ids: Array, shape: tuple[int, ...], seed: int) -> Array:
    """A random change of size eps for each id, `(n, ...)`: a corner of the cube, or a direction."""
    if norm is Norm.LINF:
        return np.asarray(eps * signs(seed, "universal", ids, shape))
    draw = normals(seed, "universal", ids, shape)
    size = np.sqrt((draw.reshape(len(draw), -1) ** 2).sum(axis=1))
    return np.asarray(eps * draw / size.reshape(-1, *(1,) * len(shape)))


def _put(
    v: Array, x: Array, sample_id: Array, turn: int, *, norm: Norm, eps: float, schema: Schema
) -> tuple[Array, Callable[[Array], Array]]:
    del sample_id, turn  # the same for every input
    reach = reach_of(norm, eps, x, schema)
    wanted = x + v * reach.scale
    points = np.clip(wanted, reach.low, reach.high)
    # Where a bound stops a row, its gradient says nothing of v.
    return points, lambda slope: np.where(points == wanted, slope * reach.scale, 0.0).mean(axis=0)


def _moved(v: Array, direction: Array, rate: float, *, norm: Norm, eps: float) -> Array:
    if norm is Norm.LINF:
        return np.clip(v + _STEP * eps * rate * np.sign(direction), -eps, eps)
    tiny = np.finfo(np.float64).tiny
    v = v + _STEP * eps * rate * direction / max(float(np.sqrt((direction**2).sum())), tiny)
    return np.asarray(v * min(1.0, eps / max(float(np.sqrt((v**2).sum())), tiny)))


def _judged(case: Case, kept: Stored, lab: Lab) -> dict[str, Any]:
    """What the model as the user gave it says of the rows as they are, with v, and with a random change."""
    data = case.data("test")
    rows = rows_of(data, np.asarray(kept["sample_id"]))
    norm, eps = Norm(str(kept["norm"])), float(kept["eps"])
    labels: dict[str, list[Array]] = {"clean": [], "moved": [], "shaken": []}
    for top in range(0, len(rows), _BATCH):
        part = data.take(rows[top : top + _BATCH])
        reach = reach_of(norm, eps, part.x, data.schema)
        noise = _random(norm, eps, part.sample_id, part.x.shape[1:], lab.seed)
        for name, change in (("clean", None), ("moved", np.asarray(kept["v"])), ("shaken", noise)):
            x = part.x if change is None else reach.settle(reach.x + change * reach.scale)
            labels[name].append(np.asarray(case.the_model().labels(x)))
    return {**kept, "y": data.labels[rows], **{name: np.concatenate(parts) for name, parts in labels.items()}}


def _measured(kept: Stored, name: str, lab: Lab) -> Iterator[Evidence]:
    digest = lab.keep(name, kept)
    y, clean, moved, shaken = (np.asarray(kept[key]) for key in ("y", "clean", "moved", "shaken"))
    norm, n, right = str(kept["norm"]), len(y), clean == y
    common: dict[str, Any] = {
        "about": norm,
        "at": dict[str, Scalar](norm=norm, eps=float(kept["eps"])),
        "files": (digest,) if digest else (),
        "method": f"{n:,} test rows, fitted on {int(kept['fitted']):,} {kept['source']}",
    }
    yield FOOLED.measured(clopper_pearson(int(((moved != clean) & (moved != ABSTAIN)).sum()), n), **common)
    if not right.any():
        return
    common["method"] += "; of those answered rightly"
    for metric, labels in ((KEPT, moved), (RANDOM, shaken)):
        stays = int((right & ((labels == y) | (labels == ABSTAIN))).sum())
        yield metric.measured(clopper_pearson(stays, int(right.sum())), **common)


def _show(case: Case, kept: Stored, lab: Lab) -> None:
    """The change at the largest eps, alone on grey (of images), and some rows that it fooled."""
    case = unmetered_case(case)  # an exhibit is no measurement
    data, v = case.data("test"), np.asarray(kept["v"])
    y, clean, moved = (np.asarray(kept[key]) for key in ("y", "clean", "moved"))
    fooled = np.flatnonzero((clean == y) & (moved != y) & (moved != ABSTAIN))
    chosen = one_of_each(fooled, y)[: MOST - (data.schema.kind is DataKind.IMAGE)]
    if not len(chosen):
        return
    x = data.x[rows_of(data, np.asarray(kept["sample_id"])[chosen])]
    if data.schema.kind is DataKind.IMAGE:
        x = np.concatenate([np.full_like(x[:1], sum(pixel_range(data)) / 2), x])
    reach = reach_of(Norm(str(kept["norm"])), float(kept["eps"]), x, data.schema)
    after = reach.settle(reach.x + v * reach.scale)
    was, now = (np.asarray(case.the_model().labels(part)) for part in (x, after))
    alone = "first the change alone, on grey; then " if data.schema.kind is DataKind.IMAGE else ""
    caption = f"one change for all, {kept['norm']} eps {float(kept['eps']):.3g}: {alone}rows that it fools"
    lab.show(
        f"universal-{kept['norm']}",
        before_after(case, x, after, was=was, now=now, about=str(kept["norm"]), caption=caption),
    )
