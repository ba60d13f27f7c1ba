"""SentencePiece: the vocabulary of a tokenizer (`tokenizer.model`, `spiece.model`) as a protobuf message; mere data.

Its reader is C++ that looks texts up; only the frame of the message is read here. Source: sentencepiece_model.proto.
"""

from __future__ import annotations

from collections.abc import Iterator

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers._protobuf import BYTES, fields_of
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_PIECE, _TRAINED, _LAST = 1, 2, 5
_SCORE = 0x15  # a float in field 2 of a piece
_LONGEST = 4096  # bytes of a piece, with its score and type


def _claims(source: Source) -> bool:
    """Whether it begins with a text and its score, and with one more of the same kind."""
    head = source.head
    if source.inert or len(head) < 8 or head[0] != 0x0A or head[1] > 127 or head[2] != 0x0A:
        return False
    text, after = head[4 : 4 + head[3]], 2 + head[1]
    scored = head[4 + head[3] : 5 + head[3]] == bytes((_SCORE,)) and 2 + head[3] < head[1]
    try:
        return scored and bool(text.decode("utf-8")) and head[after : after + 1] == b"\x0a"
    except UnicodeDecodeError:
        return False


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    data, trained = source.data, False
    for field in fields_of(data, 0, source.size, desk.meter):
        if field.wire != BYTES or field.number > _LAST:
            raise Damaged(f"expected a part of a SentencePiece model, got field {field.number}", field.at)
        if field.number == _PIECE and (field.end - field.start > _LONGEST or data[field.start] != 0x0A):
            raise Damaged("expected a piece of text with its score", field.start)
        trained = trained or field.number == _TRAINED
    if not trained:
        raise Damaged("expected how the SentencePiece model was trained, got the end of the file", source.size)
    yield from ()


READERS = (Reader("sentencepiece", _claims, _read, firsts=b"\n"),)
