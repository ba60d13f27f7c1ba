"""How published tools mis-measure robustness: what each does in a few lines, a check that rejects it, and ours beside.

Each test is named after the defect and after who has or had it. A rendition is in our own words and as small as the
defect allows; `benchmarks/mismeasures.py` runs the tools themselves where they can be installed.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier
from tests.evasion.makers import (
    attacked,
    batch_from,
    cnn,
    digits,
    image_case,
    image_schema,
    sklearn_linear,
    table_case,
    torch_linear,
    torch_model,
)
from tests.evasion.test_standard import lab_of, measured, values
from torch import nn

from casemate.adapters import wrap
from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind, Facet, PluginKind
from casemate.core.lab import Lab
from casemate.core.norms import Norm, distance
from casemate.core.plugin import Plugin
from casemate.core.schema import Feature, Schema
from casemate.engine.harness import open_ledger, pursue, unanswered, wrong
from casemate.evasion import THREAT, sigma_zero
from casemate.evasion.apgd import ApgdOptions, apgd_attack
from casemate.evasion.apgd_t import ApgdTOptions, apgd_t_attack
from casemate.evasion.fmn import FmnOptions, fmn_attack
from casemate.evasion.losses import dlr
from casemate.evasion.sigma_zero import SigmaZeroOptions, sigma_zero_attack
from casemate.evasion.trees import tree_attack, tree_certificate

INF = float("inf")
Array = np.ndarray


class Slab(nn.Module):
    """Logits `(0, .06 - |x - .45|)` of one number: the answer 0 is left only between .39 and .51."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), 0.06 - (x - 0.45).abs()], dim=1)


def table(*columns: str, lo: float = 0.0, hi: float = 1.0) -> Schema:
    return Schema(DataKind.TABLE, (len(columns),), tuple(Feature(name, lo=lo, hi=hi) for name in columns))


def slab_case(n: int = 8) -> Case:
    """Rows between 0 and .02, of class 0."""
    x = np.linspace(0, 0.02, n)[:, None]
    test = Data(x, table("a"), np.zeros(n, dtype=np.int64))
    return Case(model=torch_model(Slab().double()), splits=Splits(test=test))


def slope_of(module: nn.Module, x: Array, y: Array) -> Array:
    """The gradient of the cross-entropy at each sample."""
    at = torch.tensor(x, requires_grad=True)
    (slope,) = torch.autograd.grad(nn.functional.cross_entropy(module(at), torch.tensor(y), reduction="sum"), [at])
    return slope.numpy()


def pgd_path(module: nn.Module, x: Array, y: Array, *, eps: float, step: float, steps: int) -> list[Array]:
    """Every iterate of plain PGD on the cross-entropy in a linf ball, from the sample on."""
    path = [x]
    for _ in range(steps):
        path.append(np.clip(path[-1] + step * np.sign(slope_of(module, path[-1], y)), x - eps, x + eps))
    return path


