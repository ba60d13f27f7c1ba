"""States of NumPy's objects that NumPy believes and then crashes on, or takes bytes of the file for addresses.

A dtype says by its flags whether an array of it holds Python objects. NumPy takes the flags from the pickle: an array
of objects whose dtype denies them is filled with raw bytes of the file, which Python then uses as addresses.

Source: `arraydescr_setstate` of NumPy 1.7 to 2.4; each case was tried against NumPy 2.4.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

from casemate.formats.scanning.pickles.values import Global, Held, Made, plain

__all__ = ["harm_of_array", "harm_of_dtype", "harm_of_generator", "is_bare_dtype"]

_SIMPLE: Final = re.compile(r"[<>=|]?([?bBhHiIlLqQefdgFDGSaUmMucVO])(\d*)(\[\w+\])?")
_REFERENCES: Final = 1  # NumPy's flag NPY_ITEM_REFCOUNT
_AS_LIST: Final = 2  # NPY_LIST_PICKLE: an array's state is a list of objects, no bytes
_TWISTER: Final = 624  # words of the Mersenne twister
_NUMBERS: Final = frozenset(
    opcode + bytes([len(name)]) + bytes(size - 1) + name
    for name in (b"f8", b"f4", b"f2", b"i8", b"i4", b"i2", b"i1", b"u1", b"u2", b"u4", b"u8", b"b1")
    for opcode, size in ((b"\x8c", 1), (b"X", 4))
)
_STATES: Final = frozenset(
    (b"K\x03", opcode + b"\1" + bytes(size - 1) + order, b"N", b"N", b"N", *2 * [b"J\xff\xff\xff\xff"], b"K\0")
    for order in (b"<", b">", b"|")
    for opcode, size in ((b"\x8c", 1), (b"X", 4))
)
_DEEPEST: Final = 8
_OBJECTS: Final = ("object", "object_")
_ADDRESSES: Final = "NumPy takes bytes of the file for addresses of objects, which runs or crashes Python"


def harm_of_dtype(made: Made, state: Any) -> tuple[str, str] | None:
    """What a state does that `made`, a dtype, is given, and why that harms; None for nothing that is known."""
    items = state.items if type(state) is Held and state.kind == "tuple" else []
    if made.args and made.args[0] in _NUMBERS and tuple(items) in _STATES:  # what nearly every file holds
        return None
    parts = [plain(item) for item in items]
    if len(parts) < 8:  # before NumPy 1.2 a state had no flags, and NumPy finds them itself
        return None
    version, flags = parts[0], parts[7]
    objects = _holds_objects(made, parts)
    if type(version) is int and version > 2 and type(flags) is int:
        if objects and flags & 3 != _REFERENCES | _AS_LIST:
            return "says of a dtype with objects that it has none", _ADDRESSES
        if objects is False and flags & _REFERENCES:
            return "says of a dtype without objects that it has some", _ADDRESSES
    found = _SIMPLE.fullmatch(_spec(made)) if type(_spec(made)) is str else None
    if found and found[1] in "mM" and not (len(parts) == 9 and type(parts[8]) is Held):
        return "makes a dtype of times without their unit", "NumPy crashes when it uses it"
    if type(parts[4]) is Held and type(parts[5]) is int and parts[5] >= 0 and not _fits(parts[4], parts[5]):
        return f"makes a record of {parts[5]} bytes with fields outside of it", "NumPy reads memory beyond the array"
    return None


def harm_of_array(state: Any) -> tuple[str, str] | None:
    """What the state of an array of objects does that NumPy does not check, and why that harms."""
    parts = state.items if type(state) is Held and state.kind == "tuple" else []
    shape, given = (parts[1], parts[4]) if len(parts) >= 5 else (None, None)
    if type(given) is not Held or given.kind != "list" or type(shape) is not Held:
        return None
    sizes = shape.values()
    wanted = math.prod(sizes) if all(type(size) is int and size >= 0 for size in sizes) else 0
    if not given.cut and len(given.items) < wanted:  # a long list is not counted to its end
        return f"fills an array of {wanted:,} objects with {len(given.items):,}", "NumPy reads beyond the list's end"
    return None


def harm_of_generator(state: Any) -> tuple[str, str] | None:
    """What the state of a generator of random numbers does that NumPy does not check, and why that harms."""
    inner = state.at("state") if type(state) is Held and state.kind == "dict" else None
    place = inner.at("pos") if type(inner) is Held and inner.kind == "dict" else None
    if type(place) is int and not 0 <= place <= _TWISTER:
        return f"sets a generator's place to {place:,} of {_TWISTER}", "NumPy reads memory beyond its words"
    return None


def is_bare_dtype(value: Any) -> bool:
    """Whether a dtype has not got its state, as picklers give it at once: a later one changes arrays that exist."""
    return type(value) is Made and value.state is None and str(value.by) == "numpy.dtype"


def _spec(made: Made) -> Any:
    args = made.values()
    if args and type(args[0]) is Global and str(args[0]) == "numpy.dtype":  # by way of copyreg
        args = args[1:]
    return args[0] if args else None


def _holds_objects(value: Any, parts: list[Any] | None = None, depth: int = 0) -> bool | None:
    """Whether arrays of a dtype hold objects; None where that cannot be told."""
    if type(value) is not Made or depth > _DEEPEST:
        return None
    if parts is None:
        parts = value.state.values() if type(value.state) is Held else []
    spec = _spec(value)
    if type(spec) is Made:
        return _holds_objects(spec, None, depth + 1)
    if type(spec) is Global and spec.name in _OBJECTS:
        return True
    found = _SIMPLE.fullmatch(spec) if type(spec) is str else None
    if found and found[1] != "V":
        return found[1] == "O"
    inner = [part.values()[0] for part in parts[2:3] if type(part) is Held and part.items]
    fields = parts[4] if len(parts) > 4 and type(parts[4]) is Held else None
    inner += [field.values()[0] for field in _fields(fields)]
    held = {_holds_objects(part, None, depth + 1) for part in inner}
    return True if True in held else None if None in held or not found else False


def _fields(fields: Held | None) -> list[Held]:
    return [field for field in fields.values()[1::2] if type(field) is Held and field.items] if fields else []


def _fits(fields: Held, size: int) -> bool:
    """Whether all fields lie in a record of so many bytes, as far as that can be told."""
    for field in _fields(fields):
        dtype, offset = [*field.values(), None][:2]
        if type(offset) is int and type(dtype) is Made and not 0 <= offset <= size - max(0, _width(dtype)):
            return False
    return True


def _width(dtype: Made) -> int:
    parts = dtype.state.values() if type(dtype.state) is Held else []
    if len(parts) > 5 and type(parts[5]) is int and parts[5] > 0:
        return parts[5]
    found = _SIMPLE.fullmatch(_spec(dtype)) if type(_spec(dtype)) is str else None
    return int(found[2][:9] or 0) if found and found[1] not in "SaU" else 0
