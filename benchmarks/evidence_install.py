"""The measurements behind the bar of the plain install: what it downloads, what it audits, what it says is missing.

`make evidence-install` builds the wheel from this checkout, installs it without extras into a fresh environment through
pip as a user would, and writes docs/evidence/install.md and install.json. Pass names to run some only.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from evidence import ROOT, facts_of, measure

BAR = 230e6  # bytes

# What a user would write: an estimator of scikit-learn on a table, kept as skops. Run in the fresh environment.
TRAIN = """
import sys
from pathlib import Path
import skops.io
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
folder = Path(sys.argv[1])
frame = load_breast_cancer(as_frame=True).frame
for name, part in zip(("train", "test"), train_test_split(frame, test_size=0.4, random_state=0)):
    part.to_parquet(folder / f"{name}.parquet", index=False)
    if name == "train":
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        model.fit(part.drop(columns="target"), part["target"])
        skops.io.dump(model, folder / "model.skops")
"""

# The same table for models of other frameworks, each in a real file. Run in the developers' environment.
FOREIGN = """
import sys
from pathlib import Path
import lightgbm, numpy as np, pandas as pd, torch, xgboost
from PIL import Image
from safetensors.torch import save_file
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
folder = Path(sys.argv[1])
frame = pd.read_parquet(folder / "train.parquet")
x, y = frame.drop(columns="target"), frame["target"]
boost = xgboost.XGBClassifier(n_estimators=5).fit(x, y)
boost.save_model(folder / "model.ubj")
boost.save_model(folder / "model.json")
lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(x, y).booster_.save_model(folder / "model.txt")
logistic = LogisticRegression(max_iter=5000).fit(x.to_numpy(np.float32), y)
onnx = to_onnx(logistic, x.to_numpy(np.float32)[:1])
(folder / "model.onnx").write_bytes(onnx.SerializeToString())
net = torch.nn.Sequential(torch.nn.Linear(x.shape[1], 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
save_file(net.state_dict(), folder / "model.safetensors")
torch.save(net.state_dict(), folder / "model.pt")
torch.export.save(torch.export.export(net, (torch.zeros(4, x.shape[1]),)), folder / "model.pt2")
(folder / "net.py").write_text(
    "import torch\\n"
    "def build():\\n"
    f"    return torch.nn.Sequential(torch.nn.Linear({x.shape[1]}, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))\\n"
)
rng = np.random.default_rng(0)
for name in ("cat", "dog"):
    (folder / "images" / name).mkdir(parents=True)
    for i in range(4):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name / f"{i}.png")
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
words = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad"])}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
special = dict(unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder / "classifier")
size = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, num_labels=2)
BertForSequenceClassification(BertConfig(vocab_size=6, **size)).save_pretrained(folder / "classifier")
(folder / "texts.jsonl").write_text('{"text": "good", "target": "1"}\\n{"text": "bad", "target": "0"}\\n' * 20)
"""

TABLE = 'test = "test.parquet"\ntarget = "target"'
FACTORY = 'path = "{}"\nfactory = "net:build"'
TEXTS = 'test = "texts.jsonl"\ntarget = "target"'
# What is audited -> [model], [data], more arguments, the extra that has to be named.
MISSING = {
    "ONNX graph (.onnx)": ('path = "model.onnx"', TABLE, (), "onnx"),
    "XGBoost (.ubj)": ('path = "model.ubj"', TABLE, (), "boost"),
    "XGBoost (.json)": ('path = "model.json"', TABLE, (), "boost"),
    "LightGBM (.txt)": ('path = "model.txt"', TABLE, (), "boost"),
    "torch program (.pt2)": ('path = "model.pt2"', TABLE, (), "torch"),
    "torch weights (.safetensors)": (FACTORY.format("model.safetensors"), TABLE, (), "torch"),
    "torch weights (.pt)": (FACTORY.format("model.pt"), TABLE, (), "torch"),
    "text classifier (a folder)": ('path = "classifier"', TEXTS, (), "text"),
    "image folder": ('path = "model.skops"', 'test = "images"\nkind = "image"', (), "image"),
    "endpoint (url)": (
        'url = "http://127.0.0.1:9/v2/models/m"\nprotocol = "oip"',
        TABLE,
        ("--i-am-authorised",),
        "http",
    ),
}


@dataclass(frozen=True)
class Installed:
    """A fresh environment with Casemate alone: its Python, the folder of what was downloaded, a folder to work in."""

    python: Path
    downloads: Path
    work: Path


_OPEN = contextlib.ExitStack()


@cache
def _installed() -> Installed:
    """Build the wheel, download it with all that it needs, install it from there without extras, train a model."""
    place = Path(_OPEN.enter_context(tempfile.TemporaryDirectory(prefix="casemate-install-")))
    wheels, downloads, work = place / "wheel", place / "downloads", place / "work"
    work.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    _run([*pip, "wheel", "--no-deps", "-w", str(wheels), str(ROOT)])
    _run([sys.executable, "-m", "venv", str(place / "env")])
    python = place / "env" / "bin" / "python"
    pip[0] = str(python)
    (wheel,) = wheels.glob("*.whl")
    _run([*pip, "download", "-d", str(downloads), str(wheel)])
    _run([*pip, "install", "--no-index", "--find-links", str(downloads), str(wheel)])
    _run([str(python), "-c", TRAIN, str(work)])
    return Installed(python, downloads, work)


def downloads() -> dict[str, Any]:
    """The size of every file that `pip install casemate` fetches, the wheel itself among them."""
    files = sorted(_installed().downloads.iterdir(), key=lambda path: -path.stat().st_size)
    total = sum(path.stat().st_size for path in files)
    rows = [[path.name.partition("-")[0], path.name.split("-")[1], path.stat().st_size / 1e6] for path in files]
    small = rows[12:]
    rows = [*rows[:12], [f"{len(small)} more", "", sum(row[2] for row in small)]]
    return {
        "bar": "the plain install downloads less than 230 MB",
        "columns": ["package", "version", "MB"],
        "rows": rows,
        "result": f"{total / 1e6:.1f} MB in {len(files)} files",
        "met": total < BAR,
    }


def audit() -> dict[str, Any]:
    """A scikit-learn pipeline audited on the command line, from `casemate init` on, where torch is not installed."""
    home = _installed()
    names = ("torch", "xgboost", "lightgbm", "onnxruntime", "transformers", "PIL", "httpx")
    find = f"import importlib.util as u; print(' '.join(n for n in {names!r} if u.find_spec(n)) or 'none')"
    others = _run([str(home.python), "-c", find]).stdout.strip()
    init = _casemate("init")
    start = time.perf_counter()
    done = _casemate("audit", "--profile", "quick")
    seconds = time.perf_counter() - start
    path = home.work / "casemate-report" / "report.json"
    outcomes = json.loads(path.read_text())["outcomes"] if path.exists() else []
    broke = sum(o["outcome"] == "failed" for o in outcomes)
    unavailable = sum(o["outcome"] == "skipped" and o["reason"] == "unavailable" for o in outcomes)
    return {
        "bar": "it audits a scikit-learn estimator without torch, and ends with a verdict",
        "columns": ["init", "audit", "seconds", "outcomes", "broke", "unavailable", "optional packages installed"],
        "rows": [[init.returncode, done.returncode, seconds, len(outcomes), broke, unavailable, others]],
        "result": f"exit code {done.returncode}, optional packages: {others}",
        "met": init.returncode == 0 and done.returncode in (0, 1) and others == "none" and not broke,
    }


def extras() -> dict[str, Any]:
    """A real model (or data set) of each optional kind: exit code 3, and the line that installs what is missing."""
    home = _installed()
    _run([sys.executable, "-W", "ignore", "-c", FOREIGN, str(home.work)])
    rows = []
    for kind, (model, data, more, extra) in MISSING.items():
        (home.work / "other.toml").write_text(f"[model]\n{model}\n[data]\n{data}\n")
        done = _casemate("audit", "other.toml", "--profile", "quick", "-o", "other-report", *more)
        named = f"pip install 'casemate[{extra}]'" in done.stderr
        said = [line.strip() for line in done.stderr.splitlines() if line.strip() not in ("", "error:")]
        rows.append([kind, f"[{extra}]", done.returncode, "yes" if named else "no", " / ".join(said)[:160]])
    good = sum(row[2] == 3 and row[3] == "yes" for row in rows)
    return {
        "bar": "each missing extra is named with its `pip install`, with exit code 3",
        "columns": ["what is audited", "extra", "exit code", "named", "what is said"],
        "rows": [[_plain(cell) for cell in row] for row in rows],
        "result": f"{good} of {len(rows)} named",
        "met": good == len(rows),
    }


def _plain(cell: object) -> object:
    return cell.replace("|", "/") if isinstance(cell, str) else cell


def _casemate(*arguments: str) -> subprocess.CompletedProcess[str]:
    home = _installed()
    command = [str(home.python.with_name("casemate")), *arguments]
    return subprocess.run(command, cwd=home.work, env=dict(_clean()), capture_output=True, text=True, check=False)


def _clean() -> Iterator[tuple[str, str]]:
    """The environment without what would let the fresh Python find this checkout."""
    return ((key, value) for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME"))


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, env=dict(_clean()), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done


MEASUREMENTS = {f.__name__: f for f in (downloads, audit, extras)}


def main(arguments: list[str]) -> int:
    """Run the named measurements (all by default) and write the page."""
    return measure("install", "the plain install", MEASUREMENTS, arguments, facts=facts_of())


if __name__ == "__main__":
    with _OPEN:
        sys.exit(main(sys.argv[1:]))
