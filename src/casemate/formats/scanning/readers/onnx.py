"""ONNX: data in other files, operators of somebody's own, scripts in the notes, sizes that nothing has.

Read from the wire format: graphs nest in attributes of nodes, in functions and in training information, and tensors lie
in all of them.
Field numbers from `onnx.proto` of ONNX 1.18 to 1.23; CVE-2022-25882, CVE-2024-27318, CVE-2024-5187.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers._few import few
from casemate.formats.scanning.readers._onnx_ops import OPERATORS
from casemate.formats.scanning.readers._paths import leaves_folder
from casemate.formats.scanning.readers._protobuf import (
    BYTES,
    MESSAGES_DEEP,
    VARINT,
    Field,
    Outline,
    Peek,
    fields_of,
    peek_of,
    text_at,
)
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, UNKNOWN, noted, shown
from casemate.formats.scanning.signs import Level, Sign, Used
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_DOMAINS_TEXT: Final = (
    " ai.onnx ai.onnx.ml ai.onnx.training ai.onnx.preview ai.onnx.preview.training com.microsoft "
    "com.microsoft.experimental com.microsoft.nchwc com.microsoft.dml com.ms.internal.nhwc pkg.onnxscript.torch_lib "
    "pkg.onnxscript.torch_lib.common"
)
_DOMAINS: Final = frozenset(_DOMAINS_TEXT.split(" "))
_PYTHON: Final = re.compile(
    r"(?i)py(?:thon)?_?(?:op|func|call|function)(?:grad)?|(?:numpy|eager)_?function|exec|eval|triton_?op"
)
_COMPILED: Final = {
    "EPContext": "it holds or names a compiled program for one device, which nothing here reads",
    "ATen": "it calls whatever operator of torch a text names",
}
_TENSOR: Final = frozenset({(1, 0), (1, 2), (2, 0), *((number, 2) for number in range(4, 14)), (14, 0)})  # its fields
_DATA_TYPES: Final = 40  # numbers in use, with room
_ELEMENTS: Final = 1 << 40
_MISSING: Final = 1 << 28  # elements that a tensor may claim without holding them
_KINDS: Final = 10_000  # operators by name
_NOTES: Final = re.compile(
    r"(?i)<\s*(?:script|iframe|object|embed|svg|img)\b|javascript:|vbscript:|\bon(?:error|load)\s*=|"
    r"\b(?:__import__|eval|exec|compile|system|popen|subprocess\.\w+)\s*\(|\bimport\s+(?:os|subprocess|socket|sys)\b|"
    r"#!\s*/|\b(?:curl|wget|powershell|bash -c|sh -c)\s|\{\{(?:(?!\{\{).)*(?:__|\|)|\{%"
)
_TYPES: Final = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64", 12: "U32",
    13: "U64", 14: "C64", 16: "BF16",
}  # fmt: skip
_NOTE_MOST: Final = 1 << 20
_KEYS: Final = frozenset({"location", "offset", "length", "checksum", "basepath"})
_OUT_WHY: Final = "loading the model reads that file, and what it holds becomes part of the model and of its outputs"
_MEND: Final = "save the model again with its data inside, or beside it under a plain name"

# What lies in what: (kind, field) -> kind of the message in it.
_INSIDE: Final = {
    ("model", 7): "graph", ("model", 20): "training", ("model", 25): "function", ("model", 14): "note",
    ("training", 1): "graph", ("training", 2): "graph",
    ("graph", 1): "node", ("graph", 5): "tensor", ("graph", 15): "sparse", ("graph", 16): "note",
    ("function", 7): "node", ("function", 11): "attribute", ("function", 14): "note",
    ("node", 5): "attribute", ("node", 9): "note",
    ("attribute", 5): "tensor", ("attribute", 6): "graph", ("attribute", 10): "tensor", ("attribute", 11): "graph",
    ("attribute", 22): "sparse", ("attribute", 23): "sparse",
    ("sparse", 1): "tensor", ("sparse", 2): "tensor",
    ("tensor", 16): "note",
}  # fmt: skip
_TEXTS: Final = {"model": (4, 6), "graph": (10,), "function": (8,), "node": (6,), "tensor": (12,), "note": (1, 2)}
_MODEL: Final = frozenset({*range(1, 9), 14, 20, 25, 26})  # its fields
_HOLDING: Final = frozenset(kind for kind, _ in _INSIDE)


@dataclass(slots=True)
class _Scan:
    """One model while it is read: the messages to come, and the operators that were seen."""

    source: Source
    desk: Desk
    seen: set[tuple[str, str]] = field(default_factory=set)
    own: set[tuple[str, str]] = field(default_factory=set)
    calls: list[tuple[str, str, int]] = field(default_factory=list)

    def sign(self, level: Level, rule: str, what: str, why: str, at: int) -> Sign:
        """A sign with the usual advice."""
        return noted(self.source, level, rule, what, why=why, mend=_MEND, at=at)


def _claims(source: Source) -> bool:
    return not source.inert and bool(source.size) and bool(_kind(source))


def _kind(source: Source) -> str:
    """Whether it is a model or a tensor by itself; empty for neither. Raises `Damaged` where that cannot be told."""
    peek = peek_of(source)
    told = peek.said.get("onnx")
    if told is not None:
        return told
    top = peek.outline(0, source.size)
    if not top:
        return peek.decided("onnx", "")
    return peek.decided("onnx", "model" if _is_model(peek, top) else "tensor" if _is_tensor(top, source.size) else "")


def _is_model(peek: Peek, top: Outline) -> bool:
    """A ModelProto: with a version or operator sets, and a graph."""
    if (1, VARINT) not in top and (8, BYTES) not in top:
        return False
    return any(_is_graph(peek, item) for item in peek.only(top, 7))


def _is_graph(peek: Peek, place: Field) -> bool:
    """A GraphProto: messages where it has messages, and among them a node with an operator, an output or a tensor."""
    inner = peek.outline(place.start, place.end)
    if {(11, BYTES), (12, BYTES), (5, BYTES)} & set(inner):
        return True
    return any({(4, BYTES), (1, BYTES), (2, BYTES)} & set(peek.outline(n.start, n.end)) for n in peek.some(inner, 1))


def _is_tensor(top: Outline, size: int) -> bool:
    """A TensorProto by itself, as the test data beside a model has them: nothing but its fields, and its data."""
    kinds = top.get((2, VARINT), ())
    dims = len(top.get((1, VARINT), ())) + len(top.get((1, BYTES), ()))
    data = sum(item.end - item.start for number in (4, 5, 6, 7, 9, 10, 11, 13) for item in top.get((number, BYTES), ()))
    named = (8, BYTES) in top or size > 64
    return (
        set(top) <= _TENSOR
        and len(kinds) == 1
        and kinds[0].value < _DATA_TYPES
        and 0 < dims <= 16
        and data > 0
        and named
    )


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    scan = _Scan(source, desk)
    yield from few(_all(scan, _kind(source)))
    yield from few(_operators(scan))


def _all(scan: _Scan, kind: str) -> Iterator[Sign]:
    """Signs of a message and of all that lie in it: one iterator for each level, as lists could outgrow the memory."""
    yield from _message(scan, kind, 0, scan.source.size)
    levels = [_inside(scan, kind, 0, scan.source.size)]
    while levels:
        scan.desk.meter.tick()
        found = next(levels[-1], None)
        if found is None:
            levels.pop()
            continue
        below, start, end = found
        if len(levels) > MESSAGES_DEEP:
            why = "readers that follow it exhaust their stack"
            yield scan.sign(
                SUSPICIOUS, "onnx/nesting", f"messages more than {MESSAGES_DEEP} deep in each other", why, start
            )
            continue
        yield from _message(scan, below, start, end)
        levels.append(_inside(scan, below, start, end))


def _inside(scan: _Scan, kind: str, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Kind and place of the messages in a message."""
    if kind in _HOLDING:
        for found in fields_of(scan.source.data, start, end, scan.desk.meter):
            below = _INSIDE.get((kind, found.number)) if found.wire == BYTES else None
            if below is not None:
                yield below, found.start, found.end


