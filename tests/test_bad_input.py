"""Bad input: one clear error or one outcome each, the right exit code, nothing half-written, nothing executed.

A case spoils a copy of a good folder (`table`: a scikit-learn model and Parquet files; `images`: torch weights, a
factory and arrays), runs a command in it, and says the exit code and the words that tell the user what to do.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
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
from casemate.errors import UsageError
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
    limit: int | None = None  # most bytes in a file that this process may write


# ----------------------------------------------------------------------------------------------------- ways to spoil


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
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size * 3 // 5]
    )


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
            old = found.pop(name)
            if change is not None:
                found[name] = change(old)
        np.savez(folder / "test.npz", **found)

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
    """A small archive that unpacks to 128 MB."""

    def spoil(folder: Path) -> None:
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(inside, bytes(1 << 27))

    return spoil


def pickled(name: str, what: Any = None) -> Spoil:
    return holding(name, pickle.dumps(Planted() if what is None else what))


def audited(folder: Path) -> None:
    """A good audit came before."""
    assert cli.run(["audit", "--only", "preflight", "--only", "fairness", "--store", "other"]) in (0, 1, 3)


def stored(folder: Path) -> None:
    """An audit came before, and its run is in the store."""
    audited(folder)
    (folder / "other").rename(folder / ".casemate")
    shutil.rmtree(folder / "casemate-report")


def tampered(folder: Path) -> None:
    audited(folder)
    for path in (folder / "casemate-report" / "evidence").rglob("*.cma"):
        path.write_bytes(path.read_bytes()[:-1] + b"!")


def unnamed_model(folder: Path) -> None:
    """A model that was fitted on one column, and nobody knows which."""
    rows = pd.read_parquet(folder / "train.parquet")
    skops.io.dump(LogisticRegression().fit(rows[["pay"]].to_numpy(), rows["label"]), folder / "model.skops")


def named(**model: str) -> Spoil:
    """Another model of the images."""
    lines = "\n".join(f'{key} = "{value}"' for key, value in model.items())
    return toml('path = "model.safetensors"\nfactory = "nets:build"', lines)


# ------------------------------------------------------------------------------------------------------------ the table

ALL = "expected", "got"
CASES = (
    # what casemate.toml says
    Bad("no configuration", gone("casemate.toml"), ("casemate.toml", "casemate init")),
    Bad("a folder as configuration", as_folder("casemate.toml"), ("casemate.toml", "directory")),
    Bad("bad TOML", added("[data\n"), ("expected TOML", "line")),
    Bad(
        "a configuration in another encoding",
        holding("casemate.toml", b"name = '\xff'"),
        ("expected TOML", "casemate.toml"),
    ),
    Bad("an unknown key", toml("sensitive =", "sensitve ="), ("'sensitve'", "did you mean sensitive")),
    Bad("an unknown section", added("[modle]\n"), ("'modle'", "did you mean model?")),
    Bad("a key of the wrong type", toml('target = "label"', "target = 3"), ("string", "data.target", "got 3")),
    Bad("nothing to audit", holding("casemate.toml", b""), ("a model or data", "got neither")),
    Bad("bounds the wrong way round", toml("[audit]", "bounds = [1, 0]\n[audit]"), ("low < high",)),
    Bad("a bad seed", toml('profile = "quick"', "seed = -1"), ("audit.seed", "greater than or equal to 0")),
    Bad("a bad budget", toml('profile = "quick"', 'budget = "soon"'), ("audit.budget", "'15m'", "soon")),
    Bad("a budget of nothing", toml('profile = "quick"', "budget = 0"), ("audit.budget", "got 0")),
    Bad("a bad profile", toml('"quick"', '"quik"'), ("audit.profile", "'quick'", "quik")),
    Bad("a bad executor", toml('profile = "quick"', 'executor = "pools"'), ("audit.executor", "pools")),
    Bad("a bad severity", toml('fail_on = "high"', 'fail_on = "hihg"'), ("policy.fail_on", "'high'")),
    Bad("a bad norm", added('[probe."evasion/standard"]\nnorm = "lsup"\n'), ("norm", "linf", "lsup")),
    Bad("a negative eps", added('[probe."evasion/standard"]\neps = [0.1, -0.1]\n'), ("eps", "above 0", "-0.1")),
    Bad("an eps that is no number", added('[probe."evasion/standard"]\neps = nan\n'), ("eps", "finite", "nan")),
    Bad("an eps in words", added('[probe."evasion/standard"]\neps = "small"\n'), ("eps", "small")),
    Bad(
        "an option of the wrong type",
        added('[probe."evasion/standard"]\nsamples = "all"\n'),
        ("samples", "whole", "all"),
    ),
    Bad("a count below zero", added('[probe."evasion/standard"]\nsamples = -5\n'), ("samples", "-5")),
    Bad("an option of the wrong name", added('[probe."evasion/standard"]\nep = 0.1\n'), ("'ep'", "did you mean eps?")),
    Bad(
        "options of an unknown plug-in",
        added('[probe."evasion/standrd"]\neps = 0.1\n'),
        ("did you mean evasion/standard?",),
    ),
    Bad(
        "a gate with an unknown operator",
        added('[[policy.gate]]\nmetric = "evasion.robust_accuracy"\nabove = 0.5\n'),
        ("'above'", "policy.gate.0"),
    ),
    Bad(
        "a gate without a bar",
        added('[[policy.gate]]\nmetric = "evasion.robust_accuracy"\n'),
        ("min or max", "policy.gate.0"),
    ),
    Bad(
        "a gate that nothing can pass",
        added('[[policy.gate]]\nmetric = "evasion.robust_accuracy"\nmin = 0.9\nmax = 0.1\n'),
        ("min <= max",),
    ),
    Bad(
        "a gate of an unknown metric",
        added('[[policy.gate]]\nmetric = "evasion.robust_acuracy"\nmin = 0.5\n'),
        ("did you mean evasion.robust_accuracy?",),
    ),
    Bad(
        "an accepted finding without a reason",
        added('[[policy.accept]]\nfinding = "preflight/bounds"\nuntil = 2099-01-01\n'),
        ("policy.accept.0.reason", "add it"),
    ),
    Bad(
        "an accepted finding for ever",
        added('[[policy.accept]]\nfinding = "preflight/bounds"\nreason = "x"\nuntil = "always"\n'),
        ("policy.accept.0.until", "date"),
    ),
    Bad(
        "an acceptance that expired",
        added('[[policy.accept]]\nfinding = "preflight/bounds"\nreason = "x"\nuntil = 2020-01-01\n'),
        ("accepted preflight/bounds", "the acceptance expired on 2020-01-01"),
        code=1,
        plugin="ruling",
    ),
    Bad(
        "no samples to attack",
        nothing,
        ("samples", "from 1"),
        ask="audit --only evasion/standard --set evasion/standard.samples=0",
    ),
    # what the command line says
    Bad("a configuration that is not there", nothing, ("nowhere.toml", "casemate init"), ask="audit nowhere.toml"),
    Bad("an unknown command", nothing, ("audti",), ask="audti"),
    Bad("a bad profile on the command line", nothing, ("'quik'", "'quick'"), ask="audit --profile quik"),
    Bad("a bad seed on the command line", nothing, ("--seed", "greater than or equal to 0"), ask="audit --seed -1"),
    Bad("a bad budget on the command line", nothing, ("15m", "soon"), ask="audit --budget soon"),
    Bad("a bad executor on the command line", nothing, ("pool:N", "pool:0"), ask="audit --executor pool:0"),
    Bad("an unknown plug-in", nothing, ("did you mean preflight/leakage?",), ask="audit --only preflight/leakge"),
    Bad("a --set without a value", nothing, ("ID.OPTION=VALUE",), ask="audit --set evasion/standard.eps"),
    Bad("a --set of an unknown option", nothing, ("'epsilon'", "eps"), ask="audit --set evasion/standard.epsilon=1"),
    Bad("nothing to resume", nothing, ("a run to resume", "casemate list runs"), ask="audit --resume"),
    Bad("another run to resume", nothing, ("abcdef123456",), ask="audit --resume abcdef123456"),
    Bad(
        "a resume after the configuration changed",
        both(stored, toml('"quick"', '"full"')),
        ("the same model, data, settings", "start a new audit"),
        ask=PREFLIGHT + " --resume",
    ),
    Bad("an output that is a file", nothing, ("folder", "model.skops"), ask=PREFLIGHT + " --output model.skops"),
    Bad("an output below a file", nothing, ("folder", "model.skops"), ask=PREFLIGHT + " --output model.skops/report"),
    Bad(
        "an output that cannot be written",
        nothing,
        ("write", "/proc"),
        ask=PREFLIGHT + " --output /proc/casemate-report",
    ),
    Bad("a store that is a file", nothing, ("folder for the store", "--store"), ask=PREFLIGHT + " --store model.skops"),
    Bad(
        "a store that is no database",
        both(as_folder(".casemate"), holding(".casemate/store.db", b"not a database" * 99)),
        ("database",),
        code=3,
    ),
    Bad("a store without a driver", nothing, ("database", "nosuch"), code=3, ask=PREFLIGHT + " --store nosuch://x"),
    Bad(
        "a disk that is full of the store",
        nothing,
        ("write the store", "free some space", "--store"),
        code=3,
        apart=True,
        limit=30_000,
    ),
    Bad(
        "a disk that is full of reports",
        nothing,
        ("write", "space"),
        ask=PREFLIGHT + " --store sqlite://",
        apart=True,
        limit=8_000,
    ),
    # the model
    Bad("no model", gone("model.skops"), ("model file", "model.skops", "[model] path")),
    Bad("a folder as model", as_folder("model.skops"), ("model file", "model.skops")),
    Bad("an empty model", holding("model.skops", b""), ("skops file", "model.skops")),
    Bad("half a model", cut("model.skops"), ("skops file", "model.skops")),
    Bad(
        "a model of an unknown kind",
        toml("model.skops", "test.parquet"),
        ("a model file", "test.parquet", "convert it"),
    ),
    Bad(
        "a type that is not trusted",
        lambda folder: skops.io.dump(OwnEstimator().fit([[0]] * 2, [0, 1]), folder / "model.skops"),
        ("trusted types", "OwnEstimator", "[model] trusted"),
    ),
    Bad(
        "a pickle that runs code, without --trust",
        both(pickled("model.pkl"), toml("model.skops", "model.pkl")),
        ("known to be harmless", "malicious", "mkdir", "--trust"),
    ),
    Bad(
        "a pickle that runs code, with --isolate",
        both(pickled("model.pkl"), toml("model.skops", "model.pkl")),
        ("known to be harmless", "malicious", "mkdir", "--trust"),
        ask=PREFLIGHT + " --isolate",
    ),
    Bad(
        "a pickle of an unknown class",
        both(pickled("model.pkl", OwnEstimator().fit([[0]] * 2, [0, 1])), toml("model.skops", "model.pkl")),
        ("known to be harmless", "suspicious", "OwnEstimator", "casemate convert", "--isolate", "--trust"),
    ),
    Bad(
        "half a pickle",
        both(pickled("model.pkl", LogisticRegression()), cut("model.pkl"), toml("model.skops", "model.pkl")),
        ("known to be harmless", "unreadable", "get it again"),
    ),
    Bad(
        "a clean pickle of no estimator",
        both(pickled("model.pkl", {"a": 1}), toml("model.skops", "model.pkl")),
        ("an estimator in model.pkl", "dict"),
    ),
    Bad(
        "nothing to isolate",
        toml('path = "model.skops"', 'factory = "os:getcwd"'),
        ("model.path for --isolate",),
        ask=PREFLIGHT + " --isolate",
    ),
    Bad(
        "a joblib file that runs code, without --trust",
        both(lambda folder: joblib.dump(Planted(), folder / "model.joblib"), toml("model.skops", "model.joblib")),
        ("known to be harmless", "malicious", "mkdir", "--trust"),
    ),
    Bad("a pickle that calls itself skops", pickled("model.skops"), ("known to be harmless", "model.skops", "mkdir")),
    Bad(
        "a skops file that unpacks to a thousand times its size",
        bomb("model.skops", "schema.json"),
        ("model.skops", "unpack"),
    ),
    Bad(
        "a model that was never fitted",
        lambda folder: skops.io.dump(LogisticRegression(), folder / "model.skops"),
        ("fitted estimator", "LogisticRegression"),
    ),
    Bad(
        "a model that is none",
        lambda folder: skops.io.dump({"a": 1}, folder / "model.skops"),
        ("estimator", "got dict"),
    ),
    Bad(
        "weights without a factory",
        toml('path = "model.safetensors"\nfactory = "nets:build"', 'path = "model.safetensors"'),
        ("model.factory", "pkg.module:build"),
        "images",
    ),
    Bad("no weights", gone("model.safetensors"), ("model file", "model.safetensors"), "images"),
    Bad("half the weights", cut("model.safetensors"), ("file of weights", "model.safetensors"), "images"),
    Bad(
        "weights that are a pickle with code",
        both(pickled("model.pt"), toml("model.safetensors", "model.pt")),
        ("known to be harmless", "model.pt, malicious", "mkdir"),
        "images",
    ),
    Bad("weights of another net", toml("nets:build", "nets:flat"), ("model.safetensors", "factory"), "images"),
    Bad("a factory that raises", toml("nets:build", "nets:raises"), ("nets:raises", "OSError: no licence"), "images"),
    Bad("a factory that is missing", toml("nets:build", "nets:biuld"), ("biuld", "did you mean build?"), "images"),
    Bad("a module that is missing", toml("nets:build", "netts:build"), ("netts", "beside casemate.toml"), "images"),
    Bad(
        "a factory of another spelling", toml("nets:build", "nets.build"), ("'pkg.module:name'", "nets.build"), "images"
    ),
    Bad(
        "a factory that gives no module", toml("nets:build", "nets:nothing"), ("torch.nn.Module", "NoneType"), "images"
    ),
    Bad("code that does not compile", holding("nets.py", b"def build(:\n"), ("nets", "SyntaxError"), "images"),
    Bad("a recipe that does not import", added('[train]\nrecipe = "receipt:fit"\n'), ("receipt", "recipe"), "images"),
    Bad("settings of no recipe", added("[train]\nsettings = { epochs = 1 }\n"), ("train.recipe",), "images"),
    Bad("too many classes", toml('"bright"]', '"bright", "blue"]'), ("3 logits", "got 2"), "images"),
    Bad(
        "probabilities for logits",
        named(factory="nets:squashed"),
        ("probabilities", "softmax"),
        "images",
        code=1,
        plugin="preflight/output_meaning",
    ),
    # the table
    Bad("no data", gone("test.parquet"), ("data file", "test.parquet", "[data]")),
    Bad("a folder as data", as_folder("test.parquet"), ("data file", "test.parquet")),
    Bad("an empty data file", holding("test.parquet", b""), ("readable table", "test.parquet")),
    Bad("half a data file", cut("test.parquet"), ("readable table", "test.parquet")),
    Bad("an empty CSV", csv(lambda text: ""), ("test.csv", "Empty CSV")),
    Bad("a CSV without rows", csv(lambda text: text.splitlines()[0] + "\n"), ("at least one row", "test.csv")),
    Bad("a ragged CSV", csv(lambda text: text + "1,2\n"), ("readable table", "test.csv", "columns")),
    Bad(
        "a CSV in another encoding",
        csv(lambda text: text.replace("yes", "\xe9").encode("latin-1")),
        ("test.csv", "UTF-8"),
    ),
    Bad("a column name twice", csv(lambda text: text.replace("pay", "sex", 1)), ("each column once", "'sex'")),
    Bad(
        "data of an unknown kind",
        both(holding("test.xlsx", b"PK"), toml("test.parquet", "test.xlsx")),
        (".csv, .parquet or .npz", "test.xlsx"),
    ),
    Bad("no rows", frame(lambda rows: rows[:0]), ("at least one row", "test.parquet")),
    Bad("the wrong target", toml('target = "label"', 'target = "lable"'), ("'lable'", "did you mean label?")),
    Bad("no target", toml('target = "label"\n', ""), ("labels", "[data] target")),
    Bad("a sensitive column that is not there", toml('["sex"]', '["gender"]'), ("'gender'", "sex")),
    Bad(
        "an excluded column that is not there",
        toml("[audit]", 'exclude = ["id"]\n[audit]'),
        ("'id'", "train.parquet", "pay, sex"),
    ),
    Bad(
        "a column that the model needs is absent",
        both(
            frame(lambda rows: rows.drop(columns="pay")), frame(lambda rows: rows.drop(columns="pay"), "train.parquet")
        ),
        ("without pay", "fitted on"),
    ),
    Bad(
        "a column in one split only",
        frame(lambda rows: rows.assign(extra=1.0)),
        ("'extra'", "train.parquet", "exclude it"),
    ),
    Bad("columns that the model was not given", unnamed_model, ("expected 1 features", "got 2")),
    Bad(
        "a regression target for a classifier",
        frame(lambda rows: rows.assign(label=rows["pay"])),
        ("class labels", "regression"),
    ),
    Bad(
        "labels that are no classes",
        frame(lambda rows: rows.assign(label=rows["label"].replace("yes", "maybe"))),
        ("classes no, yes", "maybe"),
    ),
    Bad(
        "labels out of range",
        frame(lambda rows: rows.assign(label=np.arange(len(rows)) % 3)),
        ("classes no, yes", "got 0, 1, 2"),
    ),
    Bad(
        "labels that are absent",
        frame(lambda rows: rows.assign(label=rows["label"].where(rows.index > 3))),
        ("a label in every row", "4 rows"),
    ),
    Bad(
        "one class",
        frame(lambda rows: rows.assign(label="yes")),
        ("all labels are of one class", "name the right target"),
        code=1,
        plugin="preflight/label_balance",
    ),
    Bad(
        "a missing value where none is allowed",
        both(
            frame(lambda rows: rows.assign(pay=rows["pay"].where(rows.index > 2))),
            added("[schema.pay]\nmissing_ok = false\n"),
        ),
        ("a value", "'pay'", "3 rows", "missing_ok"),
    ),
    Bad(
        "an infinite value",
        frame(lambda rows: rows.assign(pay=rows["pay"].where(rows.index > 2, np.inf))),
        ("finite numbers", "'pay'", "3 rows"),
    ),
    Bad("a value beyond its bounds", added("[schema.pay]\nhi = 0.5\n"), ("'pay'", "0.5", "rows")),
    Bad(
        "text in a column of numbers",
        frame(lambda rows: rows.assign(pay="much")),
        ("'pay'", "one kind of values", "'much'"),
    ),
    Bad("a setting of a column that is not there", added("[schema.pya]\nhi = 1\n"), ("'pya'", "did you mean pay?")),
    Bad("a setting that columns do not have", added("[schema.pay]\nhigh = 1\n"), ("'high'",)),
    # the images
    Bad("images up to 255 under [0, 1]", arrays(x=lambda x: x * 255), ("[0, 1]", "255", "divide by 255"), "images"),
    Bad(
        "whole numbers up to 255 without bounds",
        both(arrays(x=lambda x: np.rint(x * 255).astype(np.uint8)), toml("bounds = [0, 1]\n", "")),
        ("divide by 255", "bounds"),
        "images",
    ),
    Bad(
        "images with channels last",
        arrays(x=lambda x: x.transpose(0, 2, 3, 1)),
        ("samples of shape (8, 6, 3)",),
        "images",
    ),
    Bad(
        "channels last for a net that does not mind",
        both(arrays(x=lambda x: x.transpose(0, 2, 3, 1)), named(factory="nets:flat")),
        ("channels last", "transpose"),
        "images",
        code=1,
        plugin="preflight/channel_order",
    ),
    Bad(
        "pixels that are no numbers",
        arrays(x=lambda x: np.where(x > 0.9, np.nan, x)),
        ("finite pixels", "test.npz"),
        "images",
    ),
    Bad("images of another size", arrays(x=lambda x: x[:, :, :5]), ("samples of shape (3, 5, 6)",), "images"),
    Bad("no images", arrays(x=lambda x: x[:0], y=lambda y: y[:0]), ("at least one sample", "test.npz"), "images"),
    Bad("no array x", arrays(x=None), ("an array x", "test.npz"), "images"),
    Bad("no array y", arrays(y=None), ("labels", "[data] target"), "images"),
    Bad("fewer labels than images", arrays(y=lambda y: y[:-1]), ("one label for each sample", "test.npz"), "images"),
    Bad("labels of the images out of range", arrays(y=lambda y: y + 5), ("dark, bright", "5, 6"), "images"),
    Bad("negative labels of images", arrays(y=lambda y: y - 1), ("dark, bright", "-1"), "images"),
    Bad(
        "arrays of objects",
        arrays(y=lambda y: np.array([Planted()] * len(y), dtype=object)),
        ("objects", "pickle", "test.npz"),
        "images",
    ),
    Bad("half the arrays", cut("test.npz"), ("arrays in test.npz",), "images"),
    Bad(
        "arrays that unpack to a thousand times their size", bomb("test.npz", "x.npy"), ("test.npz", "unpack"), "images"
    ),
    # what an audit left
    Bad(
        "explain without a report",
        nothing,
        ("no report", "casemate-report"),
        ask="explain evasion/standard#0123456789ab",
    ),
    Bad("explain an unknown finding", audited, ("'nonsense'", "no such finding"), ask="explain nonsense"),
    Bad("replay without a report", nothing, ("report.json", "casemate audit"), ask="replay evasion/standard"),
    Bad("replay of an unknown finding", audited, ("one finding", "'nonsense'"), ask="replay nonsense"),
    Bad(
        "replay of evidence that was changed",
        tampered,
        ("evidence that was measured", "audit again"),
        ask="replay {finding}",
        code=1,
    ),
    Bad(
        "replay with another model",
        both(
            audited,
            lambda folder: skops.io.dump(DummyClassifier().fit([[0, 0]] * 2, ["no", "yes"]), folder / "model.skops"),
        ),
        ("the same model",),
        ask="replay {finding}",
    ),
    Bad(
        "replay with other data",
        both(audited, frame(lambda rows: rows[1:])),
        ("the test data of the report",),
        ask="replay {finding}",
    ),
    Bad("compare without a report", audited, ("report.json", "elsewhere"), ask="compare casemate-report elsewhere"),
    Bad(
        "half a report",
        both(audited, cut("casemate-report/report.json")),
        ("JSON",),
        ask="compare casemate-report casemate-report",
    ),
    Bad(
        "a report of other things",
        both(as_folder("casemate-report"), holding("casemate-report/report.json", b"{}")),
        ("a Casemate report", "other JSON"),
        ask="explain fairness/group_gaps",
    ),
    Bad("init where nothing is", both(as_folder("empty"), nothing), ("model or data", "--model"), ask="init empty"),
    Bad("init over a configuration", nothing, ("no casemate.toml yet", "--force"), ask="init"),
    # as users run it
    Bad("no model, from a shell", gone("model.skops"), ("model file", "[model] path"), apart=True),
    Bad("an unknown key, from a shell", toml("sensitive =", "sensitve ="), ("did you mean sensitive",), apart=True),
    Bad(
        "a pickle, from a shell", both(pickled("model.pkl"), toml("model.skops", "model.pkl")), ("--trust",), apart=True
    ),
)


# ------------------------------------------------------------------------------------------------------------- the rule


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two good folders."""
    root = tmp_path_factory.mktemp("good")
    return {"table": _good_table(root / "table"), "images": _good_images(root / "images")}


