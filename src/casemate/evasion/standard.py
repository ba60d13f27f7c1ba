"""The standard probe: certificates first, then every attack that applies, cheapest first, on what still stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.exhibit import MOST
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.metering import observed
from casemate.core.model import Task
from casemate.core.norms import Norm
from casemate.core.options import Count, Positive
from casemate.core.plugin import probe
from casemate.core.schema import Schema
from casemate.engine.harness import VOTES, batch_of, how_far, open_ledger, permitted, steadied, unanswered, wrong
from casemate.engine.prepared import prepare
from casemate.errors import BudgetExhausted, ConfigError, Unavailable
from casemate.evasion import THREAT
from casemate.evasion._broken import broken_samples
from casemate.evasion.curve import METRICS, evidence_of, standing
from casemate.evasion.schedule import Schedule, stages_for
from casemate.evasion.surrogate import METRICS as SURROGATE_METRICS
from casemate.evasion.surrogate import lent

__all__ = ["StandardOptions", "measure_robustness", "usual_eps"]

Array = NDArray[Any]

_SHARD = 256  # samples a job; from nothing but the data, so that no report depends on the number of workers
_CELLS = 2**22  # features of all samples of a job: attacks hold some dozens of points of each sample at a time
_LEAST = 16  # samples a job, however large they are
_PREPARED = Metric("evasion.prepared", Quantity.NOTE, Direction.EXACT, unit="rows at once")
_NOTES = "notes"  # the file of evidence that holds them
_COMPARISON = 100  # propagations, more than the comparison of a prepared model with the original asks
_NOTED = ("metric", "method", "value", "low", "high", "n")
_BRACKET = ("lower", "upper", "witness", "lower_by", "upper_by", "unfinished")


@dataclass(frozen=True, slots=True)
class StandardOptions:
    """`norm` (one or several) and `eps` (None: by the kind of data), `samples` of the test rows; and how hard to try.

    `effort` names the profile whose settings the attacks take; over these go `steps`, `restarts`, `targets` to those by
    gradients and `queries` to those by scores and labels. With `distances` every sample's nearest wrong point is looked
    for, wherever it is.
    """

    norm: Norm | tuple[Norm, ...] | None = None
    eps: Positive | tuple[Positive, ...] | None = None
    samples: Count = 500
    effort: Profile = Profile.STANDARD
    steps: Count | None = None
    restarts: Count | None = None
    targets: Count | None = None
    queries: Count | None = None
    distances: bool = False

    def check(self, case: Case) -> None:
        """Raise `ConfigError` for a norm in which the case's data has no distances."""
        _norms(self, case.data("test").schema)


def _replayed(case: Case, arrays: Mapping[str, Stored], lab: Lab) -> Iterator[Evidence]:
    """The same evidence from kept brackets; every witness is judged again on the model, and counts if it holds.

    What was said of a surrogate and of the prepared model is repeated as it was kept.
    """
    for name in sorted(arrays):
        if name == _NOTES:
            yield from _noted(arrays[name], _kept(name, arrays[name], lab))
            continue
        files = _kept(name, arrays[name], lab)
        yield from evidence_of({**arrays[name], "upper": _judged_again(case, arrays[name])}, case, files)


def _paired(arrays: Mapping[str, Stored], evidence: Evidence) -> tuple[Array, Array] | None:
    """Which samples stand, as numbers, for a paired comparison of two runs; None for what is no share of samples."""
    if evidence.metric not in ("evasion.robust_accuracy", "evasion.robust_curve"):
        return None
    norm, eps = str(evidence.at["norm"]), float(evidence.at["eps"])
    kept = next(part for name, part in arrays.items() if name != _NOTES and part["norm"] == norm)
    return np.asarray(kept["sample_id"]), standing(kept["upper"], eps).astype(np.float64)


