"""Whose signatures are trusted: a file of public keys, each with its days and, where it must be, its revocation.

The file is JSON and is trusted as it lies there: keep it under version control beside what it decides. A key counts
from `not_before` to `not_after`, and what it signed counts no longer than the key: without a witness of the time,
nobody can tell a signature made yesterday from one that a thief dates back. A revoked key counts for nothing, whatever
the date of its revocation and of the signature.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from casemate.errors import FormatError, IntegrityError, UsageError
from casemate.formats import canonical, keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from casemate.formats.canonical import Json

__all__ = ["TrustFile", "TrustedKey"]

_TIMES, _WORDS = ("not_before", "not_after", "revoked"), ("owner", "reason")
_OPTIONAL = (*_TIMES, *_WORDS)
_LONGEST = 500  # characters


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key: 32 raw bytes, whose it is, its days (aware, UTC; None is open), and when and why it was revoked.

    Raises `FormatError` for another length, an owner or reason that is long or not printable, days in the wrong order,
    or a revocation without a reason.
    """

    raw: bytes
    owner: str = ""
    not_before: dt.datetime | None = None
    not_after: dt.datetime | None = None
    revoked: dt.datetime | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        """Check the length and the days."""
        if len(self.raw) != 32:
            raise FormatError(f"expected a public key of 32 bytes, got {len(self.raw)}: add it with casemate key trust")
        for name in _WORDS:
            _refuse_unprintable(name, getattr(self, name))
        if self.not_before and self.not_after and self.not_before >= self.not_after:
            raise FormatError(f"expected not_before < not_after of {self.id}, got the reverse: correct the days")
        if (self.revoked is None) != (not self.reason.strip()):
            raise FormatError(f"expected a revocation of {self.id} with a day and a reason, got one alone: give both")

    @property
    def id(self) -> str:
        """The key's id."""
        return keys.key_id(self.public_key)

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The key itself."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        return Ed25519PublicKey.from_public_bytes(self.raw)

    def refuse(self, *, signed: dt.datetime, now: dt.datetime) -> None:
        """Raise `IntegrityError` if what it signed at `signed` does not count at `now`; each case has its words."""
        if self.revoked is not None:
            raise IntegrityError(
                f"revoked key: expected one that is trusted, got {self.id}, revoked on {self.revoked:%Y-%m-%d} "
                f"({self.reason}): sign again with the key that took its place"
            )
        if self.not_after is not None and now >= self.not_after:
            raise IntegrityError(
                f"expired key: expected one that is still valid, got {self.id}, valid until "
                f"{self.not_after:%Y-%m-%d}: sign again with the key that took its place"
            )
        if self.not_before is not None and min(signed, now) < self.not_before:
            raise IntegrityError(
                f"key not valid yet: expected a signature from {self.not_before:%Y-%m-%d} on, got one of "
                f"{signed:%Y-%m-%d} by {self.id}: check the clock and the key's days"
            )

    def to_json(self) -> dict[str, Json]:
        """Plain JSON; what is not set is left out."""
        found: dict[str, Json] = {"id": self.id, "public": base64.b64encode(self.raw).decode()}
        for name in _OPTIONAL:
            value = getattr(self, name)
            if value:
                found[name] = canonical.timestamp(value) if isinstance(value, dt.datetime) else value
        return found


@dataclass(frozen=True, slots=True)
class TrustFile:
    """The keys of a trust file, each once."""

    keys: tuple[TrustedKey, ...] = ()

    def dump(self) -> bytes:
        """Canonical JSON for people, version 1; `TrustFile.load` gives the same back."""
        return canonical.dumps_pretty({"keys": [key.to_json() for key in self.keys], "version": 1})

    @classmethod
    def load(cls, data: bytes | str) -> TrustFile:
        """Read one strictly; raises `FormatError` for anything that `dump` would not write."""
        value = canonical.loads(data)
        if not isinstance(value, dict) or set(value) != {"keys", "version"} or not isinstance(value["keys"], list):
            raise FormatError("expected a trust file with keys and version, got something else: see casemate key trust")
        if type(value["version"]) is not int or value["version"] != 1:
            raise FormatError(f"expected trust file version 1, got {value['version']!r:.20}: use the release it is of")
        found = tuple(_key(item) for item in value["keys"])
        ids = [key.id for key in found]
        if len(set(ids)) != len(ids):
            twice = next(name for name in ids if ids.count(name) > 1)
            raise FormatError(f"expected each key once, got {twice} twice: keep one")
        return cls(found)

    def add(self, key: TrustedKey) -> TrustFile:
        """With one more key; raises `UsageError` if it is there, for then its days would be widened unnoticed."""
        if any(item.id == key.id for item in self.keys):
            raise UsageError(f"expected a new key, got {key.id}, which is there: change its days in the file by hand")
        return TrustFile((*self.keys, key))

    def revoke(self, name: str, *, reason: str, when: dt.datetime) -> TrustFile:
        """With a key revoked; raises `UsageError` for a key that is not there or is revoked already."""
        found = [item for item in self.keys if item.id == name]
        if not found:
            raise UsageError(f"expected a key of the file, got {name}: see casemate key list")
        if found[0].revoked is not None:
            raise UsageError(f"expected a key that is not revoked, got {name}: it was on {found[0].revoked:%Y-%m-%d}")
        gone = replace(found[0], revoked=when, reason=reason)
        return TrustFile(tuple(gone if item.id == name else item for item in self.keys))

    def joined(self, others: Iterable[TrustFile]) -> TrustFile:
        """All keys together; a key that any of them revokes is revoked, else the first entry of a key counts."""
        found: dict[str, TrustedKey] = {}
        for file in (self, *others):
            for key in file.keys:
                before = found.get(key.id)
                if before is None or (key.revoked is not None and before.revoked is None):
                    found[key.id] = key
        return TrustFile(tuple(found.values()))


def _key(item: object) -> TrustedKey:
    if not isinstance(item, Mapping) or not {"id", "public"} <= set(item) <= {"id", "public", *_OPTIONAL}:
        raise FormatError(f"expected a key with id and public, got {item!r:.120}: add it with casemate key trust")
    for name, text in item.items():
        _refuse_unprintable(name, text)
        if not text:
            raise FormatError(f"expected {name} as text, got an empty one: leave it out")
    try:
        raw = base64.b64decode(item["public"], validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    parts: dict[str, Any] = {name: canonical.parse_timestamp(item[name]) for name in _TIMES if name in item}
    key = TrustedKey(raw, **parts, **{name: item[name] for name in _WORDS if name in item})
    if key.to_json() != dict(item):
        raise FormatError(f"expected the key {item['id']!r:.40}, got another under that id: add it again")
    return key


def _refuse_unprintable(name: str, text: object) -> None:
    if not isinstance(text, str) or len(text) > _LONGEST or not text.isprintable():
        raise FormatError(f"expected {name} as at most {_LONGEST} printable characters, got {text!r:.60}: shorten it")
