"""Regression: how wrong a predicted number becomes when its input is moved within eps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity, Scalar
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.metering import observed
from casemate.core.model import Task
from casemate.core.norms import Norm
from casemate.core.options import Count, Positive
from casemate.core.plugin import probe
from casemate.core.stats import Interval, bootstrap_interval, clopper_pearson
from casemate.engine.harness import answers_at_random, how_far, permitted
from casemate.engine.reach import reach_of
from casemate.errors import BudgetExhausted, ConfigError, Unavailable
from casemate.evasion import THREAT
from casemate.evasion._extremes import Best, Extremes
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
_NO_NUMBER = Metric("evasion.no_number", Quantity.NOTE, Direction.TOO_LOW)
_COST = Metric("evasion.regression_propagations", Quantity.NOTE, Direction.EXACT, unit="samples")


_Norm = Literal[Norm.LINF, Norm.L2, Norm.L1]


@dataclass(frozen=True, slots=True)
class RegressionOptions:
    """`norm` (one or several), `eps` (None: by the kind of data), `samples` of the test rows; and how hard to try.

    `steps` of gradient ascent, up and down, from two starts; `queries` of a search by values alone, up and down.
    """

    norm: _Norm | tuple[_Norm, ...] = Norm.LINF
    eps: Positive | tuple[Positive, ...] | None = None
    samples: Count = 500
    steps: Count = 20
    queries: Count = 200


def _replayed(case: Case, arrays: Mapping[str, Stored], lab: Lab) -> Iterator[Evidence]:
    """The same evidence from kept witnesses: only their places are believed, all else comes from data and model."""
    for name in sorted(arrays):
        yield from _evidence(_measured_again(case, arrays[name]), case, lab, files=())


@probe(
    threat=THREAT,
    source="projected gradient ascent: Madry et al., ICLR 2018, section 2.1, on the prediction instead of a loss; the "
    "search by values is Casemate's, its schedule of shares that of Andriushchenko et al., ECCV 2020; intervals: BCa "
    "bootstrap, order statistics",
    needs={Facet.LABELS, Facet.TEST},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.EXPENSIVE,
    metrics=(_ERROR, _CHANGE, _CLEAN, _NO_NUMBER, _COST),
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
    low: a stronger attack finds more. Of a linear model linf is exact up to rounding where no feature is whole or in a
    relation, if it has gradients or `queries` are more than twice its changeable features. The attacker knows the
    weights where the model gives gradients, and else asks for values; categories stay. An answer that is infinite or
    NaN is worse than any number, and no mean can hold it: the share of rows that have one within eps (eps 0: as they
    are) is a measurement of its own. Such rows count elsewhere with the worst number found, and not at all where their
    own answer is none; rows without a target are left out. There is no severity: whether an error matters is for a gate
    in units of the target.

    Raises `ConfigError` for options that do not fit, `Unavailable` for a model that answers at random (the largest of
    many draws is luck, not an attack) or without any target, `BudgetExhausted`.
    """
    if case.the_model().task is not Task.REGRESSION:
        return
    data, options = case.data("test"), lab.options
    if options.samples < 1 or options.steps < 1:
        raise ConfigError("expected samples >= 1 and steps >= 1 for evasion/regression, got less: ask for at least one")
    if answers_at_random(case):
        raise Unavailable(
            "expected a regressor that answers a sample the same each time, got one that answers at random: audit it "
            "with its seed fixed, or the mean of its answers"
        )
    rows = np.flatnonzero(np.isfinite(np.asarray(data.labels, dtype=np.float64)))
    if not len(rows):
        raise Unavailable("expected test rows whose target is a number, got none: mend the targets")
    if len(rows) > options.samples:
        rows = rows[np.sort(lab.rows_rng("rows").permutation(len(rows))[: options.samples])]
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


def _shard(case: Case, item: Stored, lab: Lab) -> Stored:
    """All eps on some rows, the smallest first: what is found in a smaller ball is in every larger one."""
    data = case.data("test").take(item["rows"])
    clean = np.asarray(observed(case.the_model(), lab.meter).labels(data.x), dtype=np.float64)
    known = np.isfinite(clean)
    x, ids, clean = data.x[known], data.sample_id[known], clean[known]
    odd = [(data.sample_id[~known], 0.0, data.x[~known])]
    bests = {way: Best(way, clean, x) for way in _WAYS}
    found: dict[str, list[Array]] = {name: [] for name in ("high", "low", "high_x", "low_x", "unfinished")}
    whole = True
    for eps in np.asarray(item["eps"]).tolist():
        task = Extremes(case, reach_of(Norm(item["norm"]), eps, x, data.schema), ids, lab)
        try:
            for way in _WAYS if whole and len(x) else ():
                task.search(bests[way])
        except BudgetExhausted:
            whole = False
        for side, way in zip(("high", "low"), _WAYS, strict=True):
            best = bests[way]
            found[side].append(best.value)
            found[f"{side}_x"].append(best.x)
            odd.append((ids[best.odd], eps, best.odd_x[best.odd]))
        found["unfinished"].append(np.full(len(x), not whole))
    joined = {name: np.stack(pile, axis=1) for name, pile in found.items()}
    return {
        "sample_id": ids, "y": data.labels[known], "clean": clean, **joined, **_first(odd),
        "spent": lab.meter.spent.propagations,
    }  # fmt: skip


