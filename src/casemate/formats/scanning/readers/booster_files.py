"""Models of XGBoost (UBJSON, the old binary form), LightGBM (text) and CatBoost: trees as numbers, which run nothing.

JSON of theirs is read as any JSON. What can hide is bytes behind the end, and counts that make the library set aside
memory or walk outside a tree.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

from casemate.formats.scanning.desk import Damaged, Desk, Reader, begins
from casemate.formats.scanning.readers._plain import decoded
from casemate.formats.scanning.readers._secrets import secrets_in
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, noted, shown
from casemate.formats.scanning.readers._ubjson import Lies, texts_of
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS", "tree_signs"]

_MEND = "save the model anew from where it was trained"


def _is_ubj(source: Source) -> bool:
    head = source.head
    if head[:1] != b"{" or len(head) < 3:
        return False
    if head[1:2] == b"L":
        return head[2:9] == b"\0" * 7 and source.size > 10
    return source.name.endswith(".ubj") and head[1:2] in (b"i", b"U", b"I", b"l", b"#", b"$")


def _read_ubj(source: Source, desk: Desk) -> Iterator[Sign]:
    end = 0
    try:
        for at, text in texts_of(source, desk):
            end = at
            if len(text) > 15:
                yield from secrets_in(source, text)
    except Lies as error:
        yield _lie(source, "xgboost/length", str(error), error.offset)
        raise Damaged(f"expected a length within the file, got a file that {error}", error.offset) from None
    yield from _behind(source, desk, end, "xgboost")


def _lie(source: Source, rule: str, what: str, at: int) -> Sign:
    why = "a reader that believes it sets that memory aside, or reads beyond what it has"
    return noted(source, MALICIOUS, rule, f"a file that {what}", why=why, mend=_MEND, at=at)


def _behind(source: Source, desk: Desk, end: int, library: str) -> Iterator[Sign]:
    if end < source.size and source.read(end, 65536).strip(b"\0\r\n\t ") + source.read(end + 65536, 1):
        what = f"{source.size - end} bytes behind the end of the model"
        why = "the library does not read them: they are there for somebody else"
        yield noted(source, SUSPICIOUS, f"{library}/trailing", what, why=why, mend=_MEND, at=end)
        yield from desk.look(source.part(f"after {end}", end))


# ------------------------------------------------------------------------------------------------ XGBoost's binary form

_LEARNER, _GBTREE, _GBLINEAR, _TREE, _NODE = 136, 160, 136, 148, 36


class _Bytes:
    """Reads the old form, in which nothing tells what comes next but what came before."""

    def __init__(self, source: Source) -> None:
        self.source, self.at = source, 0

    def skip(self, n: int) -> int:
        """Pass over `n` bytes; where they begin."""
        if n > self.source.size - self.at:
            raise Damaged(f"expected {n} bytes of an XGBoost model, got {self.source.size - self.at}", self.at)
        at, self.at = self.at, self.at + n
        return at

    def number(self, form: str) -> int:
        """One number."""
        size = struct.calcsize(form)
        found: int = struct.unpack(form, self.source.read(self.skip(size), size))[0]
        return found

    def text(self) -> str:
        """A text with its length before it."""
        length = self.number("<Q")
        return self.source.read(self.skip(length), length).decode("utf-8", "replace")


def _read_binary(source: Source, desk: Desk) -> Iterator[Sign]:
    cursor = _Bytes(source)
    cursor.skip(4)
    start = cursor.skip(_LEARNER)
    extras, metrics = struct.unpack("<ii", source.read(start + 12, 8))
    objective, booster = cursor.text(), cursor.text()
    if booster in ("gbtree", "dart"):
        _trees(cursor, desk)
        if booster == "dart" and cursor.number("<Q"):
            cursor.at -= 8
            cursor.skip(4 * cursor.number("<Q"))
    elif booster == "gblinear":
        cursor.skip(_GBLINEAR)
        cursor.skip(4 * cursor.number("<Q"))
    else:
        raise Damaged(f"expected the booster gbtree, dart or gblinear, got {shown(booster)}", cursor.at)
    if extras:
        for _ in range(cursor.number("<Q")):
            desk.meter.tick()
            key, value = cursor.text(), cursor.text()
            yield from secrets_in(source, value, shown(key))
    if objective == "count:poisson" and cursor.at < source.size and not extras:
        cursor.text()
    if metrics:
        for _ in range(cursor.number("<Q")):
            desk.meter.tick()
            cursor.text()
    yield from _behind(source, desk, cursor.at, "xgboost")


def _trees(cursor: _Bytes, desk: Desk) -> None:
    start = cursor.skip(_GBTREE)
    (count,) = struct.unpack("<i", cursor.source.read(start, 4))
    if not 0 <= count <= cursor.source.size // _TREE:
        raise Damaged(f"expected at most {cursor.source.size // _TREE} trees, got {count}", start)
    for _ in range(count):
        desk.meter.tick()
        at = cursor.skip(_TREE)
        _, nodes, _, _, _, leaf = struct.unpack("<6i", cursor.source.read(at, 24))
        if nodes < 0:
            raise Damaged(f"expected a tree with nodes, got {nodes}", at)
        cursor.skip(_NODE * nodes)
        if leaf > 1:
            cursor.skip(4 * cursor.number("<Q"))
    cursor.skip(4 * count)


def tree_signs(source: Source, document: Any, desk: Desk) -> Iterator[Sign]:
    """Signs of the trees of a model of XGBoost's in JSON that was parsed; none for any other JSON."""
    for number, tree in enumerate(_listed(document, "learner", "gradient_booster", "model", "trees")):
        desk.meter.tick()
        for name in ("left_children", "right_children"):
            children = tree.get(name) if isinstance(tree, dict) else None
            if not isinstance(children, list) or all(
                type(child) is int and -1 <= child < len(children) for child in children
            ):
                continue
            why = "the library follows the numbers outside the tree, and reads memory that is not its own"
            what = f"the tree {number} with {name} outside the tree"
            yield noted(source, SUSPICIOUS, "xgboost/tree", what, why=why, mend=_MEND, at=0)


