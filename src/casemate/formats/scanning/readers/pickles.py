"""Pickles: single, concatenated, with raw arrays in between (joblib), with raw storages behind (torch's old format)."""

from __future__ import annotations

import gc
import math
import re
import zlib
from collections.abc import Iterator
from typing import Any, Final

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.limits import LimitReached
from casemate.formats.scanning.pickles.judge import Scribe, ruling_of
from casemate.formats.scanning.pickles.machine import Machine
from casemate.formats.scanning.pickles.opcodes import begun
from casemate.formats.scanning.pickles.values import DATA, Global, Held, Made
from casemate.formats.scanning.signs import Level, Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_TRIED: Final = 1 << 16  # bytes of a stream without magic that are tried before it is called a pickle
_TORCH_MAGIC: Final = 0x1950A86A20F9469CFC6C
_NAME: Final = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)
_IMPORTS: Final = re.compile(rb"c[A-Za-z_][\w.]*\n")
_STEP: Final = 1 << 20
_ZIPPED: Final = (b"PK\3\4", b"PK\5\6", b"PK\7\x08")
_MANY: Final = 1 << 18
_LOADED: Final = (
    ".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".ckpt", ".dill", ".sav", ".p", ".model", ".mdl",
)  # fmt: skip
_NUMBERS: Final = (".bin", ".model", ".mdl")  # of these, what mere numbers are called too
_WIDTHS: Final = {  # bytes of one element, by the class of torch's storage
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
    "ComplexDouble": 16, "ComplexFloat": 8, "QInt8": 1, "QUInt8": 1, "QInt32": 4, "QUInt4x2": 1, "QUInt2x4": 1,
    "Untyped": 1,
}  # fmt: skip
_TEXTS: Final = {0x58: 5, 0x8C: 2, 0x55: 2, 0x54: 5}  # opcodes of texts, with the bytes in front of the text
_PLAIN: Final = {0x80: 2, 0x95: 9, 0x5D: 1, 0x28: 1, 0x65: 1, 0x61: 1, 0x2E: 1, 0x94: 1, 0x71: 2, 0x72: 5}


def _claims(source: Source) -> bool:
    head = source.head
    if head[:1] == b"\x80":
        return len(head) > 1 and head[1] <= 5
    if head[:4] in _ZIPPED:  # "P" asks for an object by a text, which no loader of pickles gives
        return False
    return _tried(source.data, 0, hinted=_hinted(source), numbers=source.name.endswith(_NUMBERS))


def _hinted(source: Source) -> bool:
    """Whether its name says that somebody unpickles it; without a suffix, whether it begins and ends as pickles do."""
    bare = "." not in source.name and _IMPORTS.match(source.head) and source.read(source.size - 1) == b"."
    return source.name.endswith(_LOADED) or bool(bare)


class _Found(Exception):  # the trial has seen enough
    pass


class _Trial:
    """A judge that only wants to know whether this is a pickle at all.

    `imports` of anything, and those `named` after what can be a module, which chance seldom writes.
    """

    imports = named = 0

    def imported(self, what: Global) -> None:
        self.imports += 1
        self.named += all(part.isidentifier() for part in what.module.split("."))
        if ruling_of(what.module, what.name).level is Level.MALICIOUS and _NAME.fullmatch(what.name):
            raise _Found

    def called(self, what: Made) -> None:
        by = what.by
        if type(by) is Global and _NAME.fullmatch(by.module) and _NAME.fullmatch(by.name):
            raise _Found

    def built(self, target: Any, state: Any, machine: Machine) -> int:
        return 0

    def filled(self, target: Any, kind: str, at: int, opcode: str) -> None:
        return

    def odd(self, rule: str, what: str, at: int, opcode: str) -> None:
        return

    def vast(self, what: str, at: int, opcode: str) -> None:
        return

    def nested(self, at: int, size: int) -> None:
        return

    def extension(self, code: int, at: int, opcode: str) -> Any:
        return DATA

    def persistent(self, key: Any, at: int, opcode: str) -> Any:
        return None

    def tick(self) -> None:
        return


