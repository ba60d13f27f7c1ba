"""The judge: hears what a pickle does while the symbolic machine runs, and makes signs of it."""

from __future__ import annotations

import _compat_pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from casemate.formats.scanning.desk import Desk
from casemate.formats.scanning.pickles.dangers import says_power
from casemate.formats.scanning.pickles.machine import LONGEST, Machine
from casemate.formats.scanning.pickles.rulings import Ruling, Use, ruling
from casemate.formats.scanning.pickles.shapes import LOOKED_INTO, MAY_BE_KEPT, fault_of, is_calm, looks_at
from casemate.formats.scanning.pickles.states import StateFault, faults_of_items, faults_of_state
from casemate.formats.scanning.pickles.values import DATA, NEVER_KEPT, Global, Held, Made, plain, told_apart
from casemate.formats.scanning.signs import Certainty, Level, Place, Sign, Used, beyond_chance
from casemate.formats.scanning.source import Source

__all__ = ["BOMB", "RawBytes", "Scribe", "ruling_of"]

BOMB: Final = 1e9
"""Objects that a copy, a comparison or a printout would meet; a pickle of that many holds gigabytes."""
_MEND: Final = {
    Level.MALICIOUS: "do not load it; tell whoever published it",
    Level.SUSPICIOUS: "review that code, then allow the name in a policy, or save the model in a safe format",
}
_CUT: Final = 80
_NAMES: Final = 50_000  # a model uses hundreds
_HARMLESS: Final[set[tuple[object, ...]]] = set()
"""Calls and states that were judged harmless, by all that this can depend on: dtypes are the same in all files."""
_REMEMBERED: Final = 4096
_STRINGS: Final = 10_000

RawBytes = Callable[[Made, Machine], int]
"""Given an object that got its state: how many raw bytes it reads from the stream behind it."""


@dataclass(slots=True)
class _Seen:
    level: Level
    rule: str
    what: str
    place: Place
    why: str
    certainty: Certainty
    subject: str = ""
    count: int = 1


@lru_cache(maxsize=1 << 14)  # as `ruling` has it
def ruling_of(module: str, name: str) -> Ruling:
    """The ruling of a name as a pickle spells it, by its Python 2 spelling too where only that is known."""
    found = ruling(module, name)
    if found.level is not Level.SUSPICIOUS:
        return found
    new = _spelled(module, name)
    return found if new == (module, name) else ruling(*new)


def _spelled(module: str, name: str) -> tuple[str, str]:
    """A name of Python 2 as Python 3 spells it."""
    new = _compat_pickle.NAME_MAPPING.get((module, name))
    return new or (_compat_pickle.IMPORT_MAPPING.get(module, module), name)


