"""Members of archives: names and links that leave the folder, and what was unpacked kept without filling the memory."""

from __future__ import annotations

import mmap
import re
import stat
import tempfile
import zlib
from typing import IO, Protocol, Self

from casemate.formats.scanning.desk import Desk

__all__ = ["Decoder", "Heap", "Inflater", "climbs", "leaves", "pour", "special"]

_STEP = 1 << 18  # bytes that one call may unpack before they are charged
_FEED = 1 << 16
_HELD = 1 << 25  # bytes kept in memory; what is longer goes to an unlinked file
_DRIVE = re.compile(r"[A-Za-z]:")
_KINDS = {
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def climbs(name: str) -> str:
    """Why a member's name leaves the folder it is unpacked into, empty where it does not."""
    plain = name.replace("\\", "/")
    if "\0" in name:
        return "contains a NUL, where some tools end the name"
    if plain.startswith("/"):
        return "is absolute"
    if _DRIVE.match(plain):
        return "begins with a drive letter"
    return "climbs out with .." if ".." in plain.split("/") else ""


def leaves(name: str, target: str, *, hard: bool = False) -> str:
    """Why a link leaves the folder, empty where it does not; a hard link's target counts from the top."""
    if why := climbs(target.replace("..", "up")):
        return why
    depth = 0 if hard else len([part for part in name.replace("\\", "/").split("/")[:-1] if part not in ("", ".")])
    for part in target.replace("\\", "/").split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            return "climbs out with .."
    return ""


def special(mode: int) -> str:
    """What a Unix mode makes of a member that is neither file, folder nor link; empty where it is one."""
    return _KINDS.get(stat.S_IFMT(mode), "")


class Decoder(Protocol):
    """What `bz2` and `lzma` offer."""

    @property
    def eof(self) -> bool:
        """The stream has ended."""

    @property
    def needs_input(self) -> bool:
        """All that was fed has been unpacked."""

    @property
    def unused_data(self) -> bytes:
        """What was fed past the end."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most `max_length` bytes."""


class Inflater:
    """`zlib` with the manners of `bz2`; raises `zlib.error`."""

    def __init__(self, bits: int) -> None:
        self._inner = zlib.decompressobj(bits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        """The stream has ended."""
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        """What was fed past the end."""
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most `max_length` bytes."""
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max(0, max_length))
        self.needs_input = not self._inner.unconsumed_tail and len(out) < max_length
        return out


class Heap:
    """Bytes as they are unpacked: in memory while they are few, in a file without a name after.

    To be used in a `with` block; what `done` gave stays after it.
    """

    def __init__(self) -> None:
        self.size = 0
        self._held = bytearray()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, data: bytes) -> None:
        """Append."""
        self.size += len(data)
        if self._file is not None:
            self._file.write(data)
            return
        self._held += data
        if self.size > _HELD:
            self._file = tempfile.TemporaryFile(prefix="casemate-")  # noqa: SIM115 - closed on leaving the block
            self._file.write(self._held)
            self._held = bytearray()

    def done(self) -> bytes | memoryview:
        """All of it; the file goes when nobody holds the map any more."""
        if self._file is None:
            return bytes(self._held)
        self._file.flush()
        return memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))


def pour(decoder: Decoder, data: bytes | memoryview, at: int, desk: Desk, heap: Heap) -> tuple[int, str]:
    """Unpack one stream that begins at byte `at` into `heap`: the byte after it, and what is wrong with it.

    Raises `LimitReached` for a bomb, with at most one step of it unpacked too much.
    """
    try:
        while not decoder.eof:
            feed = bytes(data[at : at + _FEED]) if decoder.needs_input else b""
            at += len(feed)
            out = decoder.decompress(feed, _STEP)
            desk.meter.expand(len(out))
            desk.meter.tick()
            heap.add(out)
            if not out and not feed and not decoder.eof:
                return at, "the stream is cut short"
    except (zlib.error, OSError, ValueError, EOFError, ArithmeticError) as error:
        return at, f"the stream is damaged ({error})"
    except Exception as error:
        if type(error).__name__ != "LZMAError":  # imported only where it is used
            raise
        return at, f"the stream is damaged ({error})"
    return at - len(decoder.unused_data), ""
