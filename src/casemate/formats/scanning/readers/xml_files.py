"""XML: PMML, OpenVINO, any other; its entities and schemas are judged and never followed.

Parsers that follow external entities open files and addresses for whoever wrote the model (XXE), and nested ones expand
until memory ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers._plain import starts
from casemate.formats.scanning.readers._secrets import secrets_in
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, UNKNOWN, noted, shown
from casemate.formats.scanning.signs import Level, Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_ENDS = (".xml", ".pmml", ".svg", ".xsd", ".rdf", ".xmi")
_BEGIN = re.compile(r"<\?xml[\s?]|<!DOCTYPE\s+(?!html\b)|<(?:PMML|net|svg)[\s>]", re.IGNORECASE)
_PAGE = re.compile(r"(?:<\?xml[^>]*>\s*)?<(?:!DOCTYPE\s+html|html)\b", re.IGNORECASE)
_KNOWN = re.compile(
    r"https?://(?:www\.)?(?:w3\.org|apple\.com/DTDs|openoffice\.org|docbook\.org|oasis-open\.org|dmg\.org)/"
)
_SIBLING = re.compile(r"[\w\-][\w.\-]{0,60}\.dtd")  # a schema beside the file
_REFERENCE = re.compile(r"[&%]([\w.:\-]+);")
_SCRIPT = re.compile(
    r"(?i)<script|javascript:|\b(?:Runtime\.getRuntime|ProcessBuilder|os\.system|subprocess|eval\s*\(|exec\s*\()"
)
_JAVA = re.compile(
    r"\bjava\.lang\.(?:Runtime|ProcessBuilder)\b|\bjavax\.script\.ScriptEngine|\bjava\.beans\.EventHandler\b"
    r"|\bjava\.net\.URLClassLoader\b|\bcom\.sun\.\w+\.internal\.|\borg\.apache\.commons\.collections\d?\.functors\b"
    r"|\borg\.springframework\.context\.support\.(?:ClassPath|FileSystem)XmlApplicationContext\b"
    r"|\bjavax\.naming\.InitialContext\b|\bcom\.sun\.rowset\.JdbcRowSetImpl\b"
)
_INCLUDE = "http://www.w3.org/2001/XInclude"
_STYLE = "http://www.w3.org/1999/XSL/Transform"
_BRIDGE = re.compile(
    r"xalan/java|xml\.apache\.org/xslt/java|^java:|saxon\.sf\.net/java-type|php\.net/xsl|urn:schemas-microsoft-com:xslt"
)
_READS = re.compile(r"\b(?:document|unparsed-text(?:-lines)?|doc|collection)\s*\(|\bphp:function")
_PREFIXES = 1000
_DEEPEST = 500
_EXPANDED = 1_000_000  # characters that entities may stand for
_WIDE = (b"<\0?\0", b"\0<\0?", b"<\0!\0", b"\0<\0!")  # in UTF-16 without a mark
_FIRSTS = b"< \t\r\n\xef\xff\xfe\0"
_STEP = 1 << 16
_TEXT = 1 << 20  # characters of element text that are kept for a look
_MEND = "do not parse it with anything that follows entities; take the file from where it was made"


class _Stop(Exception):  # what was found already decides, and reading on would follow it
    pass


class _Look:
    """What the parser meets; it yields nothing itself, as handlers cannot."""

    def __init__(self, source: Source, parser: Any) -> None:
        self.signs: list[Sign] = []
        self._source = source
        self._parser = parser
        self._sizes: dict[str, int] = {}
        self._path: list[str] = []
        self._spaces: dict[str, str] = {"xi": _INCLUDE}  # prefixes, and what they stand for
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self.doctype
        parser.EndDoctypeDeclHandler = self.after_doctype
        parser.EntityDeclHandler = self.entity
        parser.ExternalEntityRefHandler = self.reference
        parser.ProcessingInstructionHandler = self.instruction
        parser.StartElementHandler = self.element
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.text

    def _sign(self, level: Level, rule: str, what: str, why: str) -> None:
        if len(self.signs) < 100:
            at = max(0, self._parser.CurrentByteIndex)
            self.signs.append(noted(self._source, level, f"xml/{rule}", what, why=why, mend=_MEND, at=at))

    def doctype(self, name: str, system: str | None, public: str | None, internal: bool) -> None:
        if system and not _KNOWN.match(system):
            why = "a parser that follows it fetches that address or opens that file"
            level = SUSPICIOUS if _SIBLING.fullmatch(system) else MALICIOUS
            self._sign(level, "external-dtd", f"a document type from {shown(system)}", why)

    def entity(self, name: str, parameter: bool, value: str | None, *more: str | None) -> None:
        system = more[1]
        if system is not None:
            kind = "parameter entity" if parameter else "entity"
            why = "a parser that follows it opens that file or address, and puts what it finds into the model"
            self._sign(MALICIOUS, "external-entity", f"the {kind} {shown(name)} from {shown(system)}", why)
        elif value is not None:
            inner = [self._sizes.get(found[1], 1) for found in _REFERENCE.finditer(value)]
            size = self._sizes[name] = min(1 << 60, len(value) + sum(inner))
            if size > _EXPANDED:
                what = f"the entity {shown(name)} stands for {size:.3g} characters"
                self._sign(MALICIOUS, "entity-bomb", what, "a parser that expands it runs out of memory")
                raise _Stop
            if any(size > 1 for size in inner):
                what = f"the entity {shown(name)} is made of other entities"
                self._sign(SUSPICIOUS, "nested-entity", what, "no model needs it, and bombs are built like that")

    def after_doctype(self) -> None:
        if any(sign.level is MALICIOUS for sign in self.signs):
            raise _Stop

    def reference(self, context: str | None, base: str | None, system: str | None, public: str | None) -> int:
        if not (system and _KNOWN.match(system)):
            why = "a parser that follows it opens that file or address"
            self._sign(MALICIOUS, "external-entity", f"a reference to {shown(system or '')}", why)
        return 1

    def instruction(self, target: str, data: str) -> None:
        if target.lower() in ("php", "xml-stylesheet", "python", "mso-application"):
            what = f"the instruction <?{shown(target)} {shown(data)}?>"
            self._sign(SUSPICIOUS, "instruction", what, "what follows it runs or fetches that")

    def element(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        self._network(name, attributes)
        self._declare(attributes)
        if len(self._path) > _DEEPEST:
            why = "parsers that recurse run out of stack"
            self._sign(MALICIOUS, "depth", f"more than {_DEEPEST} elements in each other", why)
            raise _Stop
        local = name.rsplit("}", 1)[-1].rsplit(":", 1)[-1].lower()
        values = " ".join(attributes.values())
        space = self._spaces.get(name.rpartition(":")[0], "")
        self._judge_space(space, local, name, attributes)
        if _JAVA.search(values):
            why = "a reader that makes Java objects of such names runs commands or fetches code"
            self._sign(MALICIOUS, "java", f"<{shown(name)}> names {shown(values)}", why)
        if local == "include" and space == _INCLUDE:
            why = "a parser that follows it puts that file into the model"
            self._sign(MALICIOUS, "xinclude", f"an inclusion of {shown(attributes.get('href', ''))}", why)
        elif local == "java" and "XMLDecoder" in values:
            self._sign(
                MALICIOUS,
                "xmldecoder",
                f"an object of {shown(values)}",
                "Java's XMLDecoder calls any method that it names",
            )
        elif local == "script" or ("extension" in map(str.lower, self._path[-3:]) and _SCRIPT.search(values)):
            what = f"<{shown(name)}> with {shown(values or 'a script')}"
            self._sign(SUSPICIOUS, "script", what, "what reads such extensions runs it")
        elif any(key.lower().startswith("on") and _SCRIPT.search(value) for key, value in attributes.items()):
            self._sign(SUSPICIOUS, "script", f"a script on <{shown(name)}>", "a viewer runs it")

    def _declare(self, attributes: dict[str, str]) -> None:
        for key, value in attributes.items():
            if key == "xmlns" or key.startswith("xmlns:"):
                if len(self._spaces) < _PREFIXES:
                    self._spaces[key[6:]] = value
                if _BRIDGE.search(value):
                    why = "a processor of stylesheets that knows it calls any function of that language"
                    self._sign(MALICIOUS, "stylesheet", f"the namespace {shown(value)}", why)

    def _judge_space(self, space: str, local: str, name: str, attributes: dict[str, str]) -> None:
        """Programs of XSLT, which some readers of XML run."""
        inside = any(self._spaces.get(item.rpartition(":")[0]) == _STYLE for item in self._path[-_DEEPEST:])
        if space == _STYLE and len(self._path) == 1:
            self._sign(SUSPICIOUS, "stylesheet", f"a stylesheet <{shown(name)}>", "it is a program, and no model")
        if not inside:
            return
        reads = next((value for value in attributes.values() if _READS.search(value)), "")
        if local == "script" or (local in ("import", "include") and attributes.get("href")) or reads:
            what = f"<{shown(name)}> {shown(reads or attributes.get('href', '') or 'with a script')} in a stylesheet"
            self._sign(MALICIOUS, "stylesheet", what, "what applies it runs that, or opens that file or address")

    def _network(self, name: str, attributes: dict[str, str]) -> None:
        if self._path == ["net"] and "version" in attributes:
            why = "its layers can name extensions, which are libraries that its reader loads"
            self._sign(UNKNOWN, "openvino", f"the OpenVINO network {shown(attributes.get('name', ''))}", why)

    def end(self, name: str) -> None:
        if self._path:
            self._path.pop()

    def text(self, data: str) -> None:
        inside = [name.lower().rsplit(":", 1)[-1] for name in self._path[-4:]]
        if "extension" in inside and _SCRIPT.search(data):
            self._sign(
                SUSPICIOUS, "script", f"an extension with {shown(data.strip())}", "what reads such extensions runs it"
            )


def _claims(source: Source) -> bool:
    head = source.head
    if source.inert or not head:
        return False
    if head[:4] in _WIDE:
        return True
    if head[0] not in _FIRSTS[:-1]:
        return False
    begin = starts(source)
    if _PAGE.match(begin):
        return False  # a page of a browser's
    hostile = begin.startswith("<") and any(word in head for word in (b"XInclude", b"<!ENTITY", b"XSL/Transform"))
    return begin.startswith("<!--") or hostile or _is_sure(source, begin)


def _is_sure(source: Source, begin: str) -> bool:
    """Whether it is meant to be XML; notes and pages may begin with a comment too."""
    return (source.name.endswith(_ENDS) and begin.startswith("<")) or bool(_BEGIN.match(begin))


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    if source.size > desk.limits.text:
        raise Damaged(f"expected XML of at most {desk.limits.text} bytes, got {source.size}", 0)
    from xml.parsers import expat

    parser = expat.ParserCreate()
    look = _Look(source, parser)
    fault: Damaged | None = None
    try:
        for at in range(0, source.size, _STEP):
            desk.meter.tick()
            parser.Parse(source.read(at, _STEP), at + _STEP >= source.size)
    except _Stop:
        pass
    except (expat.ExpatError, ValueError, LookupError) as error:
        fault = Damaged(f"expected XML, got a fault: {shown(str(error))}", max(0, parser.ErrorByteIndex))
        if "amplification" in str(error):  # by libexpat's own guard
            why = "a parser that expands it runs out of memory"
            look.signs.append(
                noted(source, MALICIOUS, "xml/entity-bomb", "entities that grow", why=why, mend=_MEND, at=0)
            )
    yield from dict.fromkeys(look.signs)
    wide = source.head[:2] in (b"\xff\xfe", b"\xfe\xff")
    yield from secrets_in(source, source.read().decode("utf-16" if wide else "utf-8", "replace"))
    if fault is not None and (_is_sure(source, starts(source)) or source.head[:4] in _WIDE):
        raise fault


READERS = (Reader("xml", _claims, _read, firsts=_FIRSTS),)
