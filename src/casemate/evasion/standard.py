"""The standard probe: certificates first, then every attack that applies, cheapest first, on what still stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal, Ledger
from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.evidence import Evidence
from casemate.core.facets import Cost, DataKind, Facet, PluginKind, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.metering import observed
from casemate.core.norms import Norm
from casemate.core.planner import applicable
from casemate.core.plugin import Plugin, probe
from casemate.core.schema import Schema
from casemate.engine.harness import batch_of, how_far, open_ledger, permitted, pursue, unanswered, wrong
from casemate.engine.reach import reach_of
from casemate.errors import BudgetExhausted, ConfigError, Unavailable
from casemate.evasion import THREAT
from casemate.evasion._broken import broken_samples
from casemate.evasion.curve import METRICS, evidence_of, standing
from casemate.evasion.search import margins

__all__ = ["StandardOptions", "measure_robustness", "usual_eps"]

Array = NDArray[Any]

_HALVINGS = 6  # of the way from a sample to its witness, when all attacks are done
_DOUBTED = 4  # certified samples of each job
_ALARM = 4  # samples of each job that a labels-only attack tries where there are scores
_LOST = 1  # samples of each job and eps that stood in a larger ball and are attacked once more
_SHARD = 64  # samples a job; from nothing but the data, so that no report depends on the number of workers


@dataclass(frozen=True, slots=True)
class StandardOptions:
    """`norm` (one or several) and `eps` (None: by the kind of data), `samples` of the test rows; and how hard to try.

    `steps`, `restarts`, `targets` go to gradient attacks, `queries` to score-based ones; None leaves an attack its own.
    With `distances` every sample's nearest wrong point is looked for, wherever it is.
    """

    norm: str | tuple[str, ...] | None = None
    eps: float | tuple[float, ...] | None = None
    samples: int = 500
    steps: int | None = 50
    restarts: int | None = 1
    targets: int | None = 3
    queries: int | None = 500
    distances: bool = False


def _replayed(case: Case, arrays: Mapping[str, Stored], lab: Lab) -> Iterator[Evidence]:
    """The same evidence from kept brackets; every witness is judged again on the model, and counts if it holds."""
    for name in sorted(arrays):
        files = _kept(name, arrays[name], lab)
        yield from evidence_of({**arrays[name], "upper": _judged_again(case, arrays[name])}, case, files)


def _paired(arrays: Mapping[str, Stored], evidence: Evidence) -> tuple[Array, Array] | None:
    """Which samples stand, as numbers, for a paired comparison of two runs; None for what is no share of samples."""
    if evidence.metric not in ("evasion.robust_accuracy", "evasion.robust_curve"):
        return None
    norm, eps = str(evidence.at["norm"]), float(evidence.at["eps"])
    kept = next(part for part in arrays.values() if part["norm"] == norm)
    return np.asarray(kept["sample_id"]), standing(kept["upper"], eps).astype(np.float64)


@probe(
    threat=THREAT,
    source="schedule: Croce and Hein, AutoAttack, ICML 2020; brackets are Casemate's; intervals: Clopper-Pearson",
    needs={Facet.LABELS, Facet.TEST},
    kinds={DataKind.IMAGE, DataKind.TABLE, DataKind.TEXT},
    cost=Cost.EXPENSIVE,
    metrics=METRICS,
    options=StandardOptions,
    profiles={
        Profile.QUICK: {"samples": 128, "steps": 20, "targets": 0, "queries": 100},
        Profile.FULL: {"samples": 2000, "steps": 100, "restarts": 2, "targets": 9, "queries": 5000, "distances": True},
    },
    replay=_replayed,
    paired=_paired,
)
def measure_robustness(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Robust accuracy: the share of test rows that stay right however an attacker moves them within eps.

    At each eps, (rows right and not broken) / (sampled test rows), rows that are wrong as they are included, with a
    Clopper-Pearson interval. Errs too high: a stronger attack may break more. Beside it: certified accuracy (errs too
    low), both as curves, the median distance, what each method broke and what it cost. Rows are drawn in proportion to
    the classes, with a stream that does not depend on the attacks' seed. eps is in units of the schema's scale, and of
    texts (l0) the number of words that are changed by one character each. Where the budget ends, rows that were not
    fully attacked count as standing, `evasion.unfinished` says how many, and the probe ends as skipped for its budget.

    Raises `ConfigError` for options that do not fit, `Unavailable` where no attack or certificate applies,
    `BudgetExhausted`.
    """
    data = case.data("test")
    options: StandardOptions = lab.options
    rows = _sampled(data, options.samples, lab)
    unfinished = 0
    for norm in _norms(options, data.schema):
        radii = _radii(options, norm, data.schema)
        _stages(case, norm, lab)
        shards = [rows[top : top + _SHARD] for top in range(0, len(rows), _SHARD)]
        items = [{"rows": shard, "norm": str(norm), "eps": np.array(radii)} for shard in shards]
        found = _joined(lab.map(_shard, case, items), norm, radii)
        yield from evidence_of(found, case, _kept(f"brackets-{norm}", found, lab))
        if (exhibit := broken_samples(case, found)) is not None:
            lab.show(f"broken-{norm}", exhibit)
        unfinished += int(np.asarray(found["unfinished"]).any(axis=1).sum())
    if unfinished:
        raise BudgetExhausted(
            f"expected a budget for all stages on {len(rows)} samples, got one that left {unfinished} not fully "
            "attacked: "
            "raise the budget, or ask for fewer samples, steps or queries"
        )


