"""Jinja templates: chat templates of tokenizers, in files of their own and inside JSON and GGUF.

Whoever loads the tokenizer renders the template for every message, llama.cpp's Python bindings once without a sandbox
(CVE-2024-34359). It is parsed, never rendered.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers._plain import decoded, is_text, offset_of, starts
from casemate.formats.scanning.readers._secrets import secrets_in
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, UNREADABLE, noted, shown
from casemate.formats.scanning.signs import Level, Sign
from casemate.formats.scanning.source import Source

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["READERS", "embedded_signs", "hints", "template_signs"]

_LONGEST = 1 << 19  # characters: the longest chat templates known have 60,000
_TOLD = 10_000  # findings of one rule
_ENDS = (".jinja", ".jinja2", ".j2")
_MEND = "do not render it; take the template from the model's first publisher"
_BEGIN = re.compile(r"\{[%{#]")
_ESCAPE = re.compile(
    r"\{[{%][^{}]{0,400}?(__(?:class|globals|subclasses|builtins|mro|base|bases|init|import|getattribute|dict)__|\bpopen\b)"
)
_HINT = re.compile(r"__\w+__|\|\s*attr\b|\\x5f|\\u005f|\b(?:lipsum|cycler|joiner|popen|mro|gi_frame|self)\b|\.format\b")
_WHY = {
    "escape": (MALICIOUS, "it leads from a harmless value to Python's internals, and from there to any command"),
    "private": (
        SUSPICIOUS,
        "names that begin with an underscore are an object's internals, which no chat template needs",
    ),
    "global": (SUSPICIOUS, "the helpers that Jinja gives to every template are the usual way out of it"),
    "attr": (SUSPICIOUS, "a name that is given as text is how scanners of templates are passed"),
    "made-name": (SUSPICIOUS, "what it reaches for cannot be told before it runs, and no chat template needs that"),
    "power": (MALICIOUS, "where a server hands Python's modules or functions to templates, that runs them"),
    "import": (MALICIOUS, "another template, which nobody has looked at, is run with it"),
    "loop": (MALICIOUS, "rendering it takes so long that the server no longer answers"),
    "long-range": (SUSPICIOUS, "no chat template needs so many turns, and Jinja's sandbox refuses them"),
    "size": (MALICIOUS, "rendering it exhausts the memory of the server"),
}


def template_signs(source: Source, text: str, desk: Desk, *, chat: bool = True) -> Iterator[Sign]:
    """Signs of one template; `chat`: it is one for prompts, which never needs another template."""
    try:
        yield from _judged(source, text, desk, chat)
    except Damaged as error:
        why = "what could not be parsed could not be judged"
        yield noted(source, UNREADABLE, "jinja/damaged", str(error), why=why, mend=_MEND, at=error.offset)
        if found := _ESCAPE.search(text):  # another dialect may read on
            level, why = _WHY["escape"]
            what = f"the template, which cannot be parsed, reaches for {shown(found[1])}"
            yield noted(source, level, "jinja/escape", what, why=why, mend=_MEND, at=found.start(1))
    yield from secrets_in(source, text)


def hints(text: str) -> bool:
    """Whether a text may be a template that leads out of itself; quick."""
    return bool(_BEGIN.search(text) and _HINT.search(text))


def embedded_signs(source: Source, text: str, desk: Desk, *, rendered: bool) -> Iterator[Sign]:
    """Signs of what may be a template, in a field that is not known to be one: only of what leads out of it.

    `rendered`: the field's name says that it is a template; what another field does is for a user to review.
    """
    if not hints(text):
        return
    for sign in template_signs(source, text, desk, chat=False):
        if sign.rule in ("jinja/escape", "jinja/power"):
            yield sign if rendered else dataclasses.replace(sign, level=SUSPICIOUS)


def _judged(source: Source, text: str, desk: Desk, chat: bool) -> Iterator[Sign]:
    tree = _parsed(text, desk)
    found: dict[tuple[str, str], int] = {}
    told: Counter[str] = Counter()

    def note(rule: str, what: str, line: int) -> None:
        told[rule] += 1
        if told[rule] <= _TOLD:  # of one rule all are of one level
            found.setdefault((rule, what), line)

    from casemate.formats.scanning.readers._jinja_prompts import injected
    from casemate.formats.scanning.readers._jinja_run import Follower

    try:
        Follower(note, desk.meter.tick).follow(tree)
        prompts = list(islice(injected(tree, desk.meter.tick), _TOLD)) if chat else []
    except RecursionError:
        raise Damaged("expected a template of some hundred levels, got more", 0) from None
    for (rule, what), line in found.items():
        level, why = _WHY[rule]
        if rule == "import" and not chat:
            continue  # pages are made of each other
        yield _sign(source, level, f"jinja/{rule}", f"the template {shown(what)}", (text, line, why))
    for trigger, words, line in prompts:
        when = f"where a message says {shown(trigger[:40])!r}" if trigger else "always"
        why = "the model takes it for an instruction of its operator, and nobody sees it in the conversation"
        what = f"{when}, the template adds: {shown(words)}"
        yield _sign(source, SUSPICIOUS, "jinja/hidden-instruction", what, (text, line, why))


def _sign(source: Source, level: Level, rule: str, what: str, more: tuple[str, int, str]) -> Sign:
    text, line, why = more
    return noted(source, level, rule, what, why=why, mend=_MEND, at=offset_of(text, line))


def _parsed(text: str, desk: Desk) -> Any:
    if len(text) > _LONGEST:
        raise Damaged(f"expected a template of at most {_LONGEST} characters, got {len(text)}", 0)
    desk.meter.tick()
    from jinja2 import TemplateSyntaxError

    try:
        return _environment().parse(text)
    except TemplateSyntaxError as error:
        message = f"expected a template of Jinja's, got a fault in line {error.lineno}: {shown(error.message or '')}"
        raise Damaged(message, offset_of(text, error.lineno)) from None
    except (RecursionError, MemoryError, ValueError, OverflowError, AssertionError) as error:
        raise Damaged(
            f"expected a template of Jinja's, got one that cannot be parsed ({type(error).__name__})", 0
        ) from None


@cache
def _environment() -> Environment:
    from jinja2 import Environment, nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class Generation(Extension):
        """`{% generation %}`, by which transformers marks what the model said."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    extensions: list[str | type[Extension]] = ["jinja2.ext.do", "jinja2.ext.loopcontrols", Generation]
    return Environment(extensions=extensions, trim_blocks=True, lstrip_blocks=True, autoescape=False)  # never renders


def _claims(source: Source) -> bool:
    if source.name.endswith(_ENDS):
        return is_text(source)
    return bool(_BEGIN.match(starts(source))) and not source.name.endswith((".html", ".md", ".txt"))


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    page = re.search(r"\.\w+\.(?:jinja2?|j2)$", source.name)  # base.html.j2, kernel.py.jinja
    chat = "chat" in source.name or not (page or source.name.endswith((".j2", ".jinja2")))
    named = source.name.endswith(_ENDS)
    for sign in template_signs(source, decoded(source, desk), desk, chat=chat):
        if named or sign.rule != "jinja/damaged":  # other texts may begin with a brace too
            yield sign


READERS = (Reader("jinja", _claims, _read, last=True, rank=10),)
