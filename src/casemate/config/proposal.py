"""A first casemate.toml: what lies in a folder, and a guess at what its columns mean."""

from __future__ import annotations

import ast
import contextlib
import csv
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from casemate.adapters.loading import PICKLES, WEIGHTS
from casemate.errors import ConfigError, DataError

__all__ = ["propose"]

_MODELS = (".skops", ".onnx", ".ubj", ".pt2", ".safetensors", ".pt", ".pth", ".joblib", ".pkl", ".pickle")
_DATA = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".npz", ".npy")
_LABELS = frozenset({"y", "label", "labels", "target", "targets"})
_HEAD = 100  # rows that are looked at for a column of texts
_WORDS = 3  # of a text, at least, on average
_SPLITS = {
    "test": ("test", "holdout"),
    "train": ("train",),
    "tune": ("tune", "valid", "val", "dev"),
    "reference": ("reference", "ref"),
}
_TARGETS = ("label", "target", "y", "class", "income", "labels", "outcome")
_SENSITIVE = frozenset({"sex", "gender", "age", "race", "ethnicity"})


def propose(
    folder: str | Path, *, model: Path | None = None, data: Path | None = None, target: str | None = None
) -> str:
    """The text of a commented casemate.toml for the model and the data in `folder`, or those that are given.

    Nothing is loaded: a table's first rows, an array's shape and the list of types in a skops file are all that is
    read. Every guess is marked. Raises `ConfigError` where there is neither a model nor data.
    """
    root = Path(folder)
    files = sorted(path for path in root.iterdir() if path.is_file() or _of_pictures(path)) if root.is_dir() else []
    found_model = model or _first(files, _MODELS) or _told_by_content(root)
    splits = {"test": data} if data else {}
    labels = [path for path in files if path.suffix == ".npy" and _LABELS & set(_words(path))]
    for name, path in _splits([p for p in files if (p.suffix in _DATA or p.is_dir()) and p not in labels]).items():
        splits.setdefault(name, path)
    if found_model is None and not splits:
        kinds = ", ".join((*_MODELS, *_DATA))
        raise ConfigError(
            f"expected a model or data ({kinds}) in {root}, got neither: name them with --model and --data"
        )
    sources = [path for path in files if path.suffix == ".py"]
    sections = [
        "# What Casemate audits, and what fails. Lines marked `guess` are for you to look at.",
        _model_section(found_model, root, sources),
        _data_section(splits, root, target, labels=labels, model=found_model),
        _train_section(found_model, sources),
        _REST,
    ]
    return "\n\n".join(sections) + "\n"


@dataclass(frozen=True)
class _Shape:
    """What a data file says of itself: names of columns or arrays, first values, the shape and type of an array x."""

    names: tuple[str, ...] = ()
    x: tuple[int, ...] = ()
    dtype: str = ""
    head: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def _model_section(model: Path | None, root: Path, sources: list[Path]) -> str:
    if model is None:
        return '[model]\n# path = "model.skops"          # no model was found here: name it'
    lines = ["[model]", f"path = {_text(_relative(model, root))}"]
    if model.suffix in WEIGHTS:
        factory = _defined(sources, ("build", "make_model", "create_model", "build_model"), 0)
        lines.append(f"factory = {_text(factory or 'pkg.module:build')}  # guess: the function that builds the module")
    elif model.suffix in PICKLES:
        lines.append("# A pickle is scanned first; if it is refused: `casemate convert`, or audit with --isolate.")
    lines.append('# classes = ["no", "yes"]       # names of the class indices, where the model does not say')
    return "\n".join(lines)


def _data_section(
    splits: dict[str, Path], root: Path, target: str | None, *, labels: Sequence[Path], model: Path | None
) -> str:
    if not splits:
        return '[data]\n# test = "test.parquet"         # no data was found here: name held-out rows'
    lines = ["[data]"]
    for name, path in splits.items():
        lines.append(f"{name} = {_text(_relative(path, root))}")
        beside = next((item for item in labels if _core(item) == _core(path)), None)
        if path.suffix == ".npy" and beside is not None:
            lines.append(f"{name}_labels = {_text(_relative(beside, root))}  # guess: the labels of {name}")
    first = splits.get("test") or next(iter(splits.values()))
    shape = _shape_of(first)
    if first.suffix in (".npz", ".npy"):
        return "\n".join([*lines, *_array_lines(shape, target)])
    if first.is_dir():
        return "\n".join([*lines, "# bounds = [0, 1]              # what the pixels are scaled to"])
    return "\n".join([*lines, *_column_lines(shape, target, _reads_texts(model))])


