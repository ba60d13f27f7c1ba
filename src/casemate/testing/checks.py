"""The laws that every plug-in of a kind keeps."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import binomtest

from casemate._workshop import Workshop
from casemate.core.bracket import Batch, Goal, Ledger
from casemate.core.budget import Meter
from casemate.core.case import Candidate, Case
from casemate.core.data import Data, Splits
from casemate.core.evidence import Evidence, check
from casemate.core.facets import PluginKind, Profile
from casemate.core.lab import Lab
from casemate.core.metering import metered_case
from casemate.core.norms import Norm
from casemate.core.planner import applicable
from casemate.core.plugin import Plugin
from casemate.core.records import Calibration, Request
from casemate.engine.harness import batch_of, open_ledger, pursue, wrong
from casemate.engine.window import Window
from casemate.errors import BudgetExhausted, LawBroken
from casemate.executors import Inline
from casemate.formats import arrays, wire
from casemate.formats import calibrations as calibration_files
from casemate.testing.toys import toy_cases

__all__ = [
    "check_attack",
    "check_certificate",
    "check_detector",
    "check_guard",
    "check_hardening",
    "check_plugin",
    "check_probe",
    "check_resource",
    "check_watch",
]

_TINY = 40  # propagations: less than any attack or probe wants
_SAMPLES = 12


def check_plugin(plugin: Plugin, case: Case | None = None) -> None:
    """Hold a plug-in to the laws of its kind; raises `LawBroken`."""
    checks: dict[PluginKind, Callable[[Plugin, Case | None], None]] = {
        PluginKind.ATTACK: check_attack,
        PluginKind.CERTIFICATE: check_certificate,
        PluginKind.DETECTOR: check_detector,
        PluginKind.GUARD: check_guard,
        PluginKind.HARDENING: check_hardening,
        PluginKind.PROBE: check_probe,
        PluginKind.RESOURCE: check_resource,
        PluginKind.WATCH: check_watch,
    }
    checks[plugin.kind](plugin, case)


def check_probe(plugin: Plugin, case: Case | None = None) -> None:
    """Declared metrics, intervals that hold, same seed same evidence, inputs untouched, budget kept, replay agrees."""
    _declared(plugin, PluginKind.PROBE)
    for one in _fitting(plugin, case):
        evidence, shop = _probe(plugin, one, Meter())
        metrics = {metric.name for metric in plugin.metrics}
        for item in evidence:
            check(item)
            _expect(item.metric in metrics, f"a declared metric from {plugin.id}", item.metric)
            _expect(set(item.files) <= set(shop.files), f"files that {plugin.id} kept", item.files)
        again, _ = _probe(plugin, one, Meter())
        _expect(_text(evidence) == _text(again), f"the same evidence for the same seed from {plugin.id}", "another")
        _stays_in_budget(plugin, partial(_probe, plugin, one))
        if plugin.replay is not None:
            _replays(plugin, one, evidence, shop)


def check_attack(plugin: Plugin, case: Case | None = None) -> None:
    """Claims hold when they are measured again, same seed same claims, inputs untouched, budget kept."""
    _declared(plugin, PluginKind.ATTACK)
    _expect(bool(plugin.norms), f"norms declared by {plugin.id}", "none")
    for one in _fitting(plugin, case):
        for norm in sorted(plugin.norms):
            goal = Goal(norm, _eps(norm, one))
            first, again = _pursued(plugin, one, goal, Meter()), _pursued(plugin, one, goal, Meter())
            same = np.array_equal(first.upper, again.upper) and np.array_equal(first.witness, again.witness)
            _expect(same, f"the same claims for the same seed from {plugin.id}", "others")
            _stays_in_budget(plugin, partial(_pursued, plugin, one, goal))


def check_certificate(plugin: Plugin, case: Case | None = None) -> None:
    """No random perturbation inside a certified radius changes an answer; seed, inputs and budget as for attacks."""
    _declared(plugin, PluginKind.CERTIFICATE)
    for one in _fitting(plugin, case):
        for norm in sorted(plugin.norms):
            ledger = _pursued(plugin, one, Goal(norm, float("inf")), Meter())
            _expect(bool((ledger.lower >= 0).all()), f"radii of at least 0 from {plugin.id}", ledger.lower.min())
            _withstands(plugin, one, norm, ledger)


def check_resource(plugin: Plugin, case: Case | None = None) -> None:
    """What it builds can be stored, and is the same for the same seed."""
    _declared(plugin, PluginKind.RESOURCE)
    for one in _fitting(plugin, case):
        packed = [arrays.pack(_lab(plugin, Meter()).get(plugin.id, one)) for _ in range(2)]
        _expect(packed[0] == packed[1], f"the same bytes for the same seed from {plugin.id}", "others")


def check_detector(plugin: Plugin, case: Case | None = None) -> None:
    """A suspicion of every row that the order of the rows does not change, and the same for the same seed."""
    _declared(plugin, PluginKind.DETECTOR)
    for one in _fitting(plugin, case):
        train = one.data("train")
        alone = replace(one, model=None, bundle=None, splits=Splits(train=train))
        found = [_lab(plugin, Meter()).get(plugin.id, alone) for _ in range(2)]
        _expect(arrays.pack(found[0]) == arrays.pack(found[1]), f"the same bytes for the same seed from {plugin.id}", 2)
        score = np.asarray(found[0]["score"])
        _expect(score.shape == (len(train),), f"a score of each row from {plugin.id}", score.shape)
        _expect(not np.isinf(score).any(), f"finite scores (or NaN) from {plugin.id}", "infinite ones")


def check_hardening(plugin: Plugin, case: Case | None = None) -> None:
    """It works without the held-out data, gives a new model, and the same one for the same seed."""
    _declared(plugin, PluginKind.HARDENING)
    for one in _fitting(plugin, case):
        blind = one.without_test()
        digests = []
        for _ in range(2):
            candidate = plugin.function(blind, (), _lab(plugin, Meter()))
            _expect(isinstance(candidate, Candidate), f"a Candidate from {plugin.id}", type(candidate).__name__)
            _expect(bool(candidate.summary), f"a summary from {plugin.id}", "none")
            digests.append(candidate.model.digest)
        _expect(digests[0] == digests[1], f"the same model for the same seed from {plugin.id}", "another")


def check_guard(plugin: Plugin, case: Case | None = None) -> None:
    """Calibrates, judges every sample, leaves the request untouched, and keeps its declared false-positive rate."""
    _declared(plugin, PluginKind.GUARD)
    for one in _fitting(plugin, case):
        calibration = _calibrated(plugin, one)
        data = one.data("test")
        request = Request("checker", data.x, 0.0)
        before = data.x.tobytes()
        _, verdict = plugin.function(request, None, calibration, one.the_model().ask)
        _expect(data.x.tobytes() == before, f"an untouched request from {plugin.id}", "a changed one")
        _expect(
            verdict.refused.shape == verdict.score.shape == (len(data),),
            "a verdict on each sample",
            verdict.score.shape,
        )
        alarms = binomtest(int(verdict.refused.sum()), len(data), min(1.0, calibration.high), alternative="greater")
        _expect(
            alarms.pvalue > 1e-3, f"at most {calibration.high:.3f} false alarms of {plugin.id}", verdict.refused.mean()
        )


def check_watch(plugin: Plugin, case: Case | None = None) -> None:
    """Calibrates, yields valid evidence for a window, and does not change the window."""
    _declared(plugin, PluginKind.WATCH)
    for one in _fitting(plugin, case):
        calibration = _calibrated(plugin, one)
        data = one.data("test")
        flat = np.asarray(data.x, dtype=np.float64).reshape(len(data), -1)
        labels = np.asarray(one.the_model().labels(data.x))
        window = Window(x=flat, labels=labels, scores=np.zeros(len(data)), principals=np.full(len(data), "checker"))
        before = flat.tobytes()
        _, evidence = plugin.function(window, None, calibration)
        for item in evidence:
            check(item)
        _expect(flat.tobytes() == before, f"an untouched window from {plugin.id}", "a changed one")


def _declared(plugin: Plugin, kind: PluginKind) -> None:
    _expect(plugin.kind is kind, f"a plug-in of kind {kind}", plugin.kind)
    _expect(bool(re.fullmatch(r"[a-z0-9_]+/[a-z0-9_]+", plugin.id)), "an id room/file_name", plugin.id)
    _expect(bool(plugin.summary), f"a docstring of {plugin.id}", "none")
    _expect(bool(plugin.source.strip()), f"a source of {plugin.id}", "none")
    for profile in Profile:
        plugin.configured(profile)


def _fitting(plugin: Plugin, case: Case | None) -> Sequence[Case]:
    cases = toy_cases() if case is None else (case,)
    fitting = [one for one in cases if applicable(plugin, one) is None]
    whys = "; ".join(why.detail for one in cases if (why := applicable(plugin, one)))
    _expect(bool(fitting), f"a case that {plugin.id} applies to", f"none: {whys}")
    return fitting


def _lab(plugin: Plugin, meter: Meter) -> Lab:
    return _shop(plugin).lab(plugin, plugin.configured(Profile.QUICK), meter)


def _shop(plugin: Plugin) -> Workshop:
    from casemate import catalog

    return Workshop(seed=7, profile=Profile.QUICK, plugins=(*catalog.plugins(), plugin), executor=Inline())


def _probe(plugin: Plugin, case: Case, meter: Meter) -> tuple[list[Evidence], Workshop]:
    shop = _shop(plugin)
    before = _bytes(case)
    evidence: list[Evidence] = []
    try:
        lab = shop.lab(plugin, plugin.configured(Profile.QUICK), meter)
        for item in plugin.function(metered_case(case, meter), lab):
            _expect(isinstance(item, Evidence), f"evidence from {plugin.id}", type(item).__name__)
            evidence.append(item)
    except BudgetExhausted:
        pass
    _expect(_bytes(case) == before, f"untouched data from {plugin.id}", "changed data")
    return evidence, shop


def _replays(plugin: Plugin, case: Case, evidence: Iterable[Evidence], shop: Workshop) -> None:
    assert plugin.replay is not None
    told = list(evidence)
    shown = {digest for item in told for digest in item.files}  # an exhibit is a file of the run, and of no evidence
    names = {digest: path.rsplit("/", 1)[1].rsplit(".", 2)[0] for digest, path in shop.files.items()}
    kept = {names[digest]: arrays.unpack(data) for digest, data in shop.kept.items() if digest in shown}
    lab = replace(_lab(plugin, Meter()), getter=None)
    now = _text(plugin.replay(case, kept, lab))
    for line in _text(item for item in told if item.files):
        _expect(line in now, f"the same evidence from the replay of {plugin.id}", "other evidence")


def _stays_in_budget(plugin: Plugin, run: Callable[[Meter], object]) -> None:
    meter = Meter(limit=_TINY)
    run(meter)
    _expect(meter.refusals <= 1, f"{plugin.id} to stop when its budget ended", f"{meter.refusals} tries to go on")


def _pursued(plugin: Plugin, case: Case, goal: Goal, meter: Meter) -> Ledger:
    batch = _batch(case.data("test"))
    ledger = open_ledger(case, batch, goal.norm, target=goal.target)
    pursue(plugin, case, batch, goal, _lab(plugin, meter), ledger=ledger, rows=np.arange(len(batch)))
    return ledger


def _batch(data: Data) -> Batch:
    rows = np.arange(min(_SAMPLES, len(data)))
    return batch_of(data.x[rows], data.labels[rows], data.sample_id[rows])


def _eps(norm: Norm, case: Case) -> float:
    schema = case.schema
    assert schema is not None
    dimensions = float(math.prod(schema.shape))
    sizes = {Norm.LINF: 0.3, Norm.L2: 0.3 * math.sqrt(dimensions), Norm.L1: 0.1 * dimensions, Norm.L0: 3.0}
    return sizes[norm]


def _withstands(plugin: Plugin, case: Case, norm: Norm, ledger: Ledger) -> None:
    schema = case.schema
    assert schema is not None
    data = case.data("test")
    batch = _batch(data)
    rng = np.random.default_rng(0)
    safe = np.flatnonzero((ledger.lower > 0) & np.isfinite(ledger.lower))
    for _ in range(20):
        step = rng.standard_normal((len(safe), *schema.shape))
        flat = step.reshape(len(safe), -1)
        size = np.abs(flat).max(1) if norm is Norm.LINF else np.linalg.norm(flat, ord={Norm.L2: 2}.get(norm, 1), axis=1)
        step *= (0.999 * ledger.lower[safe] / size).reshape(-1, *(1,) * len(schema.shape)) * schema.scale
        near = np.clip(batch.x[safe] + step, schema.lo, schema.hi).astype(batch.x.dtype)
        moved = wrong(case.the_model(), near, batch.y[safe])
        _expect(
            not moved.any(), f"answers that stand inside the radius of {plugin.id}", f"{int(moved.sum())} that fell"
        )


def _calibrated(plugin: Plugin, case: Case) -> Calibration:
    _expect(plugin.calibrate is not None, f"a calibration by {plugin.id}", "none")
    assert plugin.calibrate is not None
    found: Any = plugin.calibrate(case, _lab(plugin, Meter()))
    _expect(isinstance(found, Calibration), f"a Calibration from {plugin.id}", type(found).__name__)
    _expect(0 <= found.low <= found.fpr <= found.high <= 1, f"a rate in its interval from {plugin.id}", found.fpr)
    back = calibration_files.read(calibration_files.write(found))
    _expect(
        calibration_files.write(back) == calibration_files.write(found), "a calibration that can be stored", "another"
    )
    return back


def _bytes(case: Case) -> list[bytes]:
    return [data.x.tobytes() for data in case.splits.parts().values()]


def _text(evidence: Iterable[Evidence]) -> list[bytes]:
    return [wire.write(replace(item, files=()), Evidence) for item in evidence]


def _expect(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise LawBroken(f"expected {expected}, got {got}: mend the plug-in")
