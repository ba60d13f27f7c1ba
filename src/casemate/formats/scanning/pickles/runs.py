"""Runs of plain values, followed many opcodes at a time.

Most of a large pickle is numbers, short texts, references to the memo, and lists, dicts and tuples of these. A regular
expression finds how far such a run goes, a second one cuts it into values. Whatever is not as CPython's pickler writes
it (gaps in the memo, long texts, byte strings) is left to the opcodes one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from casemate.formats.scanning.pickles.batches import NUMBER, sized
from casemate.formats.scanning.pickles.values import KINDS, Held, thawed

if TYPE_CHECKING:
    from casemate.formats.scanning.pickles.machine import Machine

__all__ = ["run_of_values"]

_LEAST: Final = 1 << 15  # bytes: in smaller pickles compiling and trying costs more than it saves
_MOST: Final = 1 << 15  # values in one run, so that the clock is looked at
_SHORT: Final = 64  # bytes: longer texts go the slow way
_NUMBERS: Final = frozenset(b"KMJGN\x88\x89\x8a")
_FIRST: Final = _NUMBERS | frozenset(b"\x8cXhj]}\x8feu\x90")
_EMPTY: Final = (b"]\x94", b"]\x94(", b"}\x94", b"}\x94(", b"\x8f\x94", b"\x8f\x94(")
_OPENING: Final = frozenset(b"]}\x8f")


@dataclass(frozen=True, slots=True)
class _Forms:
    """The expressions: a run of numbers and one number, a run of anything and one step of it.

    `marked`: what is remembered is followed by MEMOIZE (protocol 4), not by its index.
    """

    numbers: re.Pattern[bytes]
    number: re.Pattern[bytes]
    run: re.Pattern[bytes]
    step: re.Pattern[bytes]
    marked: bool


def run_of_values(m: Machine) -> None:
    """Follow the run that begins where the machine is, if one does."""
    at = m.at
    if m.end < _LEAST or at >= m.end or m.data[at] not in _FIRST:
        return
    forms = _forms(m.proto >= 4)
    if m.data[at] in _NUMBERS:
        found = forms.numbers.match(m.data, at)
        if found:
            m.stack += forms.number.findall(m.data, at, found.end())
            at = m.at = found.end()
            m.breathe()
    found = forms.run.match(m.data, at) if m.memo.plain else None
    if found:
        steps = forms.step.findall(m.data, at, found.end())
        done = _followed(m, steps, marked=forms.marked)
        m.crowd += sum(map(steps.count, _EMPTY))
        m.at = found.end() if done == len(steps) else at + sum(map(len, steps[:done]))
        m.breathe()


def _followed(m: Machine, steps: list[bytes], *, marked: bool) -> int:
    """Follow the steps of a run; how many of them are as CPython's pickler writes them."""
    stack, near, marks, count = m.stack, m.memo.near, m.marks, -1
    push, remember, opening = stack.append, near.append, _OPENING if marked else frozenset()
    for count, step in enumerate(steps):
        code = step[0]
        if code in _NUMBERS:
            push(step)
        elif code == 0x68:  # BINGET
            if step[1] >= len(near):
                return count
            push(thawed(near, step[1]))
        elif code == 0x8C:  # SHORT_BINUNICODE with MEMOIZE
            remember(step)
            push(step)
        elif code in opening:
            made = Held(KINDS[code])
            remember(made)
            push(made)
            if step[-1] == 0x28:
                marks.append(len(stack))
        elif not _OTHERS[code](m, step, marked):
            return count
    return count + 1


def _long_get(m: Machine, step: bytes, marked: bool) -> bool:
    index = int.from_bytes(step[1:], "little")
    if index >= len(m.memo.near):
        return False
    m.stack.append(thawed(m.memo.near, index))
    return True


def _old_text(m: Machine, step: bytes, marked: bool) -> bool:
    if not _follows(m, step, 5 + step[1]):
        return False
    m.memo.near.append(step)
    m.stack.append(step)
    return True


def _frame(m: Machine, step: bytes, marked: bool) -> bool:
    return True


def _old_opening(m: Machine, step: bytes, marked: bool) -> bool:
    if not _follows(m, step, 1):
        return False
    made = Held(KINDS[step[0]])
    m.memo.near.append(made)
    m.stack.append(made)
    if len(step) in (4, 7):  # with BINPUT or LONG_BINPUT, and MARK
        m.marks.append(len(m.stack))
    return True


def _closes(kind: str) -> _Other:
    def follow(m: Machine, step: bytes, marked: bool) -> bool:
        stack, marks = m.stack, m.marks
        mark = marks[-1] if marks else 0
        target = stack[mark - 1] if mark > (marks[-2] if len(marks) > 1 else 0) else None
        if type(target) is not Held or target.kind != kind:
            return False
        marks.pop()
        items = stack[mark:]
        del stack[mark:]
        target.add(items)
        m.weigh(target)
        return True

    return follow


def _tuple(m: Machine, step: bytes, marked: bool) -> bool:
    size = step[0] - 0x84
    stack = m.stack
    if len(stack) - size < (m.marks[-1] if m.marks else 0) or not (marked or _follows(m, step, 1)):
        return False
    m.paired = True
    made = m.hold("tuple", stack[-size:])
    del stack[-size:]
    stack.append(made)
    m.memo.near.append(made)
    return True


def _follows(m: Machine, step: bytes, at: int) -> bool:
    """Whether the BINPUT or LONG_BINPUT at `at` is for the next free index."""
    index = step[at + 1] if step[at] == 0x71 else int.from_bytes(step[at + 1 : at + 5], "little")
    return index == len(m.memo.near)


_Other = Callable[["Machine", bytes, bool], bool]
_OTHERS: Final[dict[int, _Other]] = {
    ord("j"): _long_get, ord("X"): _old_text, 0x85: _tuple, 0x86: _tuple, 0x87: _tuple,
    ord("]"): _old_opening, ord("}"): _old_opening, 0x8F: _old_opening, 0x95: _frame,
    ord("e"): _closes("list"), ord("u"): _closes("dict"), 0x90: _closes("set"),
}  # fmt: skip


@cache
def _forms(marked: bool) -> _Forms:
    number = NUMBER % sized(range(1, 9))
    kept = rb"\x94" if marked else rb"(?:q.|r.{4})"
    text = rb"\x8c(?:" + sized(range(_SHORT)) if marked else rb"X(?:" + sized(range(_SHORT), b"\0\0\0")
    text += rb")" + kept
    made = rb"[\]\x8f]" + kept + rb"\(?+|}" + kept + rb"|[\x85-\x87]" + kept  # a dict's mark may begin a batch
    step = rb"(?:" + rb"|".join([rb"h.", number, text, rb"j.{4}", made, rb"[eu\x90]", rb"\x95.{8}"]) + rb")"
    numbers = rb"(?:" + number + rb"){8,%d}+" % _MOST
    run = step + rb"{3,%d}+" % _MOST
    return _Forms(
        numbers=re.compile(numbers, re.DOTALL), number=re.compile(number, re.DOTALL),
        run=re.compile(run, re.DOTALL), step=re.compile(step, re.DOTALL), marked=marked,
    )  # fmt: skip
