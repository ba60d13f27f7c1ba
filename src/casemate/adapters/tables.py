"""Columns of a table, whatever it came as: CSV, Parquet, a data frame or a matrix."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.archives import memory
from casemate.adapters.labels import class_name, sorted_classes
from casemate.core.schema import FeatureKind
from casemate.errors import DataError

__all__ = ["Column", "columns_of_frame", "columns_of_matrix", "csv_header", "give_back", "read_columns", "recoded"]

Array = NDArray[Any]
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "#N/A"]
_ENCODING = "save the file as UTF-8"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: float64 `values (n,)` with NaN where there is none; for a category, indices into `categories`."""

    values: NDArray[np.float64]
    kind: FeatureKind
    categories: tuple[str, ...] = ()

    @property
    def missing(self) -> int:
        """How many values are not there."""
        return int(np.isnan(self.values).sum())

    def natural(self) -> Array:
        """The values as their owner knows them: text, whole numbers or floats; `""` or NaN where there is none."""
        if self.kind is FeatureKind.CATEGORY:
            known = np.array([*self.categories, ""])
            return known[np.where(np.isnan(self.values), len(self.categories), self.values).astype(np.intp)]
        if self.kind is FeatureKind.INTEGER and not self.missing:
            return self.values.astype(np.int64)
        return self.values


