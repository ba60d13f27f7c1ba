from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.judgement import TABLE, Status, judge, rule, severity_range
from casemate.core.outcome import Clean, Failed, Finding, Inconclusive, Severity, Skipped, SkipReason
from casemate.core.policy import Accepted, Gate, Policy
from casemate.core.stats import Interval, clopper_pearson, samples_to_decide

TODAY = dt.date(2026, 11, 22)
PLUGINS = ("evasion/standard", "fairness/group_gaps", "privacy/membership")
ROBUST = Metric("evasion.robust_accuracy", Quantity.ROBUSTNESS, Direction.TOO_HIGH, says="breaks", mend="harden")
GAP = Metric("fairness.tpr_gap", Quantity.RATE_GAP, Direction.EITHER)
severities = st.sampled_from(list(Severity))


def robust(value: float, half: float = 0.0, eps: float = 0.1) -> Evidence:
    low, high = max(0.0, value - half), min(1.0, value + half)
    return ROBUST.measured(Interval(value, low, high, 100, 0.95, "exact"), method="test", at={"eps": eps})


@st.composite
def evidences(draw: st.DrawFn) -> tuple[Evidence, ...]:
    values = draw(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.3)), max_size=2))
    return tuple(robust(value, half) for value, half in values)


@st.composite
def outcomes(draw: st.DrawFn) -> object:
    plugin = draw(st.sampled_from(PLUGINS))
    kind = draw(st.integers(0, 4))
    found = draw(evidences())
    worse = sorted([draw(severities), draw(severities)], key=lambda s: s.rank)
    if kind == 0:
        return Finding(plugin, "x", "t", worse[0], worse[1], "abc", found)
    if kind == 1:
        return Clean(plugin, "x", found)
    if kind == 2:
        return Inconclusive(plugin, "x", worse[1], "more", found)
    if kind == 3:
        return Skipped(plugin, draw(st.sampled_from(list(SkipReason))), "why", evidence=found)
    return Failed(plugin, "boom", cause=draw(st.sampled_from(["error", "law", "contradiction"])), evidence=found)


bars = st.one_of(
    st.floats(0, 1).map(lambda bar: {"min": bar}),
    st.floats(0, 1).map(lambda bar: {"max": bar}),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda ends: {"min": min(ends), "max": max(ends)}),
)
gates = st.builds(
    lambda metric, at, bar: Gate(metric, at, **bar),
    st.sampled_from(["evasion.robust_accuracy", "privacy.nothing"]),
    st.sampled_from([{}, {"eps": 0.1}, {"eps": 0.2}]),
    bars,
)
acceptances = st.builds(
    Accepted,
    finding=st.sampled_from([*PLUGINS, "evasion/standard#abc"]),
    until=st.dates(dt.date(2026, 1, 1), dt.date(2027, 12, 31)),
    reason=st.just("known"),
)
policies = st.builds(
    Policy,
    fail_on=severities,
    gates=st.lists(gates, max_size=2).map(tuple),
    accepted=st.lists(acceptances, max_size=2).map(tuple),
)


@given(st.lists(outcomes(), max_size=6), policies)
def test_no_combination_of_outcomes_turns_an_undecided_or_failed_gate_into_exit_0(found: list, policy: Policy) -> None:
    ruling = rule(found, policy, TODAY)
    statuses = {gate.status for gate in ruling.gates}
    assert (ruling.exit_code == 0) == (statuses == {Status.PASSED})
    assert (ruling.exit_code == 1) == (Status.FAILED in statuses)
    if ruling.exit_code != 0:
        return
    live = {a.finding for a in policy.accepted if a.until >= TODAY}
    assert any(isinstance(o, Finding | Clean | Inconclusive) for o in found)
    assert not any(isinstance(o, Failed) and o.cause == "contradiction" for o in found)
    assert all(a.until >= TODAY for a in policy.accepted)
    if policy.fail_on is not Severity.NONE:
        for o in found:
            accepted = isinstance(o, Finding) and bool({o.id, o.plugin} & live)
            if isinstance(o, Finding | Inconclusive) and not accepted:
                assert o.could_be.rank < policy.fail_on.rank
            assert not isinstance(o, Failed)
            assert not (isinstance(o, Skipped) and o.reason is not SkipReason.NOT_APPLICABLE)
    for gate in policy.gates:
        hits = [e for o in found for e in o.evidence if e.metric == gate.metric and gate.at.items() <= e.at.items()]
        assert hits
        assert all(e.low >= (gate.min or 0) and (gate.max is None or e.high <= gate.max) for e in hits)