class Scribe:
    """The judge of all pickles in one source; `signs` are its findings, one for each name or fault, with counts.

    `raw` tells how many bytes an object reads from the stream (joblib); `persistent_ids` are the keys of the loader's
    own objects, in order, by the first part that is a text.
    """

    def __init__(self, source: Source, desk: Desk, raw: RawBytes | None = None) -> None:
        self._source, self._desk, self._raw = source, desk, raw
        self._seen: dict[tuple[object, ...], _Seen] = {}
        self._inner: list[Sign] = []
        self._codes: dict[int, tuple[str, str]] = {}
        self._member = "!/".join(source.path)
        self._done = 0
        self._calm: dict[Any, str] = {}  # classes by the opcode that made them harmlessly, whatever the arguments
        self._told: dict[tuple[str, str], bool] = {}
        self._heard: set[Global] = set()  # those that are told as called already
        self._looked: set[tuple[int, int, bool]] = set()
        self._long: list[tuple[int, int]] = []  # byte strings too long to be kept on the stack
        self.persistent_ids: dict[Any, Any] = {}

    def signs(self) -> Iterator[Sign]:
        """What was found so far, each thing once; the names that were used are written down."""
        used = self._desk.used
        for (module, name), called in self._told.items():
            if called and used:
                used.pop(Used(self._member, module, name), None)
            used[Used(self._member, module, name, called)] = None
        for seen in self._seen.values():
            times = "" if seen.count == 1 else f" ({seen.count:,} times)"
            yield Sign(
                seen.level, seen.rule, seen.what + times, seen.place, seen.why,
                _MEND.get(seen.level, ""), seen.certainty, seen.subject,
            )  # fmt: skip
        yield from self._inner

    # ---------------------------------------------------------------------------------------------- told by the machine

    def imported(self, what: Global) -> None:
        """A name is imported: known, dangerous or not known."""
        self._use(what, called=False)
        found = self._ruling(what)
        if found.use is Use.CALL and found.level is Level.CLEAN and (what.module, what.name) not in MAY_BE_KEPT:
            what.weight = NEVER_KEPT
        if found.level is Level.MALICIOUS:
            self._note(what, found.level, "pickle/dangerous-name", f"imports {_cut(what)}", why=f"it {found.why}")
        elif found.level is not Level.CLEAN:
            self._note(what, found.level, "pickle/unknown-name", f"imports {_cut(what)}", why=found.why)

    def called(self, what: Made) -> None:
        """Something is called: a known name in a harmless way, or not."""
        if what.weight != what.weight:  # a function is given to it, perhaps by way of tuples
            if any(type(arg) is Held and arg.weight != arg.weight for arg in what.args) or not looks_at(what.by):
                self.odd("kept-function", f"gives a function to {_cut(_text(what.by))}", what.at, what.opcode)
            what.weight = 1.0
        if self._calm.get(what.by) == what.opcode and what.args:
            return
        content = told_apart(what)
        if content is not None and content in _HARMLESS:
            if what.by not in self._heard:
                self._heard.add(what.by)
                self._use(what.by, called=True)
        elif self._judged(what) and content is not None:
            _remember(content)

    def _judged(self, what: Made) -> bool:
        """Judge a call; whether any other with the same name, opcode and arguments is as harmless."""
        by, given = _named(what.by), what
        if type(by) is not Global:
            why = "what a pickle made is called, so that no name says what runs"
            named = any(type(arg) is str and says_power(arg) for arg in what.values())
            level = Level.MALICIOUS if named else Level.SUSPICIOUS
            text = f"calls {_cut(_text(by))}" + (" with the name of what any function is reached from" if named else "")
            self._note(what, level, "pickle/called-object", text, why=why)
            return False
        self._use(by, called=True)
        if (by.module, by.name) in _REGISTERS:
            self._register(what)
        found = self._ruling(by)
        if found.level is not Level.CLEAN or found is _SCRIPT:
            return False  # told when it was imported
        if by is not what.by or ruling(by.module, by.name) is not found:  # the judge knows it by another spelling
            by = _present(by)
            what = Made(by, what.args, what.at, what.opcode)
        if found.use is Use.VALUE:
            why = "the tables know it as a value that models hold, not as something they call while loading"
            self._note(what, Level.SUSPICIOUS, "pickle/called-value", f"calls {_cut(by)}", why=why)
        fault = fault_of(what)
        if fault is None and what.args and is_calm(what):
            self._calm[what.by] = what.opcode
        if fault is not None:
            level, why = fault
            rule = "pickle/harmful-call" if level is Level.MALICIOUS else "pickle/odd-call"
            self._note(what, level, rule, f"{_cut(by)} {_cut(why, 160)}", why=_CALL_WHY[level], key=(str(by), why))
        if (by.module, by.name) in LOOKED_INTO:
            self._look_again(what)
            return False
        known_once = given is what and (by.module, by.name) not in _REGISTERS
        return fault is None and found.use is not Use.VALUE and known_once

    def built(self, target: Any, state: Any, machine: Machine) -> int:
        """State is set: on an object of a known class, with keys that mean nothing to Python."""
        at = machine.at - 1
        if type(state) in (Global, Held) and state.weight != state.weight:
            self.odd("kept-function", f"sets a function as a part of {_cut(_text(target))}", at, "BUILD")
            state.weight = 1.0
        if type(target) is not Made:
            why = "it changes what other code sees, not an object of the pickle's own"
            level = Level.MALICIOUS if type(target) is Global else Level.SUSPICIOUS
            self._add(level, "pickle/state-of-name", f"sets the state of {_cut(_text(target))}", (at, "BUILD"), why=why)
            return 0
        by = target.by
        if type(by) is Global and self._ruling(by).level is Level.CLEAN:
            self._built(target, state, at)
        if self._raw is None:
            return 0
        target.state = state
        return self._raw(target, machine)

    def _built(self, target: Made, state: Any, at: int) -> None:
        content = told_apart(target, state) if target.by.name == "dtype" and type(state) is Held else None
        if content is not None and content in _HARMLESS:
            return
        faults = list(faults_of_state(target, state))
        for fault in faults:
            self._fault(fault, at, "BUILD")
        if content is not None and not faults:
            _remember(content)

    def filled(self, target: Any, kind: str, at: int, opcode: str) -> None:
        """Parts are added to an object; harmless where its class is known as a list, dict or set."""
        if type(target) is Made and type(target.by) is Global:
            if self._ruling(target.by).level is Level.CLEAN:  # any other was told when the name was imported
                for fault in faults_of_items(target):
                    self._fault(fault, at, opcode)
            return
        level = Level.MALICIOUS if type(target) is Global else Level.SUSPICIOUS
        what = f"adds items to {_cut(_text(target))}, which is no {kind}"
        self._add(level, "pickle/items-of-name", what, (at, opcode), why="it changes what other code sees")

    def odd(self, rule: str, what: str, at: int, opcode: str) -> None:
        """The pickle does what no pickler writes."""
        why = _ALARMS.get(rule, "no pickler writes this; it is a way to hide what is imported or called")
        level = Level.MALICIOUS if rule in _ALARMS else Level.SUSPICIOUS
        self._add(level, f"pickle/{rule}", what, (at, opcode), why=why)

    def vast(self, what: str, at: int, opcode: str) -> None:
        """The pickle asks Python for more memory than any file needs."""
        self._add(Level.MALICIOUS, "pickle/memory", what, (at, opcode), why="Python sets gigabytes aside for it")

    def nested(self, at: int, size: int) -> None:
        """A byte string, which is looked at when it begins like a pickle, and again when it is given to a loader."""
        if self._source.data[at] == 0x80 and self._source.data[at + 1] <= 5:
            self._look_at(at, size, given=False)
        if size + 9 > LONGEST and len(self._long) < _STRINGS:
            self._long.append((at, size))

    def extension(self, code: int, at: int, opcode: str) -> Any:
        """A name by its number in copyreg's registry, which only the same stream can have filled for us to see."""
        known = self._codes.get(code)
        if known is None:
            self.odd(
                "extension-code",
                f"imports the name with extension code {code}, which this file does not say",
                at,
                opcode,
            )
            return DATA
        found = Global(*known, at, opcode)
        self.imported(found)
        return found

    def persistent(self, key: Any, at: int, opcode: str) -> Any:
        """The loader is asked for an object of its own: torch's storages, and in its old format classes with source."""
        parts = key.values() if type(key) is Held else []
        if len(parts) > 2 and type(parts[1]) is Global:
            if parts[0] == "module":
                return parts[1]
            if type(parts[2]) is str and len(self.persistent_ids) < 1 << 20:
                self.persistent_ids[parts[2]] = parts[1].name
        return None

    def tick(self) -> None:
        """Time passes; raises `LimitReached` when it is up."""
        self._desk.meter.tick()

    def weighed(self, machine: Machine) -> None:
        """A pickle was followed to its end, or as far as it goes."""
        if type(machine.value) in (Global, Held) and machine.value.weight != machine.value.weight:
            self.odd("kept-function", "is a function that should only be called", machine.start, "STOP")
        if machine.heaviest > BOMB:
            what = f"its containers hold each other {machine.heaviest:.0e} times over"
            why = "printing, comparing or copying it exhausts memory and time"
            self._add(Level.MALICIOUS, "pickle/expansion", what, (machine.start, ""), why=why)

    # ---------------------------------------------------------------------------------------------------------- helpers

    def _use(self, what: Global, *, called: bool) -> None:
        """Write a name down once, as called where it ever is."""
        key = (what.module, what.name)
        if key in self._told:
            self._told[key] |= called
        elif len(self._desk.used) + len(self._told) < _NAMES:
            self._told[key] = called

    def _ruling(self, what: Global) -> Ruling:
        if self._source.script and f"{what.module}.".startswith(("__torch__.", "torch.jit._pickle.")):
            return _SCRIPT
        return ruling_of(what.module, what.name)

    def _fault(self, fault: StateFault, at: int, opcode: str) -> None:
        self._add(fault.level, f"pickle/{fault.rule}", _cut(fault.what, 200), (at, opcode), why=fault.why)

    def _look_again(self, what: Made) -> None:
        """Bytes that are given to something which opens them are scanned whatever they begin with."""
        for value in what.values():
            if type(value) is Made and type(value.by) is Global and value.by.name == "encode" and value.args:
                value = plain(value.args[0])  # how protocol 2 writes bytes
            if type(value) is str:
                value = value.encode("latin-1", "replace")
            if type(value) is bytes:
                self._look(self._source.member(f"bytes given at {what.at}", value, inert=True))
            elif value is DATA and 0 < len(self._long) < _STRINGS:
                for at, size in self._long[self._done :]:
                    self._look_at(at, size)
                self._done = len(self._long)
            elif value is not None and type(value) is not int:
                what_for = f"gives {_cut(_text(what.by))} bytes that cannot be followed"
                loads = type(what.by) is Global and what.by.name == "_load_from_bytes"
                self.odd("loads-unseen" if loads else "unseen-bytes", what_for, what.at, what.opcode)

    def _look_at(self, at: int, size: int, *, given: bool = True) -> None:
        if (at, size, given) not in self._looked:
            self._looked.add((at, size, given))
            self._look(self._source.part(f"bytes at {at}", at, size, inert=True), given=given)

    def _look(self, source: Source, *, given: bool = True) -> None:
        found = self._desk.look(source)
        self._inner += found if given else beyond_chance(found)

    def _register(self, what: Made) -> None:
        module, name, code = (what.values() + [None] * 3)[:3]
        if type(module) is str and type(name) is str and type(code) is int:
            self._codes[code] = (module, name)

    def _note(self, what: Global | Made, level: Level, rule: str, text: str, *, why: str, key: Any = None) -> None:
        about = what.by if type(what) is Made else what
        key = key or (str(what) if type(what) is Global else None)
        subject = _cut(about, 400) if type(about) is Global else ""
        self._add(level, rule, text, (what.at, what.opcode), why=why, key=key, subject=subject)

    def _add(
        self,
        level: Level,
        rule: str,
        what: str,
        where: tuple[int, str],
        *,
        why: str,
        key: Any = None,
        subject: str = "",
    ) -> None:
        seen = self._seen.get((rule, key or what))
        if seen is not None:
            seen.count += 1
        elif len(self._seen) < 1000:
            place = self._source.place(*where)
            self._seen[rule, key or what] = _Seen(level, rule, what, place, why, Certainty.CERTAIN, subject)


