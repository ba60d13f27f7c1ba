"""Any other text: notes, tables, lists of packages, recipes of containers. No loader runs it; credentials are told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers._plain import decoded, is_text
from casemate.formats.scanning.readers._python_calls import COMMAND
from casemate.formats.scanning.readers._requirements import requirement_signs
from casemate.formats.scanning.readers._secrets import secrets_in
from casemate.formats.scanning.readers._signs import SUSPICIOUS, UNREADABLE, noted, shown
from casemate.formats.scanning.readers.yaml_files import yaml_signs
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_LISTS = re.compile(r"(?:.*[-_.])?(?:requirements?|constraints?)(?:[-_.].*)?\.(?:txt|in)")
_RUN = re.compile(r"(?:.*\.)?(?:dockerfile|containerfile|makefile)(?:\..*)?|.*\.(?:sh|bash|zsh|bat|cmd|ps1|mk)")
_POINTER = "version https://git-lfs.github.com/spec/"


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    text = decoded(source, desk)
    desk.meter.tick()
    yield from secrets_in(source, text)
    if "!!python/" in text and not source.name.endswith((".md", ".rst")):
        with suppress(Damaged):  # most such texts are no YAML
            yield from yaml_signs(source, text, desk)
    if text.startswith(_POINTER):
        why = "what will be loaded is elsewhere"
        yield noted(
            source, UNREADABLE, "text/pointer", "a pointer of Git LFS instead of the file", why=why,
            mend="fetch the file with git lfs pull, then scan it", at=0,
        )  # fmt: skip
    if _LISTS.fullmatch(source.name[-200:]):
        yield from requirement_signs(source, text)
    if _RUN.fullmatch(source.name[-200:]) and (found := COMMAND.search(text)):
        why = "whoever runs this file runs what somebody else chose"
        what = f"the command {shown(found[0])}"
        yield noted(
            source, SUSPICIOUS, "text/command", what, why=why, mend="read it before you run it", at=found.start()
        )


READERS = (Reader("text", is_text, _read, last=True, rank=100),)