def _kept(name: str, found: Stored, lab: Lab) -> tuple[str, ...]:
    digest = lab.keep(name, found)
    return (digest,) if digest else ()


def _norms(options: StandardOptions, schema: Schema) -> list[Norm]:
    text = schema.kind is DataKind.TEXT
    asked = options.norm or (Norm.L0 if text else Norm.LINF)
    norms = [Norm(name) for name in dict.fromkeys([asked] if isinstance(asked, str) else asked)]
    if text and norms != [Norm.L0]:
        raise ConfigError(
            f"expected norm l0 (changed words) for texts in evasion/standard, got {', '.join(norms)}: leave norm out"
        )
    return norms


def _radii(options: StandardOptions, norm: Norm, schema: Schema) -> list[float]:
    if options.eps is None:
        return usual_eps(norm, schema)
    given = [options.eps] if isinstance(options.eps, int | float) else list(options.eps)
    radii = sorted({float(eps) for eps in given})
    if not radii or not all(0 < eps < np.inf for eps in radii):
        raise ConfigError(f"expected positive numbers as eps of evasion/standard, got {options.eps}: mend eps")
    return radii


def usual_eps(norm: Norm, schema: Schema) -> list[float]:
    """What the field reports on MNIST (one channel) and CIFAR-10 (colour); tenths of a table's scale; a few words."""
    if schema.kind is DataKind.TEXT:
        return [1.0, 2.0, 4.0]
    if schema.kind is DataKind.TABLE:
        return {Norm.LINF: [0.1, 0.25, 0.5], Norm.L0: [1.0, 2.0, 3.0]}.get(norm, [0.25, 0.5, 1.0])
    pixel = schema.features[0]
    unit = (pixel.hi - pixel.lo if np.isfinite(pixel.hi - pixel.lo) else 1.0) / pixel.scale
    grey = schema.shape[0] == 1
    if norm is Norm.LINF:
        return [unit * eps for eps in ((0.1, 0.2, 0.3) if grey else (2 / 255, 4 / 255, 8 / 255))]
    if norm is Norm.L0:
        return [5.0, 10.0, 20.0]
    if norm is Norm.L1:
        return [unit * eps for eps in ((5.0, 10.0, 20.0) if grey else (4.0, 8.0, 12.0))]
    return [unit * eps for eps in ((1.0, 2.0, 3.0) if grey else (0.25, 0.5, 1.0))]


