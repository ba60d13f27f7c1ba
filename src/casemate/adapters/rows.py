"""Rows as a fitted estimator wants them: a data frame with its columns and categories, a plain matrix, or texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.skops import parts_inside
from casemate.core.facets import DataKind
from casemate.core.schema import FeatureKind, Schema
from casemate.errors import ModelError

__all__ = ["Rows", "parts_of", "places_of", "rows_for"]

Array = NDArray[Any]
_TextDtype = Literal["category", "str", "object"]


@dataclass(frozen=True)
class Rows:
    """How a sample matrix `(n, d)` is handed over: `columns` are the frame's names, empty for a plain matrix.

    `take` picks the matrix columns in the estimator's order. `categories` gives the values behind the indices of a
    column, as `text_dtype`: `category` or the dtype of text (`str`, `object`). Texts `(n,)` become objects `(n,)`, or
    the one column that the estimator was fitted with.
    """

    columns: tuple[str, ...] = ()
    take: tuple[int, ...] = ()
    categories: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    text_dtype: _TextDtype = "category"
    texts: bool = False

    def __call__(self, x: Array) -> Any:
        """The rows; images are flattened."""
        if self.texts:
            return self._texts(np.asarray(x).astype(object))
        flat = np.asarray(x).reshape(len(x), -1)
        if not self.columns:
            return flat
        import pandas as pd

        picked = flat if self.take == tuple(range(flat.shape[1])) else flat[:, self.take]
        frame = pd.DataFrame(picked, columns=list(self.columns), copy=False)
        for name, dtype in self._dtypes.items():
            codes = frame[name].to_numpy()
            whole = np.where(np.isfinite(codes), np.rint(codes), -1).astype(np.intp)
            values = pd.Categorical.from_codes(whole, dtype=dtype)
            text = pd.Series(values)
            if self.text_dtype != "category":
                text = text.astype(str).where(text.notna()) if self.text_dtype == "str" else text.astype(object)
            frame[name] = text
        return frame

    def _texts(self, values: Array) -> Any:
        if not self.columns:
            return values
        import pandas as pd

        return pd.DataFrame({self.columns[0]: values})

    @cached_property
    def _dtypes(self) -> dict[str, Any]:
        import pandas as pd

        return {name: pd.CategoricalDtype(list(values)) for name, values in self.categories}


def rows_for(estimator: Any, schema: Schema | None) -> Rows:
    """How this fitted estimator wants its rows.

    A frame where it was fitted with column names, so that selectors and encoders find their columns; else the matrix.
    Raises `ModelError` where the schema lacks a column or has another number of them, and where one of schema and
    estimator has texts and the other has not.
    """
    fitted = getattr(estimator, "feature_names_in_", None)
    names = () if fitted is None else tuple(str(name) for name in fitted)
    wanted = getattr(estimator, "n_features_in_", None)
    _check_readers(estimator, schema)
    if schema is not None and schema.kind is DataKind.TEXT:
        if wanted not in (None, 1):
            raise ModelError(
                f"expected an estimator of texts, got one that was fitted on {wanted} features: put the vectorizer and "
                "the classifier into one pipeline"
            )
        return Rows(names, texts=True)
    if schema is None or schema.kind is not DataKind.TABLE:
        width = None if schema is None else int(np.prod(schema.shape))
        _check_width(width, wanted)
        return Rows(names, tuple(range(len(names))))
    if not names:
        _check_width(schema.shape[0], wanted)
        return Rows()
    take = places_of(names, schema)
    rows = Rows(names, take, _categories(estimator, names, [schema.features[i] for i in take]))
    return Rows(rows.columns, rows.take, rows.categories, _text_dtype(estimator, rows))


def parts_of(estimator: Any) -> Iterator[Any]:
    """The estimator and every fitted step inside its pipelines, unions and column transformers."""
    yield estimator
    steps = [step for _, step in (*getattr(estimator, "steps", ()), *getattr(estimator, "transformer_list", ()))]
    steps += [entry[1] for entry in getattr(estimator, "transformers_", ())]
    for step in steps:
        if hasattr(step, "get_params"):
            yield from parts_of(step)


def _check_readers(estimator: Any, schema: Schema | None) -> None:
    """Vectorizers read texts, and only the texts that they are handed."""
    readers = [part for part, _ in parts_inside(estimator) if hasattr(part, "build_analyzer")]
    if any(getattr(part, "input", "content") != "content" for part in readers):
        raise ModelError("expected a vectorizer of texts, got one that opens each text as a file: set input='content'")
    named = getattr(estimator, "feature_names_in_", None) is not None
    if readers and not named and schema is not None and schema.kind is not DataKind.TEXT:
        raise ModelError(
            f"expected texts, as the estimator was fitted on, got {schema.kind} data: name their column as "
            "[data] text, or pass it alone as x"
        )


def _check_width(width: int | None, wanted: int | None) -> None:
    if width is not None and wanted is not None and width != wanted:
        raise ModelError(
            f"expected {wanted} features, as the estimator was fitted on, got {width} in the data: "
            "exclude the columns that are not features, or name the right files"
        )


def places_of(names: tuple[str, ...], schema: Schema) -> tuple[int, ...]:
    """Which column of a table each of the names that a model was fitted on is, `(d,)`.

    By name (LightGBM writes a space as _), or by place where no name is the same and there are as many. Raises
    `ModelError` where only some are there.
    """
    place = {name.replace(" ", "_"): index for index, name in enumerate(schema.names)}
    place |= {name: index for index, name in enumerate(schema.names)}
    missing = [name for name in names if name not in place]
    if not missing:
        return tuple(place[name] for name in names)
    if len(names) == len(schema.names) and set(missing) == set(names):  # an array without names: by position
        return tuple(range(len(names)))
    raise ModelError(
        f"expected the columns that the estimator was fitted on, got data without {', '.join(missing[:5])}: "
        "name the right files, or do not exclude these columns"
    )


def _categories(estimator: Any, names: tuple[str, ...], features: Any) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    numeric = _numeric_encoded(estimator)
    found = []
    for name, feature in zip(names, features, strict=True):
        if feature.kind is FeatureKind.CATEGORY:
            values: tuple[Any, ...] = feature.categories
            if name in numeric:
                values = tuple(_number(value, name) for value in values)
            found.append((name, values))
    return tuple(found)


def _number(value: str, name: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise ModelError(
            f"expected numbers as categories of {name}, as the estimator was fitted on, got {value!r}: mend the data"
        ) from error


def _numeric_encoded(estimator: Any) -> set[str]:
    """Columns whose encoder was fitted on numbers, although the data has them as categories."""
    found = set()
    for part in parts_of(estimator):
        names = getattr(part, "feature_names_in_", None)
        encoded = getattr(part, "categories_", None)
        if names is not None and isinstance(encoded, list) and len(encoded) == len(names):
            found |= {
                str(name) for name, values in zip(names, encoded, strict=True) if np.asarray(values).dtype.kind in "iuf"
            }
    return found


def _text_dtype(estimator: Any, rows: Rows) -> _TextDtype:
    """The dtype of text columns under which column selectors choose what they chose when they were fitted."""
    selectors = [
        (choose, chosen)
        for part in parts_of(estimator)
        for (_, _, choose), chosen in zip(
            getattr(part, "transformers", ()), getattr(part, "_columns", ()), strict=False
        )
        if callable(choose)
    ]
    if not selectors or not rows.categories:
        return "category"
    sample = np.zeros((1, max(rows.take) + 1))
    for dtype in get_args(_TextDtype):
        frame = Rows(rows.columns, rows.take, rows.categories, dtype)(sample)
        if all(_same_choice(choose, frame, chosen) for choose, chosen in selectors):
            found: _TextDtype = dtype
            return found
    return "category"


def _same_choice(choose: Callable[[Any], Any], frame: Any, chosen: Any) -> bool:
    return [str(name) for name in choose(frame)] == [str(name) for name in chosen]
