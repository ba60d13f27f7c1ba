"""Every attack of the catalogue against the exact optimum of linear models, in every norm that it declares.

A new attack joins by itself. What it cannot be held to here stands in `EXEMPT`, and what it does not reach within 1 %
in `SHORT`, each with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tests.evasion.makers import attacked, batch_from, torch_model
from torch import nn

from casemate import catalog
from casemate.core.bracket import Goal
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind, PluginKind, Profile
from casemate.core.lab import Lab
from casemate.core.model import Affine
from casemate.core.norms import Norm, halfspace_distance
from casemate.core.plugin import Plugin
from casemate.core.schema import Feature, Schema

ROWS = 4
EXEMPT = {
    "evasion/text_edits": "reads texts: its oracle is brute force over edits, in its own tests",
    "evasion/trees": "no linear model is a tree: its oracle is brute force over cells, in its own tests",
}
"""Attacks that a linear model cannot judge, and why."""

_LOCAL = "a search of one walk ends at the nearest boundary that it met, and ten classes have several"
SHORT: dict[tuple[str, Norm, int], tuple[float, str]] = {
    ("evasion/blocks", Norm.LINF, 10): (1.3, "the margin's best other class changes on the way: a local optimum"),
    ("evasion/blocks", Norm.L2, 10): (1.3, "the margin's best other class changes on the way: a local optimum"),
    ("evasion/apgd", Norm.LINF, 10): (
        1.1,
        "it climbs away from the true class: `evasion/apgd_t` goes to each other one",
    ),
    ("evasion/hop_skip_jump", Norm.LINF, 3): (1.25, _LOCAL),
    ("evasion/hop_skip_jump", Norm.LINF, 10): (1.15, _LOCAL),
    ("evasion/hop_skip_jump", Norm.L2, 10): (1.4, _LOCAL),
    ("evasion/square", Norm.LINF, 10): (1.2, "the margin's best other class changes on the way: a local optimum"),
    ("evasion/square", Norm.L2, 2): (1.5, "its moves are windows of 3 x 3 and more: no such pattern is the optimum"),
    ("evasion/square", Norm.L2, 3): (2.0, "its moves are windows of 3 x 3 and more: no such pattern is the optimum"),
    ("evasion/square", Norm.L2, 10): (2.0, "its moves are windows of 3 x 3 and more: no such pattern is the optimum"),
    ("evasion/transfer", Norm.L2, 3): (1.05, "fixed steps of momentum never settle on the sphere's best point"),
    ("evasion/transfer", Norm.L2, 10): (1.05, "fixed steps of momentum never settle on the sphere's best point"),
}
"""How many times the optimum an attack needs, by norm and classes (measured, rounded up), and why more than 1.01."""

OPTIONS: dict[str, dict[str, Any]] = {
    "evasion/hop_skip_jump": {"queries": 60_000},
    "evasion/fmn": {"steps": 300},  # of 600: enough, and quicker
    "evasion/sigma_zero": {"steps": 300},  # of 1000: likewise
    "evasion/square": {"queries": 2000},  # of 5000: likewise
    "evasion/transfer": {"starts": 30},
}
"""Options on top of the full profile's: more questions, or fewer where these are enough."""

BELOW: dict[str, dict[str, Any]] = {"evasion/varied": {"work": 0.0}}
"""Options on top of the quick profile's, for runs that cannot succeed and would go on for long."""

ATTACKS = [p for p in catalog.plugins() if p.kind is PluginKind.ATTACK and p.id not in EXEMPT]
PAIRS = [(plugin, norm) for plugin in ATTACKS for norm in sorted(plugin.norms)]
each_pair = pytest.mark.parametrize(("plugin", "norm"), PAIRS, ids=[f"{p.id}-{n}" for p, n in PAIRS])
each_problem = pytest.mark.parametrize(("classes", "bites"), [(k, b) for k in (2, 3, 10) for b in (False, True)])