def _sampled(data: Data, samples: int, lab: Lab) -> NDArray[np.int64]:
    """Rows in proportion to the classes (largest remainders), at random within each; all rows if there are no more."""
    if samples < 1:
        raise ConfigError(f"expected samples >= 1 for evasion/standard, got {samples}: ask for at least one")
    n = len(data)
    if n <= samples:
        return np.arange(n, dtype=np.int64)
    rng = lab.rows_rng("rows")
    classes, counts = np.unique(data.labels, return_counts=True)
    wanted = samples * counts / n
    quota = np.floor(wanted).astype(np.int64)
    spare = np.argsort(-(wanted - quota), kind="stable")[: samples - int(quota.sum())]
    quota[spare] += 1
    picked = [rng.permutation(np.flatnonzero(data.labels == c))[:q] for c, q in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate(picked)).astype(np.int64)


def _stages(case: Case, norm: Norm, lab: Lab) -> tuple[list[Plugin], list[Plugin]]:
    """The certificates and the attacks that apply, cheapest first, gradients before scores before labels."""
    known = [p for p in lab.plugins if norm in p.norms and applicable(p, case) is None]
    certificates = sorted((p for p in known if p.kind is PluginKind.CERTIFICATE), key=_price)
    attacks = sorted((p for p in known if p.kind is PluginKind.ATTACK), key=_price)
    if not attacks and not certificates:
        offered = ", ".join(sorted(case.offers))
        raise Unavailable(
            f"expected a case that some attack in {norm} applies to, got one that offers {offered}: "
            "give a model with scores or gradients"
        )
    return certificates, attacks


def _price(plugin: Plugin) -> tuple[int, int, str]:
    gradients = Facet.AFFINE in plugin.needs or Facet.GRADIENTS in plugin.needs
    return list(Cost).index(plugin.cost), 0 if gradients else 1 if Facet.SCORES in plugin.needs else 2, plugin.id


def _shard(case: Case, item: Stored, lab: Lab) -> Stored:
    """All stages on some rows: their brackets, which stages were not finished, and what it cost."""
    data = case.data("test").take(item["rows"])
    norm, radii = Norm(item["norm"]), [float(eps) for eps in item["eps"]]
    batch = batch_of(data.x, data.labels, data.sample_id)
    # The harness's own measurement, which no limit stops: without it nothing could be said of these rows.
    ledger = open_ledger(replace(case, model=observed(case.the_model(), lab.meter)), batch, norm)
    unfinished = np.zeros((len(batch), len(radii)), dtype=bool)
    certificates, attacks = _stages(case, norm, lab)
    whole = _certified(case, batch, certificates, lab, ledger=ledger)
    fixed = [plugin for plugin in attacks if not plugin.minimum_norm]
    stood = np.zeros(len(batch), dtype=bool)
    for column, eps in reversed(list(enumerate(radii))):
        if whole:
            whole = _within(fixed, case, batch, Goal(norm, eps), lab, ledger=ledger, stood=stood)
        open_ = _open_rows(ledger, eps)
        if whole:
            stood[open_] = True
        else:
            unfinished[open_[~stood[open_]], column] = True
    in_balls = any(Facet.GRADIENTS in plugin.needs for plugin in fixed)
    for plugin in (p for p in attacks if p.minimum_norm and whole):
        whole = _stepped_closer(plugin, case, batch, radii, lab, ledger=ledger, in_balls=in_balls)
        unfinished |= (ledger.upper[:, None] > np.array(radii)) & (ledger.lower[:, None] <= radii) & (not whole)
    if whole and case.kind is not DataKind.TEXT:  # between two texts there is no way to go
        _come_closer(case, batch, lab, ledger)
    spent = lab.meter.spent
    return {
        "sample_id": batch.sample_id,
        "y": batch.y,
        **ledger.arrays(),
        "unfinished": unfinished,
        "forwards": spent.forwards,
        "backwards": spent.backwards,
    }