def claiming(points: Array) -> Plugin:
    """An attack that claims the given point for each row that it is given one (not NaN) for."""

    def told(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        rows = np.flatnonzero(~np.isnan(points.reshape(len(points), -1)).any(axis=1))
        yield Claim(rows, x=points[rows])

    return Plugin(PluginKind.ATTACK, "peer/told", told, THREAT, "a rendition")


def modes_and_grads(module: nn.Module) -> list[Any]:
    parts = [part.training for part in module.modules()]
    return [*parts, *((p.requires_grad, p.grad is None) for p in module.parameters())]


def test_the_last_iterate_is_returned_instead_of_the_best__foolbox_3_3_4_and_torchattacks_3_5_1() -> None:
    case = slab_case()
    data = case.data("test")
    path = pgd_path(Slab(), data.x, data.labels, eps=0.7, step=0.2, steps=5)
    passed = np.any([wrong(case.the_model(), points, data.labels) for points in path], axis=0)

    def keeps_what_it_met(broken: Array) -> bool:
        return bool(passed.all() and broken[passed].all())

    assert not keeps_what_it_met(wrong(case.the_model(), path[-1], data.labels))
    ledger, _ = attacked(apgd_attack, case, Goal(Norm.LINF, 0.7))
    assert keeps_what_it_met(ledger.broken(0.7))


def test_the_best_point_is_kept_after_the_step_that_left_it__secml_torch_issue_145() -> None:
    case = slab_case()
    data = case.data("test")
    path = pgd_path(Slab(), data.x, data.labels, eps=0.7, step=0.2, steps=4)
    margin = [np.diff(case.the_model().ask(Facet.LOGITS, points), axis=1)[:, 0] for points in path]
    best = int(np.argmax(np.mean(margin, axis=1)))

    def is_the_point_whose_loss_was_kept(points: Array) -> bool:
        return bool(wrong(case.the_model(), points, data.labels).all()) and bool((margin[best] > 0).all())

    assert not is_the_point_whose_loss_was_kept(path[best + 1])
    ledger, _ = attacked(apgd_attack, case, Goal(Norm.LINF, 0.7))
    assert is_the_point_whose_loss_was_kept(ledger.witness)


def test_one_run_for_each_eps_gives_a_curve_that_rises_again__foolbox_3_3_4_and_torchattacks_3_5_1() -> None:
    case, radii = slab_case(), (0.2, 0.44, 0.8)
    data = case.data("test")

    def never_rises(curve: list[float]) -> bool:
        return curve == sorted(curve, reverse=True)

    sides = [data.x + eps * np.sign(slope_of(Slab(), data.x, data.labels)) for eps in radii]
    assert not never_rises([1 - float(wrong(case.the_model(), points, data.labels).mean()) for points in sides])
    curve = values(measured(case, lab_of(norm="linf", eps=radii)), "robust_accuracy")
    assert never_rises([curve[eps] for eps in radii])
    assert curve[0.44] == curve[0.8] == 0 < curve[0.2]


def test_restarts_are_chosen_by_the_batch_and_not_by_the_sample__art_issue_714() -> None:
    case = slab_case(4)
    data = case.data("test")
    nowhere, slab = data.x, np.full_like(data.x, 0.45)
    runs = [np.where(np.arange(4)[:, None] % 2 == turn, slab, nowhere) for turn in (0, 1)]

    def counts_every_restart(broken: Array) -> bool:
        return bool(np.all(broken == np.any([wrong(case.the_model(), run, data.labels) for run in runs], axis=0)))

    whole = max(runs, key=lambda run: wrong(case.the_model(), run, data.labels).mean())
    assert not counts_every_restart(wrong(case.the_model(), whole, data.labels))
    batch = batch_from(case)
    ledger = open_ledger(case, batch, Norm.LINF)
    for run in runs:
        pursue(claiming(run), case, batch, Goal(Norm.LINF, 0.5), Lab("peer", 0), ledger=ledger, rows=np.arange(4))
    assert counts_every_restart(ledger.broken(0.5))


def test_samples_are_clipped_to_0_and_1_whatever_the_bounds__torchattacks_3_5_1_and_pyautoattack_0_2_0() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, size=(20, 1, 4, 4)).astype(np.float32)
    schema = Schema(DataKind.IMAGE, (1, 4, 4), (Feature("pixel", lo=-1.0, hi=1.0),))
    torch.manual_seed(0)
    model = torch_model(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))
    case = Case(model=model, splits=Splits(test=Data(x, schema, model.labels(x))))
    eps = 0.2

    def stays_in_the_ball(before: Array, after: Array) -> bool:
        return bool((distance(Norm.LINF, before, after) <= eps).all() and (after < 0).any())

    slope = slope_of(model.module, x, case.data("test").labels)
    assert not stays_in_the_ball(x, np.clip(x + eps * np.sign(slope), 0, 1))
    claims = list(apgd_attack(case, batch_from(case), Goal(Norm.LINF, eps), Lab("a", 0, options=ApgdOptions())))
    rows, points = np.concatenate([c.rows for c in claims]), np.concatenate([np.asarray(c.x) for c in claims])
    assert len(rows) > 5
    assert stays_in_the_ball(x[rows], points)


