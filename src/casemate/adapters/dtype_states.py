"""States of numpy's dtypes in pickles: held to what numpy itself would write, since numpy believes them.

A pickle that gives the dtype of floats the flag of Python objects makes numpy count references at addresses of the
pickle's choice. Source: numpy's descriptor.c, `arraydescr_setstate` and `arraydescr_reduce`.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

__all__ = ["check_dtype_state"]

_VERSIONS = (3, 4)


def check_dtype_state(made: np.dtype[Any], state: Any) -> None:
    """Raise `UnpicklingError` unless `state` is one that numpy writes for `made`, before it is given to it."""
    if not isinstance(state, tuple) or len(state) not in (8, 9) or state[0] not in _VERSIONS:
        raise pickle.UnpicklingError("a dtype with a state of another form")
    if not any(_same(_written(item), state) for item in _candidates(made, state)):
        raise pickle.UnpicklingError(f"a dtype {made.str} with a state that numpy does not give it")
    if len(state) == 9 and not _unit(state[8]):
        raise pickle.UnpicklingError(f"a dtype {made.str} with metadata")


def _candidates(made: Any, state: tuple[Any, ...]) -> list[Any]:
    """The dtypes that such a state may describe, made anew by numpy's own constructor."""
    _, order, sub, names, fields, size, *_ = state
    try:
        if sub is not None:
            return [np.dtype((sub[0], tuple(sub[1])))]
        if names is None:
            return [made.newbyteorder(order) if order in ("<", ">") else made] if fields is None else []
        if made.kind != "V" or set(fields) != set(names):
            return []
        parts: Any = {
            "names": list(names),
            "formats": [fields[name][0] for name in names],
            "offsets": [fields[name][1] for name in names],
            "itemsize": size,
        }
        return [np.dtype(parts), *_aligned(parts)]
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise pickle.UnpicklingError("a dtype that numpy cannot make") from error


def _aligned(parts: Any) -> list[Any]:
    try:
        return [np.dtype(parts, align=True)]
    except ValueError:
        return []


def _written(dtype: Any) -> tuple[Any, ...]:
    state: tuple[Any, ...] = dtype.__reduce__()[2]
    return state


def _same(written: tuple[Any, ...], state: tuple[Any, ...]) -> bool:
    """Whether two states are of one form and say the same; the unit of a date is in the state alone."""
    return len(written) == len(state) and written[0] == state[0] and written[1:8] == state[1:8]


def _unit(told: Any) -> bool:
    """The unit of dates and durations: `(None or {}, (unit, number, divisor, events))`."""
    if not isinstance(told, tuple) or len(told) != 2 or told[0] or not isinstance(told[1], tuple):
        return False
    name, *numbers = told[1] or (None,)
    return isinstance(name, bytes | str) and len(numbers) == 3 and all(type(item) is int for item in numbers)
