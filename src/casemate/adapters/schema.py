"""What samples look like: inferred from data, shown to the user, overridden by the user, and held against data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.labels import class_name, sorted_classes
from casemate.adapters.tables import Column, recoded
from casemate.core.facets import DataKind
from casemate.core.names import nearest
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.errors import DataError

__all__ = ["check_images", "describe", "infer_image", "infer_table", "matrix_of", "with_blocks"]

Array = NDArray[Any]
Overrides = Mapping[str, Mapping[str, Any]]
_KEYS = (*(item.name for item in fields(Feature) if item.name != "name"), "integer")
_PIXEL = "pixel"
_SLACK = 1e-6


def infer_table(tables: Sequence[Mapping[str, Column]], overrides: Overrides | None = None) -> Schema:
    """The schema of tables with the same columns; `scale` is the standard deviation in the first, the training split.

    Bounds, categories (sorted) and whether values may be missing come from all of them. `overrides` are settings of
    `Feature` by column, and `integer = true` for a kind. Raises `DataError` for unknown columns or settings, for a
    column without any value, and for text with more than 1,000 values that differ in most rows.
    """
    names = list(tables[0])
    chosen = overrides or {}
    for name in chosen:
        if name not in names:
            raise DataError(f"expected a column of the data in [schema], got {name!r}: {nearest(name, names)}")
    features = tuple(_feature(name, [table[name] for table in tables], chosen.get(name, {})) for name in names)
    return Schema(DataKind.TABLE, (len(names),), features)


def infer_image(
    x: Array,
    *,
    bounds: tuple[float, float] | None = None,
    overrides: Overrides | None = None,
    where: str = "the images",
) -> Schema:
    """The schema of images `(n, c, h, w)` in `where`; `scale` is 1, so that eps is in the units of a pixel.

    Bounds, if not declared, are [0, 1] or [-1, 1] where these hold the data, else its extremes. Raises `DataError` for
    pixels that are not finite, and for whole numbers above 1 without declared bounds: the model was most likely trained
    on a fraction of them.
    """
    declared = dict((overrides or {}).get(_PIXEL, {}))
    if bounds is not None:
        declared |= {"lo": bounds[0], "hi": bounds[1]}
    low, high = float(x.min(initial=np.inf)), float(x.max(initial=-np.inf))
    _check_finite(x, low, high, where)
    if "lo" not in declared or "hi" not in declared:
        if high > 1 and bool((x[: min(len(x), 256)] % 1 == 0).all()):
            raise DataError(
                f"expected images in [0, 1], got whole numbers up to {high:g}: divide by 255, or declare bounds = "
                "[0, 255] if the model takes them as they are"
            )
        lo, hi = (0.0, 1.0) if low >= 0 and high <= 1 else (-1.0, 1.0) if low >= -1 and high <= 1 else (low, high)
        declared = {"lo": lo, "hi": hi} | declared
    return Schema(DataKind.IMAGE, tuple(x.shape[1:]), (_overridden(Feature(_PIXEL), declared, _PIXEL),))


def describe(schema: Schema) -> list[dict[str, str]]:
    """The schema as rows for a table: name, kind, bounds, scale, missing, immutable, categories, block."""
    return [
        {
            "name": feature.name,
            "kind": str(feature.kind),
            "bounds": "" if feature.kind is FeatureKind.CATEGORY else f"{feature.lo:g} ... {feature.hi:g}",
            "scale": "" if Schema.fixed(feature) else f"{feature.scale:.4g}",
            "missing": "allowed" if feature.missing_ok else "",
            "immutable": "yes" if feature.immutable else "",
            "categories": ", ".join(feature.categories),
            "block": feature.block,
        }
        for feature in schema.features
    ]


def matrix_of(table: Mapping[str, Column], schema: Schema, where: str) -> NDArray[np.float64]:
    """The columns of a table as the matrix `(n, d)` of its schema, checked.

    Raises `DataError` that names the column and how many rows break which rule.
    """
    missing = [name for name in schema.names if name not in table]
    if missing:
        raise DataError(f"expected a column {missing[0]!r} in {where}, got none: {nearest(missing[0], list(table))}")
    n = len(next(iter(table.values())).values)
    out = np.empty((n, len(schema.features)))
    for index, feature in enumerate(schema.features):
        out[:, index] = _values(table[feature.name], feature, where)
        _check(out[:, index], feature, where)
    return out


def check_images(x: Array, schema: Schema, where: str) -> None:
    """Hold images against their schema; raises `DataError` for another shape, pixels not finite or out of bounds."""
    if x.shape[1:] != schema.shape:
        raise DataError(f"expected images of shape {schema.shape} in {where}, got {x.shape[1:]}: reshape them")
    pixel = schema.features[0]
    low, high = float(x.min()), float(x.max())
    _check_finite(x, low, high, where)
    slack = _SLACK * max(1.0, abs(low), abs(high))
    if low < pixel.lo - slack or high > pixel.hi + slack:
        mend = "divide by 255 or declare bounds = [0, 255]" if high > 1 and pixel.hi == 1 else "mend the bounds"
        raise DataError(f"expected images in [{pixel.lo:g}, {pixel.hi:g}] in {where}, got [{low:g}, {high:g}]: {mend}")


def _check_finite(x: Array, low: float, high: float, where: str) -> None:
    if not np.isfinite([low, high]).all():
        rows = int((~np.isfinite(x)).reshape(len(x), -1).any(axis=1).sum())
        raise DataError(f"expected finite pixels in {where}, got {rows} images without: drop or repair them")


def with_blocks(schema: Schema, x: Array) -> Schema:
    """The schema with one-hot blocks: columns of one prefix (`hue_red`, `hue=red`), one of which is 1 in each row."""
    prefixes: dict[str, list[int]] = {}
    for index, name in enumerate(schema.names):
        prefix = name.rpartition("=" if "=" in name else "_")[0]
        prefixes.setdefault(prefix, []).append(index)
    features = list(schema.features)
    for prefix, columns in prefixes.items():
        part = x[:, columns]
        if prefix and len(columns) > 1 and ((part == 0) | (part == 1)).all() and (part.sum(axis=1) == 1).all():
            for index in columns:
                features[index] = replace(features[index], block=prefix)
    return replace(schema, features=tuple(features))


def _feature(name: str, columns: Sequence[Column], given: Mapping[str, Any]) -> Feature:
    _refuse_mixture(name, columns, given)
    kinds = {column.kind for column in columns}
    kind = FeatureKind.CATEGORY if FeatureKind.CATEGORY in kinds else max(kinds, key=lambda k: k is FeatureKind.NUMERIC)
    kind = _declared_kind(name, given, kind)
    missing = any(column.missing for column in columns)
    if all(column.missing == len(column.values) for column in columns):
        raise DataError(f"expected values in column {name!r}, got none in any row: exclude it")
    if kind is FeatureKind.CATEGORY:
        inferred = _category(name, columns, given, missing)
    else:
        _refuse_text(name, columns)
        inferred = _number(name, kind, columns, missing)
    return _overridden(inferred, {key: value for key, value in given.items() if key not in ("integer", "kind")}, name)


def _refuse_mixture(name: str, columns: Sequence[Column], given: Mapping[str, Any]) -> None:
    """Numbers in one split and text in another are a fault of an export, unless the user says that they are names."""
    text = [column for column in columns if column.kind is FeatureKind.CATEGORY and column.missing < len(column.values)]
    numbers = [
        column for column in columns if column.kind is not FeatureKind.CATEGORY and column.missing < len(column.values)
    ]
    if text and numbers and not {"kind", "categories"} & set(given):
        shown = ", ".join(repr(value) for value in text[0].categories[:3])
        raise DataError(
            f"expected one kind of values in column {name!r}, got numbers in one split and text such as {shown} in "
            f'another: mend the data, or set [schema."{name}"] kind = "category"'
        )


def _declared_kind(name: str, given: Mapping[str, Any], inferred: FeatureKind) -> FeatureKind:
    if "kind" in given:
        try:
            return FeatureKind(given["kind"])
        except ValueError as error:
            known = ", ".join(FeatureKind)
            raise DataError(f"expected a kind ({known}) for column {name!r}, got {given['kind']!r}: mend it") from error
    if "categories" in given:
        return FeatureKind.CATEGORY
    if "integer" in given:
        return FeatureKind.INTEGER if given["integer"] else FeatureKind.NUMERIC
    return inferred


def _category(name: str, columns: Sequence[Column], given: Mapping[str, Any], missing: bool) -> Feature:
    names: set[str] = set()
    for column in columns:
        if column.kind is FeatureKind.CATEGORY:
            names |= set(column.categories)
        else:
            names |= {class_name(value) for value in np.unique(column.values[~np.isnan(column.values)])}
    rows = sum(len(column.values) for column in columns)
    if len(names) > 1000 and len(names) > rows / 2 and "categories" not in given:
        raise DataError(
            f"expected numbers or categories in column {name!r}, got {len(names)} different texts in {rows} rows: "
            "an id or free text; exclude it, or name the column of texts as [data] text"
        )
    categories = tuple(str(item) for item in given.get("categories", sorted_classes(names)))
    return Feature(name, FeatureKind.CATEGORY, 0.0, len(categories) - 1.0, missing_ok=missing, categories=categories)


def _number(name: str, kind: FeatureKind, columns: Sequence[Column], missing: bool) -> Feature:
    known = [column.values[np.isfinite(column.values)] for column in columns]
    filled = [values for values in known if len(values)]
    if not filled:
        raise DataError(f"expected finite numbers in column {name!r}, got none: exclude it")
    spread = float(filled[0].std())
    lo, hi = min(float(values.min()) for values in filled), max(float(values.max()) for values in filled)
    # A constant column has no unit of its own; 1 keeps it changeable, which an attacker may well do.
    return Feature(name, kind, lo, hi, scale=spread if 0 < spread < np.inf else 1.0, missing_ok=missing)


def _refuse_text(name: str, columns: Sequence[Column]) -> None:
    text = next((column for column in columns if column.kind is FeatureKind.CATEGORY), None)
    if text is not None:
        shown = ", ".join(repr(value) for value in text.categories[:3])
        raise DataError(f"expected numbers in column {name!r}, got text such as {shown}: mend the data or its kind")


def _overridden(feature: Feature, given: Mapping[str, Any], name: str) -> Feature:
    for key in given:
        if key not in _KEYS:
            raise DataError(f"expected a setting of a column ({', '.join(_KEYS)}), got {key!r}: {nearest(key, _KEYS)}")
    settings = {key: value for key, value in given.items() if key != "integer"}
    if "categories" in settings:
        settings["categories"] = tuple(str(item) for item in settings["categories"])
    for key in ("lo", "hi", "scale"):
        if key in settings:
            settings[key] = _real(settings[key], key, name)
    return replace(feature, **settings)


def _real(value: Any, key: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"expected a number as {key} of column {name!r}, got {value!r}: mend [schema]")
    return float(value)


def _values(column: Column, feature: Feature, where: str) -> NDArray[np.float64]:
    if feature.kind is FeatureKind.CATEGORY:
        values, unknown = recoded(column, feature.categories)
        if unknown:
            rows = int((values == -1).sum())
            shown = ", ".join(repr(item) for item in unknown[:3])
            raise DataError(
                f"expected the categories of column {feature.name!r} in {where}, got {shown} in {rows} rows: add them "
                f'to [schema."{feature.name}"] categories, or drop the rows'
            )
        return values
    _refuse_text(feature.name, [column])
    return column.values


def _check(values: NDArray[np.float64], feature: Feature, where: str) -> None:
    for rule, breaks, mend in _RULES:
        broken = breaks(values, feature)
        if broken is not None and broken.any():
            first = int(np.flatnonzero(broken)[0])
            raise DataError(
                f"expected {rule.format(feature)} in column {feature.name!r} of {where}, got {int(broken.sum())} rows "
                f"without (row {first} first): {mend}"
            )


_Broken = NDArray[np.bool_] | None
_MEND = "mend the data or the column's settings in [schema]"


def _absent(values: NDArray[np.float64], feature: Feature) -> _Broken:
    return None if feature.missing_ok else np.isnan(values)


def _infinite(values: NDArray[np.float64], feature: Feature) -> _Broken:
    del feature
    return np.isinf(values)


def _outside(values: NDArray[np.float64], feature: Feature) -> _Broken:
    # fmin and fmax pass over what is missing; most columns need no mask
    low, high = np.fmin.reduce(values), np.fmax.reduce(values)
    slack = _SLACK * max(1.0, abs(low), abs(high))
    if not (low < feature.lo - slack or high > feature.hi + slack):
        return None
    return np.asarray((values < feature.lo - slack) | (values > feature.hi + slack))


def _fractional(values: NDArray[np.float64], feature: Feature) -> _Broken:
    if feature.kind is FeatureKind.NUMERIC:
        return None
    return np.asarray(np.abs(values - np.rint(values)) > _SLACK)


_RULES: tuple[tuple[str, Callable[[NDArray[np.float64], Feature], _Broken], str], ...] = (
    ("a value", _absent, "drop them, or set missing_ok = true"),
    ("finite numbers", _infinite, _MEND),
    ("numbers in [{0.lo:g}, {0.hi:g}]", _outside, _MEND),
    ("whole numbers", _fractional, _MEND),
)