@pytest.mark.parametrize(("classes", "targeted"), [(2, False), (3, True)])
def test_dlr_needs_three_classes_and_four_with_a_target__autoattack_issue_70_and_art_issue_2399(
    classes: int, targeted: bool
) -> None:
    logits = torch.tensor(np.random.default_rng(0).normal(size=(6, classes)), requires_grad=True)
    y = logits.argmax(1)
    target = (y + 1) % classes

    def published(z: torch.Tensor) -> torch.Tensor:
        down = z.sort(dim=1, descending=True).values
        ahead = z.gather(1, y[:, None])[:, 0] - (z.gather(1, target[:, None])[:, 0] if targeted else down[:, 1])
        return -ahead / (down[:, 0] - ((down[:, 2] + down[:, 3]) / 2 if targeted else down[:, 2]))

    def without_the_third(z: torch.Tensor) -> torch.Tensor:
        down = z.sort(dim=1, descending=True).values
        return -(down[:, 0] - down[:, 1]) / (down[:, 0] - down[:, 1])

    def leads_somewhere(loss: Callable[[torch.Tensor], torch.Tensor]) -> bool:
        (slope,) = torch.autograd.grad(loss(logits).sum(), [logits])
        return bool((slope.abs().sum(1) > 1e-3).all())

    with pytest.raises(IndexError):
        leads_somewhere(published)
    assert not leads_somewhere(without_the_third)
    assert leads_somewhere(lambda z: dlr(z, y, target if targeted else None))


def test_a_model_in_train_mode_is_attacked_with_the_statistics_of_the_batch__foolbox_3_3_4() -> None:
    x, y = (part[:16] for part in digits())
    x = x.reshape(-1, 1, 8, 8)
    net = copy.deepcopy(cnn()).double().train()
    before = copy.deepcopy(net.state_dict())

    def is_left_alone_and_each_sample_too(alone: Array, together: Array) -> bool:
        same = all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        return same and net.training and bool(np.allclose(alone, together[:3], atol=1e-9))

    alone, together = (x[:n] + 0.1 * np.sign(slope_of(net, x[:n], y[:n])) for n in (3, 16))
    assert not is_left_alone_and_each_sample_too(alone, together)
    net.load_state_dict(before)
    model = wrap(net, schema=image_schema(1, 8, 8))
    case = Case(model=model, splits=Splits(test=Data(x, image_schema(1, 8, 8), y)))
    options = ApgdOptions(steps=10)
    part, whole = (
        attacked(apgd_attack, case, Goal(Norm.LINF, 0.1), options=options, batch=batch_from(case, slice(n)))[0]
        for n in (3, 16)
    )
    assert model.notes["mode"] == "train"
    assert np.isfinite(part.upper).any()
    assert is_left_alone_and_each_sample_too(part.witness, whole.witness)


def test_the_model_is_left_in_another_mode_and_with_gradients__torchattacks_issue_21_and_plain_backward() -> None:
    net = copy.deepcopy(cnn()).train()
    net[1].eval()  # a frozen BatchNorm
    x, y = image_case(torch_model(cnn()), n=8).data("test").x, digits()[1][:8]
    before = modes_and_grads(net)

    was = net.training
    net.eval()
    nn.functional.cross_entropy(net(torch.tensor(np.array(x), requires_grad=True)), torch.tensor(y)).backward()
    net.train(was)
    assert modes_and_grads(net) != before

    net.zero_grad(set_to_none=True)
    net[1].eval()
    assert modes_and_grads(net) == before
    schema = image_schema(1, 8, 8)
    case = Case(model=wrap(net, schema=schema), splits=Splits(test=Data(x, schema, y)))
    ledger, _ = attacked(apgd_attack, case, Goal(Norm.LINF, 0.3), options=ApgdOptions(steps=5))
    assert np.isfinite(ledger.upper).any()
    assert modes_and_grads(net) == before


