"""Compressed streams: gzip, bzip2, xz, LZMA, zlib, LZ4, Zstandard.

joblib, R and `tar` write models so. What is inside is looked at by its content; several streams after each other are
one text, as every tool reads them; what follows the last is a sign, and is looked at too.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from casemate.formats.scanning.desk import Damaged, Desk, Reader, begins
from casemate.formats.scanning.readers import _lz4
from casemate.formats.scanning.readers._members import Decoder, Heap, Inflater, pour
from casemate.formats.scanning.readers._signs import SUSPICIOUS, noted
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_MEMORY = 1 << 27  # bytes of dictionary that a stream may ask for; the strongest preset of xz asks for half of it
_STEP = 1 << 18
_SUFFIXES = (".gz", ".bz2", ".xz", ".lzma", ".zlib", ".z", ".lz4", ".zst")

Unpack = Callable[[Source, int, Desk, Heap], tuple[int, str]]


def _reader(
    name: str, claims: Callable[[Source], bool], unpack: Unpack, magic: bytes = b"", *, firsts: bytes = b""
) -> Reader:
    """A reader of streams that `unpack` unpacks; those that begin by `magic` may follow each other."""

    def read(source: Source, desk: Desk) -> Iterator[Sign]:
        with Heap() as heap:
            at, fault = unpack(source, 0, desk, heap)
            while not fault and magic and source.read(at, len(magic)) == magic:
                at, fault = unpack(source, at, desk, heap)
            inside = Source(source.file, heap.done(), (*source.path, _inner(source)), inert=source.inert)
        yield from desk.look(inside)
        if fault:
            raise Damaged(f"{name}: {fault}", at)
        if source.read(at).strip(b"\0"):
            what = f"{source.size - at} bytes after the end of the stream"
            why = "the tools that read the stream do not show them: they are there for somebody else"
            yield noted(source, SUSPICIOUS, f"{name}/trailing", what, why=why, mend="compress it anew", at=at)
            yield from desk.look(source.part(f"after {at}", at))
        elif not heap.size:
            raise Damaged(f"{name}: a stream of nothing", 0)

    return Reader(name, claims, read, firsts=firsts or magic[:1])


def _inner(source: Source) -> str:
    name = source.name
    if name.endswith(".tgz"):
        return name.removesuffix(".tgz") + ".tar"
    return next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end) and name != end), name)


def _by(decoder: Callable[[], Decoder]) -> Unpack:
    return lambda source, at, desk, heap: pour(decoder(), source.data, at, desk, heap)


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


def _read_zstd(source: Source, desk: Desk) -> Iterator[Sign]:
    with Heap() as heap:
        fault = _zstd(source, desk, heap)
        inside = Source(source.file, heap.done(), (*source.path, _inner(source)), inert=source.inert)
    yield from desk.look(inside)
    if fault:
        raise Damaged(f"zstd: {fault}")


def _zstd(source: Source, desk: Desk, heap: Heap) -> str:
    """Unpack all frames: what is wrong with them."""
    fault = _frames(source, desk, heap, across=True)
    if fault and not heap.size:  # something else follows the last frame: the first one is still to be had
        _frames(source, desk, heap, across=False)
    return fault or ("" if heap.size else "a stream of nothing")


def _frames(source: Source, desk: Desk, heap: Heap, *, across: bool) -> str:
    """Unpack the first frame, or all: what is wrong with them."""
    import zstandard

    inner = zstandard.ZstdDecompressor(max_window_size=_MEMORY).stream_reader(source.data, read_across_frames=across)
    try:
        while out := inner.read(_STEP):
            desk.meter.expand(len(out))
            desk.meter.tick()
            heap.add(out)
    except zstandard.ZstdError as error:
        return f"the stream is damaged, or followed by something else ({error})"
    return ""


READERS = (
    _reader("gzip", begins(b"\x1f\x8b\x08"), _inflated(31), b"\x1f\x8b"),
    _reader(
        "bzip2", lambda source: source.head[:3] == b"BZh" and source.head[4:5] in (b"1", b"\x17"), _by(_bz2), b"BZh"
    ),
    _reader("xz", begins(b"\xfd7zXZ\0"), _by(_xz), b"\xfd7zXZ\0"),
    _reader("lzma", _is_lzma, _by(_lzma), firsts=b"\x5d"),
    _reader("zlib", _is_zlib, _inflated(15), firsts=b"\x78"),
    _reader("lz4", begins(_lz4.MAGIC), _unpack_lz4, _lz4.MAGIC),
    Reader("zstd", begins(b"\x28\xb5\x2f\xfd"), _read_zstd, firsts=b"\x28"),
)
