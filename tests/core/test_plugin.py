from __future__ import annotations

import pickle
from dataclasses import dataclass

import pytest

from casemate.core.budget import Budget
from casemate.core.evidence import Direction, Metric, Quantity
from casemate.core.facets import Cost, DataKind, Facet, PluginKind, Profile
from casemate.core.outcome import SkipReason
from casemate.core.planner import applicable, plan
from casemate.core.plugin import Plugin, probe
from casemate.errors import ConfigError, LawBroken
from test_audit import make_case
from toyroom import THREAT, rate, table_of_answers

NOTE = Metric("toyroom.note", Quantity.NOTE, Direction.EXACT)


def made(**declared: object) -> Plugin:
    return probe(threat=THREAT, source="hand", metrics=(NOTE,), **declared)(lambda case, lab: iter(()))


def test_the_decorator_keeps_what_was_declared_and_takes_the_id_from_the_file() -> None:
    assert rate.rate.id == "toyroom/rate"
    assert rate.rate.kind is PluginKind.PROBE
    assert rate.rate.needs == {Facet.LABELS, Facet.TEST}
    assert rate.rate.summary == "Share of wrong answers."


def test_a_plug_in_survives_pickling_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(rate.rate)) is rate.rate


def test_options_come_from_defaults_profile_and_user_in_that_order() -> None:
    assert rate.rate.configured(Profile.STANDARD).shard == 16
    assert rate.rate.configured(Profile.QUICK).shard == 8
    assert rate.rate.configured(Profile.QUICK, {"shard": 3}).shard == 3
    with pytest.raises(ConfigError, match=r"expected an option of toyroom/rate \(shard\), got 'size'"):
        rate.rate.configured(Profile.QUICK, {"size": 3})


def test_a_plug_in_without_a_source_is_refused() -> None:
    with pytest.raises(LawBroken, match="source"):
        probe(threat=THREAT, source=" ")(lambda case, lab: iter(()))


def test_options_that_are_no_dataclass_are_refused() -> None:
    with pytest.raises(LawBroken, match="dataclass"):
        probe(threat=THREAT, source="x", options=dict)(lambda case, lab: iter(()))


@dataclass(frozen=True)
class Twenty:
    """Options with a number."""

    rows: int = 20


def test_what_a_case_does_not_offer_is_not_applicable_and_what_is_not_installed_is_unavailable() -> None:
    case = make_case()
    missing = applicable(made(needs={Facet.TRAIN}), case)
    other = applicable(made(kinds={DataKind.IMAGE}), case)
    absent = applicable(made(requires=("no_such_library",)), case)
    assert missing is not None
    assert other is not None
    assert absent is not None
    assert (missing.reason, other.reason) == (SkipReason.NOT_APPLICABLE, SkipReason.NOT_APPLICABLE)
    assert absent.reason is SkipReason.UNAVAILABLE
    assert "pip install" in absent.detail
    assert applicable(made(options=Twenty), case) is None


def test_a_plan_shares_the_budget_among_what_runs_only() -> None:
    dear = made(needs={Facet.TRAIN}, cost=Cost.EXPENSIVE)
    steps = plan(
        (rate.rate, table_of_answers.share_of_class_one, dear),
        make_case(),
        profile=Profile.STANDARD,
        budget=Budget(propagations=100),
        options={},
    )
    assert sum(step.share or 0 for step in steps) == 100
    assert [step.skipped is None for step in steps if step.plugin is dear] == [False]
