"""What may be given to callables of the tables: a rule returns why a call is not harmless and how bad that is.

A rule gets the arguments, plain values as what they are, and returns None for a harmless call. `shapes` says which rule
is whose.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from casemate.formats.scanning.pickles.rulings import STDLIB, Use, ruling
from casemate.formats.scanning.pickles.values import DATA, UNSEEN, Global, Held, Made, plain
from casemate.formats.scanning.signs import Level

__all__ = [
    "Fault", "Rule", "asks_little", "binds", "bit_generator", "bound", "builtin_type", "class_named",
    "class_of_library", "converted", "dtype_text", "dumped_array", "encoded", "exchange_array", "known_name",
    "made_by_copyreg", "masked_array", "may_run", "missing", "of_layout", "opened_bytes", "random_state",
    "rebuilt_tensor", "says_dunder", "scalar_of", "suspicious", "tensor_of_type", "tensor_with_state", "texts_only",
    "time_zone", "ufunc",
]  # fmt: skip

Fault = tuple[Level, str]
Rule = Callable[[list[Any]], Fault | None]
_LARGE: Final = 1 << 30  # bytes or elements that a few opcodes may ask for
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_NUMBERS: Final = frozenset({STDLIB, "numpy", "joblib"})
_UFUNCS: Final = frozenset({
    "numpy", "numpy.core", "numpy.core.umath", "numpy.core._multiarray_umath", "numpy._core", "numpy._core.umath",
    "numpy._core._multiarray_umath",
})  # fmt: skip


def suspicious(why: str) -> Fault:
    """A fault that is no alarm."""
    return Level.SUSPICIOUS, why


def known_name(value: Any, use: Use | None = None) -> bool:
    """Whether a value is a name that a table has, with that use."""
    if type(value) is not Global:
        return False
    found = ruling(value.module, value.name)
    return found.level is Level.CLEAN and use in (None, found.use)


def says_dunder(key: Any) -> bool:
    """Whether a key is a name that means something to Python itself."""
    return type(key) is str and key.startswith("__") and key.endswith("__")


def _made_by(value: Any) -> tuple[str, str]:
    by = value.by if type(value) is Made else None
    return (by.module, by.name) if type(by) is Global else ("", "")


def _framework(value: Any) -> str:
    """Whose object a call gives; nobody's where a state may have replaced its methods."""
    found = ruling(*_made_by(value))
    own = type(value) is Made and (type(value.state) in (Held, Made) and getattr(value.state, "kind", "dict") == "dict")
    if found.level is not Level.CLEAN or own or _made_by(value)[1] in ("Namespace", "SimpleNamespace"):
        return ""
    return found.framework


def _is_class(value: Any, framework: str) -> bool:
    return known_name(value, Use.CLASS) and ruling(value.module, value.name).framework == framework


def _is_text(value: Any) -> bool:
    """Whether a value is bytes or a text, or bytes as protocol 2 writes them."""
    made = _made_by(value)
    return value is DATA or type(value) in (str, bytes) or made[1] in ("encode", "bytes", "bytearray")


# ------------------------------------------------------------------------------------------------- the standard library


def converted(args: list[Any]) -> Fault | None:
    """What is turned into a number, text or container by its own methods: nothing whose methods a state can replace."""
    for arg in args:
        if type(arg) is Made and _framework(arg) not in _NUMBERS:
            return suspicious(f"converts what {arg.by if type(arg.by) is Global else 'a call'} gave by its own methods")
        if (type(arg) is Global and not known_name(arg, Use.CLASS)) or binds(arg):
            return suspicious(f"would call {arg if type(arg) is Global else 'a bound function'}")
    return asks_little(args)


def asks_little(args: list[Any]) -> Fault | None:
    """No number among the arguments asks for gigabytes."""
    parts = [part for arg in args for part in (arg.values() if type(arg) is Held else [arg])]
    numbers = [abs(part) for part in parts if type(part) is int]
    if numbers and max(numbers) > _LARGE:
        return Level.MALICIOUS, f"asks for {max(numbers):,} elements, which exhausts memory"
    return None


