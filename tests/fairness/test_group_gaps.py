"""Gaps between groups: recounted by brute force, covered by simulation, found where planted and silent where not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.evidence import Evidence, Quantity
from casemate.core.facets import DataKind, Facet
from casemate.core.judgement import judge
from casemate.core.lab import Lab
from casemate.core.model import Model, Task
from casemate.core.outcome import Finding, Inconclusive
from casemate.core.schema import Feature, Schema
from casemate.errors import ConfigError, UsageError
from casemate.fairness._groups import attributes
from casemate.fairness.group_gaps import Options, calibration_gap, compare_groups, replay
from casemate.formats.arrays import pack, unpack

ID = "fairness/group_gaps"


def table(labels: Any, score: Any, y: Any, groups: Mapping[str, Any], classes: tuple[str, ...] = ("no", "yes")) -> Case:
    """A case whose model looks its answers up: column 0 of x is the row's number."""
    x = np.arange(len(labels), dtype=float)[:, None]
    labels, score = np.asarray(labels), None if score is None else np.asarray(score, dtype=float)

    def ask(table_: np.ndarray) -> Any:
        return lambda rows: table_[rows[:, 0].astype(int)]

    model = Model("lookup", "sha256:0", ask(labels), classes, scores=None if score is None else ask(score))
    schema = Schema(DataKind.TABLE, (1,), (Feature("row"),))
    return Case(model=model, splits=Splits(test=Data(x, schema, y=np.asarray(y), groups=groups)))


def run(case: Case, **options: Any) -> list[Evidence]:
    return list(compare_groups(case, Lab(ID, seed=0, options=Options(**options))))


def gaps(evidence: list[Evidence]) -> dict[tuple[str, str], Evidence]:
    return {(e.metric, e.about): e for e in evidence if e.quantity is not Quantity.NOTE}


def drawn(rng: np.random.Generator, n: int, rates: Mapping[str, float]) -> Case:
    """Rows of groups with given selection rates; labels and scores independent of the group."""
    sex = rng.choice(list(rates), size=n)
    chosen = rng.random(n) < np.array([rates[s] for s in sex])
    score = rng.random(n)
    y = rng.random(n) < score
    return table(chosen.astype(int), np.stack([1 - score, score], 1), y.astype(int), {"sex": sex})


def brute(case: Case, attribute: str) -> dict[str, float]:
    """The four gaps, counted row by row."""
    data, model = case.data("test"), case.the_model()
    labels, scores = (
        model.labels(data.x),
        model.ask(Facet.SCORES, data.x),
    )
    found: dict[str, dict[str, list[float]]] = {"selection": {}, "tpr": {}, "fpr": {}, "calibration": {}}
    for i, group in enumerate(data.groups[attribute]):
        hit = float(labels[i] == 1)
        found["selection"].setdefault(group, []).append(hit)
        found["tpr" if data.labels[i] == 1 else "fpr"].setdefault(group, []).append(hit)
        found["calibration"].setdefault(group, []).append(float(data.labels[i] == 1) - scores[i, 1])
    means = {rate: [sum(v) / len(v) for v in cells.values()] for rate, cells in found.items()}
    return {f"fairness.{rate}_gap": max(values) - min(values) for rate, values in means.items()}


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(200, 500))
def test_every_gap_equals_a_count_row_by_row(seed: int, n: int) -> None:
    case = drawn(np.random.default_rng(seed), n, {"F": 0.3, "M": 0.6, "X": 0.5})
    expected = brute(case, "sex")
    assert {m: e.value for (m, _), e in gaps(run(case, min_group=5)).items()} == pytest.approx(expected, abs=1e-12)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_rows_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = drawn(rng, 300, {"F": 0.3, "M": 0.6})
    data = case.data("test")
    ages = rng.normal(40, 10, 300)
    with_age = replace(case, splits=Splits(test=replace(data, groups={**data.groups, "age": ages})))
    order = rng.permutation(300)
    shuffled = replace(with_age, splits=Splits(test=with_age.data("test").take(order)))
    for a, b in zip(run(with_age), run(shuffled), strict=True):
        assert (a.metric, a.about, a.n, a.method) == (b.metric, b.about, b.n, b.method)
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-12)