_ALARMS: Final = {
    "kept-function": "picklers only call it; whatever calls it later can reach any function or load another pickle",
    "name-not-text": "the name is computed while the file is loaded, so that nobody can read what is imported",
    "loads-unseen": "what it loads is computed while the file is loaded, so that nobody can read it",
}
_CALL_WHY: Final = {
    Level.MALICIOUS: "no model needs this call, and it harms whoever loads the file",
    Level.SUSPICIOUS: "the name is known, but not called this way",
}
_REGISTERS: Final = {("copyreg", "add_extension"), ("copy_reg", "add_extension")}
_SCRIPT: Final = Ruling(Level.CLEAN, Use.CLASS, framework="torchscript")
"""Names that torch's reader in C++ takes from the archive itself; no Python module is asked."""


def _remember(content: tuple[object, ...]) -> None:
    if len(_HARMLESS) >= _REMEMBERED:
        _HARMLESS.clear()
    _HARMLESS.add(content)


def _named(by: Any) -> Any:
    """What is called, by its name: `getattr(class, "name")` is the dotted name that later protocols write."""
    if type(by) is Made and type(by.by) is Global and by.by.name == "getattr" and len(by.args) == 2:
        cls, name = by.values()
        dotted = Global(cls.module, f"{cls.name}.{name}", by.at, by.opcode) if type(cls) is Global else None
        if dotted is not None and ruling(dotted.module, dotted.name).use is Use.CALL:
            return dotted
    return by


def _present(by: Global) -> Global:
    """A name of Python 2 as the tables have it."""
    if ruling(by.module, by.name).level is Level.CLEAN:
        return by
    return Global(*_spelled(by.module, by.name), by.at, by.opcode)


def _text(value: Any) -> str:
    if type(value) is Made:
        return f"what {_text(value.by)} gave"
    return f"a {value.kind}" if type(value) is Held else str(value) if type(value) is Global else "a plain value"


def _cut(value: object, most: int = _CUT) -> str:
    text = ascii(str(value))[1:-1]
    return text if len(text) <= most else text[: most - 3] + "..."
