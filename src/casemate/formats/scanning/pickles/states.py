"""What may be set as the state of an object: what runs code while a class takes its state back.

A pickler sets the state of an object once, after its items, as a dict with texts as keys. Python looks for the methods
`__setstate__`, `append`, `extend` and `add` at the object first, so that a state set before can replace them; and some
classes run a text of their state, or call what lies under a name of it.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from casemate.formats.scanning.pickles.arguments import bound, class_named, may_run, says_dunder
from casemate.formats.scanning.pickles.dangers import danger_of, says_power
from casemate.formats.scanning.pickles.dtypes import harm_of_array, harm_of_dtype, harm_of_generator, is_bare_dtype
from casemate.formats.scanning.pickles.rulings import Use, ruling
from casemate.formats.scanning.pickles.values import UNSEEN, Global, Held, Made, means, plain
from casemate.formats.scanning.signs import Level

__all__ = ["StateFault", "faults_of_items", "faults_of_state"]

_PLAIN_DUNDERS: Final = frozenset({
    "__doc__", "__sklearn_tags__", "__version__", "__pydantic_fields_set__", "__name__", "__qualname__", "__module__",
    "__overloads__",
})  # fmt: skip
_GIVE_OBJECTS: Final = frozenset({
    "__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor", "_rebuild_parameter", "defaultdict", "deque",
    "partial",
})  # fmt: skip
"""Functions of the tables that give an object of their own, whose state is set, without being given its class."""
_RUN: Final = {
    "restore_model_spec": "statsmodels evaluates the formula that lies beside it",
    "restore_design_info": "statsmodels evaluates the formula that lies beside it",  # before 0.14
    "_attach_methods": "scipy calls it when it takes the state back",
    "_attach_argparser_methods": "scipy calls it when it takes the state back",
    "_patch_step_function": "torch calls it when it takes the state back",
    "_build_f": "scikit-learn calls it when it takes the state back",
    "_initialize": "statsmodels calls it when it takes the state back",
}
_METHODS: Final = frozenset({
    name for kind in (dict, list, set, str, bytes, int, float, OrderedDict, deque) for name in dir(kind)
    if not name.startswith("_")
}) | {"astype", "close", "to_ss", "to_tf", "to_zpk", "to_numpy", "view"}  # fmt: skip
"""Methods that classes call of what they hold while they take a state back, are made or are thrown away.

Read in the libraries: torch's optimizers (`setdefault`, `get`, `values`), scipy's systems (`to_tf`), its triangulations
and Python's files (`close`), scikit-learn's trees (`astype`), nltk's counters (`items`), pandas (`copy`, `view`).
"""
_DISTRIBUTION: Final = re.compile(r"scipy\.stats\.[\w.]*\.(?:\w+_gen|rv_(?!frozen|\w*_frozen)\w+)")
_CALLED: Final = re.compile(r"(\w+)\s*[.(]")
_SHAPES = r"(?:[A-Za-z_]\w*, )*"
_TEMPLATE: Final = re.compile(
    rf"""
def _parse_args\(self, (?P<shapes>{_SHAPES}) (?P<loc>loc=0(?:, scale=1)?)\):
    return \((?P=shapes)\), (?P<out>loc, (?:scale|1))

def _parse_args_rvs\(self, (?P=shapes) (?P=loc), size=None\):
    return self\._argcheck_rvs\((?P=shapes) (?P=out), size=size\)

def _parse_args_stats\(self, (?P=shapes) (?P=loc), moments='mv'\):
    return \((?P=shapes)\), (?P=out), moments
