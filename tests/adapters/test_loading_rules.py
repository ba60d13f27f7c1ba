"""The rules of loading: a file is read once, ruled by its scan, and what is loaded are the bytes that were scanned."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier
from tests.adapters import nets

from casemate.adapters import verdicts, wrap
from casemate.adapters.loading import FORMATS, Declared, load_model
from casemate.adapters.skops import load_estimator, save_skops
from casemate.adapters.torch import save_weights
from casemate.adapters.verdicts import Held, check_verdict, hold
from casemate.errors import ModelError
from casemate.formats.scanning.signs import Level, Place, Scanned, Sign

X = np.random.default_rng(0).normal(size=(40, 4))
Y = (X[:, 0] > 0).astype(int)
NETS = "tests.adapters.nets"
MODEL = LogisticRegression().fit(X, Y)


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


class Own(LogisticRegression):
    """A class that no table knows."""


def _exported(path: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.Linear(4, 3).eval(), (torch.rand(2, 4),)), path)


def _boosted(path: Path) -> None:
    import xgboost

    xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(X, Y).get_booster().save_model(path)


def _lit(path: Path) -> None:
    import lightgbm

    lightgbm.LGBMClassifier(n_estimators=2, verbose=-1, n_jobs=1).fit(X, Y).booster_.save_model(path)


def _graph(path: Path) -> None:
    import skl2onnx

    path.write_bytes(skl2onnx.to_onnx(MODEL, X[:1].astype(np.float32), target_opset=17).SerializeToString())


MAKERS: dict[str, Callable[[Path], object]] = {
    "m.skops": lambda path: save_skops(path, MODEL),
    "m.pkl": lambda path: path.write_bytes(pickle.dumps(MODEL)),
    "m.joblib": lambda path: joblib.dump(MODEL, path, compress=3),
    "m.safetensors": lambda path: save_weights(path, nets.build()),
    "m.pt": lambda path: torch.save(nets.build().state_dict(), path),
    "m.pt2": _exported,
    "m.ubj": _boosted,
    "m.json": _boosted,
    "m.txt": _lit,
}


# ------------------------------------------------------------------------------------------------------- read only once

_watched: Counter[str] | None = None


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _watched is not None and event == "open" and isinstance(args[0], str):
        _watched[args[0]] += 1


sys.addaudithook(_watch)


@contextmanager
def opened() -> Iterator[Counter[str]]:
    """How often each path is opened, by anybody in Python, until the block ends."""
    global _watched
    _watched = Counter()
    try:
        yield _watched
    finally:
        _watched = None


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_is_opened_once_and_one_swapped_after_its_scan_is_not_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, bad = tmp_path / name, tmp_path / "bad"
    MAKERS[name](file)
    bad.write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    scan = verdicts.scan_bytes

    def scanned_and_swapped(data: bytes, named: str) -> Scanned:
        found = scan(data, named)
        if bad.exists():
            os.replace(bad, file)
        return found

    monkeypatch.setattr(verdicts, "scan_bytes", scanned_and_swapped)
    with opened() as count:
        native = load_model(file, Declared(f"{NETS}:build"))
    assert count[str(file)] == 1
    assert not bad.exists()
    assert wrap(native).classes
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ModelError):
        load_model(file, Declared(f"{NETS}:build"))
    assert not (tmp_path / "ran").exists()


def test_every_format_but_onnx_is_held_to_that_rule() -> None:
    assert set(FORMATS) - {".onnx", ".pickle", ".pth", ".bin"} == {Path(name).suffix for name in MAKERS}


def test_a_folder_is_copied_as_it_is_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.adapters.conforming.huggingface_ import folder

    place = Path(shutil.copytree(folder(), tmp_path / "copy"))
    expected = wrap(load_model(place)).digest
    scan = verdicts.scan_bytes

    def scanned_and_swapped(data: bytes, named: str) -> Scanned:
        found = scan(data, named)
        (place / named).write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
        return found

    monkeypatch.setattr(verdicts, "scan_bytes", scanned_and_swapped)
    with opened() as count:
        native = load_model(place)
    of_it = {name: times for name, times in count.items() if name.startswith(str(place)) and not name.endswith(".md")}
    assert len(of_it) >= 3
    writes_too = {name for name, times in of_it.items() if times > 2}  # one to read, one by the swap
    assert not writes_too
    assert wrap(native).digest == expected
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_swapped_all_the_time_runs_nothing(tmp_path: Path) -> None:
    """A race, with a thread that replaces the file as fast as it can; each load gets one of the two, whole."""
    good, bad, file = pickle.dumps(MODEL), pickle.dumps(Runs(tmp_path / "ran")), tmp_path / "m.pkl"
    file.write_bytes(good)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for content in (bad, good):
                (tmp_path / "aside").write_bytes(content)
                os.replace(tmp_path / "aside", file)

    thread = threading.Thread(target=swap)
    thread.start()
    seen: Counter[str] = Counter()
    try:
        while (len(seen) < 2 or sum(seen.values()) < 60) and sum(seen.values()) < 2000:
            try:
                seen[type(load_estimator(file)).__name__] += 1
            except ModelError as error:
                seen[str(error).partition(" (")[0]] += 1
    finally:
        stop.set()
        thread.join()
    refused = "expected a model file that is known to be harmless, got m.pkl, malicious"
    assert set(seen) == {"LogisticRegression", refused}
    assert not (tmp_path / "ran").exists()


# -------------------------------------------------------------------------------------------------------- the verdicts


def ruled(level: Level) -> Held:
    sign = Sign(level, "a/rule", "imports \x1bx.y", Place("m.pkl", "", 7, "GLOBAL"), "nobody knows it", "look")
    return Held("m.pkl", b"x", Scanned("m.pkl", 1, ("pickle",), () if level is Level.CLEAN else (sign,)))


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize("isolate", [True, False])
def test_what_is_let_through(level: Level, runs: bool, trust: bool, isolate: bool) -> None:
    passes = {
        Level.CLEAN: True,
        Level.MALICIOUS: trust,
        Level.SUSPICIOUS: trust or isolate or not runs,
        Level.UNREADABLE: trust or isolate or not runs,
        Level.UNKNOWN: trust or isolate or not runs,
    }[level]
    if passes:
        check_verdict(ruled(level), runs=runs, trust=trust, isolate=isolate)
        return
    with pytest.raises(ModelError) as refused:
        check_verdict(ruled(level), runs=runs, trust=trust, isolate=isolate)
    text = str(refused.value)
    assert f"got m.pkl, {level} (imports ?x.y (at byte 7 (GLOBAL)); nobody knows it): " in text
    assert "--trust" in text
    assert ("--isolate" in text) == ("convert" in text) == (level is not Level.MALICIOUS)


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".joblib"])
def test_a_pickle_is_ruled_by_its_scan_and_trust_is_noted(suffix: str, tmp_path: Path) -> None:
    clean, own, bad = (tmp_path / f"{name}{suffix}" for name in ("clean", "own", "bad"))
    joblib.dump(MODEL, clean)
    joblib.dump(Own().fit(X, Y), own)
    joblib.dump(Runs(tmp_path / "ran"), bad)
    for trust in (False, True):
        declared = Declared(trust=trust)
        assert wrap(load_model(clean, declared)).digest == wrap(MODEL).digest
        assert declared.notes == {"file": "a pickle whose scan is clean, opened by a restricted unpickler"}
    with pytest.raises(ModelError, match=r"got own\..*, suspicious \(imports .*Own.*--isolate.*--trust"):
        load_model(own, Declared())
    declared = Declared(trust=True)
    assert type(load_model(own, declared)).__name__ == "Own"
    assert declared.notes == {"trust": "a suspicious pickle, unpickled because --trust said so"}
    with pytest.raises(ModelError, match=r"got bad\..*, malicious \(.*mkdir.*--trust"):
        load_model(bad, Declared())
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ModelError, match="expected an estimator"):
        load_model(bad, Declared(trust=True))
    assert (tmp_path / "ran").exists()


def test_weights_that_torch_itself_refuses_need_trust_and_say_so(tmp_path: Path) -> None:
    torch.save({"state_dict": nets.build().state_dict(), "args": Own()}, tmp_path / "m.pt")
    with pytest.raises(ModelError, match=r"m\.pt, suspicious \(.*Own"):
        load_model(tmp_path / "m.pt", Declared(f"{NETS}:build"))
    declared = Declared(f"{NETS}:build", trust=True)
    assert isinstance(load_model(tmp_path / "m.pt", declared), torch.nn.Module)
    assert "--trust" in declared.notes["trust"]
    declared = Declared(f"{NETS}:build", trust=True)
    torch.save(nets.build().state_dict(), tmp_path / "m.pt")
    load_model(tmp_path / "m.pt", declared)
    assert declared.notes == {}  # trust was not needed


@pytest.mark.parametrize("name", ["m.skops", "m.pt2", "m.ubj", "m.txt", "m.onnx"])
def test_files_that_run_nothing_pass_suspicion_and_not_malice(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    {**MAKERS, "m.onnx": _graph}[name](tmp_path / name)
    for level in (Level.SUSPICIOUS, Level.UNKNOWN, Level.UNREADABLE):
        monkeypatch.setattr(verdicts, "scan_bytes", lambda data, named, level=level: ruled(level).scanned)
        load_model(tmp_path / name, Declared())
    monkeypatch.setattr(verdicts, "scan_bytes", lambda data, named: ruled(Level.MALICIOUS).scanned)
    with pytest.raises(ModelError, match="malicious"):
        load_model(tmp_path / name, Declared())
    declared = Declared(trust=True)
    load_model(tmp_path / name, declared)
    assert declared.notes == {"trust": f"{name} is malicious, loaded because --trust said so"}


def test_devices_and_pipes_are_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="got a device or pipe"):
        hold("/dev/zero")
    os.mkfifo(tmp_path / "m.pkl")
    (tmp_path / "link.pkl").symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="got a device or pipe"):
        hold(tmp_path / "link.pkl")
    with pytest.raises(ModelError, match="got a device or pipe"):
        hold(tmp_path / "m.pkl")


def test_a_clean_pickle_of_something_else_is_no_estimator(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"a": np.arange(3)}))
    with pytest.raises(ModelError, match=r"expected an estimator in m\.pkl, got dict"):
        load_estimator(tmp_path / "m.pkl")
    shutil.copy(tmp_path / "m.pkl", tmp_path / "m.skops")
    with pytest.raises(ModelError, match=r"malicious|skops file"):
        load_estimator(tmp_path / "m.skops")
    tree = DecisionTreeClassifier().fit(X, Y)
    (tmp_path / "M.PKL").write_bytes(pickle.dumps(tree))
    assert wrap(load_model(tmp_path / "M.PKL")).digest == wrap(tree).digest
