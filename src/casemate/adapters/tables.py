"""Columns of a table, whatever it came as: CSV, Parquet, JSON lines, a data frame or a matrix."""

from __future__ import annotations

import json
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
from casemate.core.data import texts
from casemate.core.names import nearest
from casemate.core.schema import FeatureKind
from casemate.errors import DataError

__all__ = [
    "TABLES",
    "Column",
    "columns_of_arrow",
    "columns_of_frame",
    "columns_of_matrix",
    "csv_dialect",
    "give_back",
    "json_record",
    "read_arrow",
    "recoded",
    "texts_of_arrow",
]

Array = NDArray[Any]
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "#N/A"]
_ENCODING = "save the file as UTF-8"
_EXACT = 2.0**53  # whole numbers below are float64s of their own
_CELL = 24  # bytes of a value that is there as it was read, as a column and in the matrix
_LONG_LINE = 1 << 24  # bytes that pyarrow takes at a time where a cell may hold a whole text
TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
"""Suffixes of files that hold a table."""


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
            if known.itemsize * len(self.values) > memory():
                told = f"one of {max(map(len, self.categories)):,} characters"
                raise DataError(f"expected names as labels and groups, got {told}: name another column")
            return known[np.where(np.isnan(self.values), len(self.categories), self.values).astype(np.intp)]
        if self.kind is FeatureKind.INTEGER and not self.missing:
            return self.values.astype(np.int64)
        return self.values


def read_arrow(path: Path, text: str | None = None) -> Any:
    """The table in a file of one of `TABLES`, as pyarrow's; `text` names a column whose cells are taken as they stand.

    Raises `DataError` for a file that is missing, empty, ragged, not UTF-8, or has a column name twice.
    """
    import pyarrow as pa

    readers = {".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix, _read_json_lines if path.suffix in TABLES else None)
    if reader is None:
        raise DataError(
            f"expected a folder of images, or a .jsonl, .npy, .csv, .parquet or .npz file, got {path.name}: convert it"
        )
    if not path.is_file():
        raise DataError(f"expected a data file, got nothing at {path}: check the path under [data]")
    try:
        table = reader(path, text)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        mend = _ENCODING if "UTF8" in told.upper().replace("-", "") else "repair or export the file again"
        raise DataError(f"expected a readable table in {path.name}, got one that is not ({told}): {mend}") from error
    _refuse_duplicates(table.column_names, path.name)
    if table.num_rows == 0:
        raise DataError(f"expected at least one row in {path.name}, got none: the file is empty")
    return table


def texts_of_arrow(table: Any, name: str, where: str) -> Array:
    """One column of a pyarrow table as texts `(n,)`, empty ones as they are.

    Raises `DataError` where there is no such column, for one of numbers, for rows without a text, and where the texts
    would not fit into memory.
    """
    from pyarrow import types

    if name not in table.column_names:
        raise DataError(f"expected a column {name!r} in {where}, got none: {nearest(name, table.column_names)}")
    chunks = table.column(name)
    kind = chunks.type.value_type if types.is_dictionary(chunks.type) else chunks.type
    if not _is_text(kind):
        raise DataError(
            f"expected text in column {name!r} of {where}, got {kind}: name the column of texts under [data] text"
        )
    if chunks.null_count:
        first = int(np.flatnonzero(chunks.is_null().to_numpy())[0])
        raise DataError(
            f"expected a text in every row of {where}, got none in {chunks.null_count} rows of {name!r} "
            f"(row {first} first): drop these rows"
        )
    size = sum(_text_bytes(chunk) for chunk in chunks.chunks)
    if size > memory():
        raise DataError(f"expected texts that fit into memory in {where}, got {size:,} bytes: give fewer rows")
    return texts(chunks.to_pylist())


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _text_bytes(chunk: Any) -> int:
    """Of one chunk; a text that a dictionary names a billion times takes hardly any space in a file."""
    import pyarrow as pa
    from pyarrow import compute

    if not pa.types.is_dictionary(chunk.type):
        return int(compute.sum(compute.binary_length(chunk)).as_py() or 0)
    lengths = compute.binary_length(chunk.dictionary).to_numpy(zero_copy_only=False).astype(np.int64)
    return int(lengths[chunk.indices.to_numpy(zero_copy_only=False)].sum())


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
    if table.num_rows == 0:
        raise DataError("expected at least one row in the data frame, got none: it is empty")
    return columns_of_arrow(table, "the data frame")


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
    found = {name: Column(x[:, index].astype(np.float64), kind) for index, name in enumerate(chosen)}
    if x.dtype.itemsize == 8 and x.dtype.kind in "iu":
        for name, column in found.items():
            _refuse_longer(column.values, name, "the matrix")
    return found


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


def csv_dialect(path: Path) -> tuple[list[str], str]:
    """The names in the first line of a CSV file, and what is between them; reads no more than that."""
    import csv

    first, delimiter = _first_line(path)
    return [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])], delimiter


def _first_line(path: Path) -> tuple[str, str]:
    with path.open("rb") as stream:
        first = stream.readline(1 << 20).decode("utf-8-sig", errors="replace").rstrip("\r\n")
    counts = {mark: first.count(mark) for mark in (",", ";", "\t", "|")}
    return first, "," if counts[","] else max(counts, key=lambda mark: counts[mark])


