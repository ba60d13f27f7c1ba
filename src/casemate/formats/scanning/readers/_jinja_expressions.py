"""What the expressions of a template may be, and which names they reach for; `_jinja_run` follows the statements."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Final

from jinja2 import nodes

from casemate.formats.scanning.readers import _jinja_values as values
from casemate.formats.scanning.readers._jinja_values import ANY, MADE, TooLarge
from casemate.formats.scanning.readers._plain import words

__all__ = ["LONG_LOOP", "STEPS", "WEIGHT", "Expressions", "Note", "few"]

Note = Callable[[str, str, int], None]
"""Hears a rule's short name, what was found, and the line."""
STEPS: Final = 20_000
WEIGHT: Final = 4000  # elements of a constant that is worth following
_KEPT: Final = 12  # values that a variable may have at once
LONG_LOOP: Final = 1_000_000
_LONG_RANGE: Final = 100_000  # the most that Jinja's own sandbox lets through
_HARMFUL: Final = words(
    "mro gi_frame gi_code gi_yieldfrom cr_frame cr_code ag_frame ag_code f_globals f_locals f_builtins f_back "
    "f_code func_globals func_code func_defaults im_class im_func im_self tb_frame tb_next co_code popen Popen "
    "getoutput check_output load_module exec_module"
)
_GLOBALS: Final = words("lipsum cycler joiner range dict self raise_exception strftime_now")
_ATTRIBUTE_FILTERS: Final = words(
    "map selectattr rejectattr groupby sum sort min max unique join attr"
)  # their arguments name attributes
_PIECES: Final = words(
    "class globals init builtins subclasses mro bases getitem getattribute popen cla ss glo bals"
)  # of names that lead out of a template
_MODULES: Final = words(
    "os sys subprocess importlib builtins shutil socket ctypes pty posix nt platform requests urllib httpx pickle"
)
_POWERS: Final = words("__import__ eval exec compile open execfile getattr setattr globals locals vars")
_PARAGRAPHS: Final = 10_000  # of filler text that `lipsum` may be asked for


