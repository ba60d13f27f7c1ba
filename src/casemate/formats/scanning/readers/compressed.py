"""Compressed streams: gzip, bzip2, xz, LZMA, zlib, LZ4, Zstandard.

joblib, R and `tar` write models so. What is inside is looked at by its content; several streams after each other are
one text, as every tool reads them; what follows the last is a sign, and is looked at too.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

from casemate.formats.scanning.desk import Damaged, Desk, Reader, begins, firsts_of
from casemate.formats.scanning.readers import _lz4, _zstd
from casemate.formats.scanning.readers._members import Decoder, Heap, Inflater, pour
from casemate.formats.scanning.readers._signs import SUSPICIOUS, noted
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_MEMORY = 1 << 27  # bytes of dictionary that a stream may ask for; the strongest preset of xz asks for half of it
_STEP = 1 << 18
_SUFFIXES = (".gz", ".bz2", ".xz", ".lzma", ".zlib", ".z", ".lz4", ".zst")

Unpack = Callable[[Source, int, Desk, Heap], tuple[int, str]]


def _reader(name: str, claims: Callable[[Source], bool], unpack: Unpack, *magics: bytes, firsts: bytes = b"") -> Reader:
    """A reader of streams that `unpack` unpacks; those that begin by `magics` may follow each other."""

    def read(source: Source, desk: Desk) -> Iterator[Sign]:
        with Heap() as heap:
            at, fault = unpack(source, 0, desk, heap)
            while not fault and magics and source.read(next_at := _past_zeros(source, at, desk), 6).startswith(magics):
                at, fault = unpack(source, next_at, desk, heap)
            inside = Source(source.file, heap.done(), (*source.path, _inner(source)), inert=source.inert)
        yield from desk.look(inside)
        if fault:
            raise Damaged(f"{name}: {fault}", at)
        rest = _past_zeros(source, at, desk)
        if rest < source.size:
            what = f"{source.size - at} bytes after the end of the stream"
            why = "the tools that read the stream do not show them: they are there for somebody else"
            yield noted(source, SUSPICIOUS, f"{name}/trailing", what, why=why, mend="compress it anew", at=at)
            yield from desk.look(source.part(f"after {at}", rest))
        elif not heap.size:
            raise Damaged(f"{name}: a stream of nothing", 0)

    return Reader(name, claims, read, firsts=firsts or firsts_of(*magics))


def _past_zeros(source: Source, at: int, desk: Desk) -> int:
    """The first byte from `at` that is not zero: zeros may follow a stream, and Python goes on after them."""
    while at < source.size:
        desk.meter.tick()
        chunk = source.read(at, _STEP)
        rest = chunk.lstrip(b"\0")
        at += len(chunk) - len(rest)
        if rest:
            break
    return at


def _inner(source: Source) -> str:
    name = source.name
    if name.endswith(".tgz"):
        return name.removesuffix(".tgz") + ".tar"
    return next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end) and name != end), name)


def _by(decoder: Callable[[], Decoder]) -> Unpack:
    return lambda source, at, desk, heap: pour(decoder, source.data, at, desk, heap)


def _inflated(bits: int) -> Unpack:
    return _by(lambda: Inflater(bits))


def _bz2() -> Decoder:
    import bz2

    return bz2.BZ2Decompressor()


def _xz() -> Decoder:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY)


def _lzma() -> Decoder:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, _MEMORY)


def _tries(source: Source, decoder: Callable[[], Decoder]) -> bool:
    """Whether the first bytes unpack, for formats whose magic is too short to say."""
    try:
        inner = decoder()
        return bool(inner.decompress(source.head, 64)) or inner.eof
    except (zlib.error, OSError, ValueError, EOFError):
        return False
    except Exception as error:
        if type(error).__name__ != "LZMAError":  # imported only where it is used
            raise
        return False


def _is_zlib(source: Source) -> bool:
    head = source.head
    if source.inert or len(head) < 8 or head[0] != 0x78 or int.from_bytes(head[:2], "big") % 31:
        return False
    return not head[1] & 0x20 and _tries(source, lambda: Inflater(15))


def _is_lzma(source: Source) -> bool:
    return not source.inert and source.head.startswith(b"\x5d\0") and _tries(source, _lzma)


def _unpack_lz4(source: Source, at: int, desk: Desk, heap: Heap) -> tuple[int, str]:
    return _lz4.unpacked(memoryview(source.data), at, desk, heap)


def _unpack_zstd(source: Source, at: int, desk: Desk, heap: Heap) -> tuple[int, str]:
    return _zstd.unpacked(memoryview(source.data), at, desk, heap)


def _read_zstd(source: Source, desk: Desk) -> Iterator[Sign]:
    """The frames, and what lies in those that readers skip."""
    yield from _ZSTD.read(source, desk)
    for at, size in _zstd.asides(memoryview(source.data), desk):
        yield from desk.look(source.part(f"skipped at {at}", at, size, inert=True))


def _unpack_gzip(source: Source, at: int, desk: Desk, heap: Heap) -> tuple[int, str]:
    """One member. Its checksum is looked at last, as Python does: what is wrong by it has long been read."""
    begin = _gzip_body(source, at)
    if begin is None:
        return at, "expected a header of gzip"
    unpackers: list[_Summed] = []

    def make() -> _Summed:
        unpackers.append(_Summed(-15))
        return unpackers[-1]

    end, fault = pour(make, source.data, begin, desk, heap)
    told = source.read(end, 8)
    if not fault and told != struct.pack("<2L", unpackers[0].crc, unpackers[0].size & 0xFFFFFFFF):
        return end, "its checksum or its size is not what it tells"
    return min(end + 8, source.size), fault


def _gzip_body(source: Source, at: int) -> int | None:
    """The byte after a header of gzip; `None` where it is none."""
    head = source.read(at, 12)
    if len(head) < 12 or head[:3] != b"\x1f\x8b\x08":
        return None
    flags, here = head[3], at + 10
    if flags & 4:
        here += 2 + int.from_bytes(head[10:12], "little")
    for flag in (8, 16):  # a name and a comment, which end with NUL
        while flags & flag:
            text = source.read(here, _STEP)
            end = text.find(b"\0")
            here += end + 1 if end >= 0 else len(text)
            if end >= 0 or not text:
                break
    return here + (2 if flags & 2 else 0)


class _Summed(Inflater):
    """An inflater that sums up what it gives."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.crc = 0
        self.size = 0

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most `max_length` bytes."""
        out = super().decompress(data, max_length)
        self.crc = zlib.crc32(out, self.crc)
        self.size += len(out)
        return out


_ZSTD = _reader("zstd", begins(*_zstd.MAGICS), _unpack_zstd, *_zstd.MAGICS)
READERS = (
    _reader("gzip", begins(b"\x1f\x8b\x08"), _unpack_gzip, b"\x1f\x8b"),
    _reader(
        "bzip2", lambda source: source.head[:3] == b"BZh" and source.head[4:5] in (b"1", b"\x17"), _by(_bz2), b"BZh"
    ),
    _reader("xz", begins(b"\xfd7zXZ\0"), _by(_xz), b"\xfd7zXZ\0"),
    _reader("lzma", _is_lzma, _by(_lzma), firsts=b"\x5d"),
    _reader("zlib", _is_zlib, _inflated(15), firsts=b"\x78"),
    _reader("lz4", begins(_lz4.MAGIC), _unpack_lz4, _lz4.MAGIC),
    Reader("zstd", _ZSTD.claims, _read_zstd, firsts=_ZSTD.firsts),
)