def test_the_seed_of_everyone_is_set__pyautoattack_0_2_0() -> None:
    case = image_case(torch_model(cnn()), n=8)

    def leaves_other_streams_alone(attack: Callable[[], object]) -> bool:
        torch.manual_seed(7)
        np.random.seed(7)  # the stream of everyone is the one in question
        first = torch.rand(1), np.random.rand()
        torch.manual_seed(7)
        np.random.seed(7)
        attack()
        return (torch.rand(1), np.random.rand()) == first

    assert not leaves_other_streams_alone(lambda: torch.manual_seed(0))
    found: list[Array] = []

    def ours() -> None:
        found.append(attacked(apgd_attack, case, Goal(Norm.L2, 0.5), options=ApgdOptions(steps=5))[0].witness)

    assert leaves_other_streams_alone(ours)
    torch.manual_seed(99)
    ours()
    assert np.array_equal(found[0], found[1])


def test_the_threshold_is_moved_on_a_copy__sigma_zero_9420356(monkeypatch: pytest.MonkeyPatch) -> None:
    """The authors' second file indexes twice, and what is moved is the result of the first indexing."""

    def published(shift: float) -> Array:
        threshold, active = torch.full((4,), 0.3), torch.tensor([True, True, True, False])
        right = torch.tensor([True, False, True])
        (threshold[active])[right] -= shift
        (threshold[active])[~right] += shift
        return threshold.numpy()

    case = image_case(torch_model(cnn()), n=24)

    def ours(shift: float) -> Array:
        monkeypatch.setattr(sigma_zero, "_SHIFT", shift)
        options = SigmaZeroOptions(steps=60)
        return attacked(sigma_zero_attack, case, Goal(Norm.L0, INF), options=options)[0].upper

    def matters(threshold_of: Callable[[float], Array]) -> bool:
        return not np.array_equal(threshold_of(0.0), threshold_of(0.05))

    assert not matters(published)
    assert matters(ours)


def test_trees_are_verified_without_the_base_score__art_1_20_1() -> None:
    """Its verified error came out below the clean error, which no verified error can be."""
    rng = np.random.default_rng(0)
    x = rng.random((200, 2))
    y = (x[:, 0] > 0.7).astype(np.int64)
    xgb = pytest.importorskip("xgboost")
    fitted = xgb.XGBClassifier(n_estimators=2, max_depth=2, learning_rate=0.1, base_score=0.05, n_jobs=1).fit(x, y)
    clean_error = float((fitted.predict(x) != y).mean())

    def can_be_true(verified_error: float) -> bool:
        return verified_error >= clean_error > 0

    leaves = fitted.predict(x, output_margin=True) - np.log(0.05 / 0.95)
    assert not can_be_true(float(((leaves > 0) != y).mean()))
    case = Case(model=wrap(fitted, schema=table("a", "b")), splits=Splits(test=Data(x, table("a", "b"), y)))
    ledger, _ = attacked(tree_certificate, case, Goal(Norm.LINF, INF))
    assert can_be_true(float((ledger.lower <= 1e-6).mean()))
    assert np.array_equal(ledger.upper == 0, fitted.predict(x) != y)


