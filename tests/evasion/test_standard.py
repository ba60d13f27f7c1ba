from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.evasion.makers import attacked, cnn, image_case, sklearn_linear, table_case, torch_linear, torch_model
from tests.evasion.test_blocks import tree_case

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.evidence import Evidence, check
from casemate.core.facets import DataKind, PluginKind, Profile
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.norms import Norm
from casemate.core.plugin import Plugin
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.core.stats import clopper_pearson
from casemate.errors import BudgetExhausted, ConfigError, Contradiction, Unavailable
from casemate.evasion import THREAT
from casemate.evasion._broken import broken_samples
from casemate.evasion.apgd import apgd_attack
from casemate.evasion.apgd_t import apgd_t_attack
from casemate.evasion.blocks import blocks_attack
from casemate.evasion.linear import linear_attack, linear_certificate
from casemate.evasion.sigma_zero import SigmaZeroOptions, sigma_zero_attack
from casemate.evasion.square import square_attack
from casemate.evasion.standard import measure_robustness
from casemate.evasion.transfer import transfer_attack
from casemate.formats.arrays import pack, unpack

PLUGINS = (apgd_attack, blocks_attack, linear_attack, linear_certificate, square_attack)


class Kept:
    """A keeper that keeps, in packed form, as an audit's folder does."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def __call__(self, name: str, arrays: Mapping[str, Any]) -> str:
        self.files[name] = pack(arrays)
        return f"sha256:{hash(self.files[name]):x}"

    def arrays(self) -> dict[str, Any]:
        return {name: unpack(data) for name, data in self.files.items() if not name.startswith("exhibit-")}

    def shown(self) -> dict[str, Any]:
        return {name: unpack(data) for name, data in self.files.items() if name.startswith("exhibit-")}


def lab_of(
    kept: Kept | None = None, *, plugins: tuple[Plugin, ...] = PLUGINS, limit: int | None = None, **options: Any
) -> Lab:
    chosen = measure_robustness.configured(Profile.QUICK, {"samples": 40, "steps": 8, "queries": 30, **options})
    return Lab(
        measure_robustness.id,
        5,
        options=chosen,
        plugins=plugins,
        meter=Meter(limit=limit),
        keeper=kept or (lambda name, arrays: ""),
    )


def measured(case: Case, lab: Lab) -> list[Evidence]:
    found = list(measure_robustness(case, lab))
    for item in found:
        check(item)
        assert item.metric in {metric.name for metric in measure_robustness.metrics}
    return found


def values(evidence: list[Evidence], metric: str, norm: str = "linf") -> dict[float, float]:
    return {
        float(e.at.get("eps", -1)): e.value
        for e in evidence
        if e.metric == f"evasion.{metric}" and e.at["norm"] == norm
    }


def test_on_a_linear_model_robust_and_certified_accuracy_meet_at_every_eps() -> None:
    case = table_case(sklearn_linear())
    evidence = measured(case, lab_of(norm=("linf", "l2"), eps=(0.02, 0.05, 0.1)))
    for norm in ("linf", "l2"):
        assert values(evidence, "robust_accuracy", norm) == values(evidence, "certified_accuracy", norm)
        assert values(evidence, "robust_curve", norm) == values(evidence, "certified_curve", norm)
        assert len(values(evidence, "robust_curve", norm)) >= 8
    robust = values(evidence, "robust_accuracy")
    assert 0 < robust[0.1] < robust[0.02] < 1


def test_a_bound_of_eps_itself_certifies_nothing_at_eps() -> None:
    # Whole numbers: the nearest wrong answer is exactly one step away. Once the row was certified and broken at 1.
    schema = Schema(DataKind.TABLE, (1,), (Feature("count", FeatureKind.INTEGER, lo=0, hi=9),))
    model = Model("m", "m", labels=lambda x: (x[:, 0] >= 5).astype(np.int64))
    x = np.array([[4.0], [3.0], [2.0]])
    case = Case(model=model, splits=Splits(test=Data(x, schema, np.zeros(3, dtype=np.int64))))

    def steps(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        yield Claim(np.arange(len(batch)), radius=5 - batch.x[:, 0])

    def up(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        near = np.flatnonzero(5 - batch.x[:, 0] <= goal.eps)
        yield Claim(near, x=np.full((len(near), 1), 5.0))

    certificate = Plugin(PluginKind.CERTIFICATE, "tests/steps", steps, THREAT, "known", norms=frozenset({Norm.LINF}))
    exact = Plugin(PluginKind.ATTACK, "tests/up", up, THREAT, "known", norms=frozenset({Norm.LINF}))
    evidence = measured(case, lab_of(plugins=(certificate, exact), eps=(0.5, 1.0, 2.0)))
    assert values(evidence, "robust_accuracy") == {0.5: 1.0, 1.0: pytest.approx(2 / 3), 2.0: pytest.approx(1 / 3)}
    assert values(evidence, "certified_accuracy") == values(evidence, "robust_accuracy")
    alone = measured(case, lab_of(plugins=(certificate,), eps=(1.0,)))
    assert values(alone, "certified_accuracy") == {1.0: pytest.approx(2 / 3)}


def test_its_numbers_are_those_of_the_closed_form() -> None:
    case = table_case(sklearn_linear(), n=40)
    exact, _ = attacked(linear_attack, case, Goal(Norm.LINF, float("inf")))
    evidence = measured(case, lab_of(eps=(0.03, 0.06, 0.3)))
    for eps, value in values(evidence, "robust_accuracy").items():
        assert value == np.mean(exact.upper > eps)
    assert values(evidence, "median_distance")[-1] == pytest.approx(np.sort(exact.upper)[20], rel=1e-9)


def test_wrong_answers_count_as_broken_and_the_curve_falls_from_clean_accuracy() -> None:
    case = image_case(torch_model(cnn()), n=60)
    wrongly = replace(
        case, splits=replace(case.splits, test=replace(case.data("test"), y=np.roll(case.data("test").labels, 1)))
    )
    for one in (case, wrongly):
        evidence = measured(one, lab_of(eps=(0.05, 0.2)))
        curve = values(evidence, "robust_curve")
        ordered = [curve[eps] for eps in sorted(curve)]
        assert ordered == sorted(ordered, reverse=True)
        assert ordered[0] <= values(evidence, "clean_accuracy")[-1]
        assert all(e.n == 40 for e in evidence if e.metric == "evasion.robust_accuracy")


def test_the_same_seed_gives_the_same_evidence() -> None:
    case = image_case(torch_model(cnn()))
    first, second = (measured(case, lab_of(norm=("linf", "l2"))) for _ in range(2))
    assert first == second


def test_the_rows_do_not_depend_on_the_seed_of_the_attacks_and_follow_the_classes() -> None:
    case = table_case(sklearn_linear())
    rows = []
    for seed in (1, 2):
        kept = Kept()
        measured(case, replace(lab_of(kept, eps=0.05), seed=seed, sampling_seed=9))
        rows.append(kept.arrays()["brackets-linf"])
    assert np.array_equal(rows[0]["sample_id"], rows[1]["sample_id"])
    counts = np.bincount(rows[0]["y"], minlength=10) / 40
    whole = np.bincount(case.data("test").labels, minlength=10) / 150
    assert np.all(np.abs(counts - whole) < 1 / 40)


@pytest.mark.parametrize("name", ["images", "forest"])
def test_the_replay_of_kept_witnesses_gives_the_same_evidence(name: str) -> None:
    case = image_case(torch_model(cnn())) if name == "images" else tree_case(forest=True)
    kept = Kept()
    evidence = measured(case, lab_of(kept, norm=("linf", "l2")))
    assert measure_robustness.replay is not None
    again = list(measure_robustness.replay(case, kept.arrays(), lab_of(kept)))
    assert {repr(item) for item in again} == {repr(item) for item in evidence}


def test_a_witness_that_no_longer_holds_is_not_counted_in_a_replay() -> None:
    case = table_case(sklearn_linear())
    kept = Kept()
    measured(case, lab_of(kept, eps=0.2))
    arrays = kept.arrays()
    before = np.isfinite(arrays["brackets-linf"]["upper"]).sum()
    stubborn = replace(case, model=replace(case.the_model(), labels=lambda x: np.zeros(len(x), dtype=np.int64)))
    assert measure_robustness.replay is not None
    found = values(list(measure_robustness.replay(stubborn, arrays, lab_of())), "robust_accuracy")
    assert before > 30
    assert found[0.2] > 0  # the rows of class 0 cannot be broken on a model that always says 0


def test_the_values_for_a_paired_comparison_have_the_evidence_as_their_mean() -> None:
    case = image_case(torch_model(cnn()))
    kept = Kept()
    evidence = measured(case, lab_of(kept, eps=(0.03, 0.1)))
    for item in evidence:
        if item.metric == "evasion.robust_accuracy":
            assert measure_robustness.paired is not None
            ids, stands = measure_robustness.paired(kept.arrays(), item)
            assert len(ids) == item.n
            assert stands.mean() == pytest.approx(item.value)


@pytest.mark.parametrize("limit", [0, 40, 200, 1000])
def test_a_budget_that_ends_leaves_valid_evidence_says_so_and_stays_undecided(limit: int) -> None:
    case = image_case(torch_model(cnn()))
    lab = lab_of(limit=limit, eps=(0.02, 0.05))
    found = measure_robustness(case, lab)
    evidence = list(itertools.takewhile(lambda e: e.metric != "evasion.backwards", found))
    with pytest.raises(BudgetExhausted, match="not fully attacked"):
        list(found)
    free = values(measured(case, lab_of(eps=(0.02, 0.05))), "robust_accuracy")
    short = values(evidence, "robust_accuracy")
    assert all(short[eps] >= free[eps] for eps in free)
    assert max(values(evidence, "unfinished").values()) > 0
    curve = {float(e.at["eps"]): (e.low, e.high) for e in evidence if e.metric == "evasion.robust_curve"}
    for item in (e for e in evidence if e.metric == "evasion.robust_accuracy"):
        open_ = round(values(evidence, "unfinished")[float(item.at["eps"])])
        least = clopper_pearson(max(round(item.value * item.n) - open_, 0), item.n)
        assert item.low <= least.low + 1e-12  # whoever was not fully attacked may fall
        assert (f"{open_} not fully attacked" in item.method) == (open_ > 0)
        assert curve[float(item.at["eps"])] == (item.low, item.high)


def test_a_forest_without_gradients_is_attacked_by_its_scores_and_one_without_scores_is_refused() -> None:
    case = tree_case(forest=True)
    evidence = measured(case, lab_of(eps=(0.3, 1.0)))
    assert values(evidence, "robust_accuracy")[1.0] < values(evidence, "clean_accuracy")[-1]
    assert {e.at["by"] for e in evidence if e.metric == "evasion.stage_successes"} <= {"clean", "evasion/blocks"}
    silent = replace(case, model=replace(case.the_model(), scores=None))
    with pytest.raises(Unavailable, match="scores or gradients"):
        measured(silent, lab_of())


def test_cheap_stages_spare_the_dear_ones() -> None:
    """On an affine model the certificate and the closed form decide everything: no gradient is taken."""
    evidence = measured(image_case(torch_linear()), lab_of(eps=(0.05, 0.1)))
    assert values(evidence, "backwards")[-1] == 0
    assert {e.at["by"] for e in evidence if e.metric == "evasion.stage_successes"} <= {"clean", "evasion/linear"}


def test_a_false_certificate_fails_the_probe() -> None:
    def false_proof(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        yield Claim(np.arange(0, len(batch), 2), radius=np.full((len(batch) + 1) // 2, 0.04))

    fake = Plugin(PluginKind.CERTIFICATE, "tests/fake", false_proof, THREAT, "malice", norms=frozenset({Norm.LINF}))
    with pytest.raises(Contradiction, match="tests/fake"):
        # What it certified to 0.04 is only looked at beyond; drawing witnesses closer then passes below.
        measured(image_case(torch_model(cnn())), lab_of(plugins=(fake, apgd_attack), eps=(0.05, 0.3)))


@pytest.mark.parametrize("eps", [0.0, -1.0, (), (0.1, float("inf")), float("nan")])
def test_radii_that_are_none_are_refused(eps: object) -> None:
    with pytest.raises(ConfigError, match="positive numbers"):
        measured(table_case(sklearn_linear()), lab_of(eps=eps))


def test_importing_the_room_does_not_load_torch() -> None:
    code = (
        "import sys, casemate.evasion.standard, casemate.evasion.apgd, casemate.evasion.square; "
        "import casemate.evasion.blocks, casemate.evasion.linear; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_a_forest_is_audited_where_torch_is_not_installed() -> None:
    """`sys.modules["torch"] = None` makes every import of it fail, as on a machine without it."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from casemate.core.case import Case\n"
        "from casemate.core.data import Data, Splits\n"
        "from casemate.core.facets import DataKind\n"
        "from casemate.core.lab import Lab\n"
        "from casemate.core.model import Model\n"
        "from casemate.core.schema import Feature, Schema\n"
        "from casemate.evasion.blocks import blocks_attack\n"
        "from casemate.evasion.standard import StandardOptions, measure_robustness\n"
        "x = np.linspace(-1, 1, 20)[:, None]; y = (x[:, 0] > 0).astype(int)\n"
        "scores = lambda a: np.column_stack([a[:, 0] <= 0, a[:, 0] > 0]).astype(float)\n"
        "model = Model('m', 'm', labels=lambda a: scores(a).argmax(1), scores=scores)\n"
        "data = Data(x, Schema(DataKind.TABLE, (1,), (Feature('f', lo=-1.0, hi=1.0),)), y)\n"
        "lab = Lab('evasion/standard', 0, options=StandardOptions(eps=0.5, queries=30), plugins=(blocks_attack,))\n"
        "found = list(measure_robustness(Case(model=model, splits=Splits(test=data)), lab))\n"
        "print([e.value for e in found if e.metric == 'evasion.robust_accuracy'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[0.5]", done.stderr


