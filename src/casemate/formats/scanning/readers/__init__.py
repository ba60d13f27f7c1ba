"""Readers: one file a format, found by walking. A module offers `READERS`, a tuple of `Reader`.

Adding a format is one new file here. A reader recognises by content, yields a `Sign` for each thing that is not known
to be harmless, hands what lies inside to `desk.look`, charges what it unpacks to `desk.meter` before it does, calls
`desk.meter.tick()` in long loops, and raises `Damaged` where it can read no further. It imports no framework.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from casemate.formats.scanning.desk import Readers

__all__ = ["known"]


@cache
def known() -> Readers:
    """All readers, those that are asked last at the end, by rank."""
    names = sorted(item.name for item in pkgutil.iter_modules(__path__) if not item.name.startswith("_"))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    found = [reader for module in modules for reader in module.READERS]
    return Readers(sorted(found, key=lambda reader: (reader.last, reader.rank, reader.name)))
