"""The judges of the evasion benchmarks: what counts as broken, as equal success, as hidden, and what a page keeps."""

from __future__ import annotations

from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from casemate.core.norms import Norm

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The scripts import each other as neighbours."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module


def test_a_point_counts_only_inside_ball_and_bounds_but_for_rounding(script: Any) -> None:
    peers = script("evasion_peers")
    net = torch.nn.Linear(2, 2, bias=False)
    net.weight.data = torch.tensor([[0.0, 0.0], [1.0, 0.0]])  # class 1 where the first feature is positive
    x = np.array([[0.0, 0.5]] * 6, dtype=np.float32)
    y = np.zeros(6, dtype=np.int64)
    y[5] = 1  # wrong as it is
    moved = np.array([[0.1, 0.5], [0.1000004, 0.5], [0.101, 0.5], [0.1, 1.2], [0.0, 0.6], [0.0, 0.5]], dtype=np.float32)
    far = peers.distances(net, x, y, moved, "linf")
    assert peers.stands(net, x, y, far, 0.1).tolist() == [False, False, True, True, True, False]


def test_a_setting_is_matched_by_the_fewest_steps_that_break_as_many(script: Any) -> None:
    made = script("evasion_projected_gradient")
    ours = [made.Setting("3", 0.5, 1.0), made.Setting("5", 0.7, 2.0), made.Setting("8", 0.8, 3.0)]
    theirs = [made.Setting("its defaults", 0.6, 9.0), made.Setting("3", 0.7, 3.0), made.Setting("5", 0.9, 4.0)]
    assert made.matched(theirs[0], ours, theirs) == (ours[1], theirs[1])
    assert made.matched(theirs[2], ours, theirs) == (None, None)
    assert made.matched(theirs[0], ours, theirs[:1]) == (ours[1], None)


@pytest.mark.parametrize(
    ("ours", "plain", "peer", "said"),
    [
        (0.0, 0.95, 0.9, "clearly below"),
        (0.0, 0.95, 0.95, "clearly below"),  # AutoAttack is blinded too
        (0.90, 0.94, 0.9, "not clearly below"),
        (0.0, 0.001, 0.0, "not comparable: the mask hides nothing"),
    ],
)
def test_a_mask_that_hides_nothing_does_not_count(
    script: Any, ours: float, plain: float, peer: float, said: str
) -> None:
    assert script("evidence_evasion").hidden(ours, plain, peer) == said


def test_every_field_of_a_recipe_names_another_file(script: Any) -> None:
    recipe = script("hidden_counterexamples").Recipe("cnn")
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        other = f"{value}x" if isinstance(value, str) else not value if isinstance(value, bool) else value + 1
        assert replace(recipe, **{field.name: other}).name != recipe.name, field.name


def test_a_walk_of_the_peer_starts_at_the_nearest_other_answer_in_its_own_norm(script: Any) -> None:
    made = script("evasion_hop_skip_jump")
    x = np.zeros((4, 1, 8, 8), dtype=np.float32)
    x[1, 0, 0, 0] = 0.5  # nearest in l2
    x[2] = 0.1  # nearest in linf
    x[3, 0, 0, 0] = 0.01  # nearer still, but the victim answers as for the first
    victim = made.Victim("fixed", lambda a: np.array([0, 1, 1, 0]), lambda _: None)
    for norm, start in ((Norm.L2, 1), (Norm.LINF, 2)):
        assert np.array_equal(made.starts(victim, x, np.array([0, 1, 1, 0]), norm)[0], x[start])


def test_a_new_table_leaves_other_sections_and_the_text_below_it() -> None:
    from benchmarks.run import renewed

    one = "Two runs.\n\n| a |\n|---|\n| 1 |\n\nA hand's text.\n\nMeasured by x."
    page = f"# Page\n\nHead.\n\n## One\n\n{one}\n\n## Two\n\nKept.\n"
    new = renewed(page, "One", "Three runs.\n\n| a |\n|---|\n| 2 |", "Measured by y.")
    assert new == page.replace("Two runs", "Three runs").replace("| 1 |", "| 2 |").replace("by x", "by y")
    real = (ROOT / "docs" / "benchmarks.md").read_text()
    assert real in renewed(real, "New", "| b |", "Measured by z.")
