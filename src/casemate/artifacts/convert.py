"""Model files into formats that run nothing, with the answers of both compared before anything is written.

Estimators in pickles, joblib and skops files become skops or ONNX; tensors and arrays in torch's files, pickles and npy
become safetensors or npz, without executing the pickle at all.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.archives import check_archive
from casemate.adapters.extras import need
from casemate.adapters.loading import PICKLES
from casemate.adapters.skops import load_estimator, load_skops, save_skops
from casemate.adapters.verdicts import hold
from casemate.artifacts.convert_tensors import Tensor, as_npz, as_safetensors, tensors_in
from casemate.errors import ModelError, Unavailable
from casemate.formats import atomic

__all__ = ["TARGETS", "Converted", "convert_file"]

Array = NDArray[Any]
TARGETS = (".skops", ".onnx", ".safetensors", ".npz")
"""Suffixes of what a file can be converted to."""
_ROWS = 256
_WIDEST = 1 << 18  # features of random rows: half a GiB of them
_CLOSE = 1e-4  # of probabilities and margins that ONNX computes in float32, relative to their size
_ANSWERS = ("predict", "predict_proba", "decision_function")


@dataclass(frozen=True, slots=True)
class Converted:
    """What was done: `compared` rows or tensors of `what`, whose answers differ by at most `difference`.

    `left_out` are the parts of the file that the new one does not hold.
    """

    target: Path
    what: str
    compared: int
    difference: float
    left_out: tuple[str, ...] = ()


def convert_file(
    source: str | Path, target: str | Path, *, data: str | Path | None = None, trust: bool = False
) -> Converted:
    """Write `source` as `target`, by the suffix of that: .skops, .onnx, .safetensors or .npz; whole or not at all.

    Estimators are loaded as everywhere: a clean pickle, or any with `trust`. Both then answer the rows in `data`
    (.npy, .npz with `x`, .csv, .parquet) or random ones, and nothing is written where they differ: for skops at all,
    for ONNX, which is asked in float32, in a label that is no tie, or by more than 1e-4. Tensors are compared bit by
    bit.
    Raises `ModelError` for a file that is refused, cannot be converted, or would answer differently.
    """
    old, new = Path(source), Path(target)
    suffix = new.suffix.lower()
    if suffix not in TARGETS:
        raise ModelError(f"expected a target of {', '.join(TARGETS)}, got {new.name or new}: rename it")
    if new.exists() and old.exists() and new.samefile(old):
        raise ModelError(f"expected another file as target, got {new.name} itself: name a new one")
    if suffix in (".safetensors", ".npz"):
        return _tensors(old, new)
    if old.suffix.lower() not in (*PICKLES, ".skops"):
        raise ModelError(
            f"expected an estimator to convert to {suffix}, got {old.name or old}: convert it to .safetensors"
        )
    estimator = load_estimator(old, trust=trust)
    x = _rows(estimator, data)
    return _to_skops(estimator, x, new) if suffix == ".skops" else _to_onnx(estimator, x, new)


def _tensors(old: Path, new: Path) -> Converted:
    held = hold(old)
    tensors, left = tensors_in(held)
    if new.suffix.lower() == ".npz":
        written = as_npz(tensors)
        with np.load(io.BytesIO(written), allow_pickle=False) as archive:
            found = {name: (archive[name].shape, archive[name].tobytes()) for name in archive.files}
    else:
        written = as_safetensors(tensors)
        read = need("safetensors", f"compare {new.name}").deserialize(written)
        found = {name: (tuple(item["shape"]), bytes(item["data"])) for name, item in read}
    if found != {name: (tensor.shape, tensor.data) for name, tensor in tensors.items()}:
        raise ModelError(f"expected {new.name} to hold the same numbers, got others: report this as a fault")
    if held.clean and old.suffix.lower() in (".pt", ".pth", ".bin"):
        _hold_to_torch(held.data, tensors)
    atomic.write(new, written)
    return Converted(new, "tensors", len(tensors), 0.0, left)


def _hold_to_torch(data: bytes, tensors: Mapping[str, Tensor]) -> None:
    """Torch's own reading of a plain state_dict, where torch is installed, has the same bytes."""
    try:
        torch = importlib.import_module("torch")
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # torch is not there, or does not read it: there is nothing to compare
        return
    if not isinstance(state, dict) or state.keys() != tensors.keys():
        return
    for name, tensor in tensors.items():
        own = state[name].detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        if own != tensor.data or tuple(state[name].shape) != tensor.shape:
            raise ModelError(f"expected {name} as torch reads it, got other numbers: report this as a fault")


