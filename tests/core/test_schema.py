from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.schema import Feature, FeatureKind, Relation, Schema
from casemate.errors import DataError

TABLE = Schema(
    DataKind.TABLE,
    (5,),
    (
        Feature("low", lo=0, hi=10, missing_ok=True),
        Feature("high", lo=0, hi=10),
        Feature("count", FeatureKind.INTEGER, lo=0, hi=5),
        Feature("a", lo=0, hi=1, block="letter"),
        Feature("b", lo=0, hi=1, block="letter"),
    ),
    (Relation("low", "high"),),
)
GOOD = np.array([[1.0, 2.0, 3.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        (1, np.nan, "not finite"),
        (1, np.inf, "not finite"),
        (1, 11.0, "out of bounds"),
        (2, 2.5, "not an integer"),
        (3, 1.0, "not one-hot: letter"),
        (0, 9.0, "breaks low <= high"),
    ],
)
def test_each_rule_of_a_schema_names_the_rows_that_break_it(column: int, value: float, rule: str) -> None:
    rows = np.repeat(GOOD, 3, axis=0)
    rows[1, column] = value
    problems = TABLE.problems(rows)
    assert problems[rule].tolist() == [False, True, False]
    assert TABLE.allowed(rows).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("feature", "near", "fine"),
    [
        (Feature("n", FeatureKind.INTEGER, lo=0, hi=2e6), 3 - 5e-7, 3.0),
        (Feature("n", FeatureKind.INTEGER, lo=0, hi=1_000_000), 1_000_001.0, 1_000_000.0),
        (Feature("n", FeatureKind.INTEGER, lo=0, hi=2**25 + 1), 2**25 + 9.0, np.float32(2**25 + 1)),
        (Feature("c", FeatureKind.CATEGORY, lo=0, hi=1, categories=("a", "b")), 1e-7, 1.0),
        (Feature("x", lo=0, hi=1e-7), 2e-7, 1e-7 * (1 + 1e-9)),
        (Feature("x", lo=0, hi=0.1), 0.1001, np.float32(0.1)),
    ],
)
def test_a_value_beside_what_is_possible_is_not_taken_for_it(feature: Feature, near: float, fine: float) -> None:
    schema = Schema(DataKind.TABLE, (1,), (feature,))
    assert schema.allowed(np.array([[near], [fine]])).tolist() == [False, True]


def test_a_large_matrix_is_checked_in_parts_and_never_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.repeat(GOOD, 50_000, axis=0)
    rows[[7, 33_000, 49_999], [0, 2, 3]] = [9.0, 2.5, 1.0]
    whole = TABLE.problems(rows[:50_000])
    tracemalloc.start()
    try:
        monkeypatch.setattr("casemate.core.schema._CELLS", 5 * 1000)
        parts = TABLE.problems(rows)
        assert tracemalloc.get_traced_memory()[1] < rows.nbytes / 2
    finally:
        tracemalloc.stop()
    assert parts.keys() == whole.keys() == {"breaks low <= high", "not an integer", "not one-hot: letter"}
    assert [np.flatnonzero(parts[rule]).tolist() for rule in sorted(parts)] == [[7], [33_000], [49_999]]
    assert TABLE.problems(rows[:0]) == {}


def test_a_missing_value_is_allowed_where_the_schema_says_so() -> None:
    rows = GOOD.copy()
    rows[0, 0] = np.nan
    assert TABLE.problems(rows) == {}


def test_an_unknown_category_is_a_problem() -> None:
    colour = Feature("colour", FeatureKind.CATEGORY, categories=("red", "blue"))
    schema = Schema(DataKind.TABLE, (1,), (colour,))
    assert schema.problems(np.array([[0.0], [1.0], [2.0]]))["unknown category"].tolist() == [False, False, True]


def test_an_attacker_has_no_scale_on_what_cannot_change() -> None:
    features = (Feature("a", scale=2.0), Feature("b", immutable=True), Feature("c", FeatureKind.CATEGORY))
    assert Schema(DataKind.TABLE, (3,), features).scale.tolist() == [2.0, 0.0, 0.0]


def test_bounds_of_an_image_hold_for_every_pixel() -> None:
    schema = Schema(DataKind.IMAGE, (1, 2, 2), (Feature("pixel", lo=0, hi=1),))
    images = np.zeros((2, 1, 2, 2), dtype=np.float32)
    images[1, 0, 1, 1] = 255
    assert schema.problems(images)["out of bounds"].tolist() == [False, True]
    assert schema.lo.shape == (1, 1, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Feature("x", lo=1, hi=0),
        lambda: Feature("x", scale=0),
        lambda: Schema(DataKind.TABLE, (2,), (Feature("x"),)),
        lambda: Schema(DataKind.IMAGE, (1, 2, 2), ()),
        lambda: Schema(DataKind.TABLE, (1,), (Feature("x"),), (Relation("x", "y"),)),
        lambda: TABLE.problems(np.zeros((1, 4))),
    ],
)
def test_a_schema_that_cannot_be_is_refused_with_the_mend(make: object) -> None:
    with pytest.raises(DataError, match=r"expected .*: \w+"):
        make()  # type: ignore[operator]


def test_data_is_read_only_and_names_its_rows() -> None:
    source = np.repeat(GOOD, 3, axis=0)
    data = Data(source, TABLE, y=np.array([0, 1, 0]), groups={"sex": np.array(["f", "m", "f"])})
    with pytest.raises(ValueError, match="read-only"):
        data.x[0, 0] = 5
    part = data.take(np.array([2, 0]))
    assert part.sample_id.tolist() == [2, 0]
    assert part.groups["sex"].tolist() == ["f", "f"]


@pytest.mark.parametrize("change", ["x", "y", "sample_id", "group"])
def test_the_digest_of_data_changes_with_everything_in_it(change: str) -> None:
    def build(x: float = 1.0, y: int = 0, ids: int = 0, group: str = "f") -> Data:
        return Data(GOOD * x, TABLE, y=np.array([y]), sample_id=np.array([ids]), groups={"sex": np.array([group])})

    other = {"x": build(x=0.5), "y": build(y=1), "sample_id": build(ids=4), "group": build(group="m")}[change]
    assert build().digest == build().digest != other.digest


@pytest.mark.parametrize(
    "make",
    [
        lambda: Data(np.zeros((0, 5)), TABLE),
        lambda: Data(GOOD, TABLE, y=np.array([1, 2])),
        lambda: Data(np.repeat(GOOD, 2, 0), TABLE, sample_id=np.array([4, 4])),
        lambda: Data(GOOD, TABLE).labels,
    ],
)
def test_data_that_cannot_be_is_refused(make: object) -> None:
    with pytest.raises(DataError, match="expected"):
        make()  # type: ignore[operator]


def test_hardening_never_sees_the_test_split() -> None:
    data = Data(GOOD, TABLE)
    splits = Splits(train=data, test=data)
    assert set(splits.without_test().parts()) == {"train"}
