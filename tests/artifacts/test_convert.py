"""Conversions: the same numbers and answers in formats that run nothing, from files that are never executed."""

from __future__ import annotations

import io
import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn

from casemate.adapters.skops import load_skops
from casemate.adapters.torch import load_weights
from casemate.adapters.verdicts import Held, hold
from casemate.artifacts import convert as converting
from casemate.artifacts.convert import convert_file
from casemate.artifacts.convert_tensors import Tensor, as_npz, as_safetensors, tensors_in
from casemate.cli import convert as command
from casemate.errors import ModelError
from casemate.formats.scanning.signs import Level
from casemate.formats.scanning.walking import scan_bytes, scan_file

X = np.random.default_rng(0).normal(size=(80, 4))
Y = np.array(["no", "yes"])[(X[:, 0] > 0).astype(int)]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


def state() -> dict[str, torch.Tensor]:
    """Tensors of every kind that lie in their storages in every way."""
    found = dict(net().state_dict())
    base = torch.arange(12.0).reshape(3, 4)
    found |= {"turned": base.T, "part": base[1:, ::2], "shared": base, "spread": torch.ones(1).expand(4, 3)}
    found |= {"scalar": torch.tensor(3), "empty": torch.empty(0, 3), "bits": torch.tensor([True, False])}
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int16, torch.complex64):
        found[str(dtype)] = (torch.randn(5) * 9).to(dtype)
    found["torch.float8_e4m3fn"] = torch.randn(4).to(torch.float8_e4m3fn)
    return found


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(path: Path, expected: dict[str, torch.Tensor]) -> None:
    """The peer: safetensors' own reader."""
    found = safetensors.torch.load_file(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(found[name]) == bits(tensor), name


# ---------------------------------------------------------------------------------------------------------------- torch


@pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
def test_weights_become_safetensors_bit_by_bit(new: bool, tmp_path: Path) -> None:
    source, target = tmp_path / "m.pt", tmp_path / "m.safetensors"
    torch.save(state(), source, _use_new_zipfile_serialization=new)
    done = convert_file(source, target)
    assert (done.what, done.compared, done.difference, done.left_out) == ("tensors", len(state()), 0.0, ())
    same(target, state())
    assert scan_file(target).level is Level.CLEAN
    torch.save({"state_dict": OrderedDict(state()), "epoch": 3}, source, _use_new_zipfile_serialization=new)
    assert convert_file(source, target).left_out == ("epoch",)
    same(target, state())
    torch.save(net(), source, _use_new_zipfile_serialization=new)  # a module that was pickled whole
    convert_file(source, target)
    same(target, net().state_dict())
    assert load_weights(target, f"{__name__}:net")(torch.zeros(2, 1, 4, 4)).shape == (2, 2)


class Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
def test_weights_are_saved_out_of_a_malicious_file_without_running_it(new: bool, tmp_path: Path) -> None:
    weights = net().state_dict()
    torch.save(
        {"state_dict": weights, "hook": Runs(tmp_path / "ran")}, tmp_path / "m.pt", _use_new_zipfile_serialization=new
    )
    assert scan_file(tmp_path / "m.pt").level is Level.MALICIOUS
    assert convert_file(tmp_path / "m.pt", tmp_path / "m.safetensors").left_out == ("hook",)
    same(tmp_path / "m.safetensors", weights)
    assert not (tmp_path / "ran").exists()
    torch.save({"a": torch.ones(2), "b": Runs(tmp_path / "ran")}, tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"expected a tensor at 'b', got (posix|nt)\.mkdir"):
        convert_file(tmp_path / "m.pt", tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()
    assert not (tmp_path / "ran").exists()


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(4.0)}, tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "m.pt").read_bytes()
    shape, stride = (re.findall(b"(?s)K%c\x85q." % size, data) for size in (4, 1))
    assert (len(shape), len(stride)) == (1, 1)
    for old, changed in ((shape[0], b"K\x05"), (stride[0], b"K\x02")):
        (tmp_path / "m.pt").write_bytes(data.replace(old, changed + old[2:]))
        with pytest.raises(ModelError, match="inside their storages"):
            convert_file(tmp_path / "m.pt", tmp_path / "m.safetensors")
    endless = data.replace(shape[0], b"J\xff\xff\xff\x7f" + shape[0][2:]).replace(stride[0], b"K\x00" + stride[0][2:])
    (tmp_path / "m.pt").write_bytes(endless)
    with pytest.raises(ModelError, match="inside their storages"):
        convert_file(tmp_path / "m.pt", tmp_path / "m.safetensors")


