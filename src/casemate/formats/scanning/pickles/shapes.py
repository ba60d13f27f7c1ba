"""How a known name may be called: which rule each callable has, and when a class may be called.

Every function that the tables let a pickle call either has a rule here or stands in `REVIEWED`, which a test holds
every table to: whoever adds a callable has to read it first.
"""

from __future__ import annotations

from typing import Any, Final

from casemate.formats.scanning.pickles import arguments as args
from casemate.formats.scanning.pickles import attributes
from casemate.formats.scanning.pickles.arguments import Fault, Rule
from casemate.formats.scanning.pickles.rulings import STDLIB, Use, ruling
from casemate.formats.scanning.pickles.values import Global, Made

__all__ = ["LOOKED_INTO", "MAY_BE_KEPT", "REVIEWED", "fault_of", "is_calm", "looks_at", "rule_of"]

LOOKED_INTO: Final = frozenset({("torch.storage", "_load_from_bytes"), ("io", "BytesIO"), ("_io", "BytesIO")})
"""Callables whose bytes are opened again by somebody, so that they are scanned whatever they begin with."""
REVIEWED: Final = frozenset({
    # Sets a flag of a dtype from two values that it looks at and does not call.
    ("numpy._core._internal", "_convert_to_stringdtype_kwargs"),
    # Returns NaT, whatever it is given.
    ("pandas._libs.tslibs.nattype", "__nat_unpickle"), ("pandas._libs.tslibs.nattype", "_nat_unpickle"),
    # Returns the one UTC.
    ("pytz", "_UTC"),
})  # fmt: skip
"""Callables that are harmless for any plain data: each was read."""
MAY_BE_KEPT: Final = frozenset({
    *((home, name) for home in ("builtins", "__builtin__") for name in ("bytearray", "bytes", "range", "xrange")),
    ("array", "array"), ("collections", "defaultdict"), ("collections", "deque"), ("io", "BytesIO"), ("_io", "BytesIO"),
})  # fmt: skip
"""Callables that models may hold: plain types. Any other is only called; kept, it would be called with anything."""
_LOOKS_AT: Final = frozenset({
    ("numpy.random._pickle", "__generator_ctor"), ("numpy.random._pickle", "__randomstate_ctor"),
    ("dill._dill", "_create_array"), ("torch._tensor", "_rebuild_from_type"),
    ("torch._tensor", "_rebuild_from_type_v2"),
})  # fmt: skip
_MADE_EMPTY: Final = ("NEWOBJ", "NEWOBJ_EX")
_CONVERTED: Final = frozenset({
    "ChainMap", "Counter", "Decimal", "Fraction", "OrderedDict", "bool", "complex", "count", "dict", "enumerate",
    "float", "frozenset", "int", "list", "long", "reversed", "set", "str", "tuple", "unicode", "zip",
})  # fmt: skip


def fault_of(made: Made) -> Fault | None:
    """What is wrong with a call of a known name; None for nothing."""
    by = made.by
    known = ruling(by.module, by.name)
    rule = rule_of(by.module, by.name)
    if rule is not None:
        return rule(made.values())
    if known.use is Use.CALL:
        return None if (by.module, by.name) in REVIEWED else args.suspicious("is called, and nobody has read it")
    converts = known.framework == STDLIB and by.name in _CONVERTED
    if made.opcode in _MADE_EMPTY or (made.opcode in ("INST", "OBJ") and not made.args):
        return args.converted(made.values()) if converts and made.args else None
    if not known.built:
        return args.suspicious("is called with arguments, as no file of its library does")
    return args.converted(made.values()) if converts else None


def looks_at(by: Any) -> bool:
    """Whether the rule of a name judges the functions that it is given."""
    return type(by) is Global and (by.module, by.name) in _LOOKS_AT


def is_calm(made: Made) -> bool:
    """Whether a harmless call of a class stays harmless with any other arguments."""
    known = ruling(made.by.module, made.by.name)
    converts = known.framework == STDLIB and made.by.name in _CONVERTED
    return known.use is Use.CLASS and not converts and rule_of(made.by.module, made.by.name) is None


def rule_of(module: str, name: str) -> Rule | None:
    """The rule for calls of a name; None without."""
    found = _RULES.get((module, name))
    if found is None and name.startswith("__pyx_unpickle_"):
        return args.class_of_library({"_loss": "sklearn"}.get(module, module.partition(".")[0]))
    return found


def _pandas(*names: str) -> dict[tuple[str, str], Rule]:
    return {(module, name): args.class_of_library("pandas") for module in _INDEXES for name in names}