def _to_skops(estimator: Any, x: Any, new: Path) -> Converted:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="casemate-") as folder:
        trial = Path(folder) / "model.skops"
        save_skops(trial, estimator)
        again = load_skops(trial)
        difference = max(
            _difference(name, _asked(estimator, name, x), _asked(again, name, x)) for name in _offered(estimator)
        )
        if difference > 0:
            raise ModelError(
                f"expected the same answers from {new.name}, got a difference of {difference:.3g}: not written"
            )
        atomic.write(new, trial.read_bytes())
    return Converted(new, "rows", len(x), difference)


def _to_onnx(estimator: Any, x: Any, new: Path) -> Converted:
    plain = np.asarray(x if isinstance(x, np.ndarray) else _numbers(x))
    if plain.dtype.kind not in "fiub":
        raise ModelError("expected rows of numbers, got others: convert it to .skops")
    with np.errstate(over="ignore"):  # an infinite number is one that the answers show
        given = plain.astype(np.float32)
    try:
        library = importlib.import_module("skl2onnx")
    except ModuleNotFoundError as error:
        raise Unavailable("expected skl2onnx to write ONNX, got no such package: pip install skl2onnx") from error
    runtime = need("onnxruntime", f"compare {new.name}")
    labels = _asked(estimator, "predict", x)
    scores = _asked(estimator, "predict_proba", x) if hasattr(estimator, "predict_proba") else None
    quiet = runtime.SessionOptions()
    quiet.log_severity_level = 4  # what matters is raised
    try:
        options = None if scores is None else {id(estimator): {"zipmap": False}}
        written = library.to_onnx(estimator, given[:1], options=options).SerializeToString()
        session = runtime.InferenceSession(written, quiet, providers=["CPUExecutionProvider"])
        answers = session.run(None, {session.get_inputs()[0].name: given})
    except Exception as error:  # skl2onnx and onnxruntime raise what they like
        told = (str(error).splitlines() or ["no message"])[0][:200]
        raise ModelError(
            f"expected an estimator that ONNX can express, got {type(error).__name__} ({told}): convert it to .skops"
        ) from error
    difference = _difference_of_answers(labels, scores, [np.asarray(answer) for answer in answers])
    if difference > _CLOSE:
        raise ModelError(
            f"expected the same answers from {new.name}, got a difference of {difference:.3g}: not written; convert it "
            "to .skops"
        )
    atomic.write(new, written)
    return Converted(new, "rows", len(x), difference)


def _offered(estimator: Any) -> list[str]:
    return [name for name in _ANSWERS if hasattr(estimator, name)]


def _difference_of_answers(labels: Any, scores: Any, answers: list[Array]) -> float:
    """Of labels, and of scores where there are any; where two classes score the same, rounding chooses a label."""
    if scores is None or len(answers) < 2:
        return _difference("labels", labels, answers[0])
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=-1)
    clear = np.full(len(labels), True)
    if ordered.ndim == 2 and ordered.shape[1] > 1 and len(ordered) == len(labels) == len(answers[0]):
        clear = ~(ordered[:, -1] - ordered[:, -2] <= _CLOSE)
    return max(_difference("labels", labels[clear], answers[0][clear]), _difference("scores", scores, answers[1]))


