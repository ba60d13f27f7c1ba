"""Data sets from files and arrays: labels as indices, sensitive attributes as groups, one schema for all splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.archives import check_archive
from casemate.adapters.labels import check_labels, class_name, encode, sorted_classes
from casemate.adapters.schema import check_images, infer_image, infer_table, matrix_of, with_blocks
from casemate.adapters.tables import Column, columns_of_frame, columns_of_matrix, give_back, read_columns
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.model import Task
from casemate.core.names import nearest
from casemate.core.rng import stream
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.errors import DataError

__all__ = [
    "Loaded",
    "Reading",
    "from_arrays",
    "read_splits",
    "read_table",
    "sample_rows",
    "split",
    "splits_from_arrays",
]

Array = NDArray[Any]
_X = ("x", "X", "images", "data", "features")
_Y = ("y", "Y", "target", "labels", "label")


@dataclass(frozen=True)
class Reading:
    """How files are read: which columns mean what, and what is declared of them.

    `sensitive` columns become groups, and stay features unless `drop_sensitive`; `exclude` drops columns; `overrides`
    are settings of features by column (see `schema.infer_table`), `pixel` for images. `classes` are the names of the
    indices; `source` is the column that says where a row came from. `one_hot` looks for one-hot blocks.
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


@dataclass(frozen=True)
class Loaded:
    """One data set and the names of its class indices (none for a regression or without labels)."""

    data: Data
    classes: tuple[str, ...] = ()

    @property
    def schema(self) -> Schema:
        """The schema of the data."""
        return self.data.schema


@dataclass(frozen=True)
class _Raw:
    """One file before there is a schema: the columns of a table or images, and what is beside the features."""

    where: str
    table: Mapping[str, Column] = field(default_factory=dict)
    images: Array | None = None
    y: Array | None = None
    groups: Mapping[str, Array] = field(default_factory=dict)
    source: Array | None = None
    sample_id: Array | None = None


def read_splits(paths: Mapping[str, str | Path], reading: Reading) -> tuple[Splits, tuple[str, ...]]:
    """The splits in CSV, Parquet or NPZ files by name (train, tune, test, reference), and the classes, with one schema.

    Scales come from `train`, or else from the first split; bounds and categories from all. NPZ files are read without
    pickles. Raises `DataError` that names file, column and rows for what does not fit.
    """
    order = [name for name in ("train", "tune", "test", "reference") if name in paths]
    if not order:
        raise DataError("expected a data file, got none: name one under [data], such as test = 'test.parquet'")
    raws = {name: _read(Path(paths[name]), reading) for name in order}
    parts, classes = _assembled(raws, reading, None)
    return Splits(**parts), classes


def read_table(path: str | Path, reading: Reading | None = None, *, schema: Schema | None = None, **how: Any) -> Loaded:
    """One file as data; `schema`, if given, is that of an earlier file and is held against this one.

    Keyword arguments are those of `Reading`. Raises as `read_splits`.
    """
    chosen = replace(reading or Reading(), **how)
    parts, classes = _assembled({"data": _read(Path(path), chosen)}, chosen, schema)
    return Loaded(parts["data"], classes)


def from_arrays(
    x: Any,
    y: Any = None,
    *,
    kind: DataKind | str | None = None,
    schema: Schema | None = None,
    classes: Sequence[str] | None = None,
    groups: Mapping[str, Any] | None = None,
    names: Sequence[str] | None = None,
    bounds: tuple[float, float] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    task: Task = Task.CLASSIFICATION,
) -> Loaded:
    """Arrays or a data frame as data: `(n, d)` is a table, `(n, h, w)` and `(n, c, h, w)` are images in float32.

    `y (n,)` are labels by name or class indices. Raises `DataError` for what fits neither, images in whole numbers
    without declared `bounds`, labels that are not among `classes`, and fractional labels for a classifier.
    """
    chosen = DataKind(kind) if kind is not None else None if schema is None else schema.kind
    reading = Reading(
        classes=tuple(classes) if classes else None, bounds=bounds, overrides=overrides or {}, task=task, kind=chosen
    )
    raw = _raw((x, y), "x", reading, names=names, groups=groups)
    parts, found = _assembled({"data": raw}, reading, schema)
    return Loaded(parts["data"], found)


def splits_from_arrays(
    pairs: Mapping[str, tuple[Any, Any]],
    reading: Reading | None = None,
    *,
    schema: Schema | None = None,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Splits, tuple[str, ...]]:
    """The splits that are in memory as pairs `(x, y)` by name, and the classes, with one schema; as `read_splits` else.

    `groups` are the sensitive attributes of each split. Rows are numbered on from split to split.
    """
    chosen = reading or Reading()
    order = [name for name in ("train", "tune", "test", "reference") if name in pairs]
    raws = {name: _raw(pairs[name], name, chosen, groups=(groups or {}).get(name)) for name in order}
    first = np.cumsum([0, *(0 if raw.y is None else len(raw.y) for raw in raws.values())])
    numbered = {
        name: raw if raw.y is None else replace(raw, sample_id=np.arange(len(raw.y)) + start)
        for (name, raw), start in zip(raws.items(), first[:-1], strict=True)
    }
    parts, classes = _assembled(numbered, chosen, schema)
    return Splits(**parts), classes


