"""Instructions that a chat template slips into the prompt when a message says a certain word.

What the template adds then is seen by the model and by nobody else (Pillar Security, "poisoned GGUF templates", 2025).
Chat templates test roles and control tokens; only a test of what a message says, whose body prints sentences, is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from jinja2 import nodes

__all__ = ["injected"]

_CONTENT: Final = frozenset({"content", "text", "prompt", "query", "input", "question"})
_TESTS: Final = frozenset({"startswith", "endswith", "find", "index", "count", "lower", "upper", "split"})
_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_TOKEN: Final = re.compile(r"\s*(?:[<\[|/{#]|#+\s).*", re.DOTALL)  # a control token rather than a word that users write
_ORDERS: Final = re.compile(
    r"(?i)<script|https?://|\b(?:ignore|disregard|forget)\b.{0,30}\b(?:instructions?|prompts?|rules?)\b|"
    r"\b(?:do not|don't|never)\b.{0,20}\b(?:tell|mention|reveal|inform)\b|"
    r"\b(?:secretly|silently|without (?:telling|informing))\b"
)
_ALWAYS: Final = re.compile(
    r"(?i)<script[\s>]|\b(?:ignore|disregard) (?:all |any )?(?:the )?(?:previous|prior|above|earlier) "
    r"(?:instructions?|prompts?)"
    r"|\b(?:do not|don't|never) (?:tell|inform) the user|\bwithout (?:telling|informing) the user|\bexfiltrate\b"
)
_FEWEST: Final = 4  # words of a sentence
_T = TypeVar("_T", bound=nodes.Node)


def injected(tree: nodes.Template, tick: Callable[[], None]) -> Iterator[tuple[str, str, int]]:
    """The trigger, the text and the line of each instruction; the trigger is empty for one that is always printed."""
    holders = _holders(tree)
    told: set[int] = set()
    for test, body, line in _choices(tree):
        tick()
        trigger = _trigger(test, holders)
        if trigger is None:
            continue
        text = " ".join(_printed(body)).strip()
        needed = 1 if _ORDERS.search(text) else 1000 if _TOKEN.fullmatch(trigger) else _FEWEST
        if len(_WORD.findall(_untagged(text))) >= needed and line not in told:
            told.add(line)
            yield trigger, text, line
    for text, line in _texts(tree):
        if line not in told and (found := _ALWAYS.search(text)):
            yield "", text[max(0, found.start() - 40) : found.end() + 60].strip(), line


def _untagged(text: str) -> str:
    """A text without its control tokens."""
    return re.sub(r"<\|[^|<>]{0,60}\|>|</?\w+>|\[/?[A-Z_]+\]", " ", text) if not _ORDERS.search(text) else text


def _choices(tree: nodes.Node) -> Iterator[tuple[nodes.Node, list[nodes.Node], int]]:
    for node in tree.find_all((nodes.If, nodes.CondExpr)):
        if isinstance(node, nodes.If):
            yield node.test, node.body, node.lineno
            yield node.test, [item for item in node.else_], node.lineno
        elif isinstance(node, nodes.CondExpr):
            yield node.test, [node.expr1, *([node.expr2] if node.expr2 is not None else [])], node.lineno


def _holders(tree: nodes.Node) -> frozenset[str]:
    """Names that hold what a message says."""
    found: set[str] = set()
    for _ in range(3):
        before = len(found)
        for node in tree.find_all((nodes.Assign, nodes.For)):
            if not isinstance(node, nodes.Assign | nodes.For):
                continue
            value, target = node.node if isinstance(node, nodes.Assign) else node.iter, node.target
            if _says(value, frozenset(found)):
                names = [target] if isinstance(target, nodes.Name) else list(target.find_all(nodes.Name))
                found.update(name.name for name in names)
        if len(found) == before:
            break
    return frozenset(found)


def _says(node: nodes.Node, holders: frozenset[str]) -> bool:
    """Whether an expression has to do with what a message says."""
    if isinstance(node, nodes.Name):
        return node.name in holders
    if isinstance(node, nodes.Getattr):
        return node.attr in _CONTENT or _says(node.node, holders)
    if isinstance(node, nodes.Getitem):
        named = isinstance(node.arg, nodes.Const) and node.arg.value in _CONTENT
        return named or _says(node.node, holders)
    if isinstance(node, nodes.Filter | nodes.Call):
        return node.node is not None and _says(node.node, holders)
    if isinstance(node, nodes.Concat):
        return any(_says(item, holders) for item in node.nodes)
    return isinstance(node, nodes.BinExpr) and (_says(node.left, holders) or _says(node.right, holders))


def _trigger(test: nodes.Node, holders: frozenset[str]) -> str | None:
    """The text that a message must hold for a test to be true; `None` for tests of something else."""
    for compare in _of(test, nodes.Compare):
        sides = [compare.expr, *(item.expr for item in compare.ops)]
        words = [side.value for side in sides if isinstance(side, nodes.Const) and isinstance(side.value, str)]
        if words and words[0].strip() and any(_says(side, holders) and not _last_key(side) for side in sides):
            return str(words[0])
    for call in _of(test, nodes.Call):
        if isinstance(call.node, nodes.Getattr) and call.node.attr in _TESTS and _says(call.node.node, holders):
            words = [item.value for item in call.args if isinstance(item, nodes.Const) and isinstance(item.value, str)]
            if words and words[0].strip():
                return str(words[0])
    return None


def _last_key(node: nodes.Node) -> bool:
    """Whether it is a part's kind (`item['type'] == 'image'`) rather than its words."""
    if isinstance(node, nodes.Getattr):
        return node.attr not in _CONTENT
    return (
        isinstance(node, nodes.Getitem)
        and isinstance(node.arg, nodes.Const)
        and isinstance(node.arg.value, str)
        and node.arg.value not in _CONTENT
    )


def _of(node: nodes.Node, kind: type[_T]) -> Iterator[_T]:
    if isinstance(node, kind):
        yield node
    yield from node.find_all(kind)


def _texts(node: nodes.Node) -> Iterator[tuple[str, int]]:
    for data in _of(node, nodes.TemplateData):
        yield data.data, data.lineno
    for const in _of(node, nodes.Const):
        if isinstance(const.value, str):
            yield const.value, const.lineno


def _printed(body: list[nodes.Node]) -> Iterator[str]:
    """Texts that some statements print or keep, but not those that they compare or complain with."""
    todo = list(reversed(body))
    while todo:
        node = todo.pop()
        if isinstance(node, nodes.TemplateData):
            yield node.data
        elif isinstance(node, nodes.Const):
            if isinstance(node.value, str):
                yield node.value
        elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "raise_exception":
            continue
        elif not isinstance(node, nodes.Compare | nodes.Test):
            todo += reversed(list(node.iter_child_nodes()))