# --------------------------------------------------------------------------------------------------------------- arrays

ARRAYS = {
    "x": X, "big": np.arange(3, dtype=">i4"), "turned": np.asfortranarray(X), "bit": np.array(True),
    "number": np.float32(3), "half": np.ones(2, np.float16), "none": np.empty((0, 3)), "c": np.ones(2, np.complex64),
}  # fmt: skip


@pytest.mark.parametrize("form", [*range(6), "joblib", "compressed"])
def test_arrays_in_pickles_become_npz_and_safetensors(form: int | str, tmp_path: Path) -> None:
    source = tmp_path / "m.pkl"
    if isinstance(form, int):
        source.write_bytes(pickle.dumps(ARRAYS, protocol=form))
    else:
        joblib.dump(ARRAYS, source, compress=("xz", 1) if form == "compressed" else 0)
    convert_file(source, tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz", allow_pickle=False) as found:
        assert set(found.files) == set(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == np.asarray(array).dtype.newbyteorder("=")
    convert_file(tmp_path / "m.npz", tmp_path / "m.safetensors")
    again = tensors_in(Held("m.npz", (tmp_path / "m.npz").read_bytes(), scan_file(tmp_path / "m.npz")))[0]
    assert as_safetensors(again) == (tmp_path / "m.safetensors").read_bytes()


def test_arrays_of_objects_are_refused_and_not_opened(tmp_path: Path) -> None:
    array = np.array([Runs(tmp_path / "ran")], dtype=object)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(array))
    joblib.dump(array, tmp_path / "a.joblib")
    for name in ("a.npy", "a.pkl", "a.joblib"):
        with pytest.raises(ModelError, match="expected "):
            convert_file(tmp_path / name, tmp_path / "out.npz")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out.npz").exists()


BUFFER = io.BytesIO()
torch.save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}, BUFFER, _use_new_zipfile_serialization=False)
STREAM = BUFFER.getvalue()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(STREAM) - 1), st.integers(0, 255)), min_size=1, max_size=3), st.integers(0, 9)
)
def test_a_damaged_file_gives_tensors_or_one_clear_error(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(STREAM)
    for at, value in changes:
        data[at] = value
    data = data[: len(data) - cut * 40]
    try:
        tensors, _ = tensors_in(Held("m.pt", bytes(data), scan_bytes(bytes(data), "m.pt")))
    except ModelError:
        return
    assert all(isinstance(tensor, Tensor) for tensor in tensors.values())


def test_numbers_that_numpy_lacks_stay_out_of_npz() -> None:
    with pytest.raises(ModelError, match=r"got BF16: convert to \.safetensors"):
        as_npz({"a": Tensor("BF16", (1,), b"\0\0")})


# ----------------------------------------------------------------------------------------------------------- estimators


@pytest.mark.parametrize("suffix", [".pkl", ".joblib"])
def test_an_estimator_becomes_skops_with_the_same_answers(suffix: str, tmp_path: Path) -> None:
    estimator = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)).fit(X, Y)
    joblib.dump(estimator, tmp_path / f"m{suffix}")
    done = convert_file(tmp_path / f"m{suffix}", tmp_path / "m.skops")
    assert (done.what, done.compared, done.difference) == ("rows", 256, 0.0)
    np.testing.assert_array_equal(load_skops(tmp_path / "m.skops").predict_proba(X), estimator.predict_proba(X))