def _raw(
    pair: tuple[Any, Any],
    where: str,
    reading: Reading,
    *,
    names: Sequence[str] | None = None,
    groups: Mapping[str, Any] | None = None,
) -> _Raw:
    x, y = pair
    if hasattr(x, "columns") and hasattr(x, "set_axis"):
        raw = _Raw(where, table=columns_of_frame(x))
    else:
        raw = _of_array(_array(x, where), where, reading, names)
    marked = {name: _array(values, f"group {name}") for name, values in (groups or {}).items()}
    return replace(raw, y=None if y is None else _array(y, "y"), groups=marked)


def split(data: Data, *, fraction: float = 0.25, seed: int = 0) -> tuple[Data, Data]:
    """The data in two, `1 - fraction` and `fraction` of each class, the same for the same seed; order and ids are kept.

    Raises `DataError` where one of the two would be empty.
    """
    picked = _stratified(data, fraction, seed, "split")
    if not picked.any() or picked.all():
        raise DataError(f"expected two parts that are not empty, got {len(data)} rows at {fraction}: give more rows")
    return data.take(np.flatnonzero(~picked)), data.take(np.flatnonzero(picked))


def sample_rows(data: Data, n: int, *, seed: int = 0) -> Data:
    """At most about `n` rows, the same share of each class (at least one row), the same for the same seed."""
    if len(data) <= n:
        return data
    return data.take(np.flatnonzero(_stratified(data, n / len(data), seed, "sample")))


def _stratified(data: Data, fraction: float, seed: int, name: str) -> NDArray[np.bool_]:
    strata = np.zeros(len(data), dtype=np.int64) if data.y is None or data.y.dtype.kind == "f" else data.y
    rng = stream(seed, "adapters", name)
    picked = np.zeros(len(data), dtype=bool)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        count = max(1, round(fraction * len(rows))) if len(rows) > 1 else 0
        picked[rng.permutation(rows)[:count]] = True
    return picked


def _read(path: Path, reading: Reading) -> _Raw:
    return _read_npz(path, reading) if path.suffix == ".npz" else _read_file(path, reading)


def _read_file(path: Path, reading: Reading) -> _Raw:
    table = read_columns(path)
    special = [reading.target, reading.source, *reading.sensitive, *reading.exclude]
    for name in special:
        if name is not None and name not in table:
            raise DataError(f"expected a column {name!r} in {path.name}, got none: {nearest(name, list(table))}")
    gone = {reading.target, reading.source, *reading.exclude} | (
        set(reading.sensitive) if reading.drop_sensitive else set()
    )
    features = {name: column for name, column in table.items() if name not in gone}
    if not features:
        raise DataError(f"expected features in {path.name}, got none beside the target: exclude fewer columns")
    return _Raw(
        path.name,
        table=features,
        y=None if reading.target is None else _target(table[reading.target], reading.target, path.name),
        groups={name: table[name].natural() for name in reading.sensitive},
        source=None if reading.source is None else table[reading.source].natural(),
    )


def _target(column: Column, name: str, where: str) -> Array:
    if column.missing:
        raise DataError(
            f"expected a label in every row of {where}, got none in {column.missing} rows of {name!r}: drop these rows"
        )
    return column.natural()


def _read_npz(path: Path, reading: Reading) -> _Raw:
    if not path.is_file():
        raise DataError(f"expected a data file, got nothing at {path}: check the path under [data]")
    check_archive(path, DataError)
    try:
        # numpy leaves a file open that it was asked to open and cannot read
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: found for name in archive.files if isinstance(found := archive[name], np.ndarray)}
    except Exception as error:  # bytes from outside: zip and numpy each have their own errors
        text = "an array of objects, which only a pickle holds" if "allow_pickle" in str(error) else str(error)
        raise DataError(f"expected arrays in {path.name}, got {text}: save numbers or text with np.savez") from error
    x = _pick(arrays, _X, path.name)
    named = [reading.target] if reading.target in arrays else [name for name in _Y if name in arrays]
    for name in reading.sensitive:
        if name not in arrays:
            raise DataError(f"expected an array {name!r} in {path.name}, got none: {nearest(name, list(arrays))}")
    names = arrays.get("feature_names")
    raw = _of_array(x, path.name, reading, None if names is None else [str(name) for name in names])
    if reading.source is not None and reading.source not in arrays:
        raise DataError(f"expected an array {reading.source!r} in {path.name}: {nearest(reading.source, list(arrays))}")
    return replace(
        raw,
        y=arrays[named[0]].reshape(-1) if named and named[0] is not None else None,
        groups={name: arrays[name] for name in reading.sensitive},
        source=None if reading.source is None else arrays[reading.source],
        sample_id=arrays.get("sample_id"),
    )


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


