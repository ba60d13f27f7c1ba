"""TensorFlow's graphs: every node of the main graph and of each function, ruled by what its operation does.

Field numbers from TensorFlow's `graph.proto`, `node_def.proto`, `attr_value.proto`, `function.proto`, `tensor.proto`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from casemate.formats.scanning.desk import Damaged, Desk
from casemate.formats.scanning.limits import LimitReached
from casemate.formats.scanning.readers._paths import leaves_folder
from casemate.formats.scanning.readers._protobuf import BYTES, VARINT, Field, fields_of, text_at
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, noted, shown
from casemate.formats.scanning.readers._tensorflow_rules import BY_ATTRIBUTE, SAVERS, TABLES, rule_of
from casemate.formats.scanning.signs import Level, Sign, Used
from casemate.formats.scanning.source import Source

__all__ = ["Graph", "graph_signs"]

_MEND: Final = "export the model again without it, or review what it does before you load it"
_STREAMS: Final = re.compile(r"stdout|stderr|log\(\w+\)|")
_LOCAL: Final = re.compile(r"(?:local|bytes)://.*|", re.DOTALL)
_OLDER_SAVER: Final = re.compile(r"(?:.*/)?save(?:_\d+)?/")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_MOST: Final = 1 << 33  # elements of a constant
_DIMENSIONS: Final = 300  # no tensor has a tenth of it
_SMALL: Final = 1 << 14  # bytes: a constant that is longer holds what it claims
_HELD: Final = 200_000
_KINDS: Final = 10_000  # operations by name
_TOLD: Final = 200  # operations of one graph that are worth telling

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Node:
    """One node: all its operations (the last one counts), its name, where it is, where its attributes lie."""

    name: str
    ops: tuple[str, ...]
    inputs: tuple[str, ...]
    at: int
    attributes: tuple[Field, ...]


@dataclass(slots=True)
class Graph:
    """A graph with its functions: where the messages with the nodes of each lie, `""` for the main graph."""

    source: Source
    desk: Desk
    nodes: dict[str, list[Span]] = field(default_factory=lambda: {"": []})

    def add(self, span: Span) -> None:
        """Take in a GraphDef; several merge. Raises `Damaged`, or `LimitReached` for too many functions."""
        data, meter = self.source.data, self.desk.meter
        self.nodes[""].append(span)
        for found in fields_of(data, *span, meter):
            if (found.number, found.wire) == (2, BYTES):
                for inner in fields_of(data, found.start, found.end, meter):
                    if (inner.number, inner.wire) == (1, BYTES):
                        meter.enter()
                        self._function((inner.start, inner.end))

    def _function(self, span: Span) -> None:
        data, name = self.source.data, ""
        for found in fields_of(data, *span, self.desk.meter):
            if (found.number, found.wire) == (1, BYTES):
                for inner in fields_of(data, found.start, found.end, self.desk.meter):
                    if (inner.number, inner.wire) == (1, BYTES):
                        name = text_at(data, inner)
        self.nodes.setdefault(name or "(no name)", []).append(span)

    def of(self, scope: str) -> Iterator[_Node]:
        """The nodes of one scope, one at a time; raises `Damaged`."""
        number = 3 if scope else 1
        for span in self.nodes.get(scope, ()):
            for place in fields_of(self.source.data, *span, self.desk.meter):
                if (place.number, place.wire) == (number, BYTES):
                    yield self._node(place)

    def named(self, scope: str) -> dict[str, _Node]:
        """The nodes of one scope by their names; raises `Damaged` where they are too many to be held at once."""
        found: dict[str, _Node] = {}
        for node in self.of(scope):
            found[node.name] = node
            if len(found) > _HELD:
                raise Damaged(f"expected at most {_HELD} nodes beside a saver or a table, got more", node.at)
        return found

    def _node(self, place: Field) -> _Node:
        data, meter = self.source.data, self.desk.meter
        meter.tick()
        texts: dict[int, list[str]] = {1: [], 2: [], 3: []}
        attributes = []
        for count, found in enumerate(fields_of(data, place.start, place.end, meter)):
            if count > _HELD:
                raise Damaged(f"expected at most {_HELD} fields of a node, got more", place.at)
            if found.wire == BYTES and found.number in texts:
                texts[found.number].append(text_at(data, found))
            elif found.wire == BYTES and found.number == 5:
                attributes.append(found)
        name = texts[1][-1] if texts[1] else ""
        return _Node(name, tuple(texts[2]), tuple(texts[3]), place.at, tuple(attributes))

    def values(self, node: _Node, key: str) -> Iterator[Field]:
        """The fields of an attribute's value; raises `Damaged`."""
        data, meter = self.source.data, self.desk.meter
        for place in node.attributes:
            keys = fields_of(data, place.start, place.end, meter)
            if any(item.number == 1 and item.wire == BYTES and text_at(data, item) == key for item in keys):
                for item in fields_of(data, place.start, place.end, meter):
                    if (item.number, item.wire) == (2, BYTES):
                        yield from fields_of(data, item.start, item.end, meter)

    def texts(self, node: _Node, key: str) -> list[str]:
        """An attribute's texts, one or a list; raises `Damaged`."""
        data, found = self.source.data, []
        for value in self.values(node, key):
            if (value.number, value.wire) == (2, BYTES):
                found.append(text_at(data, value))
            elif (value.number, value.wire) == (1, BYTES):
                inner = fields_of(data, value.start, value.end, self.desk.meter)
                found += [text_at(data, item) for item in inner if (item.number, item.wire) == (2, BYTES)]
        return found

    def functions(self, node: _Node) -> Iterator[str]:
        """Names of the functions that a node calls; raises `Damaged`."""
        data, meter = self.source.data, self.desk.meter
        yield from (op for op in node.ops if op in self.nodes)
        for place in node.attributes:
            for value in fields_of(data, place.start, place.end, meter):
                if (value.number, value.wire) != (2, BYTES):
                    continue
                for item in fields_of(data, value.start, value.end, meter):
                    if (item.number, item.wire) == (10, BYTES):  # a function
                        names = fields_of(data, item.start, item.end, meter)
                        yield from (text_at(data, name) for name in names if (name.number, name.wire) == (1, BYTES))
                    elif (item.number, item.wire) == (1, BYTES):  # a list, maybe of functions
                        for inner in fields_of(data, item.start, item.end, meter):
                            if (inner.number, inner.wire) == (9, BYTES):
                                names = fields_of(data, inner.start, inner.end, meter)
                                yield from (text_at(data, n) for n in names if (n.number, n.wire) == (1, BYTES))

    def constant(self, node: _Node) -> tuple[int, list[str]]:
        """How many elements a constant claims, and its texts; raises `Damaged`."""
        data, meter, sizes, texts = self.source.data, self.desk.meter, [1], []
        for value in self.values(node, "value"):
            if (value.number, value.wire) != (8, BYTES):
                continue
            for item in fields_of(data, value.start, value.end, self.desk.meter):
                if (item.number, item.wire) == (2, BYTES):
                    for dim in fields_of(data, item.start, item.end, meter):
                        if (dim.number, dim.wire) == (2, BYTES):
                            inner = fields_of(data, dim.start, dim.end, meter)
                            sizes += [size.value for size in inner if (size.number, size.wire) == (1, VARINT)]
                elif (item.number, item.wire) == (8, BYTES):
                    texts.append(_CONTROL.split(text_at(data, item), 1)[0])  # what is no path is cut to one line
        return math.prod(size for size in sizes[:_DIMENSIONS] if size < 1 << 63), texts


