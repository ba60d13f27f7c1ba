from __future__ import annotations

import dataclasses
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate._audit import Order, lab_for, run
from casemate.adapters.function import wrap_function
from casemate.core.case import Case
from casemate.core.data import Data, Splits, texts
from casemate.core.facets import DataKind, Profile
from casemate.core.outcome import Finding
from casemate.core.schema import Feature, FeatureKind, Relation, Schema
from casemate.errors import ConfigError
from casemate.evasion._corrupted import SEVERITIES, corruptions_for, known_of
from casemate.evasion.corruptions import CorruptionOptions, corrupt_inputs
from casemate.testing import toy_case

TABLE = Schema(
    DataKind.TABLE,
    (6,),
    (
        Feature("low", lo=0.0, hi=10.0, missing_ok=True),
        Feature("high", lo=0.0, hi=10.0),
        Feature("count", FeatureKind.INTEGER, lo=0, hi=50, scale=4.0),
        Feature("job", FeatureKind.CATEGORY, lo=0, hi=2, categories=("a", "b", "c")),
        Feature("is_a", FeatureKind.INTEGER, lo=0, hi=1, block="is"),
        Feature("is_b", FeatureKind.INTEGER, lo=0, hi=1, block="is"),
    ),
    (Relation("low", "high"),),
)


def table(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pair = np.sort(rng.uniform(0, 10, (n, 2)), axis=1)
    one = np.eye(2)[rng.integers(0, 2, n)]
    return np.column_stack([pair, rng.integers(0, 51, n), rng.integers(0, 3, n), one])


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(SEVERITIES))
def test_a_disturbed_row_keeps_every_rule_of_the_schema_and_no_fixed_column_moves(seed: int, severity: int) -> None:
    x, ids = table(40, seed), np.arange(40)
    for name, corrupt in corruptions_for(TABLE, known_of(Data(x, TABLE))).items():
        changed = corrupt(x.copy(), ids, severity=severity, seed=seed)
        assert TABLE.allowed(changed).all(), name
        assert (changed[:, 4:] == x[:, 4:]).all(), name
        assert changed.dtype == x.dtype


@pytest.mark.parametrize("kind", ["image", "table", "text"])
def test_a_sample_is_disturbed_the_same_whichever_samples_share_its_batch(kind: str) -> None:
    rng = np.random.default_rng(1)
    samples = {
        "image": (Schema(DataKind.IMAGE, (1, 8, 8), (Feature("pixel", lo=0, hi=1),)), rng.random((6, 1, 8, 8))),
        "table": (TABLE, table(6)),
        "text": (Schema(DataKind.TEXT, ()), texts(["some words that nobody will ever mistype"] * 6)),
    }
    schema, x = samples[kind]
    x = x.astype(np.float32) if kind == "image" else x
    for corrupt in corruptions_for(schema, known_of(Data(x, schema))).values():
        whole = corrupt(x, np.arange(6), severity=5, seed=3)
        alone = np.concatenate([corrupt(x[[i]], np.array([i]), severity=5, seed=3) for i in range(6)])
        assert np.array_equal(whole, alone, equal_nan=kind == "table")


def test_images_without_bounds_are_disturbed_alike_whichever_images_share_the_batch() -> None:
    # Once the range of the pixels was that of the batch: shards differed, and pictures showed another disturbance.
    x = np.random.default_rng(4).normal(size=(6, 1, 8, 8)) * np.arange(1, 7).reshape(-1, 1, 1, 1)
    schema = Schema(DataKind.IMAGE, (1, 8, 8), (Feature("pixel"),))
    for name, corrupt in corruptions_for(schema, known_of(Data(x, schema))).items():
        whole = corrupt(x, np.arange(6), severity=4, seed=3)
        alone = np.concatenate([corrupt(x[[i]], np.array([i]), severity=4, seed=3) for i in range(6)])
        assert np.array_equal(whole, alone), name


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_each_severity_is_the_one_before_it_and_more(seed: int) -> None:
    rng, ids = np.random.default_rng(seed), np.arange(8)
    schema = replace(TABLE, relations=())  # where two columns meet, one of them comes back a little
    x = table(8, seed)
    for name, corrupt in corruptions_for(schema, known_of(Data(x, schema))).items():
        drawn = [corrupt(x, ids, severity=s, seed=seed) for s in SEVERITIES]
        far = [np.abs(np.nan_to_num(d, nan=99.0) - x) for d in drawn]
        assert all((a <= b).all() for a, b in pairwise(far)), name
    words = rng.choice(["letter", "привет", "of", "ordinary", "wordss", "straße", "it"], (8, 30))
    typed = texts([" ".join(row) for row in words])
    typos = corruptions_for(Schema(DataKind.TEXT, ()), {})["typos"]
    hit = [np.array([t.split() for t in typos(typed, ids, severity=s, seed=seed).tolist()]) for s in SEVERITIES]
    for milder, stronger in pairwise(hit):
        assert (stronger[milder != words] == milder[milder != words]).all()


def test_rows_whose_columns_are_bound_together_are_disturbed_too() -> None:
    # Once a row was left alone, and so counted as kept, where a disturbance turned a relation round.
    x = table(200, 1)
    x[:, 1] = np.minimum(x[:, 0] + 1e-3, 10)
    for name, corrupt in corruptions_for(TABLE, known_of(Data(x, TABLE))).items():
        changed = corrupt(x, np.arange(200), severity=5, seed=2)
        assert TABLE.allowed(changed).all()
        assert (np.nan_to_num(changed[:, 2], nan=-1) != x[:, 2]).mean() > 0.3, name


