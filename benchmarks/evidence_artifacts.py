"""What `casemate scan` sees, beside four other scanners, on the shared corpus and on files made here.

`make evidence-artifacts` puts each peer (latest release when this was written) into an environment of its own below
benchmarks/.envs, gives all of them the same files, and writes docs/evidence/artifacts.md and artifacts.json. No file of
the corpus is ever loaded. A peer's errors and time-outs are counted as what they are; where a file is malicious they
are no detection, where it is benign no false alarm.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import artifact_dos
import artifact_techniques
import artifact_weights
import benign_artifacts
import numpy as np
from evidence import ROOT, facts_of, measure

CORPUS = ROOT.parent / "shared" / "data" / "artifacts"
CACHE = ROOT / "benchmarks" / ".envs" / "scanners"
DRIVER = ROOT / "benchmarks" / "artifact_scanners.py"
PEERS = {
    "picklescan": ("picklescan==1.0.5", "numpy", "py7zr"),
    "modelscan": ("modelscan==0.8.8", "numpy", "h5py"),
    "fickling": ("fickling==0.1.12", "typing_extensions"),  # which it imports and does not declare
    "modelaudit": ("modelaudit==0.2.54",),
}
TOOLS = ("casemate", "picklescan", "picklescan-strict", "modelscan", "fickling", "modelaudit")
PICKLED = frozenset({"pkl", "joblib", "pt", "pth", "ckpt", "bin", "dill", "p", "sav", "mdl", "model", "npy", "npz"})
LIMIT = 30.0  # seconds a file for a peer
FUZZ_SECONDS = 1800  # all kinds of files together


@dataclass(frozen=True)
class Known:
    """A file of the corpus, and what is true of it."""

    path: Path
    form: str
    expected: str
    technique: str

    @property
    def family(self) -> str:
        """`pickle` for formats that hold pickles, `other` else."""
        return "pickle" if self.form in PICKLED or self.form.startswith("pkl") else "other"


@cache
def corpus() -> tuple[Known, ...]:
    """The shared corpus, unpacked; nothing of it is loaded."""
    folder = CACHE / "corpus"
    if not folder.exists():
        folder.mkdir(parents=True)
        with tarfile.open(CORPUS / "corpus.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    rows = [line.split("\t") for line in (CORPUS / "manifest.tsv").read_text().splitlines()[1:]]
    return tuple(Known(folder / row[0], row[1], row[2], row[3]) for row in rows)


@cache
def python_of(tool: str) -> str:
    """The Python that has the tool, in an environment made when it is first asked for."""
    name = tool.removesuffix("-strict")
    if name == "casemate":
        return sys.executable
    folder = CACHE / name
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *PEERS[name]]
        subprocess.run(install, check=True)
        (folder / "ready").touch()
    return str(folder / "bin" / "python")


def answers(tool: str, files: Iterable[Path], *, limit: float = LIMIT) -> dict[str, dict[str, Any]]:
    """What a tool says of files, by path; a file on which its whole process dies is an error, and it goes on."""
    left = [str(path) for path in files]
    found: dict[str, dict[str, Any]] = {}
    environment = {**os.environ, "SCANNER_LIMIT": str(limit), "NO_ANALYTICS": "1", "PROMPTFOO_DISABLE_TELEMETRY": "1"}
    while left:
        done = subprocess.run(
            [python_of(tool), str(DRIVER), tool], input="\n".join(left) + "\n", text=True, capture_output=True,
            env=environment, check=False,
        )  # fmt: skip
        got = [json.loads(line) for line in done.stdout.splitlines()]
        found |= {item["path"]: item for item in got}
        left = left[len(got) :]
        if left:  # it died on the next one
            found[left[0]] = {"path": left[0], "said": "error: died", "first": 0.0, "seconds": 0.0, "peak_mb": 0.0}
            left = left[1:]
    return found


def measure_corpus() -> dict[str, Any]:
    """Every file of the corpus against what is known of it, by `casemate scan` alone."""
    files = corpus()
    said = {known.path: _level(known.path) for known in files}
    rows, met = [], True
    for expected in sorted({known.expected for known in files}):
        mine = [said[known.path] for known in files if known.expected == expected]
        counts = {level: mine.count(level) for level in ("malicious", "suspicious", "unreadable", "unknown", "clean")}
        rows.append((expected, len(mine), *counts.values()))
    harmful = [known for known in files if known.expected.startswith("malicious")]
    called = sum(said[known.path] == "malicious" for known in harmful)
    passed = sum(said[known.path] == "clean" for known in files if not known.expected.startswith("benign"))
    loud = [known for known in files if known.expected == "benign" and said[known.path] != "clean"]
    custom = [known for known in files if known.expected == "benign-custom" and said[known.path] == "malicious"]
    met = passed == 0 and called >= 0.95 * len(harmful) and not loud and not custom
    return {
        "bar": "no malicious or suspicious file passes, at least 95 % of the malicious called so, benign files pass",
        "columns": ("expected", "files", "malicious", "suspicious", "unreadable", "unknown", "clean"),
        "rows": rows,
        "result": f"{called} of {len(harmful)} malicious files called malicious ({called / len(harmful):.1%}), "
        f"{passed} passed; {len(loud)} benign files flagged",
        "met": met,
    }


def _level(path: Path) -> str:
    from casemate.formats.scanning.walking import scan_file

    return str(scan_file(path).level)


def measure_peers() -> dict[str, Any]:
    """All tools on the corpus, one run: detection, false alarms, errors, seconds."""
    files = corpus()
    rows = []
    share: dict[tuple[str, str], float] = {}
    alarms: dict[tuple[str, str], float] = {}
    for tool in TOOLS:
        got = answers(tool, (known.path for known in files))
        for family in ("pickle", "other"):
            bad = [k for k in files if k.family == family and k.expected.startswith("malicious")]
            good = [k for k in files if k.family == family and k.expected == "benign"]
            hit = sum(got[str(k.path)]["said"] == "flagged" for k in bad)
            heard = sum(got[str(k.path)]["said"] in ("flagged", "warned") for k in bad)
            false = sum(got[str(k.path)]["said"] == "flagged" for k in good)
            warned = sum(got[str(k.path)]["said"] == "warned" for k in good)
            failed = sum(got[str(k.path)]["said"].startswith(("error", "timeout")) for k in (*bad, *good))
            times = [got[str(k.path)]["seconds"] for k in (*bad, *good)]
            share[tool, family], alarms[tool, family] = hit / len(bad), false / len(good)
            counts = (f"{hit}/{len(bad)}", f"{heard}/{len(bad)}", f"{false}/{len(good)}", f"{warned}/{len(good)}")
            rows.append((tool, family, *counts, failed, 1000 * median(times)))
    met = all(
        share["casemate", family] >= share["modelaudit", family]
        and alarms["casemate", family] <= alarms["picklescan", family]
        for family in ("pickle", "other")
    )
    return {
        "bar": "detection at least modelaudit's with at most picklescan's false alarms, in both families",
        "columns": ("tool", "family", "detected", "detected or warned", "benign flagged", "benign warned", "errors",
                    "median ms a file"),
        "rows": rows,
        "result": ", ".join(
            f"{family}: {share['casemate', family]:.1%} against {share['modelaudit', family]:.1%}, false alarms "
            f"{alarms['casemate', family]:.1%} against {alarms['picklescan', family]:.1%}"
            for family in ("pickle", "other")
        ),
        "met": met,
    }  # fmt: skip


def measure_speed() -> dict[str, Any]:
    """Small files, a dense pickle of 53 MiB and a checkpoint of 2 GB, each tool in a process of its own."""
    small = [k.path for k in corpus() if k.expected == "benign" and k.family == "pickle"]
    rows, figures = [], {}
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        dense, large = _dense(Path(folder) / "dense.pkl"), _checkpoint(Path(folder) / "large.pt")
        for tool in TOOLS:
            quick = answers(tool, small)
            one = median(item["seconds"] for item in quick.values())
            slow = answers(tool, [dense], limit=300)[str(dense)]
            huge = answers(tool, [large], limit=300)[str(large)] if tool == "casemate" else None
            figures[tool] = (one, slow["seconds"], huge)
            rows.append((tool, 1000 * one, slow["seconds"], slow["said"], slow["peak_mb"],
                         huge["first"] if huge else "", huge["peak_mb"] if huge else ""))  # fmt: skip
    mine, theirs, audit = figures["casemate"], figures["picklescan"], figures["modelaudit"]
    huge = mine[2]
    assert huge is not None
    met = (
        mine[0] <= theirs[0] and audit[0] >= 100 * mine[0] and theirs[1] >= 3 * mine[1]
        and huge["first"] < 2 and huge["peak_mb"] < 200 and huge["said"] == "passed"
    )  # fmt: skip
    return {
        "bar": "small files no slower than picklescan and 100x faster than modelaudit, a dense pickle 3x faster than "
        "picklescan, 2 GB of a benign checkpoint in under 2 s and 200 MB",
        "columns": ("tool", "small ms", "dense s", "dense said", "peak MB", "2 GB s", "2 GB peak MB"),
        "rows": rows,
        "result": f"small {1000 * mine[0]:.2f} ms (picklescan {1000 * theirs[0]:.2f}, modelaudit "
        f"{1000 * audit[0]:.0f}); dense {mine[1]:.1f} s ({theirs[1] / mine[1]:.1f}x faster than picklescan); "
        f"2 GB {huge['first']:.2f} s, {huge['peak_mb']:.0f} MB",
        "met": met,
    }


def _dense(path: Path) -> Path:
    """53 MiB of texts, numbers and small containers: no stretch that a reader could skip."""
    rng = np.random.default_rng(0)
    size = 46 << 20
    rows, held = [], 0
    while held < size:
        row = {
            f"k{int(n)}": [int(n), float(n) / 7, f"text {int(n)}", (int(n) % 7, None)]
            for n in rng.integers(0, 1 << 30, 500)
        }
        rows.append(row)
        held += 46 * 500
    data = pickle.dumps(rows, protocol=4)
    path.write_bytes(data)
    return path


def _checkpoint(path: Path) -> Path:
    """A state dict as torch writes it, 2 GB in 64 tensors that are stored and not compressed; all of them zeros."""
    import torch

    tensors = {f"layer{i}.weight": torch.zeros(1 << 23) for i in range(64)}
    torch.save(tensors, path)
    return path


def measure_dos() -> dict[str, Any]:
    """Files that exhaust their reader, those of the corpus and our own: each in a process of its own."""
    rows, met = [], True
    for known in (k for k in corpus() if k.expected == "malicious-dos"):
        got = answers("casemate", [known.path], limit=20)[str(known.path)]
        rows.append((f"corpus: {known.technique}", got["said"], got["first"], got["peak_mb"]))
        met &= got["said"] in ("flagged", "warned", "error")
    for case in artifact_dos.measured():
        rows.append((case.case, case.said, case.seconds, case.peak_mb))
        met &= not case.said.startswith(("crash", "timeout"))
    met &= all(row[2] < 5 and row[3] < 500 for row in rows)
    return {
        "bar": "every file reported within 5 s and 500 MB",
        "columns": ("technique", "said", "seconds", "peak MB"),
        "rows": rows,
        "result": f"{len(rows)} files, at most {max(r[2] for r in rows):.2f} s and {max(r[3] for r in rows):.0f} MB",
        "met": met,
    }


def measure_benign() -> dict[str, Any]:
    """Real files of the libraries that are installed here, and of environments whose files lie in `.envs/benign/*`."""
    folder = CACHE.parent / "benign"
    own = folder / "here"
    if not (own / "index.json").exists():
        own.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / "artifact_files.py"), str(own)], check=True)
    return benign_artifacts.measured(sorted(index.parent for index in folder.glob("*/index.json")))


def measure_fuzz() -> dict[str, Any]:
    """Mutations of malicious files against CPython's unpickler, and of all files against crashes and hangs."""
    rows, met = [], True
    kinds = {
        "pickles": ([k.path for k in corpus() if k.expected.startswith("malicious") and k.family == "pickle"], 100_000),
        "other formats": ([k.path for k in corpus() if k.family == "other"], 1_000_000),
    }
    left = float(FUZZ_SECONDS)
    for name, (files, most) in kinds.items():
        command = [sys.executable, str(ROOT / "benchmarks" / "artifact_fuzz.py"), str(most), str(left), "1"]
        listed = "\n".join(map(str, files)) + "\n"
        done = subprocess.run(command, input=listed, text=True, capture_output=True, check=False)
        if not done.stdout:
            raise RuntimeError(f"expected a line of figures, got {done.stderr[-300:]}: run {' '.join(command)}")
        got = json.loads(done.stdout)
        met &= done.returncode == 0 and (name != "pickles" or got["mutations"] >= most)
        left -= got["seconds"]
        told = ", ".join(f"{count:,} {level}" for level, count in sorted(got["levels"].items()))
        rows.append(
            (name, got["mutations"], got["executing"], got["misses"], got["slowest"], got["seconds"] / 60, told)
        )
    return {
        "bar": "100,000 mutations of malicious pickles, none that would run is passed; no crash, none over its limit; "
        "30 minutes in all",
        "columns": ("files", "mutations", "would import what is not known", "passed", "slowest s", "minutes", "said"),
        "rows": rows,
        "result": f"{sum(row[1] for row in rows):,} mutations in {sum(row[5] for row in rows):.0f} minutes, "
        f"{sum(row[3] for row in rows)} passed that would run, slowest {max(row[4] for row in rows):.2f} s",
        "met": met and left <= 0,
    }


MEASUREMENTS = {
    "corpus": measure_corpus,
    "peers": measure_peers,
    "speed": measure_speed,
    "dos": measure_dos,
    "techniques": artifact_techniques.measured,
    "benign": measure_benign,
    "weights": artifact_weights.measured,
    "fuzz": measure_fuzz,
}

if __name__ == "__main__":
    CACHE.mkdir(parents=True, exist_ok=True)
    sys.exit(measure("artifacts", "files and scanners", MEASUREMENTS, sys.argv[1:], facts=facts_of("numpy", "torch")))
