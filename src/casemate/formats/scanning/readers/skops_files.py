"""skops: the `schema.json` inside the zip, which names each class that loading would make or call.

skops itself refuses types that it does not trust, and asks the user, who tends to say yes; its checks had holes
(CVE-2025-54412 `OperatorFuncNode`, CVE-2025-54413 `MethodNode`, CVE-2025-54886: what is no zip is unpickled).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.pickles.dangers import danger_of
from casemate.formats.scanning.pickles.rulings import ruling
from casemate.formats.scanning.readers._json import every, parsed_json
from casemate.formats.scanning.readers._plain import decoded, words
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, UNREADABLE, noted, shown
from casemate.formats.scanning.signs import Level, Sign, Used
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_LOADERS: Final = words(
    "BytearrayNode BytesNode CachedNode ConstructorFromReduceNode DTypeNode DefaultDictNode DictNode FunctionNode "
    "JsonNode ListNode LossNode MaskedArrayNode MethodNode NdArrayNode ObjectNode OperatorFuncNode PartialNode "
    "QuantileForestNode RandomGeneratorNode RandomStateNode SGDNode SetNode SliceNode SparseMatrixNode TreeNode "
    "TupleNode TypeNode ZoneInfoNode DatetimeNode _DictWithDeprecatedKeysNode"
)
_BUILTINS: Final = words(
    "dict list set frozenset tuple str int float bool complex bytes bytearray slice map type NoneType range object"
)
_NUMPY: Final = words(  # dtypes and containers that skops makes by their name
    "ndarray matrix dtype generic bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 intc uintc longlong "
    "ulonglong intp uintp float16 float32 float64 float128 longdouble complex64 complex128 complex256 clongdouble "
    "str_ bytes_ object_ void datetime64 timedelta64 short ushort byte ubyte half single double long ulong"
)
_PLAIN: Final = words(
    "collections.OrderedDict collections.defaultdict functools.partial numpy.ma.MaskedArray numpy.ma.core.MaskedArray "
    "numpy.random.RandomState numpy.random.mtrand.RandomState numpy.random.Generator "
    "numpy.random._generator.Generator sklearn.tree._tree.Tree zoneinfo.ZoneInfo"
)
_BITS: Final = frozenset({"MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"})
_MATHS: Final = (
    "numpy",
    "numpy._core._multiarray_umath",
    "numpy.core._multiarray_umath",
    "scipy.special",
    "scipy.special._ufuncs",
)
_FIRSTS: Final = b"{ \t\r\n"
_MEND: Final = "do not trust these types; save the model anew from where it was trained"


def _claims(source: Source) -> bool:
    head = source.head
    if not head or head[0] not in _FIRSTS:
        return False
    return source.name == "schema.json" or (b'"__loader__"' in head and b'"__class__"' in head)


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    root = parsed_json(decoded(source, desk))
    if not isinstance(root, dict) or "__loader__" not in root:
        return  # another schema
    for _, node in every(root, desk.meter.tick):
        if isinstance(node, dict) and "__loader__" in node:
            yield from _node(source, desk, node)


def _node(source: Source, desk: Desk, node: dict[str, Any]) -> Iterator[Sign]:
    loader, module, name = node["__loader__"], node.get("__module__"), node.get("__class__")
    if not (isinstance(loader, str) and isinstance(module, str) and isinstance(name, str)):
        yield _sign(
            source,
            SUSPICIOUS,
            "odd-node",
            "a node whose loader, module or class is told twice or not at all",
            "skops takes one of them",
        )
        return
    if loader not in _LOADERS:
        what = f"the loader {shown(loader)} for {shown(f'{module}.{name}')}"
        yield _sign(source, SUSPICIOUS, "unknown-loader", what, "no version of skops that is known here has it")
    if loader not in ("JsonNode", "CachedNode"):
        desk.used[Used(source.place().member, module, name, loader not in ("TypeNode", "FunctionNode"))] = None
    special = _SPECIAL.get(loader)
    if special is not None:
        yield from special(source, node)
    if loader != "OperatorFuncNode":
        yield from _type(source, loader, module, name)


def _type(source: Source, loader: str, module: str, name: str) -> Iterator[Sign]:
    dotted = f"{module}.{name}"
    if dotted in _PLAIN or (module == "builtins" and name in _BUILTINS) or (module == "numpy" and name in _NUMPY):
        return
    if module == "numpy.dtypes" or (loader == "FunctionNode" and module in _MATHS and not danger_of(module, name)):
        return
    known = ruling(module, name)
    if known.level is Level.CLEAN and module != "builtins":
        return
    if known.level is MALICIOUS or dotted in ("builtins.getattr", "builtins.hasattr", "builtins.vars"):
        why = f"it {known.why or 'reaches anything by its name'}"
        what = f"{shown(dotted)} by {shown(loader)}"
        yield _sign(source, MALICIOUS, "dangerous-name", what, why, subject=dotted)
    else:
        why = "loading imports it and runs its code, once the user trusts it"
        yield _sign(source, SUSPICIOUS, "unknown-name", f"{shown(dotted)} by {shown(loader)}", why, subject=dotted)


def _operator(source: Source, node: dict[str, Any]) -> Iterator[Sign]:
    if node["__module__"] == "operator" and node["__class__"] == "itemgetter":
        return
    what = f"OperatorFuncNode makes {shown(str(node['__class__']))} of operator"
    why = "it calls or fetches anything by its name, unseen by the checks of skops before 0.12 (CVE-2025-54412)"
    yield _sign(source, MALICIOUS, "operator", what, why, subject=f"operator.{node['__class__']}")


def _method(source: Source, node: dict[str, Any]) -> Iterator[Sign]:
    content = node.get("content")
    owner = content.get("obj") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(owner, dict):
        yield _sign(source, SUSPICIOUS, "method", "MethodNode without its object", "skops makes something else of it")
        return
    name = str(content.get("func"))
    claimed, real = (node["__module__"], node["__class__"]), (owner.get("__module__"), owner.get("__class__"))
    if claimed != real:
        what = f"MethodNode says {shown('.'.join(claimed))} and holds {shown('.'.join(map(str, real)))}"
        why = "skops before 0.12 checks the one and makes the other (CVE-2025-54413)"
        yield _sign(source, MALICIOUS, "method", what, why)
    level = MALICIOUS if name.startswith("_") or "." in name else SUSPICIOUS
    what = f"the method {shown(name)} of {shown('.'.join(map(str, real)))}"
    yield _sign(source, level, "method", what, "it is fetched by its name and kept to be called")


def _function(source: Source, node: dict[str, Any]) -> Iterator[Sign]:
    """The function that older versions fetch, whatever the node says of itself."""
    content = node.get("content")
    if isinstance(content, dict) and isinstance(content.get("function"), str):
        module, name = str(content.get("module_path", "")), content["function"]
        if (module, name) != (node["__module__"], node["__class__"]):
            what = f"FunctionNode says {shown(str(node['__class__']))} and fetches {shown(f'{module}.{name}')}"
            yield _sign(source, SUSPICIOUS, "function", what, "the check and the fetch are of two things")
        yield from _type(source, "FunctionNode", module, name)


def _generator(source: Source, node: dict[str, Any]) -> Iterator[Sign]:
    for _, item in every(node.get("content"), lambda: None):
        if isinstance(item, dict) and "bit_generator" in item and isinstance(item["bit_generator"], dict):
            name = item["bit_generator"].get("content")
            if isinstance(name, str) and name.strip('"') not in _BITS:
                what = f"the random generator {shown(name)} of numpy"
                yield _sign(source, MALICIOUS, "generator", what, "skops calls whatever numpy.random has by that name")


def _file(source: Source, node: dict[str, Any]) -> Iterator[Sign]:
    name = node.get("file")
    if isinstance(name, str) and (".." in name.split("/") or name.startswith("/") or "\\" in name):
        yield _sign(
            source, SUSPICIOUS, "path", f"a member named {shown(name)}", "it leads outside the archive once unpacked"
        )


def _sign(source: Source, level: Level, rule: str, what: str, why: str, *, subject: str = "") -> Sign:
    return Sign(level, f"skops/{rule}", what, source.place(0), why, _MEND, subject=subject)


_SPECIAL: Final[dict[str, Callable[[Source, dict[str, Any]], Iterator[Sign]]]] = {
    "OperatorFuncNode": _operator,
    "MethodNode": _method,
    "FunctionNode": _function,
    "RandomGeneratorNode": _generator,
    "NdArrayNode": _file,
    "BytesNode": _file,
    "BytearrayNode": _file,
    "SparseMatrixNode": _file,
}


def _is_no_zip(source: Source) -> bool:
    return source.name.endswith(".skops") and not source.head.startswith(b"PK") and bool(source.head)


def _read_no_zip(source: Source, desk: Desk) -> Iterator[Sign]:
    desk.meter.tick()
    packed = source.head.startswith(
        (b"\x80", b"\x78", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\0", b"\x04\x22\x4d\x18", b"ZF")
    )
    what = "a file named .skops that is no zip"
    why = "skops up to 0.12 gives it to joblib, which unpickles it without any check (CVE-2025-54886)"
    yield noted(source, MALICIOUS if packed else UNREADABLE, "skops/no-zip", what, why=why, mend=_MEND, at=0)
    if not packed:
        raise Damaged("expected a zip under the name .skops", 0)


READERS = (Reader("skops", _claims, _read, firsts=_FIRSTS), Reader("skops-fallback", _is_no_zip, _read_no_zip))
