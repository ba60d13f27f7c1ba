"""Which statements of a Python module run when it is imported, and which when a class of it is loaded as a model."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from typing import Final

from casemate.formats.scanning.readers._plain import words

__all__ = ["Scope", "imports_in"]

_CALLED_BY_IMPORT: Final = words(  # methods that Python calls as classes are made and used, not by their names
    "__new__ __init__ __post_init__ __init_subclass__ __set_name__ __class_getitem__ __prepare__ __enter__ __exit__ "
    "__aenter__ __iter__ __next__ __del__ __call__ __getattr__ __getattribute__ __get__ __bool__ __len__ __eq__ "
    "__hash__ __repr__ __str__ __format__ __mro_entries__ __instancecheck__ __getitem__ __contains__ __add__ __radd__ "
    "__or__ __ror__ __lshift__ __rshift__ __matmul__ __mul__ __sub__ __invert__ __neg__ __index__ __fspath__"
)
_BASES: Final = words("__init_subclass__ __class_getitem__ __mro_entries__")
_METACLASS: Final = words("__new__ __init__ __prepare__ __call__")
_CALLED_BY_LOADING: Final = words(
    "__init__ __new__ __post_init__ __call__ __setstate__ from_pretrained from_config _from_config from_dict "
    "from_json_file forward post_init _init_weights init_weights tie_weights load load_context load_model predict "
    "generate prepare_inputs_for_generation __getattr__ __getattribute__ __del__ setup configure_model"
)
_FUNCTION: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


class Scope:
    """Which nodes run when, by their ids.

    `now`: as the module is imported; `loaded`: once one of `entries`, names of the module's classes and functions, is
    loaded as a model or called.
    """

    def __init__(self, tree: ast.Module, nodes: Sequence[ast.AST], entries: Iterable[str] = ()) -> None:
        self._functions: dict[str, list[ast.AST]] = {}
        for node in nodes:
            if isinstance(node, (*_FUNCTION, ast.ClassDef)):
                self._functions.setdefault(node.name, []).append(node)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self._functions.setdefault(target.id, []).append(node.value)
        self.now: set[int] = set()
        self.loaded: set[int] = set()
        self._reached: set[str] = set()
        self._hooked: set[tuple[str, frozenset[str]]] = set()
        hooks = [item for item in tree.body if getattr(item, "name", "") in ("__getattr__", "__dir__")]
        self._mark([*tree.body, *(line for item in hooks for line in _body(item))], self.now)
        self._reached, self._hooked = set(), set()
        for name in dict.fromkeys(entries):
            self._mark(self._entered(name), self.loaded)
        self.loaded -= self.now

    def _entered(self, name: str) -> list[ast.AST]:
        """The bodies that run when something of that name is loaded; the ancestors of a class that lie here too."""
        found: list[ast.AST] = []
        todo, seen = [name], set()
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            for node in self._functions.get(name, []):
                if isinstance(node, ast.ClassDef):
                    todo += [base.id for base in node.bases if isinstance(base, ast.Name)]
                    found += _bodies(node, _CALLED_BY_LOADING)
                else:
                    found += _body(node)
        return found

    def _mark(self, todo: list[ast.AST], marked: set[int]) -> None:
        while todo:
            node = todo.pop()
            if isinstance(node, ast.If) and _is_main(node.test):
                todo += node.orelse
                continue
            marked.add(id(node))
            if isinstance(node, _FUNCTION):
                todo += [*node.decorator_list, *node.args.defaults, *(item for item in node.args.kw_defaults if item)]
                todo += [part for item in node.decorator_list if isinstance(item, ast.Name) for part in self._run(item)]
                continue
            if isinstance(node, ast.Lambda):
                continue
            if isinstance(node, ast.Call):
                todo += self._called(node)
            elif isinstance(node, ast.ClassDef):
                todo += self._made(node)
            todo += ast.iter_child_nodes(node)

    def _made(self, node: ast.ClassDef) -> list[ast.AST]:
        """What runs as a class is made: its decorators, its metaclass, and the hooks of what it is derived from."""
        found = [part for item in node.decorator_list for part in self._run(item)]
        makers = [(item, _BASES) for item in node.bases] + [(item.value, _METACLASS) for item in node.keywords]
        for item, hooks in makers:
            name = item.id if isinstance(item, ast.Name) else ""
            if name and (name, hooks) not in self._hooked:
                self._hooked.add((name, hooks))
                classes = (known for known in self._functions.get(name, []) if isinstance(known, ast.ClassDef))
                found += [line for known in classes for line in _bodies(known, hooks)]
        return found

    def _called(self, node: ast.Call) -> list[ast.AST]:
        """The bodies of this module's own functions that a call reaches."""
        inner = [node.func.body] if isinstance(node.func, ast.Lambda) else []
        return [*inner, *self._run(node.func)]

    def _run(self, named: ast.expr) -> list[ast.AST]:
        name = named.id if isinstance(named, ast.Name) else named.attr if isinstance(named, ast.Attribute) else ""
        if not name or name in self._reached:
            return []
        self._reached.add(name)
        found: list[ast.AST] = []
        for item in self._functions.get(name, []):
            found += _bodies(item, _CALLED_BY_IMPORT) if isinstance(item, ast.ClassDef) else _body(item)
        return found


def _body(node: ast.AST) -> list[ast.AST]:
    body = getattr(node, "body", [])
    return list(body) if isinstance(body, list) else [body]


def _bodies(node: ast.ClassDef, names: frozenset[str]) -> list[ast.AST]:
    """The bodies of some methods of a class."""
    return [line for item in node.body if getattr(item, "name", "") in names for line in _body(item)]


def _is_main(test: ast.expr) -> bool:
    """Whether it is `__name__ == "__main__"`, which is false when a module is imported."""
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)):
        return False
    sides = [test.left, *test.comparators]
    named = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
    return named and any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides)


def imports_in(tree: ast.Module) -> list[tuple[int, str, tuple[str, ...]]]:
    """The level (dots), module and names of each import; a module that is imported whole has no names."""
    found: list[tuple[int, str, tuple[str, ...]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", tuple(item.name for item in node.names)))
        elif isinstance(node, ast.Import):
            found += [(0, item.name, ()) for item in node.names]
    return found