@pytest.mark.parametrize(
    "estimator",
    [RandomForestClassifier(5, random_state=0), make_pipeline(StandardScaler(), LogisticRegression())],
    ids=["forest", "pipeline"],
)
def test_an_estimator_becomes_onnx_with_the_answers_of_the_same_rows(estimator: Any, tmp_path: Path) -> None:
    joblib.dump(estimator.fit(X, Y), tmp_path / "m.pkl")
    np.save(tmp_path / "x.npy", X)
    done = convert_file(tmp_path / "m.pkl", tmp_path / "m.onnx", data=tmp_path / "x.npy")
    assert done.compared == len(X)
    assert 0 <= done.difference < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    x = X.astype(np.float32)
    labels, scores = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_array_equal(labels, estimator.predict(x))
    np.testing.assert_allclose(scores, estimator.predict_proba(x), atol=1e-5)


def test_a_regression_becomes_onnx(tmp_path: Path) -> None:
    joblib.dump(RandomForestRegressor(3, random_state=0).fit(X, X[:, 0]), tmp_path / "m.pkl")
    assert convert_file(tmp_path / "m.pkl", tmp_path / "m.onnx").difference < 1e-5


def test_rows_of_columns_are_taken_by_name(tmp_path: Path) -> None:
    rows = pd.DataFrame({"town": np.array(["a", "b"])[np.arange(80) % 2], "pay": X[:, 0]})
    columns = ColumnTransformer([("c", OneHotEncoder(), ["town"])], remainder="passthrough")
    joblib.dump(make_pipeline(columns, LogisticRegression()).fit(rows, Y), tmp_path / "m.pkl")
    with pytest.raises(ModelError, match=r"answers these rows, got TypeError .* with --data"):
        convert_file(tmp_path / "m.pkl", tmp_path / "m.skops")
    rows.assign(other=1)[["other", "pay", "town"]].to_csv(tmp_path / "x.csv", index=False)
    assert convert_file(tmp_path / "m.pkl", tmp_path / "m.skops", data=tmp_path / "x.csv").compared == 80
    with pytest.raises(ModelError, match=r"expected rows of numbers|ONNX can express"):
        convert_file(tmp_path / "m.pkl", tmp_path / "m.onnx", data=tmp_path / "x.csv")
    rows[["pay"]].to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ModelError, match="expected the column 'town'"):
        convert_file(tmp_path / "m.pkl", tmp_path / "m.skops", data=tmp_path / "x.csv")


class Fickle(ClassifierMixin, BaseEstimator):
    """Answers otherwise each time: no conversion of it can be held to anything."""

    classes_ = np.array(["no", "yes"])
    n_features_in_ = 2
    asked = 0

    def predict(self, x: np.ndarray) -> np.ndarray:
        Fickle.asked += 1
        return self.classes_[(np.arange(len(x)) + Fickle.asked) % 2]


def test_nothing_is_written_where_the_answers_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.skops").write_bytes(b"before")
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Fickle()))
    with pytest.raises(ModelError, match=r"suspicious \(.*Fickle"):
        convert_file(tmp_path / "m.pkl", tmp_path / "m.skops")
    name = f"{Fickle.__module__}.Fickle"
    monkeypatch.setattr(converting, "load_skops", lambda path: load_skops(path, trusted=[name]))
    with pytest.raises(ModelError, match=r"expected the same answers from m\.skops, got a difference of 1: "):
        convert_file(tmp_path / "m.pkl", tmp_path / "m.skops", trust=True)
    assert (tmp_path / "m.skops").read_bytes() == b"before"
    joblib.dump(LogisticRegression().fit(X, Y), tmp_path / "m.pkl")
    monkeypatch.setattr(converting, "_CLOSE", 0.0)  # float32 is never so close
    with pytest.raises(
        ModelError, match=r"expected the same answers from m\.onnx, got a difference of \d.*: not written"
    ):
        convert_file(tmp_path / "m.pkl", tmp_path / "m.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.pkl", "m.skops"]


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("m.pkl", "m.txt", r"target of \.skops"),
        ("m.pt", "m.skops", "expected an estimator to convert"),
        ("m.pkl", "M.skops", "."),
        ("absent.pkl", "m.skops", "absent.pkl"),
        ("m.pkl", "m.safetensors", "expected tensors by name"),
    ],
)
def test_what_cannot_be_converted_is_one_clear_error(source: str, target: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps("a text"))
    torch.save({"a": torch.ones(1)}, tmp_path / "m.pt")
    with pytest.raises(ModelError, match=says):
        convert_file(tmp_path / source, tmp_path / target)
    assert not (tmp_path / target).exists()


