"""Regression: how wrong a predicted number becomes when its input is moved within eps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity, Scalar
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.metering import observed
from casemate.core.model import Task
from casemate.core.norms import Norm, distance
from casemate.core.plugin import probe
from casemate.core.rng import normals, signs, uniforms
from casemate.core.stats import Interval, bootstrap_interval
from casemate.engine.ground import Ground, each, ground_of, size, spread, tiny
from casemate.engine.harness import how_far, permitted
from casemate.engine.prepared import Prepared, prepare
from casemate.engine.reach import Reach, reach_of
from casemate.errors import BudgetExhausted, ConfigError
from casemate.evasion import THREAT
from casemate.evasion.search import share
from casemate.evasion.standard import usual_eps

__all__ = ["RegressionOptions", "measure_worst_error"]

Array = NDArray[Any]

_SHARD = 64  # samples a job, as in `standard`
_WAYS = (1, -1)  # up and down
_SHARES = (0.5, 0.9)
_LEVEL = 0.95
_SAME = 1e-6  # relative: what a replay may differ by, since other rows shared the batch

_ERROR = Metric("evasion.worst_error", Quantity.NOTE, Direction.TOO_LOW, unit="of the target")
_CHANGE = Metric("evasion.worst_change", Quantity.NOTE, Direction.TOO_LOW, unit="of the target")
_CLEAN = Metric("evasion.clean_error", Quantity.NOTE, Direction.EXACT, unit="of the target")
_COST = Metric("evasion.regression_propagations", Quantity.NOTE, Direction.EXACT, unit="samples")


@dataclass(frozen=True, slots=True)
class RegressionOptions:
    """`norm` (one or several), `eps` (None: by the kind of data), `samples` of the test rows; and how hard to try.

    `steps` of gradient ascent, up and down, from two starts; `queries` of a search by values alone, up and down.
    """

    norm: str | tuple[str, ...] = "linf"
    eps: float | tuple[float, ...] | None = None
    samples: int = 500
    steps: int = 20
    queries: int = 200


def _replayed(case: Case, arrays: Mapping[str, Stored], lab: Lab) -> Iterator[Evidence]:
    """The same evidence from kept witnesses, which the model answers again."""
    for name in sorted(arrays):
        kept, model = dict(arrays[name]), case.the_model()
        for side in ("high", "low"):
            now = np.array(kept[side], dtype=np.float64)
            for column in range(now.shape[1]):
                told = now[:, column].copy()
                now[:, column] = model.labels(np.asarray(kept[f"{side}_x"])[:, column])
                same = np.isclose(now[:, column], told, rtol=_SAME, atol=_SAME * float(np.abs(told).max(initial=0)))
                now[same, column] = told[same]
            kept[side] = now
        yield from _evidence(kept, case, lab, files=())


@probe(
    threat=THREAT,
    source="projected gradient ascent: Madry et al., ICLR 2018, section 2.1, on the prediction instead of a loss; the "
    "search by values is Casemate's, its schedule of shares that of Andriushchenko et al., ECCV 2020; intervals: BCa "
    "bootstrap, order statistics",
    needs={Facet.LABELS, Facet.TEST},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.EXPENSIVE,
    metrics=(_ERROR, _CHANGE, _CLEAN, _COST),
    options=RegressionOptions,
    profiles={
        Profile.QUICK: {"samples": 128, "queries": 60},
        Profile.FULL: {"samples": 2000, "steps": 100, "queries": 2000},
    },
    replay=_replayed,
)
def measure_worst_error(case: Case, lab: Lab) -> Iterator[Evidence]:
    """The error of a regression under attack: |f(x') - y| and |f(x') - f(x)| in the worst case within eps.

    For each test row and eps the largest and smallest f(x') found with ||(x' - x) / scale|| <= eps inside the bounds;
    the worse of both is its error. Mean, median and 0.9 quantile over the rows, beside the clean |f(x) - y|. Errs too
    low: a stronger attack finds more. Of a linear model linf is exact up to rounding, where no feature is whole or in a
    relation. The attacker knows the weights where the model gives gradients, and else asks for values; categories stay.
    Rows whose own answer or target is no number are left out. There is no severity: whether an error matters is for a
    gate in units of the target.

    Raises `ConfigError` for options that do not fit, `BudgetExhausted`.
    """
    if case.the_model().task is not Task.REGRESSION:
        return
    data, options = case.data("test"), lab.options
    if options.samples < 1 or options.steps < 1:
        raise ConfigError("expected samples >= 1 and steps >= 1 for evasion/regression, got less: ask for at least one")
    rows = np.arange(len(data))
    if len(data) > options.samples:
        rows = np.sort(lab.rows_rng("rows").permutation(len(data))[: options.samples])
    unfinished = 0
    for norm in _norms(options):
        eps = _radii(options, norm, case)
        shards = [rows[top : top + _SHARD] for top in range(0, len(rows), _SHARD)]
        parts = lab.map(_shard, case, [{"rows": shard, "norm": str(norm), "eps": eps} for shard in shards])
        names = [name for name, value in parts[0].items() if np.ndim(value)]
        found: dict[str, Any] = {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in names}
        found |= {"norm": str(norm), "eps": eps, "spent": sum(int(part["spent"]) for part in parts)}
        digest = lab.keep(f"regression-{norm}", found)
        yield from _evidence(found, case, lab, files=(digest,) if digest else ())
        unfinished += int(found["unfinished"].any(axis=1).sum())
    if unfinished:
        raise BudgetExhausted(
            f"expected a budget for {len(rows)} samples, got one that left {unfinished} not fully attacked: raise the "
            "budget, or ask for fewer samples, steps or queries"
        )


def _norms(options: RegressionOptions) -> list[Norm]:
    norms = [Norm(name) for name in ([options.norm] if isinstance(options.norm, str) else options.norm)]
    if not norms or Norm.L0 in norms:
        raise ConfigError(f"expected norms among linf, l2, l1 for evasion/regression, got {options.norm}: choose these")
    return list(dict.fromkeys(norms))


def _radii(options: RegressionOptions, norm: Norm, case: Case) -> Array:
    given = usual_eps(norm, case.data("test").schema) if options.eps is None else np.atleast_1d(options.eps).tolist()
    radii = np.unique(np.array(given, dtype=np.float64))
    if not len(radii) or not np.all((radii > 0) & (radii < np.inf)):
        raise ConfigError(f"expected positive numbers as eps of evasion/regression, got {options.eps}: mend eps")
    return radii


@dataclass(slots=True)
class _Best:
    """The largest (`way` 1) or smallest (-1) answer found to each sample so far, and where."""

    way: int
    value: Array
    x: Array

    def join(self, value: Array, x: Array) -> None:
        with np.errstate(invalid="ignore"):
            better = np.isfinite(value) & (self.way * value > self.way * self.value)
        self.value = np.where(better, value, self.value)
        self.x = np.where(better.reshape(-1, *(1,) * (x.ndim - 1)), x, self.x)


def _shard(case: Case, item: Stored, lab: Lab) -> Stored:
    """All eps on some rows, the smallest first: what is found in a smaller ball is in every larger one."""
    data = case.data("test").take(item["rows"])
    judge = observed(case.the_model(), lab.meter)
    clean = np.asarray(judge.labels(data.x), dtype=np.float64)
    known = np.flatnonzero(np.isfinite(clean) & np.isfinite(np.asarray(data.labels, dtype=np.float64)))
    data, clean = data.take(known), clean[known]
    bests = {way: _Best(way, clean, data.x) for way in _WAYS}
    found: dict[str, list[Array]] = {name: [] for name in ("high", "low", "high_x", "low_x", "unfinished")}
    whole = True
    for eps in np.asarray(item["eps"]).tolist():
        reach = reach_of(Norm(item["norm"]), eps, data.x, data.schema)
        task = _Task(case, reach, data.sample_id, lab)
        try:
            for way in _WAYS if whole and len(known) else ():
                task.search(bests[way])
        except BudgetExhausted:
            whole = False
        for side, way in zip(("high", "low"), _WAYS, strict=True):
            found[side].append(bests[way].value)
            found[f"{side}_x"].append(bests[way].x)
        found["unfinished"].append(np.full(len(known), not whole))
    joined = {name: np.stack(pile, axis=1) for name, pile in found.items()}
    return {
        "sample_id": data.sample_id, "y": data.labels, "clean": clean, **joined,
        "spent": lab.meter.spent.propagations,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Task:
    """One search: the samples of a reach, and whom to ask."""

    case: Case
    reach: Reach
    ids: Array
    lab: Lab

    def search(self, best: _Best) -> None:
        """By gradients where there are any, then by values; `best` keeps what was found when the budget ends."""
        if self.case.the_model().module is not None:
            self._climb(best)
        self._ask(best)

    def _measure(self, best: _Best, points: Array, *, paid: bool) -> None:
        """Only what the user's model answers to a permitted point inside the ball counts."""
        model = self.case.the_model() if paid else observed(self.case.the_model(), self.lab.meter)
        value = np.asarray(model.labels(points), dtype=np.float64)
        schema = self.case.schema
        inside = how_far(self.reach.norm, self.reach.x, points, schema) <= self.reach.eps * (1 + 1e-6)
        lawful = inside if schema is None else inside & permitted(schema, self.reach.x, points)
        best.join(np.where(lawful, value, np.nan), points)

    def _climb(self, best: _Best) -> None:
        prepared = prepare(self.case.the_model(), self.reach.x, self.lab.meter, seed=self.lab.seed_for("draws"))
        ground = ground_of(prepared, self.reach)
        for start in (best.x, self._corner(best.way)):
            points = self.reach.settle(_ascended(prepared, ground, start, way=best.way, steps=self.lab.options.steps))
            self._measure(best, points, paid=False)

    def _corner(self, way: int) -> Array:
        up = signs(self.lab.seed, ("regression corner", way), self.ids, self.reach.x.shape[1:]) > 0
        return self.reach.settle(np.where(up, self.reach.high, self.reach.low))

    def _ask(self, best: _Best) -> None:
        queries = self.lab.options.queries
        free = int(np.prod(self.reach.x.shape[1:]))
        if 4 * free <= queries:
            self._measure(best, self._along_slopes(best), paid=True)
            queries -= 2 * free + 1
        for query in range(1, queries + 1):
            self._measure(best, self._proposal(query, best), paid=True)

    def _along_slopes(self, best: _Best) -> Array:
        """The point that is best for a linear function with the slopes between both ends of each feature's range."""
        reach = self.reach
        slope = np.zeros(reach.x.shape)
        for place in np.ndindex(*reach.x.shape[1:]):
            ends = []
            for edge in (reach.high, reach.low):
                point = np.array(reach.x)
                point[(slice(None), *place)] = edge[(slice(None), *place)]
                point = reach.settle(point)
                ends.append(np.asarray(self.case.the_model().labels(point), dtype=np.float64))
                best.join(ends[-1], point)
            slope[(slice(None), *place)] = np.nan_to_num(ends[0] - ends[1])
        gap = (reach.high.astype(np.float64) - reach.low) / np.where(reach.scale > 0, reach.scale, 1.0)
        slope = best.way * np.where(gap > 0, slope / np.where(gap > 0, gap, 1.0), 0.0)
        if reach.norm is Norm.LINF:
            return reach.settle(np.where(slope > 0, reach.high, np.where(slope < 0, reach.low, reach.x)))
        length = np.sqrt((slope**2).reshape(len(slope), -1).sum(1)).reshape(-1, *(1,) * (slope.ndim - 1))
        return reach.settle(reach.x + reach.eps * reach.scale * slope / np.where(length > 0, length, 1.0))

    def _proposal(self, query: int, best: _Best) -> Array:
        """A block of features anew: at an edge, inside or back; fewer of them as the search goes on."""
        reach, seed, name = self.reach, self.lab.seed, ("regression", best.way, query)
        shape = reach.x.shape[1:]
        part = share(query, max(self.lab.options.queries, 1), 0.8)
        chosen = uniforms(seed, (*name, "block"), self.ids, shape)
        block = chosen <= np.maximum(chosen.reshape(len(chosen), -1).min(axis=1).reshape(-1, *(1,) * len(shape)), part)
        way = uniforms(seed, (*name, "way"), self.ids).reshape(-1, *(1,) * len(shape))
        if reach.norm is Norm.LINF:
            place = uniforms(seed, (*name, "place"), self.ids, shape)
            edge = np.where(place < 0.5, reach.low, reach.high)
            within = reach.low + place * (reach.high - reach.low)
            new = np.where(way < 0.5, edge, np.where(way < 0.75, within, reach.x))
            return reach.settle(np.where(block, new, best.x))
        unit = np.where(reach.scale > 0, reach.scale, 1.0)
        draw = normals(seed, (*name, "direction"), self.ids, shape) * reach.eps
        step = np.where(block, np.where(way < 0.75, draw, 0.0), np.nan_to_num((best.x - reach.x) / unit))
        far = distance(reach.norm, np.zeros_like(step), step, np.ones_like(step[0]))
        onto = np.where(far > 0, reach.eps / np.where(far > 0, far, 1.0), 0.0).reshape(-1, *(1,) * len(shape))
        return reach.settle(reach.x + onto * step * reach.scale)


