"""What lies on the symbolic machine's stack.

A plain value mostly stays the bytes of the opcode that pushed it (with its argument, and perhaps the memo opcode behind
it); `plain` makes the value. So a million numbers cost no more than a million slices.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

__all__ = [
    "DATA",
    "KEPT",
    "KINDS",
    "MEANT",
    "NEVER_KEPT",
    "UNSEEN",
    "Global",
    "Held",
    "Made",
    "means",
    "plain",
    "thawed",
    "told_apart",
    "weight_of",
]

DATA: Any = type("Data", (), {"__repr__": lambda self: "..."})()
"""A plain value whose content does not matter (a long number, a buffer)."""
KINDS = {0x5D: "list", 0x7D: "dict", 0x8F: "set", 0x74: "tuple", 0x85: "tuple", 0x86: "tuple", 0x87: "tuple"}
"""The container that an opcode makes, which may stand for it in the memo."""
KEPT = 4096
"""How many parts of a container are kept; more only count."""
NEVER_KEPT = float("nan")
"""A weight that every sum keeps: it alone is not equal to itself."""

UNSEEN = 2
"""In `Held.cut`: parts were dropped that nobody looked at."""
MEANT = (
    b"__", b"_parse_arg_template", b"restore_", b"_attach_", b"_patch_step_function", b"_build_f", b"_initialize",
)  # fmt: skip
"""Parts of texts that mean something as a key of a state, to Python or to the class: these texts are never dropped."""


def means(data: bytes) -> bool:
    """Whether some bytes hold any of `MEANT`."""
    if b"_" in data:
        for part in MEANT:
            if part in data:
                return True
    return False


class Global:
    """A name that the pickle imports: `module`, `name` (dotted), the offset and opcode that asked for it.

    `weight`: 0; `NEVER_KEPT` for a function that may be called but not kept, so that whatever holds it weighs that too.
    """

    __slots__ = ("at", "module", "name", "opcode", "weight")

    def __init__(self, module: str, name: str, at: int, opcode: str) -> None:
        self.module, self.name, self.at, self.opcode = module, name, at, opcode
        self.weight = 0.0

    def __str__(self) -> str:
        """As one writes it."""
        return f"{self.module}.{self.name}"


_OFTEN = 48  # bytes: names of attributes come again and again
_FEW = 9  # parts: a dtype has so many
_NOTHING: list[Any] = []  # shared by all that are empty: a new list is put in its place, never a part added


class Held:
    """A container (`kind`: tuple, list, dict, set, frozenset, persistent) with its first `KEPT` parts.

    A dict's parts are key, value, key, value. `weight`: how many objects a copy of it would have; grows
    exponentially where containers hold each other many times. `cut`: 1 where plain values were dropped that hold
    nothing of `MEANT`, from `UNSEEN` on where parts were dropped unseen.
    """

    __slots__ = ("cut", "items", "kind", "weight")

    def __init__(self, kind: str, items: list[Any] | None = None) -> None:
        self.kind = kind
        self.cut = 0
        if not items:
            self.items: list[Any] = _NOTHING
            self.weight = 1.0
        elif len(items) <= KEPT:
            self.items = items
            self.weight = 1.0 + weight_of(items)
        else:
            self.items = _NOTHING
            self.weight = 1.0
            self.add(items)

    def add(self, items: list[Any]) -> None:
        """Take parts in; `items` may be kept."""
        self.weight += weight_of(items)
        room = KEPT - len(self.items)
        if len(items) > room:
            self.cut |= UNSEEN
        if not self.items:
            self.items = items[:room] if len(items) > room else items
        elif room > 0:
            self.items.extend(items[:room])

    def values(self) -> list[Any]:
        """The parts, plain values as what they are."""
        return _plain_all(self.items)

    def at(self, key: str) -> Any:
        """The last value of a dict under a key, None without."""
        for index in range((len(self.items) - 2) & ~1, -1, -2):
            item = self.items[index]
            if (_short(item) if type(item) is bytes and len(item) < _OFTEN else plain(item)) == key:
                return plain(self.items[index + 1])
        return None


class Made:
    """What a call gives: `by` (a `Global`, or anything else that was called), its arguments, its state once built."""

    __slots__ = ("args", "at", "by", "opcode", "state", "weight")

    def __init__(self, by: Any, args: list[Any], at: int, opcode: str) -> None:
        self.by, self.args, self.at, self.opcode = by, args, at, opcode
        self.state: Any = None
        self.weight = 1.0 + weight_of(args)

    def values(self) -> list[Any]:
        """The arguments, plain values as what they are."""
        return _plain_all(self.args)


def told_apart(made: Made, state: Any = None) -> tuple[object, ...] | None:
    """A key of a short call with plain values, and of its first state: equal only for equal names and values."""
    by, parts = made.by, made.args
    if type(by) is not Global or made.state is not None:
        return None
    if state is not None:
        parts = [*parts, state]
    content = _content(parts) if len(parts) <= _FEW else None
    return None if content is None else (by.module, by.name, made.opcode, state is None, content)


def _content(items: list[Any], deep: int = 3) -> object:
    if items and type(items[0]) is bytes and type(items[-1]) is bytes:
        try:
            joined = b"".join(items)  # opcodes say how long they are, so that no two lists give the same
        except TypeError:
            pass
        else:
            return joined if len(joined) < 4 * _OFTEN else None
    key: list[object] = []
    for item in items:
        kind = type(item)
        if kind is bytes and len(item) < _OFTEN:
            key.append(item)
        elif kind is Global:
            key.append((item.module, item.name))
        elif kind is Held and deep and not item.cut and len(item.items) <= _FEW:
            inner = _content(item.items, deep - 1) if item.items else ()
            if inner is None:
                return None
            key.append((item.kind, inner))
        else:
            return None
    return tuple(key)


def weight_of(items: list[Any]) -> float:
    """How many objects a copy of these would have."""
    total = float(len(items))
    for item in items:
        kind = type(item)
        if kind is not bytes and (kind is Held or kind is Made or kind is Global):
            total += item.weight
    return total


def plain(item: Any) -> Any:
    """The value that an opcode's bytes stand for; anything else as it is."""
    if type(item) is not bytes:
        return item
    return _short(item) if len(item) < _OFTEN else _READ[item[0]](item)


