"""Calibrations as files: one sealed container each."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from casemate.core.records import Calibration
from casemate.errors import FormatError
from casemate.formats import arrays

__all__ = ["read", "write"]

_PLAIN = [item.name for item in fields(Calibration) if item.name not in ("numbers", "arrays")]


def write(calibration: Calibration) -> bytes:
    """A calibration as bytes; equal calibrations give equal bytes."""
    plain = {name: getattr(calibration, name) for name in _PLAIN}
    numbers = {f"number:{name}": float(value) for name, value in calibration.numbers.items()}
    parts = {f"array:{name}": np.asarray(value) for name, value in calibration.arrays.items()}
    return arrays.pack({**plain, **numbers, **parts})


def read(data: bytes) -> Calibration:
    """The calibration that was written; raises `FormatError` for anything else."""
    values: dict[str, Any] = arrays.unpack(data)
    try:
        plain = {name: values.pop(name) for name in _PLAIN}
    except KeyError as error:
        raise FormatError(f"expected a calibration with the field {error}, got none: calibrate again") from error
    if plain["version"] != 1:
        raise FormatError(f"expected a calibration of version 1, got {plain['version']}: calibrate again")
    numbers = {name[7:]: value for name, value in values.items() if name.startswith("number:")}
    parts = {name[6:]: value for name, value in values.items() if name.startswith("array:")}
    if len(numbers) + len(parts) != len(values):
        raise FormatError("expected only numbers and arrays in a calibration, got more: calibrate again")
    return Calibration(**plain, numbers=numbers, arrays=parts)