@dataclass(slots=True)
class _Rules:
    """What is gathered over a graph's scopes before it can be judged."""

    graph: Graph
    saver: frozenset[str]
    assets: frozenset[str]
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    firsts: dict[tuple[str, str], tuple[Level, str, str, int]] = field(default_factory=dict)
    savers: list[tuple[str, _Node]] = field(default_factory=list)
    tables: list[tuple[str, _Node]] = field(default_factory=list)
    ops: set[str] = field(default_factory=set)

    def note(self, op: str, detail: str, verdict: tuple[Level, str], place: tuple[str, int]) -> None:
        """Count one node for a sign."""
        if len(self.firsts) > _KINDS and verdict[0] is not MALICIOUS:
            op, detail = "of further names", ""
        key = (op, detail)
        self.counts[key] = self.counts.get(key, 0) + 1
        self.firsts.setdefault(key, (*verdict, *place))


def graph_signs(graph: Graph, saver: frozenset[str], assets: frozenset[str]) -> Iterator[Sign]:
    """Signs of a graph; `saver` and `assets` are the nodes that a saver_def points to and that asset_file_defs fill.

    Raises `Damaged` or `LimitReached` where it cannot be read to its end, after what was found till then.
    """
    rules, fault = _Rules(graph, saver, assets), None
    try:
        for scope in graph.nodes:
            for node in graph.of(scope):
                _ruled(rules, scope, node)
        _saving(rules)
        _filling(rules)
    except (Damaged, LimitReached) as error:
        fault = error
    member = "!/".join(graph.source.path)
    graph.desk.used |= dict.fromkeys(Used(member, "tensorflow", op[:200], called=True) for op in sorted(rules.ops))
    yield from _told(rules)
    if fault is not None:
        raise fault