@pytest.mark.parametrize("name", ["images", "forest"])
def test_the_broken_samples_nearest_to_their_originals_are_shown_once_a_norm(name: str) -> None:
    case = image_case(torch_model(cnn())) if name == "images" else tree_case(forest=True)
    kept = Kept()
    measured(case, lab_of(kept, norm=("linf", "l2"), eps=(0.3, 1.0)))
    for norm in ("linf", "l2"):
        shown, found = kept.shown()[f"exhibit-broken-{norm}"], kept.arrays()[f"brackets-{norm}"]
        assert shown["about"] == norm
        assert shown["exhibit"] == ("pictures" if name == "images" else "rows")
        assert 1 <= len(shown["was"]) <= 6
        assert all(was != now for was, now in zip(shown["was"], shown["now"], strict=True))
        broken = (found["upper"] > 0) & (found["upper"] <= 1.0)
        assert len(set(shown["was"])) == min(6, len(np.unique(found["y"][broken])))
    if name == "forest":
        assert set(shown["original"][:, 2]) <= {"a", "b", "c"}


def test_an_exhibit_reads_as_people_write() -> None:
    features = (
        Feature("pay", lo=0, hi=1e6),
        Feature("age", FeatureKind.INTEGER),
        Feature("job", FeatureKind.CATEGORY, categories=("clerk", "cook")),
        Feature("rate", missing_ok=True),
    )
    schema = Schema(DataKind.TABLE, (4,), features)
    x = np.array([[51234.5678, 40, 1, np.nan], [1.23456, 12345, 0, 0.5]])
    model = Model("m", "m", labels=lambda a: (a[:, 0] > 100).astype(int), classes=("no", "yes"))
    case = Case(model=model, splits=Splits(test=Data(x, schema, np.array([1, 0]))))
    witness = x.copy()
    witness[:, 0] = [99, 101]
    kept = {"upper": np.array([0.3, 0.2]), "eps": np.array([0.5]), "y": np.array([1, 0]), "norm": "linf"}
    shown = broken_samples(case, {**kept, "sample_id": case.data("test").sample_id, "witness": witness})
    assert shown is not None
    assert shown["original"].tolist() == [["1.235", "12,345", "clerk", "0.5"], ["51,234.57", "40", "cook", "missing"]]
    assert (shown["was"], shown["now"]) == (["no", "yes"], ["yes", "no"])
    assert broken_samples(case, {**kept, "eps": np.array([0.1]), "sample_id": np.arange(2), "witness": x}) is None


