"""What torch puts into zips: which members are mere tensors, and the code that the others bring.

- TorchScript: `code/**.py` in torch's own language, which can open files and call native operators.
- `.pt2`: an exported graph, whose operator names are looked up from `torch` and whose sizes are evaluated by sympy.
- torch.package: Python modules that are run on loading. `.mar`: a handler that a server runs.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, noted, shown
from casemate.formats.scanning.signs import Level, Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS", "about", "formality", "is_torch", "scripts", "tensors"]

_PACKED = re.compile(r"(?:.*/)?\.data/\d+\.storage")
_EXPORTED = re.compile(r"(?:.*/)?data/(?:weights/weight|constants/tensor)_\d+")
_CONFIG = re.compile(r"(?:.*/)?data/(?:weights|constants)/\w*config\.json")
_FORMAL = re.compile(
    r"(?:.*/)?(?:version|byteorder|\.format_version|\.storage_alignment|archive_format|archive_version|"
    r"serialization_id|python_version|extern_modules)"
)
_HARMLESS = re.compile(rb"[\d.]*\s*|(?:[A-Za-z_][\w.]*\n)*(?:[A-Za-z_][\w.]*)?")

_REVIEW = "read it as you would a program from a stranger, or ask for the weights alone"
_LONG_NAME = 1 << 16  # characters: no size expression and no operator is longer

# Tokens of TorchScript that reach files or hide what is called; whitespace may stand between any two.
_SCRIPT_FILES = re.compile(
    r"(?<![\w.])(?:torch|ops\s*\.\s*aten)\s*\.\s*(save|from_file|load|_load\w*|jit|package|hub)\b(?!\s*=)"
)
_SCRIPT_OTHER = re.compile(r"\.\s*(from_file)\b|getattr\s*\([^()]*[\"'](save|from_file|load)[\"']")
_SCRIPT_ALIAS = re.compile(r"(?<![\w.\"'/])(?:torch|ops)(?![\w\"'/])(?!\s*\.\s*[A-Za-z_])")
_SCRIPT_OPS = re.compile(r"(?<![\w.])(?:torch\s*\.\s*)?ops\s*\.\s*(\w+)\s*\.\s*(\w+)")
_SCRIPT_CLASS = re.compile(r"__torch__\s*\.\s*torch\s*\.\s*classes\s*\.\s*(\w+)")
_KNOWN_OPS = frozenset({
    "aten", "prim", "prims", "quantized", "quantized_decomposed", "_quantized", "prepacked", "sparse", "mkldnn",
    "mkldnn_prepacked", "onednn", "torchvision", "torchaudio", "image", "video", "higher_order", "cuda", "_caffe2",
    "inductor", "symm_mem", "_c10d_functional", "tensorexpr", "static_runtime", "xnnpack", "profiler", "rnn", "metal",
    "vulkan", "mtia", "export", "_test",
})  # fmt: skip
_REACHING = {
    "it reads or writes a file that the code names": frozenset({
        "read_file", "write_file", "decode_file", "read_video_from_file", "probe_video_from_file", "load_audio_file",
        "save_audio_file", "sox_io_load", "load_library", "load_tensor", "get_info_file", "get_info",
    }),
    "it calls Python, or a command, in the process that loads the model": frozenset({
        "pythonop", "pyop", "system", "popen", "exec", "execve", "eval", "spawn", "fork_exec", "callpython", "shell",
    }),
    "it calls functions on other machines": frozenset({"rpc_async", "rpc_sync", "rpc_remote"}),
}  # fmt: skip
_FILE_OPS = frozenset({"save", "from_file", "load", "load_library"})

_OPERATORS = frozenset({
    "abs", "add", "and_", "concat", "contains", "eq", "floordiv", "ge", "getitem", "gt", "index", "inv", "invert",
    "is_", "is_not", "le", "lshift", "lt", "matmul", "mod", "mul", "ne", "neg", "not_", "or_", "pos", "pow", "rshift",
    "sub", "truediv", "truth", "xor", "iadd", "imul", "isub", "itruediv", "ifloordiv", "imod", "ipow", "setitem",
})  # fmt: skip
_TORCH_TARGET = re.compile(r"torch\.(?:sym_\w+|_sym_\w+|_check\w*)")
_ABUSED = frozenset({
    "os", "sys", "subprocess", "builtins", "eval", "exec", "system", "popen", "load", "save", "from_file", "hub",
    "load_library", "ctypes", "importlib", "compile", "open", "shutil", "socket", "attrgetter", "methodcaller",
    "itemgetter", "package", "jit", "pickle", "runpy", "urllib", "tempfile", "warnings", "inspect", "io",
})  # fmt: skip
_SIZES = frozenset({
    "Symbol", "Integer", "Rational", "Float", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv",
    "ModularIndexing", "Where", "ceiling", "floor", "Abs", "Pow", "Mul", "Add", "Eq", "Ne", "Equality", "Unequality",
    "Lt", "Le", "Gt", "Ge", "StrictLessThan", "StrictGreaterThan", "LessThan", "GreaterThan", "And", "Or", "Not",
    "Piecewise", "ToFloat", "TruncToInt", "TruncToFloat", "CeilToInt", "FloorToInt", "RoundToInt", "RoundDecimal",
    "FloatTrueDiv", "IntTrueDiv", "FloatPow", "PowByNatural", "LShift", "RShift", "Identity",
    "IsNonOverlappingAndDenseIndicator",
    "OpaqueUnaryFn_sqrt", "OpaqueUnaryFn_exp", "OpaqueUnaryFn_log2", "OpaqueUnaryFn_log", "sqrt", "exp", "log",
})  # fmt: skip
_SIZE_NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Name, ast.Constant, ast.keyword,
    ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context, ast.Tuple, ast.IfExp,
)  # fmt: skip

_HANDLERS = frozenset({
    "image_classifier", "image_segmenter", "object_detector", "text_classifier", "text_handler", "vision_handler",
    "dali_image_classifier",
})  # fmt: skip


def is_torch(names: Sequence[str]) -> bool:
    """Whether members' names are those that torch's writer gives."""
    return any(name.endswith(".pkl") for name in names) and any(name.endswith("version") for name in names)


def tensors(names: Sequence[str], read: Callable[[str], bytes]) -> frozenset[str]:
    """Members that torch reads as raw numbers and as nothing else; `read` gives one member.

    The numbers of `X.pkl` lie in `X/0`, `X/1`, ...; a package's in `.data/0.storage`; an exported program's in
    `data/weights/weight_0`, unless its list says that they are pickled.
    """
    folders = {name.removesuffix(".pkl") for name in names if name.endswith(".pkl")}
    plain = {name for name in names if (cut := name.rpartition("/"))[0] in folders and cut[2].isdecimal()}
    plain |= {name for name in names if _PACKED.fullmatch(name)}
    exported = {name for name in names if _EXPORTED.fullmatch(name)}
    if exported:
        lists = [name for name in names if _CONFIG.fullmatch(name)]
        pickled = set().union(*(_pickled(read(name)) for name in lists)) if len({*lists}) == len(lists) else {"*"}
        plain |= {name for name in exported if "*" not in pickled and name.rpartition("/")[2] not in pickled}
    return frozenset(plain)


def scripts(names: Sequence[str]) -> frozenset[str]:
    """The pickles of a TorchScript archive, whose names torch's reader in C++ resolves; empty for any other zip.

    `torch.load` takes a zip for such an archive by its `constants.pkl` in the one folder that all members lie in.
    """
    tops = {name.partition("/")[0] for name in names}
    top = next(iter(tops), "")
    whole = len(tops) == 1 and {f"{top}/constants.pkl", f"{top}/data.pkl"} <= set(names)
    if not whole or not _codes(names, top):
        return frozenset()
    return frozenset(name for name in names if name.endswith((".pkl", ".debug_pkl")))


def _codes(names: Sequence[str], top: str) -> bool:
    return any(name.startswith(f"{top}/code/") and name.endswith(".py") for name in names)


def _pickled(config: bytes) -> set[str]:
    """Names of those weights that a list says are pickled; `*` where it cannot be read."""
    try:
        items = json.loads(config)["config"].values()
        return {str(item["path_name"]) for item in items if item.get("use_pickle", False) is not False}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {"*"}


def formality(name: str, data: bytes | memoryview) -> bool:
    """Whether a member is one of torch's notes on the archive (a number, a byte order, a list of modules)."""
    return len(data) <= _LONG_NAME and bool(_FORMAL.fullmatch(name)) and bool(_HARMLESS.fullmatch(data))


