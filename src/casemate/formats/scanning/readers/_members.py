"""Members of archives: names and links that leave the folder, and what was unpacked kept without filling the memory."""

from __future__ import annotations

import mmap
import re
import stat
import tempfile
import zlib
from collections.abc import Callable
from typing import IO, Protocol, Self

from casemate.formats.scanning.desk import Desk

__all__ = ["Decoder", "Heap", "Inflater", "Links", "climbs", "leaves", "pour", "special"]

_STEP = 1 << 18  # bytes that one call may unpack before they are charged
_FEED = 1 << 16
_SIP = 1 << 10  # bytes: less than any reader of streams takes at a time
_CUT = "the stream is cut short"
_HELD = 1 << 25  # bytes kept in memory; what is longer goes to an unlinked file
_FOLLOWED = 64  # links after each other: systems follow forty
_PARTS = 10_000  # of a path on the way
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


class Links:
    """The symbolic links of an archive, as they are unpacked one after the other: where a path leads through them."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], str] = {}

    def add(self, name: str, target: str) -> str:
        """Take in a link; why its target leaves the folder, empty where it does not."""
        folder, _, last = name.replace("\\", "/").rstrip("/").rpartition("/")
        base = self._followed(folder, ())
        if base is None:
            return "lies behind links that climb out"
        end = self._followed(target, base)
        self._known[(*base, last)] = target
        return "climbs out through other links" if end is None else ""

    def behind(self, name: str) -> str:
        """Why a member must not be unpacked where its name says, as links lead there; empty where none does."""
        folder = name.replace("\\", "/").rstrip("/").rpartition("/")[0]
        if not self._known or not folder:
            return ""
        found = self._followed(folder, ())
        if found is None:
            return "leads out of the folder through links"
        return "lies behind a link" if found != _plain_parts(folder) else ""

    def _followed(self, path: str, base: tuple[str, ...]) -> tuple[str, ...] | None:
        """The parts of a path from `base`, with links followed; `None` where it leaves the top, or never ends."""
        at, todo, left = list(base), list(reversed(path.replace("\\", "/").split("/"))), _FOLLOWED
        while todo:
            part = todo.pop()
            if part == "..":
                if not at:
                    return None
                at.pop()
            elif part not in ("", "."):
                target = self._known.get((*at, part))
                if target is None:
                    at.append(part)
                    continue
                todo += reversed(target.replace("\\", "/").split("/"))
                left -= 1
                if not left or len(todo) > _PARTS:
                    return None
        return tuple(at)


def _plain_parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", "."))


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


def pour(make: Callable[[], Decoder], data: bytes | memoryview, at: int, desk: Desk, heap: Heap) -> tuple[int, str]:
    """Unpack one stream that begins at byte `at` into `heap`: the byte after it, and what is wrong with it.

    Raises `LimitReached` for a bomb, with at most one step of it unpacked too much.
    """
    begun = heap.size
    end, fault = _poured(make(), data, (at, 0), (_FEED, _STEP), (desk, heap))
    if fault not in ("", _CUT):
        # Who takes a few bytes at a time gets more before the fault than who takes many: pickles run that far.
        _poured(make(), data, (at, heap.size - begun), (_SIP, _SIP), (desk, heap))
    return end, fault


def _poured(
    decoder: Decoder, data: bytes | memoryview, start: tuple[int, int], steps: tuple[int, int], into: tuple[Desk, Heap]
) -> tuple[int, str]:
    """Unpack from byte `start[0]` what follows the first `start[1]` bytes; `steps`: bytes in and out at a time."""
    (at, known), (most, step), (desk, heap) = start, steps, into
    try:
        while not decoder.eof:
            feed = bytes(data[at : at + most]) if decoder.needs_input else b""
            at += len(feed)
            out = decoder.decompress(feed, step)
            desk.meter.tick()
            ended = not out and not feed and not decoder.eof
            skipped = min(known, len(out))
            known, out = known - skipped, out[skipped:]
            desk.meter.expand(len(out))
            heap.add(out)
            if ended:
                return at, _CUT
    except (zlib.error, OSError, ValueError, EOFError, ArithmeticError) as error:
        return at, f"the stream is damaged ({error})"
    except Exception as error:
        if type(error).__name__ != "LZMAError":  # imported only where it is used
            raise
        return at, f"the stream is damaged ({error})"
    return at - len(decoder.unused_data), ""
