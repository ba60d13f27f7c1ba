"""What `casemate scan --weights` tells of payloads in low bits of trained weights, and of tensors without any.

Usage: python benchmarks/artifact_weights.py

The payloads are inert and never run: text, machine code with and without its header, a zip, a pickle, and noise as an
encrypted payload looks, which nobody can tell from weights. They are written into networks that were trained here, at
1, 8 and 16 low bits, from a place drawn at random. The benign tensors are what libraries leave: drawn, trained,
converted, quantised, pruned, averaged, tables and data.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import pickle
import sys
import sysconfig
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from evidence import table

from casemate.core.stats import clopper_pearson
from casemate.formats.scanning.limits import Limits, Meter
from casemate.formats.scanning.low_bits import chi_square
from casemate.formats.scanning.source import Source
from casemate.formats.scanning.weights import weigh, weight_signs

__all__ = ["Tensor", "benign", "embed", "measured", "payloads", "rules_of", "trained"]

MOST = 0.03  # upper 95 % bound of the share of benign tensors flagged
SEEN = 0.95  # of text, code, zips and pickles of 4 KiB or more


@dataclass(frozen=True)
class Tensor:
    """A tensor: what family it is of, its numbers or, with `kind`, their bits."""

    family: str
    name: str
    data: np.ndarray
    kind: str = ""


def rules_of(tensor: Tensor) -> set[str]:
    """What is told of one tensor, as if it were a file of its own."""
    data = np.ascontiguousarray(tensor.data)
    source = Source("m", memoryview(data).cast("B") if data.size else b"", ("m",))
    kind = tensor.kind or data.dtype.str
    found = weigh(source, tensor.name, kind, tensor.data.shape, Meter(Limits(), source.size))
    return {sign.rule for sign in weight_signs([found], [], {})}


# ---------------------------------------------------------------------------------------------------------- the tensors


def trained(seed: int, *, wide: int = 256, epochs: int = 12, adam: bool = True) -> dict[str, np.ndarray]:
    """A network of two hidden layers, fitted to digits; and what its optimiser keeps."""
    import torch
    from sklearn.datasets import load_digits

    torch.manual_seed(seed)
    x, y = load_digits(return_X_y=True)
    inputs, labels = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    layers = (64, wide, wide, 10)
    net = torch.nn.Sequential()
    for before, after in itertools.pairwise(layers):
        net.extend([torch.nn.Linear(before, after), torch.nn.BatchNorm1d(after), torch.nn.ReLU()])
    net = net[:-2]
    rule: Any = torch.optim.Adam if adam else torch.optim.SGD
    optimizer = rule(net.parameters(), lr=1e-3 if adam else 0.1)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(128):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(inputs[rows]), labels[rows]).backward()
            optimizer.step()
    found = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        found |= {f"{key}.{index}": v.numpy().copy() for key, v in state.items() if hasattr(v, "numpy")}
    return found


def benign() -> Iterator[Tensor]:
    """Tensors that nobody touched, as libraries leave them."""
    weights: list[np.ndarray] = []
    for seed in range(100, 106):  # the tests were made with other seeds
        for name, value in trained(seed, wide=(128, 256, 512)[seed % 3], adam=seed % 2 == 0).items():
            yield Tensor("trained, torch", name, value)
            if value.ndim == 2 and value.size > 2000 and "exp" not in name:
                weights.append(value)
    yield from _drawn()
    yield from _converted(weights)
    yield from _quantised(weights)
    yield from _pruned(weights)
    yield from _tables()
    yield from _fitted()


def _drawn() -> Iterator[Tensor]:
    import torch
    from torch.nn import init

    torch.manual_seed(11)
    rules: dict[str, Any] = {
        "kaiming_uniform": lambda t: init.kaiming_uniform_(t, a=math.sqrt(5)), "xavier_uniform": init.xavier_uniform_,
        "xavier_normal": init.xavier_normal_, "normal": lambda t: init.normal_(t, std=0.02), "uniform": init.uniform_,
        "orthogonal": init.orthogonal_, "truncated": lambda t: init.trunc_normal_(t, std=0.02),
        "sparse": lambda t: init.sparse_(t, 0.5),
    }  # fmt: skip
    for rule, draw in rules.items():
        for shape in ((64, 64), (300, 500), (1000, 512)):
            yield Tensor("drawn", f"{rule} {shape}", draw(torch.empty(shape)).numpy())
    modules: list[torch.nn.Module] = [
        torch.nn.Conv2d(16, 64, 3), torch.nn.LSTM(64, 64), torch.nn.Embedding(2000, 64, padding_idx=0),
        torch.nn.TransformerEncoderLayer(64, 4), torch.nn.GRU(32, 64), torch.nn.Conv1d(64, 64, 5),
        torch.nn.Linear(512, 512).double(), torch.nn.Bilinear(16, 16, 16),
    ]  # fmt: skip
    for module in modules:
        for name, value in module.state_dict().items():
            yield Tensor("drawn", f"{type(module).__name__} {name}", value.numpy())
    rng = np.random.default_rng(12)
    yield Tensor("drawn", "numpy normal f4", rng.normal(size=(512, 512)).astype("f4"))
    yield Tensor("drawn", "numpy normal f8", rng.normal(size=(512, 512)))
    yield Tensor("drawn", "numpy uniform f4", rng.random((512, 512), np.float32))


def _bits(values: Any) -> np.ndarray:
    import torch

    return values.view(torch.int16).numpy().view(np.uint16)


def _converted(weights: list[np.ndarray]) -> Iterator[Tensor]:
    import torch

    for index, value in enumerate(weights):
        made = torch.from_numpy(value.copy())
        yield Tensor("bf16 in fp32", str(index), made.bfloat16().float().numpy())
        yield Tensor("fp16 in fp32", str(index), made.half().float().numpy())
        yield Tensor("fp32 in fp64", str(index), made.double().numpy())
        yield Tensor("bf16", str(index), _bits(made.bfloat16()), "BF16")
        yield Tensor("fp16", str(index), made.half().numpy())
        yield Tensor("scaled", str(index), (made * 0.7).numpy())
        yield Tensor("transposed", str(index), np.ascontiguousarray(value.T))
        if index and value.shape == weights[index - 1].shape:
            yield Tensor("averaged", str(index), (value + weights[index - 1]) / 2)
            half = made.half().float().numpy()
            yield Tensor("converted in part", str(index), np.concatenate([half, weights[index - 1]]))


def _quantised(weights: list[np.ndarray]) -> Iterator[Tensor]:
    for index, value in enumerate(weights):
        for bits in (4, 8):
            top = 2 ** (bits - 1) - 1
            one = np.float32(np.abs(value).max() / top)
            whole = np.clip(np.round(value / one), -top, top).astype(np.int8)
            yield Tensor(f"int{bits}", str(index), whole)
            yield Tensor(f"int{bits} in fp32", f"{index} of one scale", whole * one)
            rows = (np.abs(value).max(1, keepdims=True) / top).astype(np.float32)
            whole = np.clip(np.round(value / rows), -top, top).astype(np.float32)
            yield Tensor(f"int{bits} in fp32", f"{index} of a scale a row", whole * rows)
            short = rows.astype(np.float16).astype(np.float32)
            yield Tensor(f"int{bits} in fp32", f"{index} of a half scale a row", whole * short)
            power = np.exp2(np.round(np.log2(rows))).astype(np.float32)
            yield Tensor(f"int{bits} in fp32", f"{index} of a power of two a row", whole * power)


def _pruned(weights: list[np.ndarray]) -> Iterator[Tensor]:
    for index, value in enumerate(weights):
        yield Tensor("pruned", f"{index} by size", np.where(np.abs(value) > np.median(np.abs(value)), value, 0))
        rows = value.copy()
        rows[:: 2 + index % 3] = 0
        yield Tensor("pruned", f"{index} rows", rows)
        rows = value.copy()
        rows[len(rows) // 2 :] = 0
        yield Tensor("pruned", f"{index} half of it", rows.astype(np.float16))
        yield Tensor("repeated", f"{index} rows", np.repeat(value[:16], 8, axis=0))
        yield Tensor("repeated", f"{index} tiles", np.tile(value[:16], (8, 1)))


def _tables() -> Iterator[Tensor]:
    for wide in (64, 128, 512):
        angle = np.arange(2048)[:, None] / 10000 ** (np.arange(0, wide, 2) / wide)
        sines = np.empty((2048, wide))
        sines[:, 0::2], sines[:, 1::2] = np.sin(angle), np.cos(angle)
        yield Tensor("table", f"positions {wide}", sines.astype("f4"))
        yield Tensor("table", f"rotary {wide}", np.concatenate([np.cos(angle), np.sin(angle)], 1).astype("f4"))
    for size in (400, 1024, 48000):
        yield Tensor("table", f"window {size}", np.hanning(size).astype("f4"))
        yield Tensor("table", f"steps {size}", np.linspace(0, 1, size, dtype="f4"))
        yield Tensor("table", f"steps {size} f8", np.linspace(-3, 7, size))
        yield Tensor("table", f"count {size}", np.arange(size, dtype="f4"))
        yield Tensor("table", f"logarithms {size}", np.log(np.arange(1, size + 1)).astype("f4"))
        yield Tensor("table", f"powers {size}", np.logspace(-4, 4, size).astype("f4"))
    basis = np.exp(-2j * np.pi * np.outer(np.arange(201), np.arange(400)) / 400)
    yield Tensor("table", "fourier basis", np.concatenate([basis.real, basis.imag]).astype("f4"))
    yield Tensor("table", "mask", np.triu(np.full((256, 256), -np.inf, "f4"), 1))
    yield Tensor("table", "mask of the smallest", np.triu(np.full((256, 256), np.finfo("f4").min, "f4"), 1))
    yield Tensor("table", "slopes", (-np.abs(np.subtract.outer(np.arange(128), np.arange(128)))
                 * 2.0 ** -np.arange(1, 9)[:, None, None]).astype("f4"))  # fmt: skip
    yield Tensor("table", "ones", np.ones((512, 512), "f4"))
    yield Tensor("table", "identity", np.eye(256, dtype="f4"))
    yield Tensor("table", "relative positions", np.subtract.outer(np.arange(128), np.arange(128)))


def _fitted() -> Iterator[Tensor]:
    """Every array of numbers in estimators of scikit-learn, data that they keep among them."""
    from sklearn import (
        cluster,
        datasets,
        decomposition,
        ensemble,
        linear_model,
        naive_bayes,
        neighbors,
        neural_network,
        preprocessing,
        svm,
        tree,
    )

    sets: dict[str, Any] = {
        "digits": datasets.load_digits, "cancer": datasets.load_breast_cancer, "wine": datasets.load_wine,
        "diabetes": datasets.load_diabetes,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, load in sets.items():
            x, y = load(return_X_y=True)
            estimators = [
                neighbors.KNeighborsRegressor(), decomposition.PCA(), tree.DecisionTreeRegressor(),
                preprocessing.QuantileTransformer(n_quantiles=300),
                svm.SVR(), cluster.KMeans(30, n_init=1), naive_bayes.GaussianNB(),
                ensemble.RandomForestRegressor(3), linear_model.LogisticRegression(max_iter=50),
                neural_network.MLPRegressor(hidden_layer_sizes=(100, 50), max_iter=40),
                neural_network.MLPRegressor(hidden_layer_sizes=(60,), solver="lbfgs", max_iter=200),
                decomposition.NMF(5) if x.min() >= 0 else decomposition.FastICA(5), preprocessing.PolynomialFeatures(),
            ]  # fmt: skip
            for estimator in estimators:
                fitted = estimator.fit(x, (y > y.mean()).astype(int) if hasattr(estimator, "predict_proba") else y)
                yield from _arrays(f"{type(estimator).__name__} {name}", vars(fitted))
            yield Tensor("data", f"{name} as float32", x.astype("f4"))
            yield Tensor("data", f"{name} scaled", preprocessing.scale(x).astype("f4"))
            yield Tensor("data", f"{name} scaled f8", preprocessing.scale(x))


def _arrays(name: str, parts: dict[str, Any]) -> Iterator[Tensor]:
    for key, value in parts.items():
        inner = list(value) if isinstance(value, list) else [value]
        for item in inner:
            if hasattr(item, "tree_"):
                state = item.tree_
                yield Tensor("fitted, scikit-learn", f"{name} threshold", np.array(state.threshold))
                yield Tensor("fitted, scikit-learn", f"{name} value", np.array(state.value))
            elif isinstance(item, np.ndarray) and item.dtype.kind in "fiu" and item.size >= 64:
                yield Tensor("fitted, scikit-learn", f"{name} {key}", item)
            elif type(item).__name__ == "Tree":
                yield Tensor("fitted, scikit-learn", f"{name} threshold", np.array(item.threshold))


# ------------------------------------------------------------------------------------------------------------- payloads


def payloads(size: int) -> dict[str, bytes]:
    """Bytes of each kind; nothing here ever runs them."""
    text = Path(os.__file__).read_bytes()
    program = Path(os.path.realpath(sys.executable)).read_bytes()
    library = Path(sysconfig.get_config_var("LIBDIR")) / str(sysconfig.get_config_var("LDLIBRARY"))
    code = library.read_bytes() if library.is_file() and library.suffix != ".a" else program
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("run.py", text)
    middle = len(code) // 2
    return {
        "text": text[:size],
        "program": program[:size],
        "code without header": code[middle : middle + size],
        "zip": packed.getvalue()[:size],
        "pickle": pickle.dumps([os.path.join, text], 4)[:size],
        "noise": np.random.default_rng(size).bytes(size),
    }


def embed(words: np.ndarray, payload: bytes, bits: int, at: int) -> np.ndarray:
    """Words with a payload in 1, 8 or 16 low bits from word `at` on; one low bit takes a byte's highest bit first."""
    found = words.reshape(-1).copy()
    if bits == 1:
        pieces: np.ndarray = np.unpackbits(np.frombuffer(payload, np.uint8))
    else:
        even = payload[: len(payload) // (bits // 8) * (bits // 8)]
        pieces = np.frombuffer(even, f"<u{bits // 8}")
    mask = found.dtype.type((1 << bits) - 1)
    part = found[at : at + len(pieces)]
    found[at : at + len(pieces)] = (part & ~mask) | pieces.astype(found.dtype)
    return found.reshape(words.shape)


def measured(*, networks: int = 4) -> dict[str, Any]:
    """Bar, columns, rows, result and whether it is met, as a page of evidence wants it."""
    flagged: dict[str, list[bool]] = defaultdict(list)
    uneven: dict[str, int] = defaultdict(int)
    for tensor in benign():
        rules = rules_of(tensor)
        flagged[tensor.family].append(bool(rules))
        uneven[tensor.family] += _uneven(tensor)
        if rules:
            sys.stderr.write(f"benign and flagged: {tensor.family}, {tensor.name}: {rules}\n")
    rows: list[tuple[Any, ...]] = [
        (f"benign: {family}", len(hits), sum(hits), uneven[family], "") for family, hits in flagged.items()
    ]
    seen: dict[tuple[str, int, int], list[bool]] = defaultdict(list)
    rng = np.random.default_rng(0)
    for seed in range(networks):
        words = trained(200 + seed, wide=512, adam=seed % 2 == 0)["3.weight"].view(np.uint32)
        for size in (512, 4096, 16384):
            for kind, payload in payloads(size).items():
                for bits in (1, 8, 16):
                    at = int(rng.integers(0, words.size - 8 * size // bits))
                    made = Tensor(kind, "w", embed(words, payload, bits, at).view(np.float32))
                    seen[kind, size, bits].append("weights/hidden-data" in rules_of(made))
    for (kind, size, bits), hits in seen.items():
        rows.append((f"{kind}, {size} bytes in {bits} low bits", len(hits), sum(hits), "", f"{np.mean(hits):.0%}"))
    n, false = sum(map(len, flagged.values())), sum(map(sum, flagged.values()))
    most = clopper_pearson(false, n).high
    large = [hit for (kind, size, _), hits in seen.items() if size >= 4096 and kind != "noise" for hit in hits]
    noise = [hit for (kind, *_), hits in seen.items() if kind == "noise" for hit in hits]
    return {
        "bar": f"at least {SEEN:.0%} of texts, programs, code, zips and pickles of 4 KiB or more are told, and the "
        f"upper 95 % bound of the share of benign tensors flagged is at most {MOST:.0%}",
        "columns": ("tensors", "n", "told", "chi-square alone would tell", "share told"),
        "rows": rows,
        "result": f"{sum(large)} of {len(large)} told ({np.mean(large):.1%}); noise, as encrypted payloads look: "
        f"{sum(noise)} of {len(noise)}; {false} of {n} benign tensors flagged (upper bound {most:.2%}), where "
        f"chi-square of the low byte at 1e-6 flags {sum(uneven.values())}",
        "met": bool(np.mean(large) >= SEEN and most <= MOST),
    }


def _uneven(tensor: Tensor) -> bool:
    """Whether the lowest byte of each number fails a test of uniformity at one in a million."""
    data = np.ascontiguousarray(tensor.data)
    low = data.view(np.uint8).reshape(-1, data.itemsize)[:, 0]
    return len(low) >= 2560 and chi_square(low) > 377.1  # 1 - 1e-6 of chi-square with 255 degrees of freedom


def main() -> int:
    """Print the table; 1 where the bar is not met."""
    got = measured()
    print(*table(got["columns"], got["rows"]), "", got["result"], sep="\n")
    return 0 if got["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