def about(source: Source, names: Sequence[str]) -> Iterator[Sign]:
    """What the names alone tell of a zip of torch's."""
    if not any(name.endswith(".data/extern_modules") for name in names):
        return
    code = [name for name in names if name.endswith(".py")]
    if code:
        yield _seen(
            source, SUSPICIOUS, ("torch-package/code", f"{len(code)} Python modules, {shown(code[0])} among them"),
            "torch.package runs them when it loads what is in the file",
        )  # fmt: skip


def _seen(source: Source, level: Level, told: tuple[str, str], why: str, at: int | None = None) -> Sign:
    return noted(source, level, told[0], told[1], why=why, mend=_REVIEW, at=at)


def _text(source: Source, desk: Desk) -> str:
    if source.size > desk.limits.text:
        raise Damaged(f"expected a text of at most {desk.limits.text} bytes, got {source.size}", 0)
    try:
        return source.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise Damaged("expected UTF-8", error.start) from error


def _is_script(source: Source) -> bool:
    name = source.path[-1] if source.path else ""
    return name.endswith(".py") and "/code/" in f"/{name}"


def _read_script(source: Source, desk: Desk) -> Iterator[Sign]:
    text = _text(source, desk).replace("\\\n", "")
    opens = "TorchScript runs it when the model is loaded or called, whatever weights_only says"
    for found in _SCRIPT_FILES.finditer(text):
        yield _seen(source, MALICIOUS, ("torchscript/file", f"code that calls {shown(found[0])}"), opens, found.start())
    for found in _SCRIPT_OTHER.finditer(text):
        yield _seen(
            source, SUSPICIOUS, ("torchscript/file", f"code that calls {shown(found[0])}"), opens, found.start()
        )
    for found in _SCRIPT_ALIAS.finditer(text):
        why = "a library under another name hides what is called on it; torch never writes that"
        yield _seen(source, SUSPICIOUS, ("torchscript/alias", f"{found[0]} used as a value"), why, found.start())
    native = "an operator from a library of its own, whose native code runs"
    for namespace, name in dict.fromkeys(found.groups() for found in _SCRIPT_OPS.finditer(text)):
        if reason := next((why for why, names in _REACHING.items() if name.lower() in names), ""):
            yield _seen(source, MALICIOUS, ("torchscript/operator", shown(f"ops.{namespace}.{name}")), reason)
        elif namespace not in _KNOWN_OPS:
            yield _seen(source, SUSPICIOUS, ("torchscript/custom-op", shown(f"ops.{namespace}.{name}")), native)
    for name in dict.fromkeys(found[1] for found in _SCRIPT_CLASS.finditer(text)):
        if name not in _KNOWN_OPS:
            yield _seen(source, SUSPICIOUS, ("torchscript/custom-class", shown(f"torch.classes.{name}")), native)


