"""What names and constants in Python source stand for, without running any of it."""

from __future__ import annotations

import ast
import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, Final

from casemate.formats.scanning.readers._plain import words
from casemate.formats.scanning.readers._python_calls import kind_of

__all__ = ["Names", "constant"]

_LONGEST: Final = 100_000
_BUILTINS: Final = words(
    "eval exec compile execfile open __import__ getattr hasattr setattr globals locals vars "
    "breakpoint get_ipython input "
    "bytes bytearray"
)
_FINDERS: Final = words("pydoc.locate pkgutil.resolve_name operator.attrgetter operator.methodcaller")
_DECODE: Final[dict[str, Callable[[Any], bytes]]] = {
    "b64decode": base64.b64decode,
    "urlsafe_b64decode": base64.urlsafe_b64decode,
    "standard_b64decode": base64.b64decode,
    "b32decode": base64.b32decode,
    "b16decode": base64.b16decode,
    "unhexlify": binascii.unhexlify,
    "a2b_hex": binascii.unhexlify,
    "fromhex": lambda text: bytes.fromhex(text if isinstance(text, str) else text.decode()),
}


def constant(node: ast.AST | None, depth: int = 0) -> str | bytes | int | None:
    """The text, bytes or number that an expression of constants comes to; `None` for any other."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str | bytes | int) else None
    if depth > 50:
        return None
    try:
        if isinstance(node, ast.BinOp):
            return _sum(node, depth)
        if isinstance(node, ast.JoinedStr):
            return _formatted(node, depth)
        if isinstance(node, ast.Subscript):
            return _sliced(node, depth)
        return _called(node, depth) if isinstance(node, ast.Call) else None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, SyntaxError, RecursionError):
        return None


def _sum(node: ast.BinOp, depth: int) -> str | bytes | int | None:
    left, right = constant(node.left, depth + 1), constant(node.right, depth + 1)
    if not isinstance(node.op, ast.Add) or left is None or type(left) is not type(right):
        return None
    if isinstance(left, int):
        return None
    return left + right if len(left) + len(right) <= _LONGEST else None  # type: ignore[operator, arg-type]


def _formatted(node: ast.JoinedStr, depth: int) -> str | None:
    parts = [constant(item.value if isinstance(item, ast.FormattedValue) else item, depth + 1) for item in node.values]
    return None if None in parts else "".join(map(str, parts))


def _sliced(node: ast.Subscript, depth: int) -> str | bytes | int | None:
    whole = constant(node.value, depth + 1)
    if not isinstance(whole, str | bytes):
        return None
    if isinstance(node.slice, ast.Slice):
        bounds = [
            ast.literal_eval(part) if part is not None else None
            for part in (node.slice.lower, node.slice.upper, node.slice.step)
        ]
        return whole[slice(*bounds)]
    index = ast.literal_eval(node.slice)
    return whole[index]


def _called(node: ast.Call, depth: int) -> str | bytes | int | None:
    function = node.func
    if isinstance(function, ast.Name) and len(node.args) == 1:
        value = constant(node.args[0], depth + 1)
        return (
            chr(value)
            if function.id == "chr" and isinstance(value, int)
            else value
            if function.id in ("str", "bytes")
            else None
        )
    if not isinstance(function, ast.Attribute):
        return None
    if function.attr in _DECODE and len(node.args) == 1:
        value = constant(node.args[0], depth + 1)
        return _DECODE[function.attr](value) if isinstance(value, str | bytes) and len(value) <= _LONGEST else None
    subject = constant(function.value, depth + 1)
    if function.attr == "join" and isinstance(subject, str) and node.args:
        return _joined(subject, node.args[0], depth)
    return _method(subject, function.attr, [constant(item, depth + 1) for item in node.args])


def _joined(glue: str, items: ast.expr, depth: int) -> str | None:
    if isinstance(items, ast.Call) and isinstance(items.func, ast.Name) and items.func.id == "reversed" and items.args:
        whole = constant(items.args[0], depth + 1)
        return glue.join(reversed(whole)) if isinstance(whole, str) else None
    if (
        isinstance(items, ast.Call)
        and isinstance(items.func, ast.Name)
        and items.func.id == "map"
        and len(items.args) == 2
    ):
        numbers = ast.literal_eval(items.args[1])
        named = isinstance(items.args[0], ast.Name) and items.args[0].id == "chr"
        return glue.join(map(chr, numbers)) if named and len(numbers) <= _LONGEST else None
    if not isinstance(items, ast.List | ast.Tuple):
        return None
    parts = [constant(item, depth + 1) for item in items.elts]
    return glue.join(map(str, parts)) if None not in parts else None


def _method(subject: Any, name: str, given: list[Any]) -> str | bytes | None:
    if None in given:
        return None
    if name == "decode" and isinstance(subject, bytes):
        return subject.decode("utf-8", "replace")
    if name == "encode" and isinstance(subject, str):
        return subject.encode("utf-8", "replace")
    if (
        name == "replace"
        and isinstance(subject, str)
        and len(given) == 2
        and len(subject) * (1 + len(given[1])) <= _LONGEST
    ):
        return subject.replace(*given)
    if name in ("lower", "upper", "strip", "swapcase") and isinstance(subject, str) and not given:
        return str(getattr(subject, name)())
    return None


class Names:
    """What each name of one module stands for: dotted names of imports, and of what was assigned from them."""

    def __init__(self, nodes: Sequence[ast.AST]) -> None:
        self._known: dict[str, str] = {}
        self._told: dict[int, str] = {}
        self._stars: list[str] = []
        for node in nodes:
            if isinstance(node, ast.Import):
                for item in node.names:
                    first = item.name.split(".")[0]
                    self._known[item.asname or first] = item.name if item.asname else first
            elif isinstance(node, ast.ImportFrom):
                self._from(node)
        self._complete = False  # what names stand for may still change
        for node in nodes:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self._assigned(node.targets[0].id, node.value)
        self._complete = True

    def _from(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        for item in node.names:
            if item.name == "*":
                self._stars.append(module)
            else:
                self._known[item.asname or item.name] = f"{module}.{item.name}"

    def _assigned(self, name: str, value: ast.expr) -> None:
        dotted = (
            self.dotted(value)
            if not isinstance(value, ast.Name) or value.id in _BUILTINS or value.id in self._known
            else ""
        )
        if dotted and name not in self._known:
            self._known[name] = dotted

    def dotted(self, node: ast.AST, depth: int = 0) -> str:
        """The dotted name that an expression stands for; empty where it cannot be told."""
        if depth > 50:
            return ""
        found = self._told.get(id(node))
        if found is None:
            found = self._dotted(node, depth)
            if self._complete:
                self._told[id(node)] = found
        return found

    def _dotted(self, node: ast.AST, depth: int) -> str:
        if isinstance(node, ast.Name):
            known = self._known.get(node.id)
            return known or self._starred(node.id) or (f"builtins.{node.id}" if node.id in _BUILTINS else "")
        if isinstance(node, ast.Attribute):
            owner = self.dotted(node.value, depth + 1)
            if owner in ("builtins.bytes", "builtins.bytearray"):
                return f"{owner.removeprefix('builtins.')}.{node.attr}"
            return f"{owner}.{node.attr}" if owner else ""
        if isinstance(node, ast.Subscript):
            return self._item(node, depth)
        return self._called(node, depth) if isinstance(node, ast.Call) else ""

    def _starred(self, name: str) -> str:
        """A harmful name that `from module import *` brings."""
        return next((f"{module}.{name}" for module in self._stars if kind_of(f"{module}.{name}")), "")

    def _item(self, node: ast.Subscript, depth: int) -> str:
        """`sys.modules["os"]`, `os.__dict__["system"]`, `globals()["eval"]`."""
        key = constant(node.slice)
        if not isinstance(key, str):
            return ""
        if isinstance(node.value, ast.Name) and node.value.id == "__builtins__":
            return f"builtins.{key}"
        owner = self.dotted(node.value, depth + 1)
        if owner == "sys.modules":
            return key
        if owner == "builtins":
            return f"builtins.{key}"
        if owner.endswith((".__dict__", ".__builtins__")):
            return f"{owner.removesuffix('.__dict__').removesuffix('.__builtins__')}.{key}"
        if owner in ("<globals>", "<vars>"):
            return (
                "builtins"
                if key == "__builtins__"
                else self._known.get(key, f"builtins.{key}" if key in _BUILTINS else "")
            )
        return f"{owner[6:-1]}.{key}" if owner.startswith("<vars:") else ""

    def _called(self, node: ast.Call, depth: int) -> str:
        """What a call gives, where that is a module or a function: `__import__("os")`, `getattr(os, "system")`."""
        function = self.dotted(node.func, depth + 1)
        first = constant(node.args[0]) if node.args else None
        if function in ("builtins.__import__", "importlib.import_module", "importlib.__import__"):
            if isinstance(first, str):
                return first if function != "builtins.__import__" else first.split(".")[0]
            return "<import>"
        if function == "builtins.getattr" and len(node.args) >= 2:
            owner, name = self.dotted(node.args[0], depth + 1), constant(node.args[1])
            return f"{owner}.{name if isinstance(name, str) else '<name>'}" if owner else ""
        if function in _FINDERS or function.startswith("<attr:") or _is_lookup(node.func):
            return self._found(node, function, first, depth)
        if function in ("builtins.globals", "builtins.locals"):
            return "<globals>"
        if function.endswith(".get_ipython"):
            return "IPython.shell"
        if function == "builtins.vars" and node.args:
            return f"<vars:{self.dotted(node.args[0], depth + 1)}>"
        return ""

    def _found(self, node: ast.Call, function: str, first: object, depth: int) -> str:
        """What is found by a dotted name, or of an object by the name of its attribute."""
        if function in ("pydoc.locate", "pkgutil.resolve_name"):
            return first.replace(":", ".") if isinstance(first, str) else "<import>"
        if function in _FINDERS:
            return f"<attr:{first}>" if isinstance(first, str) else ""
        if function.startswith("<attr:"):
            owner = self.dotted(node.args[0], depth + 1) if node.args else ""
            return f"{owner}.{function[6:-1]}" if owner else ""
        name = constant(node.args[-1]) if node.args else None
        subject = node.args[0] if len(node.args) > 1 else getattr(node.func, "value", node.func)
        owner = self.dotted(subject, depth + 1)
        return f"{owner}.{name if isinstance(name, str) else '<name>'}" if owner else ""


def _is_lookup(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and function.attr == "__getattribute__"