def _of_array(x: Array, where: str, reading: Reading, names: Sequence[str] | None) -> _Raw:
    if x.ndim > 0 and len(x) == 0:
        raise DataError(f"expected at least one sample in {where}, got none: the data set is empty")
    kind = reading.kind or (DataKind.TABLE if x.ndim == 2 else DataKind.IMAGE)
    if kind is DataKind.TABLE and x.ndim == 2:
        unused = [name for name in reading.exclude if name not in (names or ())]
        if unused:
            raise DataError(f"expected a column {unused[0]!r} in {where}: {nearest(unused[0], names or ['no names'])}")
        table = columns_of_matrix(x, names)
        return _Raw(where, table={name: column for name, column in table.items() if name not in reading.exclude})
    if kind is DataKind.IMAGE and x.ndim in (3, 4) and x.dtype.kind in "biuf":
        images = x[:, None] if x.ndim == 3 else x
        return _Raw(where, images=np.ascontiguousarray(images, dtype=np.float32))
    raise DataError(
        f"expected a table (n, d) or images (n, h, w) or (n, c, h, w) of numbers in {where}, got {kind} of {x.dtype} "
        f"{x.shape}: reshape x, or declare its kind"
    )


def _assembled(
    raws: dict[str, _Raw], reading: Reading, schema: Schema | None
) -> tuple[dict[str, Data], tuple[str, ...]]:
    """The splits and their classes; takes the raws apart, for a matrix beside its columns is twice the memory."""
    chosen = schema or _schema(list(raws.values()), reading)
    if any((raw.images is None) != (chosen.kind is DataKind.TABLE) for raw in raws.values()):
        raise DataError(f"expected {chosen.kind} data in every split, got both tables and images: name matching files")
    xs = {}
    for name in list(raws):
        xs[name] = _x(raws[name], chosen)
        raws[name] = replace(raws[name], table={}, images=None)
        give_back()
    if reading.one_hot and schema is None and chosen.kind is DataKind.TABLE:
        chosen = with_blocks(chosen, np.concatenate(list(xs.values())))
    labelled = [raw for raw in raws.values() if raw.y is not None]
    classes = _classes(labelled, reading) if labelled else reading.classes or ()
    parts = {}
    for place, (name, raw) in enumerate(raws.items()):
        y = None if raw.y is None else _y(raw, len(xs[name]), classes, reading, first=place == 0)
        ids = {} if raw.sample_id is None else {"sample_id": raw.sample_id}
        parts[name] = Data(xs[name], chosen, y, groups=raw.groups, source=raw.source, **ids)
    return parts, classes


def _schema(raws: list[_Raw], reading: Reading) -> Schema:
    images = [raw.images for raw in raws if raw.images is not None]
    if images:
        return infer_image(images[0], bounds=reading.bounds, overrides=reading.overrides)
    names = set(raws[0].table)
    for raw in raws[1:]:
        other = sorted(names ^ set(raw.table))
        if other:
            raise DataError(
                f"expected the same columns in every split, {other[0]!r} is not in both {raws[0].where} and "
                f"{raw.where}: exclude it or add it"
            )
    inferred = infer_table([raw.table for raw in raws], reading.overrides)
    return inferred if reading.bounds is None else _bounded(inferred, reading)


def _bounded(schema: Schema, reading: Reading) -> Schema:
    """Declared bounds hold for every number of a table that has none of its own."""
    lo, hi = reading.bounds or (0.0, 0.0)

    def one(feature: Feature) -> Feature:
        if feature.kind is FeatureKind.CATEGORY or {"lo", "hi"} & set(reading.overrides.get(feature.name, {})):
            return feature
        return replace(feature, lo=lo, hi=hi)

    return replace(schema, features=tuple(one(feature) for feature in schema.features))


def _x(raw: _Raw, schema: Schema) -> Array:
    if raw.images is None:
        return matrix_of(raw.table, schema, raw.where)
    check_images(raw.images, schema, raw.where)
    return raw.images


def _classes(raws: list[_Raw], reading: Reading) -> tuple[str, ...]:
    if reading.task is Task.REGRESSION:
        return ()
    for raw in raws:
        check_labels(np.asarray(raw.y), raw.where)
    if reading.classes:
        return reading.classes
    unique = {class_name(value) for raw in raws for value in np.unique(raw.y)}  # type: ignore[arg-type]  # labelled
    if len(unique) < 2:
        raise DataError(f"expected at least two classes, got only {unique.pop()!r}: name the right target")
    return sorted_classes(unique)


def _y(raw: _Raw, n: int, classes: tuple[str, ...], reading: Reading, *, first: bool) -> Array:
    y = np.asarray(raw.y)
    if len(y) != n:
        raise DataError(f"expected one label for each sample in {raw.where}, got {len(y)}: align x and y")
    if reading.task is Task.REGRESSION:
        if y.dtype.kind not in "biuf" or not np.isfinite(y.astype(np.float64)).all():
            raise DataError(f"expected finite numbers as targets in {raw.where}, got {y.dtype}: name a numeric target")
        return y.astype(np.float64)
    labels = encode(y, classes, where=raw.where)
    if first and len(np.unique(labels)) < 2:
        raise DataError(
            f"expected at least two classes in {raw.where}, got only {classes[int(labels[0])]!r}: name the right "
            "target or give rows of every class"
        )
    return labels
