"""How the readers of containers word what they found."""

from __future__ import annotations

from casemate.formats.scanning.signs import Level, Sign
from casemate.formats.scanning.source import Source

__all__ = ["MALICIOUS", "SUSPICIOUS", "UNKNOWN", "UNREADABLE", "noted", "shown"]

MALICIOUS, SUSPICIOUS = Level.MALICIOUS, Level.SUSPICIOUS
UNREADABLE, UNKNOWN = Level.UNREADABLE, Level.UNKNOWN
_LONGEST = 100  # characters of a hostile name that are worth a line


def shown(text: str | bytes) -> str:
    """A name as one printable line, cut."""
    whole = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    plain = whole[:_LONGEST].encode("unicode_escape").decode("ascii")
    return plain[:_LONGEST] + ("..." if len(whole) > _LONGEST or len(plain) > _LONGEST else "")


def noted(source: Source, level: Level, rule: str, what: str, *, why: str, mend: str, at: int | None = None) -> Sign:
    """A sign at byte `at` of a source."""
    return Sign(level, rule, what, source.place(at), why, mend)
