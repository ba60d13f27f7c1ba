from __future__ import annotations

import struct
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import PICKLE, Looked, held, looked

from casemate.formats.scanning.readers import booster_files
from casemate.formats.scanning.signs import Level


def look(data: bytes, name: str = "m.ubj") -> Looked:
    return looked(data, booster_files.READERS, name=name)


@cache
def xgboost_ubj(booster: str = "gbtree") -> bytes:
    import xgboost

    x = np.random.default_rng(0).random((40, 3))
    model = xgboost.train({"booster": booster, "max_depth": 2}, xgboost.DMatrix(x, label=x[:, 0]), 3)
    model.set_attr(note="hello")
    return bytes(model.save_raw("ubj"))


@cache
def lightgbm_text() -> str:
    import lightgbm

    x = np.random.default_rng(0).random((60, 3))
    data = lightgbm.Dataset(x, (x[:, 0] > 0.5).astype(int))
    return str(lightgbm.train({"objective": "binary", "verbose": -1, "min_data_in_leaf": 1}, data, 3).model_to_string())


def binary(trees: int = 1, nodes: int = 3, booster: bytes = b"gbtree", more: bytes = b"") -> bytes:
    """XGBoost's form before 2.0, by its structs: learner, names, booster, trees of nodes and statistics."""

    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    learner = struct.pack("<fIiiiII", 0.5, 3, 0, 1, 0, 1, 7).ljust(136, b"\0")
    if booster == b"gblinear":
        body = b"\0" * 136 + struct.pack("<Q4f", 4, 1, 2, 3, 4)
    else:
        tree = struct.pack("<6i", 1, nodes, 0, 0, 3, 0).ljust(148, b"\0") + b"\0" * 36 * nodes
        body = struct.pack("<i", trees).ljust(160, b"\0") + tree * trees + b"\0" * 4 * trees
        body += struct.pack("<Q", trees) + b"\0" * 4 * trees if booster == b"dart" else b""
    return (
        b"binf"
        + learner
        + text(b"reg:squarederror")
        + text(booster)
        + body
        + struct.pack("<Q", 1)
        + text(b"note")
        + text(b"hello")
        + more
    )


def catboost(core: bytes = b"\0" * 20 + b"FlabuffersModel_v1" + b"{}", more: bytes = b"") -> bytes:
    return b"CBM1" + struct.pack("<I", len(core)) + core + more


@pytest.mark.parametrize("booster", ["gbtree", "dart", "gblinear"])
@pytest.mark.filterwarnings("ignore")
def test_what_xgboost_saves_is_clean(booster: str) -> None:
    found = look(xgboost_ubj(booster))
    assert found.formats == ("xgboost-ubj",)
    assert not found.signs
    found = look(binary(booster=booster.encode()), "m.bin")
    assert found.formats == ("xgboost-binary",)
    assert not found.signs


def test_what_lightgbm_saves_is_clean() -> None:
    found = look(lightgbm_text().encode(), "m.txt")
    assert found.formats == ("lightgbm",)
    assert not found.signs
    assert not look(catboost(), "m.cbm").signs


def test_bytes_behind_a_model_are_told_and_looked_at() -> None:
    for data, rule in ((xgboost_ubj(), "xgboost"), (binary(), "xgboost"), (catboost(), "catboost")):
        found = look(data + PICKLE)
        assert found.rules == {f"{rule}/trailing"}
        assert list(found.handed.values()) == [PICKLE]


def test_lengths_that_lie_are_malicious() -> None:
    big = b"L" + struct.pack(">q", 1 << 60)
    for data in (
        b"{L" + b"\0" * 7 + b"\1a[$d#" + big,
        b"{L" + b"\0" * 7 + b"\1aS" + big,
        b"{L" + b"\0" * 7 + b"\1a[#" + big,
    ):
        assert look(data).level is Level.MALICIOUS
    assert look(lightgbm_text().replace("num_leaves=", "num_leaves=9999999999").encode()).level is Level.MALICIOUS


def test_trees_that_lead_outside_themselves_are_suspicious() -> None:
    text = lightgbm_text()
    line = next(line for line in text.splitlines() if line.startswith("left_child="))
    wrong = text.replace(line, "left_child=" + " ".join(["99999"] * len(line.split("=")[1].split())), 1)
    assert look(wrong.encode()).rules == {"lightgbm/tree"}
    assert look(text.replace(line, "left_child=1", 1).encode()).rules == {"lightgbm/tree"}


def test_damage_is_unreadable() -> None:
    assert (
        look(
            binary().replace(struct.pack("<i", 1).ljust(160, b"\0"), struct.pack("<i", 1 << 30).ljust(160, b"\0"))
        ).level
        is Level.UNREADABLE
    )
    assert look(binary(booster=b"other")).level is Level.UNREADABLE
    assert look(catboost(b"no model")).level is Level.UNREADABLE
    assert look(b"CBM1" + struct.pack("<I", 1 << 31)).level is Level.UNREADABLE
    assert look(b"{L" + b"\0" * 7 + b"\1a[[" * 300).level is Level.UNREADABLE
    assert look(xgboost_ubj()[:-5]).level is not Level.CLEAN


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 3000), st.integers(0, 255), st.booleans(), st.sampled_from(["ubj", "binary", "lightgbm", "catboost"])
)
def test_damaged_models_end_without_failing(at: int, byte: int, cut: bool, kind: str) -> None:
    whole = {"ubj": xgboost_ubj, "binary": binary, "lightgbm": lambda: lightgbm_text().encode(), "catboost": catboost}[
        kind
    ]()
    data = bytearray(whole)
    data[at % len(data)] = byte
    held(bytes(data[: at % len(data)] if cut else data), booster_files.READERS)