def _is_exported(source: Source) -> bool:
    return source.head.lstrip()[:1] == b"{" and b'"graph_module"' in source.head


def _json(source: Source, desk: Desk) -> Any:
    try:
        return json.loads(_text(source, desk))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"expected JSON ({type(error).__name__})", 0) from error


def _read_exported(source: Source, desk: Desk) -> Iterator[Sign]:
    left = [_json(source, desk)]
    said: set[tuple[str, str]] = set()
    while left:
        value = left.pop()
        if isinstance(value, list):
            left.extend(value)
        if not isinstance(value, dict):
            continue
        left.extend(value.values())
        for key in ("target", "expr_str"):
            text = value.get(key)
            if isinstance(text, str) and (key, text) not in said:
                said.add((key, text))
                yield from _target(source, text) if key == "target" else _size(source, text)


def _target(source: Source, text: str) -> Iterator[Sign]:
    parts = text.split(".")
    why = "torch.export looks the name up from torch itself, and calls what it finds there"
    abused = any(part in _ABUSED or part.startswith("__") for part in parts[1:])
    native = parts[:2] == ["torch", "ops"] and len(parts) > 3
    if native and parts[3] not in _FILE_OPS and not abused:
        if parts[2] not in _KNOWN_OPS:
            why = "an operator from a library of its own, whose native code runs"
            yield _seen(source, SUSPICIOUS, ("pt2/custom-op", shown(text)), why)
    elif parts[0] in _ABUSED or (abused and parts[0] in ("torch", "_operator", "math")):
        yield _seen(source, MALICIOUS, ("pt2/target", f"a graph that calls {shown(text)}"), why)
    elif not (
        _TORCH_TARGET.fullmatch(text)
        or (parts[0] == "_operator" and len(parts) == 2 and parts[1] in _OPERATORS)
        or (parts[0] == "math" and len(parts) == 2)
    ) and parts[0].startswith(("torch", "_operator", "math", "#")):
        yield _seen(source, SUSPICIOUS, ("pt2/target", f"a graph that calls {shown(text)}"), why)