def class_named(made: Any) -> Global | None:
    """The class of which a call makes an object, by name; None where that is not said."""
    if type(made) is not Made or type(made.by) is not Global:
        return None
    first = plain(made.args[0]) if made.args else None
    by = made.by.name
    makes = by in _MAKERS or by.startswith(("__pyx_unpickle_", "_new_")) or by == "NewObj"
    return first if makes and type(first) is Global else made.by


_MAKERS: Final = frozenset({
    "_reconstructor", "__newobj__", "__newobj_ex__", "_reconstruct", "_mareconstruct", "newObj", "__bit_generator_ctor",
})  # fmt: skip


def bound(args: list[Any]) -> Fault | None:
    """For `functools.partial`: a function, and parts of it, that harm with no arguments, since anything may call it."""
    if args and str(args[0]) == "collections.defaultdict":  # defaultdict(partial(defaultdict, int))
        return _bound_parts(args[1:])
    if not args or not (_made_by(args[0]) == ("functools", "partial") or _calls_little(args[0])):
        return suspicious("binds arguments to a function that reads, loads or calls what it is given, or is not known")
    return _bound_parts(args[1:])


def _calls_little(value: Any) -> bool:
    """Whether a name is a function of numbers, or a class that is made of numbers, layers and plain containers."""
    if known_name(value, Use.VALUE):
        return str(value.name) != "type"
    if not known_name(value, Use.CLASS):
        return str(value) in ("collections.defaultdict", "collections.deque")
    return ruling(value.module, value.name).framework in (*_NUMBERS, "timm", "torchvision") or (
        value.module.startswith(
            ("torch.nn.modules.", "torch.optim.", "transformers.activations", "ultralytics.nn.modules.")
        )
        and value.name not in ("LambdaLR", "MultiplicativeLR")  # which call what they are given
    )


def _bound_parts(parts: list[Any], depth: int = 0) -> Fault | None:
    for part in parts:
        fault = None
        if type(part) is Held:
            fault = _bound_parts(part.values(), depth + 1)
            if depth > 3 or part.cut & UNSEEN:
                fault = suspicious("binds more than can be followed")
        elif type(part) is Global and not _calls_little(part):
            fault = suspicious(f"binds {part}, which would be called")
        elif type(part) is Made and _framework(part) not in (*_NUMBERS, "torch"):
            fault = suspicious("binds an object of a class with methods of its own")
        if fault:
            return fault
    return None


def binds(value: Any) -> bool:
    """Whether a call gave a function with some of its arguments, or the method of an object."""
    return _made_by(value)[1] in ("partial", "attrgetter", "itemgetter", "getattr")


def may_run(value: Any) -> bool:
    """Whether a value may be called: a name, a bound function, or an object of a class that may have `__call__`."""
    if type(value) is not Made or binds(value):
        return type(value) in (Global, Made)
    cls = class_named(value)
    if cls is None or cls.name == "vectorize":
        return True
    return ruling(cls.module, cls.name).framework not in (*_NUMBERS, "pandas", "sklearn")


def encoded(args: list[Any]) -> Fault | None:
    """For `_codecs.encode`: as pickles of protocol 2 write bytes."""
    codec = args[1] if len(args) > 1 else "utf-8"
    if not args or not (type(args[0]) is str or args[0] is DATA):
        return suspicious("encodes what is no text")
    harmless = type(codec) is str and codec.lower().replace("_", "-") in ("latin1", "latin-1", "utf-8", "utf8", "ascii")
    return None if harmless else suspicious(f"encodes a text with {codec!r}, as no pickler does")


def made_by_copyreg(args: list[Any]) -> Fault | None:
    """For `copyreg._reconstructor(class, base, state)` and `__newobj__(class, ...)`."""
    cls, base, state = [*args, None, None, None][:3]
    if type(cls) is not Global or (known_name(cls) and not known_name(cls, Use.CLASS)):
        return suspicious("makes an object of what is no class of a table")
    if type(base) is not Global:
        return None
    bases = ("object", "dict", "list", "set", "tuple", "float", "int", "str", "frozenset", "bytes", "complex")
    plain = base.module in ("builtins", "__builtin__") and base.name in bases
    if plain and (base.name != "object" or state is None):
        return converted([state])
    return suspicious("makes an object other than from a class and a plain base")


