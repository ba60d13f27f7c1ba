"""Data sets from files and arrays: labels as indices, sensitive attributes as groups, one schema for all splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.labels import check_labels, class_name, encode, sorted_classes
from casemate.adapters.schema import check_images, infer_image, infer_table, matrix_of, with_blocks
from casemate.adapters.sources import Raw, Reading, raw_of, read_raw
from casemate.adapters.tables import give_back
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind
from casemate.core.model import Task
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


@dataclass(frozen=True)
class Loaded:
    """One data set and the names of its class indices (none for a regression or without labels)."""

    data: Data
    classes: tuple[str, ...] = ()

    @property
    def schema(self) -> Schema:
        """The schema of the data."""
        return self.data.schema


def read_splits(paths: Mapping[str, str | Path], reading: Reading) -> tuple[Splits, tuple[str, ...]]:
    """The splits in files by name (train, tune, test, reference), and the classes, with one schema.

    A file is a table (`tables.TABLES`), `.npz` or `.npy`; a folder holds images, in one folder for each class. Scales
    come from `train`, or else from the first split; bounds and categories from all. Arrays are read without pickles.
    Raises `DataError` that names file, column and rows for what does not fit.
    """
    order = [name for name in ("train", "tune", "test", "reference") if name in paths]
    if not order:
        raise DataError("expected a data file, got none: name one under [data], such as test = 'test.parquet'")
    raws = {name: read_raw(Path(paths[name]), reading, reading.labels.get(name)) for name in order}
    parts, classes = _assembled(raws, reading, None)
    return Splits(**parts), classes


def read_table(path: str | Path, reading: Reading | None = None, *, schema: Schema | None = None, **how: Any) -> Loaded:
    """One file as data; `schema`, if given, is that of an earlier file and is held against this one.

    Keyword arguments are those of `Reading`. Raises as `read_splits`.
    """
    chosen = replace(reading or Reading(), **how)
    parts, classes = _assembled({"data": read_raw(Path(path), chosen, chosen.labels.get("data"))}, chosen, schema)
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
    """Arrays or a data frame as data: `(n, d)` is a table, `(n, h, w)` and `(n, c, h, w)` are images, `(n,)` texts.

    `y (n,)` are labels by name or class indices. Raises `DataError` for what fits neither, images in whole numbers
    without declared `bounds`, labels that are not among `classes`, and fractional labels for a classifier.
    """
    chosen = DataKind(kind) if kind is not None else None if schema is None else schema.kind
    reading = Reading(
        classes=tuple(classes) if classes else None, bounds=bounds, overrides=overrides or {}, task=task, kind=chosen
    )
    raw = raw_of((x, y), "x", reading, names=names, groups=groups)
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
    raws = {name: raw_of(pairs[name], name, chosen, groups=(groups or {}).get(name)) for name in order}
    first = np.cumsum([0, *(0 if raw.y is None else len(raw.y) for raw in raws.values())])
    numbered = {
        name: raw if raw.y is None else replace(raw, sample_id=np.arange(len(raw.y)) + start)
        for (name, raw), start in zip(raws.items(), first[:-1], strict=True)
    }
    parts, classes = _assembled(numbered, chosen, schema)
    return Splits(**parts), classes


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


def _assembled(
    raws: dict[str, Raw], reading: Reading, schema: Schema | None
) -> tuple[dict[str, Data], tuple[str, ...]]:
    """The splits and their classes; takes the raws apart, for a matrix beside its columns is twice the memory."""
    kind = schema.kind if schema else next(iter(raws.values())).kind
    odd = next((raw for raw in raws.values() if raw.kind is not kind), None)
    if odd is not None:
        raise DataError(f"expected {kind} data in every split, got {odd.kind} data in {odd.where}: name matching files")
    chosen = schema or _schema(list(raws.values()), reading)
    xs = {}
    for name in list(raws):
        xs[name] = _x(raws[name], chosen)
        raws[name] = replace(raws[name], table={}, images=None, texts=None)
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


def _schema(raws: list[Raw], reading: Reading) -> Schema:
    if raws[0].texts is not None:
        if reading.overrides or reading.bounds or reading.relations:
            raise DataError(
                "expected texts without [schema], bounds and relations, got some: texts have no columns and no bounds"
            )
        return Schema(DataKind.TEXT, ())
    images = [raw.images for raw in raws if raw.images is not None]
    if images:
        return infer_image(images[0], bounds=reading.bounds, overrides=reading.overrides, where=raws[0].where)
    names = set(raws[0].table)
    for raw in raws[1:]:
        other = sorted(names ^ set(raw.table))
        if other:
            raise DataError(
                f"expected the same columns in every split, {other[0]!r} is not in both {raws[0].where} and "
                f"{raw.where}: exclude it or add it"
            )
    inferred = replace(infer_table([raw.table for raw in raws], reading.overrides), relations=reading.relations)
    return inferred if reading.bounds is None else _bounded(inferred, reading)


def _bounded(schema: Schema, reading: Reading) -> Schema:
    """Declared bounds hold for every number of a table that has none of its own."""
    lo, hi = reading.bounds or (0.0, 0.0)

    def one(feature: Feature) -> Feature:
        if feature.kind is FeatureKind.CATEGORY or {"lo", "hi"} & set(reading.overrides.get(feature.name, {})):
            return feature
        return replace(feature, lo=lo, hi=hi)

    return replace(schema, features=tuple(one(feature) for feature in schema.features))


def _x(raw: Raw, schema: Schema) -> Array:
    if raw.texts is not None:
        return raw.texts
    if raw.images is None:
        return matrix_of(raw.table, schema, raw.where)
    check_images(raw.images, schema, raw.where)
    return raw.images


def _classes(raws: list[Raw], reading: Reading) -> tuple[str, ...]:
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


def _y(raw: Raw, n: int, classes: tuple[str, ...], reading: Reading, *, first: bool) -> Array:
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
