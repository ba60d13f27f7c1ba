"""Notebooks of Jupyter: cells as Python and shell, scripts in their outputs. JSON's reader hands them over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers._python_calls import COMMAND
from casemate.formats.scanning.readers._requirements import requirement_signs
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, noted, shown
from casemate.formats.scanning.readers.python_sources import python_signs
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS", "is_notebook", "notebook_signs"]

_SHELL: Final = re.compile(r"\s*(?:\w+\s*=\s*)?(?:!+|%(?:system|sx|sc)\b)(.*)")
_CELL: Final = re.compile(
    r"\s*%%(bash|sh|script|system|sx|!|ruby|perl|javascript|js|html|cmd|powershell)\b[^\n]*\n?(.*)", re.DOTALL
)
_PLAIN: Final = re.compile(
    r"\s*(?:sudo\s+)?(?:(?:python\d?\s+-m\s+)?(?:pip\d?|conda|mamba|uv\s+pip)\s+(?:install|list|show|freeze|uninstall|download)|apt(?:-get)?\s+(?:install|update)|"
    r"ls|pwd|nvidia-smi|head|tail|wc|cat\s+(?!/etc|~)|mkdir|echo|cd|unzip|tar|du|df|free|lscpu|which|tree|git\s+(?:clone|status|log|lfs)|"
    r"wget|curl|python\d?\s+(?:--version|-V)|kaggle|gdown|huggingface-cli|jupyter)\b[^|;&`$]*"
)
_ACTIVE: Final = re.compile(
    r"(?i)\b(?:fetch\s*\(|XMLHttpRequest|document\.cookie|kernel\.execute|sendBeacon|eval\s*\(|atob\s*\()|<script(?:(?!<script)[^>]){1,300}src\s*=|<iframe(?:(?!<iframe)[^>]){1,300}src\s*=\s*[\"']?(?:https?:|javascript:)"
)
_MEND: Final = "read the cell before you run it"
_CALLS: Final = "it fetches and runs what somebody else chose, or calls home"


def is_notebook(document: Any) -> bool:
    """Whether parsed JSON is a notebook."""
    return isinstance(document, dict) and (
        isinstance(document.get("cells"), list) or isinstance(document.get("worksheets"), list)
    )


def notebook_signs(source: Source, document: dict[str, Any], desk: Desk) -> Iterator[Sign]:
    """Signs of a notebook that was parsed."""
    sheets = [sheet for sheet in document.get("worksheets") or [] if isinstance(sheet, dict)]
    cells = [*(document.get("cells") or []), *(cell for sheet in sheets for cell in sheet.get("cells") or [])]
    for number, cell in enumerate(cells, 1):
        desk.meter.tick()
        if isinstance(cell, dict):
            if cell.get("cell_type") == "code":
                text = _text(cell.get("source", cell.get("input")))
                yield from _cell(source.member(f"cell {number}", text.encode("utf-8", "replace")), text, desk)
            for output in cell.get("outputs") or []:
                if isinstance(output, dict):
                    yield from _output(source, number, output)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "".join(item for item in value if isinstance(item, str))
    return value if isinstance(value, str) else ""


def _cell(source: Source, text: str, desk: Desk) -> Iterator[Sign]:
    whole = _CELL.match(text)
    if whole:
        yield from (
            _shell(source, whole[2]) if whole[1] not in ("javascript", "js", "html") else _script(source, whole[2])
        )
        return
    python = []
    for line in text.splitlines():
        shell = _SHELL.match(line)
        if shell:
            yield from _shell(source, shell[1])
        magic = shell or re.match(r"\s*(?:%{1,2}[a-zA-Z]|\?|\w[\w.]*\?{1,2}\s*$)", line)
        python.append(re.match(r"\s*", line)[0] + "pass" if magic else line)  # type: ignore[index]
    try:
        yield from python_signs(source, "\n".join(python), desk, imported=False)
    except Damaged as error:
        why = "what could not be parsed could not be judged"
        if COMMAND.search(text) or "exec" in text or "eval" in text or "import" in text:
            yield noted(source, SUSPICIOUS, "notebook/cell", str(error), why=why, mend=_MEND, at=error.offset)


def _shell(source: Source, command: str) -> Iterator[Sign]:
    if found := COMMAND.search(command):
        yield noted(
            source, MALICIOUS, "notebook/command", f"the command {shown(found[0])}", why=_CALLS, mend=_MEND, at=0
        )
        return
    for line in filter(None, (part.strip() for part in command.splitlines())):
        if re.search(r"\bpip\d?\s+install\b", line):
            yield from requirement_signs(source, re.sub(r".*\binstall\b", "", line, count=1))
        elif not _PLAIN.fullmatch(line) and not line.startswith("#"):
            why = "running the cell runs that command"
            yield noted(source, SUSPICIOUS, "notebook/shell", f"the command {shown(line)}", why=why, mend=_MEND, at=0)


def _script(source: Source, text: str) -> Iterator[Sign]:
    if _ACTIVE.search(text) or len(text.strip()) > 0:
        what, why = (
            f"a cell of JavaScript or HTML: {shown(text.strip())}",
            "a browser runs it with the notebook's rights",
        )
        yield noted(source, SUSPICIOUS, "notebook/script", what, why=why, mend=_MEND, at=0)


def _output(source: Source, number: int, output: dict[str, Any]) -> Iterator[Sign]:
    data = output.get("data")
    for kind, value in data.items() if isinstance(data, dict) else ():
        text = _text(value)
        script = kind == "application/javascript" and text.strip()
        if script or (kind in ("text/html", "image/svg+xml") and _ACTIVE.search(text)):
            what = f"the output of cell {number} holds a script: {shown(text.strip())}"
            why = "a browser runs it when a trusted notebook is opened"
            yield noted(source, SUSPICIOUS, "notebook/script", what, why=why, mend="clear the outputs", at=0)


READERS: tuple[Reader, ...] = ()