def _message(scan: _Scan, kind: str, start: int, end: int) -> Iterator[Sign]:
    """Signs of one message, without those that lie in it."""
    if kind in _RULES:
        yield from _RULES[kind](scan, start, end)
    if kind == "model":
        yield from _unknown(scan, start, end)
    if kind in _TEXTS:
        for found in fields_of(scan.source.data, start, end, scan.desk.meter):
            if found.wire == BYTES and found.number in _TEXTS[kind]:
                yield from _scripted(scan, text_at(scan.source.data, found, _NOTE_MOST), found.at)


def _unknown(scan: _Scan, start: int, end: int) -> Iterator[Sign]:
    """What lies in fields that no version of a model has, which readers skip."""
    for found in fields_of(scan.source.data, start, end, scan.desk.meter):
        if found.wire == BYTES and found.number not in _MODEL:
            name = f"field {found.number} at {found.at}"
            yield from scan.desk.look(scan.source.part(name, found.start, found.end - found.start, inert=True))


def _node(scan: _Scan, start: int, end: int) -> Iterator[Sign]:
    data = scan.source.data
    ops, domains, at = [], [], start
    for found in fields_of(data, start, end, scan.desk.meter):
        if (found.number, found.wire) == (4, BYTES):
            ops.append(text_at(data, found))
        elif (found.number, found.wire) == (7, BYTES):
            domains.append(text_at(data, found))
    for domain in domains or [""]:
        for op in ops:
            if (domain, op) not in scan.seen and len(scan.seen) < _KINDS:
                scan.seen.add((domain, op))
                scan.calls.append((domain, op, at))
    yield from ()