def test_a_planted_gap_is_found_and_its_ends_are_named() -> None:
    case = drawn(np.random.default_rng(1), 2000, {"F": 0.3, "M": 0.6})
    outcomes = [o for o in judge(ID, run(case)) if isinstance(o, Finding)]
    assert [o.about for o in outcomes if "selection" in o.about] == ["fairness.selection_gap: sex"]
    assert "highest M" in outcomes[0].evidence[0].method
    assert "lowest F" in outcomes[0].evidence[0].method


def test_data_without_gaps_give_no_finding() -> None:
    rng, false_alarms = np.random.default_rng(2), 0
    for _ in range(300):
        case = drawn(rng, 400, {"F": 0.4, "M": 0.4})
        data = case.data("test")
        groups = {**data.groups, "region": rng.choice(list("NES"), 400)}
        case = replace(case, splits=Splits(test=replace(data, groups=groups)))
        false_alarms += any(isinstance(o, Finding) for o in judge(ID, run(case)))
    assert false_alarms <= 15  # 5 % of 300 draws with three subjects and four rates each


@pytest.mark.parametrize(("n", "rates"), [(60, (0.5, 0.5)), (120, (0.02, 0.1)), (400, (0.3, 0.6, 0.45))])
def test_the_interval_of_a_rate_gap_covers_the_truth(n: int, rates: tuple[float, ...]) -> None:
    rng = np.random.default_rng(n)
    names = [str(i) for i in range(len(rates))]
    truth, covered, draws = max(rates) - min(rates), 0, 300
    for _ in range(draws):
        case = drawn(rng, n, dict(zip(names, rates, strict=True)))
        found = gaps(run(case, min_group=10, intersections=False))[("fairness.selection_gap", "sex")]
        covered += found.low <= truth <= found.high
    assert covered / draws >= 0.935


