"""Data from files and arrays: what is inferred, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.adapters.data import Reading, from_arrays, read_splits, read_table, sample_rows, split
from casemate.adapters.labels import encode, sorted_classes
from casemate.adapters.probing import probes
from casemate.adapters.schema import describe
from casemate.core.facets import DataKind
from casemate.core.model import Task
from casemate.core.schema import FeatureKind
from casemate.errors import DataError

RNG = np.random.default_rng(5)
N = 60
FRAME = pd.DataFrame(
    {
        "age": RNG.integers(18, 80, N),
        "pay": RNG.normal(3, 2, N),
        "town": RNG.choice(["ulm", "bern", "oslo"], N),
        "member": RNG.random(N) < 0.5,
        "sex": RNG.choice(["f", "m"], N),
        "label": RNG.choice(["no", "yes"], N),
    }
)


def stored(frame: pd.DataFrame, folder: Path, suffix: str = "parquet", name: str = "t") -> Path:
    path = folder / f"{name}.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_is_read_with_its_schema(suffix: str, tmp_path: Path) -> None:
    loaded = read_table(stored(FRAME, tmp_path, suffix), target="label", sensitive=("sex",))
    data, kinds = loaded.data, {f.name: f.kind for f in loaded.schema.features}
    assert loaded.classes == ("no", "yes")
    assert kinds == {
        "age": FeatureKind.INTEGER,
        "pay": FeatureKind.NUMERIC,
        "town": FeatureKind.CATEGORY,
        "member": FeatureKind.INTEGER,
        "sex": FeatureKind.CATEGORY,
    }
    np.testing.assert_array_equal(data.labels, FRAME["label"] == "yes")
    np.testing.assert_array_equal(data.groups["sex"], FRAME["sex"])
    town = loaded.schema.features[2]
    assert town.categories == ("bern", "oslo", "ulm")
    np.testing.assert_array_equal(np.array(town.categories)[data.x[:, 2].astype(int)], FRAME["town"])
    age, pay = loaded.schema.features[:2]
    assert (age.lo, age.hi) == (FRAME["age"].min(), FRAME["age"].max())
    assert pay.scale == pytest.approx(FRAME["pay"].std(ddof=0))
    assert data.x.dtype == np.float64
    assert loaded.schema.allowed(data.x).all()


def test_csv_and_parquet_and_a_frame_give_the_same_data(tmp_path: Path) -> None:
    tables = [read_table(stored(FRAME, tmp_path, suffix), target="label") for suffix in ("csv", "parquet")]
    arrays = from_arrays(FRAME.drop(columns="label"), FRAME["label"])
    assert len({loaded.data.digest for loaded in [*tables, arrays]}) == 1
    assert tables[0].schema == tables[1].schema == arrays.schema


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_and_a_byte_order_mark_are_understood(delimiter: str, tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "t.csv", sep=delimiter, index=False, encoding="utf-8-sig")
    assert read_table(tmp_path / "t.csv", target="label").schema.names[0] == "age"


def test_scale_is_of_the_training_split_and_bounds_are_of_all(tmp_path: Path) -> None:
    wide = FRAME.assign(pay=FRAME["pay"] * 10, town="riga")
    paths = {"test": stored(wide, tmp_path, name="test"), "train": stored(FRAME, tmp_path, name="train")}
    splits, classes = read_splits(paths, Reading(target="label"))
    assert splits.train is not None
    assert splits.test is not None
    assert splits.train.schema == splits.test.schema
    pay, town = splits.train.schema.features[1:3]
    assert pay.scale == pytest.approx(FRAME["pay"].std(ddof=0))
    assert pay.hi == wide["pay"].max()
    assert town.categories == ("bern", "oslo", "riga", "ulm")
    assert classes == ("no", "yes")


def test_a_later_file_is_held_against_the_schema_of_an_earlier(tmp_path: Path) -> None:
    schema = read_table(stored(FRAME, tmp_path), target="label").schema
    again = stored(FRAME.assign(town="riga"), tmp_path, name="u")
    with pytest.raises(DataError, match=r"categories of column 'town' in u.parquet, got 'riga' in 60 rows"):
        read_table(again, target="label", schema=schema)
    with pytest.raises(DataError, match=r"numbers in \[18, 79\] in column 'age' of v.parquet, got 60 rows"):
        read_table(stored(FRAME.assign(age=200), tmp_path, name="v"), target="label", schema=schema)


def test_missing_values_are_allowed_where_they_are_and_kept(tmp_path: Path) -> None:
    frame = FRAME.copy()
    frame.loc[3:5, "age"] = np.nan
    frame.loc[7, "town"] = None
    loaded = read_table(stored(frame, tmp_path, "csv"), target="label")
    allowed = {f.name for f in loaded.schema.features if f.missing_ok}
    assert allowed == {"age", "town"}
    assert loaded.schema.features[0].kind is FeatureKind.INTEGER  # NaN made floats of whole numbers
    assert np.isnan(loaded.data.x[3:6, 0]).all()
    assert np.isnan(loaded.data.x[7, 2])
    assert loaded.schema.allowed(loaded.data.x).all()


def test_missing_values_that_are_forbidden_are_counted(tmp_path: Path) -> None:
    frame = FRAME.copy()
    frame.loc[3:5, "pay"] = np.nan
    with pytest.raises(DataError, match=r"a value in column 'pay' of t.parquet, got 3 rows without .row 3 first."):
        read_table(stored(frame, tmp_path), target="label", overrides={"pay": {"missing_ok": False}})


def test_what_is_inferred_is_shown_and_overridden(tmp_path: Path) -> None:
    overrides = {
        "age": {"lo": 17, "hi": 120, "scale": 5, "immutable": True},
        "pay": {"missing_ok": True},
        "member": {"kind": "category"},
        "town": {"categories": ["ulm", "bern", "oslo", "riga"]},
    }
    loaded = read_table(stored(FRAME, tmp_path), target="label", overrides=overrides)
    rows = {row["name"]: row for row in describe(loaded.schema)}
    assert rows["age"]["bounds"] == "17 ... 120"
    assert rows["age"]["immutable"] == "yes"
    assert rows["pay"]["missing"] == "allowed"
    assert rows["member"]["categories"] == "0, 1"
    assert rows["town"]["categories"] == "ulm, bern, oslo, riga"
    assert loaded.schema.features[0].scale == 5
    np.testing.assert_array_equal(loaded.data.x[:, 2] == 0, FRAME["town"] == "ulm")


def test_one_hot_blocks_are_found_when_asked(tmp_path: Path) -> None:
    frame = pd.get_dummies(FRAME[["town", "pay"]], columns=["town"], dtype=int).assign(label=FRAME["label"])
    path = stored(frame, tmp_path)
    assert {f.block for f in read_table(path, target="label").schema.features} == {""}
    assert [f.block for f in read_table(path, target="label", one_hot=True).schema.features] == ["", *["town"] * 3]


def test_sensitive_columns_stay_features_unless_dropped(tmp_path: Path) -> None:
    path = stored(FRAME, tmp_path)
    kept = read_table(path, target="label", sensitive=("sex", "age"))
    dropped = read_table(path, target="label", sensitive=("sex", "age"), drop_sensitive=True)
    assert set(kept.schema.names) - set(dropped.schema.names) == {"sex", "age"}
    assert dropped.data.groups["age"].dtype == np.int64


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "how", "message"),
    [
        ({}, {"target": "lable"}, "expected a column 'lable' in t.parquet, got none: did you mean label"),
        ({}, {"target": "label", "sensitive": ("Sex",)}, "did you mean sex"),
        ({}, {"target": "label", "overrides": {"agee": {}}}, "did you mean age"),
        ({}, {"target": "label", "overrides": {"age": {"low": 3}}}, "got 'low': did you mean lo"),
        ({}, {"target": "label", "overrides": {"age": {"kind": "whole"}}}, "numeric, integer, category"),
        ({}, {"target": "label", "overrides": {"age": {"lo": "x"}}}, "a number as lo of column 'age'"),
        ({}, {"target": "label", "overrides": {"town": {"kind": "numeric"}}}, "numbers in column 'town', got text"),
        ({}, {"target": "label", "overrides": {"age": {"hi": 20}}}, "numbers in .18, 20. in column 'age'"),
        ({}, {"target": "label", "classes": ("no", "maybe")}, "among the classes no, maybe, got yes"),
        ({}, {"target": "pay"}, "60 fractional numbers, a regression target"),
        ({"label": "no"}, {"target": "label"}, "at least two classes, got only 'no'"),
        ({"label": "no"}, {"target": "label", "classes": ("no", "yes")}, "at least two classes in t.parquet"),
        ({"label": None}, {"target": "label"}, "none in 60 rows of 'label'"),
        ({"pay": np.inf}, {"target": "label"}, "finite numbers in column 'pay', got none"),
        ({"empty": np.nan}, {"target": "label"}, "values in column 'empty', got none"),
        ({"day": pd.Timestamp("2020-01-01")}, {"target": "label"}, "truth values in column 'day' of t.parquet"),
        ({}, {"target": "label", "exclude": ("age", "pay", "town", "member", "sex")}, "features in t.parquet"),
    ],
)
def test_data_that_does_not_fit_is_one_clear_error(change: Any, how: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_table(stored(FRAME.assign(**change), tmp_path), **how)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"a,b\n1,2\n1,2,3\n", "Expected 2 columns, got 3"),
        ("t.csv", "a,b\n1,M\xfcnchen\n".encode("latin-1"), "save the file as UTF-8"),
        ("t.csv", b"a,a\n1,2\n", "each column once in t.csv, got 'a' again"),
        ("t.csv", b"", "readable table"),
        ("t.csv", b"a,b\n", "at least one row"),
        ("t.parquet", b"PAR1", "readable table"),
        ("t.npz", b"PK", "expected arrays in t.npz"),
        ("t.xlsx", b"", ".csv, .parquet or .npz"),
        ("absent.csv", None, "got nothing at"),
        ("absent.npz", None, "got nothing at"),
    ],
)
def test_a_file_that_is_no_table_is_one_clear_error(name: str, content: Any, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / name, target="b")


def test_an_id_column_is_refused_as_a_feature_and_as_a_target(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"name": [f"person {i}" for i in range(1200)], "v": np.arange(1200) % 7, "label": [0, 1] * 600}
    )
    with pytest.raises(DataError, match="1200 different texts in 1200 rows"):
        read_table(stored(frame, tmp_path), target="label")
    with pytest.raises(DataError, match="a regression target or an id"):
        read_table(stored(frame, tmp_path), target="name")


def test_splits_with_other_columns_are_refused(tmp_path: Path) -> None:
    paths = {"train": stored(FRAME, tmp_path, name="a"), "test": stored(FRAME.drop(columns="age"), tmp_path, name="b")}
    with pytest.raises(DataError, match=r"'age' is not in both a.parquet and b.parquet"):
        read_splits(paths, Reading(target="label"))


# --------------------------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("shape", [(20, 4, 4), (20, 1, 4, 4), (20, 3, 4, 4)])
def test_three_and_four_dimensions_are_images(shape: tuple[int, ...]) -> None:
    loaded = from_arrays(RNG.random(shape), np.arange(20) % 3)
    assert loaded.schema.kind is DataKind.IMAGE
    assert loaded.data.x.shape == (20, shape[1] if len(shape) == 4 else 1, 4, 4)
    assert loaded.data.x.dtype == np.float32
    assert (loaded.schema.features[0].lo, loaded.schema.features[0].hi) == (0, 1)
    assert loaded.schema.features[0].scale == 1


def test_images_of_255_need_declared_bounds() -> None:
    images = RNG.integers(0, 256, (20, 4, 4), dtype=np.uint8)
    with pytest.raises(DataError, match="divide by 255, or declare bounds"):
        from_arrays(images)
    with pytest.raises(DataError, match="divide by 255 or declare bounds"):
        from_arrays(images, bounds=(0, 1))
    with pytest.raises(DataError, match="divide by 255"):
        from_arrays(images.astype(np.float32))
    assert from_arrays(images, bounds=(0, 255)).schema.features[0].hi == 255


def test_pixels_that_are_not_finite_are_counted() -> None:
    images = RNG.random((20, 4, 4))
    images[[2, 5], 0, 0] = np.nan
    for bounds in ((0, 1), None):
        with pytest.raises(DataError, match="2 images"):
            from_arrays(images, bounds=bounds)
    with pytest.raises(DataError, match="1 images"):
        from_arrays(np.stack([np.full((4, 4), 1e300), np.zeros((4, 4))]))


def test_labels_come_by_name_or_by_index() -> None:
    x = RNG.normal(size=(4, 2))
    by_name = from_arrays(x, ["b", "a", "b", "a"], classes=("b", "a"))
    by_index = from_arrays(x, [0, 1, 0, 1], classes=("b", "a"))
    np.testing.assert_array_equal(by_name.data.labels, by_index.data.labels)
    assert from_arrays(x, [3, 10, 3, 10]).classes == ("3", "10")
    assert from_arrays(x, np.array([0.0, 1.0, 0.0, 1.0])).classes == ("0", "1")


@pytest.mark.parametrize(
    ("x", "y", "how", "message"),
    [
        (np.empty((0, 3)), [], {}, "at least one sample"),
        (np.zeros((4, 2)), [0, 1, 2, 3], {"classes": ("a", "b")}, "among the classes a, b, got 0, 1, 2, 3"),
        (np.zeros((4, 2)), [0, 1], {}, "one label for each sample"),
        (np.zeros((4, 2)), [0, 1, np.nan, 1], {}, "a label in every row"),
        (np.zeros((4, 2)), np.zeros((4, 2)), {}, r"labels of shape \(n,\)"),
        (np.zeros(4), None, {}, "reshape x"),
        (np.zeros((4, 2)), None, {"kind": "image"}, "reshape x"),
        ([[1, "a"], [2, "b"]], None, {}, "matrix of numbers"),
        ([[1], [2, 3]], None, {}, "rows of different lengths"),
        (np.zeros((4, 2)), None, {"names": ["a"]}, "expected 2 names"),
        (np.zeros((4, 2)), None, {"names": ["a", "a"]}, "each column once"),
        (np.full((4, 2), np.nan), None, {}, "values in column 'x0'"),
    ],
)
def test_arrays_that_do_not_fit_are_one_clear_error(x: Any, y: Any, how: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_arrays(x, y, **how)


def test_a_regression_keeps_its_targets() -> None:
    y = RNG.normal(size=10)
    loaded = from_arrays(RNG.normal(size=(10, 2)), y, task=Task.REGRESSION)
    np.testing.assert_array_equal(loaded.data.labels, y)
    assert loaded.classes == ()


def test_npz_holds_images_groups_and_ids(tmp_path: Path) -> None:
    x, y, sex = RNG.random((12, 4, 4)), np.arange(12) % 2, np.array(["f", "m"] * 6)
    np.savez(tmp_path / "t.npz", x=x, y=y, sex=sex, sample_id=np.arange(12) + 100)
    loaded = read_table(tmp_path / "t.npz", sensitive=("sex",))
    np.testing.assert_array_equal(loaded.data.groups["sex"], sex)
    assert loaded.data.sample_id[0] == 100
    assert loaded.data.x.shape == (12, 1, 4, 4)


def test_npz_holds_a_table_with_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", X=RNG.normal(size=(12, 2)), target=np.arange(12) % 2, feature_names=["a", "b"])
    assert read_table(tmp_path / "t.npz").schema.names == ("a", "b")


def test_npz_with_a_pickle_inside_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="only a pickle holds"):
        read_table(tmp_path / "t.npz")


# --------------------------------------------------------------------------------------------------------------- splits


@given(st.lists(st.integers(0, 2), min_size=12, max_size=60), st.sampled_from([0.2, 0.5]), st.integers(0, 3))
def test_a_split_is_stratified_repeatable_and_whole(y: list[int], fraction: float, seed: int) -> None:
    y = [0, 1, 2, 0, 1, 2, *y]
    data = from_arrays(np.arange(len(y), dtype=float)[:, None], y).data
    first, second = split(data, fraction=fraction, seed=seed)
    assert sorted([*first.sample_id, *second.sample_id]) == list(range(len(y)))
    assert second.digest == split(data, fraction=fraction, seed=seed)[1].digest
    for label in set(y):
        assert abs((second.labels == label).sum() - fraction * y.count(label)) <= 1


def test_a_sample_keeps_ids_and_shares() -> None:
    y = np.repeat([0, 1], [900, 100])
    data = from_arrays(np.arange(1000.0)[:, None], y).data
    part = sample_rows(data, 100)
    assert np.bincount(part.labels).tolist() == [90, 10]
    np.testing.assert_array_equal(part.x[:, 0], part.sample_id)
    assert sample_rows(data, 5000) is data


# --------------------------------------------------------------------------------------------------------------- labels


def test_numbers_are_sorted_as_numbers_and_text_as_text() -> None:
    assert sorted_classes([10, 9, "1"]) == ("1", "9", "10")
    assert sorted_classes(["b", "a", 1.0]) == ("1", "a", "b")
    assert sorted_classes([True, False]) == ("False", "True")


@given(st.lists(st.sampled_from(["x", "y", "7"]), min_size=1))
def test_encoding_is_the_inverse_of_naming(names: list[str]) -> None:
    classes = ("7", "x", "y")
    assert [classes[i] for i in encode(np.array(names), classes)] == names


# --------------------------------------------------------------------------------------------------------------- probes


def test_probes_keep_the_schema(tmp_path: Path) -> None:
    frame = pd.get_dummies(FRAME, columns=["sex"], dtype=int)
    schema = read_table(stored(frame, tmp_path), target="label", one_hot=True).schema
    x = probes(schema, 50)
    assert schema.allowed(x).all()
    np.testing.assert_array_equal(x, probes(schema, 50))
    image = from_arrays(RNG.random((5, 3, 2, 2))).schema
    assert image.allowed(probes(image, 5)).all()
