from __future__ import annotations

import dataclasses
import datetime as dt
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import casemate
from casemate import _audit
from casemate._audit import Order, Place
from casemate._replay import replay
from casemate.core.budget import Budget
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import DataKind, Facet, Profile
from casemate.core.judgement import Status
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.outcome import Clean, Failed, Finding, Severity, Skipped, SkipReason
from casemate.core.plugin import probe
from casemate.core.policy import Policy
from casemate.core.report import Report, Timings
from casemate.core.schema import Feature, Schema
from casemate.errors import ConfigError, DataError, IntegrityError, LawBroken, UsageError
from casemate.report import json as report_json
from toyroom import THREAT, rate, table_of_answers
from toyroom.cheats import CHEATS

TODAY = dt.date(2026, 11, 22)
NOTE = Metric("toyroom.note", Quantity.NOTE, Direction.EXACT)
PROBES = (rate.rate, table_of_answers.table_of_answers, table_of_answers.share_of_class_one)


def threshold(x: np.ndarray) -> np.ndarray:
    return (np.asarray(x)[:, 0] > 0.5).astype(np.int64)


def make_case(n: int = 100) -> Case:
    x = np.random.default_rng(0).normal(size=(n, 2))
    schema = Schema(DataKind.TABLE, (2,), (Feature("a"), Feature("b")))
    data = Data(x, schema, y=(x[:, 0] > 0).astype(np.int64))
    model = Model("threshold", "sha256:" + "1" * 64, labels=threshold, classes=("no", "yes"))
    return Case("toy", model=model, splits=Splits(test=data))


def audit(
    order: Order | None = None, place: Place | None = None, plugins: tuple = PROBES, case: Case | None = None
) -> Report:
    return _audit.run(case or make_case(), order, place, plugins=plugins, today=TODAY)


def text(report: Report) -> bytes:
    return report_json.dumps(dataclasses.replace(report, timings=Timings()))


def test_an_audit_measures_judges_and_says_what_was_used(tmp_path: Path) -> None:
    report = audit(place=Place(output=tmp_path))
    (finding,) = report.findings
    assert finding.plugin == "toyroom/rate"
    assert finding.evidence[0].n == 100
    assert report.ruling.status is Status.UNDECIDED or report.ruling.status is Status.PASSED
    assert report.plugins["toyroom/rate"].spent.forwards == 100
    assert report.plugins["toyroom/table_of_answers"].spent.forwards == 100
    assert (tmp_path / "report.json").read_bytes() == report_json.dumps(report)
    assert (tmp_path / "report.html").is_file()
    assert all((tmp_path / path).is_file() for path in report.files.values())


@pytest.mark.parametrize("budget", [Budget(), Budget(propagations=60)])
def test_one_process_and_many_give_the_same_bytes(tmp_path: Path, budget: Budget) -> None:
    order = Order(budget=budget, seed=3)
    inline = audit(order, Place(output=tmp_path / "a"))
    pool = audit(order, Place(output=tmp_path / "b", executor="pool:2", store=str(tmp_path / "s")))
    assert text(inline) == text(pool)
    assert pool.timings.executor == "pool:2"


def test_another_seed_gives_another_report(tmp_path: Path) -> None:
    assert text(audit(Order(seed=1))) != text(audit(Order(seed=2)))


def test_a_budget_that_ends_leaves_a_skipped_outcome_and_no_green_verdict() -> None:
    report = audit(Order(budget=Budget(propagations=60)))
    skipped = [o for o in report.outcomes if isinstance(o, Skipped)]
    assert {o.reason for o in skipped} == {SkipReason.BUDGET}
    assert report.ruling.exit_code == 3
    assert sum(f.spent.propagations for f in report.plugins.values()) <= 60


@pytest.mark.parametrize("name", sorted(CHEATS))
def test_a_cheat_is_caught_and_nothing_that_it_said_is_used(name: str) -> None:
    order = Order(budget=Budget(propagations=150))
    if name == "changes_its_input":
        with pytest.raises(LawBroken, match="untouched"):
            audit(order, plugins=(CHEATS[name],))
        return
    report = audit(order, plugins=(CHEATS[name],))
    failed = [o for o in report.outcomes if isinstance(o, Failed)]
    assert len(failed) == 1
    assert report.ruling.exit_code == 3
    if name == "raises":
        assert "ZeroDivisionError: by design" in failed[0].error
    else:
        assert failed[0].cause == "law"
        assert not any(isinstance(o, Finding | Clean) for o in report.outcomes)


def test_a_finding_is_replayed_from_what_was_kept(tmp_path: Path) -> None:
    report = audit(place=Place(output=tmp_path), plugins=(rate.rate,))
    found = replay(tmp_path, report.findings[0].id, make_case(), plugins=(rate.rate,))
    assert [r.holds for r in found] == [True]
    kept = tmp_path / next(iter(report.files.values()))
    kept.write_bytes(kept.read_bytes()[:-1] + b"\x07")
    with pytest.raises(IntegrityError, match="other bytes"):
        replay(tmp_path, report.findings[0].id, make_case(), plugins=(rate.rate,))


