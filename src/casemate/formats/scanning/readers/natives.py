"""Programs beside or inside a model: native, for a virtual machine, or a script.

No model needs one to be weights; some are shipped with one on purpose (llamafile, AOTInductor), so they are for a human
to judge: nothing here reads machine code.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from casemate.formats.scanning.desk import Desk, Reader
from casemate.formats.scanning.readers._signs import SUSPICIOUS, noted, shown
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_MAGICS = {
    b"\x7fELF": "an ELF program or library (Linux)",
    b"MZqFpD": "an Actually Portable Executable (llamafile)",
    b"jartsr": "an Actually Portable Executable (llamafile)",
    b"\0asm\1\0\0\0": "a WebAssembly module",
    b"\xac\xed\0\5": "serialised Java objects, whose classes run code when they are read",
    b"\x1bLua": "compiled Lua",
    b"\x1bLJ": "compiled Lua",
    b"BC\xc0\xde": "LLVM bitcode",
    b"dex\n03": "Android bytecode",
    b"!<arch>\n": "a library of native objects",
    b"L\0\0\0\1\x14\2\0\0\0\0\0\xc0\0\0\0": "a Windows shortcut, which runs what it points at",
}
_MACHO = (b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe")
_BEGIN = (*_MAGICS, *_MACHO, b"MZ", b"\xca\xfe\xba\xbe", b"#!")
_CPUS = frozenset({1, 6, 7, 12, 14, 18})  # the families that Mach-O knows
_PYC = range(3000, 3700)  # magic numbers of CPython 3, of which 3.15 uses less than 3700


def _kind(source: Source) -> str:
    """What program it is; empty for none."""
    head = source.head
    for magic, kind in _MAGICS.items():
        if head.startswith(magic):
            return kind
    first = head[:4]
    if head.startswith(b"MZ"):
        return _windows(source)
    if first == b"\xca\xfe\xba\xbe" and len(head) >= 8:
        count = int.from_bytes(head[4:8], "big")
        return "a macOS program for several processors" if 0 < count < 20 else "a Java class" if count else ""
    if first in _MACHO and len(head) >= 8:
        cpu = int.from_bytes(head[4:8], "big" if first[0] == 0xFE else "little")
        return "a macOS program or library" if cpu & 0xFFFFFF in _CPUS else ""
    if head[2:4] == b"\r\n" and len(head) >= 16 and int.from_bytes(head[:2], "little") in _PYC and head[4] < 4:
        return "compiled Python"
    return _script(source)


def _windows(source: Source) -> str:
    head = source.read(0, 64)
    if len(head) < 64:
        return ""
    (at,) = struct.unpack_from("<I", head, 60)
    return "a Windows program or library" if source.read(at, 4) == b"PE\0\0" else ""


def _script(source: Source) -> str:
    if source.inert or not source.head.startswith(b"#!"):
        return ""
    line = source.head[2:].split(b"\n", 1)[0].strip()
    if b"python" in line and source.name.endswith((".py", ".pyw")):
        return ""  # Python has a reader of its own
    return f"a script run by {shown(line)}" if line.startswith(b"/") else ""


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    desk.meter.tick()
    why = "it runs with all rights of who starts or loads it, and nothing here can say what it does"
    mend = "keep programs out of models; if this one is wanted, build it from source that you have read"
    yield noted(source, SUSPICIOUS, "native/program", _kind(source), why=why, mend=mend, at=0)


def _claims(source: Source) -> bool:
    head = source.head
    return (head.startswith(_BEGIN) or head[2:4] == b"\r\n") and bool(_kind(source))


READERS = (Reader("native", _claims, _read),)