def _function(scan: _Scan, start: int, end: int) -> Iterator[Sign]:
    """A function of the model's own: its name is no operator of somebody's own."""
    data, name, domain = scan.source.data, "", ""
    for found in fields_of(data, start, end, scan.desk.meter):
        if (found.number, found.wire) == (1, BYTES):
            name = text_at(data, found)
        elif (found.number, found.wire) == (10, BYTES):
            domain = text_at(data, found)
    scan.desk.meter.enter()
    scan.own.add((domain, name))
    yield from ()


def _operators(scan: _Scan) -> Iterator[Sign]:
    """Operators after all functions are known."""
    if len(scan.seen) == _KINDS:
        why = "no model has so many, and those beyond were not looked at"
        yield scan.sign(SUSPICIOUS, "onnx/custom-operator", f"{_KINDS} operators of different names", why, 0)
    for domain, op, at in scan.calls:
        full = f"{domain}:{op}" if domain else op
        member, home = "!/".join(scan.source.path), domain or "ai.onnx"
        scan.desk.used[Used(member, home[:200], op[:200], called=True)] = None
        if _PYTHON.fullmatch(op) and (domain, op) not in scan.own:
            why = "running the model calls Python"
            yield scan.sign(MALICIOUS, "onnx/python", f"the operator {shown(full)}", why, at)
        elif op in _COMPILED and domain == "com.microsoft":
            why = _COMPILED[op]
            yield scan.sign(SUSPICIOUS, "onnx/compiled", f"the operator {shown(full)}", why, at)
        elif (domain not in _DOMAINS or op not in OPERATORS.get(domain, {op})) and (domain, op) not in scan.own:
            why = "a native library of somebody's own implements it: running the model needs that library loaded"
            yield scan.sign(SUSPICIOUS, "onnx/custom-operator", f"the operator {shown(full)}", why, at)


def _tensor(scan: _Scan, start: int, end: int) -> Iterator[Sign]:
    """A tensor: where its data lies, and whether its size is one that anything has."""
    data, held, first, outside = scan.source.data, 0, start, False
    sizes: list[int] = []
    external: list[tuple[str, str]] = []
    for found in fields_of(data, start, end, scan.desk.meter):
        if found.number == 1 and len(sizes) < 100:
            sizes += _numbers(data, found)
        elif (found.number, found.wire) == (13, BYTES):
            first = first if external else found.at
            external += [_pair(scan, found)] if len(external) < 100 else []
        elif (found.number, found.wire) == (14, VARINT):
            outside = found.value == 1
        elif found.number in (4, 5, 6, 7, 9, 10, 11):
            held += found.end - found.start
    elements = math.prod(sizes[:64])
    if len(sizes) > 64 or any(size >> 63 for size in sizes) or elements > _ELEMENTS:
        what = f"a tensor of {'x'.join(map(str, sizes[:8]))} elements"
        yield scan.sign(SUSPICIOUS, "onnx/size", what, "making it takes more memory than any machine has", start)
    elif not external and elements > max(_MISSING, 16 * held):
        what = f"a tensor of {elements} elements in {held} bytes"
        yield scan.sign(SUSPICIOUS, "onnx/size", what, "making it takes memory for data that is not there", start)
    _weigh(scan, start, end, tuple(sizes))
    if external:
        yield from _external(scan, external, first, elements)
    elif outside and not held:
        raise Damaged("expected the location of a tensor's data, got none", start)


