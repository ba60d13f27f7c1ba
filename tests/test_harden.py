"""Hardening: a real remedy is accepted; what masks, ruins another room, breaks or does nothing is refused, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from casemate import catalog
from casemate._audit import Order, Place
from casemate._compare import Difference
from casemate._harden import Hardened, assess, harden
from casemate.adapters import wrap
from casemate.core.case import Candidate, Case, Recipe
from casemate.core.data import Data, Splits
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import DataKind, Facet, PluginKind, Profile
from casemate.core.judgement import GateResult, Ruling, Status, judge
from casemate.core.metering import unmetered
from casemate.core.model import Model
from casemate.core.outcome import Clean, Failed, Finding, Outcome, Severity, Skipped, SkipReason
from casemate.core.plugin import Plugin
from casemate.core.policy import Policy
from casemate.core.report import Report
from casemate.core.schema import Feature, Schema
from casemate.core.stats import Interval
from casemate.engine.bundles import bundle_of
from casemate.engine.masking import signs_of_masking
from casemate.engine.trainers import TorchRecipe, recipe_of
from casemate.errors import UsageError
from casemate.evasion import THREAT

PIXELS = Schema(DataKind.IMAGE, (1, 8, 8), (Feature("pixel", lo=0.0, hi=1.0),))
CLASSES = ("0", "1", "2", "3")
OPTIONS: dict[str, dict[str, Any]] = {
    "evasion/standard": {"eps": 0.15, "samples": 60, "steps": 8, "queries": 10},
    "evasion/adversarial_training": {"eps": 0.15, "epochs": 15},
    "privacy/shadow_pool": {"models": 4, "rows": 200},
}
EVASION = Order(profile=Profile.QUICK, options=OPTIONS, only=("evasion",))
WITH_PRIVACY = replace(EVASION, only=("evasion", "privacy"))

Make = Callable[[Case], Model]


def small_net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))


@pytest.fixture(scope="module")
def digits() -> Case:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = (x[y < 4] / 16).astype(np.float32).reshape(-1, 1, 8, 8), y[y < 4].astype(np.int64)
    whole = Data(x, PIXELS, y=y)
    splits = Splits(train=whole.take(np.arange(400)), test=whole.take(np.arange(400, 600)))
    recipe = recipe_of(TorchRecipe(small_net, epochs=10, lr=5e-3, batch=32, classes=CLASSES))
    model = recipe.fit(splits.parts()["train"], {}, np.random.default_rng(0))
    return Case(name="digits", model=model, bundle=bundle_of(model, PIXELS), splits=splits, recipe=recipe)


@pytest.fixture(scope="module")
def remedied(digits: Case, tmp_path_factory: pytest.TempPathFactory) -> Hardened:
    place = Place(output=tmp_path_factory.mktemp("hardened"))
    return harden(digits, EVASION, place, only=("evasion/adversarial_training",))


def robust_net(remedied: Hardened) -> nn.Module:
    assert remedied.case.model is not None
    module: nn.Module = remedied.case.model.module
    return module


def planted(function: Callable[..., Any], *needs: Facet) -> Plugin:
    return Plugin(PluginKind.HARDENING, "planted/remedy", function, THREAT, "planted by this test", frozenset(needs))


def proposing(make: Make, **more: Any) -> Plugin:
    def remedy(case: Case, findings: tuple[Outcome, ...], lab: object) -> Candidate:
        del findings, lab
        return Candidate(make(case), "a planted remedy", {}, **more)

    return planted(remedy)


def tried(case: Case, plugin: Plugin, tmp_path: Path, order: Order = EVASION) -> str:
    """Try one planted hardening, which has to be refused; the reasons."""
    result = harden(case, order, Place(output=tmp_path), plugins=(*catalog.plugins(), plugin), only=(plugin.id,))
    (trial,) = result.trials
    assert not trial.accepted
    assert not result.improved
    assert result.case is case
    return "; ".join(trial.reasons)


def wrapped(module: nn.Module) -> Model:
    return wrap(module.eval(), classes=CLASSES, schema=PIXELS)


# ------------------------------------------------------------------------------------------------- what is accepted


def test_a_real_remedy_is_accepted_and_resists_more(digits: Case, remedied: Hardened) -> None:
    (trial,) = remedied.trials
    assert trial.accepted, trial.reasons
    assert any("evasion.robust_accuracy" in reason and "got better" in reason for reason in trial.reasons)
    assert remedied.case.model is not digits.model
    robust = [d for d in trial.differences if d.metric == "evasion.robust_accuracy"]
    assert [(d.paired, d.n) for d in robust] == [(True, 60)]
    assert robust[0].low > 0.05
    assert remedied.case.surrogates == ()  # the models before are lent to the attacker, they are no part of the case


def test_a_second_remedy_is_measured_against_the_first_and_all_models_before_are_lent(
    digits: Case, tmp_path: Path
) -> None:
    lent: list[int] = []

    def spy(case: Case, lab: object) -> Any:
        del lab
        lent.append(len(case.surrogates))
        yield Metric("spy.note", Quantity.NOTE, Direction.EXACT).measured(0.0, method="counted", n=1)

    note = (Metric("spy.note", Quantity.NOTE, Direction.EXACT),)
    probe = Plugin(PluginKind.PROBE, "spy/surrogates", spy, THREAT, "planted", metrics=note)
    nothing = proposing(lambda case: case.the_model())
    order = replace(EVASION, only=("evasion", "spy"))
    result = harden(
        digits,
        order,
        Place(output=tmp_path),
        plugins=(*catalog.plugins(), probe, nothing),
        only=("evasion/adversarial_training", nothing.id),
    )
    assert [trial.accepted for trial in result.trials] == [True, False]
    assert result.case is result.trials[0].case
    assert lent == [0, 1, 2]


# --------------------------------------------------------------------------------------- what only hides its gradients


class Quantised(nn.Module):
    def __init__(self, inner: nn.Module, levels: int = 64) -> None:
        super().__init__()
        self.inner, self.levels = inner, levels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.inner(torch.round(x * self.levels) / self.levels)
        return answer


class Scaled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1e4 * self.inner(x)


class Argmax(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(self.inner(x).argmax(dim=1), 4).to(x.dtype)


class Noisy(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.inner(x + 0.3 * torch.randn_like(x))
        return answer


class Steep(nn.Module):
    """Adds a fast ripple: the gradient is that of the ripple, whose height is negligible."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.inner(x + 0.01 * torch.sin(1e5 * x))
        return answer


