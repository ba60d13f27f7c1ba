"""Code that a model's settings name: read by its syntax in the folder beside them, and the settings judged by it.

transformers (`auto_map`), diffusers, sentence-transformers, MLflow (`loader_module`, `code`) and others import Python
files of the model's own folder. What such a file does when it is imported, or when the class that is named is made from
it, decides how bad it is that the settings name it; so do the files of the same folder that it imports in turn. Nothing
is imported, and no file outside the folder is opened.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections import deque
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Final

from casemate.errors import UsageError
from casemate.formats.scanning.desk import Damaged, Desk
from casemate.formats.scanning.limits import LimitReached, Limits
from casemate.formats.scanning.readers.python_sources import imports_of, module_signs
from casemate.formats.scanning.signs import Level, Place, Scanned, Sign
from casemate.formats.scanning.source import opened
from casemate.formats.scanning.walking import scan_file

__all__ = ["with_own_code"]

_RULES: Final = frozenset({"config/own-code", "config/unknown-module"})
_SETTINGS: Final = (  # that loaders of a model's file read beside it
    "config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json",
    "generation_config.json", "image_processor_config.json", "video_preprocessor_config.json", "adapter_config.json",
    "model_index.json", "modules.json", "MLmodel", "model_config.yaml",
)  # fmt: skip
_GENERATE: Final = "custom_generate/generate.py"  # which transformers runs for `generate(custom_generate=...)`
_TEXTS: Final = frozenset({"json", "yaml", "python", "text", "xml", "jinja"})
_LOADERS: Final = ("_load_pyfunc", "_load_model", "load_model")  # that MLflow calls in a module that it imports
_DOTTED: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*){0,20}")
_PATH: Final = re.compile(r"[\w.\-]+(?:/[\w.\-]+){0,10}")
_FILES: Final = 64  # files of code that one name may lead to
_FOLDERS: Final = 200  # folders beside the settings that are looked into for a component's file
_SECONDS: Final = 10.0  # for all the code that one file's settings lead to
_UNREAD: Final = "what could not be read to its end could not be judged"
_MEND: Final = "read that code before you load the model; better take weights without code"
_Entry = tuple[Path, tuple[str, ...]]


def with_own_code(
    scanned: Scanned, path: Path, *, others: Container[str] = (), limits: Limits | None = None
) -> Scanned:
    """The same file with what the code does that it names.

    `others`: paths that are scanned for themselves, of which nothing is told here. A model's file is judged by the
    settings beside it too, where they name code. Never raises: what cannot be read is told as such.
    """
    named = [sign for sign in scanned.signs if _names_code(sign)]
    model = not named and not _TEXTS & set(scanned.formats)
    if not named and not model:
        return scanned
    folder = _Folder(path.parent, limits or Limits(), others)
    signs: list[Sign] = []
    for sign in scanned.signs:
        signs += folder.judged(sign) if _names_code(sign) else [sign]
    signs += folder.beside() if model else ()
    return dataclasses.replace(scanned, signs=tuple(dict.fromkeys(signs)))


def _names_code(sign: Sign) -> bool:
    return sign.rule in _RULES and bool(sign.subject) and not sign.place.member


class _Folder:
    """A model's folder, the code in it that was read, and the time that is left for the rest."""

    def __init__(self, home: Path, limits: Limits, others: Container[str]) -> None:
        self._home = home
        self._others = others
        self._limits = limits
        self._begun = time.thread_time()
        self._read: dict[_Entry, tuple[Sign, ...]] = {}

    def beside(self) -> Iterator[Sign]:
        """What the settings in the folder lead to, where they name code."""
        for name in _SETTINGS:
            settings = self._file(self._home / name)
            if settings is None or str(settings) in self._others:
                continue
            for sign in filter(_names_code, scan_file(settings, limits=self._limits).signs):
                yield from self.judged(sign)
        generate = self._file(self._home / _GENERATE)
        if generate is not None and str(generate) not in self._others:
            signs = self._signs(generate, ("generate",))
            yield from (sign for sign in signs if sign.level is Level.MALICIOUS)

    def judged(self, sign: Sign) -> Iterator[Sign]:
        """A sign about code, by what that code does; then what was found in it."""
        name = sign.subject
        far = "--" in name or ("/" in name and not name.endswith(".py"))
        start = [] if far else self._located(name)
        if not start:
            lost = "no file of that name lies in its folder, so that what is run is not known"
            yield _told(sign, "it lies in another repository, and was not read" if far else lost)
            return
        code = self._followed(start)
        found = list(dict.fromkeys(item for signs in code.values() for item in signs))
        harm = next((item for item in found if item.level is Level.MALICIOUS), None)
        read = ", ".join(sorted(file.name for file in code)[:6])
        if harm is not None:
            what = f"{sign.what}; {Path(harm.place.file).name}: {harm.what}"
            yield dataclasses.replace(sign, level=Level.MALICIOUS, what=what, why=harm.why, mend=_MEND)
        elif any(item.level is Level.UNREADABLE for item in found):
            yield _told(sign, f"{read} could not be read to the end")
        elif found:
            yield _told(sign, f"{read} was read: {found[0].what}")
        else:
            yield _told(sign, f"{read} was read, and does nothing that is known to be harmful")
        yield from (item for item in found if item.place.file not in self._others)

    def _located(self, name: str) -> list[_Entry]:
        """The files that a dotted name or a path leads to, with the names in them that are loaded."""
        if name.endswith(".py"):
            found = self._file(self._home / name) if _PATH.fullmatch(name) else None
            return [(found, ())] if found is not None else []
        if not _DOTTED.fullmatch(name):
            return []
        module, _, last = name.rpartition(".")
        for dotted, entries in ((name, _LOADERS), (module, (last,))):
            for stem in self._stems(dotted) if dotted else ():
                if (found := self._module(stem)) is not None:
                    return [(found, entries)]
        return [(item, ()) for item in self._siblings(self._home / name)]  # MLflow's `code`: all may be imported

    def _stems(self, dotted: str) -> Iterator[Path]:
        """Where a module may lie: in the folder, in MLflow's `code`, or in the folder of a component (diffusers)."""
        parts = dotted.split(".")
        yield self._home.joinpath(*parts)
        yield self._home.joinpath("code", *parts)
        if len(parts) == 1:
            with os.scandir(self._home) as entries:
                for _, entry in zip(range(_FOLDERS), entries, strict=False):
                    if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                        yield self._home / entry.name / dotted

    def _module(self, stem: Path) -> Path | None:
        return self._file(stem.with_name(f"{stem.name}.py")) or self._file(stem / "__init__.py")

    def _siblings(self, folder: Path) -> list[Path]:
        found = sorted(folder.glob("*.py")) if folder.is_dir() else []
        return [item for item in found[:_FILES] if self._file(item) is not None]

    def _file(self, path: Path) -> Path | None:
        """The file, if it lies in the folder, links followed; the cache of Hugging Face links to its own blobs."""
        if not os.path.lexists(path):
            return None
        try:
            real, root = path.resolve(strict=True), self._home.resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else None
        inside = real.is_relative_to(root) or (blobs is not None and real.parent == blobs)
        return path if inside and real.is_file() else None

    def _followed(self, start: list[_Entry]) -> dict[Path, tuple[Sign, ...]]:
        """The signs of a file of code, and of those in the same folder that it imports, each once."""
        found: dict[Path, tuple[Sign, ...]] = {}
        todo = deque(start)
        while todo:
            path, entries = todo.popleft()
            if path in found:
                continue
            if len(found) >= _FILES or time.thread_time() - self._begun > _SECONDS:
                found[path] = (_unread(path, f"more code than can be read: {len(todo) + 1} files are left"),)
                break
            found[path] = self._signs(path, entries)
            todo += self._imported(path)
        return found

    def _signs(self, path: Path, entries: tuple[str, ...]) -> tuple[Sign, ...]:
        """What one file of code does; one that cannot be read has a sign that says so."""
        kept = self._read.get((path, entries))
        if kept is not None:
            return kept
        signs: list[Sign] = []
        try:
            source = opened(path)
            signs.extend(module_signs(source, Desk((), self._limits, source.size), entries))
        except (Damaged, LimitReached, UsageError) as error:
            signs.append(_unread(path, str(error)))
        self._read[path, entries] = tuple(dict.fromkeys(signs))
        return self._read[path, entries]

    def _imported(self, path: Path) -> Iterator[_Entry]:
        """Files of the folder that a file imports, with the names that it takes from them."""
        try:
            source = opened(path)
            imports = imports_of(source, Desk((), self._limits, source.size))
        except (Damaged, LimitReached, UsageError):
            return  # told when it was read
        for level, module, names in imports:
            base = path.parents[min(level, len(path.parents)) - 1] if level else self._home
            stem = base.joinpath(*module.split(".")) if module else base
            if module and (found := self._module(stem)) is not None:
                yield found, names
            for name in names[:_FILES]:
                if name != "*" and (found := self._module(stem / name)) is not None:
                    yield found, ()


def _told(sign: Sign, more: str) -> Sign:
    return dataclasses.replace(sign, what=f"{sign.what}; {more}")


def _unread(path: Path, what: str) -> Sign:
    return Sign(Level.UNREADABLE, "python/damaged", what, Place(str(path)), _UNREAD, _MEND)
