"""Manifests: which files belong together, and what is wrong with a folder that claims to be them.

Paths are those of every system at once: `/` between parts, relative, no `.` or `..`, Unicode NFC, no backslash and no
control character, and no two that differ only in case, so that the same manifest means the same files on Linux, macOS
and Windows.
"""

from __future__ import annotations

import enum
import itertools
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from casemate.errors import FormatError, UsageError
from casemate.formats import canonical, digests

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from casemate.formats.canonical import Json

__all__ = ["Entry", "Manifest", "Problem", "ProblemKind", "from_json", "of_bytes", "of_files", "verify"]

_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")  # with bidi marks


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One file: relative path, size in bytes, `sha256:<hex>` of its content; plain data, judged by its readers."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A set of files, kept sorted by path, so that the order of naming them does not matter."""

    entries: tuple[Entry, ...]
    version: int = 1

    def __post_init__(self) -> None:
        """Sort."""
        object.__setattr__(self, "entries", tuple(sorted(self.entries)))

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the canonical JSON of `to_json()`: changes with any path, size or content."""
        return canonical.digest(self.to_json())

    def to_json(self) -> dict[str, Json]:
        """Plain JSON; `from_json(canonical.dumps(m.to_json())) == m`."""
        return {
            "entries": [{"digest": entry.digest, "path": entry.path, "size": entry.size} for entry in self.entries],
            "version": self.version,
        }


class ProblemKind(enum.StrEnum):
    """What can be wrong with a folder or with the manifest it is held against."""

    MISSING = "missing"
    ADDED = "added"
    SIZE = "size"
    DIGEST = "digest"
    LINK = "link"
    NOT_A_FILE = "not_a_file"
    UNREADABLE = "unreadable"
    ESCAPES_ROOT = "escapes_root"
    ABSOLUTE = "absolute"
    CASE_FOLD = "case_fold"
    NOT_NFC = "not_nfc"
    UNSAFE_NAME = "unsafe_name"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One difference: where, of which kind, and in words. Unprintable characters of the path are escaped."""

    path: str
    kind: ProblemKind
    detail: str


def of_files(root: str | os.PathLike[str], paths: Iterable[str | os.PathLike[str]] | None = None) -> Manifest:
    """Manifest of regular files below a folder, `paths` relative to it; without `paths`, of all of them.

    Raises `UsageError` if one is missing, a link, or not a regular file; `FormatError` if a name is not portable.
    """
    found = _walk(root)
    names = (
        found
        if paths is None
        else [path.as_posix() if isinstance(path, PurePath) else os.fspath(path) for path in paths]
    )
    entries = []
    for name in names:
        _refuse_name(name)
        item = found.get(name)
        if item is None or item.kind is not None:
            got = "nothing there" if item is None else item.detail
            raise UsageError(f"expected a regular file {name} below {root}, got {got}: copy the file itself there")
        entries.append(Entry(name, item.size, digests.sha256_file(item.file)))
    return _refuse_clashes(Manifest(tuple(entries)))


def of_bytes(contents: Mapping[str, bytes]) -> Manifest:
    """Manifest of contents in memory, by relative path; equal to `of_files` of the same files.

    Raises `FormatError` if a name is not portable.
    """
    for name in contents:
        _refuse_name(name)
    return _refuse_clashes(
        Manifest(tuple(Entry(name, len(data), digests.sha256_bytes(data)) for name, data in contents.items()))
    )


def from_json(data: bytes | str) -> Manifest:
    """Read a manifest that may be hostile.

    Raises `FormatError`: not JSON, an unknown key or version, a size or digest that is none, a path that is absolute,
    climbs with `..`, holds a backslash or a control character, is not NFC, occurs twice or differs from another only
    in case.
    """
    value = canonical.loads(data)
    if not isinstance(value, dict) or set(value) != {"entries", "version"}:
        raise FormatError("expected a manifest with the keys entries and version, got something else: make it again")
    if type(value["version"]) is not int or value["version"] != 1:
        raise FormatError(
            f"expected manifest version 1, got {value['version']!r:.20}: read it with the release that wrote it"
        )
    entries = value["entries"]
    if not isinstance(entries, list):
        raise FormatError("expected a list of entries, got something else: make the manifest again")
    return _refuse_clashes(Manifest(tuple(_entry(item) for item in entries)))


def verify(manifest: Manifest, root: str | os.PathLike[str]) -> tuple[Problem, ...]:
    """Everything that differs between a manifest and a folder, sorted by path; empty if they agree.

    The folder is walked without following links and each file read once; a manifest's path is only ever compared with
    those found, never opened, so a hostile one reaches nothing outside.

    Raises `UsageError` if `root` is not a folder.
    """
    found = _walk(root)
    listed = {entry.path: entry for entry in manifest.entries}
    problems = [problem for name in listed for problem in _name_problems(name)]
    problems += [problem for name in found if name not in listed for problem in _name_problems(name)]
    problems += [
        Problem(_shown(first.path), ProblemKind.DUPLICATE, "the manifest lists it twice")
        for first, second in itertools.pairwise(manifest.entries)
        if first.path == second.path
    ]
    problems += _clashes([*listed, *(name for name in found if name not in listed)])
    for name, item in found.items():
        problems += _compare(name, listed.get(name), item)
    problems += [
        Problem(_shown(name), ProblemKind.MISSING, "not in the folder") for name in listed if name not in found
    ]
    return tuple(sorted(problems))


