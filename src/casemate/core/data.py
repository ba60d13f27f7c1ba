"""Samples: read-only arrays with identity, groups and origin."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.schema import Schema
from casemate.errors import DataError, IntegrityError

__all__ = ["Data", "Splits", "digest_of_arrays", "plain_bytes", "texts"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Data:
    """Samples `x (n, ...)` with labels `y (n,)`; every array is read-only and `sample_id` names a row for ever.

    Labels are class indices for classification, floats for regression. `groups` holds one array `(n,)` for each
    sensitive attribute. Raises `DataError` when lengths differ or ids repeat.
    """

    x: Array
    schema: Schema
    y: Array | None = None
    groups: Mapping[str, Array] = field(default_factory=dict)
    sample_id: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    source: Array | None = None
    collected_at: Array | None = None

    def __post_init__(self) -> None:
        n = len(self.x)
        if n == 0:
            raise DataError("expected at least one sample, got none: the data set is empty")
        ids = np.asarray(self.sample_id if len(self.sample_id) else np.arange(n), dtype=np.int64)
        if len(np.unique(ids)) != len(ids):
            raise DataError("expected unique sample ids, got repeated ones: give each row its own id")
        put = object.__setattr__  # the record is frozen; this is its constructor
        put(self, "sample_id", _frozen(ids, n, "sample_id"))
        put(self, "x", _frozen(self.x, n, "x"))
        for name in ("y", "source", "collected_at"):
            value = getattr(self, name)
            if value is not None:
                put(self, name, _frozen(value, n, name))
        put(self, "groups", {name: _frozen(values, n, f"group {name}") for name, values in self.groups.items()})

    def __len__(self) -> int:
        return len(self.x)

    @property
    def labels(self) -> Array:
        """The labels `(n,)`; raises `DataError` where there are none."""
        if self.y is None:
            raise DataError("expected labelled samples, got none: name the target column")
        return self.y

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every array, its dtype and its shape."""
        parts: dict[str, Array] = {"x": self.x, "sample_id": self.sample_id}
        optional = {"y": self.y, "source": self.source, "collected_at": self.collected_at}
        parts |= {name: value for name, value in optional.items() if value is not None}
        parts |= {f"group:{name}": value for name, value in self.groups.items()}
        return digest_of_arrays(parts)

    def take(self, rows: Array) -> Data:
        """The rows at the given positions, with their ids."""
        pick = {name: values[rows] for name, values in self.groups.items()}
        return replace(
            self,
            x=self.x[rows],
            y=None if self.y is None else self.y[rows],
            groups=pick,
            sample_id=self.sample_id[rows],
            source=None if self.source is None else self.source[rows],
            collected_at=None if self.collected_at is None else self.collected_at[rows],
        )

    def places(self, sample_id: Array) -> NDArray[np.int64]:
        """The positions `(m,)` of samples by their distinct ids; raises `IntegrityError` for ids that are not there."""
        if len(np.unique(sample_id)) != len(sample_id) or not np.isin(sample_id, self.sample_id).all():
            raise IntegrityError("expected distinct sample ids of the data, got others: take the files of this audit")
        order = np.argsort(self.sample_id)
        return np.asarray(order[np.searchsorted(self.sample_id, sample_id, sorter=order)])


@dataclass(frozen=True, slots=True)
class Splits:
    """The parts of a user's data: hardening may see all but `test`."""

    train: Data | None = None
    tune: Data | None = None
    test: Data | None = None
    reference: Data | None = None

    def parts(self) -> dict[str, Data]:
        """The parts that are there, by name."""
        named = {"train": self.train, "tune": self.tune, "test": self.test, "reference": self.reference}
        return {name: part for name, part in named.items() if part is not None}

    def without_test(self) -> Splits:
        """The same splits without the held-out part."""
        return replace(self, test=None)


def digest_of_arrays(parts: Mapping[str, Array]) -> str:
    """SHA-256 over named arrays: names, dtypes, shapes and bytes, independent of the order of the mapping."""
    hasher = hashlib.sha256()
    for name in sorted(parts):
        array = np.ascontiguousarray(parts[name])
        header = f"{name}|{array.dtype.str}|{array.shape}|"
        hasher.update(len(header).to_bytes(8, "little") + header.encode())
        hasher.update(plain_bytes(array))
    return "sha256:" + hasher.hexdigest()


def texts(values: Iterable[str]) -> Array:
    """Texts as an array `(n,)` of variable length, which is what text data holds as x.

    Raises `DataError` for half of a surrogate pair, which is no text in any encoding.
    """
    found = [str(value) for value in values]
    try:
        return np.array(found, dtype=np.dtypes.StringDType())
    except UnicodeEncodeError as error:
        row = next(index for index, value in enumerate(found) if _halved(value))
        raise DataError(
            f"expected Unicode text, got half of a surrogate pair in text {row}: mend its encoding"
        ) from error


def plain_bytes(array: Array) -> memoryview:
    """The bytes of an array in C order, in place where it can be; texts of any length as UTF-8 behind their lengths."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.kind in "OT":
        encoded = [str(value).encode("utf-8", "surrogatepass") for value in flat]
        sizes = np.array([len(item) for item in encoded], dtype="<u8")
        return memoryview(sizes.tobytes() + b"".join(encoded))
    return memoryview(flat.view(np.uint8).data) if flat.size else memoryview(b"")


def _halved(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _frozen(values: Array, n: int, name: str) -> Array:
    array = np.asarray(values)
    if len(array) != n:
        raise DataError(f"expected {n} values of {name}, one for each sample, got {len(array)}: align the arrays")
    view = array.view()
    view.setflags(write=False)
    return view
