"""Objects by name: `pkg.module:name`, importable from the folder of the configuration."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from casemate.errors import ModelError

__all__ = ["import_object"]


def import_object(spec: str, *, folder: Path | None = None, what: str = "factory") -> Any:
    """The object that `pkg.module:name` names; `folder` is importable while it is looked up, and only then.

    Modules from `folder` are marked to travel to other processes by value, where that folder is not importable.
    Raises `ModelError` for another spelling, a module that is not there or raises, and a name that it does not have.
    """
    module_name, colon, attribute = spec.partition(":")
    if not colon or not module_name or not attribute:
        raise ModelError(f"expected a {what} as 'pkg.module:name', got {spec!r}: write module, colon, name")
    with _importable(folder, module_name.partition(".")[0]):
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise ModelError(
                f"expected a module {module_name} for the {what}, got {error}: put it beside casemate.toml or "
                "install it"
            ) from error
        except Exception as error:  # the user's module may raise anything
            raise ModelError(
                f"expected {module_name} to import, got {type(error).__name__}: {error}: mend the module"
            ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, dir(found), n=1)
            mend = f"did you mean {near[0]}?" if near else "mend the name"
            raise ModelError(f"expected a {what} {attribute} in {module_name}, got none: {mend}")
        found = getattr(found, part)
    return found


@contextmanager
def _importable(folder: Path | None, top: str) -> Iterator[None]:
    if folder is None:
        yield
        return
    root = folder.resolve()
    _forget_namesake(root, top)
    before = set(sys.modules)
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(root))
    for name in set(sys.modules) - before:
        if _inside(root, name):
            _by_value(name)


def _forget_namesake(root: Path, top: str) -> None:
    """A module of the same name from another project's folder must not be taken for this one's."""
    here = (root / f"{top}.py").exists() or (root / top).is_dir()
    if here and top in sys.modules and not _inside(root, top):
        for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
            del sys.modules[name]


def _inside(root: Path, name: str) -> bool:
    """Whether a module is the user's own code; an environment below the folder holds other people's."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or name.partition(".")[0] == "casemate":
        return False
    path = Path(file).resolve()
    return path.is_relative_to(root) and "site-packages" not in path.relative_to(root).parts


def _by_value(name: str) -> None:
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[name])
