"""Notebooks of Jupyter: cells as Python and shell, scripts in their outputs. JSON's reader hands them over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers._json import every
from casemate.formats.scanning.readers._python_calls import COMMAND
from casemate.formats.scanning.readers._requirements import requirement_signs
from casemate.formats.scanning.readers._signs import MALICIOUS, SUSPICIOUS, noted, shown
from casemate.formats.scanning.readers.python_sources import python_signs
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS", "is_notebook", "notebook_signs"]

_SHELL: Final = re.compile(
    r"\s*(?:\w+\s*=\s*)?(?:!+|%{1,2}(?:system|sx|sc|alias\s+\w+|bash|sh)\b|(?=%(?:pip|conda|mamba|uv)\b)%)(.*)"
)
_MAGIC: Final = re.compile(r"\s*%{1,2}(run|load|writefile|file|load_ext)\s+(?:-\w+\s+)*(\S+)")
_KNOWN: Final = re.compile(
    r"autoreload|tensorboard|cython|sql|rpy2\.ipython|memory_profiler|line_profiler|dotenv|watermark|wandb|nb_black|"
    r"jupyter_black|lab_black|cudf\.pandas|cuml\.accel|google\.colab\.\w+|bigquery|snakeviz|jupyter_ai\w*|ipython_sql"
)
_PLACES: Final = re.compile(r"://|^[~/]|^\.\.[\\/]|\.(?:bashrc|profile|ssh|zshrc)\b|\.pth$|sitecustomize")
_HANDLER: Final = re.compile(
    r"(?i)<\w+\s(?:[^<>]{0,300}\s)?on\w{3,20}\s*=\s*[\"']?[^\"'>\s]|href\s*=\s*[\"']?javascript:"
)
_JOINED: Final = re.compile(r"^([ \t]*(?:\w+\s*=\s*)?[!%][^\n]*)\\\n", re.MULTILINE)
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
_LINES: Final = 50  # that a command may be broken into
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
            elif cell.get("cell_type") == "markdown":
                text = _text(cell.get("source"))
                if _ACTIVE.search(text) or _HANDLER.search(text):
                    yield _active(source, f"the text of cell {number}", text)
            for output in cell.get("outputs") or []:
                if isinstance(output, dict):
                    yield from _output(source, number, output)

    metadata = document.get("metadata")
    for path, value in every(metadata.get("widgets") if isinstance(metadata, dict) else None, desk.meter.tick):
        if isinstance(value, str) and (_ACTIVE.search(value) or _HANDLER.search(value)):
            yield _active(source, f"the widget {shown('.'.join(map(str, path[-3:])))}", value)


def _active(source: Source, where: str, text: str) -> Sign:
    what, why = f"{where} holds a script: {shown(text.strip())}", "a browser runs it when a trusted notebook is opened"
    return noted(source, SUSPICIOUS, "notebook/script", what, why=why, mend="take it out", at=0)


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
    for _ in range(_LINES):
        text, joined = _JOINED.subn(r"\1", text)
        if not joined:
            break
    for line in text.splitlines():
        if found := _MAGIC.match(line):
            yield from _magic(source, found[1], found[2].strip("\"'"))
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


def _magic(source: Source, name: str, target: str) -> Iterator[Sign]:
    """What a magic of IPython's runs, writes or imports."""
    odd = not _KNOWN.fullmatch(target) if name == "load_ext" else _PLACES.search(target)
    if odd:
        what, why = f"%{name} {shown(target)}", "running the cell runs, writes or imports that"
        yield noted(source, SUSPICIOUS, "notebook/magic", what, why=why, mend=_MEND, at=0)


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
        active = _ACTIVE.search(text) or (kind == "text/markdown" and _HANDLER.search(text))
        if script or (kind in ("text/html", "image/svg+xml", "text/markdown") and active):
            yield _active(source, f"the output of cell {number}", text)


READERS: tuple[Reader, ...] = ()
