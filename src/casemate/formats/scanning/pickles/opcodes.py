"""The opcodes of protocols 0 to 5, each followed as CPython's unpickler follows it.

Oracle: `pickle` and `pickletools` of CPython, which agree on where a pickle ends and what it imports. Frames are not
checked (CPython's C unpickler does not hold a pickle to them either), and nothing is refused that either of CPython's
two unpicklers accepts.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any

from casemate.formats.scanning.desk import Damaged
from casemate.formats.scanning.pickles.batches import batch_of_values
from casemate.formats.scanning.pickles.machine import GAP, LONGEST, NAMES, STEPS, Judge, Machine, Step
from casemate.formats.scanning.pickles.runs import run_of_values
from casemate.formats.scanning.pickles.values import DATA, Held, Made, plain

__all__ = ["begun"]


def begun(data: bytes | memoryview, judge: Judge, at: int = 0) -> Machine:
    """A machine that knows all opcodes, before the first of the pickle at byte `at`."""
    return Machine(data, judge, at)


def _op(code: str, name: str) -> Callable[[Step], Step]:
    def keep(function: Step) -> Step:
        STEPS[ord(code)], NAMES[ord(code)] = function, name
        return function

    return keep


NAMES[ord(".")] = "STOP"

# ------------------------------------------------------------------------------------------------------- plain values


def _constant(value: Any) -> Step:
    return lambda m: m.stack.append(value)


def _of_size(n: int) -> Step:
    def step(m: Machine) -> None:
        start = m.at - 1
        m.at += n
        if m.at > m.end:
            m.at = start + 1
            m.take(n)  # which says what is missing
        m.stack.append(bytes(m.data[start : m.at]))

    return step


def _short(m: Machine) -> None:
    start, end = m.at - 1, m.end
    if start + 1 < end:
        m.at = start + 2 + m.data[start + 1]
    if m.at > end or start + 1 >= end:
        m.at = start + 1
        m.keep(start, m.number(1))  # which says what is missing
        return
    m.stack.append(bytes(m.data[start : m.at]))


def _counted(n: int) -> Step:
    if n == 1:
        return _short

    def step(m: Machine) -> None:
        start = m.at - 1
        m.keep(start, m.number(n))

    return step


def _counted_bytes(n: int) -> Step:
    def step(m: Machine) -> None:
        start = m.at - 1
        if n == 1:
            _short(m)
            size = m.at - start - 2
        else:
            size = m.number(n)
            m.keep(start, size)
        if size > 3:
            m.judge.nested(m.at - size, size)

    return step


for _code, _name, _size in (("N", "NONE", 0), ("\x88", "NEWTRUE", 0), ("\x89", "NEWFALSE", 0), ("K", "BININT1", 1),
                            ("M", "BININT2", 2), ("J", "BININT", 4), ("G", "BINFLOAT", 8)):  # fmt: skip
    _op(_code, _name)(_of_size(_size))
for _code, _name, _size in (("\x8a", "LONG1", 1), ("U", "SHORT_BINSTRING", 1), ("\x8c", "SHORT_BINUNICODE", 1),
                            ("X", "BINUNICODE", 4), ("\x8d", "BINUNICODE8", 8)):  # fmt: skip
    _op(_code, _name)(_counted(_size))
for _code, _name, _size in (("C", "SHORT_BINBYTES", 1), ("B", "BINBYTES", 4), ("\x8e", "BINBYTES8", 8),
                            ("\x96", "BYTEARRAY8", 8)):  # fmt: skip
    _op(_code, _name)(_counted_bytes(_size))
_op("\x97", "NEXT_BUFFER")(_constant(DATA))
_op("\x98", "READONLY_BUFFER")(lambda m: m.top() and None)


def _signed_count(m: Machine) -> None:
    start = m.at - 1
    size = m.number(4)
    m.keep(start, size if size < 1 << 31 else -1)


_op("\x8b", "LONG4")(_signed_count)
_op("T", "BINSTRING")(_signed_count)


@_op("I", "INT")
def _int(m: Machine) -> None:
    text = m.line()
    m.stack.append(text == b"01" if text in (b"00", b"01") else _decimal(m, text, 0))


@_op("L", "LONG")
def _long(m: Machine) -> None:
    m.stack.append(_decimal(m, m.line().removesuffix(b"L"), 0))


def _decimal(m: Machine, text: bytes, base: int) -> Any:
    if len(text) > 64:  # digits are turned into numbers in quadratic time
        return DATA
    for tried in (base, 10):  # CPython's two unpicklers differ on leading zeros
        try:
            return int(text, tried)
        except ValueError:
            continue
    raise Damaged(f"expected a number for {m.opcode}, got {text[:20]!r}", m.at)


@_op("F", "FLOAT")
def _float(m: Machine) -> None:
    text = m.line()
    try:
        m.stack.append(float(text))
    except ValueError:
        raise Damaged(f"expected a number for FLOAT, got {text[:20]!r}", m.at) from None


@_op("S", "STRING")
def _string(m: Machine) -> None:
    text = m.line().strip()
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
        raise Damaged(f"expected a quoted text for STRING, got {text[:20]!r}", m.at)
    try:
        m.stack.append(str(codecs.escape_decode(text[1:-1])[0], "latin-1") if len(text) <= LONGEST else DATA)
    except ValueError as error:
        raise Damaged(f"expected a quoted text for STRING, got {error}", m.at) from None


@_op("V", "UNICODE")
def _unicode(m: Machine) -> None:
    text = m.line()
    try:
        m.stack.append(text.decode("raw-unicode-escape") if len(text) <= LONGEST else DATA)
    except UnicodeDecodeError as error:
        raise Damaged(f"expected text for UNICODE, got {error.reason}", m.at) from None


# --------------------------------------------------------------------------------------------- protocol, stack and memo


@_op("\x80", "PROTO")
def _proto(m: Machine) -> None:
    m.proto = m.number(1)
    if m.proto > 5:
        raise Damaged(f"expected pickle protocol 0 to 5, got {m.proto}", m.at - 1)


@_op("(", "MARK")
def _mark(m: Machine) -> None:
    if not batch_of_values(m):
        m.marks.append(len(m.stack))
        run_of_values(m)


@_op("0", "POP")
def _pop(m: Machine) -> None:
    if m.marks and m.marks[-1] == len(m.stack):
        m.marks.pop()
    else:
        m.pop()


_op("\x95", "FRAME")(lambda m: m.take(8) and None)
_op("2", "DUP")(lambda m: m.stack.append(m.top()))
_op("1", "POP_MARK")(lambda m: m.since_mark() and None)


_FAR = 1 << 24  # CPython's memo is a list: 256 MiB


def _put(m: Machine, index: int) -> None:
    if index < 0:
        raise Damaged(f"expected a memo index from 0, got {index}", m.at)
    if index > m.end and index >= _FAR:
        m.imports += 1  # as rare as a name
        m.judge.vast(f"remembers something at index {index:,}", m.at, m.opcode)
    m.memo.put(index, m.top())


def _get(m: Machine, index: int) -> None:
    found = m.memo.get(index) if index >= 0 else GAP
    if found is GAP:
        raise Damaged(f"expected something in the memo at {index}, got nothing", m.at)
    m.stack.append(found)


def _index(m: Machine) -> int:
    found = _decimal(m, m.line(), 10)
    return found if type(found) is int else -1


_op("p", "PUT")(lambda m: _put(m, _index(m)))
_op("q", "BINPUT")(lambda m: _put(m, m.number(1)))
_op("r", "LONG_BINPUT")(lambda m: _put(m, m.number(4)))
_op("g", "GET")(lambda m: _get(m, _index(m)))


@_op("h", "BINGET")
def _binget(m: Machine) -> None:
    at = m.take(1)
    _get(m, m.data[at])


_op("j", "LONG_BINGET")(lambda m: _get(m, m.number(4)))


@_op("\x94", "MEMOIZE")
def _memoize(m: Machine) -> None:
    stack, marks = m.stack, m.marks
    m.memo.append(stack[-1] if len(stack) > (marks[-1] if marks else 0) else m.top())
    if marks:
        run_of_values(m)


# ---------------------------------------------------------------------------------------------------------- containers

for _code, _name, _kind in ((")", "EMPTY_TUPLE", "tuple"), ("]", "EMPTY_LIST", "list"), ("}", "EMPTY_DICT", "dict"),
                            ("\x8f", "EMPTY_SET", "set")):  # fmt: skip
    _op(_code, _name)(lambda m, kind=_kind: m.stack.append(m.hold(kind)))  # type: ignore[misc]
for _code, _name, _kind in (("t", "TUPLE", "tuple"), ("l", "LIST", "list"), ("d", "DICT", "dict"),
                            ("\x91", "FROZENSET", "frozenset")):  # fmt: skip
    _op(_code, _name)(lambda m, kind=_kind: m.stack.append(m.hold(kind, m.since_mark())))  # type: ignore[misc]


def _tuple_of(n: int) -> Step:
    def make(m: Machine) -> None:
        m.paired = True
        m.stack.append(m.hold("tuple", m.pops(n)))

    return make


for _code, _name, _size in (("\x85", "TUPLE1", 1), ("\x86", "TUPLE2", 2), ("\x87", "TUPLE3", 3)):
    _op(_code, _name)(_tuple_of(_size))


def _adding(kind: str) -> Step:
    def add(m: Machine) -> None:
        at = m.at - 1
        items = m.since_mark()
        target = m.held(kind, at, items)
        if target is not None:
            target.add(items)
            m.weigh(target)
        if m.marks:
            run_of_values(m)

    return add


for _code, _name, _kind in (("e", "APPENDS", "list"), ("u", "SETITEMS", "dict"), ("\x90", "ADDITEMS", "set")):
    _op(_code, _name)(_adding(_kind))


@_op("a", "APPEND")
def _append(m: Machine) -> None:
    item = m.pop()
    target = m.held("list", m.at - 1, [item])
    if target is not None:
        target.add([item])
        m.weigh(target)


@_op("s", "SETITEM")
def _setitem(m: Machine) -> None:
    value, key = m.pop(), m.pop()
    target = m.held("dict", m.at - 1, [key, value])
    if target is not None:
        target.add([key, value])
        m.weigh(target)


# ------------------------------------------------------------------------------------------------------ names and calls


@_op("c", "GLOBAL")
def _global(m: Machine) -> None:
    at = m.at - 1
    try:
        module, name = m.line().decode("utf-8"), m.line().decode("utf-8")
    except UnicodeDecodeError:
        raise Damaged("expected a name in UTF-8 for GLOBAL, got other bytes", at) from None
    m.find(module, name, at)


@_op("\x93", "STACK_GLOBAL")
def _stack_global(m: Machine) -> None:
    module, name = m.pops(2)
    m.find(plain(module), plain(name), m.at - 1)


@_op("i", "INST")
def _inst(m: Machine) -> None:
    _global(m)
    function = m.stack.pop()
    m.call(function, Held("tuple", m.since_mark()))


@_op("o", "OBJ")
def _obj(m: Machine) -> None:
    items = m.since_mark()
    if not items:
        raise Damaged("expected a class for OBJ, got nothing", m.at - 1)
    m.call(items[0], Held("tuple", items[1:]))


@_op("R", "REDUCE")
def _reduce(m: Machine) -> None:
    function, args = m.pops(2)
    m.call(function, args)


@_op("\x81", "NEWOBJ")
def _newobj(m: Machine) -> None:
    made, args = m.pops(2)
    m.call(made, args)


@_op("\x92", "NEWOBJ_EX")
def _newobj_ex(m: Machine) -> None:
    named, args, made = m.pop(), m.pop(), m.pop()
    known = type(args) is Held and args.kind == "tuple" and type(named) is Held and named.kind == "dict"
    m.call(made, Held("tuple", [*args.items, *named.items]) if known else DATA)


@_op("b", "BUILD")
def _build(m: Machine) -> None:
    target, state = m.pops(2)
    m.stack.append(target)
    state = plain(state)
    m.crowd += 1
    raw = m.judge.built(target, state, m)
    if type(target) is Made:
        target.state = state
        if type(state) is Held:
            target.weight += state.weight
            m.heaviest = max(m.heaviest, target.weight)
    if raw:
        m.take(raw)


for _code, _name, _size in (("\x82", "EXT1", 1), ("\x83", "EXT2", 2), ("\x84", "EXT4", 4)):

    def _extension(m: Machine, n: int = _size) -> None:
        at = m.at - 1
        m.imports += 1
        m.stack.append(m.judge.extension(m.number(n), at, m.opcode))

    _op(_code, _name)(_extension)


@_op("P", "PERSID")
def _persid(m: Machine) -> None:
    at = m.at - 1
    _persistent(m, m.line().decode("latin-1"), at)


def _persistent(m: Machine, key: Any, at: int) -> None:
    m.crowd += 1
    given = m.judge.persistent(plain(key), at, m.opcode)
    m.stack.append(Held("persistent", [key]) if given is None else given)


_op("Q", "BINPERSID")(lambda m: _persistent(m, m.pop(), m.at - 1))
