"""Any other text: notes, tables, lists of packages, recipes of containers. No loader runs it; credentials are told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from casemate.formats.scanning.desk import Damaged, Desk, Reader
from casemate.formats.scanning.readers._few import few
from casemate.formats.scanning.readers._plain import decoded, is_text
from casemate.formats.scanning.readers._python_calls import COMMAND
from casemate.formats.scanning.readers._requirements import requirement_signs
from casemate.formats.scanning.readers._secrets import secrets_in
from casemate.formats.scanning.readers._signs import SUSPICIOUS, UNREADABLE, noted, shown
from casemate.formats.scanning.readers.yaml_files import yaml_signs
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["READERS"]

_LISTS = re.compile(r"(?:.*[-_.])?(?:requirements?|constraints?)(?:[-_.].*)?\.(?:txt|in)")
_RUN = re.compile(r"(?:.*\.)?(?:dockerfile|containerfile|makefile)(?:\..*)?|.*\.(?:sh|bash|zsh|bat|cmd|ps1|mk)")
_TAGS = re.compile(r"!!python/|!<tag:yaml\.org,2002:|^%TAG |!%21", re.MULTILINE)
_BACKEND = re.compile(r"^[ \t]{0,40}backend-path[ \t]{0,40}=[^\n]{0,400}", re.MULTILINE)
_FETCHED = re.compile(r"@[ \t]{0,8}(?:(?:git|hg|svn|bzr)\+|https?://|file:)[^\s\"']{1,400}")
_FUNCTION = re.compile(r"^[ \t]{0,40}(@\w{1,60})[ \t]{0,40}=[ \t]{0,40}\"([\w.\-]{1,200})\"", re.MULTILINE)
_VERSION = re.compile(r"\.v\d+$")
_OWN = ("spacy", "thinc", "srsly", "prodigy")
_MOST = 100  # findings of one kind
_POINTER = "version https://git-lfs.github.com/spec/"


def _read(source: Source, desk: Desk) -> Iterator[Sign]:
    text = decoded(source, desk)
    desk.meter.tick()
    yield from secrets_in(source, text)
    if _TAGS.search(text) and not source.name.endswith((".md", ".rst")):
        with suppress(Damaged):  # most such texts are no YAML
            yield from yaml_signs(source, text, desk)
    if text.startswith(_POINTER):
        why = "what will be loaded is elsewhere"
        yield noted(
            source, UNREADABLE, "text/pointer", "a pointer of Git LFS instead of the file", why=why,
            mend="fetch the file with git lfs pull, then scan it", at=0,
        )  # fmt: skip
    if _LISTS.fullmatch(source.name[-200:]):
        yield from few(requirement_signs(source, text))
    if source.name in ("pyproject.toml", "setup.cfg", "config.cfg"):
        yield from _project(source, text) if source.name != "config.cfg" else _registered(source, text)
    if _RUN.fullmatch(source.name[-200:]) and (found := COMMAND.search(text)):
        why = "whoever runs this file runs what somebody else chose"
        what = f"the command {shown(found[0])}"
        yield noted(
            source, SUSPICIOUS, "text/command", what, why=why, mend="read it before you run it", at=found.start()
        )


def _project(source: Source, text: str) -> Iterator[Sign]:
    """What installing a project fetches and runs."""
    if found := _BACKEND.search(text):
        what, why = f"the line {shown(found[0].strip())}", "installing runs a build script of its own"
        mend = "read it before you install it"
        yield noted(source, SUSPICIOUS, "project/backend", what, why=why, mend=mend, at=found.start())
    for found in islice(_FETCHED.finditer(text), _MOST):
        what, why = f"the requirement {shown(found[0].strip())}", "installing runs its build script"
        mend = "install from the package index, with versions and hashes"
        yield noted(source, SUSPICIOUS, "requirements/source", what, why=why, mend=mend, at=found.start())


def _registered(source: Source, text: str) -> Iterator[Sign]:
    """Functions that spaCy takes from packages of others (`@readers = "package.name.v1"`)."""
    for found in islice(_FUNCTION.finditer(text), _MOST):
        name = _VERSION.sub("", found[2])
        if "." in name and not name.startswith(_OWN):  # thinc's own have no package before them
            what, why = (
                f"{found[1]} is {shown(found[2])}",
                "loading calls the function that some package has by that name",
            )
            mend = "read that code before you load the model"
            yield noted(source, SUSPICIOUS, "config/function", what, why=why, mend=mend, at=found.start())


READERS = (Reader("text", is_text, _read, last=True, rank=100),)