def net_of(case: Case) -> nn.Module:
    module: nn.Module = case.the_model().module
    return module


def labels_only(case: Case) -> Model:
    net = Quantised(net_of(case))

    def answer(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.tensor(x)).argmax(dim=1).numpy()

    return wrap(answer, classes=CLASSES, schema=PIXELS)


def decoy(case: Case) -> Model:
    """Answers like the model before, and shows attackers the gradients of an untrained net."""
    torch.manual_seed(0)
    return replace(unmetered(case.the_model()), module=small_net(), digest="sha256:" + "d" * 64)


MASKS: dict[str, tuple[Make, str]] = {
    "input rounded": (lambda case: wrapped(Quantised(net_of(case))), "gradients lead nowhere"),
    "input rounded coarsely": (lambda case: wrapped(Quantised(net_of(case), 4)), "gradients lead nowhere"),
    "softmax saturated": (lambda case: wrapped(Scaled(net_of(case))), "evasion.saturated_loss"),
    "one-hot answers": (lambda case: wrapped(Argmax(net_of(case))), "gradients lead nowhere"),
    "noise": (lambda case: wrapped(Noisy(net_of(case))), "differently each time"),
    "ripple": (lambda case: wrapped(Steep(net_of(case))), "gradients lead nowhere"),
    "only labels left": (labels_only, "no longer offers gradients, logits, scores"),
    "decoy": (decoy, "gradients lead nowhere"),
}


