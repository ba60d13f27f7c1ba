"""Masking: whether gradients tell the truth about this model, and so whether its robust accuracy can be believed."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Goal, Ledger
from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.model import Task
from casemate.core.norms import Norm
from casemate.core.options import Count, Natural, Positive
from casemate.core.plugin import Plugin, probe
from casemate.core.stats import clopper_pearson
from casemate.engine.chance import drawn
from casemate.engine.harness import batch_of, how_far, permitted, pursue, wrong
from casemate.engine.masking import Look, inspect, steady
from casemate.engine.prepared import prepare
from casemate.engine.reach import reach_of
from casemate.errors import BudgetExhausted, ConfigError
from casemate.evasion import THREAT
from casemate.evasion.apgd import ApgdOptions, apgd_attack
from casemate.evasion.blocks import BlocksOptions, blocks_attack
from casemate.evasion.square import SquareOptions, square_attack
from casemate.evasion.standard import usual_eps

__all__ = ["MaskingOptions", "find_masking"]

Array = NDArray[Any]

_ASKED = 4  # times the samples wanted: most rows that are asked to find that many rightly answered ones
_HALVINGS = 6  # of the way to a row of another class
_LEFT = 0.1  # of the rows must stand, or attacks have nothing to differ on: then a smaller eps is tried


def _sign(name: str, says: str, mend: str, number: str = "a robust accuracy from plain gradients") -> Metric:
    # Rows on which attacks were led astray are what an attacker gains who is not: judged like every rate of success.
    doubt = f"{number} is not to be trusted: {says}"
    return Metric(f"evasion.{name}", Quantity.SUCCESS_RATE, Direction.TOO_LOW, says=doubt, mend=mend)


RANDOM = _sign(
    "random_answers",
    "the same sample gets other answers each time, so a gradient shows one draw of many",
    "attack the average answer: gradients averaged over many draws (EoT). Randomness protects only with a certificate "
    "that averages it",
)
VANISHING = _sign(
    "vanishing_gradients",
    "gradients are zero, or below rounding, so attacks that follow them stand still",
    "attack through what flattens the model with a straight-through gradient (BPDA), and by scores; take a last "
    "softmax off the module",
)
EXPLODING = _sign(
    "exploding_gradients",
    "gradients are not finite, or too large to describe any step, so attacks that follow them jump about",
    "attack through the long or recurrent part with an approximate gradient (BPDA), by scores, and by transfer",
)
STEPPED = _sign(
    "stepped_answers",
    "a nudge of the input changes no bit of the answer (something rounds or thresholds it), and gradients do not help",
    "give the rounding a straight-through gradient (BPDA), or attack by scores with steps larger than the rounding's",
)
MISLED = _sign(
    "misleading_gradients",
    "a step along the gradient does no more than random steps do",
    "replace the part without a true gradient by a smooth one in the backward pass (BPDA), attack by scores, and by "
    "transfer from a model like it",
)
SATURATED = _sign(
    "saturated_loss",
    "logits are so large, or of such a shape, that an attack on another loss breaks samples which that one does not",
    "attack the margin or DLR (evasion/standard does), or divide the logits before the loss",
    "a robust accuracy from cross-entropy",
)
ONE_STEP = _sign(
    "one_step_beats_many",
    "one step along the gradient breaks samples that many small steps do not: iterations get lost",
    "use more steps and restarts, smooth the gradient (averages over nearby points), attack by scores",
)
RESTARTS = _sign(
    "restarts_matter",
    "attacks from other starting points break samples that the first did not, so more starts would break more",
    "raise `restarts` and `steps` of evasion/standard until the number stands still; attack by scores",
)
SEARCH = _sign(
    "search_beats_gradients",
    "a short search by scores breaks samples that gradients do not",
    "raise `queries` of evasion/standard, attack through the defence (BPDA), and by transfer from a model without it",
)
FAR = _sign(
    "known_answers_missed",
    "gradients find no wrong answer even in balls that hold a known one",
    "attack by scores and labels, whose searches need no gradient, and through the defence (BPDA)",
)
_ZERO_LOSS = Metric("evasion.flat_cross_entropy", Quantity.NOTE, Direction.EXACT)
_KEPT = Metric("evasion.first_order_kept", Quantity.NOTE, Direction.EXACT, unit="ratio")

_SIGNS = (RANDOM, VANISHING, EXPLODING, STEPPED, MISLED, SATURATED, ONE_STEP, RESTARTS, SEARCH, FAR)


@dataclass(frozen=True, slots=True)
class MaskingOptions:
    """`eps` in Linf (None: the largest usual one at which rows stand), `samples` of the rows that are answered rightly.

    `steps` go to gradient attacks, half of them to each of the `restarts`, and `queries` to the search by scores.
    """

    eps: Positive | None = None
    samples: Count = 128
    steps: Count = 20
    restarts: Natural = 2
    queries: Count = 100


def _replayed(case: Case, arrays: Mapping[str, Stored], lab: Lab) -> Iterator[Evidence]:
    """The same shares from the kept rows; where a sample was broken its witness is judged again."""
    del lab
    data = case.data("test")
    for sign in _SIGNS:
        kept = arrays.get(sign.name.partition(".")[2])
        if kept is None:
            continue
        shown = np.array(kept["shown"])
        if "witness" in kept:
            rows = data.places(np.asarray(kept["sample_id"])[shown])
            points, true = np.asarray(kept["witness"]).astype(data.x.dtype), data.labels[rows]
            holds = wrong(case.the_model(), points, true) & permitted(data.schema, data.x[rows], points)
            holds &= how_far(Norm.LINF, data.x[rows], points, data.schema) <= float(kept["eps"]) * (1 + 1e-6)
            shown[shown] = holds
        yield _share(sign, shown, float(kept["eps"]), ())


@probe(
    threat=THREAT,
    source="signs: Athalye, Carlini and Wagner, Obfuscated gradients, ICML 2018, section 3.1; Carlini et al., On "
    "evaluating adversarial robustness, arXiv:1902.06705v1; measures: Casemate's; intervals: Clopper-Pearson",
    needs={Facet.GRADIENTS, Facet.LABELS, Facet.TEST},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.MODERATE,
    metrics=(*_SIGNS, _ZERO_LOSS, _KEPT),
    options=MaskingOptions,
    profiles={
        Profile.QUICK: {"steps": 10, "restarts": 1, "queries": 50},
        Profile.FULL: {"samples": 256, "steps": 50, "restarts": 4, "queries": 500},
    },
    requires=("torch",),
    replay=_replayed,
)
def find_masking(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Whether attacks that follow gradients get lost on this model: then its robust accuracy says little.

    Each sign is a share of test rows that the model answers rightly, with a Clopper-Pearson interval. Five are read off
    one gradient and a few steps at each row (see `casemate.engine.masking`). Five are rows on which attacks in Linf
    contradict each other, but for rows with random answers: a margin breaks what a flat cross-entropy does not, one
    step what many do not, other starts what the first did not, scores what gradients do not; and gradients find nothing
    in a ball that holds a known wrong answer (on the way to a row of another class). The attacker knows the weights. A
    sign is judged at 5 % of the rows: where it stems from an attack, robust accuracy is that much too high. Errs low:
    masking may begin elsewhere than at the rows, and stronger searches break more. No sign proves robustness.

    Raises `ConfigError` for options that do not fit, `BudgetExhausted` when the budget ends.
    """
    options: MaskingOptions = lab.options
    _check(options)
    if case.the_model().task is Task.REGRESSION:
        return
    data = _rightly_answered(case, lab)
    if data is None:
        return
    radii = usual_eps(Norm.LINF, data.schema) if options.eps is None else [options.eps]
    trial = _Trial(case, batch_of(data.x, data.labels, data.sample_id), lab, max(radii))
    look = yield from trial.looked()
    if look.random.any():  # of noise, a lucky attack and a better one look alike
        trial, look = trial.steadied(look)
        if not len(trial.batch):
            return
    for eps in sorted(radii, reverse=True):
        trial = replace(trial, eps=eps)
        by_ce, by_margin = trial.climbed()
        if np.mean(by_ce.hit | by_margin.hit) <= 1 - _LEFT:
            break
    yield from trial.compared(look, by_ce, by_margin)
    yield from trial.sent_far()


