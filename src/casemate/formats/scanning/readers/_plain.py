"""Texts: whether bytes are one, and what it says, in the encodings that loaders of models accept."""

from __future__ import annotations

import codecs
import re

from casemate.formats.scanning.desk import Damaged, Desk
from casemate.formats.scanning.source import Source

__all__ = ["decoded", "is_text", "line_starts", "offset_of", "starts", "words"]

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_CONTROLS = re.compile(r"[\x00-\x06\x0e-\x1a\x1c-\x1f]")
_CONTROL_BYTES = bytes(range(7)) + bytes(range(0x0E, 0x1B)) + bytes(range(0x1C, 0x20))
_INK = re.compile(rb"[^ \t\r\n\f\v]")
_LINE = re.compile("\n")
_ASCII = bytes(range(0x80))


def is_text(source: Source) -> bool:
    """Whether its first bytes are text; quick, never raises."""
    head = source.head
    if any(head.startswith(mark) for mark, _ in _MARKS):
        return True
    if not head or len(head.translate(None, _CONTROL_BYTES)) != len(head):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return len(head.translate(None, _ASCII)) * 5 <= len(head)  # an 8-bit encoding of a European language
    return True


def decoded(source: Source, desk: Desk) -> str:
    """All of it as text.

    Raises `Damaged` where it is too long to be parsed or is not text to its end.
    """
    if source.size > desk.limits.text:
        raise Damaged(f"expected a text of at most {desk.limits.text} bytes, got {source.size}", 0)
    data = source.read()
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8" or len(data.translate(None, _ASCII)) * 5 > len(data):
            raise Damaged(f"expected text in {encoding}, got other bytes", error.start) from None
        text = data.decode("latin-1")
    if found := _CONTROLS.search(text):
        raise Damaged(f"expected text, got the control character {ord(found[0]):#04x}", found.start())
    return text


def starts(source: Source) -> str:
    """The first characters, without byte order mark and leading blanks, for `claims`; empty where that is no text."""
    if not is_text(source):
        return ""
    encoding = next((name for mark, name in _MARKS if source.head.startswith(mark)), "utf-8")
    begin = source.head.decode(encoding, "replace").lstrip()
    if not begin and (found := _INK.search(source.data, len(source.head))):  # thousands of blanks hide nothing
        begin = source.read(found.start(), len(source.head)).decode("utf-8", "replace")
    return begin


def line_starts(text: str) -> list[int]:
    """The character at which each line begins, for many uses."""
    return [0, *(found.end() for found in _LINE.finditer(text))]


def offset_of(text: str, line: int) -> int:
    """The character at which a line begins; lines count from 1."""
    at = 0
    for _ in range(line - 1):
        found = text.find("\n", at)
        if found < 0:
            break
        at = found + 1
    return at


def words(text: str) -> frozenset[str]:
    """The names in a list that is written as text."""
    return frozenset(text.split())
