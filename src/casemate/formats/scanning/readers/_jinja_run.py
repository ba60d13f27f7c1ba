"""Follows a template's syntax tree with what is known of its values, and tells what it would reach for.

Nothing is rendered: attributes are never looked up, and only constants are computed (`_jinja_values`), so that a name
that is put together from pieces is seen as what it becomes. Both sides of each condition are followed; a loop over
constants runs through them, any other loop once, with an item that is not known. Errs towards reporting: of two values
that a variable may have, either counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final

from jinja2 import nodes

from casemate.formats.scanning.readers._jinja_expressions import LONG_LOOP, STEPS, WEIGHT, Expressions, Note, few
from casemate.formats.scanning.readers._jinja_values import ANY, MADE

__all__ = ["Follower"]

_DEEPEST: Final = 6  # macros within macros


class Follower(Expressions):
    """Follows one template; `note` hears what it finds."""

    def __init__(self, note: Note, tick: Callable[[], None]) -> None:
        super().__init__(note, tick)
        self._inside: list[str] = []

    def follow(self, tree: nodes.Template) -> None:
        """Follow a whole template."""
        self._run(tree.body)

    def _run(self, body: Sequence[nodes.Node]) -> Any:
        """Follow statements; what they print, `MADE` where that is not known."""
        printed: Any = ""
        for statement in body:
            printed = self._add(printed, self._statement(statement))
        return printed

    def _add(self, left: Any, right: Any) -> Any:
        if isinstance(left, str) and isinstance(right, str):
            return left + right if len(left) + len(right) <= WEIGHT else MADE
        return MADE

    def _statement(self, node: nodes.Node) -> Any:
        self._step()
        special = _STATEMENTS.get(type(node))
        if special is not None:
            return special(self, node)
        for child in node.iter_child_nodes():  # a kind that needs no special care: both its parts count
            if isinstance(child, nodes.Expr):
                self.value(child)
            else:
                self._statement(child)
        return ""

    def _output(self, node: nodes.Output) -> Any:
        printed: Any = ""
        for item in node.nodes:
            value = item.data if isinstance(item, nodes.TemplateData) else self._one(item)
            printed = self._add(printed, str(value) if isinstance(value, str | int | float) else MADE)
        return printed

    def _assign(self, node: nodes.Assign) -> Any:
        self._bind(node.target, self.value(node.node))
        return ""

    def _assign_block(self, node: nodes.AssignBlock) -> Any:
        text = self._run(node.body)
        if node.filter is not None:
            self.value(node.filter)
            text = MADE
        self._bind(node.target, [text])
        return ""

    def _bind(self, target: nodes.Node, found: list[Any]) -> None:
        if isinstance(target, nodes.Name):
            self._names[target.name] = found
        elif isinstance(target, nodes.NSRef):
            self._names[f"{target.name}.{target.attr}"] = found
        elif isinstance(target, nodes.Tuple):
            for index, item in enumerate(target.items):
                parts = [value[index] if isinstance(value, tuple) and len(value) > index else ANY for value in found]
                self._bind(item, parts)

    def _if(self, node: nodes.If) -> Any:
        self.value(node.test)
        before = dict(self._names)
        printed = [self._run(node.body)]
        after = [self._names]
        for other in node.elif_:
            self._names = dict(before)
            printed.append(self._statement(other))
            after.append(self._names)
        self._names = dict(before)
        printed.append(self._run(node.else_))
        self._names = _merged([*after, self._names])
        return printed[0] if all(item == printed[0] for item in printed) else MADE

    def _with(self, node: nodes.With) -> Any:
        before = dict(self._names)
        for target, value in zip(node.targets, node.values, strict=True):
            self._bind(target, self.value(value))
        printed = self._run(node.body)
        self._names = before
        return printed

    def _for(self, node: nodes.For) -> Any:
        items = self._items(node.iter)
        outer, times = dict(self._names), self._times
        self._times *= max(1, len(items)) if self._constant(node.iter) else 1
        if self._times > LONG_LOOP:
            self._note("loop", f"loops {self._times:.3g} times", node.lineno)
        printed: Any = ""
        for item in items:
            if not self._step():  # the rest of a long detour, all at once
                item = few([*itertools.chain.from_iterable(items[:64]), MADE])
            kept = {name: value for name, value in self._names.items() if "." in name}
            self._names = {**outer, **kept}
            self._bind(node.target, item)
            if node.test is not None:
                self.value(node.test)
            printed = self._add(printed, self._run(node.body))
            if self._steps >= STEPS and MADE in item:
                printed = MADE
                break
        self._times = times
        namespaced = {name: value for name, value in self._names.items() if "." in name}
        self._names = _merged([outer, {**outer, **namespaced}])
        self._run(node.else_)
        return printed if self._constant(node.iter) else MADE

    def _constant(self, node: nodes.Node) -> bool:
        return all(isinstance(value, tuple | str | dict | range) for value in self._quiet(node))

    def _quiet(self, node: nodes.Node) -> list[Any]:
        noted, self._note = self._note, lambda rule, what, line: None
        try:
            return self.value(node)
        finally:
            self._note = noted

    def _items(self, node: nodes.Node) -> list[list[Any]]:
        """What the loop's variable may be in each turn; one unknown where the loop is not over constants."""
        found = self.value(node)
        if len(found) != 1 or not isinstance(found[0], tuple | str | dict | range):
            picked = [item for value in found if isinstance(value, tuple | str) for item in value[:64]]
            return [[*picked, ANY]]
        if isinstance(found[0], range):
            return [[number] for number in found[0][:4096]] or [[ANY]]
        return [[item] for item in found[0]] or [[ANY]]

    def _macro(self, node: nodes.Macro) -> Any:
        self._macros[node.name] = node
        before = dict(self._names)
        for argument in node.args:
            self._bind(argument, [ANY])
        for default in node.defaults:
            self.value(default)
        self._inside.append(node.name)
        self._run(node.body)
        self._inside.pop()
        self._names = before
        return ""

    def _call_macro(self, name: str, node: nodes.Call) -> Any:
        macro = self._macros[name]
        if name in self._inside or len(self._inside) >= _DEEPEST or not self._step():
            return MADE
        given = [self.value(argument) for argument in node.args]
        named = {item.key: self.value(item.value) for item in node.kwargs}
        if self._all_unknown([*given, *named.values()]):
            return MADE  # as it was followed where it was defined
        before = dict(self._names)
        first = len(macro.args) - len(macro.defaults)
        for index, argument in enumerate(macro.args):
            default = self.value(macro.defaults[index - first]) if index >= first else [ANY]
            self._bind(argument, named.get(argument.name, given[index] if index < len(given) else default))
        self._inside.append(name)
        printed = self._run(macro.body)
        self._inside.pop()
        self._names = before
        return printed

    @staticmethod
    def _all_unknown(found: Sequence[list[Any]]) -> bool:
        return bool(found) and all(value is ANY for options in found for value in options)

    def _outside(self, node: nodes.Node) -> Any:
        self._note("import", f"{type(node).__name__.lower()} of another template", node.lineno)
        for child in node.iter_child_nodes():
            if isinstance(child, nodes.Expr):
                self.value(child)
        return MADE


def _merged(states: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """What names may be after either of several ways."""
    found = {}
    for name in dict.fromkeys(itertools.chain.from_iterable(states)):
        options = [state.get(name, [ANY]) for state in states]
        same = all(item is options[0] for item in options)
        found[name] = options[0] if same else few([value for item in options for value in item])
    return found


_STATEMENTS: Final[dict[type, Callable[[Follower, Any], Any]]] = {
    nodes.Output: Follower._output,
    nodes.Assign: Follower._assign,
    nodes.AssignBlock: Follower._assign_block,
    nodes.If: Follower._if,
    nodes.For: Follower._for,
    nodes.With: Follower._with,
    nodes.Macro: Follower._macro,
    nodes.Import: Follower._outside,
    nodes.FromImport: Follower._outside,
    nodes.Include: Follower._outside,
    nodes.Extends: Follower._outside,
}
