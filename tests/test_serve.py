from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import numpy as np
import pytest

from casemate._attest import attest, hold
from casemate.core.evidence import Direction, Metric, Quantity
from casemate.core.facets import Phase, Scope
from casemate.core.model import ABSTAIN
from casemate.core.outcome import Failed, Finding, Severity
from casemate.core.plugin import Plugin, guard, watch
from casemate.core.policy import Policy
from casemate.core.records import Calibration, Decision, Event, Verdict
from casemate.engine.bundles import bundle_of
from casemate.errors import DataError, IntegrityError, UsageError
from casemate.formats import keys
from casemate.monitor.windows import Watcher, cut_windows
from casemate.serve.pipeline import Pipeline, admit
from test_audit import audit, make_case
from toyroom import THREAT

KEY = keys.generate()
LENIENT = Policy(fail_on=Severity.NONE)


def calibration(plugin: Plugin, threshold: float = 2.0) -> Calibration:
    return Calibration(plugin.id, "sha256:" + "0" * 64, 0.05, 0.0, 0.0, 0.1, 30, {"threshold": threshold})


def refuse(request: Any, state: Any, calibration: Calibration, ask: Any) -> tuple[Any, Verdict]:
    """Refuses samples with a large first feature, and every third request of a principal."""
    turn = (state or 0) + 1
    score = np.asarray(request.x)[:, 0].astype(np.float64)
    refused = score > calibration.numbers["threshold"]
    decision = Decision.REFUSE if refused.any() else Decision.FLAG if turn % 3 == 0 else Decision.ALLOW
    return turn, Verdict("toyroom/door", decision, score, refused, calibration.numbers["threshold"])


def door(phase: Phase = Phase.ADMIT, scope: Scope = Scope.NONE) -> Plugin:
    return guard(threat=THREAT, source="by hand", phase=phase, scope=scope)(refuse)


def signed(plugin: Plugin, policy: Policy = LENIENT) -> tuple[Any, dict[str, Any]]:
    case = make_case()
    held = calibration(plugin)
    bundle = bundle_of(case.the_model(), case.schema, [held])
    from casemate._audit import Order

    report = audit(Order(policy=policy), case=dataclasses.replace(case, bundle=bundle))
    return case, attest(report, KEY)


def served(plugin: Plugin) -> tuple[Pipeline, list[Event], Any]:
    case, envelope = signed(plugin)
    events: list[Event] = []
    guards = [(plugin, calibration(plugin))]
    pipeline = admit(
        case.the_model(), case.schema, guards, envelope=envelope, keys=[KEY.public_key()], sink=events.append
    )
    return pipeline, events, case


@pytest.mark.parametrize("phase", [Phase.ADMIT, Phase.ANSWER])
def test_a_refused_sample_gets_no_answer_and_the_others_do(phase: Phase) -> None:
    pipeline, events, _ = served(door(phase))
    x = np.array([[0.9, 0.0], [2.5, 0.0], [-1.0, 0.0]])
    response = pipeline.answer("alice", x)
    assert response.labels.tolist() == [1, ABSTAIN, 0]
    assert events[0].labels == (1, ABSTAIN, 0)
    assert events[0].decision is Decision.REFUSE
    assert events[0].features == ((0.9, 0.0), (2.5, 0.0), (-1.0, 0.0))


def test_state_is_kept_by_principal_where_the_guard_says_so() -> None:
    pipeline, events, _ = served(door(scope=Scope.PRINCIPAL))
    x = np.zeros((1, 2))
    for name in ("a", "b", "a", "a", "b"):
        pipeline.answer(name, x)
    assert [event.decision for event in events] == [*[Decision.ALLOW] * 3, Decision.FLAG, Decision.ALLOW]


