"""A scan for people: the verdict first, then each file that did not pass, what was found in it and what to do."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from casemate.artifacts.allowances import Allowance
from casemate.artifacts.scans import Scan
from casemate.formats.scanning.signs import Level, Scanned, Sign

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["render"]

_STYLE: Mapping[Level, str] = {
    Level.MALICIOUS: "bold red",
    Level.SUSPICIOUS: "yellow",
    Level.UNREADABLE: "magenta",
    Level.UNKNOWN: "magenta",
    Level.CLEAN: "green",
}
_ORDER = {level: rank for rank, level in enumerate(Level)}
_SHOWN = 5  # places of one and the same thing in a file
_WIDEST = 120  # longer lines of prose are not read


def render(
    scan: Scan, *, width: int = 100, seconds: float | None = None, total: int | None = None, verbose: bool = False
) -> list[Text]:
    """The lines of a scan, the worst files first; nothing in them moves a cursor.

    `width` in columns; `seconds` that it took; `total` files that there are, where somebody stopped it before the last;
    `verbose` shows clean files, each place of what was found, and what the policy allows.
    """
    from rich.text import Text

    width = min(width, _WIDEST)
    bad = [scanned for scanned in scan.files if scanned.level is not Level.CLEAN]
    alone = not bad and bool(scan.files) and total is None
    lines = [] if alone else [_verdict(scan, total), Text()]
    for scanned in sorted(bad, key=lambda item: (_ORDER[item.level], item.path)):
        lines += [*_file(scanned, width, verbose=verbose), Text()]
    clean = [scanned for scanned in scan.files if scanned.level is Level.CLEAN]
    lines += [line for scanned in clean if verbose for line in _file(scanned, width, verbose=True)]
    lines += [line for sign, item in scan.allowed if verbose for line in _allowed(sign, item)]
    for item in scan.expired:
        lines.append(Text(f"the policy allowed {_plain(item.name)} until {item.until}, which has passed", "yellow"))
    lines += [Text(f"not looked into: {_plain(folder)}", "dim") for folder in scan.left_out]
    return [*lines, _summary(scan, seconds, alone=alone)]


def _verdict(scan: Scan, total: int | None) -> Text:
    from rich.text import Text

    if total is not None and scan.exit_code != 1:  # what was not looked at may be anything
        return Text.assemble(("interrupted", "magenta"), f"  after {len(scan.files):,} of {total:,} files")
    word, style = {0: ("passed", "green"), 1: ("FAILED", "bold red"), 3: ("undecided", "magenta")}[scan.exit_code]
    open_ = {Level.UNREADABLE, Level.UNKNOWN}
    if not scan.files:
        told = "there was nothing to scan"
    elif scan.exit_code == 3:
        told = f"{_some(scan, open_)[0]} could not be judged"
    elif scan.level is Level.MALICIOUS:
        some, one = _some(scan, {Level.MALICIOUS})
        told = f"{some} {'is' if one else 'are'} malicious: do not load {'it' if one else 'them'}"
    else:
        some, one = _some(scan, {Level.SUSPICIOUS})
        told = "" if scan.exit_code else "nothing malicious; "
        told += f"{some} {'is' if one else 'are'} not known to be harmless"
    return Text.assemble((word, style), f"  {told}")


def _some(scan: Scan, levels: set[Level]) -> tuple[str, bool]:
    """How many files have signs of these levels, and whether it is one."""
    count = sum(any(sign.level in levels for sign in scanned.signs) for scanned in scan.files)
    whole = len(scan.files)
    return f"{count:,} of {whole:,} file{'s' if whole != 1 else ''}", count == 1


def _summary(scan: Scan, seconds: float | None, *, alone: bool) -> Text:
    """One line of counts, with the verdict where it stands `alone`."""
    from rich.text import Text

    took = "" if seconds is None else f" in {seconds:.1f} s"
    text = Text.assemble(("passed  ", "green")) if alone else Text()
    text.append(f"{len(scan.files):,} file{'s' if len(scan.files) != 1 else ''}{took}: ")
    counts = Counter(scanned.level for scanned in scan.files)
    for number, level in enumerate(level for level in Level if counts[level]):
        text.append(", " if number else "").append(f"{counts[level]:,} {level}", _STYLE[level])
    if not scan.files:
        text.append("nothing to scan", _STYLE[Level.UNKNOWN])
    if scan.allowed:
        text.append(f"; {len(scan.allowed):,} found and allowed by the policy")
    return text


# ------------------------------------------------------------------------------------------------------------ one file


def _file(scanned: Scanned, width: int, *, verbose: bool) -> Iterator[Text]:
    from rich.text import Text

    formats = _plain(", ".join(scanned.formats)) or "no known format"
    level = (f"{scanned.level:<11}", _STYLE[scanned.level])
    path = _plain(scanned.path)
    if 11 + len(path) + 2 + len(formats) <= width:
        yield Text.assemble(level, (path, "bold"), (f"  {formats}", "dim"))
    else:
        yield Text.assemble(level, (path, "bold"))
        yield from (Text(f"{'':<11}{line}", "dim") for line in _wrapped(formats, width - 11))
    alike: dict[tuple[str, ...], list[Sign]] = {}
    for sign in sorted(scanned.signs, key=lambda item: _ORDER[item.level]):
        alike.setdefault((sign.level, sign.rule, sign.why, sign.mend, sign.certainty), []).append(sign)
    for signs in alike.values():
        yield from _found(signs, scanned.level, width, verbose=verbose)


def _found(signs: Sequence[Sign], worst: Level, width: int, *, verbose: bool) -> Iterator[Text]:
    """What was found by one rule in one file, and once for all of it why that matters and what to do."""
    from rich.text import Text

    first = signs[0]
    for sign in signs if verbose else signs[:_SHOWN]:
        aside = ("" if sign.level is worst else f"{sign.level}: ", _STYLE[sign.level])
        where = _plain(str(sign.place).removeprefix(sign.place.file).removeprefix("!/").strip())
        what = Text.assemble("  ", aside, _plain(sign.what))
        if where and what.cell_len + len(where) + 2 > width:
            yield what
            yield from (Text(f"    {line}", "dim") for line in _wrapped(where, width - 4))
        else:
            yield what.append(f"  {where}" if where else "", "dim")
    if len(signs) > _SHOWN and not verbose:
        yield Text(f"  and {len(signs) - _SHOWN:,} more like these; --verbose shows them", "dim")
    yield from _told("why", first.why, width)
    yield from _told("mend", first.mend, width)
    yield Text(f"    {first.rule}, {first.certainty}", "dim")


def _told(label: str, text: str, width: int) -> Iterable[Text]:
    from rich.text import Text

    for number, line in enumerate(_wrapped(_plain(text), width - 10)):
        yield Text.assemble((f"    {'' if number else label:<6}", "dim"), line)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(20, width), break_on_hyphens=False)


def _allowed(sign: Sign, item: Allowance) -> Iterator[Text]:
    from rich.text import Text

    yield Text.assemble((f"{'allowed':<11}", "dim"), f"{_plain(item.name)} until {item.until}: {_plain(item.reason)}")
    yield Text(f"  {_plain(sign.what)}  {_plain(str(sign.place))}", "dim")


def _plain(text: str) -> str:
    """Text from a file, with nothing in it that a terminal would obey or that would turn its direction."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text)
