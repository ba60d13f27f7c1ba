"""How large a file becomes when it is read, said by its own directory and held against this machine's memory."""

from __future__ import annotations

import io
import os
import zipfile
from collections import Counter
from pathlib import Path

from casemate.errors import UsageError

__all__ = ["check_archive", "memory"]

_RATIO = 200  # arrays of measured things shrink by 2 to 50; DEFLATE's limit, on zeros, is 1,032
_HARMLESS = 1 << 26  # bytes that any machine has, whatever the ratio


def check_archive(path: Path, error: type[UsageError], data: bytes | None = None) -> None:
    """Hold a zip file (.npz, .skops, .pt) to a size that can be unpacked, before any of it is.

    `data` are the bytes of the file where they were read already; then `path` only names it.
    Raises `error` for one that unpacks to more than this machine's memory, or to more than 200 times its own size
    (above 64 MiB): a zip bomb; and for one that has a name twice, since readers differ in which of the two they take.
    Its directory can be believed, since Python reads no further than it says. A file that is no archive is left to its
    reader.
    """
    try:
        with zipfile.ZipFile(path if data is None else io.BytesIO(data)) as archive:
            items = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return
    names = [item.filename for item in items]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise error(
            f"expected each name once in {path.name}, got {twice!r} again, of which other programs may read the other: "
            "save the file again"
        )
    total, held = sum(item.file_size for item in items), max(path.stat().st_size if data is None else len(data), 1)
    if total > memory():
        raise error(
            f"expected {path.name} to fit into memory ({_told(memory())}), got an archive that unpacks to "
            f"{_told(total)}: give fewer rows"
        )
    if total > max(_HARMLESS, _RATIO * held):
        raise error(
            f"expected {path.name} to unpack to at most {_RATIO} times its size ({_told(held)}), got {_told(total)}: "
            "it is a zip bomb, or hardly anything; save it without compression if you know who wrote it"
        )


def memory() -> int:
    """The memory of this machine in bytes; 64 GiB where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 36


def _told(size: int) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"
