"""Texts, JSON lines, .npy files and folders of pictures: what is read, what is refused, and in which words."""

from __future__ import annotations

import json
import os
import struct
import sys
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from casemate.adapters import image_folder, tables
from casemate.adapters.data import Reading, from_arrays, read_splits, read_table
from casemate.core.facets import DataKind
from casemate.core.schema import FeatureKind
from casemate.errors import DataError, Unavailable

RNG = np.random.default_rng(3)
MESSAGES = ["buy now", "", "see\nyou, soon", "NA", "12", 'she said "hi"', "schöne Grüße", "buy now"]
LABELS = ["spam", "ham"] * 4


def text_file(folder: Path, suffix: str, messages: list[Any] = MESSAGES) -> Path:
    path = folder / f"t.{suffix}"
    columns = {"message": messages, "label": LABELS[: len(messages)], "sex": ["f", "m"] * (len(messages) // 2)}
    if suffix == "jsonl":
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    elif suffix == "csv":
        pd.DataFrame(columns).to_csv(path, index=False)
    else:
        pd.DataFrame(columns).to_parquet(path, index=False)
    return path


def lines(folder: Path, *rows: str) -> Path:
    path = folder / "t.jsonl"
    path.write_bytes("\n".join(rows).encode("utf-8", "surrogatepass"))
    return path


# ---------------------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_column_of_texts_is_read_as_it_stands(suffix: str, tmp_path: Path) -> None:
    loaded = read_table(text_file(tmp_path, suffix), text="message", target="label", sensitive=("sex",))
    assert loaded.schema.kind is DataKind.TEXT
    assert list(loaded.data.x) == MESSAGES
    assert [loaded.classes[i] for i in loaded.data.labels] == LABELS
    assert list(loaded.data.groups["sex"]) == ["f", "m"] * 4


def test_texts_from_any_file_or_from_memory_are_the_same_data(tmp_path: Path) -> None:
    files = [
        read_table(text_file(tmp_path, end), text="message", target="label") for end in ("parquet", "csv", "jsonl")
    ]
    forms = [MESSAGES, tuple(MESSAGES), np.array(MESSAGES), np.array(MESSAGES, dtype=object), pd.Series(MESSAGES)]
    loaded = [*files, *(from_arrays(x, LABELS) for x in forms)]
    assert len({item.data.digest for item in loaded}) == 1
    np.savez(tmp_path / "t.npz", x=np.array(MESSAGES), y=np.array(LABELS))
    assert read_table(tmp_path / "t.npz").data.digest == loaded[0].data.digest


def test_one_long_text_does_not_make_all_others_as_wide() -> None:
    long = "x" * 2_000_000
    data = from_arrays([long, *["short"] * 2000], ["a", "b", *["a"] * 1999]).data  # 16 GB as an array of fixed width
    assert data.x[0] == long
    assert data.take(np.array([1])).x[0] == "short"


@pytest.mark.parametrize(
    ("suffix", "messages", "how", "message"),
    [
        ("csv", MESSAGES, {"text": "mesage"}, "expected a column 'mesage' in t.csv, got none: did you mean message"),
        ("parquet", [1, 2, 3, 4], {"text": "message"}, "expected text in column 'message' of t.parquet, got int64"),
        ("csv", [1, 2, 3, 4], {"text": "message"}, "expected text in column 'message' of t.csv, got int64"),
        ("jsonl", [1, 2, 3, 4], {"text": "message"}, "expected text in column 'message' of t.jsonl, got int64"),
        (
            "parquet",
            ["a", None, "b", None],
            {"text": "message"},
            "in every row of t.parquet, got none in 2 rows .*row 1",
        ),
        ("jsonl", ["a", None, "b", None], {"text": "message"}, "in every row of t.jsonl, got none in 2 rows .*row 1"),
        ("csv", MESSAGES, {"text": "label"}, "a column of texts beside the target, got 'label' as both"),
        ("csv", MESSAGES, {"kind": DataKind.TEXT}, "data. text beside kind = 'text', got none"),
        ("csv", MESSAGES, {"text": "message", "kind": DataKind.TABLE}, "kind = 'text' beside .data. text, got 'table'"),
        ("csv", MESSAGES, {"text": "message", "bounds": (0, 1)}, "texts without .schema."),
        (
            "csv",
            MESSAGES,
            {"text": "message", "overrides": {"message": {"lo": 1}}},
            "texts without .schema.",
        ),
    ],
)
def test_texts_that_do_not_fit_are_one_clear_error(
    suffix: str, messages: list[Any], how: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_table(text_file(tmp_path, suffix, messages), target="label", **how)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (["a", None, "b", float("nan")], "expected a text in every row of x, got NoneType in 2 rows .row 1 first"),
        (["a", "b\ud800"], "half of a surrogate pair in text 1"),
        ([1, 2, 3], "or texts .n,., in x, got int64"),
        ([b"a", b"b"], "got .S1 .2,."),
    ],
)
def test_lists_that_are_no_texts_are_one_clear_error(x: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_arrays(x)


def test_splits_of_texts_and_of_tables_are_refused_together(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", x=RNG.random((8, 2)), y=np.arange(8) % 2)
    np.savez(tmp_path / "test.npz", x=np.array(MESSAGES), y=np.arange(8) % 2)
    with pytest.raises(DataError, match=r"expected table data in every split, got text data in test.npz"):
        read_splits({name: tmp_path / f"{name}.npz" for name in ("train", "test")}, Reading())


def test_a_text_that_a_small_file_names_many_times_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = pa.table(
        {"message": pa.DictionaryArray.from_arrays([0] * 5000, ["x" * 100_000]), "label": ["a", "b"] * 2500}
    )
    pq.write_table(bomb, tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < 200_000
    monkeypatch.setattr(tables, "memory", lambda: 1 << 27)
    with pytest.raises(DataError, match=r"fit into memory in t.parquet, got 500,000,000 bytes"):
        read_table(tmp_path / "t.parquet", text="message", target="label")


@pytest.mark.parametrize("role", ["target", "sensitive"])
def test_a_long_name_of_a_class_or_group_is_refused_before_it_is_written_out(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = pa.DictionaryArray.from_arrays([0, 1] * 5000, ["x" * 100_000, "y"])
    pq.write_table(pa.table({"a": np.arange(10_000.0), "name": names}), tmp_path / "t.parquet", store_schema=False)
    monkeypatch.setattr(tables, "memory", lambda: 1 << 27)
    with pytest.raises(DataError, match="got one of 100,000 characters"):
        read_table(tmp_path / "t.parquet", **{role: "name" if role == "target" else ("name",)})
    loaded = read_table(tmp_path / "t.parquet")  # as a feature it takes no more than its indices
    np.testing.assert_array_equal(loaded.data.x[:, 1], np.arange(10_000) % 2)


def test_text_of_many_row_groups_keeps_every_row(tmp_path: Path) -> None:
    text = np.array([f"v{i % 7 + i // 100}" for i in range(1000)])
    pq.write_table(pa.table({"text": text, "b": np.arange(1000.0)}), tmp_path / "t.parquet", row_group_size=100)
    loaded = read_table(tmp_path / "t.parquet")
    names = np.array(loaded.schema.features[0].categories)
    np.testing.assert_array_equal(names[loaded.data.x[:, 0].astype(int)], text)


def test_a_column_that_is_excluded_may_hold_anything(tmp_path: Path) -> None:
    days = pa.array([1, 2], pa.date32())
    pq.write_table(pa.table({"day": days, "list": [[1], [2]], "a": [1.0, 2.0], "y": [0, 1]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"in column 'day' of t.parquet, got date32.*exclude it"):
        read_table(tmp_path / "t.parquet", target="y")
    assert read_table(tmp_path / "t.parquet", target="y", exclude=("day", "list")).schema.names == ("a",)


@pytest.mark.parametrize("role", ["target", "sensitive", "feature"])
def test_whole_numbers_that_a_float_cannot_tell_apart_are_refused(role: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [2**60, 2**60 + 1, 3], "a": [1.0, 2.0, 3.0]}), tmp_path / "t.parquet")
    how: dict[str, Any] = {"target": {"target": "id"}, "sensitive": {"sensitive": ("id",)}, "feature": {}}[role]
    with pytest.raises(DataError, match=r"below 2\^53 in column 'id' of t.parquet"):
        read_table(tmp_path / "t.parquet", **how)
    with pytest.raises(DataError, match=r"below 2\^53"):
        from_arrays(np.array([[2**60], [2**60 + 1]]))


# ----------------------------------------------------------------------------------------------------------- JSON lines


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(st.fixed_dictionaries({"a": st.integers(-9, 9), "t": st.text(max_size=8)}), min_size=1, max_size=6)
)
def test_json_lines_give_back_what_json_wrote(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    path = lines(tmp_path, *(json.dumps(row) for row in rows), "")
    table = tables.read_arrow(path)
    assert table.to_pylist() == rows


def test_keys_that_are_missing_are_missing_values_and_blank_lines_are_none(tmp_path: Path) -> None:
    path = lines(tmp_path, '{"a": 1, "y": "u"}', "", '{"y": "v", "b": true}', '{"a": 2.5, "b": null, "y": "u"}')
    loaded = read_table(path, target="y")
    assert loaded.schema.names == ("a", "b")
    assert [feature.kind for feature in loaded.schema.features] == [FeatureKind.NUMERIC, FeatureKind.INTEGER]
    np.testing.assert_array_equal(loaded.data.x, [[1, np.nan], [np.nan, 1], [2.5, np.nan]])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"a": 1', "line 2 of t.jsonl, got a fault .Expecting ',' delimiter at column 8"),
        ('{"a": NaN}', "line 2 of t.jsonl, got a fault .NaN, which JSON does not have; write null"),
        ('{"a": 1, "a": 2}', "line 2 of t.jsonl, got a fault .the key 'a' twice"),
        ('{"a": [1]}', "plain values in line 2 of t.jsonl, got a nested list under 'a': flatten it"),
        ('{"a": {"b": 1}}', "plain values in line 2 of t.jsonl, got a nested dict under 'a'"),
        ("[1, 2]", "a JSON object in line 2 of t.jsonl, got list"),
        ('{"a": "one"}', "one type in column 'a' of t.jsonl, got numbers before line 2 and text there"),
        ('{"a": true}', "got numbers before line 2 and truth values there"),
        ('{"a": 1' + "0" * 400 + "}", "numbers of 64 bits in column 'a'"),
        ('{"a": "\\ud800"}', "line 2 of t.jsonl, got a fault .*surrogates not allowed"),
        ('{"a": "\ud800"}', "line 2 of t.jsonl, got a fault .*utf-8"),
        ("[" * 100_000, "line 2 of t.jsonl, got a fault"),
    ],
)
def test_a_line_that_is_no_row_is_named_by_its_number(row: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(lines(tmp_path, '{"a": 1}', row), target="a")
    assert "\n" not in str(caught.value)


def test_a_new_key_in_every_line_does_not_take_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "memory", lambda: 1 << 20)
    with pytest.raises(DataError, match=r"t.jsonl to fit into memory, got 210 keys by line 210"):
        read_table(lines(tmp_path, *(json.dumps({f"k{i}": 1}) for i in range(2000))), target="k0")


# ----------------------------------------------------------------------------------------------------------- .npy files


def test_samples_and_labels_lie_in_two_npy_files(tmp_path: Path) -> None:
    x, y = RNG.random((6, 3)), np.array([0, 1] * 3)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y[:, None])
    splits, classes = read_splits({"test": tmp_path / "x.npy"}, Reading(labels={"test": tmp_path / "y.npy"}))
    assert splits.test is not None
    np.testing.assert_array_equal(splits.test.x, x)
    np.testing.assert_array_equal(splits.test.labels, y)
    assert classes == ("0", "1")


def claimed(path: Path) -> None:
    """A header that claims a terabyte, and nothing behind it."""
    np.save(path, np.zeros(1))
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"(1,), }" + b" " * 11, b"(137438953472,), }"))
    assert path.read_bytes() != raw