def _told(rules: _Rules) -> Iterator[Sign]:
    worst_first = sorted(rules.firsts.items(), key=lambda item: item[1][0] is not MALICIOUS)
    for (op, detail), (level, why, scope, at) in worst_first[:_TOLD]:
        where = f"the function {shown(scope)}" if scope else "the main graph"
        count = rules.counts[op, detail]
        times = f", {count} times" if count > 1 else ""
        what = f"the operation {shown(op)}{detail} in {where}{times}"
        yield noted(rules.graph.source, level, "tensorflow/operation", what, why=why, mend=_MEND, at=at)


def _ruled(rules: _Rules, scope: str, node: _Node) -> None:
    graph = rules.graph
    for op in node.ops:
        if len(rules.ops) < _KINDS and op not in graph.nodes:  # functions have other names after each export
            rules.ops.add(op)
        if op in SAVERS:
            rules.savers.append((scope, node))
            _bounded(rules.savers, node)
        elif op in TABLES:
            rules.tables.append((scope, node))
            _bounded(rules.tables, node)
        elif op in BY_ATTRIBUTE:
            _by_attribute(rules, scope, node, op)
        elif op == "Const":
            if sum(place.end - place.start for place in node.attributes) < _SMALL and graph.constant(node)[0] > _MOST:
                why = "making it takes more memory than any machine has"
                rules.note(op, " with more than 2^33 elements", (MALICIOUS, why), (scope, node.at))
        else:
            level, why = rule_of(op)
            if level is Level.MALICIOUS or (level is not Level.CLEAN and op not in graph.nodes):
                rules.note(op, "", (level, why), (scope, node.at))


def _bounded(held: list[tuple[str, _Node]], node: _Node) -> None:
    if len(held) > _KINDS:
        raise Damaged(f"expected at most {_KINDS} nodes that save or fill tables, got more", node.at)


def _by_attribute(rules: _Rules, scope: str, node: _Node, op: str) -> None:
    key = BY_ATTRIBUTE[op]
    for text in rules.graph.texts(node, key):
        level = Level.CLEAN
        if key == "output_stream" and not _STREAMS.fullmatch(text):
            level, why = MALICIOUS, "it writes what flows through it to a file"
        elif key == "debug_urls" and text:
            level, why = MALICIOUS, "it sends what flows through it to a file or another machine"
        elif key in ("vocab_file", "descriptor_source") and not _LOCAL.fullmatch(text):
            level, why = (MALICIOUS if leaves_folder(text) else SUSPICIOUS), "it reads that file"
        if level is not Level.CLEAN:
            rules.note(op, f" with {key} {shown(text)}", (level, why), (scope, node.at))