@pytest.mark.parametrize("view", [torch.Tensor.conj, lambda x: x.conj().imag], ids=["conjugate", "negative"])
def test_a_view_of_conjugates_is_not_taken_for_the_numbers_under_it(view: Any, tmp_path: Path) -> None:
    """Its flag lies beside the storage; where torch was not there to compare, the other numbers were written."""
    torch.save({"a": view(torch.tensor([1 + 2j]))}, tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"conjugates or negatives: save what tensor\.resolve_conj"):
        tensors_in(hold(tmp_path / "m.pt"))


def test_one_other_label_among_very_many_is_a_difference() -> None:
    labels = np.zeros(100_000, dtype=int)
    assert converting._difference("labels", labels, labels) == 0
    assert converting._difference("labels", labels, np.r_[labels[1:], 1]) == 1
    assert converting._difference("labels", labels.astype(str), np.r_[labels[1:], 1].astype(str)) == 1
    assert converting._difference("scores", [0.1, np.nan], [0.1, np.nan]) == 0
    assert converting._difference("scores", [0.1, np.nan], [0.1, 0.5]) == np.inf
    scores, turned = np.full((100, 2), 0.5), np.r_[labels[:99], 1]
    assert converting._difference_of_answers(labels[:100], scores, [turned, scores]) == 0  # a tie
    scores += [[0.1, -0.1]]
    assert converting._difference_of_answers(labels[:100], scores, [turned, scores]) == 1
    with pytest.raises(ModelError, match="of shape"):
        converting._difference("scores", np.zeros((2, 3)), np.zeros((3, 2)))


def test_an_onnx_model_is_held_to_the_answers_of_the_rows_as_they_are(tmp_path: Path) -> None:
    """ONNX takes float32: what lies closer together there was compared with itself."""
    x = 1e9 + np.arange(80.0)[:, None]
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=1e6)).fit(x, np.arange(80) > 40)
    joblib.dump(fitted, tmp_path / "m.pkl")
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ModelError, match=r"same answers from m\.onnx.*not written; convert it to \.skops"):
        convert_file(tmp_path / "m.pkl", tmp_path / "m.onnx", data=tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.npy", np.zeros((0, 4)), "expected rows in x.npy, got none"),
        ("x.npy", np.zeros((3, 9)), "answers these rows, got ValueError"),
        ("x.npy", np.full((3, 4), np.nan), "answers these rows, got ValueError"),
        ("x.npy", np.full((3, 4), "a"), "answers these rows|rows of numbers"),
        ("x.npy", b"", "expected rows in x.npy, got EOFError"),
        ("x.npz", b"PK\3\4 and nothing", "expected rows in x.npz, got BadZipFile"),
        ("x.csv", b"", "expected rows in x.csv, got EmptyDataError"),
        ("x.parquet", b"PAR1", "expected rows in x.parquet, got ArrowInvalid"),
    ],
)
@pytest.mark.parametrize("target", ["m.skops", "m.onnx"])
def test_rows_that_do_not_fit_are_one_clear_error(
    name: str, content: Any, says: str, target: str, tmp_path: Path
) -> None:
    joblib.dump(LogisticRegression().fit(X, Y), tmp_path / "m.pkl")
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.save(tmp_path / name, content)
    with pytest.raises(ModelError, match=says):
        convert_file(tmp_path / "m.pkl", tmp_path / target, data=tmp_path / name)
    assert not (tmp_path / target).exists()


def test_a_file_is_not_converted_onto_itself(tmp_path: Path) -> None:
    (tmp_path / "m.npz").write_bytes(as_npz({"a": Tensor("F32", (1,), bytes(4))}))
    with pytest.raises(ModelError, match="another file as target"):
        convert_file(tmp_path / "m.npz", tmp_path / "m.npz")


def test_the_command_tells_what_was_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": net().state_dict(), "epoch": 1}, tmp_path / "m.pt")
    assert command.convert(tmp_path / "m.pt", tmp_path / "m.safetensors") == 0
    out = capsys.readouterr().out
    assert "compared 9 tensors: largest difference 0" in out
    assert "left out: epoch" in out
