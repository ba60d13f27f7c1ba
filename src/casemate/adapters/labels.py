"""Class names and class indices: one spelling for labels that come as text, numbers or truth values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.errors import DataError

__all__ = ["check_labels", "class_name", "encode", "sorted_classes"]

Array = NDArray[Any]

_REGRESSION = (
    "for a regression set [data] task = 'regression' (in Python, wrap the model as one, a torch net by "
    "casemate.adapters.torch.wrap_module(net, regression=True))"
)


def class_name(value: object) -> str:
    """The name of a class: text as it is, whole numbers without a fraction (`1.0` is `1`), truth values in words."""
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    return str(plain)


def sorted_classes(values: Iterable[object]) -> tuple[str, ...]:
    """The names of the different values, numbers by size and anything else by the alphabet."""
    names = sorted({class_name(value) for value in values})  # first: a set has another order in each process
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return tuple(names)
    return tuple(names if any(map(math.isnan, numbers.values())) else sorted(names, key=numbers.__getitem__))


def encode(values: Array, classes: Sequence[str], *, where: str = "y") -> NDArray[np.int64]:
    """Class indices `(n,)` of labels: by name where every label is one, else whole numbers in `[0, k)` are indices.

    Raises `DataError` for a label that is neither.
    """
    unique, inverse = np.unique(np.asarray(values), return_inverse=True)
    place = {name: index for index, name in enumerate(classes)}
    names = [class_name(value) for value in unique]
    unknown = [name for name in names if name not in place]
    if not unknown:
        found = np.array([place[name] for name in names], dtype=np.int64)
    elif unique.dtype.kind in "iub" and unique.min() >= 0 and unique.max() < len(classes):
        found = unique.astype(np.int64)
    else:
        raise DataError(
            f"expected labels in {where} among the classes {_some(classes)}, got {_some(unknown)}: "
            "name the right target, or list all classes"
        )
    return found[inverse.reshape(-1)]


def check_labels(y: Array, where: str) -> None:
    """Hold labels `(n,)` to what a classifier can have.

    Raises `DataError` for another shape or type, missing labels, fractions, and more than 1,000 different values or
    (from 100 rows on) different ones in most rows: the target of a regression, or an id.
    """
    if y.ndim != 1:
        raise DataError(f"expected labels of shape (n,) in {where}, got {y.shape}: pass class names or indices")
    if y.dtype.kind not in "biufUST":
        raise DataError(f"expected labels as text or numbers in {where}, got {y.dtype}: convert them with astype")
    if y.dtype.kind == "f":
        if not np.isfinite(y).all():
            raise DataError(
                f"expected a label in every row of {where}, got none in {int((~np.isfinite(y)).sum())}: drop them"
            )
        fractional = int((y != np.rint(y)).sum())
        if fractional:
            raise DataError(
                f"expected class labels in {where}, got {fractional} fractional numbers, a regression target: name "
                f"another target, or {_REGRESSION}"
            )
    count = len(np.unique(y))
    if count > 1000 or (len(y) >= 100 and count > len(y) / 2):
        raise DataError(
            f"expected class labels in {where}, got {count} different values in {len(y)} rows, a regression target "
            f"or an id: name another target, or {_REGRESSION}"
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 6 else shown