def test_a_replay_refuses_another_model_and_other_data(tmp_path: Path) -> None:
    report = audit(place=Place(output=tmp_path), plugins=(rate.rate,))
    case = make_case()
    assert case.model is not None
    other = dataclasses.replace(case, model=dataclasses.replace(case.model, digest="sha256:" + "2" * 64))
    for wrong in (other, make_case(90)):
        with pytest.raises(UsageError, match="expected the"):
            replay(tmp_path, report.findings[0].id, wrong, plugins=(rate.rate,))


def test_what_one_probe_leaves_of_a_budget_is_there_for_the_next(tmp_path: Path) -> None:
    """Of 250 the first had 200 and used 100; the second needs 100, had its 50, and was not tested."""
    order, place = Order(budget=Budget(propagations=250)), Place(output=tmp_path / "a", store=str(tmp_path / "s"))
    report = audit(order, place)
    assert not [o for o in report.outcomes if isinstance(o, Skipped) and o.reason is SkipReason.BUDGET]
    assert sum(facts.spent.propagations for facts in report.plugins.values()) == 200
    again = audit(order, dataclasses.replace(place, resume="last"))
    assert text(again) == text(report)


def test_a_folder_takes_one_audit_at_a_time(tmp_path: Path) -> None:
    """Two at once left the page of one beside the report of the other, or ended in a traceback."""
    refused: list[str] = []

    def second(x: np.ndarray) -> np.ndarray:
        if not refused and len(x) > 2:  # the trial of two rows is before the folder is taken
            with pytest.raises(UsageError) as caught:
                audit(place=Place(output=tmp_path, store=str(tmp_path / "store")))
            refused.append(str(caught.value))
        return threshold(x)

    case = make_case()
    case = dataclasses.replace(case, model=dataclasses.replace(case.the_model(), labels=second))
    audit(place=Place(output=tmp_path), case=case)
    assert refused[0].startswith("expected one audit at a time in ")
    assert audit(place=Place(output=tmp_path)).findings


def test_an_interrupted_run_goes_on_where_it_was_and_ends_the_same(tmp_path: Path) -> None:
    whole = audit(place=Place(output=tmp_path / "whole"))
    calls = {"n": 0}

    def failing(x: np.ndarray) -> np.ndarray:
        calls["n"] += len(x) > 2  # not the trial of two rows before each run
        if calls["n"] == 4 and len(x) > 2:
            raise KeyboardInterrupt
        return threshold(x)

    case = make_case()
    assert case.model is not None
    broken = dataclasses.replace(case, model=dataclasses.replace(case.model, labels=failing))
    place = Place(output=tmp_path / "part", store=str(tmp_path / "s"))
    with pytest.raises(KeyboardInterrupt):
        audit(place=place, case=broken)
    assert not (tmp_path / "part" / "report.json").exists()
    resumed = audit(place=dataclasses.replace(place, resume="last"), case=broken)
    assert text(resumed) == text(whole)
    assert calls["n"] <= 10  # 7 shards and one resource, the one that failed again


def test_a_resumed_run_does_not_trust_evidence_that_was_changed(tmp_path: Path) -> None:
    place = Place(output=tmp_path / "out", store=str(tmp_path / "s"))
    whole = audit(place=place)
    for path in whole.files.values():
        (tmp_path / "out" / path).write_bytes(b"changed")
    resumed = audit(place=dataclasses.replace(place, resume="last"))
    assert text(resumed) == text(whole)
    assert all((tmp_path / "out" / path).read_bytes() != b"changed" for path in resumed.files.values())


def test_only_the_same_audit_can_be_resumed(tmp_path: Path) -> None:
    place = Place(output=tmp_path / "a", store=str(tmp_path / "s"))
    audit(place=place)
    with pytest.raises(UsageError, match="same model, data, settings"):
        audit(Order(seed=5), dataclasses.replace(place, resume="last"))
    with pytest.raises(UsageError, match="expected a run to resume"):
        audit(place=dataclasses.replace(place, resume="nope"))


@pytest.mark.parametrize("order", [Order(only=("nosuch",)), Order(options={"nosuch/probe": {}})])
def test_names_that_do_not_exist_are_refused_before_anything_runs(order: Order, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a plug-in or a room"):
        audit(order, Place(output=tmp_path / "out", store=str(tmp_path / "s")))
    assert not (tmp_path / "out").exists()


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="shard"):
        audit(Order(options={"toyroom/rate": {"shards": 3}}))


def test_a_policy_decides_what_fails() -> None:
    assert audit(Order(policy=Policy(fail_on=Severity.LOW))).ruling.exit_code == 1
    assert audit(Order(profile=Profile.QUICK, policy=Policy(fail_on=Severity.CRITICAL))).ruling.exit_code == 0