def missing(args: list[Any]) -> Fault | None:
    """For `defaultdict`: the first argument is called for each key that is missing."""
    first = args[0] if args else None
    counts = any(_is_class(first, framework) for framework in ("nltk", "gensim"))
    if first is None or counts or (_calls_little(first) and not known_name(first, Use.VALUE)):
        return converted(args[1:])
    if _made_by(first) == ("functools", "partial"):
        return converted(args[1:])
    return suspicious("would call an unknown function for each missing key")


def exchange_array(args: list[Any]) -> Fault | None:
    """For `array._array_reconstructor(class, type, format, bytes)`."""
    if args and type(args[0]) is Global and str(args[0]) == "array.array":
        return converted(args[1:])
    return suspicious("makes an array of another class than array.array")


def opened_bytes(args: list[Any]) -> Fault | None:
    """For what opens bytes: they are looked into by the judge; a path is no bytes."""
    return (
        None if all(_is_text(arg) or arg is None or type(arg) is int for arg in args) else suspicious("opens no bytes")
    )


def builtin_type(args: list[Any]) -> Fault | None:
    """For cloudpickle's and dill's types by name: those of which no code is made."""
    harmless = (
        "ClassType", "NoneType", "EllipsisType", "NotImplementedType", "MappingProxyType", "SimpleNamespace",
        "OrderedDictType", "DictType", "ListType", "TupleType", "SetType", "FrozenSetType", "IntType", "FloatType",
        "StringType", "BooleanType", "ComplexType", "BytesType", "ObjectType",
    )  # fmt: skip
    if args and type(args[0]) is str and args[0] in harmless:
        return None
    return Level.MALICIOUS, "makes a function from code that lies in the file, where nobody has read it"


def time_zone(args: list[Any]) -> Fault | None:
    """For time zones by name: a name that stays in the folder of zones."""
    return None if args and type(args[0]) is str and _ZONE.fullmatch(args[0]) else suspicious("asks for no time zone")


def texts_only(args: list[Any]) -> Fault | None:
    """Only texts, bytes, numbers and None."""
    fine = all(_is_text(arg) or arg is None or type(arg) in (int, float, bool) for arg in args)
    return None if fine else suspicious("is given something else than texts and numbers")


# --------------------------------------------------------------------------------------------------------------- numpy


def class_of_library(framework: str) -> Rule:
    """A rule: the first argument is a class that the framework's own table has."""

    def rule(args: list[Any]) -> Fault | None:
        if args and _is_class(args[0], framework):
            return asks_little(args[1:])
        return suspicious(f"makes an object of what is no known class of {framework}")

    return rule


def masked_array(args: list[Any]) -> Fault | None:
    """For `_mareconstruct(class, base, shape, type)`."""
    if len(args) > 1 and _is_class(args[0], "numpy") and _is_class(args[1], "numpy"):
        return asks_little(args[2:])
    return suspicious("makes an array of a class that no table of known names has")


def dumped_array(args: list[Any]) -> Fault | None:
    """For dill's `_create_array(function, arguments, state)`, which calls the function."""
    made = args[0] if args else None
    known = type(made) is Global and made.name == "_reconstruct" and known_name(made)
    inner = args[1].values() if len(args) > 1 and type(args[1]) is Held else []
    if known:
        return class_of_library("numpy")(inner)
    return suspicious("makes an array by calling something else than numpy")


def scalar_of(args: list[Any]) -> Fault | None:
    """For `scalar(dtype, bytes)`."""
    if len(args) > 1 and type(args[1]) is Made and _framework(args[1]) not in _NUMBERS:
        return suspicious("makes a number from an unknown object")
    return None


