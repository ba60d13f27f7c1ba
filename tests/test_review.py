"""What a hostile review found: each test is a number that flattered, a cheat that passed, or work that was lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import casemate
from casemate import _audit
from casemate._audit import Order, Place, shop_for
from casemate._workshop import Workshop
from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.budget import Budget, Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import DataKind, Facet
from casemate.core.judgement import Status, rule
from casemate.core.lab import Job, Lab, Stored
from casemate.core.model import ABSTAIN, Model
from casemate.core.outcome import Clean, Failed, Severity, Skipped, SkipReason
from casemate.core.plugin import Plugin, probe, resource
from casemate.core.policy import Gate, Policy
from casemate.core.report import Report
from casemate.core.schema import Feature, Schema
from casemate.core.stats import clopper_pearson
from casemate.errors import BudgetExhausted, ConfigError, LawBroken, ModelError, UsageError
from casemate.executors import Call, Pool
from casemate.formats import arrays
from toyroom import THREAT

RATE = Metric("review.rate", Quantity.SUCCESS_RATE, Direction.EITHER)
LIFT = Metric("review.lift", Quantity.LIFT, Direction.EITHER)
NOTE = Metric("review.note", Quantity.NOTE, Direction.EITHER)


def make_case(n: int = 100, **changes: Any) -> Case:
    rng = np.random.default_rng(0)
    x = rng.random((n, 2))
    schema = Schema(DataKind.TABLE, (2,), (Feature("a", lo=0.0, hi=1.0), Feature("b", lo=0.0, hi=1.0)))
    y = (x[:, 0] > 0.5).astype(np.int64)
    test = Data(x, schema, y, groups={"sex": np.where(np.arange(n) % 2, "f", "m").astype(object)})
    model = Model("half", "half", labels=lambda x: (x[:, 0] > 0.5).astype(np.int64), classes=("0", "1"))
    return Case(model=dataclasses.replace(model, **changes), splits=Splits(test=test))


def run(function: Any, order: Order | None = None, place: Place | None = None, **declared: Any) -> Report:
    metrics = (RATE, LIFT, NOTE)
    plugin = probe(threat=THREAT, source="malice", needs={Facet.LABELS, Facet.TEST}, metrics=metrics, **declared)
    return _audit.run(make_case(), order, place, plugins=(plugin(function),))


def broken_law(report: Report) -> bool:
    return [o.cause for o in report.outcomes if isinstance(o, Failed)] == ["law"] and report.ruling.exit_code == 3


# Guards


def refuses(x: np.ndarray) -> np.ndarray:
    return np.full(len(x), ABSTAIN, dtype=np.int64)


def confident(x: np.ndarray) -> np.ndarray:
    return np.stack([1 - x[:, 0], x[:, 0]], axis=1)


def test_a_model_that_refuses_everything_is_neither_right_nor_robust() -> None:
    case = make_case(labels=refuses, scores=confident)
    report = casemate.audit(case, profile="quick", only=["evasion"])
    rates = {e.metric: e.value for o in report.outcomes for e in o.evidence if e.at.get("eps") in (None, 0.1)}
    assert rates["evasion.clean_accuracy"] == 0
    assert rates["evasion.robust_accuracy"] == 0
    assert rates["evasion.certified_accuracy"] == 0
    assert report.ruling.status is Status.FAILED


def test_a_replay_of_refused_samples_says_what_the_audit_said(tmp_path: Path) -> None:
    case = make_case(labels=refuses, scores=confident)
    report = casemate.audit(case, profile="quick", only=["evasion"], output=tmp_path)
    assert all(item.holds for item in casemate.replay(tmp_path, report.findings[0].id, case))


def test_a_guard_that_refuses_the_first_success_does_not_end_the_search() -> None:
    def guarded(x: np.ndarray) -> np.ndarray:
        """Refuses half of all successes, by a feature that the scores do not look at."""
        refused = (x[:, 0] > 0.5) & (x[:, 1] > 0.5)
        return np.where(refused, ABSTAIN, x[:, 0] > 0.5).astype(np.int64)

    case = make_case(labels=guarded, scores=confident)
    zeros = case.data("test").take(np.flatnonzero(case.data("test").x[:, 0] < 0.45))
    case = dataclasses.replace(case, splits=Splits(test=zeros))
    report = casemate.audit(case, only=["evasion"], options={"evasion/standard": {"eps": 0.55, "queries": 200}})
    robust = [e.value for o in report.outcomes for e in o.evidence if e.metric == "evasion.robust_accuracy"]
    assert robust == [0.0]  # each row reaches x0 > 0.5 and x1 <= 0.5


# Cheats


def test_evidence_after_a_swallowed_refusal_of_the_budget_is_no_pass() -> None:
    def swallows(case: Case, lab: Lab) -> Iterator[Evidence]:
        """Stops asking when the budget ends, and reports as if nothing had happened."""
        try:
            while True:
                case.the_model().labels(case.data("test").x)
        except BudgetExhausted:
            yield RATE.measured(0.0, method="none", n=1)

    report = run(swallows, Order(budget=Budget(propagations=250)))
    assert [o.reason for o in report.outcomes if isinstance(o, Skipped)] == [SkipReason.BUDGET]
    assert report.ruling.exit_code == 3


@pytest.mark.parametrize("at", [{"eps": float("nan")}, {"eps": float("inf")}, {"eps": np.zeros(2)}, {"eps": object()}])
def test_evidence_that_cannot_be_written_fails_its_probe_and_not_the_audit(at: dict[str, Any]) -> None:
    def odd(case: Case, lab: Lab) -> Iterator[Evidence]:
        """Coordinates that no report can hold."""
        yield RATE.measured(0.0, method="none", n=1, at=at)

    assert broken_law(run(odd))


@pytest.mark.parametrize("baseline", [float("nan"), -1.0, float("inf")])
def test_a_lift_over_an_impossible_chance_is_refused(baseline: float) -> None:
    def odd(case: Case, lab: Lab) -> Iterator[Evidence]:
        """A lift of a hundred that reads as none."""
        yield LIFT.measured(1.0, method="none", n=1, baseline=baseline)

    assert broken_law(run(odd))


def greedy(case: Case, item: Stored, lab: Lab) -> Stored:
    """Asks on after each refusal."""
    for _ in range(50):
        try:
            case.the_model().labels(case.data("test").x)
        except BudgetExhausted:
            continue
    return item


def test_a_job_that_ignores_its_budget_is_caught_as_its_probe_would_be() -> None:
    def maps(case: Case, lab: Lab) -> Iterator[Evidence]:
        """Leaves the asking to a job."""
        lab.map(greedy, case, [{"i": 0}])
        yield RATE.measured(0.0, method="none", n=1)

    assert broken_law(run(maps, Order(budget=Budget(propagations=250))))


def test_a_certificate_that_lies_meets_an_attack() -> None:
    from casemate import catalog
    from casemate.core.norms import Norm
    from casemate.core.plugin import certificate

    def liar(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        """Certifies everything, so that no attack is tried."""
        yield Claim(np.arange(len(batch)), radius=np.full(len(batch), np.inf))

    plugin = certificate(threat=THREAT, source="malice", needs={Facet.LABELS}, norms={Norm.LINF})(liar)
    order = Order(only=("evasion",))
    report = _audit.run(make_case(scores=confident), order, plugins=(*catalog.plugins(), plugin))
    assert [o.cause for o in report.outcomes if isinstance(o, Failed)] == ["contradiction"]
    assert report.ruling.status is Status.FAILED


def test_evidence_of_another_class_is_refused() -> None:
    class Sly(Evidence):
        pass

    def sly(case: Case, lab: Lab) -> Iterator[Evidence]:
        """A subclass may answer differently when asked again."""
        good = RATE.measured(0.0, method="none", n=1)
        yield Sly(**{f.name: getattr(good, f.name) for f in dataclasses.fields(good)})

    assert broken_law(run(sly))


def test_evidence_without_end_is_refused() -> None:
    def endless(case: Case, lab: Lab) -> Iterator[Evidence]:
        """Never asks the model, never ends."""
        while True:
            yield RATE.measured(0.0, method="none", n=1)

    assert broken_law(run(endless, Order(budget=Budget(propagations=250))))


def test_a_probe_that_changes_the_groups_is_caught() -> None:
    def swaps(case: Case, lab: Lab) -> Iterator[Evidence]:
        """Makes every row one group."""
        groups = case.data("test").groups["sex"]
        (groups.base if groups.base is not None else groups)[:] = "f"
        yield RATE.measured(0.0, method="none", n=1)

    with pytest.raises(LawBroken, match="untouched"):
        run(swaps)


def test_an_attack_that_only_claims_cannot_search_for_nothing() -> None:
    from casemate.core.norms import Norm
    from casemate.core.outcome import Threat
    from casemate.core.plugin import PluginKind
    from casemate.engine.harness import batch_of, open_ledger, pursue

    case = make_case()
    data = case.data("test")
    batch = batch_of(data.x, data.labels, data.sample_id)

    def guesses(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        """The harness measures each claim for free: an oracle without end."""
        while True:
            yield Claim(np.arange(len(batch)), x=batch.x)

    plugin = Plugin(PluginKind.ATTACK, "tests/guesses", guesses, Threat("t", "t"), "malice")
    lab = Lab("tests/guesses", 0, meter=Meter(limit=1000))
    with pytest.raises(LawBroken, match="budget"):
        pursue(
            plugin, case, batch, Goal(Norm.LINF, 0.1), lab,
            ledger=open_ledger(case, batch, Norm.LINF), rows=np.arange(len(batch)),
        )  # fmt: skip


# Verdicts


def test_a_gate_without_a_bar_is_refused() -> None:
    for bars in ({}, {"min": float("nan")}, {"min": 0.6, "max": 0.5}):
        with pytest.raises(ConfigError, match="bar"):
            Gate("evasion.robust_accuracy", **bars)


def test_notes_alone_test_nothing() -> None:
    import datetime as dt

    noted = Clean("fairness/group_gaps", "notes", (NOTE.measured(4, method="nothing could be measured"),))
    assert rule([noted], Policy(), dt.date(2026, 1, 1)).exit_code == 3


def test_a_gate_on_guards_is_undecided_while_one_of_them_could_not_be_calibrated() -> None:
    import datetime as dt

    alarms = Metric("guard.false_positive_rate", Quantity.NOTE, Direction.EITHER)
    found = [
        Clean("fairness/toy", "x", (RATE.measured(0.0, method="none", n=1),)),
        Clean("poisoning/strip", "notes", (alarms.measured(0.01, method="none", n=1),)),
        Failed("poisoning/other", "boom"),
    ]
    policy = Policy(fail_on=Severity.NONE, gates=(Gate(alarms.name, max=0.1),))
    assert rule(found, policy, dt.date(2026, 1, 1)).exit_code == 3


def test_a_candidate_that_fails_an_undecided_gate_is_refused() -> None:
    from casemate._harden import assess

    def half(value: float) -> Any:
        def measure(case: Case, lab: Lab) -> Iterator[Evidence]:
            """A rate of so much in forty."""
            yield NOTE.measured(clopper_pearson(int(value * 40), 40), method="none")
            yield RATE.measured(0.0, method="none", n=1)

        return measure

    order = Order(policy=Policy(gates=(Gate(NOTE.name, min=0.5),)))
    before, after = run(half(0.5), order), run(half(0.1), order)
    assert before.ruling.status is Status.UNDECIDED
    assert any("is now failed" in reason for reason in assess(before, after, []))


# Resume, store, executors


def test_another_version_of_casemate_neither_resumes_nor_reuses(tmp_path: Path, monkeypatch: Any) -> None:
    def quiet(case: Case, lab: Lab) -> Iterator[Evidence]:
        """Nothing wrong."""
        yield RATE.measured(0.0, method="none", n=1)

    place = Place(output=tmp_path / "out", store=str(tmp_path / "store"))
    run(quiet, place=place)
    monkeypatch.setattr(_audit, "versions", lambda: {"casemate": "999"})
    with pytest.raises(UsageError, match="versions"):
        run(quiet, place=dataclasses.replace(place, resume="last"))


def test_a_resource_of_another_version_is_built_again(tmp_path: Path, monkeypatch: Any) -> None:
    from casemate.store import open_store

    built: list[int] = []

    def pool(case: Case, lab: Lab) -> Stored:
        """Counts how often it is built."""
        built.append(1)
        return {"n": len(built)}

    plugin = resource(threat=THREAT, source="none")(pool)
    store = open_store(tmp_path)

    def shop() -> Workshop:
        made = shop_for(Order(), (plugin,))
        made.store = store
        return made

    for _ in range(2):
        shop().resource(plugin.id, make_case(), Meter())
    assert len(built) == 1
    monkeypatch.setattr(_audit, "versions", lambda: {"casemate": "999"})
    shop().resource(plugin.id, make_case(), Meter())
    assert len(built) == 2
    store.close()


def slow_failure(case: Case, item: Stored, lab: Lab) -> Stored:
    """The first item fails last."""
    import time

    time.sleep(1.0 if item["i"] == 0 else 0.0)
    raise ModelError(f"item {item['i']}")


def test_a_pool_reports_the_failure_that_one_process_would_report() -> None:
    calls = [Call(i, arrays.pack({"i": i}), None, None) for i in range(3)]
    pool = Pool(2, 1)
    job: Job = slow_failure
    try:
        with pytest.raises(ModelError, match="item 0"):
            list(pool.run(job, Case(), Lab("tests/slow", 0), calls))
    finally:
        pool.close()


# Rooms


def test_rows_that_are_also_in_train_are_no_non_members() -> None:
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(1)
    x, y = rng.random((400, 9)), rng.integers(0, 2, 400)
    tree = DecisionTreeClassifier(random_state=0).fit(x[:200], y[:200])
    overlapping = np.concatenate([x[:150], x[200:]]), np.concatenate([y[:150], y[200:]])
    report = casemate.audit(tree, train=(x[:200], y[:200]), test=overlapping, only=["privacy"], profile="quick")
    auc = {e.about: e for o in report.outcomes for e in o.evidence if e.metric == "privacy.membership_auc"}
    assert auc["loss"].value > 0.7  # 0.6 with 150 members among 350 "non-members"
    assert "150" in auc["loss"].method


def test_a_group_of_one_is_measured_or_refused_and_takes_nothing_with_it() -> None:
    case = make_case(scores=confident)
    test = case.data("test")
    odd = dataclasses.replace(test, groups={"sex": np.where(np.arange(100) == 0, "x", test.groups["sex"])})
    case = dataclasses.replace(case, splits=Splits(test=odd))
    report = casemate.audit(case, only=["fairness"], options={"fairness/group_gaps": {"min_group": 1}})
    assert not [o for o in report.outcomes if isinstance(o, Failed) and o.cause == "law"]
    assert "fairness.selection_gap" in {e.metric for o in report.outcomes for e in o.evidence}
    with pytest.raises(ConfigError, match="whole number from 1"):
        casemate.audit(case, only=["fairness"], options={"fairness/group_gaps": {"min_group": 0}})


def test_labels_that_are_drawn_at_random_are_not_hidden_by_steady_scores() -> None:
    rng = np.random.default_rng(0)
    case = make_case(labels=lambda x: rng.integers(0, 2, len(x)), scores=confident)
    report = casemate.audit(case, only=["preflight/determinism"])
    assert report.findings