def test_a_search_box_caps_the_distance_it_returns__veritas_0_3_1() -> None:
    x, y = np.array([[0.0], [0.1], [0.9], [1.0]]), np.array([0, 0, 1, 1])
    case = Case(
        model=wrap(DecisionTreeClassifier().fit(x, y), schema=table("a")),
        splits=Splits(test=Data(x, table("a"), y)),
    )
    exact = np.array([0.5, 0.4, 0.4, 0.5])
    start_delta = 0.2

    def is_where_an_answer_changes(far: Array) -> bool:
        return bool(np.allclose(far, exact, atol=1e-6))

    assert not is_where_an_answer_changes(np.minimum(exact, start_delta))
    assert is_where_an_answer_changes(attacked(tree_attack, case, Goal(Norm.LINF, INF))[0].upper)
    assert is_where_an_answer_changes(attacked(tree_certificate, case, Goal(Norm.LINF, INF))[0].lower)


def test_success_is_counted_after_rounding_to_float32__art_1_20_1() -> None:
    """Its wrapper of torch gives the logits of a model in float64 as float32: a narrow lead becomes a tie."""
    net = nn.Linear(1, 2).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0], [1.0]]))
        net.bias.copy_(torch.tensor([0.5, 0.0]))
    model = torch_model(net)
    x, y = np.array([[0.6]]), np.array([1])
    case = Case(model=model, splits=Splits(test=Data(x, table("a"), y)))
    near = np.array([[0.5 + 1e-9]])

    def holds_on_the_users_model(broken: Array) -> bool:
        return bool(np.array_equal(broken, wrong(model, near, y)))

    counted = model.ask(Facet.LOGITS, near).astype(np.float32).argmax(axis=1) != y
    assert not holds_on_the_users_model(counted)
    assert holds_on_the_users_model(attacked(claiming(near), case, Goal(Norm.LINF, 0.1))[0].broken(0.1))
    rough = dataclasses.replace(case, model=dataclasses.replace(model, module=copy.deepcopy(net).float()))
    for eps in (0.1 - 1e-9, 0.11):
        ledger, _ = attacked(apgd_attack, rough, Goal(Norm.LINF, eps))
        assert ledger.broken(eps).all() == (eps > 0.1)


def test_a_wrapped_model_in_float64_is_not_judged_after_rounding_to_float32__art_1_20_1() -> None:
    net = nn.Linear(1, 2).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0], [1.0]]))
        net.bias.copy_(torch.tensor([0.5, 0.0]))
    x = np.array([[0.5 + 1e-9]])
    assert net(torch.tensor(x)).argmax(1).tolist() == [1]
    assert wrap(net, schema=table("a")).labels(x).tolist() == [1]


def test_samples_that_were_wrong_already_count_as_broken_by_the_attack__foolbox_issue_713() -> None:
    case = mislabelled()
    data, model = case.data("test"), case.the_model()
    already = wrong(model, data.x, data.labels)

    def breaks_nothing_with_no_room(broken_by_an_attack: float) -> bool:
        return bool(already.any()) and broken_by_an_attack == 0

    assert not breaks_nothing_with_no_room(float(wrong(model, data.x + 1e-12, data.labels).mean()))
    found = measured(case, lab_of(norm="linf", eps=1e-9))
    by = {str(e.at["by"]): e.value for e in found if e.metric == "evasion.stage_successes"}
    assert breaks_nothing_with_no_room(sum(value for name, value in by.items() if name != "clean"))
    assert by["clean"] == already.sum()


def test_samples_that_were_wrong_already_are_left_out_of_the_denominator__transferattack_issue_101() -> None:
    case = mislabelled()
    data, model = case.data("test"), case.the_model()
    clean = float((~wrong(model, data.x, data.labels)).mean())

    def is_no_better_than_clean(robust_accuracy: float) -> bool:
        return robust_accuracy <= clean < 1

    right = ~wrong(model, data.x, data.labels)
    assert not is_no_better_than_clean(float((~wrong(model, data.x[right] + 1e-12, data.labels[right])).mean()))
    assert is_no_better_than_clean(values(measured(case, lab_of(norm="linf", eps=1e-9)), "robust_accuracy")[1e-9])


