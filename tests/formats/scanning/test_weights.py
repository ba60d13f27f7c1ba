"""Weights that are none: bad numbers, payloads in low bits, tensors out of place; and benign ones, which stay clean."""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import sys
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.artifacts.scans import scan_paths
from casemate.formats.scanning import low_bits
from casemate.formats.scanning.limits import LimitReached, Limits, Meter
from casemate.formats.scanning.signs import Level, Scanned
from casemate.formats.scanning.source import Source
from casemate.formats.scanning.walking import scan_bytes, scan_file
from casemate.formats.scanning.weights import FALSE_ALARMS, weigh, weight_signs


@cache
def network() -> np.ndarray:
    """Weights of a network that was fitted to digits."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(5)
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("f4")
    first, second = (rng.normal(0, 0.1, shape).astype("f4") for shape in ((64, 1024), (1024, 10)))
    for _ in range(15):
        hidden = np.maximum(x @ first, 0)
        logits = hidden @ second
        share = np.exp(logits - logits.max(1, keepdims=True))
        error = (share / share.sum(1, keepdims=True) - np.eye(10, dtype="f4")[y]) / len(y)
        back = (error @ second.T) * (hidden > 0)
        second -= np.float32(0.3) * (hidden.T @ error)
        first -= np.float32(0.3) * (x.T @ back)
    return first + 1e-3 * rng.normal(size=first.shape).astype("f4")  # the pixels that no digit has


def rules(data: np.ndarray, name: str = "w") -> set[str]:
    """What is told of one tensor, as if it were a file of its own."""
    source = Source("m", memoryview(np.ascontiguousarray(data)).cast("B"))
    found = weigh(source, name, data.dtype.str, data.shape, Meter(Limits(), source.size))
    return {sign.rule for sign in weight_signs([found], [], {})}


@cache
def payload(kind: str, size: int) -> bytes:
    """Bytes that nobody runs."""
    text = Path(json.__file__).read_bytes() + Path(zipfile.__file__).read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("run.py", text)
    found = {
        "text": text, "program": Path(sys.executable).resolve().read_bytes(), "zip": packed.getvalue(),
        "pickle": pickle.dumps([Path("a"), text], 4), "noise": np.random.default_rng(1).bytes(size),
    }  # fmt: skip
    return found[kind][:size]


def embed(value: np.ndarray, data: bytes, bits: int, at: int) -> np.ndarray:
    """float32 weights with bytes in their low bits from one weight on, the highest bit of a byte first."""
    words = value.reshape(-1).view("u4").copy()
    pieces = np.unpackbits(np.frombuffer(data, "u1")) if bits == 1 else np.frombuffer(data, f"<u{bits // 8}")
    words[at : at + len(pieces)] = words[at : at + len(pieces)] >> bits << bits | pieces
    return words.view("f4").reshape(value.shape)


def seen(scanned: Scanned) -> set[str]:
    return {sign.rule for sign in scanned.signs}


@pytest.mark.parametrize("bits", [1, 8, 16])
@pytest.mark.parametrize("kind", ["text", "program", "zip", "pickle"])
def test_a_payload_in_the_low_bits_of_trained_weights_is_told(bits: int, kind: str) -> None:
    assert rules(embed(network(), payload(kind, 4096), bits, 777)) == {"weights/hidden-data"}


def test_what_looks_like_noise_cannot_be_told_which_the_module_says() -> None:
    assert rules(embed(network(), payload("noise", 4096), 8, 0)) == set()


def halves(value: np.ndarray) -> np.ndarray:
    return (value.view("u4") >> 16 << 16).astype("u4").view("f4")


BENIGN = {
    "trained": lambda w: w,
    "trained, transposed": lambda w: np.ascontiguousarray(w.T),
    "halves in fp32": halves,
    "fp16 in fp32": lambda w: w.astype("f2").astype("f4"),
    "fp16": lambda w: w.astype("f2"),
    "fp32 in fp64": lambda w: w.astype("f8"),
    "big-endian": lambda w: w.astype(">f4"),
    "pruned": lambda w: np.where(abs(w) > 0.05, w, 0).astype("f4"),
    "pruned rows": lambda w: (w * (np.arange(len(w)) % 3 > 0)[:, None]).astype("f4"),
    "int8": lambda w: np.round(w / abs(w).max() * 127).astype("i1"),
    "int8 in fp32": lambda w: np.round(w / abs(w).max() * 127).astype("f4") * np.float32(abs(w).max() / 127),
    "int8 in fp32 by row": lambda w: (
        np.round(w / abs(w).max(1, keepdims=True) * 127).astype("f4") * (abs(w).max(1, keepdims=True) / 127)
    ),
    "tiled": lambda w: np.tile(w[:2], (20, 1)),
    "drawn": lambda w: (np.random.default_rng(1).random(w.shape, np.float32) - np.float32(0.5)) / 8,
    "drawn beside trained": lambda w: np.concatenate(
        [w, (np.random.default_rng(1).random(w.shape, np.float32) - np.float32(0.5)) / 8]
    ),
    "positions": lambda w: np.sin(np.arange(600)[:, None] / 10000 ** (np.arange(64) / 64)).astype("f4"),
    "steps": lambda w: np.linspace(0, 1, 5000, dtype="f4"),
    "a mask": lambda w: np.triu(np.full((64, 64), -np.inf, "f4"), 1),
    "a mask of the smallest": lambda w: np.triu(np.full((64, 64), np.finfo("f4").min), 1),
    "ones": lambda w: np.ones(5000, "f4"),
    "no best loss yet": lambda w: np.array(np.inf, "f4"),
    "subnormal halves": lambda w: (w * 1e-6).astype("f2"),
}


@pytest.mark.parametrize("name", BENIGN)
def test_tensors_that_nobody_touched_are_clean(name: str) -> None:
    assert rules(BENIGN[name](network())) == set()


@pytest.mark.parametrize(
    ("rule", "values"),
    [("nan", [np.nan]), ("infinity", [np.inf, -np.inf]), ("scale", [3e33, -1e35]), ("scale", [2e31])],
)
def test_numbers_that_no_training_leaves_are_told(rule: str, values: list[float]) -> None:
    for kind in ("f4", "f8", ">f4"):
        data = network().astype(kind)
        data[0, : len(values)] = values
        assert rules(data) == {f"weights/{rule}"}


def test_denormals_are_told_where_they_are_nearly_all() -> None:
    tiny = network() * np.float32(1e-38) * np.float32(1e-2)
    assert rules(tiny) == {"weights/denormal"}
    assert rules(tiny, name="exp_avg_sq") == set()  # what an optimiser keeps decays to them
    assert rules(np.concatenate([network(), tiny])) == set()


def test_false_alarms_on_uniform_bytes_keep_to_the_bound_that_is_told() -> None:
    """The text test on its own null model: of 2,000 streams at most a share of n exp(-t) scores more than t."""
    rng, size = np.random.default_rng(0), 512
    stream = [low_bits._Stream("x", rng.integers(0, 256, size).astype("u1"), 1, text=True) for _ in range(2000)]
    scores = low_bits._scores()
    best = [max(_gains(scores[item.data])) for item in stream]
    for nats in (6.5, 7.5, 9.0):
        share = sum(gain >= nats for gain in best) / len(stream)
        assert share <= size * math.exp(-nats)
    assert not [hint for item in stream for hint in low_bits._text(item)]
    assert FALSE_ALARMS <= 1e-4


def _gains(scores: np.ndarray) -> list[float]:
    """The best sum of a stretch that ends at each place, one by one."""
    gains, held = [], 0.0
    for score in scores:
        held = max(held, 0.0) + float(score)
        gains.append(held)
    return gains


@given(st.binary(min_size=1, max_size=3000))
@settings(deadline=None, max_examples=60)
def test_entropy_and_chi_square_are_what_their_formulas_give(data: bytes) -> None:
    counts = [data.count(bytes([value])) for value in range(256)]
    share = [count / len(data) for count in counts if count]
    array = np.frombuffer(data, "u1")
    assert low_bits.entropy(array) == pytest.approx(-sum(p * math.log2(p) for p in share), abs=1e-9)
    expected = len(data) / 256
    assert low_bits.chi_square(array) == pytest.approx(sum((n - expected) ** 2 / expected for n in counts))


def test_a_large_tensor_is_read_in_blocks_and_the_place_is_right() -> None:
    value = np.random.default_rng(3).normal(size=300_000).astype("f4")
    hidden = embed(value, payload("text", 2048), 8, 270_001).view("u4")
    source = Source("m", memoryview(hidden).cast("B"))
    found = weigh(source, "w", "F32", (300_000,), Meter(Limits(), source.size))
    assert abs(found.hints["text"].at - 270_001) < 64
    whole, _ = low_bits.hints_of(hidden, 23, 0)
    assert {hint.test for hint in whole} >= {"text"}


# ---------------------------------------------------------------------------------------------------------- in the scan


def saved(value: np.ndarray, form: str) -> bytes:
    out = io.BytesIO()
    if form == "npy":
        np.save(out, value)
    elif form == "npz":
        np.savez_compressed(out, w=value)
    elif form == "safetensors":
        told = {"w": {"dtype": "F32", "shape": value.shape, "data_offsets": [0, value.nbytes]}}
        text = json.dumps(told).encode()
        return struct.pack("<Q", len(text)) + text + value.tobytes()
    elif form == "gguf":
        head = b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"w" + struct.pack("<IQQIQ", 2, *value.shape[::-1], 0, 0)
        return head.ljust(-(-len(head) // 32) * 32, b"\0") + value.tobytes()
    elif form == "onnx":
        from onnx import TensorProto, helper, numpy_helper

        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(value, "w")])
        return helper.make_model(graph).SerializeToString()
    else:
        import torch

        torch.save({"w": torch.from_numpy(value.copy())}, out, _use_new_zipfile_serialization=form == "torch")
    return out.getvalue()


@pytest.mark.parametrize("form", ["npy", "npz", "safetensors", "gguf", "onnx", "torch", "torch stream"])
def test_tensors_of_each_format_are_read_only_where_it_is_asked_for(form: str) -> None:
    hidden = embed(network(), payload("text", 1024), 8, 5)
    assert seen(scan_bytes(saved(network(), form), "m", weights=True)) == set()
    assert seen(scan_bytes(saved(hidden, form), "m", weights=True)) == {"weights/hidden-data"}
    assert seen(scan_bytes(saved(hidden, form), "m")) == set()


def test_a_storage_that_the_pickle_never_asks_for_is_told() -> None:
    with zipfile.ZipFile(io.BytesIO(saved(network(), "torch"))) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in held.items():
            archive.writestr(name, data)
        archive.writestr(next(iter(held)).split("/")[0] + "/data/77", bytes(range(1, 65)))
    assert seen(scan_bytes(out.getvalue(), "m.pt", weights=True)) == {"weights/unused"}


def test_weights_that_no_reader_hands_over_are_said_to_be_unchecked() -> None:
    scanned = scan_bytes(pickle.dumps(network()), "m.pkl", weights=True)
    assert scanned.level is Level.UNREADABLE
    assert seen(scanned) == {"weights/unchecked"}
    assert not scan_bytes(pickle.dumps({"a": [1, 2]}), "m.pkl", weights=True).signs


def test_tensors_out_of_place_are_told_and_tied_ones_are_not() -> None:
    def told(*shapes: tuple[str, tuple[int, ...], int]) -> set[str]:
        found = []
        for name, shape, seed in shapes:
            data = np.random.default_rng(seed).normal(size=shape).astype("f4")
            source = Source("m", memoryview(data).cast("B"))
            found.append(weigh(source, name, "F32", shape, Meter(Limits(), source.size)))
        return {sign.rule for sign in weight_signs(found, [], {})}

    small = [(f"l{i}", (100, 100), i) for i in range(3)]
    assert told(*small, ("bias", (600_000,), 9)) == {"weights/oversized"}
    assert told(*small, ("fc", (600, 1000), 9)) == set()
    assert told(*small, ("embed", (600_000,), 9)) == set()
    assert told(*small, *((f"c{i}", (300, 500), 9) for i in range(4))) == {"weights/copies"}
    assert told(*small, ("embed", (300, 500), 9), ("head", (300, 500), 9)) == set()


def test_time_grows_with_the_tensors_but_not_with_what_a_header_says_of_them() -> None:
    none = Limits(seconds=0.0, seconds_per_mib=0.0, seconds_per_weighed_mib=0.0)
    meter = Meter(none, 100, started=-1e9)
    with pytest.raises(LimitReached):
        weigh(Source("m", bytes(4096)), "w", "F32", None, meter)
    slow = Meter(Limits(seconds=0.0, seconds_per_mib=1.0), 1 << 20)
    slow.weighed = 1 << 60
    assert slow._work == 2 << 20


@given(st.binary(max_size=2000), st.sampled_from(["F32", "F64", "F16", "BF16", "I8", "BOOL", ">f4", "Q4_K", ""]))
@settings(deadline=None, max_examples=150)
def test_any_bytes_of_any_type_are_weighed(data: bytes, kind: str) -> None:
    found = weigh(Source("m", data), "w", kind, None, Meter(Limits(), len(data)))
    list(weight_signs([found], [], {}))


def test_the_command_line_has_it(tmp_path: Path) -> None:
    path = tmp_path / "m.npy"
    path.write_bytes(saved(embed(network(), payload("text", 1024), 8, 5), "npy"))
    assert scan_paths([str(path)]).exit_code == 0
    assert scan_paths([str(path)], weights=True).exit_code == 1
    assert scan_file(path, weights=True).level is Level.SUSPICIOUS