def _within(
    plugins: Sequence[Plugin], case: Case, batch: Batch, goal: Goal, lab: Lab, *, ledger: Ledger, stood: Array
) -> bool:
    """All attacks in a ball on the rows that it can still change; whether they came to their ends.

    The largest eps comes first: what `stood (n,)` against all attacks there stands within every smaller one, so that a
    row pays for one failing run. The least sure of these are attacked all the same: where one breaks, the attacks get
    lost in large balls (a model that hides its gradients), and all are. Who broke in a larger ball is first drawn
    closer.
    """
    if case.kind is not DataKind.TEXT:
        _come_closer(case, batch, lab, ledger, within=goal.eps)
    alarm = np.flatnonzero(stood & ~ledger.broken(goal.eps))
    alarm = alarm[np.argsort(_lead(case, batch.take(alarm), lab), kind="stable")[:_LOST]]
    for plugin in plugins:
        rows = _open_rows(ledger, goal.eps)
        rows = np.union1d(rows[~stood[rows]], alarm)
        if plugin is plugins[0]:
            rows = np.union1d(rows, _doubted_rows(ledger, goal.eps))
        if len(rows) and not _pursued(plugin, case, batch, goal, lab, ledger=ledger, rows=rows):
            return False
        if ledger.broken(goal.eps)[alarm].any():
            stood[:] = False
            return _within(plugins, case, batch, goal, lab, ledger=ledger, stood=stood)
    return True


def _lead(case: Case, batch: Batch, lab: Lab) -> Array:
    """How sure the model is of samples, `(n,)`: the lead of the true class; 0 for all where it gives labels alone."""
    if not len(batch) or not case.offers & {Facet.LOGITS, Facet.SCORES}:
        return np.zeros(len(batch))
    return margins(observed(case.the_model(), lab.meter), batch.x, batch.y, None)[0]


def _stepped_closer(
    plugin: Plugin, case: Case, batch: Batch, radii: Sequence[float], lab: Lab, *, ledger: Ledger, in_balls: bool
) -> bool:
    """A minimum-norm attack, once for all eps, on what it can still change.

    One that sees labels alone is weaker than those that see scores, unless the scores hide the way, and one that sees
    gradients seldom breaks what gradients have not broken `in_balls`: these are alarms on a few samples, and run on the
    others only if they break one of these. With `distances` those with gradients look at every sample.
    """
    goal, rows = Goal(ledger.norm, float("inf")), np.flatnonzero(ledger.upper > radii[0])
    blind = not plugin.needs & {Facet.SCORES, Facet.GRADIENTS} and case.kind is not DataKind.TEXT  # those see both
    again = Facet.GRADIENTS in plugin.needs and in_balls
    if lab.options.distances and not blind:
        rows = np.flatnonzero(ledger.upper > 0)
    elif (Facet.SCORES in case.offers and blind) or again:
        standing_rows = _open_rows(ledger, radii[-1])
        alarm, rest = standing_rows[:_ALARM], standing_rows[_ALARM:]
        whole = not len(alarm) or _pursued(plugin, case, batch, goal, lab, ledger=ledger, rows=alarm)
        rows = rest if ledger.broken(radii[-1])[alarm].any() else rest[:0]
        if not whole:
            return False
    return not len(rows) or _pursued(plugin, case, batch, goal, lab, ledger=ledger, rows=rows)


def _open_rows(ledger: Ledger, eps: float) -> Array:
    """The rows that nobody has broken at eps and nobody has certified for it; a bound of eps itself is none yet."""
    return np.flatnonzero(~ledger.broken(eps) & (ledger.lower <= eps))


def _doubted_rows(ledger: Ledger, eps: float) -> Array:
    """Some certified rows that the first attack tries all the same: a false certificate meets its contradiction."""
    return np.flatnonzero(~ledger.broken(eps) & (ledger.lower > eps))[:_DOUBTED]


def _certified(case: Case, batch: Batch, plugins: Sequence[Plugin], lab: Lab, *, ledger: Ledger) -> bool:
    goal = Goal(ledger.norm, float("inf"))
    rows = np.flatnonzero(ledger.upper > 0)
    return all(_pursued(plugin, case, batch, goal, lab, ledger=ledger, rows=rows) for plugin in plugins if len(rows))


