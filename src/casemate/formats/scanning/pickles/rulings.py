"""Which names a pickle may import, and how it may use them.

The tables in `allowed/` are made by `scripts/allowed_globals.py` from real files of the libraries they name and then
reviewed; a name that is in none of them is not known to be harmless. `dangers` knows the families that are harmful.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Final

from casemate.formats.scanning.pickles import dangers
from casemate.formats.scanning.signs import Level

__all__ = ["STDLIB", "Ruling", "Table", "Use", "frameworks", "ruling", "table_of"]


class Use(enum.StrEnum):
    """How a known name may be used.

    `VALUE`: kept, never called by the pickle. `CLASS`: made empty (NEWOBJ) and given state, and called with arguments
    where real files do so. `CALL`: called, with arguments that `shapes` finds harmless for that very name.
    """

    VALUE = "value"
    CLASS = "class"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is known of a name: `level` (`CLEAN` for a known one), how it may be used, and why it is not harmless.

    `built`: real files call the class with arguments. `filled`: it is a list, dict or set, so that items are added to
    its objects. `slotted`: its objects have slots, which are state too. `members`: it is an enumeration.
    """

    level: Level
    use: Use = Use.VALUE
    why: str = ""
    framework: str = ""
    built: bool = False
    filled: bool = False
    slotted: bool = False
    members: bool = False


Table = dict[str, Any]
STDLIB: Final = "stdlib"
_UNKNOWN: Final = Ruling(Level.SUSPICIOUS, why="no table of known names has it: loading the file would run its code")
_PART_OF: Final = {
    "_catboost": "catboost", "_loss": "sklearn", "lightning": "pytorch_lightning",
    "lightning_fabric": "pytorch_lightning",
}  # fmt: skip


@lru_cache(maxsize=1 << 14)  # a hostile file names millions
def ruling(module: str, name: str) -> Ruling:
    """What is known of `module` and (dotted) `name`, exactly as the pickle spells them."""
    top = module.partition(".")[0]
    for framework in (STDLIB, _PART_OF.get(top, top)):
        table = table_of(framework)
        use = table["names"].get(module, {}).get(name) if table else None
        if use is not None:
            return _known(table, module, name, Use(use))
    why = dangers.danger_of(module, name) or dangers.misplaced(module, name)
    return Ruling(Level.MALICIOUS, why=why) if why else _UNKNOWN


def frameworks() -> frozenset[str]:
    """The frameworks that have a table."""
    return frozenset(_files())


@cache
def table_of(framework: str) -> Table:
    """The table of a framework, read when it is first asked for; empty where there is none."""
    file = _files().get(framework)
    return json.loads(file.read_text(encoding="utf-8")) if file is not None else {}


@cache
def _files() -> dict[str, Traversable]:
    files = resources.files(__package__).joinpath("allowed").iterdir()
    return {file.name.removesuffix(".json"): file for file in files if file.name.endswith(".json")}


def _known(table: Table, module: str, name: str, use: Use) -> Ruling:
    def has(trait: str) -> bool:
        return name in table.get(trait, {}).get(module, ())

    return Ruling(
        Level.CLEAN, use, framework=table["framework"], built=table["framework"] == STDLIB or has("built"),
        filled=has("filled"), slotted=has("slotted"), members=has("members"),
    )  # fmt: skip