@given(st.lists(outcomes(), max_size=5), policies, outcomes())
def test_a_failed_or_skipped_plug_in_never_turns_the_verdict_green(found: list, policy: Policy, extra: object) -> None:
    if isinstance(extra, Failed | Skipped) and not extra.evidence and rule(found, policy, TODAY).exit_code != 0:
        assert rule([*found, extra], policy, TODAY).exit_code != 0


def test_nothing_tested_is_undecided() -> None:
    skipped = Skipped("a/b", SkipReason.NOT_APPLICABLE, "no data")
    assert rule([], Policy(), TODAY).exit_code == 3
    assert rule([skipped], Policy(fail_on=Severity.NONE), TODAY).exit_code == 3


def test_what_is_only_measured_is_undecided_and_a_gate_on_what_is_advised_decides() -> None:
    # It said "nothing was tested", and stayed so whatever gate the user set.
    error = Metric("room.worst_error", Quantity.NOTE, Direction.TOO_LOW)
    cost = Metric("room.cost", Quantity.NOTE, Direction.EXACT)
    found = judge(
        "room/regression", [cost.measured(7, method="counted"), error.measured(0.5, method="attacked", at={"eps": 0.1})]
    )
    alone = rule(found, Policy(), TODAY)
    assert alone.exit_code == 3
    assert alone.gates[0].reason == "measured, nothing judged: set a gate on room.worst_error"
    verdicts = {0.6: 0, 0.4: 1}
    assert {
        bar: rule(found, Policy(gates=(Gate(error.name, max=bar),)), TODAY).exit_code for bar in verdicts
    } == verdicts
    elsewhere = Policy(gates=(Gate("room.other", max=1.0),))
    assert rule(found, elsewhere, TODAY).exit_code == 3
    assert (
        rule(judge("room/costs", [cost.measured(7, method="counted")]), Policy(), TODAY)
        .gates[0]
        .reason.endswith("room.cost")
    )
    many = [Metric(f"room.m{i}", Quantity.NOTE, Direction.TOO_LOW).measured(1, method="attacked") for i in range(6)]
    told = rule(judge("room/many", many), Policy(), TODAY).gates[0].reason
    assert told.endswith("one of room.m0, room.m1, room.m2, room.m3 or 2 more")


def test_a_finding_needs_both_ends_of_its_interval_to_be_bad() -> None:
    assert isinstance(judge("a/b", [robust(0.3, 0.1)])[0], Finding)
    assert isinstance(judge("a/b", [robust(0.97, 0.02)])[0], Clean)
    unclear = judge("a/b", [robust(0.95, 0.1)])[0]
    assert isinstance(unclear, Inconclusive)
    assert unclear.could_be is Severity.LOW
    assert "more samples" in unclear.need


def test_the_severity_of_a_finding_is_the_one_at_the_favourable_end() -> None:
    finding = judge("a/b", [robust(0.48, 0.05)])[0]
    assert isinstance(finding, Finding)
    assert (finding.severity, finding.could_be) == (Severity.MEDIUM, Severity.HIGH)
    assert rule([finding], Policy(fail_on=Severity.HIGH), TODAY).status is Status.UNDECIDED
    assert rule([finding], Policy(fail_on=Severity.MEDIUM), TODAY).status is Status.FAILED


def test_a_lift_is_judged_against_its_baseline() -> None:
    lift = Metric("privacy.tpr_at_fpr", Quantity.LIFT, Direction.TOO_LOW)
    item = lift.measured(Interval(0.06, 0.05, 0.08, 500, 0.95, "exact"), method="m", baseline=0.01)
    assert severity_range(item) == (Severity.MEDIUM, Severity.MEDIUM)


@pytest.mark.parametrize(("bar", "status"), [(0.2, Status.PASSED), (0.3, Status.UNDECIDED), (0.9, Status.FAILED)])
def test_a_gate_is_held_against_the_whole_interval(bar: float, status: Status) -> None:
    policy = Policy(fail_on=Severity.NONE, gates=(Gate("evasion.robust_accuracy", at={"eps": 0.1}, min=bar),))
    found = judge("evasion/standard", [robust(0.32, 0.08)])
    assert rule(found, policy, TODAY).status is status