def headed(path: Path, kind: str, n: int) -> None:
    """A header that claims n samples, which take no bytes."""
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': ({n},)}}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())


@pytest.mark.parametrize(
    ("beside", "how", "message"),
    [
        (
            {"sample_id": np.array([0.1, 0.5, 0.9])},
            {},
            r"expected sample_id \(n,\) as whole numbers in x.npz, got float",
        ),
        ({"sample_id": np.array(["a", "b", "c"])}, {}, "expected sample_id"),
        ({"feature_names": np.array("a")}, {}, "expected feature_names"),
        ({"sex": np.zeros((3, 2))}, {"sensitive": ("sex",)}, r"expected sex \(n,\) as numbers or text"),
        ({"sex": np.array(1)}, {"source": "sex"}, "expected sex"),
        ({}, {"target": "label"}, "expected an array 'label' in x.npz, got none"),
    ],
)
def test_an_array_beside_the_samples_has_one_value_for_each(
    beside: dict[str, Any], how: dict[str, Any], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", x=np.eye(3), y=np.array([0, 1, 1]), **beside)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "x.npz", **how)


def test_an_archive_with_a_name_twice_or_a_claim_without_bytes_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(3))
    headed(tmp_path / "big.npy", "'<U0'", 10**12)
    for items, message in ((["x.npy", "x.npy"], "got 'x.npy' again"), (["big.npy"], "which does not fit into memory")):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of zipfile, about the name
            for item in items:
                archive.write(tmp_path / item, "x.npy")
        with pytest.raises(DataError, match=message):
            read_table(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: np.save(path, np.array([{}], dtype=object)), "which only a pickle holds"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"), "expected arrays in x.npy"),
        (lambda path: path.write_bytes(b""), "expected arrays in x.npy"),
        (claimed, "expected arrays in x.npy"),
        (lambda path: headed(path, "'<U0'", 10**12), "which does not fit into memory"),
        (lambda path: np.save(path, np.zeros((6, 0))), r"expected features in x.npy, got samples of shape \(0,\)"),
        (lambda path: np.save(path, np.zeros((6, 0, 4, 4))), "expected features in x.npy"),
        (lambda path: np.savez(path.with_suffix(""), x=np.zeros(2)) or path.with_suffix(".npz").rename(path), ".npz"),
        (lambda path: None, "got nothing at"),
        (lambda path: np.save(path, RNG.random((5, 3))), "one label for each sample in x.npy, got 6"),
    ],
)
def test_an_npy_file_that_does_not_fit_is_one_clear_error(write: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", np.array([0, 1] * 3))
    with pytest.raises(DataError, match=message):
        read_splits({"test": tmp_path / "x.npy"}, Reading(labels={"test": tmp_path / "y.npy"}))


def test_settings_of_columns_are_refused_where_there_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", RNG.random((6, 3)))
    for how in ({"target": "y"}, {"text": "y"}, {"sensitive": ("y",)}, {"source": "y"}):
        with pytest.raises(DataError, match=r"a table beside .data. .*, got x.npy, which has no column 'y'"):
            read_table(tmp_path / "x.npy", **how)
    with pytest.raises(DataError, match=r"for a .npy file only, got them for t.csv"):
        read_table(text_file(tmp_path, "csv"), labels={"data": tmp_path / "x.npy"})


# ------------------------------------------------------------------------------------------------------------- pictures


def pictures(folder: Path, mode: str = "RGB", suffix: str = "png", size: tuple[int, int] = (5, 4)) -> dict[Path, Any]:
    """Two classes of two pictures each, and their pixels."""
    found = {}
    for name in ("cats", "dogs"):
        (folder / "faces" / name).mkdir(parents=True, exist_ok=True)
        for i in range(2):
            shape = size[::-1] if mode == "L" else (*size[::-1], 3)
            pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
            path = folder / "faces" / name / f"{i}.{suffix}"
            Image.fromarray(pixels).save(path)
            found[path] = pixels
    return found


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("bounds", [None, (0, 255), (-1, 1)])
def test_pictures_become_images_within_their_bounds(mode: str, bounds: Any, tmp_path: Path) -> None:
    wanted = pictures(tmp_path, mode)
    loaded = read_table(tmp_path / "faces", bounds=bounds)
    assert loaded.classes == ("cats", "dogs")
    assert loaded.data.x.dtype == np.float32
    assert loaded.data.x.shape == (4, 1 if mode == "L" else 3, 4, 5)
    lo, hi = bounds or (0, 1)
    assert (loaded.schema.features[0].lo, loaded.schema.features[0].hi) == (lo, hi)
    for image, label, (path, pixels) in zip(loaded.data.x, loaded.data.labels, sorted(wanted.items()), strict=True):
        expected = lo + (hi - lo) * (pixels.astype(float) / 255)
        np.testing.assert_allclose(image, expected[None] if mode == "L" else expected.transpose(2, 0, 1), atol=1e-4)
        assert loaded.classes[label] == path.parent.name


def test_jpeg_palettes_and_grey_among_colours_are_read_as_pillow_reads_them(tmp_path: Path) -> None:
    pictures(tmp_path, suffix="jpg")
    files = sorted((tmp_path / "faces").rglob("*.jpg"))
    Image.open(files[0]).convert("L").save(files[0])
    Image.open(files[1]).convert("P").save(files[1].with_suffix(".PNG"), format="PNG")
    files[1].unlink()
    (tmp_path / "faces" / ".DS_Store").write_bytes(b"")
    x = read_table(tmp_path / "faces").data.x
    files = sorted((tmp_path / "faces").rglob("*.[jP]*"))
    for image, file in zip(x, files, strict=True):
        np.testing.assert_allclose(
            image * 255, np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1), atol=1e-3
        )


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(path: Path) -> None:
    """A picture of 40,000 x 40,000 pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def sixteen(path: Path) -> None:
    """A picture of 16 bits a channel, of which pillow keeps the upper half and calls it RGB."""
    header, rows = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0), zlib.compress((b"\0" + bytes(30)) * 4)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: Image.new("RGB", (6, 4)).save(f / "dogs/1.png"), "5 x 4 as most in faces, got 6 x 4 in dogs/1.png"),
        (lambda f: Image.new("RGB", (6, 4)).save(f / "cats/0.png"), "5 x 4 as most in faces, got 6 x 4 in cats/0.png"),
        (lambda f: Image.new("RGBA", (5, 4)).save(f / "dogs/1.png"), "8 bits, got RGBA in dogs/1.png: convert it"),
        (lambda f: Image.new("I;16", (5, 4)).save(f / "dogs/1.png"), "8 bits, got I;16 in dogs/1.png"),
        (lambda f: halved(f / "dogs/1.png"), "PNG or JPEG picture in dogs/1.png, got one that cannot be read"),
        (lambda f: (f / "dogs/1.png").write_bytes(b"GIF89a"), "PNG or JPEG picture in dogs/1.png"),
        (lambda f: bomb(f / "dogs/1.png"), "expected .*picture.* in dogs/1.png|40000 x 40000 in dogs/1.png"),
        (lambda f: (f / "dogs/notes.txt").write_text("x"), "PNG and JPEG files in faces/dogs, got notes.txt"),
        (lambda f: (f / "dogs/more").mkdir(), "PNG and JPEG files in faces/dogs, got more"),
        (lambda f: [p.unlink() for p in f.rglob("*.png")], "a folder of pictures for each class in faces, got none"),
        (lambda f: (f / "birds").mkdir(), "expected pictures in faces/birds, got none"),
        (lambda f: Image.new("RGB", (5, 4)).save(f / "1.png"), "in folders of their classes, got 1.png beside them"),
        (lambda f: (f / "birds").symlink_to(f / "birds"), "in folders of their classes, got birds beside them"),
        (lambda f: sixteen(f / "dogs/1.png"), "8 bits, got RGB of 16 bits in dogs/1.png"),
        (lambda f: (f / "dogs").rename(os.fsdecode(bytes(f) + b"/\xff")), "expected a class named in UTF-8"),
    ],
)
def test_pictures_that_do_not_fit_are_named(spoil: Any, message: str, tmp_path: Path) -> None:
    pictures(tmp_path)
    spoil(tmp_path / "faces")
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "faces")


def test_sizes_are_checked_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path)
    monkeypatch.setattr(image_folder, "_decoded", lambda *_: pytest.fail("decoded"))
    for name, value in (("_PIXELS", 19), ("_BYTES", 20), ("memory", lambda: 4 * 3 * 20 * 4 - 1)):
        with monkeypatch.context() as patch:
            patch.setattr(image_folder, name, value)
            with pytest.raises(DataError, match=r"at most|fit into memory"):
                read_table(tmp_path / "faces")


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(Unavailable, match=r"pip install 'casemate\[image\]'"):
        read_table(tmp_path / "faces")