def dtype_text(args: list[Any]) -> Fault | None:
    """For `numpy.dtype`: a text, a class, or parts."""
    spec = args[0] if args else None
    if spec is DATA or type(spec) in (str, Held, type(None)) or known_name(spec) or _framework(spec) in _NUMBERS:
        return None
    return suspicious("makes a dtype of what names none")


def bit_generator(args: list[Any]) -> Fault | None:
    """For `__bit_generator_ctor(class or text)`, which calls the class."""
    cls = args[0] if args else None
    known = type(cls) is Global and _is_class(cls, "numpy") and cls.module.startswith("numpy.random")
    return None if cls is None or type(cls) is str or known else suspicious(f"calls {cls}, which is no bit generator")


def random_state(args: list[Any]) -> Fault | None:
    """For `__generator_ctor(bits, constructor)`, which calls its second argument."""
    first, second = [*args, None, None][:2]
    if second is not None and str(second) != "numpy.random._pickle.__bit_generator_ctor":
        return Level.MALICIOUS, f"calls {second}, which is no constructor of bit generators"
    made = "__bit_generator_ctor" in _made_by(first) or _is_class(class_named(first), "numpy")
    if first is None or type(first) is str or made:
        return None
    return suspicious("makes a generator from what is no bit generator")


def ufunc(args: list[Any]) -> Fault | None:
    """For `_ufunc_reconstruct(module, name)`, which imports any module."""
    module, name = [*args, None, None][:2]
    if type(module) is str and type(name) is str and module in _UFUNCS:
        numpy = ("numpy", module, "numpy.core._multiarray_umath")
        if any(known_name(Global(home, name, 0, ""), Use.VALUE) for home in numpy):
            return None
    return Level.MALICIOUS, f"imports {name!r} from {module!r}, which is no function of numpy's"


# --------------------------------------------------------------------------------------------------------------- torch


def rebuilt_tensor(args: list[Any]) -> Fault | None:
    """For `_rebuild_...`: storages, tensors and what they are made of, all of them torch's or numpy's."""
    for arg in args:
        if type(arg) is Made and _framework(arg) not in ("torch", *_NUMBERS):
            return suspicious(f"makes a tensor from what {arg.by if type(arg.by) is Global else 'a call'} gave")
    return None


def tensor_with_state(args: list[Any]) -> Fault | None:
    """For `_rebuild_parameter_with_state(data, requires_grad, hooks, state)`, which sets each attribute."""
    return rebuilt_tensor(args[:3]) or _plain_state(args[3] if len(args) > 3 else None)


def _plain_state(state: Any) -> Fault | None:
    for part in state.values() if type(state) is Held and state.kind == "tuple" else [state]:
        if part is None:
            continue
        if type(part) is not Held or part.kind != "dict" or part.cut:
            return suspicious("gives a tensor a state that is no dict")
        for key in part.values()[::2]:
            if type(key) is not str or says_dunder(key) or key in _TENSOR_OWN:
                return Level.MALICIOUS, f"sets the attribute {key!r} of a tensor"
    return None


_TENSOR_OWN: Final = frozenset({"data", "grad", "names", "_backward_hooks", "_grad", "grad_fn"})


def tensor_of_type(args: list[Any]) -> Fault | None:
    """For `_rebuild_from_type_v2(function, type, arguments, state)`, which calls the function."""
    function, cls, inner, state = [*args, None, None, None, None][:4]
    rebuilds = type(function) is Global and function.module == "torch._utils" and function.name.startswith("_rebuild_")
    if not rebuilds or not known_name(function, Use.CALL):
        return Level.MALICIOUS, f"calls {function}, which makes no tensor"
    if not known_name(cls) or not cls.module.startswith("torch") or type(inner) is not Held:
        return suspicious("makes a tensor of an unknown class")
    if function.name == "_rebuild_parameter_with_state":
        return tensor_with_state(inner.values()) or _plain_state(state)
    return rebuilt_tensor(inner.values()) or _plain_state(state)


def of_layout(args: list[Any]) -> Fault | None:
    """For `_get_layout(name)`, which looks a text up in torch's own list."""
    return None if len(args) == 1 and type(args[0]) is str else suspicious("asks for no layout")