@probe(
    threat=THREAT,
    source="schedule: Croce and Hein, AutoAttack, ICML 2020; brackets are Casemate's; intervals: Clopper-Pearson",
    needs={Facet.LABELS, Facet.TEST},
    kinds={DataKind.IMAGE, DataKind.TABLE, DataKind.TEXT},
    cost=Cost.EXPENSIVE,
    metrics=(*METRICS, *SURROGATE_METRICS, _PREPARED),
    options=StandardOptions,
    profiles={
        Profile.QUICK: {"samples": 128, "effort": "quick"},
        Profile.FULL: {"samples": 2000, "effort": "full", "distances": True},
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
    if case.the_model().task is Task.REGRESSION:
        return  # there is no wrong answer, only one that is further off: see `evasion/regression`
    if options.effort not in list(Profile):
        raise ConfigError(
            f"expected effort {', '.join(Profile)} for evasion/standard, got {options.effort!r}: choose one of them"
        )
    rows = _sampled(data, options.samples, lab)
    said: list[Evidence] = []
    unfinished = 0
    for norm in _norms(options, data.schema):
        radii = _radii(options, norm, data.schema)
        stages_for(case, norm, lab)
        found = _attacked(case, rows, norm, radii, lab=lab, said=said)
        yield from evidence_of(found, case, _kept(f"brackets-{norm}", found, lab))
        if lab.meter.affords(MOST) and (exhibit := broken_samples(case, found)) is not None:
            lab.show(f"broken-{norm}", exhibit)
        unfinished += int(np.asarray(found["unfinished"]).any(axis=1).sum())
    notes = _notes(said)
    yield from _noted(notes, _kept(_NOTES, notes, lab))
    if unfinished:
        raise BudgetExhausted(
            f"expected a budget for all stages on {len(rows)} samples, got one that left {unfinished} not fully "
            "attacked: "
            "raise the budget, or ask for fewer samples, steps or queries"
        )


def _prepared(case: Case, x: Array, lab: Lab) -> Iterator[Evidence]:
    """What was done to the model before gradients were taken: folded, rounded, averaged, and how many rows at once."""
    if Facet.GRADIENTS in case.offers and find_spec("torch") is not None and lab.meter.affords(_COMPARISON):
        try:
            ready = prepare(case.the_model(), x, lab.meter, seed=lab.seed_for("draws"))
        except (BudgetExhausted, Unavailable):  # whoever attacks with it says so
            return
        asked = f"; judged by {VOTES} votes a sample" if ready.random else ""
        yield _PREPARED.measured(ready.part, method="; ".join(ready.notes) + asked, n=len(x))


def _notes(said: Sequence[Evidence]) -> dict[str, Any]:
    """Notes as arrays, so that a replay can repeat them."""
    return {
        **{name: [str(getattr(item, name)) for item in said] for name in ("metric", "method")},
        **{name: np.array([float(getattr(item, name)) for item in said]) for name in ("value", "low", "high", "n")},
    }


def _noted(notes: Stored, files: tuple[str, ...]) -> Iterator[Evidence]:
    known = {metric.name: metric for metric in (*SURROGATE_METRICS, _PREPARED)}
    for k, (name, method) in enumerate(zip(notes["metric"], notes["method"], strict=True)):
        value, low, high, n = (float(notes[part][k]) for part in ("value", "low", "high", "n"))
        plain = known[str(name)].measured(value, method=str(method), n=int(n), files=files)
        yield replace(plain, low=low, high=high)


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


def _attacked(
    case: Case, rows: NDArray[np.int64], norm: Norm, radii: Sequence[float], *, lab: Lab, said: list[Evidence]
) -> dict[str, Any]:
    """The brackets of all rows: what is cheap on every shard, the rest on new shards of what still stands.

    For the rest a model that shows no gradients of its own is lent a surrogate's; what is `said` of it is added.
    """
    settings = {"norm": str(norm), "eps": np.array(radii)}
    shards = _shards(rows, case)
    parts = lab.map(_opened, case, [{"rows": shard, **settings} for shard in shards])
    found = _joined(parts)
    notes = [replace(note, n=len(rows)) for note in _noted({name: parts[0][name] for name in _NOTED}, ())]
    said += [note for note in notes if note.metric not in {old.metric for old in said}]
    open_ = found["upper"] > 0 if lab.options.distances else standing(found["upper"], radii[0])
    open_ &= found["lower"] <= radii[-1]
    left = np.flatnonzero(open_ | found["unfinished"].any(axis=1))
    shards = _shards(left, case)
    items = [{"rows": rows[shard], **settings, **{name: found[name][shard] for name in _BRACKET}} for shard in shards]
    if items:
        if not case.surrogates:
            case, lending = lent(case, lab, attacked=rows)
            said += [note for note in lending if note not in said]
        again = _joined(lab.map(_pressed, case, items))
        for name in _BRACKET:
            wide = np.result_type(found[name], again[name])  # names of methods get longer
            found[name] = found[name].astype(wide, copy=False)
            found[name][left] = again[name]
        for name in ("forwards", "backwards"):
            found[name] += again[name]
    return {**found, **settings}


def _shards(rows: Array, case: Case) -> list[Array]:
    features = max(prod(case.data("test").x.shape[1:]), 1)
    size = min(max(_CELLS // features, _LEAST), _SHARD)
    return [rows[top : top + size] for top in range(0, len(rows), size)]


def _opened(case: Case, item: Stored, lab: Lab) -> Stored:
    """The first stages on some rows: their brackets, what was not finished, and what it cost."""
    schedule = _schedule(case, item, lab)
    notes = _notes([*_prepared(case, schedule.batch.x, lab)])
    return {**_told(schedule, schedule.opened([float(eps) for eps in item["eps"]]), lab), **notes}


def _pressed(case: Case, item: Stored, lab: Lab) -> Stored:
    """The other stages on rows whose brackets are known so far."""
    schedule = _schedule(case, item, lab)
    schedule.ledger.join(np.arange(len(schedule.batch)), item)
    unfinished = np.asarray(item["unfinished"]) | schedule.pressed([float(eps) for eps in item["eps"]])
    return _told(schedule, unfinished, lab)


def _schedule(case: Case, item: Stored, lab: Lab) -> Schedule:
    data, norm = case.data("test").take(item["rows"]), Norm(item["norm"])
    batch = batch_of(data.x, data.labels, data.sample_id)
    # The harness's own measurement, which no limit stops: without it nothing could be said of these rows.
    ledger = open_ledger(replace(case, model=observed(case.the_model(), lab.meter)), batch, norm)
    return Schedule(case, batch, lab, ledger, *stages_for(case, norm, lab), balls=len(item["eps"]))


def _told(schedule: Schedule, unfinished: Array, lab: Lab) -> Stored:
    batch, spent = schedule.batch, lab.meter.spent
    brackets = {"sample_id": batch.sample_id, "y": batch.y, **schedule.ledger.arrays(), "unfinished": unfinished}
    return {**brackets, "forwards": spent.forwards, "backwards": spent.backwards}


def _joined(parts: Sequence[Stored]) -> dict[str, Any]:
    """All shards as one record."""
    return {
        **{name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in ("sample_id", "y", *_BRACKET)},
        **{name: sum(int(part[name]) for part in parts) for name in ("forwards", "backwards")},
    }


def _judged_again(case: Case, kept: Stored) -> Array:
    """The upper bounds that hold: the witness is as far as was said, allowed, and wrongly answered; else inf."""
    data = case.data("test")
    rows = data.places(np.asarray(kept["sample_id"]))
    upper, witness = np.array(kept["upper"]), np.asarray(kept["witness"])
    claimed = np.flatnonzero(np.isfinite(upper))
    if len(claimed):
        points = witness[claimed].astype(data.x.dtype)
        model = steadied(case)
        far = how_far(Norm(kept["norm"]), data.x[rows[claimed]], points, data.schema)
        true = data.labels[rows[claimed]]
        # A sample that is not answered rightly as it is needs no permission from the schema, and may be refused.
        clean = (far == 0) & unanswered(model, points, true)
        lawful = permitted(data.schema, data.x[rows[claimed]], points)
        good = clean | (wrong(model, points, true) & lawful)
        good &= far <= upper[claimed] * (1 + 1e-9)
        upper[claimed[~good]] = np.inf
    return upper
