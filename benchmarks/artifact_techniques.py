"""Our own files: at least one for each technique that a model file can use against its reader, and its benign twin.

Usage: python benchmarks/artifact_techniques.py [FOLDER]

Each technique has a file made here byte by byte or by the library that writes the format; its payload is inert (`true`,
`print`, a name that does not exist), and nothing here loads it. Most have a twin of the same format without the trick,
which has to be clean. `malicious` has to be called so; `suspicious` at least that; `reported` anything but clean.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifact_technique_files import Made, boosters, containers, graphs, pickled, saved_by_torch, texts
from evidence import table

from casemate.formats.scanning.signs import Level
from casemate.formats.scanning.walking import scan_file

__all__ = ["all_made", "judged", "measured"]

_ORDER = list(Level)
_ENOUGH = {
    "malicious": {Level.MALICIOUS},
    "suspicious": {Level.MALICIOUS, Level.SUSPICIOUS},
    "reported": set(Level) - {Level.CLEAN},
    "unknown": {Level.UNKNOWN, Level.UNREADABLE},
    "clean": {Level.CLEAN},
}


def all_made() -> Iterator[Made]:
    """Every file, in the order of the families."""
    for family in (pickled, containers, saved_by_torch, graphs, boosters, texts):
        yield from family()


def judged(made: Made, folder: Path) -> tuple[Level, str]:
    """What a scan says of a file that was written into the folder, and its first sign."""
    path = folder / made.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.data)
    scanned = scan_file(path, name=made.name)
    signs = sorted(scanned.signs, key=lambda sign: _ORDER.index(sign.level))
    return scanned.level, f"{signs[0].rule}: {signs[0].what[:90]}" if signs else ""


def measured(folder: Path | None = None) -> dict[str, Any]:
    """Bar, columns, rows, result and whether it is met, as a page of evidence wants it."""
    rows, missed, loud = [], [], []
    with tempfile.TemporaryDirectory() as own:
        for made in all_made():
            level, why = judged(made, folder or Path(own))
            good = level in _ENOUGH[made.expected]
            rows.append((made.technique, made.expected, str(level), "" if good else f"NO: {why}"))
            if not good:
                (loud if made.expected == "clean" else missed).append(made.technique)
    tricks = sum(row[1] != "clean" for row in rows)
    return {
        "bar": "every technique is told at the level expected of it, and every benign twin is clean",
        "columns": ("technique", "expected", "said", "in order"),
        "rows": rows,
        "result": f"{tricks - len(missed)} of {tricks} techniques told as expected, "
        f"{len(loud)} of {len(rows) - tricks} benign twins flagged",
        "met": not missed and not loud,
    }


def main() -> int:
    """Print the table; 1 where the bar is not met."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    got = measured(folder)
    print(*table(got["columns"], got["rows"]), "", got["result"], sep="\n")
    return 0 if got["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