def _first(odd: Sequence[tuple[Array, Any, Array]]) -> dict[str, Array]:
    """Of each sample with an answer that is no number the smallest eps at which it was met, and where, `(k, ...)`."""
    ids, points = (np.concatenate([item[place] for item in odd]) for place in (0, 2))
    eps = np.concatenate([np.full(len(item[0]), item[1], dtype=np.float64) for item in odd])
    first = np.unique(ids, return_index=True)[1]
    return {"odd_id": ids[first], "odd_eps": eps[first], "odd_x": points[first]}


def _measured_again(case: Case, kept: Stored) -> dict[str, Any]:
    """What the data and the model say of the kept points today.

    Instead of a witness outside its ball or the schema, or whose answer is no number, the sample itself counts.
    """
    data, norm, eps = case.data("test"), Norm(str(kept["norm"])), np.asarray(kept["eps"]).tolist()
    rows = data.places(np.asarray(kept["sample_id"]))
    x = data.x[rows]
    clean = _answers(case, x, kept["clean"])
    again: dict[str, Any] = {"sample_id": data.sample_id[rows], "y": data.labels[rows], "clean": clean}
    for side, extreme in (("high", np.fmax), ("low", np.fmin)):
        told, witness = np.array(kept[side], dtype=np.float64), np.asarray(kept[f"{side}_x"]).astype(x.dtype)
        for column, radius in enumerate(eps):
            now = _answers(case, _lawful(case, norm, x, witness[:, column], radius), told[:, column])
            told[:, column] = extreme(np.where(np.isfinite(now), now, clean), clean)
        again[side] = told
    known = np.isfinite(clean)
    odd, radii = data.places(np.asarray(kept["odd_id"])), np.asarray(kept["odd_eps"])
    points = _lawful(case, norm, data.x[odd], np.asarray(kept["odd_x"]).astype(x.dtype), radii)
    still = ~np.isfinite(_answers(case, points, np.zeros(len(odd))))
    lost = data.sample_id[rows[~known]], 0.0, x[~known]
    met = data.sample_id[odd[still]], radii[still], points[still]
    return {**kept, **{name: value[known] for name, value in again.items()}, **_first([lost, met])}


def _answers(case: Case, points: Array, told: Any) -> Array:
    """The answers of today, `(n,)`; what was told where the two differ by rounding alone."""
    if not len(points):
        return np.zeros(0)
    now, told = np.asarray(case.the_model().labels(points), dtype=np.float64), np.asarray(told, dtype=np.float64)
    size = float(np.abs(now[np.isfinite(now)]).max(initial=0))  # of these, not of what is told
    return np.where(np.isclose(now, told, rtol=_SAME, atol=_SAME * size), told, now)


def _lawful(case: Case, norm: Norm, x: Array, points: Array, eps: Any) -> Array:
    """The points `(n, ...)`; the sample itself for one further than `eps`, one or `(n,)`, or that breaks the schema."""
    schema = case.data("test").schema
    near = how_far(norm, x, points, schema) <= np.asarray(eps) * (1 + _SAME)
    good = near & permitted(schema, x, points)
    return np.where(good.reshape(-1, *(1,) * (x.ndim - 1)), points, x)


def _evidence(kept: Mapping[str, Any], case: Case, lab: Lab, *, files: tuple[str, ...]) -> Iterator[Evidence]:
    y, clean = (np.asarray(kept[name], dtype=np.float64) for name in ("y", "clean"))
    odd, norm, n = np.asarray(kept["odd_eps"], dtype=np.float64), str(kept["norm"]), len(y)
    silent, every = int((odd == 0).sum()), _told_rows(case)
    method = f"{n:,} of {every}" + (f"; {silent:,} more have no number as their own answer" if silent else "")
    if n:
        yield from _summaries(_CLEAN, np.abs(clean - y), {"norm": norm}, lab, method=method, files=files)
    for column, eps in enumerate(np.asarray(kept["eps"]).tolist()):
        at: dict[str, Scalar] = {"norm": norm, "eps": eps}
        count = int((odd <= eps).sum())
        rate = clopper_pearson(count, n + silent)
        yield _NO_NUMBER.measured(rate, method=f"{n + silent:,} of {every}", about=norm, at=at, files=files)
        if not n:
            continue
        told = method
        if count > silent:
            told += f"; of {count - silent:,} an answer is no number, and the worst that is one counts"
        sides = [np.asarray(kept[side], dtype=np.float64)[:, column] for side in ("high", "low")]
        for metric, other in ((_ERROR, y), (_CHANGE, clean)):
            worst = np.max([np.abs(side - other) for side in sides], axis=0)
            yield from _summaries(metric, worst, at, lab, method=told, files=files)
    cost: dict[str, Scalar] = {"norm": norm}
    yield _COST.measured(int(kept["spent"]), method="counted", n=n, about=norm, at=cost, files=files)


def _told_rows(case: Case) -> str:
    target = np.asarray(case.data("test").labels, dtype=np.float64)
    lost = int((~np.isfinite(target)).sum())
    return f"{len(target):,} test rows" + (f" ({lost:,} without a target)" if lost else "")


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
