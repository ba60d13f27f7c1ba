"""Signs that a model hides its gradients instead of resisting: robust accuracy then only says that attacks got lost."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.data import Data
from casemate.core.facets import Facet
from casemate.core.metering import unmetered
from casemate.core.model import Model
from casemate.core.norms import Norm
from casemate.core.rng import signs
from casemate.core.schema import Schema
from casemate.engine.chance import drawn
from casemate.engine.prepared import Prepared, prepare, slope_at
from casemate.engine.reach import Reach, reach_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Look", "Triage", "guidance", "inspect", "is_random", "signs_of_masking", "spread_of", "steady", "triage"]

Array = NDArray[Any]

_ROWS = 64
_RIVALS = 8  # random steps that one along the gradient has to beat
# Of the rows. On 2 to 64 features trained nets were at 0.91 and more, nets with random weights at 0.94 on average, and
# chance gradients at 0.3 (0.44 at most).
_GUIDED = 0.8
_STEP = 0.25  # of how far the samples differ from each other, in each feature
_SAME = 1e-4  # relative: more than rounding differs between two runs of one kernel
_AHEAD = 0.25  # of the way to the edge of the ball: a step that an honest gradient still describes
_NUDGE = 1e-3  # of that way: far below any step that a defence rounds to, far above the rounding of a float32 input
_TRIED = 6  # rows of a shard in `triage`, with 10 propagations each
_SEEN = (
    1 / 3
)  # of them: two rows. Ordinary nets show a sign on one row in a hundred, so on two of six in one shard of 700
_OPEN = (Facet.GRADIENTS, Facet.LOGITS, Facet.SCORES)


def signs_of_masking(before: Model, after: Model, data: Data, rng: np.random.Generator) -> tuple[str, ...]:
    """In words, what makes attacks on `after` weaker than on `before` without making it any harder to fool.

    Each sign counts only where `before` did not show it. Errs towards silence: a model may hide its gradients elsewhere
    than at the samples. Source: Athalye, Carlini and Wagner, Obfuscated gradients give a false sense of security, ICML
    2018, section 3.1; the share of guided rows is ours.
    """
    before, after = unmetered(before), unmetered(after)
    lost = [str(facet) for facet in _OPEN if facet in before.offers - after.offers]
    if lost:
        return (f"it no longer offers {', '.join(lost)}: attacks that need them say nothing of it any more",)
    part = data.take(np.sort(rng.permutation(len(data))[:_ROWS]))
    if is_random(after, part) and not is_random(before, part):
        return (
            "it answers the same sample differently each time: noise that no certificate averages is no protection",
        )
    if Facet.GRADIENTS not in after.offers or Facet.GRADIENTS not in before.offers:
        return ()
    steps = rng.choice([-1.0, 1.0], size=(_RIVALS, *part.x.shape))
    was, now = guidance(before, part, steps), guidance(after, part, steps)
    if now < min(was, _GUIDED):
        return (
            f"its gradients lead nowhere: a step along them beats random steps on {now:.0%} of the samples (before: "
            f"{was:.0%}), so it hides them from the attacks and may be as easy to fool as before",
        )
    return ()


@dataclass(frozen=True, slots=True)
class Look:
    """What one gradient and a few steps show of each sample: masks `(n,)`.

    `random`: another answer to the same sample. `vanishing`: by its own gradient nothing within the ball changes the
    margin by more than rounding. `exploding`: the gradient is NaN or infinite, or so large that the rounding of the
    input would change the margin by more than the largest logit. `saturated`: the same as `vanishing`, of the
    cross-entropy, where the margin has a gradient. `stepped`: a nudge changes no bit of the answer. `misled`: a step
    along the gradient lowers the margin less than the best quarter of random steps do, or not at all. `kept (n,)`: what
    that step does over what the gradient says of it; NaN where it says nothing. `ahead (n, ...)`: the signs of the way
    that the gradient of the margin points.
    """

    random: NDArray[np.bool_]
    vanishing: NDArray[np.bool_]
    exploding: NDArray[np.bool_]
    saturated: NDArray[np.bool_]
    stepped: NDArray[np.bool_]
    misled: NDArray[np.bool_]
    kept: NDArray[np.float64]
    ahead: NDArray[np.float64]

    def take(self, rows: NDArray[np.bool_]) -> Look:
        """The look at some of the rows."""
        return Look(**{part.name: getattr(self, part.name)[rows] for part in fields(self)})


@dataclass(frozen=True, slots=True)
class Triage:
    """The shares of the rows tried on which each sign of `Look` shows, and the remedies that they call for."""

    rows: int
    random: float = 0.0
    vanishing: float = 0.0
    exploding: float = 0.0
    saturated: float = 0.0
    stepped: float = 0.0
    misled: float = 0.0

    @property
    def average(self) -> bool:
        """Gradients must be averages over draws (EoT): the answers are random."""
        return self.random > 0

    @property
    def straighten(self) -> bool:
        """Steps in the model must be given a gradient (BPDA): it is none, no guide, or too large to be one."""
        return self.search

    @property
    def search(self) -> bool:
        """Scores and labels must be searched in full: gradients as they are lead nowhere."""
        return max(self.vanishing, self.exploding, self.misled) >= _SEEN

    @property
    def rescale(self) -> bool:
        """Cross-entropy says nothing: logits must be rescaled, or losses that do not saturate be used (DLR, margin)."""
        return self.saturated >= _SEEN


def triage(prepared: Prepared, reach: Reach, y: Array, sample_id: Array, *, seed: int) -> Triage:
    """Which remedies a shard's attacks need, from at most 6 of its rows: 50 forwards and 12 backwards or fewer.

    The rows are spread evenly over the reach `(n, ...)`, whose ball should be that of the attack. Use rows that the
    model answers rightly. Errs towards silence where fewer than a third of the rows are masked. Charges the meter of
    `prepared`; raises `BudgetExhausted`.
    """
    rows = np.unique(np.linspace(0, len(reach) - 1, min(_TRIED, len(reach))).round().astype(np.int64))
    if not len(rows):
        return Triage(0)
    look = inspect(prepared, reach.take(rows), y[rows], sample_id[rows], seed=seed, rivals=_RIVALS // 2)
    names = ("random", "vanishing", "exploding", "saturated", "stepped", "misled")
    return Triage(len(rows), **{name: float(np.mean(getattr(look, name))) for name in names})


def inspect(prepared: Prepared, reach: Reach, y: Array, sample_id: Array, *, seed: int, rivals: int = _RIVALS) -> Look:
    """What the gradient at each sample of a reach `(n, ...)` in linf is worth.

    Costs 4 + `rivals` forwards and 2 backwards a row. Each row's answer depends on that row and its id alone. Missing
    features are left alone. Raises `BudgetExhausted`.
    Source: signs after Athalye, Carlini and Wagner, ICML 2018, section 3.1; their measures are ours.
    """
    # One draw of a random model, for what is looked for is its noise; from the seed, even if only some rows show it.
    prepared = replace(prepared, draws=1, random=True, seed=seed)
    with drawn(seed, "masking"):
        logits, slope, slope_ce = _slopes(prepared, reach.x, y)
    again = _answers(prepared, reach.x)
    top = np.abs(logits).max(axis=1)
    room = np.nan_to_num((reach.high.astype(np.float64) - reach.low) * (reach.high > reach.low))
    vanishing, exploding = _sized(prepared, slope, room, top)
    saturated = _sized(prepared, slope_ce, room, top)[0] & ~vanishing
    nudged = reach.settle(_moved(reach, signs(seed, "masking nudge", sample_id, reach.x.shape[1:]), _NUDGE, turn=True))
    able = _rows((nudged != reach.x) & ~np.isnan(reach.x)).any(axis=1)
    ahead = np.sign(np.nan_to_num(slope))
    start = _behind(logits, y)
    ways = [ahead, *(signs(seed, ("masking rival", i), sample_id, reach.x.shape[1:]) for i in range(rivals))]
    points = [reach.settle(_moved(reach, way, _AHEAD)) for way in ways]
    rose = np.array([_behind(_answers(prepared, point), y) - start for point in points])
    said = (_rows(np.nan_to_num(slope)) * _rows(np.nan_to_num(points[0].astype(np.float64) - reach.x))).sum(axis=1)
    still = (said == 0) & ~vanishing & ~exploding  # a step too short for whole numbers says nothing
    return Look(
        random=~_alike(logits, again, top * _SAME),
        vanishing=vanishing,
        exploding=exploding,
        saturated=saturated,
        stepped=able & (_answers(prepared, nudged) == logits).all(axis=1),
        misled=~still & ~_beats(rose),
        kept=np.divide(rose[0], said, out=np.full(len(said), np.nan), where=said > 0),
        ahead=ahead,
    )


def steady(prepared: Prepared, x: Array, *, seed: int) -> NDArray[np.bool_]:
    """Which samples get the same answer five times, up to rounding, `(n,)`; for 5 forwards a row.

    More than the two answers of `inspect`: noise that comes and goes shows on some rows and stays away on their
    neighbours. Raises `BudgetExhausted`.
    """
    one = replace(prepared, draws=1, random=True, seed=seed)
    first, *others = (_answers(one, x) for _ in range(5))
    size = np.abs(first).max(axis=1) * _SAME
    same: NDArray[np.bool_] = np.all([_alike(first, other, size) for other in others], axis=0)
    return same


def _slopes(prepared: Prepared, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Logits `(n, k)` and the gradients of margin and cross-entropy as they are: `Prepared` makes 0 of NaN."""
    import torch

    prepared.meter.charge(forwards=len(x), backwards=2 * len(x))
    found: list[list[Tensor]] = [[], [], []]
    true = torch.tensor(np.asarray(y, dtype=np.int64), device=prepared.device)[:, None]
    for part, own in zip(prepared.tensor(x).split(prepared.part), true.split(prepared.part), strict=True):
        leaf = part.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = prepared.module(leaf)
            other = logits.scatter(1, own, float("-inf")).amax(dim=1)
            losses = (other - logits.gather(1, own)[:, 0], -logits.log_softmax(dim=1).gather(1, own)[:, 0])
        found[0].append(logits.detach())
        for pile, loss in zip(found[1:], losses, strict=True):
            pile.append(slope_at(leaf, [loss.sum()], again=True))
    logits_, margin, ce = (torch.cat(pile).double().cpu().numpy() for pile in found)
    return logits_, margin, ce