def _asked(estimator: Any, name: str, x: Any) -> Any:
    try:
        return getattr(estimator, name)(x)
    except Exception as error:  # of rows that are not what it was fitted on it says what it likes
        told = (str(error).splitlines() or ["no message"])[0][:120]
        raise ModelError(
            f"expected an estimator that answers these rows, got {type(error).__name__} ({told}): give rows like those "
            "it was fitted on with --data"
        ) from error


def _difference(what: str, own: Any, other: Any) -> float:
    """The largest difference of numbers, relative where they exceed 1; 1 where any label differs."""
    a, b = np.asarray(own), np.asarray(other)
    if a.shape != b.shape and a.size == b.size and len(a) == len(b):  # (n,) and (n, 1)
        b = b.reshape(a.shape)
    if a.shape != b.shape:
        raise ModelError(f"expected {what} of shape {a.shape}, got {b.shape}: not written; convert it to .skops")
    if a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub" or a.dtype.kind in "iub":
        return float((a != b).any())
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b) / np.maximum(1, np.abs(a)))
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))


# ----------------------------------------------------------------------------------------------------------------- rows


def _rows(estimator: Any, data: str | Path | None) -> Any:
    """What both are asked: rows of a file, or random ones of the right width."""
    if data is not None:
        rows = _read(Path(data))
        if np.ndim(rows) < 1 or not len(rows):
            raise ModelError(f"expected rows in {Path(data).name}, got none: give at least one")
        return _as_fitted(estimator, rows)
    width = getattr(estimator, "n_features_in_", None)
    if not isinstance(width, int | np.integer) or not 0 < width <= _WIDEST:
        raise ModelError("expected an estimator that says its number of features, got another: give rows with --data")
    rng = np.random.default_rng(0)
    return _as_fitted(estimator, rng.normal(size=(_ROWS, int(width))) * rng.choice([0.1, 1, 10, 100], size=(_ROWS, 1)))


def _read(path: Path) -> Any:
    readers: dict[str, Callable[[Path], Any]] = {
        ".npy": lambda file: np.load(file, allow_pickle=False),
        ".npz": _read_npz,
        ".csv": lambda file: importlib.import_module("pandas").read_csv(file),
        ".parquet": lambda file: importlib.import_module("pandas").read_parquet(file),
    }
    read = readers.get(path.suffix.lower())
    if read is None:
        raise ModelError(f"expected rows in {', '.join(readers)}, got {path.name}: write them as one of these")
    try:
        return read(path)
    except Exception as error:  # bytes from outside: zip, numpy, pandas and arrow each have their own
        told = (str(error).splitlines() or ["no message"])[0][:200]
        raise ModelError(f"expected rows in {path.name}, got {type(error).__name__} ({told}): mend it") from error


def _read_npz(path: Path) -> Any:
    check_archive(path, ModelError)
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return archive["x"]


def _as_fitted(estimator: Any, x: Any) -> Any:
    """Rows in the form that the estimator was fitted on: a frame of its columns, or their numbers."""
    names = getattr(estimator, "feature_names_in_", None)
    framed = hasattr(x, "columns")
    if names is not None and framed:
        lacking = [str(name) for name in names if name not in x.columns]
        if lacking:
            raise ModelError(f"expected the column {lacking[0]!r} in the rows, got none: give what it was fitted on")
        return x[list(names)]
    if names is not None and np.ndim(x) == 2:
        return importlib.import_module("pandas").DataFrame(x, columns=list(names))
    return (
        _numbers(x).iloc[:, : estimator.n_features_in_].to_numpy()
        if framed and hasattr(estimator, "n_features_in_")
        else x
    )


def _numbers(frame: Any) -> Any:
    """The frame, if all of its columns are numbers."""
    if any(kind.kind not in "fiub" for kind in frame.dtypes if hasattr(kind, "kind")) or not all(
        hasattr(kind, "kind") for kind in frame.dtypes
    ):
        raise ModelError("expected rows of numbers, got other columns: convert it to .skops")
    return frame