def test_an_undecided_gate_says_how_many_more_samples_would_decide() -> None:
    item = GAP.measured(clopper_pearson(30, 100), method="count")
    policy = Policy(fail_on=Severity.NONE, gates=(Gate("fairness.tpr_gap", max=0.35),))
    reason = rule(judge("fairness/x", [item]), policy, TODAY).gates[-1].reason
    assert "more samples would decide" in reason


def test_a_gate_on_a_metric_that_was_not_measured_is_undecided() -> None:
    policy = Policy(fail_on=Severity.NONE, gates=(Gate("evasion.robust_accuracy", at={"eps": 0.3}, min=0.1),))
    assert rule(judge("evasion/standard", [robust(0.9)]), policy, TODAY).status is Status.UNDECIDED


def test_an_accepted_finding_does_not_fail_a_run_until_it_expires() -> None:
    finding = judge("evasion/standard", [robust(0.0)])[0]
    for until, code in ((TODAY, 0), (TODAY - dt.timedelta(days=1), 1)):
        accepted = Accepted(finding.plugin, until, "retired soon")
        assert rule([finding], Policy(accepted=(accepted,)), TODAY).exit_code == code


def test_a_contradiction_fails_the_run_whatever_the_policy() -> None:
    found = [*judge("evasion/standard", [robust(1.0)]), Failed("evasion/standard", "crossed", cause="contradiction")]
    assert rule(found, Policy(fail_on=Severity.NONE), TODAY).exit_code == 1


@given(st.sampled_from(sorted(TABLE)), st.floats(-2, 60), st.floats(0, 10))
def test_severity_grows_towards_the_bad_side(quantity: Quantity, value: float, step: float) -> None:
    scale = TABLE[quantity]
    assert scale.at(value).rank <= scale.at(value + scale.worse * step).rank


def test_a_forecast_is_written_for_people() -> None:
    # "about 1502061 more samples would decide" was said where 12,435 had been measured.
    gap = replace(GAP.measured(clopper_pearson(617, 12_435), method="m"), value=0.04966, low=0.040, high=0.059)
    (outcome,) = judge("fairness/x", [gap])
    assert isinstance(outcome, Inconclusive)
    assert outcome.need.startswith("more samples cannot decide it in practice (it would take about 1.6 million)")
    (near,) = judge("fairness/x", [GAP.measured(clopper_pearson(46, 1000), method="count")])
    assert isinstance(near, Inconclusive)
    count = re.match(r"about (\d+,\d{3}) more samples would decide", near.need)
    assert count is not None
    wanted = samples_to_decide(0.046, 0.05)
    assert wanted is not None
    assert int(count[1].replace(",", "")) == wanted - 1000


def cut_short(broken: int, left: int, n: int) -> Evidence:
    """As `evasion/standard` reports it: `left` rows were not fully attacked, stand, and might have fallen."""
    rate = clopper_pearson(n - broken, n)
    low = clopper_pearson(n - broken - left, n).low
    return ROBUST.measured(replace(rate, low=low), method="budget", at={"eps": 0.1})


def test_where_a_budget_cut_a_measurement_short_the_advice_is_to_raise_it_and_not_to_add_samples() -> None:
    whole, short = cut_short(20, 0, 200), cut_short(20, 150, 200)
    (open_,) = judge("evasion/standard", [short])
    assert isinstance(open_, Inconclusive)
    assert "budget or time limit cut the measurement short, raise it" in open_.need
    (sampled,) = judge("evasion/standard", [whole])
    assert isinstance(sampled, Inconclusive)
    assert "sample" in sampled.need
    assert "budget" not in sampled.need
    gate = Gate("evasion.robust_accuracy", {}, min=0.88)
    for evidence, word in ((short, "raise it"), (whole, "more samples would decide")):
        last = rule(judge("evasion/standard", [evidence]), Policy(Severity.NONE, (gate,)), TODAY).gates[-1]
        assert last.status is Status.UNDECIDED
        assert word in last.reason
    level = rule([open_], Policy(Severity.NONE, (Gate("evasion.robust_accuracy", {}, min=0.9),)), TODAY).gates[-1]
    assert "raise it" in level.reason


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_no_interval_of_samples_alone_is_taken_for_one_that_was_cut_short(count: tuple[int, int], level: float) -> None:
    (outcome,) = judge("evasion/standard", [ROBUST.measured(clopper_pearson(*count, level), method="all")])
    assert "budget" not in getattr(outcome, "need", "")