def _size(source: Source, text: str) -> Iterator[Sign]:
    why = "sympy evaluates the text as Python when the program is loaded"
    try:
        tree = ast.parse(text[: _LONG_NAME + 1], mode="eval") if len(text) <= _LONG_NAME else None
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        tree = None
    if tree is None:
        yield _seen(source, SUSPICIOUS, ("pt2/size", f"a size that is no expression: {shown(text)}"), why)
        return
    nodes = list(ast.walk(tree))
    foreign = [node for node in nodes if not isinstance(node, _SIZE_NODES)]
    called = [node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    dunder = any(isinstance(node, ast.Name) and node.id.startswith("__") for node in nodes)
    if (
        foreign
        or dunder
        or any(name in _ABUSED or name in ("S", "sympify", "getattr", "parse_expr") for name in called)
    ):
        yield _seen(source, MALICIOUS, ("pt2/size", f"a size that runs code: {shown(text)}"), why)
    elif unknown := sorted(set(called) - _SIZES):
        yield _seen(source, SUSPICIOUS, ("pt2/size", f"a size that calls {shown(unknown[0])}: {shown(text)}"), why)


def _is_manifest(source: Source) -> bool:
    return bool(source.path) and source.path[-1].replace("\\", "/").removeprefix("./") == "MAR-INF/MANIFEST.json"


def _read_manifest(source: Source, desk: Desk) -> Iterator[Sign]:
    manifest = _json(source, desk)
    model = manifest.get("model") if isinstance(manifest, dict) else None
    if not isinstance(model, dict):
        raise Damaged("expected a TorchServe manifest with a model", 0)
    handler = model.get("handler")
    if handler is not None and handler not in _HANDLERS:
        what = f"a handler of its own: {shown(str(handler))}"
        yield _seen(
            source, SUSPICIOUS, ("mar/handler", what), "TorchServe runs it for every request, and once at start"
        )
    if model.get("requirementsFile"):
        what = f"packages to install: {shown(str(model['requirementsFile']))}"
        yield _seen(
            source, SUSPICIOUS, ("mar/requirements", what), "TorchServe installs them, which runs their set-up code"
        )
    if manifest.get("runtime", "python") not in ("python", "python3", "PYTHON", "PYTHON3"):
        what = f"the runtime {shown(str(manifest['runtime']))}"
        yield _seen(
            source, SUSPICIOUS, ("mar/runtime", what), "TorchServe starts it with the model's own native handler"
        )


READERS = (
    Reader("torchscript", _is_script, _read_script),
    Reader("pt2", _is_exported, _read_exported, firsts=b"{ \t\r\n\f\v"),
    Reader("mar", _is_manifest, _read_manifest),
)