def mislabelled() -> Case:
    """Forty digits of which every fifth has the next digit's label."""
    case = table_case(sklearn_linear(), n=40)
    data = case.data("test")
    y = np.where(np.arange(40) % 5 == 0, (data.labels + 1) % 10, data.labels)
    return dataclasses.replace(case, splits=Splits(test=Data(data.x, data.schema, y)))


def test_points_leave_the_ball_by_rounding__torchattacks_3_5_1_and_pyautoattack_0_2_0() -> None:
    x = np.random.default_rng(0).uniform(0.1, 0.9, size=(40, 1, 8, 8)).astype(np.float32)
    model, eps = torch_linear(), 8 / 255
    case = Case(model=model, splits=Splits(test=Data(x, image_schema(1, 8, 8), model.labels(x))))
    up = np.sign(slope_of(model.module, x, model.labels(x)))

    def is_inside(before: Array, after: Array) -> bool:
        return bool((distance(Norm.LINF, before, after) <= eps).all())

    assert not is_inside(x, np.clip(x + np.float32(eps) * up, 0, 1))
    claims = list(apgd_attack(case, batch_from(case), Goal(Norm.LINF, eps), Lab("a", 0, options=ApgdOptions())))
    assert sum(len(claim.rows) for claim in claims) > 5
    assert all(is_inside(x[claim.rows], np.asarray(claim.x)) for claim in claims)


def test_successes_are_lost_by_rounding_at_the_edge_of_the_ball__art_issue_507() -> None:
    x = np.random.default_rng(0).uniform(0.1, 0.9, size=(40, 1, 8, 8)).astype(np.float32)
    model, eps = torch_linear(), 0.1
    case = Case(model=model, splits=Splits(test=Data(x, image_schema(1, 8, 8), model.labels(x))))
    batch = batch_from(case)
    edge = np.clip(x + np.float32(eps) * np.sign(slope_of(model.module, x, batch.y)), 0, 1)
    fooled = wrong(model, edge, batch.y)

    def counts_them_all(broken: Array) -> bool:
        return bool(fooled.any() and broken[fooled].all())

    assert not counts_them_all(fooled & (np.abs(edge - x).reshape(40, -1).max(axis=1) < eps))
    assert counts_them_all(attacked(apgd_attack, case, Goal(Norm.LINF, eps))[0].broken(eps))


