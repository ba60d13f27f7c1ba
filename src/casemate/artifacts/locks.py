"""Locks: the names and members that a reviewed file holds, so that whatever is new in it tomorrow is seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from casemate.errors import FormatError, UsageError
from casemate.formats import canonical
from casemate.formats.scanning.signs import Level, Place, Scanned, Sign

__all__ = ["Lock", "lock_of", "news", "read_lock"]


@dataclass(frozen=True, slots=True)
class Lock:
    """Per file (as it was named): the names it imports (`module.name`, with `()` where it calls them), its members."""

    files: Mapping[str, tuple[frozenset[str], frozenset[str]]]

    def dump(self) -> bytes:
        """Canonical JSON, version 1; `read_lock` gives the same lock back."""
        plain = {
            path: {"members": sorted(members), "names": sorted(names)} for path, (names, members) in self.files.items()
        }
        return canonical.dumps_pretty({"files": plain, "version": 1})


def lock_of(files: Iterable[Scanned]) -> Lock:
    """What these files hold now."""
    return Lock({scanned.path: (_names(scanned), _members(scanned)) for scanned in files})


def read_lock(path: Path) -> Lock:
    """A lock that was written; raises `UsageError` for a file that is none."""
    try:
        value = canonical.loads(path.read_bytes())
    except (OSError, FormatError) as error:
        raise UsageError(f"expected a lock, got {error}: write one with --write-lock {path}") from error
    if not isinstance(value, dict) or set(value) != {"files", "version"} or value["version"] != 1:
        raise UsageError(f"expected a lock of version 1, got something else in {path}: write it with --write-lock")
    found = {}
    plain = value["files"] if isinstance(value["files"], dict) else {"": None}
    for name, item in plain.items():
        if not isinstance(item, dict) or set(item) != {"members", "names"}:
            raise UsageError(f"expected members and names of {name!r}, got something else in {path}: write it again")
        found[name] = (_texts(item["names"], name, path), _texts(item["members"], name, path))
    return Lock(found)


def news(scanned: Scanned, lock: Lock) -> tuple[Sign, ...]:
    """A sign for each name and member of a file that its lock lacks, or for the file itself."""
    held = lock.files.get(scanned.path)
    if held is None:
        return (_sign("lock/new-file", "a file that the lock does not know", Place(scanned.path)),)
    known = held[0] | {name.removesuffix("()") for name in held[0]}  # what was called may be kept too
    fresh = [("lock/new-name", f"imports {name}", name.removesuffix("()")) for name in _names(scanned) - known]
    fresh += [("lock/new-member", f"holds the member {name}", "") for name in _members(scanned) - held[1]]
    return tuple(_sign(rule, what, Place(scanned.path), subject) for rule, what, subject in sorted(fresh))


def _sign(rule: str, what: str, place: Place, subject: str = "") -> Sign:
    return Sign(
        Level.SUSPICIOUS, rule, what, place,
        "it was not there when the lock was written", "review it, then write the lock again with --write-lock",
        subject=subject,
    )  # fmt: skip


def _names(scanned: Scanned) -> frozenset[str]:
    called = {_plain(f"{item.module}.{item.name}") for item in scanned.used if item.called}
    kept = {_plain(f"{item.module}.{item.name}") for item in scanned.used} - called
    return frozenset({*kept, *(f"{name}()" for name in called)})


def _members(scanned: Scanned) -> frozenset[str]:
    return frozenset(_plain(name) for name, _ in scanned.members)


def _plain(text: str) -> str:
    """Names that are no Unicode as JSON can keep them."""
    return text.encode("utf-8", "backslashreplace").decode()


def _texts(value: object, name: str, path: Path) -> frozenset[str]:
    texts = [item for item in value if isinstance(item, str)] if isinstance(value, list) else None
    if texts is None or not isinstance(value, list) or len(texts) != len(value):
        raise UsageError(f"expected lists of names for {name!r}, got something else in {path}: write it again")
    return frozenset(texts)
