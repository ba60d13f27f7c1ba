"""Whole batches of plain values, followed in a few calls however long they are.

CPython's pickler writes the parts of a list, dict or set a thousand at a time: MARK, the parts, APPENDS. Where all of
them are plain values, or small containers of these, regular expressions say how long it is, what it remembers and what
it takes from the memo. Nothing else of it can matter, since it holds no byte string, no name and no call. Not followed
this way: short batches, texts that Python gives or a class a meaning (`__class__`), memo references to containers.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from casemate.formats.scanning.pickles.values import KINDS, Held, means

if TYPE_CHECKING:
    from casemate.formats.scanning.pickles.machine import Machine

__all__ = ["NUMBER", "batch_of_values", "sized"]

_LEAST: Final = 1024  # bytes
_WORTH: Final = 1 << 15  # bytes that follow: compiling the expressions takes as long as following that many opcodes
_CLOSES: Final = {"list": 0x65, "dict": 0x75, "set": 0x90}
_SHORT: Final = 128  # bytes: batches with longer texts go the slow way, which costs little for each of their bytes


@dataclass(frozen=True, slots=True)
class _Forms:
    """The expressions: a batch without its mark; what it remembers; what it takes."""

    batch: re.Pattern[bytes]
    kept: re.Pattern[bytes]
    taken: re.Pattern[bytes]


def batch_of_values(m: Machine) -> bool:
    """Follow the batch whose mark has just been read; False, and nothing done, where it is no plain long one."""
    at, memo, stack = m.at, m.memo, m.stack
    if m.end - at < _WORTH or not memo.plain or not stack or len(stack) <= (m.marks[-1] if m.marks else 0):
        return False
    target, marked = stack[-1], m.proto >= 4
    if type(target) is not Held or target.kind not in _CLOSES or not (marked or len(memo.near) > 255):
        return False
    forms = _forms(marked, m.paired)
    found = forms.batch.match(m.data, at)
    if not found or found.end() - at < _LEAST:
        return False
    end = found.end()
    text = bytes(m.data[at:end])
    kept = forms.kept.findall(text)
    del kept[-2:]  # the end, found twice
    if text[-1] != _CLOSES[target.kind] or means(text) or not _sound(m, kept, set(forms.taken.findall(text)), marked):
        return False
    memo.near += kept
    target.weight += len(text) // 4 + len(kept)  # about as many values; only orders of magnitude matter
    target.cut |= 1
    m.weigh(target)
    m.at = end
    m.breathe()
    return True


def _sound(m: Machine, kept: list[bytes], taken: set[bytes], marked: bool) -> bool:
    """Whether what is kept goes to the next free indices, and what is taken are plain values, no containers."""
    near, taken = m.memo.near, taken - {b""}
    if b"" in kept:
        return False
    if not marked:
        indices = array("I", b"".join([item[-4:] for item in kept]))
        if indices != array("I", range(len(near), len(near) + len(kept))):
            return False
    for token in taken:
        index = int.from_bytes(token[1:], "little")
        old = near[index] if index < len(near) else kept[index - len(near)] if index < len(near) + len(kept) else None
        if type(old) is not bytes or old[0] in KINDS or means(old):
            return False
    return True


NUMBER: Final = rb"K.|M..|J.{4}|G.{8}|N|\x88|\x89|\x8a(?:%s)"


def sized(sizes: range, after: bytes = b"") -> bytes:
    """Alternatives: a byte that says how many bytes follow, `after`, and these bytes."""
    return b"|".join(re.escape(bytes([n])) + after + b".{%d}" % n for n in sizes)


@cache
def _forms(marked: bool, paired: bool) -> _Forms:
    number = NUMBER % sized(range(1, 9))
    kept = rb"\x94" if marked else rb"r.{4}"
    text = rb"(?:\x8c(?:" + sized(range(_SHORT)) if marked else rb"(?:X(?:" + sized(range(_SHORT), b"\0\0\0")
    text += rb")" + kept + rb")"
    one = rb"(?:h.|j.{4}|" + number + rb"|" + text + rb"|\x95.{8})"
    pair = one + rb"(?:\x85" + kept + rb"|" + one + rb"(?:\x86" + kept + rb"|" + one + rb"\x87" + kept + rb"))?+"
    plain = pair + rb"|\(" + one + rb"{0,1000}+t" + kept if paired else one
    part = plain
    for _ in range(2):  # containers in containers
        part = (
            plain + rb"|[\]}\x8f]" + kept
            + rb"(?:\((?:" + part + rb"){0,1000}+[eu\x90]|(?:" + part + rb")a|" + one + rb"(?:" + part + rb")s)?+"
        )  # fmt: skip
    idle = rb"(?:h.|j.{4}|" + number + rb"|[(euas\x90]|\x95.{8})*+"
    still = (
        rb"(?:" + number + rb"|" + text + rb"|[(euas\x90]|\x95.{8}|[\]}\x8f\x85-\x87]" + kept + rb"|t" + kept + rb")*+"
    )
    return _Forms(
        re.compile(rb"(?:" + part + rb"){1,5000}+[eu\x90]", re.DOTALL),
        re.compile(idle + rb"(" + text + rb"|[\]}\x8f\x85-\x87]" + kept + rb"|t" + kept + rb"|\Z)", re.DOTALL),
        re.compile(still + rb"(h.|j.{4}|\Z)", re.DOTALL),
    )
