"""YAML: settings, MLflow's `MLmodel`, environments; by its events, so that nothing is made and no alias is followed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.pickles.rulings import ruling
from casemate.formats.scanning.readers._configs import setting_signs
from casemate.formats.scanning.readers._few import few
from casemate.formats.scanning.readers._plain import decoded, is_text, words
from casemate.formats.scanning.readers._requirements import requirement_signs
from casemate.formats.scanning.readers._secrets import secrets_in
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, noted, shown
from casemate.formats.scanning.signs import Level, Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS", "yaml_signs"]

_ENDS = (".yaml", ".yml")
_NAMES = frozenset({"mlmodel"})
_CORE = "tag:yaml.org,2002:"
_PLAIN = words(
    "str int float bool null seq map binary set omap pairs timestamp merge value python/none python/bool "
    "python/bytes python/str python/unicode python/int python/long python/float python/complex python/list "
    "python/tuple python/dict"
)
_FOREIGN = re.compile(r"!?(?:ruby/|java|javax?\.|org\.|com\.sun)|tag:yaml\.org,2002:(?:javax?|org|com|ruby)\b")
_CHANNEL = re.compile(
    r"https://(?:conda\.anaconda\.org|repo\.anaconda\.com|repo\.prefix\.dev|conda\.rapids\.ai|prefix\.dev)(?:/|$)"
)
_LONGEST = 2 << 20  # characters
_DEEPEST = 500
_EXPANDED = 1_000_000  # nodes that aliases may stand for


class _Builder:
    """Makes plain values of events; an alias of a container stands for itself, by name."""

    def __init__(self) -> None:
        self.documents: list[Any] = []
        self._open: list[tuple[Any, list[Any]]] = []  # containers, and their keys and values so far
        self._names: list[str | None] = []
        self._sizes: list[int] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self.expanded = self.events = 0

    @property
    def depth(self) -> int:
        """How many containers are open."""
        return len(self._open)

    def begin(self, container: Any, anchor: str | None) -> None:
        """A mapping or a sequence begins."""
        self.events += 1
        self._open.append((container, []))
        self._names.append(anchor)
        self._sizes.append(1)

    def end(self) -> None:
        """The innermost container ends."""
        container, items = self._open.pop()
        if isinstance(container, dict):
            for key, value in zip(items[::2], items[1::2], strict=False):
                name = key if isinstance(key, str) else "?"
                container[name if name not in container else f"{name} "] = value
        else:
            container.extend(items)
        self._put(container, self._names.pop(), self._sizes.pop())

    def scalar(self, value: str | None, anchor: str | None) -> None:
        """A text, or nothing."""
        self.events += 1
        self._put(value, anchor, 1)

    def alias(self, name: str) -> None:
        """Another place's value again."""
        value, size = self._anchors.get(name, ("*" + name, 1))
        self._put(value if value is None or isinstance(value, str) else {"*": "*" + name}, None, size)

    def _put(self, value: Any, anchor: str | None, size: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = value, size
        if self._open:
            self._open[-1][1].append(value)
            self._sizes[-1] += size
        else:
            self.documents.append(value)
            self.expanded += size


def _claims(source: Source) -> bool:
    if source.name.endswith(_ENDS) or source.name in _NAMES:
        return is_text(source)
    return source.head.startswith((b"%YAML", b"%TAG", b"---\n", b"---\r\n", b"--- ")) or (
        b"!!python/" in source.head and is_text(source)
    )


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    text = decoded(source, desk)
    yield from secrets_in(source, text)
    sure = source.name.endswith(_ENDS) or source.name in _NAMES
    if not sure and (matter := re.match(r"---\r?\n(.*?)\n(?:---|\.\.\.)[ \t]*\r?(?:\n|\Z)", text, re.DOTALL)):
        text = matter[1]  # what stands before a page of Markdown
    try:
        yield from yaml_signs(source, text, desk)
    except Damaged:
        if sure or text.startswith("%YAML"):
            raise


def yaml_signs(source: Source, text: str, desk: Desk) -> Iterator[Sign]:
    """Signs of a text of YAML.

    Raises `Damaged` where it is none.
    """
    if len(text) > _LONGEST:
        raise Damaged(f"expected YAML of at most {_LONGEST} characters, got {len(text)}", 0)
    builder = _Builder()
    yield from _tags(source, text, desk, builder)
    if builder.expanded > max(_EXPANDED, 10 * builder.events):
        what = f"aliases that stand for {builder.expanded:.3g} values in a text of {len(text)} characters"
        why = "whoever follows them runs out of memory"
        yield noted(source, MALICIOUS, "yaml/aliases", what, why=why, mend="do not load it", at=0)
    for document in builder.documents:
        yield from few(setting_signs(source, document, desk))
        if isinstance(document, dict):
            yield from _environment(source, document)


def _environment(source: Source, document: dict[str, Any]) -> Iterator[Sign]:
    """What an environment of conda's, or MLflow's `python_env.yaml`, installs and from where."""
    lines: list[Any] = []
    for key in ("dependencies", "build_dependencies"):
        listed = document.get(key)
        for item in listed if isinstance(listed, list) else ():
            lines += item["pip"] if isinstance(item, dict) and isinstance(item.get("pip"), list) else [item]
    yield from requirement_signs(source, "\n".join(line for line in lines if isinstance(line, str)))
    channels = document.get("channels")
    for item in channels if isinstance(channels, list) and "dependencies" in document else ():
        if isinstance(item, str) and "://" in item and not _CHANNEL.match(item):
            why, mend = "packages come from there, and run as they are installed", "use conda-forge or defaults"
            yield noted(
                source, SUSPICIOUS, "requirements/index", f"the channel {shown(item)}", why=why, mend=mend, at=0
            )


def _tags(source: Source, text: str, desk: Desk, builder: _Builder) -> Iterator[Sign]:
    """Feed the events to a builder, and judge their tags on the way."""
    import yaml

    try:
        for count, event in enumerate(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))):
            if count % 256 == 0:
                desk.meter.tick()
            tag, at = getattr(event, "tag", None), event.start_mark.index if event.start_mark else 0
            if isinstance(tag, str):
                yield from _tag(source, tag, at)
            _fed(builder, event)
            if builder.depth > _DEEPEST:
                what, why = f"more than {_DEEPEST} levels of nesting", "parsers that recurse run out of stack"
                yield noted(source, MALICIOUS, "yaml/depth", what, why=why, mend="do not load it", at=at)
                return
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = shown(str(getattr(error, "problem", None) or error))
        raise Damaged(f"expected YAML, got a fault: {problem}", mark.index if mark else 0) from None


