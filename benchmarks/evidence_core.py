"""The measurements behind the bars of the foundation: intervals, linear brackets, equal reports, import times, size.

`make evidence-core` runs them all and writes docs/evidence/core.md and core.json with commit, date and versions. Pass
names to run some only: `make evidence-core ARGS='intervals imports'`.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from evidence import ROOT, facts_of, measure

DRAWS = 1000


def intervals() -> dict[str, Any]:
    """Coverage of Clopper-Pearson in simulated draws, and its mean width against Wilson's."""
    from casemate.core.stats import clopper_pearson_bounds, wilson

    rng = np.random.default_rng(20261122)
    rows = []
    for n in (30, 100, 1000):
        for p in (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95):
            hits = rng.binomial(n, p, DRAWS)
            low, high = clopper_pearson_bounds(hits, np.full(DRAWS, n))
            ours = float(np.mean(high - low))
            theirs = float(np.mean([(w := wilson(int(h), n)).high - w.low for h in hits]))
            rows.append([n, p, float(np.mean((low <= p) & (p <= high))), ours / theirs])
    return {
        "bar": "coverage at least 93.5 % in 1,000 draws, mean width at most 1.25 x Wilson",
        "columns": ["n", "p", "coverage", "width / Wilson"],
        "rows": rows,
        "result": f"least coverage {min(r[2] for r in rows):.3f}, largest ratio {max(r[3] for r in rows):.3f}",
        "met": all(r[2] >= 0.935 and r[3] <= 1.25 for r in rows),
    }


def linear() -> dict[str, Any]:
    """Every bracket decision of `evasion/standard` on linear models against an independent closed form."""
    rows = []
    for framework in ("scikit-learn", "torch"):
        for norm in ("linf", "l2"):
            checked, wrong = _linear_decisions(framework, norm)
            rows.append([framework, norm, checked, wrong])
    return {
        "bar": "every bracket decision equals the closed form on every sample",
        "columns": ["model", "norm", "decisions", "wrong"],
        "rows": rows,
        "result": f"{sum(r[3] for r in rows)} wrong of {sum(r[2] for r in rows)}",
        "met": all(r[3] == 0 for r in rows),
    }


def _linear_decisions(framework: str, norm: str) -> tuple[int, int]:
    from casemate import _audit
    from casemate._replay import kept_arrays
    from casemate.core.facets import Profile

    case, weights, bias = _linear_case(framework)
    radii = (0.02, 0.05, 0.1, 0.2, 0.3) if norm == "linf" else (0.1, 0.25, 0.5, 1.0, 2.0)
    options = {"evasion/standard": {"norm": norm, "eps": radii, "samples": 10_000}}
    with tempfile.TemporaryDirectory() as folder:
        place = _audit.Place(output=Path(folder))
        order = _audit.Order(profile=Profile.QUICK, options=options, only=("evasion/standard",))
        report = _audit.run(case, order, place)
        (kept,) = kept_arrays(Path(folder), report, list(report.files)).values()
    data = case.data("test")
    place_of = {int(i): row for row, i in enumerate(data.sample_id)}
    rows = np.array([place_of[int(i)] for i in kept["sample_id"]])
    x = np.asarray(data.x[rows], dtype=np.float64).reshape(len(rows), -1)
    tolerance = 1e-6 if framework == "scikit-learn" else 1e-4  # float32 answers within its rounding of the boundary
    wrong = 0
    for eps in radii:
        inside = _falls(norm, x, data.labels[rows], (weights, bias), eps * (1 - tolerance))
        outside = _falls(norm, x, data.labels[rows], (weights, bias), eps * (1 + tolerance))
        broken, proved = kept["upper"] <= eps * (1 + 1e-9), kept["lower"] > eps
        wrong += int((inside & (~broken | proved)).sum() + (~outside & (broken | ~proved)).sum())
    return len(rows) * len(radii), wrong


def _falls(norm: str, x: np.ndarray, y: np.ndarray, affine: tuple[np.ndarray, np.ndarray], eps: float) -> np.ndarray:
    """Whether some point of ball and box is answered wrongly: each margin maximised, in closed form."""
    weights, bias = affine
    logits = x @ weights.T + bias
    fallen = logits.argmax(1) != y
    for other in range(len(weights)):
        gap = logits[:, other] - logits[np.arange(len(y)), y]
        fallen |= (gap + _best_gain(norm, x, weights[other] - weights[y], eps) > 0) & (y != other)
    return fallen


def _best_gain(norm: str, x: np.ndarray, a: np.ndarray, eps: float) -> np.ndarray:
    if norm == "linf":
        return np.maximum(a * (np.clip(x + eps, 0, 1) - x), a * (np.clip(x - eps, 0, 1) - x)).sum(1)
    low, high = (
        np.zeros(len(x)),
        np.full(len(x), 1e9),
    )  # the multiplier of the ball, by bisection in floating-point halves
    for _ in range(200):
        middle = np.sqrt(np.maximum(low, 1e-12) * high)
        step = np.clip(x + middle[:, None] * a, 0, 1) - x
        too_far = np.linalg.norm(step, axis=1) > eps
        high, low = np.where(too_far, middle, high), np.where(too_far, low, middle)
    return (a * (np.clip(x + low[:, None] * a, 0, 1) - x)).sum(1)


