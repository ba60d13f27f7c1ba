"""TensorFlow: SavedModel, MetaGraph, frozen graphs, Keras' metadata beside them, checkpoints.

A graph is a program: its operations can read and write files and call Python. Functions in its library are part of it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers import keras
from casemate.formats.scanning.readers._few import few
from casemate.formats.scanning.readers._paths import leaves_folder
from casemate.formats.scanning.readers._protobuf import BYTES, VARINT, Field, Outline, Peek, fields_of, peek_of, text_at
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, noted, shown
from casemate.formats.scanning.readers._tensorflow_graph import Graph, graph_signs
from casemate.formats.scanning.readers._tensorflow_index import index_signs, is_index
from casemate.formats.scanning.readers._tensorflow_rules import SAVERS, rule_of
from casemate.formats.scanning.signs import Level, Sign, Used
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_NAME: Final = re.compile(r"[\w.][\w>./\\-]*")
_MEND: Final = "export the model again, with all its files inside its folder"
_STATE: Final = re.compile(
    rb"(?:\s|#[^\n]*\n)*(?:all_)?(?:model_checkpoint_|last_preserved_timestamp)(?:paths?|timestamps?)?\s*:"
)
_PATH: Final = re.compile(
    r"""model_checkpoint_paths?\s*(?::\s*)?(?:\[\s*)?((?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[\s,])+)"""
)
_QUOTED: Final = re.compile(r""""((?:[^"\\\n]|\\.)*)"|'((?:[^'\\\n]|\\.)*)'""")
_TEXT: Final = re.compile(
    rb"(?:\s|#[^\n]*\n)*(?:(?:meta_graphs|meta_info_def|graph_def|node|library|versions)\s*(?::\s*)?[{<]|"
    rb"saved_model_schema_version\s*:)"
)
_TEXT_OP: Final = re.compile(r"""\bop\s*:((?:\s|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')+)""")
_TOKEN: Final = re.compile(r""""(?:[^"\\\n]|\\.)*+"?|'(?:[^'\\\n]|\\.)*+'?|#[^\n]*""")  # texts, and comments
_TEXT_FUNCTION: Final = re.compile(r'\bsignature\s*(?::\s*)?\{\s*name\s*:\s*"([^"\\]+)"')
_VALUE: Final = re.compile(r"""\bstring_val\s*:\s*((?:\s|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')+)""")
_USED: Final = 10_000
_BLANKS: Final = b" \t\n\r\f\v#"
_SHARD: Final = re.compile(r".*\.data-\d{5}-of-\d{5}")

Span = tuple[int, int]


@dataclass(slots=True)
class _Meta:
    """A MetaGraph's parts that judge each other."""

    graph: Graph
    saver: set[str] = field(default_factory=set)
    assets: set[str] = field(default_factory=set)


def _kind(source: Source) -> str:
    """What a file is by the structure of its messages; empty for none of TensorFlow's."""
    if source.inert or not source.size:
        return ""
    peek = peek_of(source)
    told = peek.said.get("tensorflow")
    return peek.decided("tensorflow", _told(peek)) if told is None else told


def _told(peek: Peek) -> str:
    top = peek.outline(0, peek.size)
    if not top:
        return ""
    if any(_is_meta(peek, peek.outline(item.start, item.end)) for item in peek.only(top, 2)):
        return "saved model"
    if _is_meta(peek, top):
        return "meta graph"
    if _is_graph(peek, top):
        return "graph"
    if any(_is_keras(peek, item) for item in peek.some(top, 1)):
        return "keras metadata"
    hashes = {(number, VARINT) for number in range(1, 6)}
    return "fingerprint" if hashes <= set(top) <= hashes | {(6, BYTES), (7, BYTES)} else ""


def _is_meta(peek: Peek, top: Outline) -> bool:
    """A MetaGraphDef: with a graph, or with an info that has a version of TensorFlow or tags."""
    graphs = peek.only(top, 2) if top and (1, VARINT) not in top else []
    return any(_is_graph(peek, peek.outline(item.start, item.end)) for item in graphs)