def _answers(prepared: Prepared, x: Array) -> NDArray[np.float64]:
    return np.asarray(prepared.logits(prepared.tensor(x)).double().cpu().numpy())


def _sized(prepared: Prepared, slope: Array, room: Array, top: Array) -> tuple[Array, Array]:
    """Which gradients `(n, ...)` vanish and which explode, `(n,)`, by the change that they promise across the ball."""
    import torch

    unit = float(torch.finfo(prepared.dtype).eps)
    finite = np.isfinite(np.where(room > 0, slope, 0.0)).reshape(len(slope), -1).all(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        change = _rows(np.abs(np.where(room > 0, slope, 0.0)) * room).sum(axis=1)
        return finite & (change <= unit * top), ~finite | (change * unit >= top) & (change > 0)


def _moved(reach: Reach, way: Array, share: float, *, turn: bool = False) -> Array:
    """Points `share` of the way to the edges of the ball, `(n, ...)`; `turn` back where x is at that edge already."""
    x, low, high = (part.astype(np.float64) for part in (reach.x, reach.low, reach.high))
    if turn:
        way = np.where(high <= x, -1, np.where(low >= x, 1, way))
    return np.asarray(x + share * np.where(way > 0, high - x, np.where(way < 0, low - x, 0.0)))


def _behind(logits: Array, y: Array) -> NDArray[np.float64]:
    """How far the true class is behind the best other one, `(n,)`."""
    own = np.arange(len(y)), np.asarray(y, dtype=np.int64)
    others = np.array(logits)
    others[own] = -np.inf
    return np.asarray(others.max(axis=1) - logits[own])


def _alike(first: Array, second: Array, tolerance: Array) -> NDArray[np.bool_]:
    """Which rows `(n, k)` are the same up to a tolerance each `(n,)`; NaN is like NaN."""
    both = np.isnan(first) & np.isnan(second)
    with np.errstate(invalid="ignore"):
        return np.asarray((both | (np.abs(first - second) <= tolerance[:, None]) | (first == second)).all(axis=1))


def _rows(values: Array) -> Array:
    return values.reshape(len(values), -1)


def is_random(model: Model, data: Data) -> bool:
    """Whether the same samples get other answers the second time, by more than rounding."""
    facet = next((f for f in (Facet.LOGITS, Facet.SCORES) if f in model.offers), Facet.LABELS)
    first, second = (np.asarray(model.ask(facet, data.x), dtype=np.float64) for _ in range(2))
    size = float(np.abs(first[np.isfinite(first)]).max(initial=0))  # one NaN must not hide the rest
    return not np.allclose(first, second, rtol=_SAME, atol=_SAME * size, equal_nan=True)


def guidance(model: Model, data: Data, steps: NDArray[np.float64]) -> float:
    """The share of samples that a step along the gradient's signs moves as far as the best quarter of others do.

    The others are `steps (r, n, ...)`; of few features there are so few signs that some go the gradient's own way. What
    a step does is measured on the model's own answers: how far the true class falls behind the best other one. Steps
    are equally long in every feature, and end at the schema's bounds; missing values stay.
    """
    schema = data.schema
    reach = reach_of(Norm.LINF, _STEP * spread_of(data.x, schema), data.x, schema)
    start = _lead(model, data.x, data.labels)
    ways = (_uphill(model, data), *steps)
    length = reach.eps * reach.scale
    fell = np.array([start - _lead(model, reach.settle(reach.x + length * way), data.labels) for way in ways])
    return float(np.mean(_beats(fell)))


def spread_of(x: Array, schema: Schema) -> float:
    """How far samples `(n, ...)` differ from each other, as a mean over features, in units of the schema's scale.

    A missing value says nothing, and a feature that is missing everywhere counts for none.
    """
    units = np.where(schema.scale > 0, schema.scale, 1.0)
    values = _rows(x.astype(np.float64) / units)
    known = values[:, ~np.isnan(values).all(axis=0)]
    return float(np.nanstd(known, axis=0).mean()) if known.size else 0.0


def _beats(rose: Array) -> NDArray[np.bool_]:
    """Where the first of some steps `(1 + r, n)` gets on, and as far as the best quarter of the others do, `(n,)`."""
    return np.asarray((rose[0] > 0) & (rose[0] >= np.quantile(rose[1:], 0.75, axis=0)))


def _uphill(model: Model, data: Data) -> Array:
    """The signs of the gradient of (best wrong logit - true logit), `(n, ...)`."""
    import torch

    ready = prepare(model, data.x)
    true = torch.tensor(data.labels, dtype=torch.int64, device=ready.device)[:, None]

    def behind(logits: Tensor) -> Tensor:
        other = logits.scatter(1, true, float("-inf")).amax(dim=1)
        return other - logits.gather(1, true)[:, 0]

    _, _, slope = ready.gradient(ready.tensor(data.x), behind)
    return np.asarray(slope.sign().double().cpu().numpy())


def _lead(model: Model, x: Array, y: Array) -> NDArray[np.float64]:
    """How far the true class is ahead of the best other one in the model's own answers, `(n,)`."""
    facet = Facet.LOGITS if model.logits is not None else Facet.SCORES if model.scores is not None else Facet.LABELS
    answer = np.array(model.ask(facet, x), dtype=np.float64)
    if facet is Facet.LABELS:
        return np.asarray(answer == y, dtype=np.float64)
    own = np.arange(len(y)), np.asarray(y, dtype=np.int64)
    true = answer[own].copy()
    answer[own] = -np.inf
    return np.asarray(true - answer.max(axis=1))
