"""Lists of packages: what they install from where else than the package index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from casemate.formats.scanning.desk import Damaged
from casemate.formats.scanning.readers._signs import SUSPICIOUS, noted, shown
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["requirement_signs"]

_OFFICIAL: Final = re.compile(
    r"https://(?:pypi\.org|files\.pythonhosted\.org|download\.pytorch\.org|pypi\.nvidia\.com|pypi\.ngc\.nvidia\.com)(?:/|$)"
)
_FORMS: Final = (
    ("index", r"(?:^|\s)(?:--(?:extra-)?index-url|-i|--find-links|-f)[\s=]+(\S+)", "packages come from another index"),
    ("host", r"(?:^|\s)--trusted-host[\s=]+(\S+)", "packages are taken without checking who sent them"),
    ("source", r"(?:^|\s|@\s*|-e\s+)((?:git|hg|svn|bzr)\+\S+)", "installing runs its build script"),
    ("address", r"(?:^|@\s*)((?:https?|ftp|file)://\S+)", "installing runs its build script"),
    ("shell", r"([;|&`]\s*(?:curl|wget|sh|bash|python\d?|powershell)\b.*|\$\([^)]{0,200}\))", "a shell would run it"),
)  # fmt: skip
_MOST: Final = 1 << 20  # characters
_LONGEST: Final = 20_000  # characters of a line; one with a hundred hashes has 8,000
_COMPILED: Final = tuple((rule, re.compile(form), why) for rule, form, why in _FORMS)


def requirement_signs(source: Source, text: str) -> Iterator[Sign]:
    """Signs of the lines of a `requirements.txt`.

    Raises `Damaged` where it is longer than any.
    """
    if len(text) > _MOST:
        raise Damaged(f"expected a list of packages of at most {_MOST} characters, got {len(text)}", 0)
    at = 0
    for raw in text.splitlines(keepends=True):
        line = re.sub(r"(?:^|\s)#.*", "", raw).strip()
        if len(line) > _LONGEST:
            why, mend = "nobody reads so long a line, and what it installs is not told", "list one package a line"
            what = f"a line of {len(line)} characters"
            yield noted(source, SUSPICIOUS, "requirements/long-line", what, why=why, mend=mend, at=at)
            line = line[:_LONGEST]
        for rule, form, why in _COMPILED:
            found = form.search(line)
            if found and not _OFFICIAL.match(found[1]):
                mend = "install from the package index, with versions and hashes"
                yield noted(
                    source, SUSPICIOUS, f"requirements/{rule}", f"the line {shown(line)}", why=why, mend=mend, at=at
                )
                break
        at += len(raw)