KILLED = """
import sys, time
sys.path[:0] = {path!r}
import test_audit
from casemate._audit import Place
def slow(x):
    time.sleep(0.05)
    return test_audit.threshold(x)
import dataclasses
if __name__ == "__main__":
    case = test_audit.make_case()
    case = dataclasses.replace(case, model=dataclasses.replace(case.model, labels=slow))
    resume = "last" if sys.argv[1] == "resume" else None
    place = Place(output=test_audit.Path({out!r}), store={store!r}, executor={executor!r}, resume=resume)
    test_audit.audit(place=place, case=case)
"""


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["inline", "pool:2"])
def test_kill_9_at_random_moments_and_resume_give_the_same_bytes(tmp_path: Path, executor: str) -> None:
    out, store = tmp_path / "out", str(tmp_path / "store")
    script = tmp_path / "killed.py"
    here = [str(Path(__file__).parent)]
    script.write_text(KILLED.format(path=here, out=str(out), store=store, executor=executor))
    moments = np.random.default_rng(int.from_bytes(os.urandom(4), "little")).uniform(0.3, 2.5, 5)
    for attempt, moment in enumerate(moments):
        process = subprocess.Popen([sys.executable, str(script), "resume" if attempt and _begun(store) else "new"])
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([sys.executable, str(script), "resume" if _begun(store) else "new"], check=True, timeout=120)
    got = report_json.loads((out / "report.json").read_bytes())
    assert text(got) == text(audit(place=Place(output=tmp_path / "whole")))


def _begun(store: str) -> bool:
    from casemate.store import open_store

    opened = open_store(store)
    try:
        return bool(opened.runs())
    finally:
        opened.close()


def of_rows(n: int = 40, missing: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(n, 3))
    y = (x[:, 0] > 0).astype(np.int64)
    x[list(missing), 1] = np.nan
    return x, y


def test_data_that_a_model_does_not_take_is_one_error_before_anything_runs() -> None:
    x, y = of_rows()
    model = LogisticRegression().fit(x, y)
    told: list[str] = []
    with pytest.raises(DataError) as caught:
        _audit.run(
            casemate.case(model, test=of_rows(missing=(17,))),
            Order(profile=Profile.QUICK),
            on_progress=lambda name, done, total: told.append(name),
        )
    said = str(caught.value)
    assert re.match(
        r"expected .* to take rows with a missing value, as 17 of the test data, got ValueError: .*NaN", said
    )
    assert said.endswith("fill them in, or audit the pipeline that does")
    assert "\n" not in said
    assert told == []
    pipeline = make_pipeline(SimpleImputer(), LogisticRegression()).fit(x, y)
    report = casemate.audit(pipeline, test=of_rows(missing=(17,)), only=["preflight/determinism"])
    assert [type(o) for o in report.outcomes] == [Clean]

    def fussy(rows: np.ndarray) -> np.ndarray:
        raise TypeError("columns are wrong\nand much more")

    case = dataclasses.replace(make_case(), model=Model("fussy", "sha256:0", fussy))
    with pytest.raises(
        DataError, match=r"expected fussy to take the rows of the test data, got TypeError: columns are"
    ):
        audit(case=case)


def test_the_trial_asks_few_rows_on_no_meter_and_no_endpoint_and_nobody_where_nothing_asks_the_model() -> None:
    asked: list[int] = []

    def counting(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return threshold(rows)

    case = dataclasses.replace(make_case(), model=Model("counting", "sha256:0", counting))
    report = audit(case=case, plugins=(rate.rate,))
    assert asked[0] == 2
    assert report.plugins["toyroom/rate"].spent.forwards == 100 == sum(asked) - 2
    asked.clear()
    remote = dataclasses.replace(case, model=Model("remote", "sha256:0", counting, framework="http"))
    audit(case=remote, plugins=(rate.rate,))
    assert sum(asked) == 100
    asked.clear()
    silent = probe(threat=THREAT, source="hand", metrics=(NOTE,), needs={Facet.TEST})(lambda case, lab: iter(()))
    audit(case=case, plugins=(silent,))
    assert asked == []


@dataclasses.dataclass(frozen=True)
class Picky:
    """Options that only the case can judge."""

    positive: str = "yes"

    def check(self, case: Case) -> None:
        """Raise `ConfigError` for a class that the case has not."""
        if self.positive not in case.the_model().classes:
            raise ConfigError(f"expected a class, got {self.positive!r}: name one")


def test_options_are_held_against_the_case_before_anything_runs() -> None:
    picky = probe(threat=THREAT, source="hand", metrics=(NOTE,), needs={Facet.LABELS}, options=Picky)(
        lambda case, lab: iter([NOTE.measured(1, method="hand")])
    )
    assert audit(plugins=(picky,)).ruling.exit_code == 3
    with pytest.raises(ConfigError, match="expected a class, got 'maybe'"):
        audit(Order(options={picky.id: {"positive": "maybe"}}), plugins=(picky, rate.rate))


def test_a_probe_may_say_why_it_has_nothing_to_measure() -> None:
    def empty(case: Case, lab: Lab) -> Generator[Evidence, None, str]:
        yield from ()
        return "nothing here is red"

    (outcome,) = audit(plugins=(probe(threat=THREAT, source="hand", metrics=(NOTE,))(empty),)).outcomes
    assert isinstance(outcome, Skipped)
    assert (outcome.reason, outcome.detail) == (SkipReason.NOT_APPLICABLE, "nothing here is red")