class Expressions:
    """The values of expressions; `note` hears what they reach for, `tick` raises when the time is up."""

    def __init__(self, note: Note, tick: Callable[[], None]) -> None:
        self._note = note
        self._tick = tick
        self._steps = 0
        self._names: dict[str, list[Any]] = {}
        self._macros: dict[str, nodes.Macro] = {}
        self._times = 1.0

    def _call_macro(self, name: str, node: nodes.Call) -> Any:
        raise NotImplementedError

    def _step(self) -> bool:
        """Count one step; whether there are some left."""
        self._steps += 1
        if self._steps % 256 == 0:
            self._tick()
        return self._steps < STEPS

    def _one(self, node: nodes.Expr) -> Any:
        return _single(self.value(node))

    def value(self, node: nodes.Node) -> list[Any]:
        """What an expression may be; never empty."""
        self._step()
        special = _EXPRESSIONS.get(type(node))
        if special is not None:
            return few(special(self, node))
        if isinstance(node, nodes.BinExpr):
            return self._each(
                type(node).__name__, node.lineno, values.binary, self.value(node.left), self.value(node.right)
            )
        for child in node.iter_child_nodes():
            self.value(child) if isinstance(child, nodes.Expr) else [
                self.value(item) for item in child.iter_child_nodes()
            ]
        return [ANY]

    def _each(self, what: Any, line: int, compute: Callable[..., Any], *parts: list[Any]) -> list[Any]:
        """A computation for every choice of values of its parts."""
        found = [] if math.prod(map(len, parts)) <= 4 * _KEPT else [MADE]
        for chosen in itertools.islice(itertools.product(*parts), 4 * _KEPT):
            try:
                found.append(compute(what, *chosen))
                self._formats(found[-1:], line, made=False)
            except TooLarge as error:
                self._note("size", f"makes {error}", line)
                found.append(ANY)
        return found

    def _const(self, node: nodes.Const) -> list[Any]:
        if isinstance(node.value, str):
            self._formats([node.value], node.lineno)  # whoever calls its `format` may do so out of sight
        return [node.value]

    def _name(self, node: nodes.Name) -> list[Any]:
        made = node.name in ("varargs", "kwargs", "caller")  # what a macro was given beyond its parameters
        return self._names.get(node.name, [MADE if made else ANY])

    def _list(self, node: nodes.List | nodes.Tuple) -> list[Any]:
        parts = [self.value(item) for item in node.items]
        if math.prod(map(len, parts)) > _KEPT:
            return [tuple(_single(part) for part in parts)]
        return list(itertools.product(*parts))

    def _dict(self, node: nodes.Dict) -> list[Any]:
        made = {}
        for pair in node.items:
            key, value = self._one(pair.key), self._one(pair.value)
            if isinstance(key, str | int):
                made[key] = value
        return [made]

    def _concat(self, node: nodes.Concat) -> list[Any]:
        found = self.value(node.nodes[0])
        for item in node.nodes[1:]:
            found = few(self._each("Add", node.lineno, values.concatenated, found, self.value(item)))
        return found

    def _condition(self, node: nodes.CondExpr) -> list[Any]:
        self.value(node.test)
        return [*self.value(node.expr1), *(self.value(node.expr2) if node.expr2 is not None else [])]

    def _either(self, node: nodes.BinExpr) -> list[Any]:
        return [*self.value(node.left), *self.value(node.right)]

    def _signed(self, node: nodes.Neg | nodes.Pos) -> list[Any]:
        sign = -1 if isinstance(node, nodes.Neg) else 1
        return [sign * value if isinstance(value, int | float) else ANY for value in self.value(node.node)]

    def _attribute(self, node: nodes.Getattr) -> list[Any]:
        self._reached(node.node, node.attr, node.lineno)
        found = self.value(node.node)
        if node.attr in ("format", "format_map"):  # kept to be called later, out of sight (CVE-2024-56326)
            self._formats(found, node.lineno)
        if isinstance(node.node, nodes.Name):
            stored = self._names.get(f"{node.node.name}.{node.attr}")
            if stored is not None:
                return stored
        return [value.get(node.attr, ANY) if isinstance(value, dict) else _part(value) for value in found]

    def _item(self, node: nodes.Getitem) -> list[Any]:
        found = self.value(node.node)
        if isinstance(node.arg, nodes.Slice):
            parts = [
                self.value(part) if part is not None else [None]
                for part in (node.arg.start, node.arg.stop, node.arg.step)
            ]
            return self._each("slice", node.lineno, values.sliced, found, *parts)
        keys = self.value(node.arg)
        for key in keys:
            if isinstance(key, str):
                self._reached(node.node, key, node.lineno)
            elif key is MADE and not all(isinstance(value, dict | tuple) for value in found):
                self._made(node.node, [node.arg], found, node.lineno)
            elif key is ANY and isinstance(node.node, nodes.Const):
                self._note("made-name", "a name of a constant that is not in the template", node.lineno)
        return self._each("item", node.lineno, values.picked, found, keys)

    def _reached(self, owner: nodes.Node, name: str, line: int) -> None:
        """Judge an attribute or key of some object."""
        if not name.isascii():
            name = unicodedata.normalize("NFKC", name)
        if name in _HARMFUL or (name.startswith("_") and "__" in name and len(name) > 4):
            self._note("escape", f"reaches for {name}", line)
        elif name.startswith("_") and name.strip("_"):
            self._note("private", f"reaches for {name}", line)
        elif isinstance(owner, nodes.Name) and owner.name in _GLOBALS and owner.name not in self._names:
            self._note("global", f"reaches for {owner.name}.{name}", line)

    def _made(self, owner: nodes.Node | None, given: Sequence[nodes.Node], found: list[Any], line: int) -> None:
        """Judge a name that is put together when the template runs, by whose it is and of what it is made."""
        constant = any(isinstance(value, str | int | float | tuple | dict) for value in found)
        helper = isinstance(owner, nodes.Name) and owner.name in _GLOBALS and owner.name not in self._names
        pieces = {
            str(item.value).strip("_").lower()
            for part in given
            for item in (part, *part.find_all(nodes.Const))
            if isinstance(item, nodes.Const) and isinstance(item.value, str)
        }
        if constant or helper or pieces & _PIECES:
            self._note("escape", "puts a name together when it runs, and reaches for it where no data has names", line)
        else:
            self._note("made-name", "a name that is put together when the template runs", line)

    def _spread(self, node: nodes.Filter | nodes.Call) -> tuple[list[list[Any]], dict[str, list[Any]]]:
        """What stands behind `*` and `**`: arguments all the same."""
        more = [self.value(node.dyn_args)] if node.dyn_args is not None else []
        keyed: dict[str, list[Any]] = {}
        for value in self.value(node.dyn_kwargs) if node.dyn_kwargs is not None else ():
            if isinstance(value, dict):
                keyed |= {str(key): [item] for key, item in value.items()}
        listed = [[item] for options in more for value in options if isinstance(value, tuple) for item in value]
        return listed, keyed

    def _filter(self, node: nodes.Filter) -> list[Any]:
        subject = self.value(node.node) if node.node is not None else [MADE]
        listed, keyed = self._spread(node)
        parts = [*(self.value(argument) for argument in node.args), *listed]
        named = {**{str(item.key): self.value(item.value) for item in node.kwargs}, **keyed}
        self._names_in(node, subject, parts, named)
        self._numbers(node.name, [*parts, *named.values()], node.lineno)
        if node.name == "format":
            self._formats(subject, node.lineno)

        def compute(name: str, value: Any, *arguments: Any) -> Any:
            return values.filtered(name, value, arguments, named=bool(named))

        return self._each(node.name, node.lineno, compute, subject, *parts)

    def _names_in(
        self, node: nodes.Filter, subject: list[Any], parts: list[list[Any]], named: dict[str, list[Any]]
    ) -> None:
        """Arguments of filters that name attributes."""
        if node.name not in _ATTRIBUTE_FILTERS:
            return
        asked = [*parts, *([named["attribute"]] if "attribute" in named else [])]
        for name in (item for options in asked for item in options):
            if isinstance(name, str):
                for piece in name.split("."):
                    self._reached(node, piece, node.lineno)
            elif name is MADE and node.name != "join":
                self._made(node.node, node.args, subject if node.name == "attr" else [ANY], node.lineno)
        if node.name == "attr":
            known = any(isinstance(name, str) for options in asked for name in options)
            if not known and any(isinstance(value, str | tuple | dict) for value in subject):
                self._note("escape", "reaches into a constant by a name that is not in the template", node.lineno)
            self._note("attr", "uses the filter attr, which takes names as text", node.lineno)

    def _call(self, node: nodes.Call) -> list[Any]:
        target = node.node
        if isinstance(target, nodes.Name) and target.name in self._macros:
            return [self._call_macro(target.name, node)]
        listed, keyed = self._spread(node)
        parts = [*(self.value(argument) for argument in node.args), *listed]
        named = {**{item.key: self.value(item.value) for item in node.kwargs}, **keyed}
        self._power(target)
        if isinstance(target, nodes.Getattr):
            return self._method(node, target, parts, bool(named or node.dyn_args or node.dyn_kwargs))
        found = self.value(target)
        if isinstance(target, nodes.Name) and target.name not in self._names and MADE not in found:
            return self._global(target.name, parts, named, node)
        self._numbers("call", [*parts, *named.values()], node.lineno)
        return [MADE if MADE in found else _given([*parts, *named.values()])]

    def _power(self, target: nodes.Expr) -> None:
        """Judge a call of what some servers hand to templates, and no chat template asks for: `os.system`, `eval`."""
        first: nodes.Node = target
        while isinstance(first, nodes.Getattr | nodes.Getitem | nodes.Call):
            first = first.node
        if not isinstance(first, nodes.Name) or first.name in self._names or first.name in self._macros:
            return
        if first.name in _POWERS or (first.name in _MODULES and isinstance(target, nodes.Getattr | nodes.Getitem)):
            self._note("power", f"calls {first.name}", target.lineno)

    def _method(self, node: nodes.Call, target: nodes.Getattr, parts: list[list[Any]], named: bool) -> list[Any]:
        self._reached(target.node, target.attr, node.lineno)
        subject = self.value(target.node)
        self._numbers(target.attr, parts, node.lineno)
        if target.attr in ("format", "format_map"):
            self._formats(subject, node.lineno)

        def compute(name: str, value: Any, *arguments: Any) -> Any:
            return values.attribute_of(value, name, arguments, named=named)

        return self._each(target.attr, node.lineno, compute, subject, *parts)

    def _formats(self, subject: list[Any], line: int, *, made: bool = True) -> None:
        """Judge format strings; `made`: one that cannot be told is told as such."""
        for form in subject:
            if isinstance(form, str) and (field := values.dunder_in_format(form)):
                self._note("escape", f"reaches for {field} by a format string", line)
            elif form is MADE and made:
                self._note("made-name", "a format string that is put together when the template runs", line)

    def _global(self, name: str, parts: list[list[Any]], named: dict[str, list[Any]], node: nodes.Call) -> list[Any]:
        if name == "range":
            return self._range(parts, node.lineno)
        if name in ("dict", "namespace"):
            first = _single(parts[0]) if parts else {}
            if isinstance(first, dict):
                return [{**first, **{str(key): _single(options) for key, options in named.items()}}]
        numbers = [item for options in (*parts, *named.values()) for item in options if isinstance(item, int)]
        if name == "lipsum" and max(numbers, default=0) > _PARAGRAPHS:
            self._note("size", f"lipsum with the number {min(max(numbers), 1 << 60):.3g}", node.lineno)
        self._numbers(name, [*parts, *named.values()], node.lineno)
        return [_given([*parts, *named.values()])]

    def _range(self, parts: list[list[Any]], line: int) -> list[Any]:
        known = [options[0] for options in parts if len(options) == 1 and isinstance(options[0], int)]
        if len(known) != len(parts) or not 1 <= len(parts) <= 3 or (len(known) == 3 and not known[2]):
            large = [item for options in parts for item in options if isinstance(item, int) and item > _LONG_RANGE]
            if large:
                self._note("long-range", f"a range up to {large[0]:.3g}", line)
            return [ANY]
        found = range(*known)
        size = (found.stop - found.start) / found.step  # len() is bounded, hostile numbers are not
        if size * self._times > LONG_LOOP:
            self._note("loop", f"a range of {size:.3g} numbers", line)
            return [ANY]
        if size > _LONG_RANGE:
            self._note("long-range", f"a range of {size:.3g} numbers", line)
        return [found]

    def _numbers(self, name: str, parts: Sequence[list[Any]], line: int) -> None:
        """An argument so large that it can only be a width or a count meant to exhaust memory."""
        for value in (item for options in parts for item in options):
            if isinstance(value, int) and not isinstance(value, bool) and value > 10 * LONG_LOOP:
                self._note(
                    "size",
                    f"{name} with the number {value:.3g}" if value < 1e300 else f"{name} with a huge number",
                    line,
                )