EIGHT = tuple(0.02 * k for k in range(1, 9))


def total(evidence: list[Evidence]) -> float:
    return sum(item.value for item in evidence if item.metric in ("evasion.forwards", "evasion.backwards"))


def test_eight_radii_cost_at_most_twice_the_dearest_one_and_say_what_eight_runs_say() -> None:
    case = image_case(torch_model(cnn()), n=80)
    told: dict[str, Any] = {"samples": 80, "steps": 50, "effort": "standard", "plugins": (apgd_attack, apgd_t_attack)}
    alone = [measured(case, lab_of(eps=eps, **told)) for eps in EIGHT]
    curve = measured(case, lab_of(eps=EIGHT, **told))
    assert total(curve) <= 2 * max(map(total, alone))
    together = values(curve, "robust_accuracy")
    apart = [values(run, "robust_accuracy")[eps] for run, eps in zip(alone, EIGHT, strict=True)]
    assert together == pytest.approx(dict(zip(EIGHT, apart, strict=True)), abs=2 / 80)
    assert 0.1 < apart[2] < 0.9


def test_where_attacks_get_lost_in_large_balls_every_row_is_attacked_in_the_small_ones_too() -> None:
    case = image_case(torch_linear(), n=40)

    def lost(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        if goal.eps < 0.2:
            yield from apgd_attack(case, batch, goal, lab)

    plugin = replace(apgd_attack, id="evasion/lost", function=lost)
    found = values(measured(case, lab_of(eps=(0.1, 0.15, 0.5), plugins=(plugin,))), "robust_accuracy")
    honest = values(measured(case, lab_of(eps=(0.1, 0.15, 0.5), plugins=(apgd_attack,))), "robust_accuracy")
    assert found[0.15] == pytest.approx(honest[0.15], abs=0.05)
    assert found[0.5] == found[0.15]  # what is broken within a smaller ball is broken within a larger one


def test_where_no_attack_knows_a_ball_the_one_that_needs_none_looks_at_every_row() -> None:
    model, options = torch_model(cnn()), SigmaZeroOptions(steps=60)
    alone, _ = attacked(sigma_zero_attack, image_case(model, n=40), Goal(Norm.L0, float("inf")), options=options)
    order = np.argsort(-alone.upper, kind="stable")  # those that stand longest first: an alarm on them is silent
    eps = float(np.median(alone.upper))
    assert (alone.upper[order][:8] > eps).all()
    case = image_case(model, n=40)
    case = replace(case, splits=Splits(test=case.data("test").take(order)))
    told = measured(case, lab_of(norm="l0", eps=eps, steps=60, plugins=(sigma_zero_attack, apgd_attack)))
    assert values(told, "robust_accuracy", norm="l0") == {eps: pytest.approx(np.mean(alone.upper > eps))}


def test_borrowed_gradients_do_not_turn_who_asks_the_model_itself_into_an_alarm() -> None:
    case = replace(tree_case(forest=True), surrogates=(torch_linear(),))
    asked: list[int] = []

    def counting(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        asked.append(len(batch))
        yield from ()

    searching = replace(blocks_attack, function=counting)
    idle = replace(transfer_attack, function=lambda case, batch, goal, lab: iter(()))
    measured(case, lab_of(eps=0.1, plugins=(idle, searching)))
    assert asked == [sum(asked)]  # once, and all that stood
    assert asked[0] > 4
