"""Scans: many files, one verdict, under what their owner allows and against what they were."""

from __future__ import annotations

import datetime as dt
import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from casemate.artifacts.allowances import Allowance, allow, expired
from casemate.artifacts.locks import Lock, news
from casemate.artifacts.own_code import with_own_code
from casemate.errors import UsageError
from casemate.formats.scanning.limits import Limits
from casemate.formats.scanning.signs import Level, Place, Scanned, Sign, worst
from casemate.formats.scanning.walking import files_below, scan_bytes, scan_file

__all__ = ["Interrupted", "Scan", "scan_paths"]

STDIN = "-"
_LEFT_OUT = frozenset({".git"})  # git's own store: packed copies of what lies beside it, read by git alone
_MOST = 1 << 30  # bytes from standard input


@dataclass(frozen=True, slots=True)
class Scan:
    """What is known of some files; plain data.

    `allowed`: signs that a policy allows, which count for nothing; `left_out`: folders that were not looked into;
    `expired`: what a policy allowed until a day that has passed, and that was found.
    """

    files: tuple[Scanned, ...]
    allowed: tuple[tuple[Sign, Allowance], ...] = ()
    left_out: tuple[str, ...] = ()
    fail_on: Level = Level.SUSPICIOUS
    expired: tuple[Allowance, ...] = ()

    @property
    def level(self) -> Level:
        """The verdict: that of the worst file; `UNKNOWN` where there was none."""
        return worst(scanned.level for scanned in self.files) if self.files else Level.UNKNOWN

    @property
    def exit_code(self) -> int:
        """0 passed; 1 malicious, or suspicious unless only `fail_on` malicious; 3 something could not be judged.

        Nothing hides what could not be judged but a failure.
        """
        levels = {sign.level for scanned in self.files for sign in scanned.signs}
        failing = {Level.MALICIOUS} | ({Level.SUSPICIOUS} if self.fail_on is Level.SUSPICIOUS else set())
        if levels & failing:
            return 1
        return 3 if levels & {Level.UNREADABLE, Level.UNKNOWN} or not self.files else 0


class Interrupted(KeyboardInterrupt):
    """Somebody stopped a scan: `scan` is what was known by then, of `total` files."""

    def __init__(self, scan: Scan, total: int) -> None:
        super().__init__()
        self.scan, self.total = scan, total


def scan_paths(
    paths: Sequence[str],
    *,
    allowances: Sequence[Allowance] = (),
    lock: Lock | None = None,
    limits: Limits | None = None,
    fail_on: Level = Level.SUSPICIOUS,
    digest: bool = False,
    weights: bool = False,
    today: dt.date | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Scan:
    """Scan files, all files below folders, what patterns match, and standard input (`-`), each once.

    `digest`: keep the SHA-256 of each. `weights`: read the tensors too. `told(done, total)` hears of progress.
    Raises `UsageError` for a path that is not there, and `Interrupted` with what is known by then.
    """
    left_out: list[str] = []
    wanted: dict[str | None, bool] = {}
    for given in paths:
        for path, named in _matching(given, left_out):
            wanted[path] = wanted.get(path, False) or named
    others = {path for path in wanted if path is not None}
    day = today or dt.datetime.now(dt.UTC).date()
    files: list[Scanned] = []
    allowed: list[tuple[Sign, Allowance]] = []

    def known() -> Scan:
        return Scan(tuple(files), tuple(allowed), tuple(left_out), fail_on, expired(allowances, files, day))

    try:
        for done, (path, named) in enumerate(wanted.items()):
            told(done, len(wanted))
            scanned = _one(path, named and len(wanted) == 1, limits, digest=digest, weights=weights)
            if path is not None:
                scanned = with_own_code(scanned, Path(path), others=others, limits=limits)
            scanned = replace(scanned, signs=(*scanned.signs, *news(scanned, lock))) if lock is not None else scanned
            standing, let = allow(scanned, allowances, day)
            files.append(replace(scanned, signs=standing))
            allowed += let
    except KeyboardInterrupt as error:
        raise Interrupted(known(), len(wanted)) from error
    told(len(wanted), len(wanted))
    return known()


def _matching(given: str, left_out: list[str]) -> Iterator[tuple[str | None, bool]]:
    """The files that an argument means, None for standard input, and whether the user named that very file."""
    if given == STDIN:
        yield None, True
    elif os.path.lexists(given) and not os.path.isdir(given):
        yield str(Path(given)), True
    elif os.path.isdir(given):
        yield from ((str(item), False) for item in _kept(files_below(Path(given)), left_out))
    elif matches := sorted(glob.glob(given, recursive=True)):
        for match in matches:
            yield from _matching(match, left_out) if os.path.isdir(match) else [(str(Path(match)), False)]
    else:
        raise UsageError(f"expected a file, a folder or a pattern that matches one, got {given}: check the path")


def _kept(files: Iterable[Path], left_out: list[str]) -> Iterator[Path]:
    for file in files:
        outside = next((i for i, part in enumerate(file.parts[:-1]) if part in _LEFT_OUT), None)
        if outside is None:
            yield file
        elif (folder := os.path.join(*file.parts[: outside + 1])) not in left_out:
            left_out.append(folder)


def _one(path: str | None, alone: bool, limits: Limits | None, *, digest: bool, weights: bool) -> Scanned:
    if path is None:
        if sys.stdin is None:
            raise UsageError("expected a file on standard input, got none: name a file")
        data = sys.stdin.buffer.read(_MOST + 1)
        if len(data) > _MOST:
            raise UsageError(f"expected at most {_MOST >> 30} GiB on standard input, got more: scan a file instead")
        return scan_bytes(data, "standard input", limits=limits, digest=digest, weights=weights)
    shown = path.encode("utf-8", "backslashreplace").decode()  # a name may hold bytes that are no text
    try:
        return scan_file(Path(path), name=shown, limits=limits, digest=digest, weights=weights)
    except UsageError as error:
        if alone:
            raise
        return Scanned(shown, 0, (), (_closed(shown, error),))


def _closed(path: str, error: UsageError) -> Sign:
    return Sign(
        Level.UNREADABLE, "file/unreadable", str(error), Place(path),
        "what could not be read could not be judged", "give the right to read it, or take it away",
    )  # fmt: skip