def _column_lines(shape: _Shape, target: str | None, reads_texts: bool | None) -> list[str]:
    texts = None if reads_texts is False else _texts(shape.head, target, sure=bool(reads_texts))
    lines = [f"text = {_text(texts)}  # guess: the column of texts; no other is a feature"] if texts else []
    guessed = target or _target([name for name in shape.names if name != texts])
    if guessed:
        lines.append(f"target = {_text(guessed)}" + ("" if target else "  # guess: the column to predict"))
    sensitive = [name for name in shape.names if name.lower() in _SENSITIVE and name != guessed]
    lines.append(
        f"sensitive = {_list(sensitive)}  # guess: whose treatment is compared"
        if sensitive
        else '# sensitive = ["sex"]           # whose treatment is compared'
    )
    return lines if texts else [*lines, '# exclude = ["id"]              # columns that the model was not given']


def _texts(head: Mapping[str, Sequence[Any]], target: str | None, *, sure: bool) -> str | None:
    """The column of the most words that are different in most rows; if `sure` that there is one, of any words."""
    found: dict[str, float] = {}
    for name, values in head.items():
        given = [value for value in values if value not in (None, "")]
        if name != target and given and all(isinstance(value, str) for value in given):
            words = sum(len(value.split()) for value in given) / len(given)
            if len(set(given)) > len(given) / 2 and (sure or words >= _WORDS):
                found[name] = words
    return max(found, key=lambda name: found[name], default=None)


def _reads_texts(model: Path | None) -> bool | None:
    """Whether a skops file holds a vectorizer of texts, as a folder is a text classifier; None for who does not say."""
    if model is None or model.suffix in PICKLES:
        return None
    if model.is_dir():
        return True
    if model.suffix != ".skops":
        return False
    try:
        with zipfile.ZipFile(model) as archive, archive.open("schema.json") as stream:
            return b"sklearn.feature_extraction.text" in stream.read(1 << 26)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _array_lines(shape: _Shape, target: str | None) -> list[str]:
    lines = [f"target = {_text(target)}"] if target else []
    if len(shape.x) in (3, 4):
        lines.append('kind = "image"')
        whole = shape.dtype.lstrip("|<>=").startswith(("u", "i"))
        lines.append("bounds = [0, 255]  # guess" if whole else "# bounds = [0, 1]              # of a pixel")
    return lines


def _train_section(model: Path | None, sources: list[Path]) -> str:
    recipe = _defined(sources, ("fit", "recipe", "train"), 3)
    why = "# How to train such a model again: for privacy, poisoning and hardening."
    if recipe:
        return f"[train]\n{why}\nrecipe = {_text(recipe)}  # guess: fit(data, init, rng) -> model"
    if model is not None and model.suffix not in WEIGHTS:
        return f'[train]\n{why} A scikit-learn model needs none.\n# recipe = "pkg.module:fit"'
    return f'[train]\n{why}\n# recipe = "pkg.module:fit"      # fit(data, init, rng) -> model'


_REST = """[audit]
profile = "standard"             # quick (about a minute), standard, full
# budget = "15m"                 # or { propagations = 2_000_000 } for identical reports
seed = 0

# [probe."evasion/standard"]     # options of a plug-in; `casemate list` shows them
# eps = [0.05, 0.1, 0.2]

# [schema."age"]                 # what is known of a column, where the guess from the data is wrong
# integer = true
# lo = 17

[policy]
fail_on = "high"                 # none, low, medium, high, critical

# [[policy.gate]]
# metric = "evasion.robust_accuracy"
# at = { norm = "linf", eps = 0.1 }
# min = 0.5"""


def _first(files: Sequence[Path], suffixes: Sequence[str]) -> Path | None:
    return next((path for suffix in suffixes for path in files if path.suffix == suffix), None)


