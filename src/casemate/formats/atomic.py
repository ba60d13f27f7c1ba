"""Write a file or a folder whole or not at all.

Everything is built under a hidden name beside its destination, forced to disk, and renamed, which is one step on a
local file system. After an error nothing is left; after a crash at most a hidden `.NAME.*.tmp`, never half a file
under the real name.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from casemate.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["write", "write_new_folder"]


def write(path: str | os.PathLike[str], data: bytes, *, mode: int = 0o666) -> None:
    """Replace or create a file; readers see the old content or the new, never a mixture.

    `mode` is narrowed by the umask. A symbolic link at `path` is replaced, not followed.

    Raises `UsageError` if the folder is missing, the place is not writable or the disk is full; the old file is then
    untouched. Devices, pipes and the links of /dev are refused: root could replace /dev/null with a file.
    """
    target = Path(path)
    _refuse_special(target)
    with _reported(target):
        aside = _aside(target)
        try:
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(aside, target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)


@contextlib.contextmanager
def write_new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a folder to fill; when the block ends well it appears at `path`, when it raises it is gone.

    Raises `UsageError` if `path` exists, before the block and again before the rename, or cannot be written.
    """
    target = Path(path)
    _refuse_existing(target)
    with _reported(target):
        aside = _aside(target)
        aside.mkdir()
    try:
        yield aside
        with _reported(target):
            _sync_tree(aside)
            _refuse_existing(target)
            os.rename(aside, target)
            _sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _aside(target: Path) -> Path:
    # the name is cut so that the longest legal file name still has room for the suffix
    return target.parent / f".{target.name[:40]}.{secrets.token_hex(8)}.tmp"


@contextlib.contextmanager
def _reported(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        mend = "create the folder, free some space or choose another place"
        raise UsageError(f"expected to be able to write {target}, got {error.strerror or error}: {mend}") from error


def _refuse_special(target: Path) -> None:
    device = target.absolute().parent in (Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd"))
    if device or (target.exists() and not target.is_file() and not target.is_dir()):
        raise UsageError(f"expected the name of a file, got the device or pipe {target}: name a file")


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise UsageError(f"expected a new folder, got existing {target}: choose another name or remove it")


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent, name)
            if file.is_file() and not file.is_symlink():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        _sync_folder(Path(parent))


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