def _good_table(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, n in (("train", 200), ("test", 120)):
        rows = pd.DataFrame({"pay": rng.normal(size=n).round(6), "sex": rng.integers(0, 2, n)})
        rows["label"] = np.where(rows["pay"] + 2.0 * rows["sex"] - 1 + 0.2 * rng.normal(size=n) > 0, "yes", "no")
        rows.to_parquet(folder / f"{name}.parquet")
        if name == "train":
            skops.io.dump(LogisticRegression().fit(rows[["pay", "sex"]], rows["label"]), folder / "model.skops")
    (folder / "casemate.toml").write_text(TABLE)
    return folder


def _good_images(folder: Path) -> Path:
    import torch
    from safetensors.torch import save_file
    from torch import nn

    folder.mkdir()
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    x = (0.5 * y[:, None, None, None] + 0.5 * rng.random((40, 3, 8, 6))).astype(np.float32)
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 6 * 4, 2))
    with torch.no_grad():  # the brighter the image, the larger the second logit
        net[0].weight.fill_(1 / 27)
        net[0].bias.zero_()
        net[3].weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 48) / 4)
        net[3].bias.copy_(torch.tensor([6.0, -6.0]))
    save_file(net.state_dict(), folder / "model.safetensors")
    np.savez(folder / "test.npz", x=x, y=y)
    (folder / "nets.py").write_text(NETS)
    (folder / "casemate.toml").write_text(IMAGES)
    return folder