def _ascended(prepared: Prepared, ground: Ground, start: Array, *, way: int, steps: int) -> Array:
    """The best iterate `(m, ...)` of `steps` steps up `way * f`, whose length falls from 2 eps as a cosine."""
    import torch

    at = best = ground.box(prepared.tensor(start))
    top = torch.full((len(at),), -torch.inf, dtype=at.dtype, device=at.device)
    eps = ground.reach.eps
    for step in range(steps):
        points = ground.snapped(at)
        _, value, slope = prepared.gradient(points, lambda z: way * z[:, 0])
        better = value > top
        best, top = each(better, points, best), torch.where(better, value, top)
        slope = slope * ground.scale
        unit = slope.sign() if ground.norm is Norm.LINF else slope / spread(size(Norm.L2, slope), slope).clamp(tiny(at))
        eta = eps * (1 + np.cos(np.pi * step / steps))
        at = ground.inside(at + eta * ground.scale * unit, eps)
    value = way * prepared.logits(ground.snapped(at))[:, 0]
    return np.asarray(each(value > top, ground.snapped(at), best).cpu().numpy())


def _evidence(kept: Mapping[str, Any], case: Case, lab: Lab, *, files: tuple[str, ...]) -> Iterator[Evidence]:
    y, clean = (np.asarray(kept[name], dtype=np.float64) for name in ("y", "clean"))
    norm, n = str(kept["norm"]), len(y)
    method = f"{n:,} of {len(case.data('test')):,} test rows"
    if not n:
        return
    yield from _summaries(_CLEAN, np.abs(clean - y), {"norm": norm}, lab, method=method, files=files)
    for column, eps in enumerate(np.asarray(kept["eps"]).tolist()):
        sides = [np.asarray(kept[side], dtype=np.float64)[:, column] for side in ("high", "low")]
        at: dict[str, Scalar] = {"norm": norm, "eps": eps}
        for metric, other in ((_ERROR, y), (_CHANGE, clean)):
            worst = np.max([np.abs(side - other) for side in sides], axis=0)
            yield from _summaries(metric, worst, at, lab, method=method, files=files)
    cost: dict[str, Scalar] = {"norm": norm}
    yield _COST.measured(int(kept["spent"]), method="counted", n=n, about=norm, at=cost, files=files)


