"""Bad input: one clear error or one outcome each, the right exit code, nothing half-written, nothing executed.

A case spoils a copy of a good folder (`table`: a scikit-learn model and Parquet files; `images`: torch weights, a
factory and arrays), runs a command in it, and says the exit code and the words that tell the user what to do.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import resource
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

import casemate
from casemate import cli
from casemate.errors import DataError, ModelError
from casemate.report import json as report_json
from casemate.store import open_store

Spoil = Callable[[Path], object]
PREFLIGHT = "audit --only preflight"
TABLE = """\
[model]
path = "model.skops"

[data]
test = "test.parquet"
train = "train.parquet"
target = "label"
sensitive = ["sex"]

[audit]
profile = "quick"

[policy]
fail_on = "high"
"""
IMAGES = """\
[model]
path = "model.safetensors"
factory = "nets:build"
classes = ["dark", "bright"]

[data]
test = "test.npz"
bounds = [0, 1]

[audit]
profile = "quick"
"""
NETS = """\
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 6 * 4, 2))

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 6, 2))

def squashed():
    return nn.Sequential(flat(), nn.Softmax(dim=1))

def raises():
    raise OSError("no licence")

def nothing():
    return None
"""


@dataclass(frozen=True)
class Bad:
    """One case: how a good folder is spoilt, what is asked then, and what must come of it.

    `words` must be in the one error block on stderr or, where there is a report, in the outcome of `plugin`.
    """

    name: str
    spoil: Spoil
    words: tuple[str, ...]
    folder: str = "table"
    ask: str = PREFLIGHT
    code: int = 2
    plugin: str = ""
    apart: bool = False  # in a process of its own
    limit: int | None = field(default=None, repr=False)  # most bytes in a file that this process may write


# --------------------------------------------------------------------------------------------------------- ways to spoil


def nothing(folder: Path) -> None:
    """The folder stays good; the order is what is bad."""


def toml(old: str, new: str) -> Spoil:
    """Another line in casemate.toml."""

    def spoil(folder: Path) -> None:
        path = folder / "casemate.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return spoil


def added(text: str) -> Spoil:
    """More lines in casemate.toml."""
    return lambda folder: (folder / "casemate.toml").write_text((folder / "casemate.toml").read_text() + text)


def gone(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def holding(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str) -> Spoil:
    """The first 60 % of a file: a transfer that broke."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[: (folder / name).stat().st_size * 3 // 5])


def as_folder(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return spoil


def frame(change: Callable[[pd.DataFrame], pd.DataFrame], name: str = "test.parquet") -> Spoil:
    """A table that is otherwise."""
    return lambda folder: change(pd.read_parquet(folder / name)).to_parquet(folder / name)


def csv(change: Callable[[str], str | bytes]) -> Spoil:
    """The test data as CSV, and otherwise."""

    def spoil(folder: Path) -> None:
        text = change(pd.read_parquet(folder / "test.parquet").to_csv(index=False))
        (folder / "test.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        toml("test.parquet", "test.csv")(folder)

    return spoil


def arrays(**changes: Callable[[np.ndarray], Any] | None) -> Spoil:
    """Arrays that are otherwise, or absent."""

    def spoil(folder: Path) -> None:
        with np.load(folder / "test.npz") as archive:
            found = {name: archive[name] for name in archive.files}
        for name, change in changes.items():
            found[name] = np.empty(0) if change is None else change(found[name])
        np.savez(folder / "test.npz", **{name: found[name] for name in found if changes.get(name, len) is not None})

    return spoil


def both(*spoils: Spoil) -> Spoil:
    def spoil(folder: Path) -> None:
        for one in spoils:
            one(folder)

    return spoil


class Planted:
    """Runs code when it is unpickled: it makes a file that must never appear."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


class OwnEstimator(DummyClassifier):
    """A type that nobody has reviewed."""


def bomb(name: str, inside: str) -> Spoil:
    """A small archive that unpacks to a gigabyte."""

    def spoil(folder: Path) -> None:
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open(inside, "w", force_zip64=True) as member:
                for _ in range(64):
                    member.write(bytes(1 << 24))

    return spoil
