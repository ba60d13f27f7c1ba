"""Samples as the values of JSON, and values of JSON as answers: what the codecs of endpoints share."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.labels import class_name
from casemate.core.facets import DataKind
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.errors import ModelError

__all__ = ["as_answers", "as_columns", "as_labels", "as_rows", "as_values", "meaning_of"]

Array = NDArray[Any]
_SHOWN = 60
_PROBABILITY = 1e-4  # how far a sum of probabilities in float32 may be from 1


def as_rows(x: Array, schema: Schema | None) -> list[Any]:
    """Samples `x (n, ...)` as `n` JSON values: a text, or (nested) lists of numbers.

    In tables a category is its name, a whole-number feature an integer, and what is missing is null.
    """
    if x.dtype.kind not in "biuf":
        return [str(text) for text in x]
    if schema is None or schema.kind is not DataKind.TABLE:
        return [_plain(row) for row in x]
    plain = all(feature.kind is FeatureKind.NUMERIC for feature in schema.features)
    if plain and np.isfinite(x).all():
        rows: list[Any] = x.tolist()
        return rows
    columns = [as_values(x[:, i], feature) for i, feature in enumerate(schema.features)]
    return [list(row) for row in zip(*columns, strict=True)]


def as_values(column: Array, feature: Feature) -> list[Any]:
    """One column `(n,)` of a table as JSON values; raises `ModelError` for what no category stands for."""
    whole = feature.kind is not FeatureKind.NUMERIC
    found: list[Any] = []
    for number in column.tolist():
        if not np.isfinite(number):
            found.append(None)
        elif feature.kind is FeatureKind.CATEGORY and feature.categories:
            if not 0 <= round(number) < len(feature.categories):
                raise ModelError(
                    f"expected an index into the {len(feature.categories)} categories of {feature.name}, got {number}: "
                    "mend the data"
                )
            found.append(feature.categories[round(number)])
        else:
            found.append(int(number) if whole and number == int(number) else number)
    return found


def as_columns(x: Array, schema: Schema) -> dict[str, list[Any]]:
    """A table `(n, d)` as its columns by name."""
    return {feature.name: as_values(x[:, i], feature) for i, feature in enumerate(schema.features)}


def as_answers(values: Any, n: int, classes: Sequence[str] = ()) -> Array:
    """What an endpoint said of `n` samples as `(n,)` (text or numbers) or `(n, k)` numbers.

    Each value is a label, a list of numbers, or an object of numbers by class name. Raises `ModelError` for another
    count, values of different shapes or kinds, and anything that is missing or not finite.
    """
    if not isinstance(values, list):
        raise ModelError(f"expected a list of {n} answers, got {_brief(values)}: mend the path to the answers")
    if len(values) != n:
        raise ModelError(f"expected {n} answers, one for each sample sent, got {len(values)}: mend the endpoint")
    if values and isinstance(values[0], list | dict):
        return _table([_ordered(value, classes) for value in values])
    return _line(values)


def as_labels(raw: Array, classes: Sequence[str]) -> NDArray[np.int64]:
    """Class indices `(n,)` of labels `(n,)` or `(n, 1)`.

    Text is a class name. A whole number is one where some class is named by a number, else it is an index; so no label
    means one thing in one batch and another in the next. Raises `ModelError` for a label that is neither.
    """
    if raw.ndim == 2 and raw.shape[1] != 1:
        raise ModelError(f"expected one label a sample, got {raw.shape[1]} columns: say outputs = 'scores' or 'logits'")
    unique, inverse = np.unique(raw.reshape(-1), return_inverse=True)
    names = [class_name(value) for value in unique]
    place = {name: index for index, name in enumerate(classes)}
    indices = not classes or not any(_whole(name) for name in classes)
    if unique.dtype.kind in "iuf" and indices:
        place = {str(index): index for index in range(len(classes))} or {
            name: int(name) for name in names if _index(name)
        }
    unknown = [name for name in names if name not in place]
    if unknown:
        known = ", ".join(list(place)[:6]) or "whole numbers"
        raise ModelError(f"expected labels among {known}, got {_brief(unknown[0])}: list all classes in model.classes")
    return np.array([place[name] for name in names], dtype=np.int64)[inverse.reshape(-1)]


def meaning_of(raw: Array) -> str:
    """What answers `(n,)` or `(n, k)` are that nobody declared: labels, scores or logits, or `ModelError` in doubt."""
    if raw.dtype.kind not in "iuf" or raw.ndim == 1 or raw.shape[1] == 1:
        if raw.dtype.kind == "f" and (raw != np.rint(raw)).any():
            raise ModelError(
                "expected labels, or a number for each class, got one fraction a sample: say outputs = 'scores' (of "
                "the second of two classes) or 'logits'"
            )
        return "labels"
    if raw.min() >= 0 and raw.max() <= 1:
        if np.allclose(raw.sum(axis=1), 1, atol=_PROBABILITY):
            return "scores"
        raise ModelError(
            "expected probabilities that sum to 1, got other numbers from 0 to 1: say outputs = 'scores' or 'logits'"
        )
    return "logits"


def _plain(row: Array) -> Any:
    if np.isfinite(row).all():
        return row.tolist()
    holed = row.astype(object)
    holed[~np.isfinite(row)] = None
    return holed.tolist()


def _ordered(value: Any, classes: Sequence[str]) -> Any:
    if not isinstance(value, dict):
        return value
    if set(value) != set(classes):
        raise ModelError(
            f"expected a number for each of the classes {_brief(list(classes))}, got {_brief(sorted(value))}: "
            "declare these as model.classes"
        )
    return [value[name] for name in classes]


def _table(values: list[Any]) -> Array:
    width = len(values[0]) if isinstance(values[0], list) else 0
    if not width or any(not isinstance(value, list) or len(value) != width for value in values):
        raise ModelError(f"expected as many numbers for each sample, got {_brief(values)}: mend the endpoint")
    if width == 1 and all(isinstance(value[0], str) for value in values):
        return np.array([value[0] for value in values])
    found = _line([number for value in values for number in value])
    if found.dtype.kind not in "iuf":
        raise ModelError(f"expected numbers for each class, got {_brief(values[0])}: name the path to the numbers")
    return found.reshape(len(values), width)


def _line(values: list[Any]) -> Array:
    if values and all(isinstance(value, str | bool) for value in values):
        return np.array([class_name(value) for value in values])
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        strange = next(value for value in values if isinstance(value, bool) or not isinstance(value, int | float))
        raise ModelError(f"expected labels or numbers, got {_brief(strange)} among them: mend the endpoint")
    try:
        found = np.array(values, dtype=None if all(isinstance(value, int) for value in values) else np.float64)
    except OverflowError:
        found = np.array([np.inf])
    if found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        raise ModelError(
            "expected finite numbers, got NaN, an infinity or a number of no known size: mend the endpoint"
        )
    return found


def _whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _index(name: str) -> bool:
    return name.isdecimal() and len(name) < 10


def _brief(value: Any) -> str:
    text = "".join(c if c.isprintable() else " " for c in reprlib.repr(value))
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
