"""From a path, a folder or bytes to what is known of each file: the way in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from casemate.formats import digests
from casemate.formats.scanning import readers
from casemate.formats.scanning.desk import Desk
from casemate.formats.scanning.limits import LimitReached, Limits
from casemate.formats.scanning.signs import Level, Place, Scanned, Sign
from casemate.formats.scanning.source import Source, opened
from casemate.formats.scanning.weights import weight_signs

__all__ = ["files_below", "scan_bytes", "scan_file"]

_MAY_BE_EMPTY = (".py", ".typed", ".txt", ".md", ".gitkeep", ".gitignore", ".gitattributes", ".log", ".csv")

_USUAL = Limits()
_UNWEIGHED = frozenset({
    "hdf5", "tensorflow", "tensorflow-index", "rds", "xgboost-ubj", "xgboost-binary", "lightgbm", "catboost",
    "joblib-zfile",
})  # fmt: skip
_ARRAYS = frozenset({"_reconstruct", "_frombuffer", "NumpyArrayWrapper", "NDArrayWrapper", "ZNDArrayWrapper"})


def scan_file(
    path: Path, *, name: str | None = None, limits: Limits | None = None, digest: bool = False, weights: bool = False
) -> Scanned:
    """What is known of one file; `name` is how it is shown; with `weights` its tensors are read too.

    Raises `UsageError` where there is no regular file that can be opened.
    """
    return _scanned(opened(path, name), limits or _USUAL, digest, weights)


def scan_bytes(
    data: bytes, name: str, *, limits: Limits | None = None, digest: bool = False, weights: bool = False
) -> Scanned:
    """What is known of bytes in memory, which can then be loaded without being read again."""
    return _scanned(Source(name, data), limits or _USUAL, digest, weights)


def files_below(folder: Path) -> Iterator[Path]:
    """Every entry below a folder that is no folder itself, sorted; links to folders are not followed.

    A folder that cannot be read comes as if it were a file, so that whoever opens it hears why.
    """
    closed: list[OSError] = []
    for top, folders, names in os.walk(folder, onerror=closed.append, followlinks=False):
        folders.sort()
        linked = [item for item in folders if (Path(top) / item).is_symlink()]
        yield from (Path(top) / item for item in sorted([*names, *linked]))
    yield from (Path(error.filename) for error in closed)


def _scanned(source: Source, limits: Limits, digest: bool, weights: bool) -> Scanned:
    desk = Desk(readers.known(), limits, source.size, weights=weights)
    signs: dict[Sign, None] = {}
    if not source.size and not source.name.endswith(_MAY_BE_EMPTY):
        signs[_empty(source)] = None
    try:
        for sign in desk.look(source):
            signs[sign] = None
    except LimitReached as error:
        signs[_limit(source, error)] = None
    signs |= dict.fromkeys(_weighed(desk, source)) if weights else {}
    return Scanned(
        source.file, source.size, tuple(desk.formats), tuple(signs), tuple(sorted(desk.used)), tuple(desk.members),
        digests.sha256_bytes(source.data) if digest else "",
    )  # fmt: skip


def _weighed(desk: Desk, source: Source) -> Iterator[Sign]:
    asked = {pickle: frozenset(keys) for pickle, keys in desk.asked.items()}
    yield from weight_signs(desk.weighed, desk.stored, asked)
    arrays = any(item.name in _ARRAYS for item in desk.used)
    unread = [name for name in desk.formats if name in _UNWEIGHED or (name == "pickle" and arrays)]
    if unread or desk.unweighed:
        what = f"weights that are not checked: {', '.join(unread) or 'tensors whose type is not known'}"
        place = source.place() if unread else desk.unweighed[0]
        why = "whether something is hidden in them is not known; the rest of the file was read"
        yield Sign(Level.UNREADABLE, "weights/unchecked", what, place, why, "check the model as safetensors")


def _limit(source: Source, error: LimitReached) -> Sign:
    bomb = error.rule != "limits/time"
    return Sign(
        Level.MALICIOUS if bomb else Level.UNREADABLE, error.rule, str(error), Place(source.file),
        "it exhausts the memory, disk or time of who opens it" if bomb else "it could not be read to its end in time",
        "do not unpack it" if bomb else "scan it again with more time if you know who wrote it",
    )  # fmt: skip


def _empty(source: Source) -> Sign:
    return Sign(
        Level.UNREADABLE, "format/empty", "an empty file", source.place(), "there is nothing to judge", "get it again"
    )