def _tried(
    data: bytes | memoryview, at: int, *, all_of_it: bool = True, hinted: bool = False, numbers: bool = False
) -> bool:
    """Whether a pickle without magic begins at `at`: it ends, calls something, or imports what is harmful.

    Where it is `hinted` that somebody unpickles it, an import is enough: that alone runs the module. Where it may be
    mere `numbers` as well, one of what can be a module.
    """
    window = bytes(data[at : at + _TRIED])
    start = made = 0
    while start < len(window) and window[start : start + 1].strip(b"\0\r\n\t "):
        trial = _Trial()
        machine = begun(window, trial, start)
        try:
            machine.run()
        except _Found:
            return True
        except Damaged:  # where the window cuts it off that is no fault of the pickle
            return (
                made > 0
                or (hinted and (trial.named if numbers else trial.imports) > 0)
                or (len(window) == _TRIED and machine.at >= _TRIED - 512 and len(machine.stack) > 0)
            )
        if not all_of_it:
            return True
        made += trial.named + machine.memo.size + (machine.value is not None and start > 0)
        start = machine.at
    rest = window[start:].strip(b"\0\r\n\t ")
    return start > 0 and (made > 0 or not rest)


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    scribe = Scribe(source, desk, _raw_bytes)
    ends = [0]
    fault: Exception | None = None
    try:
        _follow_all(source, desk, scribe, ends)
    except Exception as error:  # what was seen before it is told first
        fault = error
    yield from scribe.signs()
    desk.asked[source.path] = scribe.persistent_ids
    at = ends[-1]
    if fault is None:
        yield from _behind(source, desk, at)
        return
    try:
        if isinstance(fault, Damaged) and 0 < at < source.size:
            yield from desk.look(source.part(f"behind byte {at}", at, inert=True))
        raise fault
    finally:
        del fault  # its traceback holds this frame, which holds the source's map open


def _follow_all(source: Source, desk: Desk, scribe: Scribe, ends: list[int]) -> None:
    """Follow one pickle after the other; the last of `ends` is where the last whole one ends."""
    data, size = source.data, source.size
    more, count = True, 0
    while more:
        desk.meter.tick()
        count += 1
        if count > _MANY:
            raise LimitReached("limits/objects", f"holds more than {_MANY:,} pickles in a row")
        machine = _one(data, scribe, ends[-1])
        first, at = not ends[-1], machine.at
        ends[-1] = at
        if first and type(machine.value) is int and machine.value == _TORCH_MAGIC:
            _torch_stream(source, desk, scribe, ends)
            return
        head = bytes(data[at : at + 2])
        magic = len(head) == 2 and head[0] == 0x80 and head[1] <= 5
        more = magic or (at < size and head[0] > 32 and _tried(data, at, all_of_it=False))


def _one(data: bytes | memoryview, scribe: Scribe, at: int) -> Machine:
    machine = begun(data, scribe, at)
    collecting = len(data) > _STEP and gc.isenabled()
    if collecting:  # a million stand-ins without cycles would be walked again and again
        gc.disable()
    try:
        machine.run()
    finally:
        scribe.weighed(machine)
        if collecting:
            gc.enable()
    return machine


def _torch_stream(source: Source, desk: Desk, scribe: Scribe, ends: list[int]) -> None:
    """The rest of `torch.save`'s old format: version, system, object, keys, and for each key its raw elements."""
    data, start = source.data, 0
    for _ in range(4):
        start = ends[-1]
        ends[-1] = _one(data, scribe, start).at
    for key in _torch_keys(data, start, ends[-1]):
        scribe.tick()
        at = ends[-1]
        kind = str(scribe.persistent_ids.get(key, "Float")).removesuffix("Storage")
        if at + 8 > source.size:
            raise Damaged("expected a storage of a torch stream, got the end of the data", at)
        size = int.from_bytes(data[at : at + 8], "little", signed=True) * _WIDTHS.get(kind, 4)
        if size < 0 or size > source.size - at - 8:
            raise Damaged(f"expected a storage of {size} bytes, got {source.size - at - 8}", at)
        desk.tensor(source, at + 8, size, f"{kind}Storage", name=key)
        ends[-1] = at + 8 + size


def _torch_keys(data: bytes | memoryview, at: int, end: int) -> Iterator[str]:
    """The texts of a pickle that is a list of texts and nothing else."""
    while at < end:
        code = data[at]
        head = _TEXTS.get(code, 0)
        if head:
            size = int.from_bytes(data[at + 1 : at + head], "little")
            yield str(data[at + head : at + head + size], "utf-8", "replace")
            at += head + size
        elif code in _PLAIN:
            at += _PLAIN[code]
        else:
            raise Damaged(f"expected a list of the keys of storages, got opcode {code:#04x}", at)


def _behind(source: Source, desk: Desk, at: int) -> Iterator[Sign]:
    """What follows the last pickle; loaders never read it, so that things are hidden there."""
    start, size = at, source.size
    while start < size:
        desk.meter.tick()
        chunk = source.read(start, _STEP)
        left = len(chunk.lstrip(b"\0\r\n"))
        start += len(chunk) - left
        if left:
            break
    if start == size and size - at <= 2:
        return
    what = f"{size - at:,} bytes behind the end of the pickle" + (", first zeros" if start > at else "")
    yield Sign(
        Level.SUSPICIOUS, "pickle/trailing", what, source.place(at),
        "loaders do not read them, so that something else can be hidden there", "find out what wrote them",
    )  # fmt: skip
    if start < size:
        yield from desk.look(source.part(f"behind byte {start}", start))


# --------------------------------------------------------------------------------------------------------------- joblib


