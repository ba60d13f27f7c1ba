"""What the tests of the readers share: a desk with a spy that keeps what was handed on, and the corpus."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from casemate.formats.scanning.desk import Desk, Reader
from casemate.formats.scanning.limits import LimitReached, Limits
from casemate.formats.scanning.signs import Level, Sign, worst
from casemate.formats.scanning.source import Source

CORPUS = Path(__file__).resolve().parents[4] / "shared" / "data" / "artifacts" / "corpus.tar.gz"
PICKLE = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."


@dataclass(frozen=True)
class Looked:
    """The signs of one look, and the bytes that no reader under test took, by their place."""

    signs: tuple[Sign, ...]
    handed: dict[str, bytes]
    formats: tuple[str, ...]

    @property
    def rules(self) -> set[str]:
        return {sign.rule for sign in self.signs}

    @property
    def level(self) -> Level:
        return worst(sign.level for sign in self.signs)

    def at(self, rule: str) -> int | None:
        return next(sign.place.offset for sign in self.signs if sign.rule == rule)


def looked(data: bytes, *readers: Sequence[Reader], name: str = "m.bin", limits: Limits | None = None) -> Looked:
    handed: dict[str, bytes] = {}

    def keep(source: Source, desk: Desk):
        place = "!/".join(source.path)
        while place in handed:  # two members of one name
            place += "+"
        handed[place] = source.read()
        yield from ()

    spy = Reader("spy", lambda source: True, keep, last=True, rank=1000)
    desk = Desk((*(reader for group in readers for reader in group), spy), limits or Limits(), len(data))
    signs = []
    try:
        signs += desk.look(Source(name, data))
    except LimitReached as error:
        signs.append(Sign(Level.MALICIOUS, error.rule, str(error), Source(name, data).place(), "", ""))
    return Looked(tuple(signs), handed, tuple(desk.formats))


def held(data: bytes, *readers: Sequence[Reader]) -> None:
    """Any bytes give signs, in time, and no reader fails in a way it did not foresee."""
    found = looked(data, *readers)
    assert "scan/reader-failed" not in found.rules, [sign.what for sign in found.signs]


@cache
def corpus(path: str) -> bytes:
    """A file of the corpus, which is only ever read."""
    if not CORPUS.exists():
        pytest.skip("the corpus is not beside this checkout")
    with tarfile.open(CORPUS) as archive:
        found = next(item for item in archive.getmembers() if item.name.removeprefix("./").endswith(path))
        file = archive.extractfile(found)
        assert file is not None
        return file.read()
