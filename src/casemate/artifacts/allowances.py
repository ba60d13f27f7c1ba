"""Names that their owner allows in model files, each for a reason and until a day."""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casemate.errors import ConfigError
from casemate.formats.scanning.signs import Level, Scanned, Sign

__all__ = ["Allowance", "allow", "expired", "read_allowances"]

_KEYS = ("name", "until", "reason")


@dataclass(frozen=True, slots=True)
class Allowance:
    """`name` (`module.name`, exactly) is allowed until the end of a day, for a reason."""

    name: str
    until: dt.date
    reason: str


def read_allowances(path: Path) -> tuple[Allowance, ...]:
    """The `[[allow]]` tables of a TOML file.

    Raises `ConfigError` for a file that is no such thing: unknown or missing keys, a name twice, an empty reason.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"expected a scan policy in TOML, got {error}: mend {path}") from error
    tables = given.get("allow", [])
    if set(given) - {"allow"} or not isinstance(tables, list):
        raise ConfigError(f"expected [[allow]] tables alone in {path.name}, got {', '.join(sorted(given))}: mend it")
    found = tuple(_allowance(table, path) for table in tables)
    names = [item.name for item in found]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"expected each name once in {path.name}, got {twice} twice: keep one")
    return found


def allow(
    scanned: Scanned, allowances: Sequence[Allowance], today: dt.date
) -> tuple[tuple[Sign, ...], tuple[tuple[Sign, Allowance], ...]]:
    """The signs that stand, and those that are allowed with what allows them.

    Only suspicious signs can be allowed: what is known to be harmful stays so, whoever vouches for it. An allowance
    that has expired allows nothing.
    """
    valid = {item.name: item for item in allowances if today <= item.until}
    standing: list[Sign] = []
    allowed: list[tuple[Sign, Allowance]] = []
    for sign in scanned.signs:
        item = valid.get(sign.subject) if sign.level is Level.SUSPICIOUS else None
        if item is None:
            standing.append(sign)
        else:
            allowed.append((sign, item))
    return tuple(standing), tuple(allowed)


def expired(allowances: Sequence[Allowance], files: Iterable[Scanned], today: dt.date) -> tuple[Allowance, ...]:
    """Those that would allow a sign that stands, had their day not passed."""
    asked = {sign.subject for scanned in files for sign in scanned.signs if sign.level is Level.SUSPICIOUS}
    return tuple(item for item in allowances if item.until < today and item.name in asked)


def _allowance(table: Any, path: Path) -> Allowance:
    if not isinstance(table, dict) or set(table) != set(_KEYS):
        got = ", ".join(map(str, table)) if isinstance(table, dict) else type(table).__name__
        raise ConfigError(f"expected name, until and reason in each [[allow]] of {path.name}, got {got}: mend it")
    name, until, reason = (table[key] for key in _KEYS)
    if not isinstance(until, dt.date) or isinstance(until, dt.datetime):
        raise ConfigError(f"expected a day as until = 2027-03-31 in {path.name}, got {until!r}: mend it")
    if isinstance(name, str) and "*" in name:
        raise ConfigError(f"expected exact names in {path.name}, got the pattern {name!r}: name each one")
    if not isinstance(name, str) or "." not in name or not isinstance(reason, str) or not reason.strip():
        raise ConfigError(
            f'expected name = "module.name" and a reason in {path.name}, got {name!r} and {reason!r}: mend it'
        )
    return Allowance(name, until, reason.strip())