def _is_graph(peek: Peek, top: Outline) -> bool:
    """A GraphDef: with a node that has a name and an operation, or a library of such."""
    return any(_is_node(peek, item) for item in peek.some(top, 1)) or any(
        _is_library(peek, item) for item in peek.only(top, 2)
    )


def _is_node(peek: Peek, place: Field) -> bool:
    top = peek.outline(place.start, place.end)
    names = top.get((1, BYTES))
    return _named(peek.data, top.get((2, BYTES))) and (not names or _named(peek.data, names))


def _is_library(peek: Peek, place: Field) -> bool:
    for item in peek.some(peek.outline(place.start, place.end), 1):
        if any(_is_node(peek, node) for node in peek.some(peek.outline(item.start, item.end), 3)):
            return True
    return False


def _is_keras(peek: Peek, place: Field) -> bool:
    top = peek.outline(place.start, place.end)
    found = top.get((4, BYTES))
    return (2, VARINT) in top and found is not None and text_at(peek.data, found[0]).startswith("_tf_keras")


def _named(data: bytes | memoryview, found: list[Field] | None) -> bool:
    return bool(found) and all(_NAME.fullmatch(text_at(data, item)) for item in (found or ())[:4])


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    kind, data = _kind(source), source.data
    if kind == "saved model":
        for found in fields_of(data, 0, source.size, desk.meter):
            if (found.number, found.wire) == (2, BYTES):
                yield from _meta(source, desk, (found.start, found.end))
    elif kind == "meta graph":
        yield from _meta(source, desk, (0, source.size))
    elif kind == "graph":
        graph = Graph(source, desk)
        graph.add((0, source.size))
        yield from graph_signs(graph, frozenset(), frozenset())
    elif kind == "keras metadata":
        for found in fields_of(data, 0, source.size, desk.meter):
            if (found.number, found.wire) == (1, BYTES):
                yield from _described(source, desk, (found.start, found.end), 5)
    else:
        for _ in fields_of(data, 0, source.size, desk.meter):
            pass


def _meta(source: Source, desk: Desk, span: Span) -> Iterator[Sign]:
    """Signs of a MetaGraphDef."""
    data, meta = source.data, _Meta(Graph(source, desk))
    for found in fields_of(data, *span, desk.meter):
        if found.wire != BYTES:
            continue
        inside = (found.start, found.end)
        if found.number == 2:
            meta.graph.add(inside)
        elif found.number == 3:
            names = fields_of(data, *inside, desk.meter)
            meta.saver |= {text_at(data, item) for item in names if item.wire == BYTES and item.number in (1, 2, 3)}
        elif found.number == 6:
            yield from _asset(source, desk, meta, found)
        elif found.number == 7:
            yield from _objects(source, desk, inside)
    yield from graph_signs(meta.graph, frozenset(meta.saver), frozenset(meta.assets))


def _asset(source: Source, desk: Desk, meta: _Meta, place: Field) -> Iterator[Sign]:
    data = source.data
    for found in fields_of(data, place.start, place.end, desk.meter):
        if (found.number, found.wire) == (1, BYTES):
            inner = fields_of(data, found.start, found.end, desk.meter)
            names = [text_at(data, item) for item in inner if (item.number, item.wire) == (1, BYTES)]
            meta.assets.update(name.split(":", 1)[0] for name in names)
        elif (found.number, found.wire) == (2, BYTES):
            path = text_at(data, found)
            if reason := leaves_folder(path):
                what = f"the asset {shown(path)}, which {reason}"
                why = "loading the model reads that file of the machine"
                yield noted(source, MALICIOUS, "tensorflow/asset", what, why=why, mend=_MEND, at=place.at)


def _objects(source: Source, desk: Desk, span: Span) -> Iterator[Sign]:
    """The object graph: what Keras wrote about its layers (TensorFlow 2.0 to 2.4)."""
    data = source.data
    for node in fields_of(data, *span, desk.meter):
        if (node.number, node.wire) == (1, BYTES):
            for kind in fields_of(data, node.start, node.end, desk.meter):
                if (kind.number, kind.wire) == (4, BYTES):
                    yield from _described(source, desk, (kind.start, kind.end), 3)