@dataclass(frozen=True)
class Linear:
    """`x @ weights.T + bias` in float64, and the box and units of its features `(d,)`; unit 0: immutable."""

    weights: np.ndarray
    bias: np.ndarray
    schema: Schema

    def nearest(self, norm: Norm, x: np.ndarray, y: np.ndarray, *, free: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The least distance to another answer, `(n,)`, and a point `(n, d)` there; `free`: as if without bounds."""
        lo, hi, unit = (
            np.broadcast_to(part, self.schema.shape).reshape(-1)
            for part in (self.schema.lo, self.schema.hi, self.schema.scale)
        )
        if free:
            lo, hi = np.full_like(lo, -np.inf), np.full_like(hi, np.inf)
        least, there = np.full(len(x), np.inf), x.copy()
        for j in range(len(self.bias)):
            slope, level = self.weights[j] - self.weights[y], self.bias[y] - self.bias[j]
            if norm is Norm.L0:
                far, point = _by_sorting(x, slope, level, lo=lo, hi=hi, unit=unit), x
            else:
                far, point = halfspace_distance(norm, x, slope, level, lo=lo, hi=hi, scale=unit)
            far = np.where(y == j, np.inf, far)
            there[far < least] = point[far < least]
            least = np.minimum(least, far)
        return least, there


def _by_sorting(
    x: np.ndarray, slope: np.ndarray, level: np.ndarray, *, lo: np.ndarray, hi: np.ndarray, unit: np.ndarray
) -> np.ndarray:
    """How many features have to change, `(n,)`: those that gain most, each moved to its bound, until it is enough."""
    room = np.where(slope > 0, hi - x, x - lo)
    with np.errstate(invalid="ignore"):
        gain = np.where((unit > 0) & (slope != 0), np.abs(slope) * room, 0.0)
    total = -np.sort(-gain, axis=1)
    total = total.cumsum(axis=1)
    enough = total > (level - (slope * x).sum(axis=1))[:, None]
    return np.where(enough.any(axis=1), enough.argmax(axis=1) + 1.0, np.inf)


@cache
def problem(kind: DataKind, classes: int, bites: bool, norm: Norm) -> tuple[Case, float]:
    """A case all of whose test rows are at the same exact distance from another answer, and that distance.

    One ball just above or below it then asks the same of every row. Units are uneven (an image has one, of .5), the
    second column is immutable, and where the box `bites` it makes the distance larger by at least 3 %.
    """
    rng = np.random.default_rng([classes, bites, list(Norm).index(norm)])
    schema = _schema(kind, bites, rng)
    d = int(np.prod(schema.shape))
    unit = np.broadcast_to(np.where(schema.scale > 0, schema.scale, 1.0), schema.shape).reshape(-1)
    weights = np.copysign(rng.uniform(0.5, 1.5, size=(classes, d)), rng.normal(size=(classes, d))) / unit
    linear = Linear(weights, np.zeros(classes), schema)
    draw = rng.uniform(-1, 1, size=(2000, d))
    x = np.copysign(np.abs(draw) ** 0.1, draw) * unit  # near the bounds, where there are some
    y = (x @ linear.weights.T).argmax(axis=1)
    x, y, far = _alike(linear, norm, x, y, bites=bites)
    net = nn.Linear(d, classes).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor(linear.weights))
        net.bias.zero_()
    model = replace(torch_model(nn.Sequential(nn.Flatten(), net)), affine=Affine(linear.weights, linear.bias))
    assert np.array_equal(model.labels(x), y)
    pool = x[ROWS:], y[ROWS:]
    test, reference = (Data(a.reshape(-1, *schema.shape), schema, b) for a, b in ((x[:ROWS], y[:ROWS]), pool))
    return Case(model=model, splits=Splits(test=test, reference=reference), surrogates=(model,)), far


def _schema(kind: DataKind, bites: bool, rng: np.random.Generator) -> Schema:
    edge = 1.0 if bites else float("inf")
    if kind is DataKind.IMAGE:
        return Schema(kind, (1, 4, 4), (Feature("pixel", lo=-edge / 2, hi=edge / 2, scale=0.5),))
    units = rng.uniform(0.2, 4.0, size=8)
    return Schema(
        kind,
        (8,),
        tuple(
            Feature(f"f{i}", lo=-edge * u, hi=edge * u, scale=u, immutable=i == 1) for i, u in enumerate(units.tolist())
        ),
    )


def _alike(
    linear: Linear, norm: Norm, x: np.ndarray, y: np.ndarray, *, bites: bool
) -> tuple[np.ndarray, np.ndarray, float]:
    """The rows whose distance is the wanted one, in front of all others; l1, l2 and linf rows are moved there."""
    far, there = linear.nearest(norm, x, y)
    usable = np.isfinite(far)
    if bites:
        usable &= linear.nearest(norm, x, y, free=True)[0] * 1.1 < far
    chosen = np.flatnonzero(usable)
    chosen = chosen[np.argsort(-far[chosen], kind="stable")]
    aim = float(far[chosen[min(10 * ROWS, len(chosen) - 1)]])
    chosen = chosen[far[chosen] == aim] if norm is Norm.L0 else chosen[far[chosen] >= aim]
    moved = x.copy()
    if norm is not Norm.L0:
        near, away = np.zeros(len(chosen)), np.ones(len(chosen))
        for _ in range(60):
            middle = (near + away) / 2
            moved[chosen] = x[chosen] + middle[:, None] * (there[chosen] - x[chosen])
            over = linear.nearest(norm, moved[chosen], y[chosen])[0] >= aim
            near, away = np.where(over, middle, near), np.where(over, away, middle)
        np.testing.assert_allclose(linear.nearest(norm, moved[chosen], y[chosen])[0], aim, rtol=1e-9)
    if bites:
        chosen = chosen[linear.nearest(norm, moved[chosen], y[chosen], free=True)[0] * 1.03 < aim]
    assert len(chosen) >= ROWS
    order = np.concatenate([chosen[:ROWS], np.setdiff1d(np.arange(len(x)), chosen[:ROWS])])
    return moved[order], y[order], aim


def kind_of(plugin: Plugin) -> DataKind:
    return DataKind.TABLE if DataKind.TABLE in plugin.kinds else DataKind.IMAGE


@each_problem
@each_pair
def test_an_attack_comes_within_one_percent_of_the_exact_optimum(
    plugin: Plugin, norm: Norm, classes: int, bites: bool
) -> None:
    """In a ball that much larger than the optimum every row breaks, and a minimum-norm attack comes that near."""
    case, far = problem(kind_of(plugin), classes, bites, norm)
    most = far * SHORT.get((plugin.id, norm, classes), (1.01, ""))[0]
    goal = Goal(norm, float("inf") if plugin.minimum_norm else most)
    options = plugin.configured(Profile.FULL, OPTIONS.get(plugin.id))
    ledger, _ = attacked(plugin, case, goal, options=options)
    assert np.all(ledger.upper >= far * (1 - 1e-6))
    assert np.all(ledger.upper <= most * (1 + 1e-6)), ledger.upper / far


@each_problem
@each_pair
def test_an_attack_claims_nothing_one_percent_below_the_optimum(
    plugin: Plugin, norm: Norm, classes: int, bites: bool
) -> None:
    case, far = problem(kind_of(plugin), classes, bites, norm)
    lab = Lab(plugin.id, 3, options=plugin.configured(Profile.QUICK, BELOW.get(plugin.id)))
    claims = list(plugin(case, batch_from(case), Goal(norm, far * 0.99), lab))
    assert sum(len(claim.rows) for claim in claims if claim.x is not None) == 0


def test_every_attack_is_held_to_an_optimum_or_exempt_with_a_reason() -> None:
    known = {p.id: p for p in catalog.plugins() if p.kind is PluginKind.ATTACK}
    case, _ = problem(DataKind.TABLE, 3, True, Norm.LINF)
    assert set(EXEMPT) <= set(known)
    assert {key[:2] for key in SHORT} <= {(plugin.id, norm) for plugin, norm in PAIRS}
    assert set(OPTIONS) | set(BELOW) <= {plugin.id for plugin in ATTACKS}
    for plugin in ATTACKS:
        assert plugin.norms, f"{plugin.id} declares no norm: exempt it and say why"
        assert plugin.needs <= case.offers, f"{plugin.id} needs more than a linear model: exempt it and say why"