def _weigh(scan: _Scan, start: int, end: int, shape: tuple[int, ...]) -> None:
    """Have the numbers of a tensor looked at, which lie in it as they are or in a list of its type."""
    data, name, kind = scan.source.data, "", 0
    fields = list(fields_of(data, start, end, scan.desk.meter)) if scan.desk.weights else []
    for found in fields:
        if (found.number, found.wire) == (8, BYTES):
            name = text_at(data, found)
        elif (found.number, found.wire) == (2, VARINT):
            kind = found.value
        elif (found.number, found.wire) == (13, BYTES):
            scan.desk.unweighed.append(scan.source.place(found.at))
    for found in fields:
        if found.wire == BYTES and found.number in (4, 9, 10):
            told = {4: "F32", 10: "F64"}.get(found.number, _TYPES.get(kind, f"onnx {kind}"))
            scan.desk.tensor(scan.source, found.start, found.end - found.start, told, name=name, shape=shape)


def _pair(scan: _Scan, place: Field) -> tuple[str, str]:
    """A StringStringEntryProto."""
    data, key, value = scan.source.data, "", ""
    for found in fields_of(data, place.start, place.end, scan.desk.meter):
        if (found.number, found.wire) == (1, BYTES):
            key = text_at(data, found)
        elif (found.number, found.wire) == (2, BYTES):
            value = text_at(data, found)
    return key, value


def _external(scan: _Scan, told: list[tuple[str, str]], at: int, elements: int) -> Iterator[Sign]:
    """Where a tensor's data lies; of a key that comes twice, readers take one or the other."""
    locations = [value for key, value in told if key == "location"]
    for location in locations or [""]:
        if reason := leaves_folder(location):
            what = f"a tensor whose data lies in {shown(location)}, which {reason}"
            yield scan.sign(MALICIOUS, "onnx/external-data", what, _OUT_WHY, at)
        elif not location:
            what = "a tensor whose data lies in a file without name"
            yield scan.sign(SUSPICIOUS, "onnx/external-data", what, _OUT_WHY, at)
    for key, _ in told:
        if key not in _KEYS and not key.startswith("prepacked"):
            level = MALICIOUS if key.startswith("__") else SUSPICIOUS
            what = f"a tensor whose data has the key {shown(key)}, which no version of ONNX knows"
            why = "onnx before 1.21 sets it on an object of its own, whatever that has under the name (CVE-2026-34445)"
            yield scan.sign(level, "onnx/external-key", what, why, at)
    for key, value in told:
        if key in ("offset", "length") and not _plausible(key, value, elements):
            what = f"a tensor of {elements} elements whose data has the {key} {shown(value)}"
            why = "readers that believe it read beyond the tensor or the file, or take more memory than any machine has"
            yield scan.sign(SUSPICIOUS, "onnx/external-range", what, why, at)


def _plausible(key: str, value: str, elements: int) -> bool:
    if not value.isascii() or not value.isdigit() or len(value) > 15:
        return False
    return key == "offset" or int(value) <= 32 * max(1, elements) + 64


def _numbers(data: bytes | memoryview, place: Field) -> list[int]:
    """A repeated number, packed or not, the first hundred of it."""
    if place.wire == VARINT:
        return [place.value]
    found, value, shift = [], 0, 0
    for byte in bytes(data[place.start : min(place.end, place.start + 1000)]) if place.wire == BYTES else b"":
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append(value)
            value = shift = 0
    return found


def _scripted(scan: _Scan, text: str, at: int) -> Iterator[Sign]:
    if found := _NOTES.search(text):
        begin = max(0, found.start() - 20)
        what = f"a note with {shown(text[begin : begin + 80])}"
        why = "tools that show or follow the model's notes may run it"
        yield scan.sign(SUSPICIOUS, "onnx/script", what, why, at)


_RULES: Final = {"node": _node, "function": _function, "tensor": _tensor}


def _read_ort(source: Source, desk: Desk) -> Iterator[Sign]:
    desk.meter.tick()
    what = "a model in ONNX Runtime's own format, which nothing here reads"
    why = "what cannot be read cannot be judged"
    yield noted(source, UNKNOWN, "onnx/ort-format", what, why=why, mend="get the model as .onnx", at=0)


READERS = (
    Reader("onnx", _claims, _read),
    Reader("ort", lambda source: source.head[4:8] == b"ORTM", _read_ort),
)