@pytest.mark.parametrize(
    "x",
    [np.zeros(2), np.zeros((0, 2)), np.zeros((1, 3)), np.full((1, 2), np.nan), np.full((1, 2), np.inf)],
)
def test_samples_that_break_the_schema_reach_neither_guard_nor_model(x: np.ndarray) -> None:
    pipeline, events, _ = served(door())
    with pytest.raises(DataError, match="expected samples"):
        pipeline.answer("alice", x)
    assert events == []


def test_another_model_guard_or_calibration_is_not_admitted() -> None:
    plugin = door()
    case, envelope = signed(plugin)
    model = case.the_model()
    held = calibration(plugin)
    others = [
        (dataclasses.replace(model, digest="sha256:" + "9" * 64), [(plugin, held)]),
        (model, []),
        (model, [(plugin, calibration(plugin, threshold=99.0))]),
    ]
    for other, guards in others:
        with pytest.raises(IntegrityError, match="bundle that was audited"):
            admit(other, case.schema, guards, envelope=envelope, keys=[KEY.public_key()], sink=print)


def test_every_way_an_attestation_can_fail_has_its_own_message() -> None:
    plugin = door()
    case, envelope = signed(plugin)
    bundle = bundle_of(case.the_model(), case.schema, [calibration(plugin)]).digest
    late = dt.datetime.now(dt.UTC) + dt.timedelta(days=91)
    mine = [KEY.public_key()]
    assert hold(envelope, mine, bundle=bundle, policy=LENIENT).verdict == "passed"
    bad = signed(plugin, Policy(fail_on=Severity.LOW))[1]
    failures = {
        "key": lambda: hold(envelope, [keys.generate().public_key()], bundle=bundle),
        "bundle that was audited": lambda: hold(envelope, mine, bundle="sha256:" + "3" * 64),
        "under another": lambda: hold(envelope, mine, bundle=bundle, policy=Policy()),
        "expected an audit that passed": lambda: hold(bad, mine, bundle=bundle),
        "expired": lambda: hold(envelope, mine, bundle=bundle, now=late),
    }
    for message, fail in failures.items():
        with pytest.raises(IntegrityError, match=message):
            fail()


def test_a_report_about_data_only_cannot_be_attested() -> None:
    with pytest.raises(UsageError, match="about a bundle"):
        attest(audit(), KEY)


ALARM = Metric("toyroom.alarm", Quantity.P_VALUE, Direction.EXACT)


def shifted(window: Any, state: Any, calibration: Calibration) -> tuple[Any, Any]:
    """Alarms when the mean of the first feature is far from zero; breaks on windows that hold a 7."""
    if (window.x == 7).any():
        raise ValueError("a seven")
    far = abs(float(window.x[:, 0].mean())) > 1
    return (state or 0) + 1, [ALARM.measured(1e-12 if far else 0.9, method="mean", n=len(window.x))]


def events_of(*values: float) -> list[Event]:
    return [
        Event(str(i), "sha256:b", "alice", float(i), 2, Decision.ALLOW, (0, 1), (0.0, 0.0), {}, ((v, 0.0), (v, 1.0)))
        for i, v in enumerate(values)
    ]


def test_windows_hold_whole_events_in_order_and_a_rest_waits() -> None:
    found = list(cut_windows(events_of(0, 1, 2, 3, 4), size=4))
    assert [w.x[:, 0].tolist() for w in found] == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert found[0].principals.tolist() == ["alice"] * 4


def test_a_watch_that_finds_something_asks_for_a_new_audit_and_one_that_breaks_stops_nothing() -> None:
    plugin = watch(threat=THREAT, source="by hand")(shifted)
    watcher = Watcher("sha256:b", ((plugin, calibration(plugin)),))
    stories = [watcher.look(window) for window in cut_windows(events_of(0, 0, 7, 7, 5, 5), size=4)]
    assert [len(incidents) for _, incidents in stories] == [0, 0, 1]
    assert isinstance(stories[1][0][0], Failed)
    assert isinstance(stories[2][1][0].outcome, Finding)
    assert (stories[2][1][0].wants, stories[2][1][0].window) == ("audit", 2)
