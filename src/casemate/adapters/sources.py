"""Where data lies: tables, arrays, folders of images and what is in memory, read but not yet described by a schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.archives import check_archive, memory
from casemate.adapters.image_folder import read_image_folder
from casemate.adapters.tables import (
    TABLES,
    Column,
    columns_of_arrow,
    columns_of_frame,
    columns_of_matrix,
    give_back,
    read_arrow,
    texts_of_arrow,
)
from casemate.core.data import texts
from casemate.core.facets import DataKind
from casemate.core.model import Task
from casemate.core.names import nearest
from casemate.core.schema import Relation
from casemate.errors import DataError

__all__ = ["Raw", "Reading", "raw_of", "read_raw"]

Array = NDArray[Any]
_X = ("x", "X", "images", "data", "features")
_Y = ("y", "Y", "target", "labels", "label")


@dataclass(frozen=True)
class Reading:
    """How files are read: which columns mean what, and what is declared of them.

    `text` is the column that holds texts, beside which no column is a feature. `sensitive` columns become groups, and
    stay features unless `drop_sensitive`; `exclude` drops columns; `overrides` are settings of features by column (see
    `schema.infer_table`), `pixel` for images. `classes` are the names of the indices; `source` is the column that says
    where a row came from. `one_hot` looks for one-hot blocks; `relations` hold in every row. `labels` are `.npy` files
    with the labels of a split whose samples are in another one.
    """

    target: str | None = None
    sensitive: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    kind: DataKind | None = None
    bounds: tuple[float, float] | None = None
    task: Task = Task.CLASSIFICATION
    drop_sensitive: bool = False
    source: str | None = None
    one_hot: bool = False
    relations: tuple[Relation, ...] = ()
    text: str | None = None
    labels: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """One split before there is a schema: the columns of a table, images or texts, and what is beside the features."""

    where: str
    table: Mapping[str, Column] = field(default_factory=dict)
    images: Array | None = None
    texts: Array | None = None
    y: Array | None = None
    groups: Mapping[str, Array] = field(default_factory=dict)
    source: Array | None = None
    sample_id: Array | None = None

    @property
    def kind(self) -> DataKind:
        """What one sample is."""
        return (
            DataKind.TEXT if self.texts is not None else DataKind.IMAGE if self.images is not None else DataKind.TABLE
        )


def read_raw(path: Path, reading: Reading, labels: Path | None = None) -> Raw:
    """A table, an archive or file of arrays, or a folder of images; `labels` are those of a `.npy` file.

    Raises `DataError` for what cannot be read, and for settings that this kind of file cannot have.
    """
    if labels is not None and path.suffix != ".npy":
        raise DataError(
            f"expected labels of their own for a .npy file only, got them for {path.name}: name [data] target"
        )
    if path.is_dir() and path.suffix not in (*TABLES, ".npz", ".npy"):
        return _read_folder(path, _without_columns(reading, path, ("target", "text", "sensitive", "source", "exclude")))
    if path.suffix == ".npz":
        return _read_npz(path, _without_columns(reading, path, ("text",)))
    if path.suffix == ".npy":
        beside = _without_columns(reading, path, ("target", "text", "sensitive", "source"))
        raw = _of_array(_read_npy(path), path.name, beside, None)
        y = None if labels is None else _read_npy(labels)
        return replace(raw, y=y[:, 0] if y is not None and y.ndim == 2 and y.shape[1] == 1 else y)
    return _read_table(path, reading)


def raw_of(
    pair: tuple[Any, Any],
    where: str,
    reading: Reading,
    *,
    names: Sequence[str] | None = None,
    groups: Mapping[str, Any] | None = None,
) -> Raw:
    """A pair `(x, y)` in memory: a data frame, a matrix, images, or texts as a list, an array or a column.

    Raises `DataError` for anything else.
    """
    x, y = pair
    if hasattr(x, "columns") and hasattr(x, "set_axis"):
        raw = Raw(where, table=columns_of_frame(x))
    else:
        found = _texts_in(x, where)
        raw = _of_array(_array(x, where) if found is None else found, where, reading, names)
    marked = {name: _array(values, f"group {name}") for name, values in (groups or {}).items()}
    return replace(raw, y=None if y is None else _array(y, "y"), groups=marked)


def _without_columns(reading: Reading, path: Path, settings: Sequence[str]) -> Reading:
    for name in settings:
        value = getattr(reading, name)
        if value:
            raise DataError(
                f"expected a table beside [data] {name}, got {path.name}, which has no column "
                f"{value if isinstance(value, str) else value[0]!r}: leave {name} out, or give a table"
            )
    return reading


def _read_folder(path: Path, reading: Reading) -> Raw:
    if reading.kind not in (None, DataKind.IMAGE):
        raise DataError(f"expected a file of {reading.kind} data, got the folder {path.name}: name the file")
    x, names = read_image_folder(path, reading.bounds or (0.0, 1.0))
    return Raw(path.name, images=x, y=names)


def _read_table(path: Path, reading: Reading) -> Raw:
    table = read_arrow(path, reading.text)
    special = [reading.text, reading.target, reading.source, *reading.sensitive, *reading.exclude]
    for name in special:
        if name is not None and name not in table.column_names:
            raise DataError(f"expected a column {name!r} in {path.name}, got none: {nearest(name, table.column_names)}")
    found = None
    if reading.text is not None:
        found = _text_column(table, path, reading)
        table = table.select(list(dict.fromkeys(name for name in special[1:] if name not in (None, reading.text))))
    elif reading.kind is DataKind.TEXT:
        raise DataError(f"expected [data] text beside kind = 'text', got none: name the column of {path.name} to read")
    kept = {reading.target, reading.source, *reading.sensitive}
    columns = columns_of_arrow(table.drop_columns(sorted({*reading.exclude} - kept)), path.name)
    del table
    give_back()
    return Raw(
        path.name,
        table={} if found is not None else _features(columns, reading, path.name),
        texts=found,
        y=None if reading.target is None else _target(columns[reading.target], reading.target, path.name),
        groups={name: columns[name].natural() for name in reading.sensitive},
        source=None if reading.source is None else columns[reading.source].natural(),
    )


def _text_column(table: Any, path: Path, reading: Reading) -> Array:
    if reading.kind not in (None, DataKind.TEXT):
        raise DataError(f"expected kind = 'text' beside [data] text, got {str(reading.kind)!r}: leave one of them out")
    assert reading.text is not None
    if reading.text in (reading.target, *reading.sensitive):
        raise DataError(f"expected a column of texts beside the target, got {reading.text!r} as both: name another")
    return texts_of_arrow(table, reading.text, path.name)


def _features(columns: Mapping[str, Column], reading: Reading, where: str) -> dict[str, Column]:
    gone = {reading.target, reading.source, *reading.exclude} | (
        set(reading.sensitive) if reading.drop_sensitive else set()
    )
    features = {name: column for name, column in columns.items() if name not in gone}
    if not features:
        raise DataError(f"expected features in {where}, got none beside the target: exclude fewer columns")
    return features


def _target(column: Column, name: str, where: str) -> Array:
    if column.missing:
        raise DataError(
            f"expected a label in every row of {where}, got none in {column.missing} rows of {name!r}: drop these rows"
        )
    return column.natural()


def _read_npz(path: Path, reading: Reading) -> Raw:
    _existing(path)
    check_archive(path, DataError)
    try:
        # numpy leaves a file open that it was asked to open and cannot read
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: found for name in archive.files if isinstance(found := archive[name], np.ndarray)}
        for array in arrays.values():
            _check_size(array)
    except Exception as error:  # bytes from outside: zip and numpy each have their own errors
        raise _unreadable(path, error, "np.savez") from error
    x = _pick(arrays, _X, path.name)
    target = reading.target or next((name for name in _Y if name in arrays), None)
    for name in (*reading.sensitive, reading.source, target):
        if name is not None and name not in arrays:
            raise DataError(f"expected an array {name!r} in {path.name}, got none: {nearest(name, list(arrays))}")
    names = _line(arrays, "feature_names", path.name)
    raw = _of_array(x, path.name, reading, None if names is None else [str(name) for name in names])
    return replace(
        raw,
        y=None if target is None else arrays[target].reshape(-1),
        groups={name: _named(arrays, name, path.name) for name in reading.sensitive},
        source=None if reading.source is None else _named(arrays, reading.source, path.name),
        sample_id=_line(arrays, "sample_id", path.name, kinds="iu"),
    )


def _line(arrays: Mapping[str, Array], name: str, where: str, *, kinds: str = "biufU") -> Array | None:
    """An array that stands beside the samples, one value for each; None where there is none."""
    if name not in arrays:
        return None
    found = arrays[name]
    if found.ndim != 1 or found.dtype.kind not in kinds:
        told = "whole numbers" if kinds == "iu" else "numbers or text"
        raise DataError(f"expected {name} (n,) as {told} in {where}, got {found.dtype} {found.shape}: save it so")
    return found


def _named(arrays: Mapping[str, Array], name: str, where: str) -> Array:
    found = _line(arrays, name, where)
    assert found is not None
    return found


def _check_size(array: Array) -> None:
    """A header may claim any number of samples that take no bytes; what is made of them does."""
    if 8 * max(array.size, *array.shape[:1], 1) > memory():
        raise ValueError(f"shape {array.shape}, which does not fit into memory")


def _read_npy(path: Path) -> Array:
    _existing(path)
    try:
        # Mapped first: what a header claims beyond the file's own bytes is refused before memory is taken.
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):
            found.close()
            raise ValueError("an archive of several arrays, which is called .npz")
        _check_size(found)
        return np.array(found)
    except Exception as error:  # bytes from outside
        raise _unreadable(path, error, "np.save") from error


def _existing(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"expected a data file, got nothing at {path}: check the path under [data]")


def _unreadable(path: Path, error: Exception, saver: str) -> DataError:
    pickled = any(word in str(error) for word in ("allow_pickle", "pickled", "Python objects"))
    text = "an array of objects, which only a pickle holds" if pickled else str(error)
    return DataError(f"expected arrays in {path.name}, got {text}: save numbers or text with {saver}")


def _pick(arrays: Mapping[str, Array], names: Sequence[str], where: str) -> Array:
    found = next((name for name in names if name in arrays), None)
    if found is None:
        raise DataError(f"expected an array x in {where}, got {', '.join(arrays) or 'none'}: save it as x (and y)")
    return arrays[found]


def _array(values: Any, name: str) -> Array:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"expected {name} as an array, got rows of different lengths: pad or drop them") from error
    if array.dtype == object and array.ndim == 1 and all(isinstance(value, str) for value in array):
        return array.astype(str)
    return array


def _texts_in(x: Any, where: str) -> Array | None:
    """Texts `(n,)` of a sequence that holds any; never by way of numpy, which makes each as wide as the widest."""
    if isinstance(x, np.ndarray) and (x.ndim != 1 or x.dtype.kind not in "UTO"):
        return None
    if not isinstance(x, list | tuple | np.ndarray) and not hasattr(x, "to_list"):
        return None
    values = x.to_list() if hasattr(x, "to_list") else list(x)
    if not any(isinstance(value, str) for value in values):
        return None
    odd = [row for row, value in enumerate(values) if not isinstance(value, str)]
    if odd:
        raise DataError(
            f"expected a text in every row of {where}, got {type(values[odd[0]]).__name__} in {len(odd)} rows "
            f"(row {odd[0]} first): drop these rows"
        )
    return texts(values)


def _of_array(x: Array, where: str, reading: Reading, names: Sequence[str] | None) -> Raw:
    if x.ndim > 0 and len(x) == 0:
        raise DataError(f"expected at least one sample in {where}, got none: the data set is empty")
    if x.size == 0:
        raise DataError(f"expected features in {where}, got samples of shape {x.shape[1:]}: save what they hold")
    guess = {1: DataKind.TEXT, 2: DataKind.TABLE}.get(x.ndim, DataKind.IMAGE)
    kind = reading.kind or guess
    if kind is DataKind.TABLE and x.ndim == 2:
        unused = [name for name in reading.exclude if name not in (names or ())]
        if unused:
            raise DataError(f"expected a column {unused[0]!r} in {where}: {nearest(unused[0], names or ['no names'])}")
        table = columns_of_matrix(x, names)
        return Raw(where, table={name: column for name, column in table.items() if name not in reading.exclude})
    if kind is DataKind.IMAGE and x.ndim in (3, 4) and x.dtype.kind in "biuf":
        images = x[:, None] if x.ndim == 3 else x
        with np.errstate(over="ignore"):  # an infinite pixel is refused with its row
            return Raw(where, images=np.ascontiguousarray(images, dtype=np.float32))
    if kind is DataKind.TEXT and x.ndim == 1 and x.dtype.kind in "UT":
        return Raw(where, texts=texts(x))
    told = f"{kind} of {x.dtype}" if reading.kind else str(x.dtype)
    raise DataError(
        f"expected a table (n, d) or images (n, h, w) or (n, c, h, w) of numbers, or texts (n,), in {where}, "
        f"got {told} {x.shape}: reshape x, or declare its kind"
    )
