"""The bytes that are scanned: of a file, of a member, of a stretch; read without copying where that can be."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

from casemate.errors import UsageError
from casemate.formats.scanning.signs import Place

__all__ = ["Source", "opened"]

_HELD = 1 << 24  # bytes: files up to this size are read whole, larger ones are mapped
_HEAD = 4096
_OPEN = os.O_RDONLY  # a pipe without a writer must not wait for one
for _flag in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"):
    _OPEN |= getattr(os, _flag, 0)


class Source:
    """A stretch of bytes with a name.

    `data` is all of it (bytes-like, of a map where the file is large: slicing copies only the slice); `path` the
    members down to it, `()` for the file itself; `file` the file as the user named it; `inert`: the container says
    that this is mere data (a tensor), so that nothing has to recognise it; `script`: its names are those of the
    TorchScript archive that it lies in; `outline`: what one reader has seen of it and others need again.
    """

    __slots__ = ("_name", "data", "file", "head", "inert", "outline", "path", "script", "size")

    def __init__(self, file: str, data: bytes | memoryview, path: tuple[str, ...] = (), *, inert: bool = False) -> None:
        self.file = file
        self.data = data
        self.path = path
        self.inert = inert
        self.script = False
        self.size = len(data)
        self.head = bytes(data[:_HEAD])
        self.outline: object = None
        self._name: str | None = None

    @property
    def name(self) -> str:
        """The last part of the innermost name, in lower case: a hint for text formats, never a reason to trust."""
        if self._name is None:
            self._name = (self.path[-1] if self.path else self.file).replace("\\", "/").rsplit("/", 1)[-1].lower()
        return self._name

    @property
    def depth(self) -> int:
        """In how many containers it lies."""
        return len(self.path)

    def read(self, at: int = 0, n: int | None = None) -> bytes:
        """`n` bytes from `at`, fewer at the end; all that follow without `n`."""
        return bytes(self.data[at:] if n is None else self.data[at : at + n])

    def part(self, name: str, at: int = 0, n: int | None = None, *, inert: bool = False) -> Source:
        """A member that lies in it uncompressed, not copied."""
        view = memoryview(self.data)
        return Source(self.file, view[at:] if n is None else view[at : at + n], (*self.path, name), inert=inert)

    def member(self, name: str, data: bytes, *, inert: bool = False) -> Source:
        """A member that was unpacked."""
        return Source(self.file, data, (*self.path, name), inert=inert)

    def place(self, offset: int | None = None, opcode: str = "") -> Place:
        """Where in it."""
        return Place(self.file, "!/".join(self.path), offset, opcode)


def opened(path: Path, name: str | None = None) -> Source:
    """The bytes of a regular file; a map of a large one goes when nothing holds a view of it any more.

    Raises `UsageError` for what is no regular file, or cannot be opened.
    """
    shown = name or str(path)
    try:
        number = os.open(path, _OPEN)
        try:
            kind = os.fstat(number)
            if not stat.S_ISREG(kind.st_mode):  # a device never ends
                raise UsageError(f"expected a file, got a folder, device or pipe at {shown}: give a file")
            return Source(shown, _held(number, kind.st_size))
        finally:
            os.close(number)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"expected a file, got nothing that can be read at {shown}: {error}: check the path"
        ) from error


def _held(number: int, size: int) -> bytes | memoryview:
    if size > _HELD:
        return memoryview(mmap.mmap(number, 0, access=mmap.ACCESS_READ))
    data = os.read(number, size + 1)
    if len(data) != size:  # it grows, or comes in pieces
        data = b"".join([data, *iter(lambda: os.read(number, _HELD), b"")])
    return data