_INDEXES: Final = (
    "pandas.core.index", "pandas.indexes.base", "pandas.core.indexes.base", "pandas.core.indexes.datetimes",
    "pandas.core.indexes.interval", "pandas.core.indexes.timedeltas",
)  # fmt: skip


_NUMPY: Final = ("numpy.core", "numpy._core")


def _timestamp(values: list[Any]) -> Fault | None:
    """For `_unpickle_timestamp(value, freq, zone, unit)`: a zone by name would read a file."""
    bad = any(type(value) is str for value in values[2:3]) or any(type(value) is not int for value in values[:1])
    return args.suspicious("makes a time from other parts than its own pickles do") if bad else None


_RULES: Final[dict[tuple[str, str], Rule]] = {
    **{(home, "getattr"): attributes.attribute for home in ("builtins", "__builtin__")},
    **{(home, "_reconstructor"): args.made_by_copyreg for home in ("copyreg", "copy_reg")},
    **{(home, "__newobj__"): args.made_by_copyreg for home in ("copyreg", "copy_reg")},
    ("copyreg", "__newobj_ex__"): args.made_by_copyreg,
    **{(home, name): args.converted for home in ("builtins", "__builtin__")
       for name in ("bytearray", "bytes", "range", "xrange", "iter")},
    **{(home, "type"): attributes.made_class for home in ("builtins", "__builtin__")},
    ("functools", "partial"): args.bound, ("_codecs", "encode"): args.encoded, ("array", "array"): args.converted,
    ("array", "_array_reconstructor"): args.exchange_array, ("collections", "defaultdict"): args.missing,
    ("collections", "deque"): args.converted, ("dill._dill", "_create_array"): args.dumped_array,
    ("dill._dill", "_load_type"): args.builtin_type, ("cloudpickle.cloudpickle", "_builtin_type"): args.builtin_type,
    ("cloudpickle.cloudpickle", "subimport"): attributes.imported,
    ("io", "BytesIO"): args.opened_bytes, ("_io", "BytesIO"): args.opened_bytes, ("re", "_compile"): args.texts_only,
    ("operator", "attrgetter"): attributes.taking, ("operator", "itemgetter"): attributes.taking,
    ("zoneinfo", "ZoneInfo._unpickle"): args.time_zone, ("pytz", "_p"): args.time_zone,
    **{(home, "_ufunc_reconstruct"): args.ufunc for home in _NUMPY},
    **{(f"{home}.multiarray", "_reconstruct"): args.class_of_library("numpy") for home in _NUMPY},
    **{(f"{home}.multiarray", "scalar"): args.scalar_of for home in _NUMPY},
    **{(f"{home}.numeric", "_frombuffer"): args.rebuilt_tensor for home in _NUMPY},
    ("numpy.ma.core", "_mareconstruct"): args.masked_array, ("numpy", "dtype"): args.dtype_text,
    ("numpy.random._pickle", "__bit_generator_ctor"): args.bit_generator,
    ("numpy.random._pickle", "__generator_ctor"): args.random_state,
    ("numpy.random._pickle", "__randomstate_ctor"): args.random_state,
    **_pandas("_new_Index", "_new_DatetimeIndex", "_new_IntervalIndex", "_new_TimedeltaIndex"),
    ("pandas._libs.internals", "_unpickle_block"): args.asks_little,
    ("pandas._libs.tslibs.timedeltas", "_timedelta_unpickle"): args.texts_only,
    ("pandas._libs.tslibs.timestamps", "_unpickle_timestamp"): _timestamp,
    ("pyarrow.lib", "py_buffer"): args.texts_only, ("pyarrow.lib", "type_for_alias"): args.texts_only,
    ("pyarrow.lib", "_restore_array"): args.asks_little,
    **{(f"sklearn.{home}", "newObj"): args.class_of_library("sklearn") for home in (
        "metrics._dist_metrics", "neighbors._ball_tree", "neighbors._dist_metrics", "neighbors._kd_tree")},
    **{("torch._utils", f"_rebuild_{name}"): args.rebuilt_tensor for name in (
        "device_tensor_from_cpu_tensor", "device_tensor_from_numpy", "meta_tensor_no_storage", "nested_tensor",
        "parameter", "qtensor", "sparse_csr_tensor", "sparse_tensor", "tensor", "tensor_v2", "tensor_v3",
        "xla_tensor")},
    ("torch._utils", "_rebuild_parameter_with_state"): args.tensor_with_state,
    ("torch._tensor", "_rebuild_from_type_v2"): args.tensor_of_type,
    ("torch._tensor", "_rebuild_from_type"): args.tensor_of_type,
    ("torch.serialization", "_get_layout"): args.of_layout, ("torch.storage", "_load_from_bytes"): args.opened_bytes,
}  # fmt: skip
