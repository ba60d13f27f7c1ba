"""Masking: each defence that hides its gradients is told from an ordinary net, by signs with intervals."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tests.evasion.makers import cnn, digits, image_case, table_case, torch_linear, torch_model
from tests.evasion.test_standard import Kept
from torch import nn

from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.evidence import Direction, Evidence, Quantity, check
from casemate.core.facets import DataKind, Profile
from casemate.core.judgement import judge
from casemate.core.lab import Lab
from casemate.core.model import Task
from casemate.core.outcome import Finding, Inconclusive, Severity
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.core.stats import clopper_pearson
from casemate.errors import BudgetExhausted, ConfigError
from casemate.evasion.masking import find_masking

ROWS = 400


class Before(nn.Module):
    """A net behind a change of its input."""

    def __init__(self, change: Any, net: nn.Module | None = None) -> None:
        super().__init__()
        self.change, self.net = change, cnn() if net is None else net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.net(self.change(x))
        return answer


class After(Before):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.change(self.net(x))
        return answer


def rounded(x: torch.Tensor) -> torch.Tensor:
    return torch.round(3 * x) / 3


def straight(x: torch.Tensor) -> torch.Tensor:
    return x + (rounded(x) - x).detach()


def shuffled(x: torch.Tensor) -> torch.Tensor:
    """A little of what 40 rounds of the logistic map make of the input: nearly the same image, another gradient."""
    h = 0.1 + 0.8 * x
    for _ in range(40):
        h = 4 * h * (1 - h)
    return x + 0.01 * h


def thermometer(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([(x > level / 10 + 0.05).to(x.dtype) for level in range(10)]).mean(dim=0)


def lab_of(kept: Kept | None = None, *, limit: int | None = None, seed: int = 5, **options: Any) -> Lab:
    chosen = find_masking.configured(Profile.STANDARD, options)
    nothing = kept or (lambda name, arrays: "")
    return Lab(find_masking.id, seed, options=chosen, meter=Meter(limit=limit), keeper=nothing)


def measured(module: nn.Module, **options: Any) -> list[Evidence]:
    return list(find_masking(image_case(torch_model(module), n=ROWS), lab_of(**options)))


def named(item: Evidence) -> str:
    return item.metric.partition(".")[2]


def found(evidence: list[Evidence]) -> set[str]:
    outcomes = judge(find_masking.id, evidence)
    return {outcome.about.partition(".")[2] for outcome in outcomes if isinstance(outcome, Finding)}


@cache
def honest() -> dict[str, nn.Module]:
    """A convolutional net, logistic regression, and a net of two layers."""
    x, y = digits()
    torch.manual_seed(1)
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    step = torch.optim.Adam(mlp.parameters(), 1e-2)
    inputs, labels = torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(y)
    for part in [rows for _ in range(4) for rows in torch.randperm(len(x)).split(64)]:
        step.zero_grad()
        nn.functional.cross_entropy(mlp(inputs[part]), labels[part]).backward()
        step.step()
    return {"cnn": cnn(), "logistic": torch_linear().module, "mlp": mlp.eval()}


def rounding_case() -> Case:
    return image_case(torch_model(Before(rounded)), n=ROWS)


@cache
def rounding() -> tuple[Kept, tuple[Evidence, ...], int]:
    """What is kept, said and spent on the net that rounds its input to four levels."""
    kept = Kept()
    lab = lab_of(kept)
    return kept, tuple(find_masking(rounding_case(), lab)), lab.meter.spent.propagations


@pytest.mark.parametrize("name", ["cnn", "logistic", "mlp"])
def test_an_ordinary_net_shows_no_sign(name: str) -> None:
    evidence = measured(honest()[name])
    assert found(evidence) == set()
    shares = [item for item in evidence if item.quantity is not Quantity.NOTE]
    assert len(shares) == 10
    assert all(item.value <= 0.05 for item in shares)
    assert all(item.errs is Direction.TOO_LOW and "not to be trusted" in item.says and item.mend for item in shares)


@pytest.mark.parametrize(
    ("module", "signs"),
    [
        (lambda: Before(thermometer), {"vanishing_gradients", "search_beats_gradients"}),
        (lambda: Before(shuffled), {"misleading_gradients", "search_beats_gradients"}),
        (lambda: After(lambda z: 1000 * z), {"saturated_loss"}),
        (lambda: After(lambda z: (30 * z).softmax(1)), {"vanishing_gradients"}),
        (lambda: Before(lambda x: x + 0.1 * torch.randn_like(x)), {"random_answers"}),
        (lambda: Before(lambda x: nn.functional.dropout(x, 0.2, training=True)), {"random_answers"}),
        (lambda: Before(lambda x: x + torch.sqrt(x - x)), {"exploding_gradients"}),
    ],
    ids=["thermometer", "chaos", "scale", "softmax", "noise", "dropout", "not a number"],
)
def test_each_masked_model_shows_its_signs(module: Any, signs: set[str]) -> None:
    assert signs <= found(measured(module()))


class Backwards(torch.autograd.Function):
    """The input as it is; backwards the gradient turned round, or noise in its place."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, noise: bool) -> torch.Tensor:
        ctx.noise = noise
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *pulls: torch.Tensor) -> Any:
        pull = pulls[0]
        made_up = torch.sin(1e4 * torch.arange(pull.numel()).float().reshape(pull.shape)) * pull.abs().mean()
        return (made_up if ctx.noise else -pull), None


