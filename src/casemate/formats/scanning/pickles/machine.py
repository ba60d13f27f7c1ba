"""The symbolic pickle machine: its stack, marks and memo, and who is told what a pickle does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from casemate.formats.scanning.desk import Damaged
from casemate.formats.scanning.limits import LimitReached
from casemate.formats.scanning.pickles.values import DATA, Global, Held, Made, means, plain, thawed, weight_of

__all__ = ["GAP", "LONGEST", "NAMES", "RUNS_FROM", "STEPS", "Judge", "Machine", "Memo", "Step"]

LONGEST = 1 << 16
"""Bytes: longer texts are no names, longer numbers no codes; they stay unread."""
DEEPEST = 1 << 24
"""Values that may lie on the stack: CPython's pickler leaves a thousand, a tuple of a million leaves a million."""
TALL = 1 << 20
"""Values on the stack, from which on plain ones are not kept."""
MOST = 9 << 18
"""Containers that may be made one by one; calls count too, what is remembered a third, names `RARE` times."""
RARE = 32
"""A name is imported once and then remembered: no model imports a hundred thousand."""
STEPPED = 10 << 20
"""Opcodes that are followed one by one; what CPython's pickler writes in bulk is followed in runs and batches."""
CROWDED = 1 << 17
"""Containers, from which on lists and dicts of plain values only are remembered without their parts."""
RUNS_FROM = 1 << 15
"""Bytes: in smaller pickles following plain values in runs would cost more than it saves."""
_EVERY = 1 << 16  # opcodes between two looks at the clock
_BINGET, _MARK, _MEMOIZE, _STOP, _TEXT, _TUPLE, _TUPLE0, _TUPLE3 = 0x68, 0x28, 0x94, 0x2E, 0x8C, 0x74, 0x84, 0x87
_WIDTHS = [0] * 256
"""Bytes of plain values of fixed size, with their opcode."""
for _code, _width in (("N", 1), ("\x88", 1), ("\x89", 1), ("K", 2), ("M", 3), ("J", 5), ("G", 9)):
    _WIDTHS[ord(_code)] = _width


class Judge(Protocol):
    """Who is told what a pickle does, in order, while the machine runs."""

    def imported(self, what: Global) -> None:
        """A name is imported."""

    def called(self, what: Made) -> None:
        """Something is called."""

    def built(self, target: Any, state: Any, machine: Machine) -> int:
        """State is set; returns how many raw bytes follow in the stream, which the object would read (joblib)."""

    def filled(self, target: Any, kind: str, at: int, opcode: str) -> None:
        """Parts are added to what is no plain `kind` (list, dict, set)."""

    def odd(self, rule: str, what: str, at: int, opcode: str) -> None:
        """The pickle does what no pickler writes."""

    def vast(self, what: str, at: int, opcode: str) -> None:
        """The pickle asks Python for gigabytes."""

    def nested(self, at: int, size: int) -> None:
        """A byte string of some length."""

    def extension(self, code: int, at: int, opcode: str) -> Any:
        """A name of copyreg's registry is imported by its number."""

    def persistent(self, key: Any, at: int, opcode: str) -> Any:
        """The loader is asked for an object by a key of its own; returns what it gives, None for some plain value."""

    def tick(self) -> None:
        """Time passes; may raise."""


Step = Callable[["Machine"], object]
STEPS: list[Step | None] = [None] * 256
"""What each opcode does, by its byte; filled by `opcodes`."""
NAMES = [""] * 256
"""What each opcode is called."""
GAP = object()
"""Stands in the memo for an index that holds nothing."""
_GAPS = 64


class Memo:
    """What was remembered, by index: `near` is a list from 0, `far` holds the indices that lie far behind its end."""

    __slots__ = ("far", "gaps", "near")

    def __init__(self) -> None:
        self.near: list[Any] = []
        self.far: dict[int, Any] = {}
        self.gaps = 0

    @property
    def plain(self) -> bool:
        """Whether the next free index is the length of `near`."""
        return not self.gaps and not self.far

    @property
    def size(self) -> int:
        """How many things are remembered."""
        return len(self.near) - self.gaps + len(self.far)

    def get(self, index: int) -> Any:
        """What lies there, `GAP` where nothing does."""
        return thawed(self.near, index) if index < len(self.near) else self.far.get(index, GAP)

    def put(self, index: int, value: Any) -> None:
        """Remember `value` there."""
        near = self.near
        if index < len(near):
            self.gaps -= near[index] is GAP
            near[index] = value
        elif index - len(near) > _GAPS:
            self.far[index] = value
        else:
            self.gaps += index - len(near)
            near += [GAP] * (index - len(near))
            near.append(value)
            while self.far and len(near) in self.far:
                near.append(self.far.pop(len(near)))

    def append(self, value: Any) -> None:
        """Remember `value` at the index that is the number of things remembered."""
        if self.gaps or self.far:
            self.put(self.size, value)
        else:
            self.near.append(value)