class Broken(nn.Module):
    """Answers with NaN where the first number is above a half, and class 0 elsewhere."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = torch.stack([1 - 0 * x[:, 0], 0 * x[:, 0]], dim=1)
        return torch.where(x[:, :1] > 0.5, float("nan"), logits)


def test_logits_that_are_no_numbers_count_as_right_for_class_0__pyautoattack_0_2_0_and_foolbox_3_3_4() -> None:
    x, y = np.array([[0.4], [0.6], [0.9]]), np.zeros(3, dtype=np.int64)
    case = Case(model=wrap(Broken(), schema=table("a")), splits=Splits(test=Data(x, table("a"), y)))

    def is_right_only_where_there_is_an_answer(right: Array) -> bool:
        return right.tolist() == [True, False, False]

    assert not is_right_only_where_there_is_an_answer(Broken()(torch.tensor(x)).argmax(1).numpy() == y)
    assert is_right_only_where_there_is_an_answer(~unanswered(case.the_model(), x, y))


def test_an_answer_that_is_no_number_is_no_right_one_for_the_harness_either__pyautoattack_0_2_0() -> None:
    x, y = np.array([[0.4], [0.6], [0.9]]), np.zeros(3, dtype=np.int64)
    case = Case(model=wrap(Broken(), schema=table("a")), splits=Splits(test=Data(x, table("a"), y)))
    ledger, _ = attacked(claiming(np.full((3, 1), 0.55)), case, Goal(Norm.LINF, 0.5))
    assert ledger.upper[1:].tolist() == [0, 0]
    assert ledger.upper[0] == pytest.approx(0.15)


def test_any_other_answer_than_the_target_counts_as_the_target__art_1_3_1_issue_512() -> None:
    case, target = image_case(torch_model(cnn()), n=30), 8
    data, model = case.data("test"), case.the_model()

    def reached_the_target(points: Array, success: Array) -> bool:
        return bool(success.any() and (model.labels(points[success]) == target).all())

    assert not reached_the_target(data.x, model.labels(data.x) != target)
    for attack, goal in ((apgd_attack, Goal(Norm.LINF, 0.3, target)), (fmn_attack, Goal(Norm.L2, INF, target))):
        ledger, _ = attacked(attack, case, goal, options=attack.options(steps=30))
        assert reached_the_target(ledger.witness, ledger.upper_by == attack.id)


def test_a_sure_model_has_no_gradient_of_cross_entropy_and_passes_for_robust__advertorch_issue_63() -> None:
    class Sure(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 1e5 * self.net(x)

    plain, sure = (image_case(torch_model(net), n=40) for net in (cnn(), Sure(cnn())))
    data, eps = plain.data("test"), 0.1
    expected = attacked(apgd_attack, plain, Goal(Norm.LINF, eps), options=ApgdOptions(steps=20))[0].broken(eps)

    def is_broken_like_the_same_model_unscaled(broken: Array) -> bool:
        return bool(expected.mean() > 0.3 and broken.sum() >= expected.sum() - 1)

    path = pgd_path(sure.the_model().module, data.x, data.labels, eps=eps, step=eps / 4, steps=10)
    assert not is_broken_like_the_same_model_unscaled(
        np.any([wrong(sure.the_model(), points.astype(np.float32), data.labels) for points in path], axis=0)
    )
    ledger, _ = attacked(apgd_t_attack, sure, Goal(Norm.LINF, eps), options=ApgdTOptions(steps=20))
    assert is_broken_like_the_same_model_unscaled(ledger.broken(eps))


def test_a_search_that_failed_returns_the_sample_at_distance_0__adv_lib_0_2_8() -> None:
    net = nn.Linear(2, 2).double()
    with torch.no_grad():
        net.weight.zero_()
        net.bias.copy_(torch.tensor([1.0, 0.0]))
    x, y = np.full((3, 2), 0.5), np.zeros(3, dtype=np.int64)
    case = Case(model=torch_model(net), splits=Splits(test=Data(x, table("a", "b"), y)))

    def has_a_wrong_point_wherever_it_is_finite(far: Array, points: Array) -> bool:
        there = np.isfinite(far)
        return bool(wrong(case.the_model(), points[there], y[there]).all())

    best, nearest = x.copy(), x  # the sample is the first best point, and nothing better was found
    assert not has_a_wrong_point_wherever_it_is_finite(distance(Norm.L2, nearest, best), best)
    for attack, norm, options in (
        (fmn_attack, Norm.L2, FmnOptions(steps=20)),
        (sigma_zero_attack, Norm.L0, SigmaZeroOptions(steps=20)),
    ):
        ledger, _ = attacked(attack, case, Goal(norm, INF), options=options)
        assert np.isinf(ledger.upper).all()
        assert has_a_wrong_point_wherever_it_is_finite(ledger.upper, ledger.witness)


def test_eps_set_after_construction_is_told_and_not_used__art_1_20_1() -> None:
    class Outer:
        """Hands its eps on to the one that works, once."""

        def __init__(self, eps: float) -> None:
            self.eps = eps
            self.run = lambda x: x + eps

    outer = Outer(0.1)
    outer.eps = 1.0
    x = np.zeros((3, 1))
    assert distance(Norm.LINF, x, outer.run(x)).max() != outer.eps
    goal = Goal(Norm.LINF, 0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        goal.eps = 1.0  # type: ignore[misc]
    ledger, _ = attacked(apgd_attack, slab_case(), dataclasses.replace(goal, eps=0.44))
    assert (ledger.upper <= 0.44).all()