def _described(source: Source, desk: Desk, span: Span, number: int) -> Iterator[Sign]:
    """A Keras object's metadata, in the field `number` of it."""
    data = source.data
    for found in fields_of(data, *span, desk.meter):
        if (found.number, found.wire) == (number, BYTES):
            part = source.part(f"metadata at {found.at}", found.start, found.end - found.start)
            if keras.looks_like_config(part.data):
                desk.formats["keras-config"] = None
                yield from keras.config_signs(part, desk)


def _read_state(source: Source, desk: Desk) -> Iterator[Sign]:
    """A checkpoint state file: which checkpoint of its folder is the newest."""
    if source.size > desk.limits.text:
        raise Damaged(f"expected a checkpoint state, got {source.size} bytes")
    text = re.sub(r"(?m)^[ \t]*#.*$", "", source.read().decode("utf-8", "backslashreplace"))
    at = max(0, source.read().find(b"path"))
    for found in _PATH.finditer(text):
        desk.meter.tick()
        path = _quoted(found[1])
        if reason := leaves_folder(path):
            what = f"a checkpoint at {shown(path)}, which {reason}"
            why = "restoring the newest checkpoint reads files outside the folder"
            yield noted(source, SUSPICIOUS, "tensorflow/checkpoint-path", what, why=why, mend=_MEND, at=at)


def _read_text(source: Source, desk: Desk) -> Iterator[Sign]:
    """A graph in protobuf's text format, by the operations that it names."""
    if source.size > desk.limits.text:
        raise Damaged(f"expected a graph as text, got {source.size} bytes")
    text = source.read().decode("utf-8", "backslashreplace")
    text = _without_comments(text, desk)
    functions = set(_TEXT_FUNCTION.findall(text))
    told = set() if _leads_out(text, desk) else set(SAVERS)
    for found in _TEXT_OP.finditer(text):
        desk.meter.tick()
        op = _quoted(found[1])
        level, why = rule_of(op)
        if op not in functions and len(desk.used) < _USED:
            desk.used[Used("!/".join(source.path), "tensorflow", op[:200], called=True)] = None
        if op in told or level is Level.CLEAN or (level is not MALICIOUS and op in functions):
            continue
        told.add(op)
        what = f"the operation {shown(op)}"
        yield noted(
            source, level, "tensorflow/operation", what, why=why, mend=_MEND, at=len(text[: found.start()].encode())
        )


def _leads_out(text: str, desk: Desk) -> bool:
    """Whether any value is a path that leaves the folder."""
    for part in _VALUE.finditer(text):
        for found in _QUOTED.finditer(text, part.start(1), part.end(1)):
            desk.meter.tick()
            if leaves_folder(_unescaped(found[1] or found[2] or "")):
                return True
    return False


def _without_comments(text: str, desk: Desk) -> str:
    """A text with blanks for its comments, so that places stay."""
    count = itertools.count(1)

    def blank(found: re.Match[str]) -> str:
        if next(count) % 4096 == 0:
            desk.meter.tick()
        return " " * len(found[0]) if found[0][0] == "#" else found[0]

    return _TOKEN.sub(blank, text) if "#" in text else text


def _quoted(text: str) -> str:
    """What quoted texts after each other say, the first thousand of them."""
    return _unescaped("".join(found[1] or found[2] or "" for found in itertools.islice(_QUOTED.finditer(text), 1000)))


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        return text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError:
        return text


def _read_shard(source: Source, desk: Desk) -> Iterator[Sign]:
    """The values of a checkpoint, which have no format of their own: its index says what they are."""
    desk.meter.tick()
    yield from ()


READERS = (
    Reader("tensorflow", lambda source: bool(_kind(source)), _read),
    Reader(
        "tensorflow-text",
        lambda source: _TEXT.match(source.head) is not None,
        lambda source, desk: few(_read_text(source, desk)),
        firsts=_BLANKS + b"mgnlvs",
    ),
    Reader(
        "tensorflow-state",
        lambda source: _STATE.match(source.head) is not None,
        lambda source, desk: few(_read_state(source, desk)),
        firsts=_BLANKS + b"aml",
    ),
    Reader("tensorflow-index", is_index, index_signs),
    Reader(
        "tensorflow-shard", lambda source: _SHARD.fullmatch(source.name) is not None, _read_shard, last=True, rank=50
    ),
)