"""
)
_CONSTRUCTOR: Final = frozenset({
    "a", "b", "badvalue", "extradoc", "inc", "longname", "moment_tol", "momtype", "name", "seed", "shapes", "values",
    "xtol",
})  # fmt: skip
"""What a distribution of SciPy before 1.6 is made of again."""


@dataclass(frozen=True, slots=True)
class StateFault:
    """Why a state is not harmless: `rule` without its format, `what` is set, `why` that is dangerous."""

    level: Level
    rule: str
    what: str
    why: str


def faults_of_state(target: Made, state: Any) -> Iterator[StateFault]:
    """What is wrong with a state for an object that a call of a known name made."""
    cls = class_named(target)
    if target.state is not None and state is not None:
        yield _odd("sets a second state of one object", "no pickler does; the first may replace what takes the second")
    if type(state) is Made and state is not target and not _is_data(state):
        yield _odd(f"sets what {class_named(state)} gave as a state", "its keys cannot be seen")
    if cls is not None:
        empty = target.opcode in ("NEWOBJ", "NEWOBJ_EX")
        called = cls is target.by and not empty and ruling(cls.module, cls.name).use is Use.CALL
        if called and cls.name not in _GIVE_OBJECTS:
            yield _odd(f"sets the state of what {cls} gave", "it may be a module or a class, which other code sees too")
        yield from _of_class(cls, state)
        if cls.module.startswith("numpy"):
            yield from _of_numpy(target, cls, state)
    if type(state) is Held:
        yield from _keys(state)


def faults_of_items(target: Made) -> Iterator[StateFault]:
    """What is wrong with adding items to an object that a call of a known name made."""
    cls = class_named(target)
    if target.state is not None:
        why = "no pickler does; the state may replace the method that adds them"
        yield StateFault(Level.SUSPICIOUS, "items-after-state", f"adds items to {cls} after its state", why)
    elif cls is None or not ruling(cls.module, cls.name).filled:
        why = "its class is no list, dict or set, so that its own code takes them"
        yield StateFault(Level.SUSPICIOUS, "items-of-object", f"adds items to what {cls or 'a call'} gave", why)


def _is_data(state: Made) -> bool:
    """Whether a state is bytes or numbers, however they were made."""
    by = state.by
    known = type(by) is Global and ruling(by.module, by.name).framework == "numpy"
    return known or (type(by) is Global and by.name in ("encode", "bytes", "bytearray"))


def _odd(what: str, why: str) -> StateFault:
    return StateFault(Level.SUSPICIOUS, "state", what, why)


def _of_class(cls: Global, state: Any) -> Iterator[StateFault]:
    """Rules of single classes, and of slots."""
    if cls.module.startswith("scipy.stats.") and _DISTRIBUTION.fullmatch(str(cls)) and not _is_distribution(state):
        yield _odd(f"sets another state of {cls} than SciPy writes", "it runs a text of its state")
    if cls.name == "partial" and cls.module == "functools":
        fault = bound(state.values() if type(state) is Held and state.kind == "tuple" else [])
        if fault:
            yield _odd("binds another function", f"it {fault[1]}")
    if cls.module.startswith(("statsmodels.", "lifelines.")) and type(state) is Held and state.kind == "dict":
        yield from _formulas(cls, state)
    parts = state.items if type(state) is Held and state.kind == "tuple" else []
    if len(parts) == 2 and type(parts[1]) is Held and parts[1].kind == "dict" and (parts[1].items or parts[1].cut):
        known = ruling(cls.module, cls.name)
        if known.level is Level.CLEAN and not known.slotted:
            yield _odd(f"sets attributes of {cls} one by one", "its class has no slots; its own code would take them")


def _of_numpy(target: Made, cls: Global, state: Any) -> Iterator[StateFault]:
    """What NumPy believes of dtypes, arrays and generators, and arrays of a dtype that can still be changed."""
    if cls.module.startswith("numpy.random"):
        harm = harm_of_generator(state)
    else:
        harm = harm_of_dtype(target, state) if cls.name == "dtype" else harm_of_array(state)
    if harm is not None:
        yield StateFault(Level.MALICIOUS, "state-crashes", *harm)
    bare = type(state) is Held and cls.name != "dtype" and [part for part in state.items if type(part) is Made]
    if bare and any(map(is_bare_dtype, bare)):
        yield _odd(f"fills {cls} with a dtype that has no state", "a later state changes what its bytes mean")


def _formulas(cls: Global, state: Held) -> Iterator[StateFault]:
    for formula in filter(None, map(state.at, ("formula", "model_spec", "design_info"))):
        reaches = type(formula) is str and (
            "__" in formula or any(says_power(word) or danger_of("builtins", word) for word in _CALLED.findall(formula))
        )
        level = Level.MALICIOUS if reaches else Level.SUSPICIOUS
        why = "it is evaluated as code when the model is loaded or predicts"
        yield StateFault(level, "state-runs", f"sets a formula of {cls}", why)


def _is_distribution(state: Any) -> bool:
    if type(state) is not Held or state.cut >= UNSEEN:
        return False
    if state.kind == "dict":
        return True
    parts = state.values() if state.kind == "tuple" else []
    if len(parts) != 2 or type(parts[0]) is not Held or parts[0].kind != "dict" or parts[0].cut:
        return False
    made = parts[1] is None or type(parts[1]) is Global or "numpy.random" in str(class_named(parts[1]))
    return made and all(type(key) is str and key in _CONSTRUCTOR for key in parts[0].values()[::2])


def _keys(state: Held) -> Iterator[StateFault]:
    """Keys of a dict, of the dicts in a tuple or list, and of pairs that `dict.update` would take."""
    parts = state.items if state.kind != "dict" else [state]
    pairs: bool | None = None
    for part in parts:
        if type(part) is not Held:
            continue
        values = part.items
        if part.kind == "dict":
            if part.cut >= UNSEEN:
                yield _odd("sets more attributes than can be followed", "some of its keys were not seen")
            yield from _of_methods(values)
            if not _mean_nothing(values[::2]):
                yield from _of_keys(list(zip(values[::2], values[1::2], strict=False)))
        elif len(values) == 2:
            if pairs is None:
                pairs = all(type(other) is Made or _pair(plain(other)) for other in parts)
            if pairs:
                yield from _of_methods(values)
                yield from _of_keys([(values[0], values[1])])


def _of_methods(values: list[Any]) -> Iterator[StateFault]:
    """Keys of what may be called: those of methods."""
    for key, given in zip(values[::2], values[1::2], strict=False):
        if type(given) in (Global, Made) and plain(key) in _METHODS and may_run(given):
            why = "it replaces a method, which other classes call while they are loaded"
            yield StateFault(Level.SUSPICIOUS, "state-method", f"sets a function as {plain(key)!r}", why)


def _mean_nothing(keys: list[Any]) -> bool:
    """Whether all keys are plain, and none of them can be one that `_of_keys` looks for, which all are in `MEANT`."""
    try:
        return not means(b"".join(keys))
    except TypeError:
        return False


def _pair(part: Any) -> bool:
    """Whether `dict.update` takes it for a key and a value: two parts, or a dict of two."""
    if type(part) is Held:
        return len(part.items) == (4 if part.kind == "dict" else 2)
    return type(part) in (str, bytes) and len(part) == 2


def _of_keys(pairs: list[tuple[Any, Any]]) -> Iterator[StateFault]:
    for name, given in pairs:
        key = plain(name)
        if type(key) in (Made, Held):
            yield _odd("sets an attribute whose name is computed", "what it replaces cannot be seen")
        elif type(key) is not str:
            continue
        elif says_dunder(key) and key not in _PLAIN_DUNDERS:
            why = "it replaces a method or the class of the object, which then runs what the pickle chose"
            yield StateFault(Level.MALICIOUS, "state-of-class", f"sets the attribute {key[:80]!r}", why)
        elif key == "_parse_arg_template" and not (type(plain(given)) is str and _TEMPLATE.fullmatch(plain(given))):
            why = "SciPy runs this text as code when it takes the state back, and SciPy never wrote it"
            yield StateFault(Level.MALICIOUS, "state-runs", "sets a text of its own as _parse_arg_template", why)
        elif key in _RUN:
            yield StateFault(Level.SUSPICIOUS, "state-runs", f"sets {key!r}", _RUN[key])
