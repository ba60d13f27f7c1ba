"""What may be taken from an object or made of names: attributes by text, classes with members, modules.

Rules as in `arguments`: why a call is not harmless and how bad that is, None for a harmless one.
"""

from __future__ import annotations

from typing import Any, Final

from casemate.formats.scanning.pickles.arguments import Fault, class_named, known_name, says_dunder, suspicious
from casemate.formats.scanning.pickles.dangers import danger_of, misplaced, says_power
from casemate.formats.scanning.pickles.rulings import STDLIB, frameworks, ruling
from casemate.formats.scanning.pickles.values import Global, Held, Made
from casemate.formats.scanning.signs import Level

__all__ = ["attribute", "imported", "made_class", "taking"]


def attribute(args: list[Any]) -> Fault | None:
    """For `getattr`: members of enumerations, and those methods of known classes that the tables have by name."""
    target, name = [*args, None, None][:2]
    made_empty = name == "__new__" and type(target) is Global  # how a class of one's own says that it is made empty
    if type(name) is not str or "." in name or (says_dunder(name) and not made_empty):
        return Level.MALICIOUS, f"reaches the attribute {name!r}, from which any function can be reached"
    cls = target if type(target) is Global else class_named(target)
    why = danger_of(cls.module, f"{cls.name}.{name}") if cls is not None else ""
    if why or (cls is None and says_power(name)):
        return Level.MALICIOUS, f"takes the attribute {name!r} of {cls or 'what it made'}: it {why or 'reaches out'}"
    if cls is None or not known_name(cls):
        return suspicious(f"takes the attribute {name!r} of an object that it made")
    found = ruling(cls.module, cls.name)
    if found.members and not name.startswith("_"):
        return None
    known = any(known_name(Global(home, dotted, 0, "")) for home, dotted in _methods(cls, name))
    if known or (cls.module, name) in _LAZY or (str(target) in _TEXT and name in _OF_TEXTS):
        return None
    why = misplaced(cls.module, f"{cls.name}.{name}") if found.framework != STDLIB else ""
    level = Level.MALICIOUS if why else Level.SUSPICIOUS
    return level, f"takes the attribute {name!r} of {cls}" + (f": it {why}" if why else "")


def _methods(cls: Global, name: str) -> list[tuple[str, str]]:
    """Names under which the tables may have a method of a class, of its bases too."""
    found = [(cls.module, f"{cls.name}.{name}")]
    if cls.module.startswith("scipy.stats.") and cls.name.endswith("_gen"):
        home = "scipy.stats._distn_infrastructure"
        found += [(home, f"{base}.{name}") for base in ("rv_generic", "rv_continuous", "rv_discrete")]
    return [*found, ("torch.nn.functional", name)] if str(cls) == "torch._C._VariableFunctionsClass" else found


_LAZY: Final = frozenset({
    (f"torch.nn.modules.{part}", name) for part in ("batchnorm", "conv", "instancenorm", "linear")
    for name in ("_infer_parameters", "_lazy_load_hook")
})  # fmt: skip
_TEXT: Final = ("builtins.str", "__builtin__.str", "__builtin__.unicode")
_OF_TEXTS: Final = frozenset({
    "capitalize", "casefold", "endswith", "isalnum", "isalpha", "isdigit", "isnumeric", "istitle", "lower", "lstrip",
    "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
})  # fmt: skip
"""Methods of texts that models hold, such as `CountVectorizer(preprocessor=str.lower)`; to call one is told apart."""


def made_class(args: list[Any]) -> Fault | None:
    """For `type(name, bases, members)`: a class whose methods Python calls by itself runs what the file gives it."""
    members = args[2] if len(args) == 3 else None
    keys = members.values()[::2] if type(members) is Held else []
    hook = next((key for key in keys if says_dunder(key) and key not in _ABOUT), None)
    return None if hook is None else (Level.MALICIOUS, f"makes a class with a {hook} of the file's choice")


_ABOUT: Final = ("__annotations__", "__doc__", "__module__", "__name__", "__qualname__", "__slots__")


def taking(args: list[Any]) -> Fault | None:
    """For `operator.attrgetter` and its like: what takes attributes from which any function can be reached is harm."""
    for arg in args:
        if type(arg) in (Made, Held) or (type(arg) is str and says_power(arg)):
            return Level.MALICIOUS, f"takes {arg!r}"[:80] if type(arg) is str else "takes what it computes"
    return suspicious("makes a function that takes attributes or items of whatever it is given")


def imported(args: list[Any]) -> Fault | None:
    """For cloudpickle's `subimport`: a library that has a table, by its name alone."""
    name = args[0] if args else None
    if type(name) is not str:
        return suspicious("imports a module that the file does not name as a text")
    why = danger_of(name, "")
    if why:
        return Level.MALICIOUS, f"imports {name[:80]!r}: it {why}"
    known = name.partition(".")[0] in frameworks() - {STDLIB} or name in _MODULES
    return None if known else suspicious(f"imports {name[:80]!r}")


_MODULES: Final = frozenset(
    {"math", "cmath", "random", "re", "json", "itertools", "collections", "functools", "string"}
)