def _linear_case(framework: str) -> tuple[Any, np.ndarray, np.ndarray]:
    from casemate.testing import toy_case

    case = toy_case("linear")
    affine = case.the_model().affine
    if framework == "scikit-learn":
        return case, affine.weights, affine.bias
    import torch

    from casemate import adapters

    layer = torch.nn.Linear(64, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(affine.weights))
        layer.bias.copy_(torch.tensor(affine.bias))
    model = adapters.wrap(layer.eval(), classes=case.the_model().classes, schema=case.schema)
    weights = layer.weight.detach().numpy().astype(np.float64)
    return dataclasses.replace(case, model=model), weights, layer.bias.detach().numpy().astype(np.float64)


def imports() -> dict[str, Any]:
    """Seconds that `import casemate` takes inside an interpreter, and `casemate --help` as a whole process."""
    code = "import time; t = time.perf_counter(); import casemate; print(time.perf_counter() - t)"
    own = [float(_run(sys.executable, "-c", code)) for _ in range(7)]
    command = Path(sys.executable).parent / "casemate"
    helps = []
    for _ in range(7):
        start = time.perf_counter()
        _run(str(command), "--help")
        helps.append(time.perf_counter() - start)
    loaded = "import sys, casemate; print(sorted({'torch', 'pandas', 'sklearn'} & set(sys.modules)))"
    return {
        "bar": "`import casemate` under 0.3 s without torch, pandas, scikit-learn; `--help` under 0.6 s",
        "columns": ["what", "median s", "largest s"],
        "rows": [
            ["import casemate", float(np.median(own)), max(own)],
            ["casemate --help", float(np.median(helps)), max(helps)],
        ],
        "result": f"heavy modules loaded: {_run(sys.executable, '-c', loaded).strip()}",
        "met": bool(np.median(own) < 0.3 and np.median(helps) < 0.6),
    }


def million() -> dict[str, Any]:
    """A table of 1,000,000 rows, audited `quick` from Parquet: seconds and peak memory of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        _run(sys.executable, __file__, "--make-million", folder)
        start = time.perf_counter()
        command = str(Path(sys.executable).parent / "casemate")
        run = [command, "audit", f"{folder}/casemate.toml", "--profile", "quick", "--output", f"{folder}/report"]
        done = subprocess.run(run, cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        report = json.loads((Path(folder) / "report" / "report.json").read_text())
        sizes = sorted({e["n"] for o in report["outcomes"] for e in o["evidence"] if e["n"]})
    return {
        "bar": "AIM: under 2 GB, and the report says what was sampled",
        "columns": ["rows", "exit code", "seconds", "peak GB", "sizes of the samples"],
        "rows": [[report["data"]["test"]["rows"], done.returncode, seconds, peak, " ".join(map(str, sizes))]],
        "result": f"{peak:.2f} GB",
        "met": peak < 2.0 and done.returncode in (0, 1, 3),
    }


def _make_million(folder: Path) -> None:
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    from casemate.adapters.sklearn import save_skops

    rng = np.random.default_rng(0)
    n = 1_000_000
    frame = pd.DataFrame(rng.normal(size=(n, 20)).astype(np.float32), columns=[f"f{i}" for i in range(20)])
    frame["sex"] = np.where(rng.random(n) < 0.5, "f", "m")
    frame["label"] = (frame["f0"] + frame["f1"] + rng.normal(size=n) > 0).astype(int)
    features = [f"f{i}" for i in range(20)]
    model = LogisticRegression().fit(frame[features].iloc[:20_000], frame["label"].iloc[:20_000])
    save_skops(folder / "model.skops", model)
    frame.to_parquet(folder / "test.parquet")
    (folder / "casemate.toml").write_text(
        '[model]\npath = "model.skops"\n[data]\ntest = "test.parquet"\ntarget = "label"\nsensitive = ["sex"]\n'
        "drop_sensitive = true\n"
    )


def resumption() -> dict[str, Any]:
    """The test that kills a run five times with -9 and resumes it, in one process and in a pool."""
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-k", "kill_9 or same_bytes", "tests/test_audit.py"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "bar": "inline, pool and five kill -9 with --resume give byte-identical reports",
        "columns": ["pytest"],
        "rows": [[done.stdout.strip().splitlines()[-1]]],
        "result": "as the tests say",
        "met": done.returncode == 0,
    }


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


MEASUREMENTS = {f.__name__: f for f in (intervals, linear, resumption, imports, million)}


def main(arguments: list[str]) -> int:
    """Run the named measurements (all by default) and write the page."""
    if arguments[:1] == ["--make-million"]:
        _make_million(Path(arguments[1]))
        return 0
    facts = facts_of("numpy", "scipy", "scikit-learn", "torch", "pandas")
    return measure("core", "the foundation", MEASUREMENTS, arguments, facts=facts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