@dataclass(frozen=True, slots=True)
class _Found:
    file: Path
    size: int
    kind: ProblemKind | None
    detail: str = ""


def _walk(root: str | os.PathLike[str]) -> dict[str, _Found]:
    top = Path(root)
    if not top.is_dir():
        raise UsageError(f"expected a folder, got {top}: check the path")
    return dict(sorted(_walk_below(top, "")))


def _walk_below(folder: Path, prefix: str) -> Iterator[tuple[str, _Found]]:
    try:
        items = list(os.scandir(folder))
    except OSError as error:
        yield prefix.rstrip("/"), _Found(folder, 0, ProblemKind.UNREADABLE, f"cannot be read: {error.strerror}")
        return
    for item in items:
        name, file = prefix + item.name, Path(item.path)
        if item.is_symlink() or (hasattr(item, "is_junction") and item.is_junction()):  # junctions: Windows
            yield name, _Found(file, 0, ProblemKind.LINK, "a link, whose target can change")
        elif item.is_dir(follow_symlinks=False):
            yield from _walk_below(file, name + "/")
        elif item.is_file(follow_symlinks=False):
            yield name, _Found(file, item.stat(follow_symlinks=False).st_size, None)
        else:
            yield name, _Found(file, 0, ProblemKind.NOT_A_FILE, "a device, pipe or socket")


def _compare(name: str, entry: Entry | None, item: _Found) -> list[Problem]:
    shown = _shown(name)
    problems = [] if item.kind is None else [Problem(shown, item.kind, item.detail)]
    if entry is None:
        return [*problems, Problem(shown, ProblemKind.ADDED, "not in the manifest")]
    if problems:
        return problems
    if item.size != entry.size:
        return [Problem(shown, ProblemKind.SIZE, f"expected {entry.size} bytes, got {item.size}")]
    try:
        digest = digests.sha256_file(item.file)
    except UsageError as error:
        return [Problem(shown, ProblemKind.UNREADABLE, str(error))]
    return (
        [] if digest == entry.digest else [Problem(shown, ProblemKind.DIGEST, f"expected {entry.digest}, got {digest}")]
    )


def _entry(item: Json) -> Entry:
    if not isinstance(item, dict) or set(item) != {"digest", "path", "size"}:
        raise FormatError(f"expected an entry with digest, path and size, got {item!r:.80}: make the manifest again")
    path, size, digest = item["path"], item["size"], item["digest"]
    if (
        not isinstance(path, str)
        or type(size) is not int
        or size < 0
        or not isinstance(digest, str)
        or not digests.is_digest(digest)
    ):
        raise FormatError(
            f"expected a path, a size in bytes and sha256:<hex>, got {item!r:.120}: make the manifest again"
        )
    _refuse_name(path)
    return Entry(path, size, digest)


def _name_problems(name: str) -> list[Problem]:
    parts = name.split("/")
    problems = []
    if name.startswith("/") or _DRIVE.match(name):
        problems.append((ProblemKind.ABSOLUTE, "expected a path relative to the folder"))
    if ".." in parts:
        problems.append((ProblemKind.ESCAPES_ROOT, "climbs out of the folder"))
    elif not {"", "."}.isdisjoint(parts[1:] if name.startswith("/") else parts):
        problems.append((ProblemKind.UNSAFE_NAME, "has an empty part or a part '.'"))
    if "\\" in name or _CONTROL.search(name):
        problems.append((ProblemKind.UNSAFE_NAME, "has a backslash, a control character or bytes that are not UTF-8"))
    if not unicodedata.is_normalized("NFC", name):
        problems.append((ProblemKind.NOT_NFC, "is not in Unicode normal form C: another name looks the same"))
    return [Problem(_shown(name), kind, detail) for kind, detail in problems]


def _clashes(names: Iterable[str]) -> list[Problem]:
    first: dict[str, str] = {}
    problems = []
    for name in sorted(names):
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        other = first.setdefault(key, name)
        if other != name:
            problems.append(
                Problem(_shown(name), ProblemKind.CASE_FOLD, f"differs from {_shown(other)} only in case or form")
            )
    return problems


def _refuse_name(name: str) -> None:
    for problem in _name_problems(name):
        raise FormatError(
            f"expected a portable relative path, got {problem.path}, which {problem.detail}: rename the file"
        )


def _refuse_clashes(manifest: Manifest) -> Manifest:
    names = [entry.path for entry in manifest.entries]
    if len(set(names)) != len(names):
        twice = next(name for name, following in itertools.pairwise(names) if name == following)
        raise FormatError(f"expected each path once, got {_shown(twice)} twice: make the manifest again")
    for problem in _clashes(names):
        raise FormatError(f"expected portable names, got {problem.path}, which {problem.detail}: rename one")
    return manifest


def _shown(name: str) -> str:
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", name)
