"""JSON: settings of models, indexes of their parts, tokenizers, notebooks, boosters' trees; and lines of it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers._configs import setting_signs
from casemate.formats.scanning.readers._few import few
from casemate.formats.scanning.readers._json import parsed_json
from casemate.formats.scanning.readers._plain import decoded, starts
from casemate.formats.scanning.readers._secrets import secrets_in
from casemate.formats.scanning.readers._signs import MALICIOUS, noted
from casemate.formats.scanning.readers.booster_files import tree_signs
from casemate.formats.scanning.readers.notebooks import is_notebook, notebook_signs
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_ENDS = (".json", ".jsonl", ".ipynb", ".webmanifest", ".geojson")
_BEGIN = re.compile(r'\{\s*(?:"|\}\s*$)|\[\s*(?:[\[{]\s*)*(?:"|-?\d|true\b|false\b|null\b|\]|\})')
_FIRSTS = b"{[ \t\r\n\xef\xff\xfe"  # after blanks or a mark of byte order
_DEEPEST = 500


def _claims(source: Source) -> bool:
    if source.inert or not source.head or source.head[0] not in _FIRSTS:
        return False
    begin = starts(source)
    return bool(_BEGIN.match(begin)) or (source.name.endswith(_ENDS) and begin[:1] in ("{", "["))


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    text = decoded(source, desk)
    yield from secrets_in(source, text)
    try:
        for document in _documents(text, desk):
            if is_notebook(document):
                yield from notebook_signs(source, document, desk)
            yield from few(setting_signs(source, document, desk))
            yield from few(tree_signs(source, document, desk))
    except Damaged as error:
        if "levels" in str(error):
            yield noted(
                source, MALICIOUS, "json/depth", str(error), why="parsers that recurse run out of stack",
                mend="do not load it", at=error.offset,
            )  # fmt: skip
        if source.name.endswith(_ENDS) or "levels" in str(error):
            raise
        # any other text may begin with a bracket


def _documents(text: str, desk: Desk) -> Iterator[Any]:
    """What a text says, or each of its lines where each is JSON of its own; only one of them is held at a time."""
    try:
        whole = parsed_json(text, deepest=_DEEPEST)
    except Damaged as error:
        if "Extra data" not in str(error) or "\n" not in text.strip():
            raise
    else:
        yield whole
        return
    for line in io.StringIO(text):
        desk.meter.tick()
        if line.strip():
            yield parsed_json(line, deepest=_DEEPEST)


READERS = (Reader("json", _claims, _read, firsts=_FIRSTS),)