class Quantised(torch.autograd.Function):
    """Four levels, straight through backwards."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return rounded(x)

    @staticmethod
    def backward(ctx: Any, *pulls: torch.Tensor) -> Any:
        return pulls[0]


@pytest.mark.parametrize("noise", [False, True], ids=["reversed", "noise"])
def test_a_backward_pass_that_lies_is_a_sign(noise: bool) -> None:
    # Once folding BatchNorm forgot it, and no sign was left of a gradient that hides.
    evidence = measured(Before(lambda x: Backwards.apply(x, noise)))
    assert found(evidence) >= {"misleading_gradients", "search_beats_gradients"}
    assert {named(item): item.value for item in evidence}["misleading_gradients"] > 0.7


def test_a_straight_through_quantiser_is_no_sign_however_it_is_written() -> None:
    evidence, same = measured(Before(Quantised.apply)), measured(Before(straight))
    assert found(evidence) == found(same) == set()
    shares = [{named(item): item.value for item in said} for said in (evidence, same)]
    assert all(abs(value - shares[1][name]) <= 0.05 for name, value in shares[0].items())


class RareNoise(After):
    """Noise in the answers to bright images alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = super().forward(x)
        bright = (x.sum((1, 2, 3)) > 22.7).to(z.dtype)[:, None]
        return z + bright * 0.01 * z.abs().max() * torch.randn_like(z)


def test_a_few_random_rows_do_not_silence_what_the_others_show() -> None:
    # Once one unsteady row ended the search: five signs were missing, and their probe looked clean.
    def large(z: torch.Tensor) -> torch.Tensor:
        return 1000 * z

    whole, noisy = measured(After(large)), measured(RareNoise(large))
    assert found(noisy) >= found(whole) >= {"saturated_loss"}
    sizes = {named(item): item.n for item in noisy}
    unsteady = next(item for item in noisy if named(item) == "random_answers")
    assert 0 < unsteady.value < 0.2
    assert sizes["saturated_loss"] == sizes["restarts_matter"] == 128 - round(128 * unsteady.value)
    assert noisy == measured(RareNoise(large))


def test_a_rounding_shows_that_it_is_one_and_what_it_hides() -> None:
    _, evidence, _ = rounding()
    signs = {"vanishing_gradients", "stepped_answers", "misleading_gradients"}
    assert found(list(evidence)) >= signs | {"search_beats_gradients", "known_answers_missed"}
    assert not {"random_answers", "exploding_gradients", "saturated_loss"} & found(list(evidence))


def test_a_rounding_with_a_made_up_gradient_that_guides_is_no_sign() -> None:
    # Once "stepped_answers" called the number of such a net untrue, though gradients broke every row of it.
    assert found(measured(Before(straight))) == set()


def test_logistic_regression_is_not_called_saturated_because_dlr_breaks_more() -> None:
    # DLR breaks a tenth of its rows at eps = 0.1 that cross-entropy does not: a weaker loss, and no matter of scale.
    evidence = measured(honest()["logistic"], eps=0.1)
    assert next(item.value for item in evidence if named(item) == "saturated_loss") == 0


def test_a_share_is_what_was_counted_and_is_judged_at_the_ends_of_its_interval() -> None:
    kept, evidence, _ = rounding()
    files = kept.arrays()
    for item in (item for item in evidence if item.quantity is not Quantity.NOTE):
        check(item)
        shown = np.asarray(files[named(item)]["shown"])
        exact = clopper_pearson(int(shown.sum()), len(shown))
        assert (item.value, item.low, item.high, item.n) == (exact.value, exact.low, exact.high, 128)
    few = list(find_masking(image_case(torch_model(cnn()), n=30), lab_of()))
    outcomes = [outcome for outcome in judge(find_masking.id, few) if not outcome.about.startswith("notes")]
    assert all(isinstance(outcome, Inconclusive) for outcome in outcomes)  # 0 of 30 does not rule out one in twenty
    assert all(outcome.could_be <= Severity.MEDIUM for outcome in outcomes if isinstance(outcome, Inconclusive))