def _listed(value: Any, *keys: str) -> list[Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, list) else []


# ------------------------------------------------------------------------------------------------------------- LightGBM

_COUNT = re.compile(r"^(num_leaves|num_cat|max_feature_idx|num_class|num_tree_per_iteration)=(.*)$", re.MULTILINE)


def _read_lightgbm(source: Source, desk: Desk) -> Iterator[Sign]:
    text = decoded(source, desk)
    yield from secrets_in(source, text)
    for found in _COUNT.finditer(text):
        digits = found[2].strip()
        if not re.fullmatch(r"-?\d{1,18}", digits):
            raise Damaged(f"expected a number for {found[1]}, got {shown(digits)}", found.start())
        if int(digits) > len(text):  # each leaf and feature takes some characters
            yield _lie(source, "lightgbm/count", f"claims {found[1]} = {digits}", found.start())
    for at, block in _blocks(text):
        desk.meter.tick()
        fault = _tree_fault(block)
        if fault:
            why = "the library follows the numbers outside the tree, and reads or writes memory that is not its own"
            yield noted(source, SUSPICIOUS, "lightgbm/tree", fault, why=why, mend=_MEND, at=at)


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    at = text.find("\nTree=")
    while at >= 0:
        end = text.find("\n\n", at + 1)
        following = text.find("\nTree=", at + 1)
        stop = min(item for item in (end, following, len(text)) if item >= 0)
        yield at + 1, text[at + 1 : stop]
        at = following


def _tree_fault(block: str) -> str:
    """What is wrong with the numbers of one tree; empty for nothing."""
    told = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
    try:
        leaves = int(told.get("num_leaves", "1"))
        for name in ("left_child", "right_child"):
            children = [int(item) for item in told.get(name, "").split()]
            if leaves > 1 and len(children) != leaves - 1:
                return f"Tree={shown(told.get('Tree', '?'))} with {len(children)} entries of {name} for {leaves} leaves"
            if any(not -leaves <= child < leaves - 1 for child in children):
                return f"Tree={shown(told.get('Tree', '?'))} with a {name} outside the tree"
    except ValueError:
        return f"Tree={shown(told.get('Tree', '?'))} with children that are no numbers"
    return ""


# ------------------------------------------------------------------------------------------------------------- CatBoost


def _read_catboost(source: Source, desk: Desk) -> Iterator[Sign]:
    head = source.read(4, 4)
    length = int.from_bytes(head, "little")
    if len(head) < 4 or length > source.size - 8:
        raise Damaged(f"expected a core of at most {max(0, source.size - 8)} bytes, got {length}", 4)
    if length > desk.limits.text:
        raise Damaged(f"expected a core of at most {desk.limits.text} bytes, got {length}", 4)
    core = source.read(8, length)
    if b"FlabuffersModel_v1" not in core[:4096] and b"FlabuffersModel_v1" not in core:
        raise Damaged("expected the format FlabuffersModel_v1 of CatBoost", 8)
    yield from secrets_in(source, core.decode("latin-1"))
    if source.size > 8 + length:  # tables of categories and texts, as numbers
        parts = any(
            name in core
            for name in (b"static_ctr_provider", b"TextProcessingCollection", b"EmbeddingProcessingCollection")
        )
        if parts:
            yield from desk.look(source.part("parts", 8 + length, inert=True))
        else:
            yield from _behind(source, desk, 8 + length, "catboost")


READERS = (
    Reader("xgboost-ubj", _is_ubj, _read_ubj, firsts=b"{"),
    Reader("xgboost-binary", begins(b"binf"), _read_binary, firsts=b"b"),
    Reader("lightgbm", begins(b"tree\nversion=", b"tree\r\nversion="), _read_lightgbm, firsts=b"t"),
    Reader("catboost", begins(b"CBM1"), _read_catboost, firsts=b"C"),
)