@pytest.mark.parametrize("name", ["table", "images"])
def test_what_is_not_spoilt_passes(
    name: str,
    good: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(shutil.copytree(good[name], tmp_path / "work"))
    code = cli.run(PREFLIGHT.split())
    assert code == 0, capsys.readouterr()
    assert report_in(Path("casemate-report")).ruling.exit_code == 0


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name.replace(" ", "-"))
def test_bad_input_is_one_clear_error_or_outcome_and_leaves_nothing_half_written(
    bad: Bad,
    good: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(good[bad.folder], tmp_path / "work")
    monkeypatch.chdir(folder)
    bad.spoil(folder)
    before = whole_reports(folder)
    capsys.readouterr()
    finding = report_in(folder / "casemate-report").findings[0].id if "{finding}" in bad.ask else ""
    asked = bad.ask.format(finding=finding).split()
    code, err = apart(asked, bad.limit) if bad.apart else (cli.run(asked), capsys.readouterr().err)
    assert code == bad.code, err
    if bad.plugin:
        assert re.sub(r"^\d+/\d+ \S+: \d+ of \d+\n", "", err, flags=re.MULTILINE) == ""  # progress, where it is slow
        said = outcome_of(bad.plugin, report_in(folder / "casemate-report"))
    else:
        assert len(re.findall(r"^error:", err, re.MULTILINE)) == 1, err
        assert "Traceback" not in err
        assert whole_reports(folder) == before, "an error writes no report"
        said = " ".join(err.split())
    for word in bad.words:
        assert word in said, said
    assert not (folder / "executed").exists(), "code in a file was run"
    store_is_sound(folder)


def apart(asked: list[str], limit: int | None) -> tuple[int, str]:
    """The command in a process of its own, which may be too poor to write large files."""

    def poor() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-c", "from casemate.cli import main; main()", *asked]
    # Outside coverage, which would want to write its own file on the full disk.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, preexec_fn=poor, env=env)
    return done.returncode, done.stderr


def report_in(folder: Path) -> Any:
    return report_json.loads((folder / "report.json").read_bytes())


def outcome_of(plugin: str, report: Any) -> str:
    """The one outcome that names the problem, in words."""
    if plugin == "ruling":
        return "; ".join(f"{gate.gate}: {gate.reason}" for gate in report.ruling.gates)
    found = [outcome for outcome in report.findings if outcome.plugin == plugin]
    assert len(found) == 1, found
    return f"{found[0].title}: {found[0].mend}"


def whole_reports(folder: Path) -> dict[str, bytes]:
    """What output folders hold; each that exists is whole."""
    found = {}
    for path in (folder / "casemate-report", folder / "empty"):
        if path.is_dir():
            files = {str(p.relative_to(folder)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
            assert not [name for name in files if name.endswith((".tmp", ".new"))], files.keys()
            found |= files
    if f"casemate-report{os.sep}report.html" in found:
        assert f"casemate-report{os.sep}report.json" in found, "half a report"
    return found


def store_is_sound(folder: Path) -> None:
    database = folder / ".casemate" / "store.db"
    if not database.exists() or not database.read_bytes().startswith(b"SQLite format 3"):
        return
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    store = open_store(folder / ".casemate")
    store.runs()
    store.close()


X = np.random.default_rng(0).random((60, 2))
Y = (X[:, 0] > 0.5).astype(int)
FITTED = LogisticRegression().fit(X, Y)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "test data, got none"),
        ({"test": X}, r"expected test=\(x, y\)"),
        ({"test": (X, Y[:-1])}, "one label for each sample"),
        ({"test": (X[:0], Y[:0])}, "at least one sample"),
        ({"test": (X[:, :1], Y)}, "expected 2 features"),
        ({"test": (X, X[:, 0])}, "a regression target"),
        ({"test": (X, Y + 2)}, "among the classes 0, 1"),
        ({"test": (X, np.zeros(60, int))}, "at least two classes"),
        ({"test": (np.where(X > 0.9, np.inf, X), Y)}, "finite numbers"),
        ({"test": ([[1, 2], [3]], [0, 1])}, "rows of different lengths"),
        ({"test": (X, Y), "groups": {"sex": [0, 1]}}, "60 values of group sex"),
        ({"test": (X, Y), "profile": "quik"}, "expected a profile"),
        ({"test": (X, Y), "budget": "soon"}, "expected a budget"),
        ({"test": (X, Y), "seed": -1}, "expected a seed"),
        ({"test": (X, Y), "executor": "pools"}, "expected the executor"),
        ({"test": (X, Y), "only": ["evasio"]}, "did you mean evasion"),
        ({"test": (X, Y), "options": {"evasion/standard": {"norm": "lsup"}}}, "linf"),
        ({"test": (X, Y), "output": __file__}, "expected a folder"),
        ({"model": LogisticRegression(), "test": (X, Y)}, "fitted"),
        ({"model": LogisticRegression, "test": (X, Y)}, "got the class"),
        ({"model": 3, "test": (X, Y)}, "expected an estimator"),
    ],
)
def test_bad_input_from_python_is_a_usage_error(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        casemate.audit(given.pop("model", FITTED), only=given.pop("only", ["preflight"]), **given)


def test_a_module_in_train_mode_is_a_finding_and_is_left_in_it() -> None:
    from torch import nn

    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)).train()
    x = np.random.default_rng(0).random((40, 1, 2, 2)).astype(np.float32)
    report = casemate.audit(module, test=(x, np.arange(40) % 2), only=["preflight/eval_mode"])
    assert "train mode" in outcome_of("preflight/eval_mode", report)
    assert report.ruling.exit_code == 1
    assert module.training


def test_the_table_has_at_least_forty_names() -> None:
    assert len({bad.name for bad in CASES}) == len(CASES) >= 40