def _saving(rules: _Rules) -> None:
    """Checkpoints are the saver's business: what its own nodes reach may save and restore."""
    if not rules.savers:
        return
    graph = rules.graph
    reached, functions = _reached(graph, rules.saver)
    main = graph.named("")
    for scope, node in rules.savers:
        if (node.name not in reached and not _fed(rules, main, node)) if not scope else (scope not in functions):
            level, why = rule_of(node.ops[-1])
            rules.note(node.ops[-1], "", (level, why), (scope, node.at))
    for scope in ("", *functions):
        for node in graph.of(scope):
            if "Const" in node.ops and (scope or node.name in reached):
                for text in graph.constant(node)[1]:
                    if leaves_folder(text):
                        why = "the saver reads or writes a path of its own instead of the model's"
                        rules.note("Const", f" with the path {shown(text)}", (SUSPICIOUS, why), (scope, node.at))


def _fed(rules: _Rules, main: dict[str, _Node], node: _Node) -> bool:
    """Whether it is part of another saver, as graphs of TensorFlow 1 keep them, whose path stays in the folder."""
    if not _OLDER_SAVER.match(node.name):
        return False
    where = node.inputs if node.ops[-1] == "MergeV2Checkpoints" else node.inputs[:1]
    todo, seen, given = [_bare(item) for item in where], set(), False
    while todo:
        name = todo.pop()
        if name in seen or name not in main:
            continue
        seen.add(name)
        item = main[name]
        given = given or item.ops[-1:] in (("Const",), ("PlaceholderWithDefault",))
        if "Const" in item.ops and any(map(leaves_folder, rules.graph.constant(item)[1])):
            return False
        todo += [_bare(source) for source in item.inputs if not source.startswith("^")]
    return given


def _reached(graph: Graph, roots: Iterable[str]) -> tuple[set[str], set[str]]:
    """Names of the main graph's nodes that `roots` depend on, and of all functions that those call."""
    main = graph.named("")
    todo, reached, functions = [_bare(root) for root in roots], set(), set()
    calls: list[str] = []
    while todo:
        name = todo.pop()
        if name in reached or name not in main:
            continue
        reached.add(name)
        todo += [_bare(item) for item in main[name].inputs]
        calls += graph.functions(main[name])
    while calls:
        name = calls.pop()
        if name not in functions and name in graph.nodes:
            functions.add(name)
            for node in graph.of(name):
                calls += graph.functions(node)
    return reached, functions


def _filling(rules: _Rules) -> None:
    """Tables that are filled from text files: from an asset of the model, or from a file of the machine."""
    graph, inside = rules.graph, False
    main = graph.named("") if rules.tables else {}
    for scope, node in rules.tables:
        known = graph.named(scope) if scope else main
        start = _origin(known, node.inputs[1] if len(node.inputs) > 1 else "")
        if start is None or "Const" not in start.ops:
            inside = True
            if not rules.assets:
                why = "it reads a text file that is no asset of the model"
                rules.note(node.ops[-1], "", (SUSPICIOUS, why), (scope, node.at))
        elif scope or start.name not in rules.assets:
            _path(rules, scope, node.ops[-1], start)
    for item in main.values() if inside else ():
        if "Const" in item.ops and item.name not in rules.assets:
            _path(rules, "", "Const", item, only_leaving=True)


def _path(rules: _Rules, scope: str, op: str, node: _Node, *, only_leaving: bool = False) -> None:
    for text in rules.graph.constant(node)[1]:
        leaving = bool(leaves_folder(text))
        if leaving or not only_leaving:
            level = MALICIOUS if leaving and not only_leaving else SUSPICIOUS
            why = "it reads that file of the machine, which is no asset of the model"
            rules.note(op, f" with the file {shown(text)}", (level, why), (scope, node.at))


def _origin(known: dict[str, _Node], name: str) -> _Node | None:
    """The node that a tensor comes from, through copies."""
    for _ in range(64):
        node = known.get(_bare(name))
        if node is None or node.ops[-1:] != ("Identity",) or not node.inputs:
            return node
        name = node.inputs[0]
    return None


def _bare(tensor: str) -> str:
    return tensor.lstrip("^").split(":", 1)[0]