def _pursued(plugin: Plugin, case: Case, batch: Batch, goal: Goal, lab: Lab, *, ledger: Ledger, rows: Array) -> bool:
    """One stage under the harness, with a lab in the plug-in's own name and options."""
    known = {item.name for item in fields(plugin.options)}
    asked = {name: getattr(lab.options, name) for name in ("steps", "restarts", "targets", "queries")}
    given = {name: value for name, value in asked.items() if name in known and value is not None}
    own = replace(lab, plugin=plugin.id, options=plugin.configured(Profile.STANDARD, given))
    return pursue(plugin, case, batch.take(rows), goal, own, ledger=ledger, rows=rows)


def _come_closer(case: Case, batch: Batch, lab: Lab, ledger: Ledger, *, within: float = 0.0) -> None:
    """Halve the way from each sample to its witness a few times: the curve between the given eps, nearly for free.

    Only of those whose witness is not `within` so much yet.
    """
    wide = np.isfinite(ledger.upper) & (ledger.upper > ledger.lower * (1 + 1e-3))
    rows = np.flatnonzero(wide & (ledger.upper > 0) & ~ledger.broken(within))
    if len(rows):
        witnesses = ledger.witness[rows].copy()

        def closer(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
            del lab
            yield from _bisected(case, batch, witnesses, goal.norm)

        step = Plugin(PluginKind.ATTACK, "evasion/standard", closer, THREAT, "bisection along a segment")
        found_by = ledger.upper_by[rows].copy()
        pursue(step, case, batch.take(rows), Goal(ledger.norm, float("inf")), lab, ledger=ledger, rows=rows)
        ledger.upper_by[rows] = found_by  # a witness drawn closer is still the finder's


def _bisected(case: Case, batch: Batch, witnesses: Array, norm: Norm) -> Iterator[Claim]:
    reach = reach_of(norm, float("inf"), batch.x, case.schema)
    near, far = np.zeros(len(batch)), np.ones(len(batch))
    start = batch.x.astype(np.float64)
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        step = middle.reshape(-1, *(1,) * (start.ndim - 1)) * (witnesses - start)
        points = reach.settle(np.where(witnesses == batch.x, batch.x, start + step))
        hit = wrong(case.the_model(), points, batch.y)
        if hit.any():
            yield Claim(np.flatnonzero(hit), x=points[hit])
        far, near = np.where(hit, middle, far), np.where(hit, near, middle)


def _joined(parts: Sequence[Stored], norm: Norm, radii: Sequence[float]) -> dict[str, Any]:
    """All shards as one record."""
    arrays = ("sample_id", "y", "lower", "upper", "witness", "lower_by", "upper_by", "unfinished")
    return {
        **{name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in arrays},
        "forwards": sum(int(part["forwards"]) for part in parts),
        "backwards": sum(int(part["backwards"]) for part in parts),
        "norm": str(norm),
        "eps": np.array(radii),
    }


def _judged_again(case: Case, kept: Stored) -> Array:
    """The upper bounds that hold: the witness is as far as was said, allowed, and wrongly answered; else inf."""
    data = case.data("test")
    order = np.argsort(data.sample_id)
    rows = order[np.searchsorted(data.sample_id, kept["sample_id"], sorter=order)]
    upper, witness = np.array(kept["upper"]), np.asarray(kept["witness"])
    claimed = np.flatnonzero(np.isfinite(upper))
    if len(claimed):
        points = witness[claimed].astype(data.x.dtype)
        far = how_far(Norm(kept["norm"]), data.x[rows[claimed]], points, data.schema)
        true = data.labels[rows[claimed]]
        # A sample that is not answered rightly as it is needs no permission from the schema, and may be refused.
        clean = (far == 0) & unanswered(case.the_model(), points, true)
        lawful = permitted(data.schema, data.x[rows[claimed]], points)
        good = clean | (wrong(case.the_model(), points, true) & lawful)
        good &= far <= upper[claimed] * (1 + 1e-9)
        upper[claimed[~good]] = np.inf
    return upper
