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
    "UNSEEN",
    "Global",
    "Held",
    "Made",
    "means",
    "plain",
    "thawed",
    "weight_of",
]

DATA: Any = type("Data", (), {"__repr__": lambda self: "..."})()
"""A plain value whose content does not matter (a long number, a buffer)."""
KINDS = {0x5D: "list", 0x7D: "dict", 0x8F: "set", 0x74: "tuple", 0x85: "tuple", 0x86: "tuple", 0x87: "tuple"}
"""The container that an opcode makes, which may stand for it in the memo."""
KEPT = 4096
"""How many parts of a container are kept; more only count."""

UNSEEN = 2
"""In `Held.cut`: parts were dropped that nobody looked at."""
MEANT = (
    b"__", b"_parse_arg_template", b"restore_model_spec", b"_attach_", b"_patch_step_function", b"_build_f",
)  # fmt: skip
"""Parts of texts that mean something as a key of a state, to Python or to the class: these texts are never dropped."""


def means(data: bytes) -> bool:
    """Whether some bytes hold any of `MEANT`."""
    return b"_" in data and any(part in data for part in MEANT)


class Global:
    """A name that the pickle imports: `module`, `name` (dotted), the offset and opcode that asked for it."""

    __slots__ = ("at", "module", "name", "opcode")
    weight = 1.0

    def __init__(self, module: str, name: str, at: int, opcode: str) -> None:
        self.module, self.name, self.at, self.opcode = module, name, at, opcode

    def __str__(self) -> str:
        """As one writes it."""
        return f"{self.module}.{self.name}"


_OFTEN = 48  # bytes: names of attributes come again and again
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
        self.items: list[Any] = _NOTHING
        self.weight = 1.0
        self.cut = 0
        if items:
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
        return [plain(item) for item in self.items]

    def at(self, key: str) -> Any:
        """The last value of a dict under a key, None without."""
        for index in range((len(self.items) - 2) & ~1, -1, -2):
            if plain(self.items[index]) == key:
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
        return [plain(item) for item in self.args]


def weight_of(items: list[Any]) -> float:
    """How many objects a copy of these would have."""
    total = float(len(items))
    for item in items:
        if type(item) is not bytes and (type(item) is Held or type(item) is Made):
            total += item.weight
    return total


def plain(item: Any) -> Any:
    """The value that an opcode's bytes stand for; anything else as it is."""
    if type(item) is not bytes:
        return item
    return _short(item) if len(item) < _OFTEN else _READ[item[0]](item)


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
