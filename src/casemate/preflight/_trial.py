"""What is tried before an audit begins, since it would break one plug-in after the other: options, and a few rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.model import Model
from casemate.core.planner import Step
from casemate.engine.chance import drawn
from casemate.errors import CasemateError, DataError

__all__ = ["try_out"]

_FEW = 2  # rows; and one more with a missing value


def try_out(case: Case, steps: Sequence[Step]) -> None:
    """Hold the options of all that will run against the case, and ask the model a few rows if any of it will ask it.

    Two rows of each split, and one with a missing value where there is one; on no meter. An endpoint is not asked: it
    answered made-up samples when it was connected, and they counted. Raises `ConfigError` for options that do not fit
    the case, `DataError` for rows that the model does not take.
    """
    running = [step for step in steps if step.skipped is None]
    for step in running:
        if (check := getattr(step.options, "check", None)) is not None:
            check(case)
    model = case.model
    if model is not None and model.framework != "http" and any(model.offers & step.plugin.needs for step in running):
        for part, data in case.splits.parts().items():
            _answers(model, part, data)


def _answers(model: Model, part: str, data: Data) -> None:
    missing = _missing(data.x)
    whole = np.flatnonzero(~missing)[:_FEW]
    mend = "give it the columns, types and shape that it was fitted with"
    _asked(model, data, whole, f"the rows of the {part} data", mend)
    for row in np.flatnonzero(missing)[:1]:
        what = f"rows with a missing value, as {data.sample_id[row]!s} of the {part} data"
        _asked(model, data, np.array([row]), what, "fill them in, or audit the pipeline that does")


def _asked(model: Model, data: Data, rows: NDArray[np.intp], what: str, mend: str) -> None:
    if not len(rows):
        return
    try:
        with drawn(0, "trial"):
            model.labels(data.take(rows).x)
    except CasemateError:
        raise
    except Exception as error:  # a model may raise anything
        said = next(iter(str(error).splitlines()), "")
        raise DataError(
            f"expected {model.name} to take {what}, got {type(error).__name__}: {said.rstrip('.')}: {mend}"
        ) from error


def _missing(x: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows have a missing value, `(n,)`."""
    if x.dtype.kind != "f":
        return np.zeros(len(x), dtype=bool)
    return np.asarray(np.isnan(x).reshape(len(x), -1).any(axis=1))