def test_rows_broken_by_a_better_attack_stand_against_the_others_and_their_witnesses_replay() -> None:
    kept, said, _ = rounding()
    case, evidence = rounding_case(), [item for item in said if item.files]
    assert len(evidence) == 10
    again = list(find_masking.replay(case, kept.arrays(), lab_of()))
    assert [replace(item, files=()) for item in evidence] == again
    constant = replace(case, model=replace(case.the_model(), labels=lambda x: np.full(len(x), 3)))
    data = case.data("test")
    now = {named(item): item for item in find_masking.replay(constant, kept.arrays(), lab_of())}
    search = kept.arrays()["search_beats_gradients"]
    threes = np.isin(search["sample_id"], data.sample_id[data.labels == 3])
    assert now["search_beats_gradients"].value == np.mean(search["shown"] & ~threes)


def noisy(x: torch.Tensor) -> torch.Tensor:
    return x + 0.1 * torch.randn_like(x)


def noisy_beside_the_rows(x: torch.Tensor) -> torch.Tensor:
    """Digits are whole sixteenths: only what an attack makes of them gets noise."""
    moved = (x * 16 != torch.round(x * 16)).any(dim=3, keepdim=True)
    return x + moved * 0.3 * torch.randn_like(x)


@pytest.mark.parametrize("change", [noisy, noisy_beside_the_rows])
def test_the_same_seed_gives_the_same_evidence_even_of_a_random_model(change: Any) -> None:
    case = image_case(torch_model(Before(change)), n=ROWS)
    assert list(find_masking(case, lab_of())) == list(find_masking(case, lab_of()))


def test_it_costs_at_most_three_hundred_propagations_a_row_and_stops_with_its_budget() -> None:
    _, whole, spent = rounding()
    assert spent <= 300 * 128
    got: list[Evidence] = []
    with pytest.raises(BudgetExhausted, match="raise the budget"):
        got.extend(find_masking(rounding_case(), lab_of(limit=5000)))  # a list keeps what came before an error
    assert [replace(item, files=()) for item in got] == [replace(item, files=()) for item in whole[: len(got)]]
    assert len(got) >= 5


def test_a_table_and_a_model_that_gives_no_scores_are_looked_at_too() -> None:
    flat = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), cnn())
    masked = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), Before(rounded))
    assert found(list(find_masking(table_case(torch_model(flat), n=ROWS), lab_of(eps=0.1)))) == set()
    signs = found(list(find_masking(table_case(torch_model(masked), n=ROWS), lab_of(eps=0.5))))
    assert {"vanishing_gradients", "search_beats_gradients"} <= signs
    silent = list(find_masking(image_case(torch_model(cnn(), labels_only=True), n=60), lab_of()))
    assert "search_beats_gradients" not in {named(item) for item in silent}


def test_bad_options_are_refused_and_where_there_is_nothing_to_measure_it_says_nothing() -> None:
    case = image_case(torch_model(cnn()), n=40)
    for options in ({"eps": 0.0}, {"eps": float("nan")}, {"samples": 0}, {"restarts": -1}, {"queries": 0}):
        with pytest.raises(ConfigError, match="expected"):
            list(find_masking(case, lab_of(**options)))
    never = replace(case, model=replace(case.the_model(), labels=lambda x: np.full(len(x), 11)))
    regression = replace(case, model=replace(case.the_model(), task=Task.REGRESSION))
    assert list(find_masking(never, lab_of())) == []
    assert list(find_masking(regression, lab_of())) == []
    assert DataKind.TEXT not in find_masking.kinds


def test_rows_of_one_class_know_no_other_answer() -> None:
    case = image_case(torch_model(cnn()), n=ROWS)
    data = case.data("test")
    alone: Case = replace(case, splits=replace(case.splits, test=data.take(np.flatnonzero(data.labels == 0))))
    assert "known_answers_missed" not in {named(item) for item in find_masking(alone, lab_of())}


def test_what_only_another_category_changes_is_no_sign() -> None:
    # Gradients try no other category, and a search by scores does: that says nothing of the gradients.
    linear = nn.Linear(2, 2).double()
    with torch.no_grad():
        linear.weight[:] = torch.tensor([[0.0, 0.0], [0.01, 1.0]])
        linear.bias[:] = torch.tensor([0.5, 0.0])
    features = (
        Feature("number", lo=-1.0, hi=1.0),
        Feature("kind", FeatureKind.CATEGORY, lo=0, hi=1, categories=("a", "b"), switch_cost=0.1),
    )
    schema = Schema(DataKind.TABLE, (2,), features)
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.uniform(-1, 1, 200), rng.integers(0, 2, 200).astype(float)])
    model = torch_model(linear)
    case = Case(model=model, splits=Splits(test=Data(x, schema, model.labels(x))))
    assert found(list(find_masking(case, lab_of()))) == set()