def _summaries(
    metric: Metric, values: Array, at: Mapping[str, Scalar], lab: Lab, *, method: str, files: tuple[str, ...]
) -> Iterator[Evidence]:
    """Mean and quantiles; a quantile only where there are rows enough for an interval."""
    about = str(at["norm"])
    mean: Interval | float = float(values.mean())
    if len(values) > 1:
        mean = bootstrap_interval(values, rng=lab.rng(f"{metric.name} {sorted(at.items())}"))
    spot = {**at, "statistic": "mean"}
    yield metric.measured(mean, method=method, n=len(values), about=about, at=spot, files=files)
    for part in _SHARES:
        bounds = _quantile(values, part)
        if bounds is not None:
            spot = {**at, "statistic": f"quantile {part}"}
            yield metric.measured(bounds, method=method, about=about, at=spot, files=files)


def _quantile(values: Array, part: float) -> Interval | None:
    """A quantile of at least 0 between two order statistics, which hold it at 0.95 whatever the distribution.

    How many of n values lie below it is binomial (n, part); errs wide. None where no upper one is far enough out.
    """
    n, ordered, tail = len(values), np.sort(values), (1 - _LEVEL) / 2
    count = scipy.stats.binom(n, part)
    low, high = int(count.ppf(tail)), int(count.ppf(1 - tail)) + 1
    if high > n:
        return None
    value = float(ordered[max(int(np.ceil(n * part)) - 1, 0)])
    return Interval(value, float(ordered[low - 1]) if low else 0.0, float(ordered[high - 1]), n, _LEVEL, "order")