def _fed(builder: _Builder, event: Any) -> None:
    import yaml

    if isinstance(event, yaml.ScalarEvent):
        absent = event.implicit[0] and event.value in ("", "~", "null", "Null", "NULL")
        builder.scalar(None if absent else event.value, event.anchor)
    elif isinstance(event, yaml.AliasEvent):
        builder.alias(event.anchor or "")
    elif isinstance(event, yaml.MappingStartEvent):
        builder.begin({}, event.anchor)
    elif isinstance(event, yaml.SequenceStartEvent):
        builder.begin([], event.anchor)
    elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
        builder.end()


def _tag(source: Source, tag: str, at: int) -> Iterator[Sign]:
    name = tag.removeprefix(_CORE)
    if tag == "!" or (tag.startswith(_CORE) and name in _PLAIN):
        return
    level, why = SUSPICIOUS, "a loader that knows this tag runs code of its own for it"
    if "python/" in tag:
        level, why = _python(name), "yaml.load and yaml.unsafe_load import and call what it names"
    elif _FOREIGN.match(tag):
        level, why = MALICIOUS, "loaders of other languages make an object of any class that it names"
    mend = "load it with yaml.safe_load only, or write the value plainly"
    yield noted(source, level, "yaml/tag", f"the tag {shown(tag)}", why=why, mend=mend, at=at)


def _python(name: str) -> Level:
    """A class that is known to be harmless is merely odd in a YAML file."""
    module, _, last = name.partition(":")[2].rpartition(".")
    plain = name.startswith("python/object:") and ruling(module, last).level is Level.CLEAN
    return SUSPICIOUS if plain else MALICIOUS


READERS = (Reader("yaml", _claims, _read),)
