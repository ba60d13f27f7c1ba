"""How many benign files a scan flags, on classes and releases that were left out when the allowlist was made.

Usage: make the files, in as many environments as there are releases to measure, then scan them all:

    python benchmarks/artifact_files.py FOLDER
    python benchmarks/benign_artifacts.py FOLDER...

What "left out" means: no file of a fifth of the classes and topics, drawn by their names, and no file of one
environment with a release of each library was recorded. The walk through the classes of the other releases was made, as
for any class that cannot be fitted; so the draw tests whether that rule covers what real files hold, and the
environment whether the names last.

Two figures: with the tables that never saw what is measured (`artifact_left_out.json` holds the names that are then
taken away), which is what a user's next file meets; and with the tables as they are shipped. What was let through after
files of the measurement had been seen to need it is taken away too. Rules cannot be: those for states, for methods of
distributions and for joblib's dtypes were written with these files at hand.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifact_files import LEFT_OUT_PYTHON, left_out
from evidence import table

from casemate.core.stats import clopper_pearson
from casemate.formats.scanning.pickles import judge, rulings
from casemate.formats.scanning.signs import Level, Scanned
from casemate.formats.scanning.walking import scan_file

__all__ = ["Scan", "flagged_share", "measured", "scans", "without_what_was_left_out"]

LEFT_OUT = Path(__file__).resolve().parent / "artifact_left_out.json"
MOST = 0.03  # upper 95 % bound of the share flagged


@dataclass(frozen=True)
class Scan:
    """One file: what it is (`library`, `kind`), why it was left out (`why`: kind, version), what the scan said."""

    library: str
    kind: str
    why: str
    release: str
    scanned: Scanned


def scans(folders: Iterable[Path]) -> list[Scan]:
    """Every file that the folders' indexes name and that counts as left out, scanned."""
    found = []
    for folder in folders:
        index = json.loads((folder / "index.json").read_text())
        for one in index["files"]:
            release = f"{one['library']} {index['versions'].get(one['library'], '?')}"
            path = folder / one["file"]
            why = "kind" if left_out(one["kind"]) else "version" if index["python"].startswith(LEFT_OUT_PYTHON) else ""
            if why:
                found.append(Scan(one["library"], one["kind"], why, release, scan_file(path, name=one["file"])))
    return found


@contextlib.contextmanager
def without_what_was_left_out() -> Iterator[None]:
    """The tables as they would be had nothing of what is measured been seen when they were made."""
    unseen = [name.split("|") for name in json.loads(LEFT_OUT.read_text())]
    tables = [rulings.table_of(framework) for framework in rulings.frameworks()]
    kept = [(table, json.dumps(table)) for table in tables]
    try:
        _forget()
        for table in tables:
            for module, name, *only in unseen:
                traits = ["built"] if only else ["names", "built", "filled", "slotted", "members"]
                for held in (table.get(trait, {}).get(module, {}) for trait in traits):
                    if name in held:
                        held.pop(name) if isinstance(held, dict) else held.remove(name)
        yield
    finally:
        for table, text in kept:
            table.clear()
            table.update(json.loads(text))
        _forget()


def _forget() -> None:
    """What the scanner remembers of names and calls that it judged by other tables."""
    rulings.ruling.cache_clear()
    judge.ruling_of.cache_clear()
    judge._HARMLESS.clear()


def flagged_share(found: list[Scan]) -> tuple[int, int, float]:
    """Files flagged, files, and the upper end of the 95 % Clopper-Pearson interval of the share."""
    flagged = sum(one.scanned.level is not Level.CLEAN for one in found)
    return flagged, len(found), clopper_pearson(flagged, len(found)).high


def measured(folders: list[Path]) -> dict[str, Any]:
    """Bar, columns, rows, result and whether it is met, as a page of evidence wants it.

    Raises ValueError where the folders hold fewer than 300 files.
    """
    with without_what_was_left_out():
        fresh = scans(folders)
    if len(fresh) < 300:
        raise ValueError(f"expected at least 300 files that were left out, got {len(fresh)}: make more")
    shipped = scans(folders)
    rows = [["classes and topics, each once", *_cells(_worst_of_each(fresh)), *_cells(_worst_of_each(shipped))]]
    for name, pick in _groups(fresh):
        rows.append(
            [name, *_cells([one for one in fresh if pick(one)]), *_cells([one for one in shipped if pick(one)])]
        )
    flagged, n, most = flagged_share(fresh)
    return {
        "bar": f"the upper 95 % bound of the share of benign files flagged is at most {MOST:.0%}",
        "columns": ["files", "n", "flagged, left out", "upper bound", "n", "flagged, shipped", "upper bound"],
        "rows": rows,
        "result": f"{flagged} of {n} flagged, upper bound {most:.1%}, with tables that saw none of them",
        "met": most <= MOST,
    }


def _worst_of_each(found: list[Scan]) -> list[Scan]:
    """One file for each class of each release: a flagged one where there is one, for its files are not independent."""
    worst: dict[tuple[str, str], Scan] = {}
    for one in found:
        key = one.release, one.kind
        if key not in worst or one.scanned.level is not Level.CLEAN:
            worst[key] = one
    return list(worst.values())


def _groups(found: list[Scan]) -> Iterator[tuple[str, Any]]:
    yield "all files", lambda one: True
    for why in ("kind", "version"):
        yield f"left out by {why}", lambda one, why=why: one.why == why
    for library in sorted({one.library for one in found}):
        yield library, lambda one, library=library: one.library == library


def _cells(found: list[Scan]) -> list[Any]:
    if not found:
        return [0, 0, "-"]
    flagged, n, most = flagged_share(found)
    return [n, flagged, f"{most:.1%}"]


def _names(found: list[Scan]) -> list[str]:
    """What was flagged, by how often."""
    count: collections.Counter[str] = collections.Counter()
    for one in found:
        count.update({f"{sign.level}: {sign.rule}: {sign.what[:110]} [{one.release}]" for sign in one.scanned.signs})
    return [f"{n:4d}  {name}" for name, n in count.most_common(60)]


def main() -> int:
    """Print the table and what was flagged; 1 where the bar is not met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--shipped", action="store_true", help="list what the shipped tables flag instead")
    options = parser.parse_args()
    got = measured(options.folders)
    print(*table(got["columns"], got["rows"]), "", got["result"], "", sep="\n")
    with contextlib.nullcontext() if options.shipped else without_what_was_left_out():
        print(*_names(scans(options.folders)), sep="\n")
    return 0 if got["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
