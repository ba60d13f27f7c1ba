"""The desk: gives bytes to every reader that recognises them, and keeps what they cost and what they found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from casemate.formats.scanning.limits import LimitReached, Limits, Meter
from casemate.formats.scanning.signs import Level, Place, Sign, Used
from casemate.formats.scanning.source import Source
from casemate.formats.scanning.weights import Stored, Weighed, weigh

__all__ = ["Damaged", "Desk", "Reader", "Readers", "begins", "firsts_of"]


class Damaged(Exception):  # an inner signal: the desk turns it into a sign
    """What a reader raises when it can read no further: what was expected, what was got, at which byte."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        self.offset = offset
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Reader:
    """One format: `claims` looks at the content (quickly; must not raise), `read` yields signs as it goes.

    All readers that claim the same bytes read them (a file can be two things at once); those that are `last` are asked
    only where none of the others claims, in order of `rank`, and one of them reads. `firsts`: the first bytes of all
    that `claims` can claim, so that it need not be asked of others; `None` for any, and for none at all.
    """

    name: str
    claims: Callable[[Source], bool]
    read: Callable[[Source, Desk], Iterator[Sign]]
    last: bool = False
    rank: int = 0
    firsts: bytes | None = None


class Readers(tuple[Reader, ...]):
    """Readers in the order in which they are asked, and which of them to ask by a source's first byte."""

    @cached_property
    def by_first(self) -> tuple[tuple[tuple[Reader, ...], tuple[Reader, ...]], ...]:
        """For each first byte, and at index 256 for a source of none: those that may claim it, those asked last."""
        rows = []
        for first in range(257):
            asked = [item for item in self if item.firsts is None or (first < 256 and first in item.firsts)]
            rows.append((tuple(i for i in asked if not i.last), tuple(i for i in asked if i.last)))
        return tuple(rows)


class Desk:
    """One file's scan: `look` dispatches, the rest is what readers write down.

    `formats`: names of the readers that read something; `used`: names imported or called; `members`: parts with their
    sizes in bytes. With `weights` tensors are read: `weighed` are their figures, `stored` torch's storages, `asked` the
    keys and types of storages that each pickle asks for, `unweighed` places of tensors whose type is not known.
    """

    def __init__(self, readers: Sequence[Reader], limits: Limits, size: int, *, weights: bool = False) -> None:
        self._readers = (readers if isinstance(readers, Readers) else Readers(readers)).by_first
        self.limits = limits
        self.meter = Meter(limits, size)
        self.formats: dict[str, None] = {}
        self.used: dict[Used, None] = {}
        self.members: list[tuple[str, int]] = []
        self.weights = weights
        self.weighed: list[Weighed] = []
        self.stored: list[Stored] = []
        self.asked: dict[tuple[str, ...], dict[str, str]] = {}
        self.unweighed: list[Place] = []

    def look(self, source: Source) -> Iterator[Sign]:
        """Signs of a source by all its readers, and of everything inside it.

        Raises `LimitReached` when the file has used up its limits; what was yielded before stays true.
        """
        self.meter.tick()
        if source.path:
            self.meter.enter()
            self.members.append(("!/".join(source.path), source.size))
        if source.depth > self.limits.depth:
            raise LimitReached("limits/depth", f"nests containers more than {self.limits.depth} deep")
        readers = self._who(source)
        if not readers and source.size and not source.inert:
            yield Sign(
                Level.UNKNOWN, "format/unknown", f"no known format (begins with {source.head[:8].hex(' ')})",
                source.place(0), "what cannot be read cannot be judged", "convert it to a format that can be read",
            )  # fmt: skip
        for reader in readers:
            for sign in self._run(reader, source):
                if not source.inert or sign.level in (Level.MALICIOUS, Level.SUSPICIOUS):
                    yield sign

    def tensor(
        self, source: Source, at: int, size: int, kind: str, *, name: str, shape: tuple[int, ...] | None = None
    ) -> None:
        """Weigh the tensor in `size` bytes from `at`, where weights are checked.

        `kind` is the type of its numbers as the format has it. Raises `LimitReached` when the time is up.
        """
        if self.weights and size > 0:
            part = source.part(name, at, size, inert=True)
            self.weighed.append(weigh(part, name, kind, shape, self.meter))

    def storage(self, source: Source) -> None:
        """Weigh a tensor of a torch zip, whose type the pickle beside it tells: that of `X/0` is in `X.pkl`."""
        if self.weights:
            folder, _, key = source.path[-1].rpartition("/")
            pickle = (*source.path[:-1], f"{folder}.pkl")
            self.stored.append(Stored(pickle, key, source.place(0), source.size))
            kind = self.asked.get(pickle, {}).get(key, "")
            if source.size:
                self.weighed.append(weigh(source, source.path[-1], kind, None, self.meter))
            if not kind and pickle not in self.asked:
                self.unweighed.append(source.place(0))

    def _who(self, source: Source) -> list[Reader]:
        first, last = self._readers[source.head[0] if source.head else 256]
        claiming = []
        for reader in first:  # as `_claims` does, without a call for each of twenty readers
            try:
                if reader.claims(source):
                    claiming.append(reader)
            except LimitReached:
                raise
            except Exception:  # one that breaks while it looks has to read it, and break there again
                claiming.append(reader)
        if claiming or source.inert or not source.size:
            return claiming
        return [reader for reader in last if _claims(reader, source)][:1]

    def _run(self, reader: Reader, source: Source) -> Iterator[Sign]:
        self.formats[reader.name] = None
        try:
            yield from reader.read(source, self)
        except LimitReached:
            raise
        except Damaged as error:
            yield _unreadable(f"{reader.name}/damaged", str(error), source, error.offset)
        except Exception as error:  # a reader that fails on hostile bytes must not end the scan, nor pass them
            text = (str(error).splitlines() or [""])[0][:160]
            yield _unreadable("scan/reader-failed", f"{reader.name}: {type(error).__name__}: {text}", source, None)


def begins(*magics: bytes) -> Callable[[Source], bool]:
    """A `claims` for formats that are known by their first bytes."""
    return lambda source: source.head.startswith(magics)


def firsts_of(*magics: bytes) -> bytes:
    """The first bytes of some magics, as `firsts` of a reader."""
    return bytes(sorted({magic[0] for magic in magics}))


def _claims(reader: Reader, source: Source) -> bool:
    """Whether a reader claims a source; one that breaks while it looks has to read it, and break there again."""
    try:
        return reader.claims(source)
    except LimitReached:
        raise
    except Exception:
        return True


def _unreadable(rule: str, what: str, source: Source, offset: int | None) -> Sign:
    return Sign(
        Level.UNREADABLE, rule, what, source.place(offset),
        "what could not be read to its end could not be judged", "get the file again from where it was made",
    )  # fmt: skip
