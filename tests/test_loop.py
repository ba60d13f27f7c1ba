"""The whole journey in one test: audit, harden, sign, admit, answer, attack, event, watch, outcome, re-audit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from casemate import _audit, catalog
from casemate._attest import attest, hold
from casemate._audit import Order, Place
from casemate._harden import harden
from casemate.core.bracket import Goal
from casemate.core.case import Case
from casemate.core.facets import PluginKind, Profile
from casemate.core.judgement import Status
from casemate.core.model import ABSTAIN
from casemate.core.norms import Norm
from casemate.core.outcome import Finding, Severity
from casemate.core.policy import Gate, Policy
from casemate.core.records import Calibration
from casemate.core.report import Report
from casemate.engine.bundles import bundle_of
from casemate.engine.guarded import with_guard
from casemate.engine.harness import batch_of, open_ledger, pursue
from casemate.formats import calibrations, keys
from casemate.monitor.windows import Watcher, cut_windows
from casemate.serve.pipeline import admit
from casemate.store import open_store
from casemate.testing import toy_case

EPS = 0.15
POLICY = Policy(
    fail_on=Severity.NONE,
    gates=(Gate("evasion.robust_accuracy", at={"norm": "linf", "eps": EPS}, min=0.45),),
)
OPTIONS = {
    "evasion/standard": {"eps": (EPS,), "samples": 100},
    "evasion/adversarial_training": {"eps": EPS, "norm": "linf"},
}
ONLY = ("evasion/standard",)


def the(kind: PluginKind, name: str):
    return next(p for p in catalog.find(name) if p.kind is kind)


def calibration(folder: Path, report: Report, name: str) -> Calibration:
    return calibrations.read((folder / report.files[report.calibrations[name]]).read_bytes())


def test_a_model_goes_round_the_whole_loop(tmp_path: Path) -> None:
    case = replace(toy_case("image"), surrogates=())
    order = Order(policy=POLICY, profile=Profile.QUICK, options=OPTIONS, seed=1)
    store = open_store(tmp_path / "store")

    # audit: the plain net does not pass its gate
    before = _audit.run(case, order, Place(output=tmp_path / "before"))
    assert before.ruling.status is Status.FAILED
    assert any(f.plugin == "evasion/standard" for f in before.findings)

    # harden: adversarial training is tried, audited again on the same rows, and kept because nothing got worse
    remedy = ("evasion/adversarial_training",)
    hardened = harden(case, replace(order, only=ONLY), Place(output=tmp_path / "h"), only=remedy)
    assert hardened.improved, hardened.trials[0].reasons
    strong = replace(hardened.case, surrogates=())

    # guard: the audit calibrates STRIP and the drift watch; the guarded model is what is audited and signed
    measured = _audit.run(strong, order, Place(output=tmp_path / "strong"))
    strip, drift = the(PluginKind.GUARD, "poisoning/strip"), the(PluginKind.WATCH, "poisoning/drift")
    at_the_door = calibration(tmp_path / "strong", measured, "poisoning/strip")
    over_time = calibration(tmp_path / "strong", measured, "poisoning/drift")
    guarded = guarded_case(strong, at_the_door)
    final = _audit.run(guarded, order, Place(output=tmp_path / "final", store=str(tmp_path / "store")))
    assert final.ruling.status is Status.PASSED, final.ruling

    # sign, and admit exactly what was signed
    key = keys.generate()
    envelope = attest(final, key)
    assert guarded.bundle is not None
    assert hold(envelope, [key.public_key()], bundle=guarded.bundle.digest, policy=POLICY).verdict == "passed"
    schema = strong.schema
    assert schema is not None
    pipeline = admit(
        strong.the_model(),
        schema,
        [(strip, at_the_door)],
        envelope=envelope,
        keys=[key.public_key()],
        sink=store.add_event,
    )

    # answer: clean requests get the model's answers
    test = strong.data("test")
    response = pipeline.answer("alice", test.x)
    answered = response.labels != ABSTAIN
    assert answered.mean() > 0.8
    np.testing.assert_array_equal(response.labels[answered], strong.the_model().labels(test.x)[answered])

    # attack: the guarded model, like any other; what the guard refuses is no success
    apgd = the(PluginKind.ATTACK, "evasion/apgd")
    batch = batch_of(test.x[:32], test.labels[:32], test.sample_id[:32])
    ledger = open_ledger(guarded, batch, Norm.LINF)
    bare = _audit.lab_for(apgd, order)
    pursue(apgd, guarded, batch, Goal(Norm.LINF, 0.4), bare, ledger=ledger, rows=np.arange(32))
    fallen = np.flatnonzero(np.isfinite(ledger.upper) & (ledger.upper > 0))
    assert len(fallen) > 0
    seen = pipeline.answer("mallory", np.clip(test.x + 0.4, 0, 1).astype(np.float32))

    # event, watch, outcome: the shifted stream reached the store, and the watch asks for a new audit
    events = [event for _, event in store.events(guarded.bundle.digest)]
    assert [event.principal for event in events] == ["alice", "mallory"]
    assert events[1].id == seen.event
    watcher = Watcher(guarded.bundle.digest, ((drift, over_time),))
    stories = [watcher.look(window) for window in cut_windows(events, size=len(test))]
    assert not stories[0][1]
    outcomes, incidents = stories[1]
    assert any(isinstance(outcome, Finding) for outcome in outcomes)
    assert incidents[0].wants == "audit"
    store.add_outcomes(f"watch:{guarded.bundle.digest[7:19]}", outcomes)

    # audit again what the incident is about
    again = _audit.run(guarded, replace(order, seed=2, sampling_seed=1), Place(output=tmp_path / "again"))
    assert again.bundle == incidents[0].bundle_digest
    assert again.ruling.status is Status.PASSED
    store.close()


def guarded_case(case: Case, strip: Calibration) -> Case:
    model = case.the_model()
    return replace(
        case,
        model=with_guard(model, the(PluginKind.GUARD, "poisoning/strip"), strip),
        bundle=bundle_of(model, case.schema, [strip]),
        calibrations=(strip,),
    )