@pytest.mark.parametrize("base", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("spread", [0.0, 0.8, 3.0])
@pytest.mark.parametrize("n", [30, 300])
def test_the_interval_of_a_calibration_gap_covers_the_truth(base: float, spread: float, n: int) -> None:
    # spread 0: one score for all; else scores that the labels follow. Group 1's labels come 5 % oftener.
    rng = np.random.default_rng(int(1000 * base + 10 * spread + n))
    truth = 0.05 * (1 - np.mean(1 / (1 + np.exp(-(np.log(base / (1 - base)) + spread * _NORMAL)))))
    covered, draws = 0, 400
    for _ in range(draws):
        bias, hits = [], []
        for shift in (0.0, 0.05, 0.0):
            score = 1 / (1 + np.exp(-(np.log(base / (1 - base)) + spread * rng.standard_normal(n))))
            hit = rng.random(n) < score * (1 - shift) + shift
            hits.append(hit)
            bias.append(hit - score)
        found = calibration_gap(bias, hits)
        covered += found.low <= truth <= found.high
    assert covered / draws >= 0.935


_NORMAL = np.random.default_rng(0).standard_normal(200_000)


def test_scores_that_have_nothing_to_do_with_labels_are_covered_too() -> None:
    rng, covered = np.random.default_rng(5), 0
    for _ in range(500):
        hits = [rng.random(50) < 0.02 for _ in range(2)]
        bias = [hit - rng.integers(0, 2, 50) for hit in hits]
        found = calibration_gap(bias, hits)
        covered += found.low <= 0.0 <= found.high
    assert covered / 500 >= 0.935


def test_thin_groups_are_left_out_and_named() -> None:
    rng = np.random.default_rng(3)
    case = drawn(rng, 300, {"F": 0.5, "M": 0.5})
    sex = case.data("test").groups["sex"].astype("U8")
    sex[:7] = "X"
    evidence = run(replace(case, splits=Splits(test=replace(case.data("test"), groups={"sex": sex}))))
    note = next(e for e in evidence if e.metric == "fairness.left_out")
    assert "X (n = 7)" in note.method
    assert gaps(evidence)[("fairness.selection_gap", "sex")].n == 293


def test_too_little_data_is_inconclusive_and_never_clean() -> None:
    case = drawn(np.random.default_rng(4), 40, {"F": 0.5, "M": 0.5})
    outcomes = [o for o in judge(ID, run(case)) if o.about != "notes"]
    assert len(outcomes) == 4
    assert all(isinstance(o, Inconclusive) for o in outcomes)
    assert {(e.low, e.high) for e in gaps(run(case)).values()} == {(0.0, 1.0)}


def test_continuous_attributes_are_binned_at_recorded_edges() -> None:
    rng = np.random.default_rng(6)
    case = drawn(rng, 800, {"F": 0.5, "M": 0.5})
    age = rng.normal(40, 12, 800)
    case = replace(case, splits=Splits(test=replace(case.data("test"), groups={"age": age})))
    by_quantile = next(e for e in run(case) if e.metric == "fairness.bins")
    assert by_quantile.value == 4
    assert f"{np.quantile(age, 0.5):.6g}" in by_quantile.method
    declared = next(e for e in run(case, edges={"age": [25, 60]}) if e.metric == "fairness.bins")
    assert declared.method == "cut at 25, 60 (declared)"
    found = gaps(run(case, edges={"age": [25, 60]}, min_group=1))[("fairness.selection_gap", "age")]
    chosen = case.the_model().labels(case.data("test").x) == 1
    rates = [chosen[mask].mean() for mask in (age < 25, (age >= 25) & (age < 60), age >= 60)]
    assert found.value == pytest.approx(max(rates) - min(rates))


def test_infinite_values_fall_into_the_bins_at_the_ends() -> None:
    # Quantiles between infinities are NaN, and all rows were one group.
    age = np.concatenate([np.full(100, -np.inf), np.linspace(0, 1, 200), np.full(100, np.inf)])
    (item,) = attributes({"age": age}, edges={}, bins=4, most_values=10)
    assert [int((item.codes == code).sum()) for code in range(4)] == [150, 50, 50, 150]


def test_numbers_that_differ_late_are_groups_of_their_own() -> None:
    # Beside a missing value, 20231101.0 and 20231102.0 were one group, "2.02311e+07".
    day = np.array([20231101.0, 20231102.0, np.nan] * 40)
    (item,) = attributes({"day": day}, edges={}, bins=4, most_values=10)
    assert item.names == ("20231101.0", "20231102.0", "missing")


@pytest.mark.parametrize(
    "options", [{"min_group": 0}, {"samples": -1}, {"samples": 0}, {"bins": 1}, {"edges": {"age": ["young"]}}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    case = drawn(np.random.default_rng(0), 100, {"F": 0.3, "M": 0.6})
    case = replace(case, splits=Splits(test=replace(case.data("test"), groups={"age": np.arange(100.0)})))
    with pytest.raises(ConfigError, match="expected"):
        run(case, **options)


def test_two_attributes_are_crossed() -> None:
    # Fair in each attribute alone, unfair in their cells: (F, old) and (M, young) are chosen, the others not.
    sex, old = np.tile(["F", "M"], 400), np.repeat(["old", "young"], 400)
    chosen = (sex == "F") == (old == "old")
    case = table(chosen.astype(int), None, chosen.astype(int), {"sex": sex, "age": old})
    found = gaps(run(case))
    assert found[("fairness.selection_gap", "sex")].value == 0
    assert found[("fairness.selection_gap", "age")].value == 0
    assert found[("fairness.selection_gap", "age x sex")].value == 1


def test_with_more_than_two_classes_each_is_measured_against_the_rest() -> None:
    rng = np.random.default_rng(7)
    y = rng.integers(0, 3, 600)
    case = table(y, np.eye(3)[y], y, {"sex": rng.choice(["F", "M"], 600)}, classes=("a", "b", "c"))
    assert {about for _, about in gaps(run(case))} == {"sex, class a", "sex, class b", "sex, class c"}
    assert {about for _, about in gaps(run(case, positive="b"))} == {"sex"}
    with pytest.raises(ConfigError, match="'d'"):
        run(case, positive="d")


def test_missing_values_are_a_group_and_a_model_without_scores_says_what_is_lost() -> None:
    rng = np.random.default_rng(8)
    y = rng.integers(0, 2, 300)
    sex = np.where(rng.random(300) < 0.3, None, rng.choice(np.array(["F", "M"], dtype=object), 300))
    evidence = run(table(y, None, y, {"sex": sex}))
    assert "calibration" in next(e.method for e in evidence if e.metric == "fairness.unmeasured")
    assert "of 3 groups" in gaps(evidence)[("fairness.selection_gap", "sex")].method


def test_the_bars_beside_a_gap_give_the_gap_and_its_interval_back() -> None:
    rng = np.random.default_rng(11)
    case = drawn(rng, 900, {"F": 0.3, "M": 0.6, "X": 0.5})
    data = case.data("test")
    case = replace(case, splits=Splits(test=replace(data, groups={**data.groups, "age": rng.normal(40, 9, 900)})))
    kept: dict[str, dict[str, Any]] = {}

    def keep(name: str, arrays: Mapping[str, Any]) -> str:
        kept[name] = dict(unpack(pack(arrays)))
        return ""

    evidence = gaps(list(compare_groups(case, Lab(ID, seed=0, options=Options(), keeper=keep))))
    shown = {name: part for name, part in kept.items() if name.startswith("exhibit-")}
    assert set(shown) == {f"exhibit-{rate}_gap" for rate in ("selection", "tpr", "fpr", "calibration")}
    told = 0
    for part in shown.values():
        for i, about in enumerate(part["subjects"]):
            item, told = evidence[(part["metric"], about)], told + 1
            value, low, high, n = (np.asarray(part[f"{name}{i}"]) for name in ("value", "low", "high", "n"))
            apart = [h - lo for a, h in enumerate(high) for b, lo in enumerate(low) if a != b]
            assert item.value == pytest.approx(value.max() - value.min(), abs=1e-12)
            assert item.low == pytest.approx(max(0.0, low.max() - high.min()), abs=1e-12)
            assert item.high == pytest.approx(max(apart), abs=1e-12)
            assert item.n == n.sum()
    assert told == len(evidence) == 12
    assert shown["exhibit-selection_gap"]["names0"][0].startswith("<")  # bins keep their order


def test_one_group_is_no_gap() -> None:
    # A gap of exactly 0 was told of a single group.
    with pytest.raises(UsageError, match="at least 2 groups"):
        calibration_gap([np.zeros(40)], [np.zeros(40)])


def test_a_model_that_predicts_numbers_is_not_judged() -> None:
    case = drawn(np.random.default_rng(0), 100, {"F": 0.5, "M": 0.5})
    evidence = run(replace(case, model=replace(case.the_model(), task=Task.REGRESSION)))
    assert [e.quantity for e in evidence] == [Quantity.NOTE]


def test_replaying_the_kept_predictions_gives_the_same_evidence() -> None:
    rng = np.random.default_rng(9)
    case = drawn(rng, 500, {"F": 0.3, "M": 0.6})
    data = case.data("test")
    case = replace(case, splits=Splits(test=replace(data, groups={**data.groups, "age": rng.normal(40, 9, 500)})))
    kept: dict[str, bytes] = {}

    def keep(name: str, arrays: Mapping[str, Any]) -> str:
        kept[name] = pack(arrays)
        return f"sha256:{hash(kept[name])}"

    lab = Lab(ID, seed=3, options=Options(samples=400), keeper=keep)
    original = list(compare_groups(case, lab))
    arrays = {name: unpack(data) for name, data in kept.items()}
    assert list(replay(case, arrays, lab)) == original
    assert any(e.metric == "fairness.sampled" and e.value == 400 for e in original)