def test_a_row_that_breaks_the_schema_itself_is_disturbed_all_the_same() -> None:
    x = table(50, 2)
    x[:, :2] = x[:, 1::-1] + 0.5  # the relation is broken, and some values are out of bounds
    for name, corrupt in corruptions_for(TABLE, known_of(Data(x, TABLE))).items():
        changed = corrupt(x, np.arange(50), severity=5, seed=2)
        assert (np.nan_to_num(changed, nan=-1) != x).any(axis=1).mean() > 0.8, name


def test_images_stay_within_their_bounds_and_move_more_with_each_severity() -> None:
    x = toy_case("image").data("test").x[:20]
    schema = toy_case("image").data("test").schema
    for name, corrupt in corruptions_for(schema, {}).items():
        drawn = [corrupt(x, np.arange(20), severity=s, seed=0) for s in SEVERITIES]
        assert all(d.min() >= 0 and d.max() <= 1 and d.dtype == x.dtype and d.shape == x.shape for d in drawn)
        far = [float(np.abs(d - x).mean()) for d in drawn]
        assert far == sorted(far), name
        assert far[0] > 0, name


def test_a_translation_by_hand_is_what_the_corruption_does_to_a_ramp() -> None:
    # Away from the edge a shifted linear ramp is the ramp minus a constant, and all steps have the declared length.
    ramp = np.tile(np.arange(32) / 32, (1, 1, 32, 1)).astype(np.float64)
    schema = Schema(DataKind.IMAGE, (1, 32, 32), (Feature("pixel", lo=-2, hi=2),))
    moved = corruptions_for(schema, {})["translation"]
    both = [moved(a, np.array([4]), severity=5, seed=9) for a in (ramp, ramp.transpose(0, 1, 3, 2))]
    across, down = ((a - b)[0, 0, 12:20, 12:20].mean() * 32 for a, b in zip(both, (ramp, ramp.mT), strict=True))
    assert np.hypot(across, down) == pytest.approx(0.15 * 32, rel=1e-6)


@pytest.mark.parametrize("severity", [1, 5])
def test_typing_errors_hit_the_declared_share_of_long_words_and_nothing_else(severity: int) -> None:
    words = "the quick brown foxes jumps over a lazy dog, 2 times; it is ok"
    x = texts([words] * 400)
    schema = Schema(DataKind.TEXT, ())
    changed = corruptions_for(schema, {})["typos"](x, np.arange(400), severity=severity, seed=0)
    pairs = [(a, b) for text in changed for a, b in zip(words.split(), str(text).split(), strict=True)]
    long = [a != b for a, b in pairs if len(a.strip(",;")) >= 3]
    chance = {1: 0.02, 5: 0.2}[severity]
    assert np.mean(long) == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / len(long)))
    assert all(a == b for a, b in pairs if len(a.strip(",;")) < 3)


def test_a_model_that_answers_by_one_pixel_is_found_out_and_one_that_always_says_the_same_is_not() -> None:
    case = toy_case("image")
    data = case.data("test")
    brittle = wrap_function(lambda x: (x[:, 0, 3, 3] > 0.5).astype(int), output="labels", classes=("0", "1"))
    stuck = wrap_function(lambda x: np.zeros(len(x), dtype=int), output="labels", classes=("0", "1"))
    for model, found in ((brittle, True), (stuck, False)):
        y = model.labels(data.x)
        other = Case(name="c", model=model, splits=Splits(test=dataclasses.replace(data, y=y)))
        report = run(other, Order(only=("evasion/corruptions",), profile=Profile.QUICK))
        assert any(isinstance(o, Finding) for o in report.outcomes) is found


def test_the_kept_share_counts_only_rows_that_were_right_as_they_are() -> None:
    x = np.linspace(0.05, 0.95, 10).reshape(-1, 1)
    schema = Schema(DataKind.TABLE, (1,), (Feature("a", lo=0.0, hi=1.0, scale=1e-6),))
    y = np.array([0, 0, 0, 0, 0, 1, 1, 1, 0, 0])
    model = wrap_function(lambda v: (v[:, 0] > 0.5).astype(int), output="labels", classes=("0", "1"))
    case = Case(name="c", model=model, splits=Splits(test=Data(x, schema, y)))
    lab = lab_for(corrupt_inputs, Order(options={"evasion/corruptions": {"corruptions": ("noise",)}}))
    found = {e.metric: e for e in corrupt_inputs(case, lab) if e.at.get("severity", 3) == 3}
    assert (found["evasion.corruption_kept"].value, found["evasion.corruption_kept"].n) == (1.0, 8)
    assert (found["evasion.corruption_accuracy"].value, found["evasion.corruption_accuracy"].n) == (0.8, 10)


@pytest.mark.parametrize("options", [{"corruptions": ("fog",)}, {"severity": 6}, {"samples": 0}])
def test_an_unknown_corruption_or_severity_is_refused(options: dict[str, object]) -> None:
    case = toy_case("table")
    lab = dataclasses.replace(lab_for(corrupt_inputs), options=CorruptionOptions(**options))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected"):
        list(corrupt_inputs(case, lab))
