"""Clean pickles open without trust and give the same model; the restricted unpickler holds where the scan would not."""

from __future__ import annotations

import contextlib
import copyreg
import io
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from casemate.adapters import unpickling, wrap
from casemate.adapters.skops import load_estimator
from casemate.adapters.unpickling import unpack, unpickle
from casemate.adapters.verdicts import Held, hold
from casemate.errors import ModelError, Unavailable
from casemate.formats.scanning.signs import Level, Scanned, Used
from casemate.formats.scanning.walking import scan_bytes

X = np.random.default_rng(0).normal(size=(60, 4))
Y = (X[:, 0] > 0).astype(int)
FRAME = pd.DataFrame({"pay": X[:, 0], "town": np.array(["a", "b", "c"])[np.arange(60) % 3]})


def held(data: bytes) -> Held:
    return Held("m.pkl", data, scan_bytes(data, "m.pkl"))


def passed(data: bytes, *names: tuple[str, str]) -> Held:
    """Bytes that a scan has passed, wrongly: the second line of defence is alone. `names` are what it has seen."""
    used = tuple(Used("", module, name, called=True) for module, name in names)
    return Held("m.pkl", data, Scanned("m.pkl", len(data), ("pickle",), (), used))


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unpickler believes the scan that it was given: nothing is unpacked and scanned again."""
    monkeypatch.setattr(unpickling, "unpack", lambda given: given)


def encoded() -> Any:
    columns = ColumnTransformer([("c", OneHotEncoder(), ["town"])], remainder="passthrough")
    return make_pipeline(columns, LogisticRegression()).fit(FRAME, Y)


MODELS: dict[str, Callable[[], Any]] = {
    "forest": lambda: RandomForestClassifier(5, random_state=0).fit(X, np.array(["no", "yes"], dtype=object)[Y]),
    "histograms": lambda: HistGradientBoostingClassifier(max_iter=3).fit(X, Y),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=3).fit(X, Y),
    "neighbours": lambda: KNeighborsClassifier(algorithm="kd_tree").fit(X, Y),
    "machine": lambda: SVC().fit(X, Y),
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
    "encoded": encoded,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_clean_model_opens_without_trust_from_every_form_and_is_the_same(name: str, tmp_path: Path) -> None:
    model, file = MODELS[name](), tmp_path / "m.joblib"
    digest = wrap(model).digest
    for compress in (0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)):
        joblib.dump(model, file, compress=compress)
        assert wrap(load_estimator(file)).digest == digest, compress
    for protocol in (0, 2, 4, 5):
        (tmp_path / "m.pkl").write_bytes(pickle.dumps(model, protocol=protocol))
        assert wrap(load_estimator(tmp_path / "m.pkl")).digest == digest, protocol


def test_a_clean_booster_opens_and_a_damaged_one_ends_no_process(tmp_path: Path) -> None:
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(n_estimators=2, verbose=-1, n_jobs=1).fit(X, Y)
    data = pickle.dumps(model)
    (tmp_path / "m.pkl").write_bytes(data)
    np.testing.assert_array_equal(load_estimator(tmp_path / "m.pkl").predict_proba(X), model.predict_proba(X))
    assert b"left_child=" in data
    broken = data.replace(b"split_feature=0", b"split_feature=9", 1)
    assert broken != data
    (tmp_path / "m.pkl").write_bytes(broken)
    with pytest.raises(ModelError, match=r"expected .*m\.pkl"):
        load_estimator(tmp_path / "m.pkl")


def test_unsound_trees_in_a_clean_pickle_are_refused(tmp_path: Path) -> None:
    model = RandomForestClassifier(2, max_depth=2, random_state=0).fit(X, Y)
    state = model.estimators_[0].tree_.__getstate__()
    state["nodes"]["left_child"][0] = 10_000_000
    model.estimators_[0].tree_.__setstate__(state)
    joblib.dump(model, tmp_path / "m.joblib")
    assert hold(tmp_path / "m.joblib").clean
    with pytest.raises(ModelError, match="sound trees"):
        load_estimator(tmp_path / "m.joblib")


@pytest.mark.parametrize("algorithm", ["kd_tree", "ball_tree"])
@pytest.mark.parametrize(("part", "field", "value"), [(1, None, 10**9), (2, "idx_end", 10**9), (2, "is_leaf", 0)])
def test_unsound_neighbours_in_a_clean_pickle_are_refused(
    algorithm: str, part: int, field: str | None, value: int, tmp_path: Path
) -> None:
    """Compiled code follows their nodes without looking, and then reads foreign memory."""
    model = KNeighborsClassifier(algorithm=algorithm, leaf_size=5).fit(X, Y)
    joblib.dump(model, tmp_path / "m.joblib")
    assert wrap(load_estimator(tmp_path / "m.joblib")).digest == wrap(model).digest
    state = [item.copy() if isinstance(item, np.ndarray) else item for item in model._tree.__getstate__()]
    (state[part] if field is None else state[part][field])[-1] = value
    make, given, _ = model._tree.__reduce__()
    model._tree = make(*given)
    model._tree.__setstate__(tuple(state))
    joblib.dump(model, tmp_path / "m.joblib")
    with pytest.raises(ModelError, match="sound neighbours"):
        load_estimator(tmp_path / "m.joblib")


DTYPES = [
    "f8", ">f4", "i2", "?", "c16", "U7", ">U3", "S5", "O", "M8[ns]", "m8[3D]", "V6", "f2",
    np.dtype([("a", "f4"), ("b", ">i8", (2, 3)), ("c", [("d", "O")])]), 
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.dtype({"names": ["a"], "formats": ["f4"], "offsets": [3], "itemsize": 16}),
]  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("dtype", [np.dtype(given) for given in DTYPES], ids=str)
def test_every_dtype_of_numpy_comes_back(dtype: np.dtype[Any], protocol: int) -> None:
    array = np.zeros(3, dtype)
    data = pickle.dumps(array, protocol=protocol)
    assert unpickle(held(data)).dtype.__reduce__() == pickle.loads(data).dtype.__reduce__()
    assert unpickle(held(pickle.dumps(dtype, protocol=protocol))).__reduce__() == dtype.__reduce__()


class Dtype:
    """Unpickles as a dtype with another state than numpy gives it."""

    def __init__(self, text: str, state: Any, *, copied: bool = True) -> None:
        self.given = (text, False, copied), state

    def __reduce__(self) -> Any:
        return np.dtype, *self.given


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("f8", (3, "<", None, None, None, -1, -1, 1)),
        ("f8", (3, "<", None, None, None, -1, -1, 63)),
        ("f8", (3, "<", None, None, None, 1 << 20, -1, 0)),
        ("O8", (3, "|", None, None, None, -1, -1, 0)),
        ("U3", (3, "<", None, None, None, 4000, 4, 8)),
        ("V8", (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)),
        ("V8", (3, "|", None, ("a",), {"a": (np.dtype("f8"), 400)}, 8, 1, 0)),
        ("V8", (3, "|", (np.dtype("O"), (1,)), None, None, 8, 8, 0)),
        ("f8", (3, "<", None, None, None, -1, -1)),
        ("M8", (3, "<", None, None, None, -1, -1, 0)),
        ("M8", (4, "<", None, None, None, -1, -1, 0, None)),
        ("M8", (4, "<", None, None, None, -1, -1, 0, ({}, (b"ns", "1", 1, 1)))),
        ("f8", (4, "<", None, None, None, -1, -1, 0, ({}, (b"ns", 1, 1, 1)))),
    ],
)
def test_a_dtype_that_lies_to_numpy_is_refused(text: str, state: Any, copied: bool) -> None:
    """numpy believes such flags: it would count references at addresses that the file chose, and end the process."""
    before = np.dtype(text).__reduce__()
    data = pickle.dumps(Dtype(text, state, copied=copied))
    with pytest.raises(ModelError):
        unpickle(held(data))
    assert np.dtype(text).__reduce__() == before


class Planted:
    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.usefixtures("blind")
def test_a_name_that_the_scan_did_not_see_is_not_found(protocol: int, tmp_path: Path) -> None:
    data = pickle.dumps([1, Planted(tmp_path / "ran")], protocol=protocol)
    with pytest.raises(ModelError, match="which its scan did not see"):
        unpickle(passed(data))
    # Seen is not enough: the tables must know it too.
    with pytest.raises(ModelError, match="which its scan did not see"):
        unpickle(passed(data, ("posix", "mkdir"), ("os", "mkdir")))
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("blind")
def test_a_known_name_that_this_file_does_not_use_is_not_found() -> None:
    data = pickle.dumps(np.float64(1.0))
    seen = [(used.module, used.name) for used in held(data).scanned.used]
    assert unpickle(passed(data, *seen)) == 1.0
    with pytest.raises(ModelError, match="which its scan did not see"):
        unpickle(passed(data, *(name for name in seen if name[1] != "scalar")))


@pytest.mark.usefixtures("blind")
def test_joblibs_arrays_of_objects_are_under_the_same_rules(tmp_path: Path) -> None:
    stream = io.BytesIO()
    joblib.dump(np.array([Planted(tmp_path / "ran"), None], dtype=object), stream)
    data = stream.getvalue()
    assert scan_bytes(data, "m.joblib").level is Level.MALICIOUS
    harmless = io.BytesIO()
    joblib.dump(np.array(["a", None], dtype=object), harmless)
    seen = [(used.module, used.name) for used in scan_bytes(harmless.getvalue(), "m.joblib").used]
    assert unpickle(passed(harmless.getvalue(), *seen)).tolist() == ["a", None]
    with pytest.raises(ModelError, match=r"(posix|nt)\.mkdir, which its scan did not see"):
        unpickle(passed(data, *seen))
    assert not (tmp_path / "ran").exists()


WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")


@pytest.mark.usefixtures("blind")
@pytest.mark.parametrize(
    ("data", "names", "says"),
    [
        (b"cbuiltins\ngetattr\n(cbuiltins\nstr\nV__class__\ntR.", [("builtins", "str")], "private one"),
        (b"cbuiltins\ngetattr\n(Vtext\nVupper\ntR.", [], "no class"),
        (
            b"cbuiltins\ngetattr\n(cpandas.core.frame\nDataFrame\nVeval\ntR.",
            [("pandas.core.frame", "DataFrame")],
            "eval",
        ),
        (b"\x80\x02\x82\x07.", [], "unregistered"),
        (b"Pkey\n.", [], "persistent"),
        # Where joblib reads raw arrays only what may be called is called.
        (b"cbuiltins\ngetattr\n(cpandas\nDataFrame\nVcopy\ntR(tR.", [("pandas", "DataFrame"), WRAPPER], "."),
        (b"(Vx\ntR.", [WRAPPER], "."),
        (b"((cbuiltins\ngetattr\ncpandas\nDataFrame\nVcopy\noo.", [("pandas", "DataFrame")], "to call"),
        (b"cpandas\nDataFrame\n(N}Vcopy\nI1\nstb.", [("pandas", "DataFrame")], "a state for a class"),
        (b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81(dVdtype\nNsb.", [WRAPPER], "without a dtype"),
    ],
)
def test_what_passes_a_scan_by_mistake_still_meets_a_wall(data: bytes, names: Any, says: str) -> None:
    copyreg.add_extension("os", "getcwd", 7)
    try:
        with pytest.raises(ModelError, match=f"expected m.pkl to unpickle, got .*{says}"):
            unpickle(passed(data, ("builtins", "getattr"), *names))
        assert copyreg._inverted_registry[7] == ("os", "getcwd")  # type: ignore[attr-defined]
        assert pickle.loads(b"\x80\x02\x82\x07.") is os.getcwd
    finally:
        copyreg.remove_extension("os", "getcwd", 7)
        copyreg.clear_extension_cache()


def test_what_is_compressed_is_scanned_as_it_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "m.joblib"
    joblib.dump([Planted(tmp_path / "ran")], file, compress=("xz", 1))
    given = hold(file)
    with pytest.raises(ModelError, match="malicious"):
        unpickle(given)
    blinded = Held(given.name, given.data, Scanned("m.joblib", len(given.data), ("xz",), ()))
    with pytest.raises(ModelError, match="malicious"):
        unpickle(blinded)
    assert not (tmp_path / "ran").exists()
    joblib.dump([1.5], file, compress=("gzip", 1))
    assert unpickle(hold(file)) == [1.5]
    assert unpack(hold(file)).data.startswith(b"\x80")
    file.write_bytes(file.read_bytes() + b"behind")
    with pytest.raises(ModelError, match="suspicious"):
        unpickle(hold(file))


def test_an_lz4_file_opens_without_a_library_for_it(tmp_path: Path) -> None:
    data = pickle.dumps({"a": np.arange(3)})
    size = (len(data) | 1 << 31).to_bytes(4, "little")  # a block that is stored as it is
    frame = b"\x04\x22\x4d\x18" + b"\x60\x40\x82" + size + data + bytes(4)
    (tmp_path / "m.joblib").write_bytes(frame)
    assert unpickle(hold(tmp_path / "m.joblib"))["a"].tolist() == [0, 1, 2]


def test_the_old_form_of_joblib_with_files_beside_it_is_not_followed(tmp_path: Path) -> None:
    np.save(tmp_path / "beside.npy", np.array([Planted(tmp_path / "ran")], dtype=object), allow_pickle=True)
    wrapper = (
        b"\x80\x02cjoblib.numpy_pickle_compat\nNDArrayWrapper\n)\x81}(X\x08\0\0\0filenameX\x0a\0\0\0beside.npy"
        b"X\x08\0\0\0subclasscnumpy\nndarray\nX\x0a\0\0\0allow_mmap\x89ub."
    )
    (tmp_path / "m.joblib").write_bytes(wrapper)
    with pytest.raises(ModelError, match=r"suspicious|malicious"):
        load_estimator(tmp_path / "m.joblib")
    assert not (tmp_path / "ran").exists()


GOOD = pickle.dumps(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y), protocol=4)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_changed_byte_opens_under_the_rules_or_is_one_clear_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    with warnings.catch_warnings(), contextlib.suppress(ModelError, Unavailable):
        warnings.simplefilter("ignore")
        unpickle(held(bytes(data)))