def _part(value: Any) -> Any:
    """Something inside a value that is not known."""
    return MADE if value is MADE else ANY


def _given(parts: Sequence[list[Any]]) -> Any:
    """What a function that is not known may return for these arguments: perhaps one of them."""
    return MADE if any(values.names_dunder(options) for options in parts) else ANY


def _single(found: list[Any]) -> Any:
    """One value for several, of which any may be a name."""
    if len(found) == 1:
        return found[0]
    return MADE if any(value is MADE or isinstance(value, str | tuple | dict) for value in found) else ANY


def few(found: list[Any]) -> list[Any]:
    """Different values, a few of them, each of a size that is worth following."""
    kept: list[Any] = []
    for value in found:
        value = value if _light(value) else ANY
        if not any(type(value) is type(other) and value == other for other in kept):
            kept.append(value)
    if len(kept) > _KEPT:
        kept = [*kept[: _KEPT - 1], MADE]
    return kept or [ANY]


def _light(value: Any) -> bool:
    if not isinstance(value, tuple | dict):
        return True
    todo, seen = [value], 0
    while todo:
        item = todo.pop()
        seen += 1
        if seen > WEIGHT:
            return False
        if isinstance(item, tuple | dict):
            if len(item) > WEIGHT:
                return False
            todo += item.values() if isinstance(item, dict) else item
    return True


_EXPRESSIONS: Final[dict[type, Callable[[Expressions, Any], list[Any]]]] = {
    nodes.Const: Expressions._const,
    nodes.TemplateData: lambda follower, node: [node.data],
    nodes.Name: Expressions._name,
    nodes.List: Expressions._list,
    nodes.Tuple: Expressions._list,
    nodes.Dict: Expressions._dict,
    nodes.Concat: Expressions._concat,
    nodes.CondExpr: Expressions._condition,
    nodes.And: Expressions._either,
    nodes.Or: Expressions._either,
    nodes.Neg: Expressions._signed,
    nodes.Pos: Expressions._signed,
    nodes.Getattr: Expressions._attribute,
    nodes.Getitem: Expressions._item,
    nodes.Filter: Expressions._filter,
    nodes.Call: Expressions._call,
}
