"""Faults of the machine (a full disk, a lost database), told apart from those of a plug-in: they end an audit."""

from __future__ import annotations

import errno

from casemate.errors import CasemateError, Unavailable, UsageError

__all__ = ["fault_of"]

_PLACES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
_AGAIN = "then go on with --resume"


def fault_of(error: BaseException) -> CasemateError | None:
    """The error to raise where the machine is behind `error`, and `None` where a plug-in or a model is.

    An outcome that says `failed` would be kept and read again by a resumed run; the machine's fault is gone by then.
    """
    part: BaseException | None = error
    while part is not None:
        if isinstance(part, OSError) and part.errno in _PLACES:
            return error if isinstance(error, CasemateError) else _disk(part)
        if type(part).__module__ == "sqlalchemy.exc":
            reason = str(part).splitlines()[0]
            return Unavailable(f"expected the store to keep results, got {reason}: mend or make room for it, {_AGAIN}")
        part = part.__cause__
    return None


def _disk(error: OSError) -> UsageError:
    return UsageError(f"expected to be able to write, got {error.strerror}: free some space, {_AGAIN}")