def _check(options: MaskingOptions) -> None:
    if options.eps is not None and not 0 < options.eps < np.inf:
        raise ConfigError(f"expected a positive number as eps of evasion/masking, got {options.eps}: mend eps")
    least = min(options.samples, options.steps, options.queries)
    if least < 1 or options.restarts < 0:
        raise ConfigError(
            f"expected samples, steps and queries >= 1 and restarts >= 0 for evasion/masking, got {options}: mend them"
        )


def _rightly_answered(case: Case, lab: Lab) -> Data | None:
    """Test rows that the model answers rightly, drawn at random: as many as are wanted, or fewer; None of none."""
    data, wanted = case.data("test"), lab.options.samples
    rows = lab.rows_rng("rows").permutation(len(data))[: _ASKED * wanted]
    found: list[Array] = []
    for top in range(0, len(rows), wanted):
        part = rows[top : top + wanted]
        with drawn(lab.seed, "masking rows", top):
            found.append(part[np.asarray(case.the_model().labels(data.x[part])) == data.labels[part]])
        if sum(map(len, found)) >= wanted:
            break
    right = np.sort(np.concatenate(found)[:wanted])
    return data.take(right) if len(right) else None


@dataclass(frozen=True)
class _Trial:
    """Rows that are answered rightly, and what is tried on them."""

    case: Case
    batch: Batch
    lab: Lab
    eps: float

    def looked(self) -> Generator[Evidence, None, Look]:
        """The signs at the rows themselves; returns the look."""
        batch = self.batch
        prepared = prepare(self.case.the_model(), batch.x, self.lab.meter)
        reach = reach_of(Norm.LINF, self.eps, batch.x, self.case.schema)
        look = inspect(prepared, reach, batch.y, batch.sample_id, seed=self.lab.seed_for("look"))
        masks = {RANDOM: look.random, VANISHING: look.vanishing, EXPLODING: look.exploding}
        lost = look.vanishing | look.misled  # a rounding whose gradient is made up, and guides, is no sign
        for sign, shown in {**masks, STEPPED: look.stepped & lost, MISLED: look.misled}.items():
            yield self._told(sign, shown)
        yield _ZERO_LOSS.measured(float(look.saturated.mean()), method="rows without its gradient", n=len(batch))
        kept = look.kept[np.isfinite(look.kept)]
        if len(kept):
            method = "median of what a step along the gradient does over what the gradient says of it"
            yield _KEPT.measured(float(np.median(kept)), method=method, n=len(kept))
        return look

    def steadied(self, look: Look) -> tuple[_Trial, Look]:
        """The rows that get the same answer each time, and what was seen of them."""
        prepared = prepare(self.case.the_model(), self.batch.x, self.lab.meter)
        rows = ~look.random & steady(prepared, self.batch.x, seed=self.lab.seed_for("steady"))
        return replace(self, batch=self.batch.take(np.flatnonzero(rows))), look.take(rows)

    def climbed(self) -> tuple[_Broken, _Broken]:
        """What APGD breaks within eps with cross-entropy; and with DLR of the rows that then stand.

        Along gradients as they are: the remedies that it has of its own would hide what they are for.
        """
        plain = ApgdOptions(steps=self.lab.options.steps, losses=("ce",), straight=False)
        by_ce = self._broken(apgd_attack, plain, np.ones(len(self.batch), dtype=bool))
        return by_ce, self._broken(apgd_attack, replace(plain, losses=("dlr",)), ~by_ce.hit)

    def compared(self, look: Look, by_ce: _Broken, by_margin: _Broken) -> Iterator[Evidence]:
        """The signs that one attack breaks what another does not, within eps."""
        options: MaskingOptions = self.lab.options
        flat = look.saturated & by_margin.hit  # ordinary nets too differ by a few rows, and logistic regression by more
        yield self._told(SATURATED, flat, by_margin.points)
        standing = ~(by_ce.hit | by_margin.hit)
        at_once = self._one_step(look, standing)
        yield self._told(ONE_STEP, at_once.hit, at_once.points)
        if options.restarts:
            again = self._restarted(standing)
            yield self._told(RESTARTS, again.hit, again.points)
        if Facet.SCORES in self.case.offers:
            image = self.case.kind is DataKind.IMAGE
            asked = (SquareOptions if image else BlocksOptions)(queries=options.queries)
            found = self._broken(square_attack if image else blocks_attack, asked, standing)
            switched = self._categories()
            stayed = (found.points[:, switched] == self.batch.x[:, switched]).reshape(len(found.hit), -1).all(axis=1)
            yield self._told(SEARCH, found.hit & stayed, found.points)

    def sent_far(self) -> Iterator[Evidence]:
        """The rows that gradients do not break in a ball that holds a known wrong answer."""
        far = self._known()
        rows = np.isfinite(far)
        if not rows.any():
            return
        eps = float(far[rows].max())
        options = ApgdOptions(steps=max(3 * self.lab.options.steps // 4, 1), losses=("ce", "dlr"), straight=False)
        found = self._broken(apgd_attack, options, rows, eps=eps)
        yield self._told(FAR, ~found.hit[rows], rows=rows, eps=eps)

    def _known(self) -> NDArray[np.float64]:
        """How far from each row a wrong answer is known, `(n,)`: on the way to the nearest row of another class."""
        batch, schema = self.batch, self.case.schema
        far = np.full(len(batch), np.inf)
        goals = np.array(batch.x)
        for row in range(len(batch)):
            others = np.flatnonzero(batch.y != batch.y[row])
            if len(others):
                own = np.broadcast_to(batch.x[row], batch.x[others].shape)
                goals[row] = batch.x[others[np.argmin(how_far(Norm.LINF, own, batch.x[others], schema))]]
        goals[:, self._categories()] = batch.x[:, self._categories()]
        reach, everyone = reach_of(Norm.LINF, np.inf, batch.x, schema), np.arange(len(batch))
        near, share = np.zeros(len(batch)), np.ones(len(batch))
        start = batch.x.astype(np.float64)
        for halving in range(_HALVINGS + 1):
            middle = (near + share) / 2 if halving else share
            points = reach.settle(start + middle.reshape(-1, *(1,) * (start.ndim - 1)) * (goals - start))
            hit = self._wrong(points, everyone, f"masking way {halving}") & (
                how_far(Norm.LINF, batch.x, points, schema) > 0
            )
            far[hit] = how_far(Norm.LINF, batch.x[hit], points[hit], schema)
            near, share = np.where(hit, near, middle), np.where(hit, middle, share)
        return far

    def _categories(self) -> list[int]:
        """Columns of categories that can be switched: gradients do not try, so it is no sign that they do not find."""
        return [
            column for switch in (self.case.schema.switches if self.case.schema else ()) for column in switch.columns
        ]

    def _broken(
        self, plugin: Plugin, options: Any, rows: NDArray[np.bool_], *, eps: float | None = None, start: int = 0
    ) -> _Broken:
        """What an attack breaks of some rows, judged by the harness; another `start` gives it other random numbers."""
        ledger, picked = Ledger(Norm.LINF, self.batch.x), np.flatnonzero(rows)
        seed = self.lab.seed_for(f"start {start}") if start else self.lab.seed
        lab = replace(self.lab, plugin=plugin.id, options=options, seed=seed)
        goal = Goal(Norm.LINF, self.eps if eps is None else eps)
        part = self.batch.take(picked)
        with drawn(seed, "masking", plugin.id):  # a row that is steady itself may have random neighbours
            whole = not len(picked) or pursue(plugin, self.case, part, goal, lab, ledger=ledger, rows=picked)
        if not whole:
            raise BudgetExhausted(
                f"expected a budget for all attacks of evasion/masking on {len(self.batch)} samples, got one that "
                f"ended in {plugin.id}: raise the budget, or ask for fewer samples, steps or queries"
            )
        return _Broken(ledger.broken(goal.eps), ledger.witness)

    def _restarted(self, standing: NDArray[np.bool_]) -> _Broken:
        """What shorter runs from other starting points break of the rows that stand."""
        options: MaskingOptions = self.lab.options
        short = ApgdOptions(steps=max(options.steps // 2, 1), losses=("dlr",), straight=False)
        found = _Broken(np.zeros(len(self.batch), dtype=bool), np.array(self.batch.x))
        for start in range(1, options.restarts + 1):
            more = self._broken(apgd_attack, short, standing & ~found.hit, start=start)
            found.points[more.hit] = more.points[more.hit]
            found.hit[more.hit] = True
        return found

    def _one_step(self, look: Look, standing: NDArray[np.bool_]) -> _Broken:
        """Full steps along the signs of the gradient at the rows: to the edge of the ball."""
        hit, points = np.zeros(len(self.batch), dtype=bool), np.array(self.batch.x)
        rows = np.flatnonzero(standing)
        if len(rows):
            reach = reach_of(Norm.LINF, self.eps, self.batch.x[rows], self.case.schema)
            edge = np.where(look.ahead[rows] > 0, reach.high, np.where(look.ahead[rows] < 0, reach.low, reach.x))
            points[rows] = reach.settle(edge)
            hit[rows] = self._wrong(points[rows], rows, "masking step")
        return _Broken(hit, points)

    def _wrong(self, points: Array, rows: Array, name: str) -> NDArray[np.bool_]:
        """Which points get a wrong answer; a random model draws the same numbers whenever it is asked."""
        with drawn(self.lab.seed, name):
            return wrong(self.case.the_model(), points, self.batch.y[rows])

    def _told(
        self,
        sign: Metric,
        shown: NDArray[np.bool_],
        points: Array | None = None,
        *,
        rows: NDArray[np.bool_] | None = None,
        eps: float | None = None,
    ) -> Evidence:
        """One sign with its share, the rows and the witnesses kept beside it."""
        ids = self.batch.sample_id if rows is None else self.batch.sample_id[rows]
        at = self.eps if eps is None else eps
        kept: dict[str, Any] = {"sign": sign.name, "sample_id": ids, "shown": shown, "eps": at}
        if points is not None:
            kept["witness"] = points[shown]
        digest = self.lab.keep(sign.name.partition(".")[2], kept)
        return _share(sign, shown, at, (digest,) if digest else ())


@dataclass(frozen=True, slots=True)
class _Broken:
    """Which rows `(n,)` an attack broke, and with what, `(n, ...)`."""

    hit: NDArray[np.bool_]
    points: Array


def _share(sign: Metric, shown: NDArray[np.bool_], eps: float, files: tuple[str, ...]) -> Evidence:
    hits, n = int(shown.sum()), len(shown)
    method = f"{hits} of {n} rows that are answered rightly"
    return sign.measured(clopper_pearson(hits, n), method=method, at={"norm": "linf", "eps": eps}, files=files)
