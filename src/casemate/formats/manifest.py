"""Manifests: which files belong together, and what is wrong with a folder that claims to be them.

Paths are those of every system at once: `/` between parts, relative, no `.` or `..`, Unicode NFC, no backslash and no
control character, and no two that differ only in case or in final dots and blanks, so that the same manifest means the
same files on Linux, macOS and Windows.
"""

from __future__ import annotations

import enum
import itertools
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from casemate.errors import CasemateError, FormatError, UsageError
from casemate.formats import canonical, digests, files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from casemate.formats.canonical import Json
    from casemate.formats.files import Found, Stamp, Told

__all__ = [
    "Entry",
    "Manifest",
    "Problem",
    "ProblemKind",
    "from_json",
    "from_value",
    "of_bytes",
    "of_files",
    "of_path",
    "verify",
    "verify_path",
]

_DRIVE = re.compile(r"[A-Za-z]:")
# with ends of lines and marks of direction
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


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

    Raises `UsageError` if one is missing, a link, or not a regular file; `FormatError` if a name is not portable;
    `IntegrityError` if one changes while it is read.
    """
    found = files.walk(root)
    names = (
        list(found)
        if paths is None
        else [path.as_posix() if isinstance(path, PurePath) else os.fspath(path) for path in paths]
    )
    for name in names:
        _refuse_name(name)
        item = found.get(name)
        if item is None or item.kind:
            _refuse_item(name, item, root)
    _refuse_clashes(Manifest(tuple(Entry(name, 0, "") for name in names)))
    return _hashed({name: found[name] for name in names})


def of_path(
    path: str | os.PathLike[str],
    *,
    known: Callable[[str, Stamp], str | None] | None = None,
    done: Callable[[str, Stamp, str], None] | None = None,
    told: Told | None = None,
) -> Manifest:
    """Manifest of a whole folder, or of one file under its own name; files are read in parallel, once each.

    `known(name, stamp)` may give the digest of a file that was read before; `done` hears of each that is read now,
    `told` of the bytes. Raises as `of_files` does, and `UsageError` for a folder without files, whose manifest would
    hold of any other.
    """
    found = files.look(path)
    if not found:
        raise UsageError(f"expected files in {path}, got an empty folder: check the path")
    for name, item in found.items():
        if item.kind:
            _refuse_item(name, item, path)
        _refuse_name(name)
    _refuse_clashes(Manifest(tuple(Entry(name, 0, "") for name in found)))
    return _hashed(found, known=known, done=done, told=told)


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
    return from_value(canonical.loads(data))


def from_value(value: object) -> Manifest:
    """The same of JSON that is read already, such as a part of a signed statement."""
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


def verify(manifest: Manifest, root: str | os.PathLike[str], *, told: Told | None = None) -> tuple[Problem, ...]:
    """Everything that differs between a manifest and a folder, sorted by path; empty if they agree.

    The folder is walked without following links and each file read once, several at a time; a manifest's path is only
    ever compared with those found, never opened, so a hostile one reaches nothing outside. What holds is what was read:
    whoever may write to the folder can change it a moment later.

    Raises `UsageError` if `root` is not a folder.
    """
    return _verified(manifest, files.walk(root), told)


def verify_path(manifest: Manifest, path: str | os.PathLike[str], *, told: Told | None = None) -> tuple[Problem, ...]:
    """`verify` of a folder, or of one file, which has to have the name that is listed; a link is a problem.

    Raises `UsageError` where there is nothing.
    """
    return _verified(manifest, files.look(path), told)


def _hashed(
    found: Mapping[str, Found],
    *,
    known: Callable[[str, Stamp], str | None] | None = None,
    done: Callable[[str, Stamp, str], None] | None = None,
    told: Told | None = None,
) -> Manifest:
    kept = {name: known(name, item.stamp) if known else None for name, item in found.items()}
    fresh = {name: item for name, item in found.items() if kept[name] is None}
    made = files.hashed(fresh, told=told, done=done and (lambda name, digest: done(name, found[name].stamp, digest)))
    entries = []
    for name, item in found.items():
        digest = kept[name] or made[name]
        if isinstance(digest, CasemateError):
            raise digest
        entries.append(Entry(name, item.size, digest))
    return Manifest(tuple(entries))


def _refuse_item(name: str, item: Found | None, root: str | os.PathLike[str]) -> None:
    got = "nothing there" if item is None else item.detail
    raise UsageError(f"expected a regular file {_shown(name)} below {root}, got {got}: copy the file itself there")


def _verified(manifest: Manifest, found: Mapping[str, Found], told: Told | None) -> tuple[Problem, ...]:
    listed = {entry.path: entry for entry in manifest.entries}
    problems = [problem for name in listed for problem in _name_problems(name)]
    problems += [problem for name in found if name not in listed for problem in _name_problems(name)]
    problems += [
        Problem(_shown(first.path), ProblemKind.DUPLICATE, "the manifest lists it twice")
        for first, second in itertools.pairwise(manifest.entries)
        if first.path == second.path
    ]
    problems += _clashes([*listed, *(name for name in found if name not in listed)])
    alike = {name: item for name, item in found.items() if not item.kind and _listed_size(listed, name) == item.size}
    made = files.hashed(alike, told=told)
    for name, item in found.items():
        problems += _compare(name, listed.get(name), item, made.get(name))
    problems += [
        Problem(_shown(name), ProblemKind.MISSING, "not in the folder") for name in listed if name not in found
    ]
    return tuple(sorted(problems))


def _listed_size(listed: Mapping[str, Entry], name: str) -> int:
    entry = listed.get(name)
    return -1 if entry is None else entry.size


def _compare(name: str, entry: Entry | None, item: Found, digest: str | CasemateError | None) -> list[Problem]:
    shown = _shown(name)
    problems = [Problem(shown, ProblemKind(item.kind), item.detail)] if item.kind else []
    if entry is None:
        return [*problems, Problem(shown, ProblemKind.ADDED, "not in the manifest")]
    if problems:
        return problems
    if item.size != entry.size:
        return [Problem(shown, ProblemKind.SIZE, f"expected {entry.size} bytes, got {item.size}")]
    if not isinstance(digest, str):
        return [Problem(shown, ProblemKind.UNREADABLE, str(digest))]
    return (
        [] if digest == entry.digest else [Problem(shown, ProblemKind.DIGEST, f"expected {entry.digest}, got {digest}")]
    )


def _entry(item: object) -> Entry:
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
        key = "/".join(part.rstrip(" .") for part in key.split("/"))  # as Windows reads it
        other = first.setdefault(key, name)
        if other != name:
            problems.append(
                Problem(_shown(name), ProblemKind.CASE_FOLD, f"differs from {_shown(other)} only in case, form or end")
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
