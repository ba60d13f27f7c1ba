"""Faults of the machine (a full disk, a lost database), told apart from those of a plug-in: they end an audit."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from pathlib import Path

from casemate.errors import CasemateError, Unavailable, UsageError

__all__ = ["fault_of", "no_room", "opening_fault"]

_PLACES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_AGAIN = "then go on with --resume"
_ELSEWHERE = "choose another place with --store"
_NEW = 256 * 1024  # bytes that a new store takes while it is made, its log included


def fault_of(error: BaseException) -> CasemateError | None:
    """The error to raise where the machine is behind `error`, and `None` where a plug-in or a model is.

    An outcome that says `failed` would be kept and read again by a resumed run; the machine's fault is gone by then.
    """
    part: BaseException | None = error
    while part is not None:
        if isinstance(part, OSError) and part.errno in _PLACES:
            return error if isinstance(error, CasemateError) else _disk(part)
        if type(part).__module__ == "sqlalchemy.exc":
            return error if isinstance(error, CasemateError) else _lost(part)
        part = part.__cause__
    return None


def opening_fault(error: Exception, file: str | None, *, named: bool) -> CasemateError:
    """What to raise where a store cannot be opened; `named`: the user named the folder of its `file`, and no URL."""
    if (fault := no_room(error, file)) is not None:
        return fault
    if named:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        return Unavailable(f"expected a store at {file}, got {reason}: mend or move the file, or {_ELSEWHERE}")
    reason = str(error).splitlines()[0]
    return Unavailable(f"expected a database for the store, got {reason}: check the URL and that it runs")


def no_room(error: Exception, file: str | None) -> Unavailable | None:
    """What to raise where the disk of SQLite's `file` is full or cannot be written; `None` for any other fault.

    SQLite says so in plain words only where it writes the file itself; for its log or its shared memory it says "disk
    I/O error", and the disk has to be asked.
    """
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    if code is None or not file:
        return None
    folder = Path(file).absolute().parent
    fault = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if code & 0xFF == sqlite3.SQLITE_FULL else None
    if code & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        fault = _refusal(folder)
    if fault is None or fault.errno not in {*_PLACES, errno.EACCES, errno.EPERM}:
        return None
    mend = f"free some space, or {_ELSEWHERE}" if fault.errno in _SPACE else _ELSEWHERE
    return Unavailable(f"expected to write the store in {folder}, got {str(fault.strerror).lower()}: {mend}")


def _refusal(folder: Path) -> OSError | None:
    """Why the folder takes no more bytes; `None` where it takes what a new store needs."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_NEW))
            file.flush()
    except OSError as error:
        return error
    return None


def _lost(error: BaseException) -> CasemateError:
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) or 0
    if code & 0xFF == sqlite3.SQLITE_FULL:
        return Unavailable(f"expected room for the store to keep results, got no space left: free some, {_AGAIN}")
    reason = str(error).splitlines()[0]
    return Unavailable(f"expected the store to keep results, got {reason}: mend or make room for it, {_AGAIN}")


def _disk(error: OSError) -> UsageError:
    return UsageError(f"expected to be able to write, got {error.strerror}: free some space, {_AGAIN}")