class Machine:
    """One pickle, from byte `at` of `data`; `run` goes to its STOP.

    `at` is then the byte after STOP; `value` what the pickle would give; `calls` and `imports` how often it called
    and imported something; `crowd` how many containers it made; `heaviest` the weight of the heaviest; `paired`: it has
    tuples of one to three.
    """

    __slots__ = (
        "at", "calls", "code", "crowd", "data", "end", "heaviest", "imports", "judge", "marks", "memo", "paired",
        "proto", "stack", "start", "steps", "value",
    )  # fmt: skip

    def __init__(self, data: bytes | memoryview, judge: Judge, at: int = 0) -> None:
        self.data, self.judge, self.start, self.at = data, judge, at, at
        self.end = len(data)
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo = Memo()
        self.calls = self.imports = self.code = self.crowd = self.proto = self.steps = 0
        self.heaviest = 0.0
        self.paired = False
        self.value: Any = None

    def run(self) -> None:
        """Follow the opcodes.

        Raises `Damaged` where CPython would raise an error of its own, and `LimitReached`; the judge has been told of
        all before.
        """
        if type(self.data) is bytes and self.end < RUNS_FROM and not self.memo.near:
            self._begin()
        data, end, count, steps = self.data, self.end, 0, STEPS
        while True:
            at = self.at
            if at >= end:
                raise Damaged("expected a pickle that ends with STOP, got the end of the data", at)
            code = self.code = data[at]
            self.at = at + 1
            if code == _STOP:
                self.value = plain(self.pop())
                return
            step = steps[code]
            if step is None:
                raise Damaged(f"expected a pickle opcode, got byte {code:#04x}", at)
            step(self)
            count += 1
            if count == _EVERY:
                count = 0
                self.steps += _EVERY
                self.breathe()

    def _begin(self) -> None:  # noqa: C901 - a call for each plain opcode would take as long as all that is judged
        """Follow a short pickle up to its STOP, or to where something is odd; `run` goes on from there.

        What most of a pickle is (plain values, marks, tuples, what is remembered and taken from the memo) is followed
        here at once; names, calls and all else by `STEPS`.
        """
        data, end, stack, marks, memo, steps, widths = (
            self.data, self.end, self.stack, self.marks, self.memo, STEPS, _WIDTHS,
        )  # fmt: skip
        push, near, remember, at = stack.append, memo.near, memo.near.append, self.at
        floor = marks[-1] if marks else 0
        while not (memo.gaps or memo.far):
            try:
                while True:
                    code = data[at]
                    if code == _TEXT:
                        after = at + 2 + data[at + 1]
                        if data[after] == _MEMOIZE:
                            token = data[at:after]
                            push(token)
                            remember(token)
                            at = after + 1
                        else:
                            push(data[at:after])
                            at = after
                    elif widths[code]:
                        after = at + widths[code]
                        if after >= end:
                            break
                        push(data[at:after])
                        at = after
                    elif code == _MEMOIZE and len(stack) > floor:
                        remember(stack[-1])
                        at += 1
                    elif code == _BINGET:
                        push(near[data[at + 1]])
                        at += 2
                    elif code == _MARK:
                        floor = len(stack)
                        marks.append(floor)
                        at += 1
                    elif _TUPLE0 < code <= _TUPLE3 or (code == _TUPLE and marks):
                        low = marks.pop() if code == _TUPLE else len(stack) - code + _TUPLE0
                        if low < floor:
                            break
                        made = Held("tuple", stack[low:])
                        stack[low:] = (made,)
                        if code == _TUPLE:
                            floor = marks[-1] if marks else 0
                        self.crowd += 1
                        at += 1
                        if not made.weight <= self.heaviest:
                            self.code, self.at = code, at
                            self.weigh(made)
                        if data[at] == _MEMOIZE:
                            remember(made)
                            at += 1
                    else:
                        break
            except IndexError:  # it ends here, or takes what is not there
                break
            self.code, self.at = code, at + 1
            step = steps[code]
            if step is None:  # STOP too
                break
            step(self)
            at = self.at
            floor = marks[-1] if marks else 0
        self.at = at

    def breathe(self) -> None:
        """Look at the clock and at what has piled up; raises `LimitReached` for too much."""
        self.judge.tick()
        stack, memo = self.stack, self.memo
        if len(stack) > TALL:  # slices cost 50 bytes each
            stack[-_EVERY:] = [DATA if type(item) is bytes else item for item in stack[-_EVERY:]]
        if len(stack) + 4 * len(self.marks) > DEEPEST:
            raise LimitReached("limits/stack", f"piles up more than {DEEPEST:,} values")
        if self.steps > STEPPED:
            raise LimitReached("limits/objects", f"takes more than {STEPPED:,} steps one by one")
        if self.crowd + self.calls + RARE * self.imports + memo.size // 3 + len(memo.far) > MOST:
            raise LimitReached("limits/objects", f"makes more than {MOST:,} objects")

    # ------------------------------------------------------------------------------------------- reading and the stack

    @property
    def opcode(self) -> str:
        """The name of the opcode that is being followed."""
        return NAMES[self.code]

    def take(self, n: int) -> int:
        """Move over `n` bytes of an argument; returns where they begin. Raises `Damaged` where there are fewer."""
        at = self.at
        if n < 0 or n > self.end - at:
            raise Damaged(f"expected {n} bytes for {self.opcode}, got {self.end - at}", at)
        self.at = at + n
        return at

    def number(self, n: int) -> int:
        """An unsigned little-endian argument of `n` bytes."""
        at = self.take(n)
        return int.from_bytes(self.data[at : at + n], "little")

    def line(self) -> bytes:
        """An argument up to a newline, or to the end of the data."""
        start, piece = self.at, 48
        while True:
            chunk = bytes(self.data[self.at : self.at + piece])
            found = chunk.find(b"\n")
            if found >= 0:
                self.at += found + 1
                return bytes(self.data[start : self.at - 1])
            if len(chunk) < piece:  # CPython's unpickler in Python takes what is there, without its last byte
                self.at = self.end
                return bytes(self.data[start : max(start, self.end - 1)])
            self.at += piece
            piece = min(2 * piece, 1 << 20)

    def keep(self, start: int, n: int) -> None:
        """Push the bytes from the opcode at `start` to `n` bytes further on; `DATA` where they are too many."""
        self.take(n)
        self.stack.append(bytes(self.data[start : self.at]) if n <= LONGEST else DATA)

    def pop(self) -> Any:
        """The top of the stack, not below the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Damaged(f"expected a value on the stack for {self.opcode}, got none", self.at - 1)
        return self.stack.pop()

    def pops(self, n: int) -> list[Any]:
        """The upper `n` values of the stack, not below the last mark, the lowest first."""
        stack, marks = self.stack, self.marks
        if len(stack) - n < (marks[-1] if marks else 0):
            raise Damaged(f"expected a value on the stack for {self.opcode}, got none", self.at - 1)
        items = stack[-n:]
        del stack[-n:]
        return items

    def top(self) -> Any:
        """The top of the stack, left there."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Damaged(f"expected a value on the stack for {self.opcode}, got none", self.at - 1)
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        """All values above the last mark, taken off together with it."""
        if not self.marks:
            raise Damaged(f"expected a mark for {self.opcode}, got none", self.at - 1)
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def hold(self, kind: str, items: list[Any] | None = None) -> Held:
        """A new container; one of plain values only is not kept where there are very many."""
        made = Held(kind, items)
        self.crowd += 1
        if items and (self.crowd > CROWDED or not made.weight <= self.heaviest):  # which may be no number
            self.weigh(made)
        return made

    def weigh(self, held: Held) -> None:
        """Note how heavy a container has become, and drop parts that no longer pay."""
        if held.weight > self.heaviest:
            self.heaviest = held.weight
        elif held.weight != held.weight and held.kind not in ("tuple", "frozenset"):  # those go on to who takes them
            self.judge.odd("kept-function", f"keeps a function in a {held.kind}", self.at - 1, self.opcode)
            held.weight = 1.0
        if self.crowd > CROWDED and held.kind != "tuple" and _of_no_use(held):
            held.items = []
            held.cut |= 1

    # ------------------------------------------------------------------------------------------------- names and calls

    def find(self, module: Any, name: Any, at: int) -> None:
        """Push a name."""
        if type(module) is not str or type(name) is not str:
            self.judge.odd("name-not-text", "imports a name that is no plain text", at, self.opcode)
            module, name = (part if type(part) is str else "?" for part in (module, name))
        found = Global(module, name, at, NAMES[self.code])
        self.imports += 1
        self.judge.imported(found)
        self.stack.append(found)

    def call(self, function: Any, args: Any) -> None:
        """Push what a call gives; `args` is a tuple, or what the pickle wrongly put in its place."""
        if type(args) is Held and args.kind == "tuple" and not args.cut:
            given = args.items
        else:
            what = "calls with arguments that are no plain tuple" + (", or a huge one" if type(args) is Held else "")
            self.judge.odd("arguments", what, self.at - 1, self.opcode)
            given = [DATA]
        made = Made(function, given, self.at - 1, NAMES[self.code])
        if made.weight > self.heaviest:
            self.heaviest = made.weight
        self.calls += 1
        self.judge.called(made)
        self.stack.append(made)

    def held(self, wanted: str, at: int, items: list[Any]) -> Held | None:
        """The container on top that items are added to; the judge hears of anything else."""
        target = self.top()
        if type(target) is Held and target.kind == wanted:
            return target
        if math.isnan(weight_of(items)):
            self.judge.odd("kept-function", "keeps a function in an object", at, self.opcode)
        self.judge.filled(target, wanted, at, self.opcode)
        return None


def _of_no_use(held: Held) -> bool:
    """Whether nobody has to look at its parts: plain values, and no key that means something."""
    try:
        return not means(b"".join(held.items))
    except TypeError:
        return False