def _read_csv(path: Path, text: str | None) -> Any:
    from pyarrow import csv

    convert = csv.ConvertOptions(null_values=_MISSING, strings_can_be_null=True)
    # A quoted value may hold a line break; looking for one costs a second pass over each block.
    parse = csv.ParseOptions(delimiter=_first_line(path)[1], newlines_in_values=True)
    read = csv.ReadOptions(block_size=None if text is None else _LONG_LINE)
    table = csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)
    if text is None or table.column_names.count(text) != 1 or str(table.schema.field(text).type) != "string":
        return table
    # "NA" is no number, but a text it is, and so is nothing at all.
    convert = csv.ConvertOptions(include_columns=[text], column_types={text: "string"}, strings_can_be_null=False)
    whole = csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)
    return table.set_column(table.column_names.index(text), text, whole.column(0))


def _read_parquet(path: Path, _: str | None) -> Any:
    from pyarrow import parquet, types

    # One value repeated a billion times takes a few bytes in the file, and as a dictionary in memory too.
    kept = [item.name for item in parquet.read_schema(path) if _is_text(item.type) or types.is_binary(item.type)]
    with parquet.ParquetFile(path, read_dictionary=kept) as file:  # never the folder beside it
        rows, columns = file.metadata.num_rows, file.metadata.num_columns
        if rows * columns * _CELL > memory():
            raise DataError(
                f"expected {path.name} to fit into memory, got {rows:,} rows of {columns} columns: give fewer rows"
            )
        return file.read()


def _read_json_lines(path: Path, text: str | None) -> Any:
    """One object in each line; a key that an object lacks is a missing value. Blank lines are passed over."""
    import pyarrow as pa

    del text  # its cells are what JSON says they are
    columns: dict[str, list[Any]] = {}
    lines: list[int] = []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            record = json_record(line, number, path.name)
            for name in record:
                if name not in columns:
                    columns[name] = [None] * len(lines)
            lines.append(number)
            if len(lines) * len(columns) * _CELL > memory():
                raise DataError(
                    f"expected {path.name} to fit into memory, got {len(columns)} keys by line {number}: give fewer"
                )
            for name, values in columns.items():
                values.append(record.get(name))
    return pa.table({name: _typed(values, name, lines, path.name) for name, values in columns.items()})


def json_record(line: bytes, number: int, where: str) -> dict[str, Any]:
    """The object in one line of JSON: plain values by key.

    Raises `DataError` with the line's number for bytes that are no JSON in UTF-8, NaN, a key twice, and a list or an
    object as a value.
    """
    try:
        found = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_each_once, parse_constant=_no_constant)
        if isinstance(found, dict):
            "".join([*found, *(value for value in found.values() if isinstance(value, str))]).encode()
    except (ValueError, RecursionError) as error:
        told = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"expected a JSON object in line {number} of {where}, got a fault ({told}): mend it") from error
    if not isinstance(found, dict):
        raise DataError(
            f"expected a JSON object in line {number} of {where}, got {type(found).__name__}: write one row a line"
        )
    for name, value in found.items():
        if isinstance(value, dict | list):
            raise DataError(
                f"expected plain values in line {number} of {where}, got a nested {type(value).__name__} under "
                f"{name!r}: flatten it into columns of its own"
            )
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name}, which JSON does not have; write null for a missing value")


def _typed(values: list[Any], name: str, lines: list[int], where: str) -> Any:
    import pyarrow as pa

    first: str | None = None
    for value, line in zip(values, lines, strict=True):
        kind = None if value is None else _JSON_KINDS[type(value)]
        if first is not None and kind not in (None, first):
            raise DataError(
                f"expected one type in column {name!r} of {where}, got {first} before line {line} and {kind} there: "
                "mend the data"
            )
        first = first or kind
    if first != "numbers" or all(isinstance(value, int | None) and abs(value or 0) < 2**63 for value in values):
        return pa.array(values)
    try:
        return pa.array([None if value is None else float(value) for value in values])
    except OverflowError as error:
        raise DataError(
            f"expected numbers of 64 bits in column {name!r} of {where}, got a longer one: mend it"
        ) from error


_JSON_KINDS = {bool: "truth values", int: "numbers", float: "numbers", str: "text"}


def columns_of_arrow(table: Any, where: str) -> dict[str, Column]:
    """The columns of a pyarrow table by name, in order; raises `DataError` for one of dates, bytes or lists."""
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
    named = kind.value_type if types.is_dictionary(kind) else None
    if _is_text(named or kind) or (named is not None and types.is_primitive(named)):
        return _category(chunks)
    if types.is_boolean(kind) or types.is_integer(kind):
        values = _floats(chunks.cast(pa.int8()) if types.is_boolean(kind) else chunks)
        _refuse_longer(values, name, where)
        return Column(values, FeatureKind.INTEGER)
    if types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
        values = _floats(chunks)
        known = values[~np.isnan(values)]
        # A whole number beside a missing one becomes a float on its way through pandas.
        whole = len(known) < len(values) and len(known) > 0 and bool((known == np.rint(known)).all())
        return Column(values, FeatureKind.INTEGER if whole else FeatureKind.NUMERIC)
    mend = _ENCODING if types.is_binary(kind) and where.endswith("sv") else "convert or exclude it"
    raise DataError(f"expected numbers, text or truth values in column {name!r} of {where}, got {kind}: {mend}")


def _refuse_longer(values: NDArray[np.float64], name: str, where: str) -> None:
    """Above 2^53 whole numbers that differ become one float64: two classes or groups would become one."""
    if np.fmax.reduce(np.abs(values), initial=0) >= _EXACT:
        raise DataError(
            f"expected whole numbers below 2^53 in column {name!r} of {where}, got longer ones, which floats mix up: "
            "write them as text, or exclude the column"
        )


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