def _told_by_content(root: Path) -> Path | None:
    """A booster in JSON or text, or the folder of a text classifier: what their names alone do not tell."""
    heads = {".json": b'{"learner"', ".txt": b"tree\n"}
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if (path / "config.json").is_file() and not path.name.startswith("."):
            return path
        if path.is_file() and (head := heads.get(path.suffix)) is not None:
            with contextlib.suppress(OSError), path.open("rb") as stream:
                if stream.read(64).replace(b" ", b"").startswith(head):
                    return path
    return None


def _splits(files: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, words in _SPLITS.items():
        for path in files:
            if name not in found and any(part.startswith(word) for part in _words(path) for word in words):
                found[name] = path
    left = [path for path in files if path not in found.values()]
    if "test" not in found and left:
        found["test"] = left[0]
    return found


def _words(path: Path) -> list[str]:
    return path.stem.lower().replace("-", "_").split("_")


def _core(path: Path) -> frozenset[str]:
    """What a file of samples and the file of its labels have in common: `x_test` and `y_test`, `x` and `y`."""
    return frozenset(_words(path)) - _LABELS - {"x", "data", "images", "features"}


def _of_pictures(path: Path) -> bool:
    from casemate.adapters.image_folder import PICTURES, class_folders

    if not path.is_dir() or path.name.startswith("."):
        return False
    inside = (item for folder in class_folders(path) for item in islice(folder.iterdir(), _HEAD))
    return any(item.suffix.lower() in PICTURES for item in inside)


def _shape_of(path: Path) -> _Shape:
    """The header and the first rows; a file that cannot be read says nothing here and everything in the audit."""
    try:
        if path.suffix == ".npz":
            return _npz_shape(path)
        if path.suffix == ".npy":
            with path.open("rb") as stream:
                return _npy_shape(stream, ())
        if path.is_dir():
            return _Shape()
        head = _head(path)
        return _Shape(tuple(head), head=head)
    except (OSError, ValueError, DataError, csv.Error, zipfile.BadZipFile):
        return _Shape()


def _head(path: Path) -> dict[str, list[Any]]:
    if path.suffix == ".parquet":
        from pyarrow import parquet

        with parquet.ParquetFile(path) as file:
            first = next(file.iter_batches(batch_size=_HEAD), None)
            return {name: [] for name in file.schema_arrow.names} if first is None else first.to_pydict()
    from casemate.adapters.tables import csv_dialect, json_record

    if path.suffix in (".jsonl", ".ndjson"):
        with path.open("rb") as stream:
            rows = [
                json_record(line, at, path.name) for at, line in enumerate(islice(stream, _HEAD), 1) if line.strip()
            ]
        return {name: [row.get(name) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)}
    names, delimiter = csv_dialect(path)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        found = list(islice(csv.reader(lines, delimiter=delimiter), 1, _HEAD + 1))
    return {name: [row[at] for row in found if at < len(row)] for at, name in enumerate(names)}


def _npz_shape(path: Path) -> _Shape:
    with zipfile.ZipFile(path) as archive:
        names = [Path(name).stem for name in archive.namelist()]
        chosen = next((name for name in ("x", "X", "images", "data", "features") if name in names), None)
        if chosen is None:
            return _Shape(tuple(names))
        with archive.open(f"{chosen}.npy") as stream:
            return _npy_shape(stream, tuple(names))


def _npy_shape(stream: Any, names: tuple[str, ...]) -> _Shape:
    import numpy as np

    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return _Shape(names, tuple(shape), dtype.str)


def _target(names: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in _TARGETS if name in lower), names[-1] if names else None)


def _defined(sources: list[Path], names: Sequence[str], arguments: int) -> str | None:
    """`module:name` of the first function of one of these names that takes as many arguments; nothing is imported."""
    for path in sources:
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in names:
                given = len(node.args.posonlyargs) + len(node.args.args)
                if given - len(node.args.defaults) <= arguments <= given:
                    return f"{path.stem}:{node.name}"
    return None


def _relative(path: Path, root: Path) -> str:
    whole = path.resolve()
    return whole.relative_to(root.resolve()).as_posix() if whole.is_relative_to(root.resolve()) else whole.as_posix()


def _text(value: str) -> str:
    """A basic string of TOML, which JSON's escapes are a part of."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(_text(value) for value in values) + "]"