@pytest.mark.parametrize("name", MASKS)
def test_what_only_hides_its_gradients_is_refused(digits: Case, name: str, tmp_path: Path) -> None:
    make, reason = MASKS[name]
    assert reason in tried(digits, proposing(make), tmp_path)


def test_borrowed_gradients_break_what_is_masked_even_where_no_sign_is_looked_for(
    digits: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("casemate._harden.signs_of_masking", lambda *_: ())
    # 64 levels: with 16, which is what the digits are drawn in, the net really sees less of an eps of 0.15.
    reasons = tried(digits, proposing(lambda case: wrapped(Quantised(net_of(case), 64))), tmp_path)
    assert "evasion.misleading_gradients" in reasons
    assert "got better" not in reasons


def test_a_trained_net_shows_no_sign_of_masking_against_another(digits: Case, remedied: Hardened) -> None:
    rng = np.random.default_rng(0)
    before, after = digits.the_model(), remedied.case.the_model()
    for one, two in ((before, after), (after, before)):
        assert signs_of_masking(one, two, digits.data("test"), rng) == ()


def test_hidden_gradients_behind_a_robust_net_are_refused_too(digits: Case, remedied: Hardened, tmp_path: Path) -> None:
    robust = robust_net(remedied)
    assert "gradients lead nowhere" in tried(digits, proposing(lambda case: wrapped(Quantised(robust))), tmp_path)


# --------------------------------------------------------------------------------------------- what ruins another room


class Memorising(nn.Module):
    """A robust net that recognises its training rows and is very sure of those."""

    def __init__(self, inner: nn.Module, known: torch.Tensor, labels: torch.Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("known", known.flatten(1))
        self.register_buffer("labels", labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        far = torch.cdist(x.flatten(1), self.known)
        met = (far.min(dim=1).values < 1e-2).to(x.dtype)[:, None]
        sure = 40 * nn.functional.one_hot(self.labels[far.argmin(dim=1)], 4).to(x.dtype)
        answer: torch.Tensor = self.inner(x) + met * sure
        return answer


def test_one_that_resists_more_but_remembers_its_training_rows_is_refused_and_the_room_named(
    digits: Case, remedied: Hardened, tmp_path: Path
) -> None:
    robust = robust_net(remedied)
    train = digits.data("train")

    def make(case: Case) -> Model:
        return wrapped(Memorising(robust, torch.tensor(train.x), torch.tensor(train.labels)))

    reasons = tried(digits, proposing(make), tmp_path, WITH_PRIVACY)
    assert "privacy got worse" in reasons
    assert "privacy.membership_auc" in reasons


def test_one_that_makes_the_evidence_of_another_room_vanish_is_refused(
    digits: Case, remedied: Hardened, tmp_path: Path
) -> None:
    def refuses(data: Data, init: object, rng: object) -> Model:
        raise RuntimeError("no shadow model can be trained")

    plugin = proposing(lambda case: remedied.case.the_model(), recipe=Recipe(refuses, "sha256:0"))
    reasons = tried(digits, plugin, tmp_path, WITH_PRIVACY)
    assert "privacy/membership can no longer be measured" in reasons


def test_one_that_loses_too_much_clean_accuracy_is_refused(digits: Case, remedied: Hardened, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reasons = tried(digits, proposing(lambda case: wrapped(small_net())), tmp_path)
    assert "clean_accuracy" in reasons


# ---------------------------------------------------------------------------------------- what breaks, or does nothing


def test_one_that_raises_is_a_refused_trial(digits: Case, tmp_path: Path) -> None:
    def remedy(case: Case, findings: object, lab: object) -> Candidate:
        raise ZeroDivisionError("of all things")

    assert "could not be applied: ZeroDivisionError: of all things" in tried(digits, planted(remedy), tmp_path)


def test_one_that_returns_no_candidate_is_a_refused_trial(digits: Case, tmp_path: Path) -> None:
    assert "expected a candidate" in tried(digits, planted(lambda case, findings, lab: case.the_model()), tmp_path)


def test_one_that_asks_for_the_test_split_does_not_get_it(digits: Case, tmp_path: Path) -> None:
    seen: list[set[str]] = []

    def remedy(case: Case, findings: object, lab: object) -> Candidate:
        seen.append(set(case.splits.parts()))
        return Candidate(case.the_model(), str(len(case.data("test"))), {})

    assert "expected test data, got none" in tried(digits, planted(remedy), tmp_path)
    assert seen == [{"train"}]


def test_one_whose_model_cannot_answer_is_a_refused_trial(digits: Case, tmp_path: Path) -> None:
    def broken(x: np.ndarray) -> np.ndarray:
        raise RuntimeError("no answer")

    make: Make = lambda case: replace(unmetered(case.the_model()), logits=broken, digest="x")  # noqa: E731
    assert "could not be applied: RuntimeError" in tried(digits, proposing(make), tmp_path)


def test_one_that_changes_nothing_is_refused(digits: Case, tmp_path: Path) -> None:
    assert "nothing became clearly better" in tried(digits, proposing(lambda case: case.the_model()), tmp_path)


@pytest.mark.parametrize("anew", [True, False])
def test_a_new_model_is_not_judged_by_the_file_of_the_old_one(anew: bool, digits: Case, tmp_path: Path) -> None:
    def make(case: Case) -> Model:
        model = unmetered(case.the_model())
        return replace(model, digest="sha256:" + "0" * 64) if anew else model

    filed, plugin = replace(digits, files=(Path(__file__),)), proposing(make)
    known = (*catalog.plugins(), plugin)
    (trial,) = harden(filed, EVASION, Place(output=tmp_path), plugins=known, only=(plugin.id,)).trials
    assert trial.case is not None
    assert trial.case.files == (() if anew else filed.files)


def test_a_case_that_no_remedy_fits_is_a_usage_error(digits: Case, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name a recipe and train data"):
        harden(replace(digits, recipe=None), EVASION, Place(output=tmp_path))


# ------------------------------------------------------------------------------------------------- the laws of `assess`

METRICS = {
    "evasion.robust_accuracy": Metric("evasion.robust_accuracy", Quantity.ROBUSTNESS, Direction.TOO_HIGH),
    "privacy.membership_auc": Metric("privacy.membership_auc", Quantity.AUC, Direction.TOO_LOW),
    "fairness.tpr_gap": Metric("fairness.tpr_gap", Quantity.RATE_GAP, Direction.EXACT),
}


def evidence(metric: str, value: float, width: float) -> Evidence:
    low, high = max(0.0, value - width), min(1.0, value + width)
    return METRICS[metric].measured(Interval(value, low, high, 100, 0.95, "made up"), method="made up")


def report(outcomes: tuple[Outcome, ...], *gates: GateResult) -> Report:
    ruling = Ruling(Status.PASSED, gates)
    return Report("r", "", "", {}, 0, {}, {}, Policy(), ruling, outcomes, {}, {})  # type: ignore[arg-type]


def judged(values: dict[str, tuple[float, float]]) -> tuple[Outcome, ...]:
    found: list[Outcome] = []
    for metric, (value, width) in values.items():
        found += judge(metric.replace(".", "/"), [evidence(metric, value, width)])
    return tuple(found)


def differences(a: Report, b: Report) -> list[Difference]:
    pairs = zip(_items(a), _items(b), strict=True)
    return [
        Difference(x.metric, "", "", x.value, y.value, y.low - x.high, y.high - x.low, 100, False) for x, y in pairs
    ]


def _items(one: Report) -> list[Evidence]:
    return sorted((e for o in one.outcomes for e in o.evidence), key=lambda e: e.metric)


numbers = st.fixed_dictionaries({name: st.tuples(st.floats(0, 1), st.floats(0, 0.2)) for name in METRICS})


def worst(one: Report, room: str) -> int:
    ranks = [o.severity.rank for o in one.outcomes if isinstance(o, Finding) and o.plugin.startswith(room)]
    return max(ranks, default=Severity.NONE.rank)


@given(before=numbers, after=numbers)
def test_a_candidate_with_any_rooms_severity_raised_is_never_accepted(
    before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]
) -> None:
    a, b = report(judged(before)), report(judged(after))
    reasons = assess(a, b, differences(a, b))
    raised = [room for room in ("evasion", "privacy", "fairness") if worst(b, room) > worst(a, room)]
    for room in raised:
        assert any(reason.startswith(f"{room} got worse") for reason in reasons)
    if raised:
        assert reasons


@given(before=numbers, after=numbers, trouble=st.sampled_from(["failed", "budget", "unavailable", "silent"]))
def test_a_candidate_that_leaves_a_room_unmeasured_is_never_accepted(
    before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]], trouble: str
) -> None:
    a = report(judged(before))
    kept = judged({name: value for name, value in after.items() if not name.startswith("privacy")})
    plugin = "privacy/membership_auc"
    ends: dict[str, tuple[Outcome, ...]] = {
        "failed": (Failed(plugin, "error"),),
        "budget": (Skipped(plugin, SkipReason.BUDGET, "ended"),),
        "unavailable": (Skipped(plugin, SkipReason.UNAVAILABLE, "gone"),),
        "silent": (Skipped(plugin, SkipReason.NOT_APPLICABLE, "does not apply any more"),),
    }
    b = report((*kept, *ends[trouble]))
    assert any("no longer" in reason for reason in assess(a, b, []))


@given(values=numbers)
def test_the_same_numbers_are_never_accepted(values: dict[str, tuple[float, float]]) -> None:
    a = report(judged(values))
    assert assess(a, a, differences(a, a)) == ("nothing became clearly better",)


@given(before=numbers, after=numbers)
def test_what_is_accepted_is_clearly_better_somewhere_and_clearly_worse_nowhere(
    before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]
) -> None:
    a, b = report(judged(before)), report(judged(after))
    found = differences(a, b)
    if not assess(a, b, found):
        good = {"evasion.robust_accuracy": 1, "privacy.membership_auc": -1, "fairness.tpr_gap": -1}
        gains = {d.metric: good[d.metric] * d.value for d in found}
        assert max(gains.values()) > 0
        assert min(gains.values()) >= -0.05
        assert not any(d.clear and gains[d.metric] < 0 for d in found)


@pytest.mark.parametrize("status", [Status.FAILED, Status.UNDECIDED])
def test_a_gate_that_passed_has_to_pass_again(status: Status) -> None:
    values = {"evasion.robust_accuracy": (0.2, 0.01)}
    better = {"evasion.robust_accuracy": (0.9, 0.01)}
    gate = GateResult("evasion.clean_accuracy at least 0.98", Status.PASSED, "measured")
    a = report(judged(values), gate)
    assert assess(a, report(judged(better), gate), differences(a, report(judged(better)))) == ()
    now = report(judged(better), replace(gate, status=status))
    assert "at least 0.98" in assess(a, now, differences(a, now))[0]


def test_a_clean_outcome_that_is_still_clean_is_no_reason() -> None:
    a = report((Clean("preflight/dtype"), *judged({"evasion.robust_accuracy": (0.2, 0.01)})))
    b = report((Clean("preflight/dtype"), *judged({"evasion.robust_accuracy": (0.8, 0.01)})))
    assert assess(a, b, differences(a, b)) == ()