def _raw_bytes(made: Made, machine: Machine) -> int:
    """How many bytes joblib's wrapper of an array reads from the stream; an object array is a pickle of its own."""
    by = made.by
    if type(by) is not Global or by.name != "NumpyArrayWrapper" or not by.module.startswith("joblib."):
        return 0
    return _array_size(made.state, machine)


def _array_size(state: Any, machine: Machine) -> int:
    if type(state) is not Held or state.kind != "dict":
        raise Damaged("expected the shape and dtype of a joblib array, got no dict", machine.at)
    dtype, shape = state.at("dtype"), state.at("shape")
    at = machine.at
    width = _width(dtype)
    if width is None:  # objects: joblib unpickles them from the same stream
        inner = begun(machine.data, machine.judge, at)
        inner.run()
        return inner.at - at
    sizes = shape.values() if type(shape) is Held else []
    if type(shape) is not Held or not all(type(size) is int and size >= 0 for size in sizes):
        raise Damaged("expected the shape of a joblib array, got something else", at)
    padding = 0
    if type(state.at("numpy_array_alignment_bytes")) is int and at < machine.end:
        padding = 1 + machine.data[at]
    _misread(machine, at)
    return padding + int(width * math.prod(sizes))


def _width(dtype: Any) -> int | None:
    """Bytes of one element, by what the pickle says of the dtype; None for Python objects.

    Raises `Damaged` for a dtype that it cannot tell.
    """
    if type(dtype) is Made and type(dtype.by) is Global and dtype.by.name == "_convert_to_stringdtype_kwargs":
        return None  # NumPy's texts of any length are stored as objects
    spec = Held("tuple", dtype.args).values()[0] if type(dtype) is Made and dtype.args else dtype
    if type(spec) is Global:
        spec = {"float64": "f8", "float32": "f4", "int64": "i8", "bool": "b1", "object": "O8"}.get(spec.name, "")
    if type(spec) is not str:
        raise Damaged("expected the dtype of a joblib array, got something else", _at(dtype))
    found = re.fullmatch(r"[<>=|]?([a-zA-Z])(\d*)(?:\[.*\])?", spec, re.DOTALL)
    if not found:
        raise Damaged(f"expected the dtype of a joblib array, got {spec[:40]!r}", _at(dtype))
    if found[1] == "O" or (found[1] == "V" and _has_objects(dtype)):
        return None
    return int(found[2] or {"?": 1}.get(found[1], 1)) * (4 if found[1] == "U" else 1)


def _at(value: Any) -> int | None:
    return value.at if type(value) in (Global, Made) else None


def _has_objects(dtype: Any) -> bool:
    """Whether a record dtype says by its flags, or any part of it, that it holds objects."""
    todo, seen = [dtype], 0
    while todo and seen < 10_000:
        item, seen = todo.pop(), seen + 1
        if type(item) is Made:
            values = item.values()
            if values and type(values[0]) is str and values[0].lstrip("<>=|").startswith("O"):
                return True
            todo += [item.state]
        elif type(item) is Held:
            todo += item.values()
    return seen >= 10_000


def _misread(machine: Machine, at: int) -> None:
    """What `pickle.load`, which knows nothing of raw arrays, would make of their bytes: only known harm counts."""
    other = begun(bytes(machine.data[at : at + _TRIED]), _Echo(machine.judge, at))
    other.stack, other.marks = list(machine.stack[-64:]), []
    other.memo.near = machine.memo.near[:4096]
    try:
        other.run()
    except (Damaged, LimitReached):
        return


class _Echo(_Trial):
    """Hears a second reading of the same bytes, and passes on what is known to be harmful."""

    def __init__(self, judge: Any, at: int) -> None:
        self._judge, self._at = judge, at

    def imported(self, what: Global) -> None:
        if ruling_of(what.module, what.name).level is Level.MALICIOUS:
            self._judge.imported(Global(what.module, what.name, what.at + self._at, what.opcode))

    def called(self, what: Made) -> None:
        return


def _read_zfile(source: Source, desk: Desk) -> Iterator[Sign]:
    """What joblib wrote before 0.10: `ZF`, the length as text in 19 bytes, perhaps a blank, then zlib."""
    start = 22 if source.head[21:22] == b" " else 21
    inflate, parts = zlib.decompressobj(), []
    for at in range(start, source.size, _STEP):
        piece = source.read(at, _STEP)
        while piece:
            try:
                part = inflate.decompress(piece, _STEP)
            except zlib.error as error:
                raise Damaged(f"expected zlib data in a joblib file, got {error}", at) from None
            desk.meter.expand(len(part))
            desk.meter.tick()
            parts.append(part)
            piece = inflate.unconsumed_tail
    if not inflate.eof:
        raise Damaged("expected zlib data in a joblib file, got the end of the data", source.size)
    yield from desk.look(source.member("unpacked", b"".join(parts)))


READERS = (
    Reader("pickle", _claims, _read),
    Reader("joblib-zfile", lambda source: source.head.startswith(b"ZF0x"), _read_zfile),
)