def read_columns(path: Path) -> dict[str, Column]:
    """The columns of a `.csv` or `.parquet` file by name, in order.

    Raises `DataError` for a file that is missing, empty, ragged, not UTF-8, or has a column name twice.
    """
    import pyarrow as pa

    readers = {".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix)
    if reader is None:
        raise DataError(f"expected a .csv, .parquet or .npz file, got {path.name}: convert it to one of these")
    if not path.is_file():
        raise DataError(f"expected a data file, got nothing at {path}: check the path under [data]")
    try:
        table = reader(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        mend = _ENCODING if "UTF8" in text.upper().replace("-", "") else "repair or export the file again"
        raise DataError(f"expected a readable table in {path.name}, got one that is not ({text}): {mend}") from error
    columns = _from_arrow(table, path.name)
    del table
    give_back()
    return columns


def give_back() -> None:
    """Return freed memory of columns to the machine: pyarrow would keep it for itself, as much again as the data."""
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None:
        pyarrow.default_memory_pool().release_unused()


def columns_of_frame(frame: Any) -> dict[str, Column]:
    """The columns of a pandas data frame; raises `DataError` as `read_columns`."""
    import pyarrow as pa

    names = [str(name) for name in frame.columns]
    _refuse_duplicates(names, "the data frame")
    try:
        table = pa.Table.from_pandas(frame.set_axis(names, axis=1), preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"expected one type in each column, got several ({error}): convert the column with astype"
        ) from error
    return _from_arrow(table, "the data frame")


def columns_of_matrix(x: Array, names: Sequence[str] | None = None) -> dict[str, Column]:
    """The columns of a matrix `(n, d)`: integers where its dtype is one, else numbers; by default `x0`, `x1`, ...

    Raises `DataError` for objects, and names that are repeated or of another number.
    """
    if x.dtype.kind not in "biuf":
        raise DataError(f"expected a matrix of numbers, got {x.dtype}: pass a data frame, or encode the text")
    chosen = [f"x{index}" for index in range(x.shape[1])] if names is None else [str(name) for name in names]
    if len(chosen) != x.shape[1]:
        raise DataError(f"expected {x.shape[1]} names, one for each column, got {len(chosen)}: mend the names")
    _refuse_duplicates(chosen, "the names")
    kind = FeatureKind.NUMERIC if x.dtype.kind == "f" else FeatureKind.INTEGER
    return {name: Column(x[:, index].astype(np.float64), kind) for index, name in enumerate(chosen)}


def recoded(column: Column, categories: Sequence[str]) -> tuple[NDArray[np.float64], list[str]]:
    """The column as indices into `categories`, NaN where there is no value; and the values that are not among them."""
    place = {name: float(index) for index, name in enumerate(categories)}
    if column.kind is FeatureKind.CATEGORY:
        names: Sequence[str] = column.categories
        at = np.where(np.isnan(column.values), 0, column.values).astype(np.intp)
    else:
        unique, at = np.unique(np.nan_to_num(column.values), return_inverse=True)
        names = [class_name(value) for value in unique]
    table = np.array([place.get(name, -1.0) for name in names] or [np.nan])
    found = np.where(np.isnan(column.values), np.nan, table[at.reshape(-1)])
    unknown = sorted({names[index] for index in np.unique(at[found == -1])})
    return found, unknown


def csv_header(path: Path) -> list[str]:
    """The names in the first line of a CSV file; reads no more than that."""
    import csv

    first, delimiter = _first_line(path)
    return [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]


def _first_line(path: Path) -> tuple[str, str]:
    with path.open("rb") as stream:
        first = stream.readline(1 << 20).decode("utf-8-sig", errors="replace").rstrip("\r\n")
    counts = {mark: first.count(mark) for mark in (",", ";", "\t", "|")}
    return first, "," if counts[","] else max(counts, key=lambda mark: counts[mark])


def _read_csv(path: Path) -> Any:
    from pyarrow import csv

    convert = csv.ConvertOptions(null_values=_MISSING, strings_can_be_null=True)
    # A quoted value may hold a line break; looking for one costs a second pass over each block.
    parse = csv.ParseOptions(delimiter=_first_line(path)[1], newlines_in_values=True)
    return csv.read_csv(path, parse_options=parse, convert_options=convert)


def _read_parquet(path: Path) -> Any:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:  # a single file, never the folder beside it
        # One value repeated a billion times takes a few bytes in the file.
        rows, columns = file.metadata.num_rows, file.metadata.num_columns
        if rows * columns * 8 > memory():
            raise DataError(
                f"expected {path.name} to fit into memory, got {rows:,} rows of {columns} columns: give fewer rows"
            )
        return file.read()


def _from_arrow(table: Any, where: str) -> dict[str, Column]:
    _refuse_duplicates(table.column_names, where)
    if table.num_rows == 0:
        raise DataError(f"expected at least one row in {where}, got none: the file is empty")
    return {name: _column(table.column(name), name, where) for name in table.column_names}


def _refuse_duplicates(names: Sequence[str], where: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"expected each column once in {where}, got {', '.join(map(repr, twice[:5]))} again: rename them"
        )


def _column(chunks: Any, name: str, where: str) -> Column:
    import pyarrow as pa
    from pyarrow import types

    kind = chunks.type
    if types.is_dictionary(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _category(chunks)
    if types.is_boolean(kind) or types.is_integer(kind):
        if types.is_boolean(kind):
            chunks = chunks.cast(pa.int8())
        return Column(_floats(chunks), FeatureKind.INTEGER)
    if types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
        values = _floats(chunks)
        known = values[~np.isnan(values)]
        # A whole number beside a missing one becomes a float on its way through pandas.
        whole = len(known) < len(values) and len(known) > 0 and bool((known == np.rint(known)).all())
        return Column(values, FeatureKind.INTEGER if whole else FeatureKind.NUMERIC)
    mend = _ENCODING if types.is_binary(kind) and where.endswith("sv") else "convert or exclude it"
    raise DataError(f"expected numbers, text or truth values in column {name!r} of {where}, got {kind}: {mend}")


def _floats(chunks: Any) -> NDArray[np.float64]:
    import pyarrow as pa

    return np.asarray(chunks.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def _category(chunks: Any) -> Column:
    import pyarrow as pa

    encoded = (
        chunks.combine_chunks() if pa.types.is_dictionary(chunks.type) else chunks.dictionary_encode().combine_chunks()
    )
    if isinstance(encoded, pa.ChunkedArray):  # what combining gives differs between versions
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], type=chunks.type)
    codes = encoded.indices.cast(pa.float64()).to_numpy(zero_copy_only=False)
    values = encoded.dictionary.to_pylist()
    used = np.unique(codes[~np.isnan(codes)]).astype(int)
    names = {int(index): class_name(values[index]) for index in used if values[index] is not None}
    categories = sorted_classes(names.values()) if names else ()
    place = {name: float(index) for index, name in enumerate(categories)}
    table = np.array([place.get(names.get(index, ""), np.nan) for index in range(len(values))] or [np.nan])
    at = np.where(np.isnan(codes), 0, codes).astype(np.intp)
    return Column(np.where(np.isnan(codes), np.nan, table[at]), FeatureKind.CATEGORY, categories)