def _plain_all(items: list[Any]) -> list[Any]:
    """`plain` of each, without a call for each."""
    return [
        item if type(item) is not bytes else _short(item) if len(item) < _OFTEN else _READ[item[0]](item)
        for item in items
    ]


@lru_cache(maxsize=1 << 14)
def _short(token: bytes) -> Any:
    return _READ[token[0]](token)


def thawed(memo: list[Any], index: int) -> Any:
    """What lies in a memo; of a container that was skipped in a batch only its kind is known."""
    found = memo[index]
    if type(found) is bytes and found[0] in KINDS:
        found = memo[index] = Held(KINDS[found[0]])
        found.cut = 1
    return found


def _sized(size: int, make: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(token: bytes) -> Any:
        start = 1 + size
        return make(token[start : start + int.from_bytes(token[1:start], "little")])

    return read


def _fixed(form: str) -> Callable[[bytes], Any]:
    return lambda token: struct.unpack_from(form, token, 1)[0]


def _text(data: bytes) -> str:
    return str(data, "utf-8", "surrogateescape")  # CPython refuses what is no UTF-8


def _old_text(data: bytes) -> str:
    return str(data, "latin-1")


def _long(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


_READ: dict[int, Callable[[bytes], Any]] = {
    ord(code): read
    for code, read in (
        ("N", lambda token: None), ("\x88", lambda token: True), ("\x89", lambda token: False),
        ("K", _fixed("<B")), ("M", _fixed("<H")), ("J", _fixed("<i")), ("G", _fixed(">d")),
        ("\x8a", _sized(1, _long)), ("\x8b", _sized(4, _long)),
        ("U", _sized(1, _old_text)), ("T", _sized(4, _old_text)),
        ("\x8c", _sized(1, _text)), ("X", _sized(4, _text)), ("\x8d", _sized(8, _text)),
        ("C", _sized(1, bytes)), ("B", _sized(4, bytes)), ("\x8e", _sized(8, bytes)), ("\x96", _sized(8, bytes)),
    )
}  # fmt: skip
