"""Casemate's own containers of arrays: evidence and calibrations; numbers and texts only."""

from __future__ import annotations

from collections.abc import Iterator

from casemate.errors import FormatError
from casemate.formats import arrays
from casemate.formats.scanning.desk import Damaged, Desk, Reader, begins
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    desk.meter.expand(source.size)  # its arrays are copied
    try:
        arrays.unpack(source.read())
    except FormatError as error:
        raise Damaged(str(error), 0) from error
    yield from ()


READERS = (Reader("casemate-arrays", begins(b"CMARRAY1"), _read, firsts=b"C"),)
