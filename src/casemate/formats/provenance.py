"""Where files come from: their manifest, and the parents, data, sources and code that they were made of.

Each ingredient is written as an in-toto ResourceDescriptor (in-toto attestation framework, spec/v1): a name or a URI
and digests. The digest of files is that of their manifest; a commit's is `gitCommit`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from casemate.errors import FormatError
from casemate.formats import digests, manifest
from casemate.formats.manifest import Manifest

if TYPE_CHECKING:
    from casemate.formats.canonical import Json

__all__ = ["Ingredient", "Lineage", "Provenance"]

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST = 2000  # characters of a name or a URI
_MOST = 1000  # ingredients of a kind


@dataclass(frozen=True, slots=True, order=True)
class Ingredient:
    """One thing that something was made of; at least one of `name`, `uri`, `digest` and `commit` is there.

    `digest` (`sha256:<hex>`) is that of its manifest, or for a source of its bytes; `commit` is a full git commit id;
    `attestation` the digest of the statement that was at hand about it.

    Raises `FormatError` for a value of another form.
    """

    name: str = ""
    uri: str = ""
    digest: str = ""
    commit: str = ""
    attestation: str = ""

    def __post_init__(self) -> None:
        """Check every part."""
        for text in (self.name, self.uri):
            _refuse_unplain(text, "a name or URI of an ingredient")
        for digest in (self.digest, self.attestation):
            if digest:
                digests.hex_of(digest)
        if self.commit and not _COMMIT.fullmatch(self.commit):
            raise FormatError(
                f"expected a full commit id of 40 or 64 hex digits, got {self.commit!r:.80}: see `git rev-parse HEAD`"
            )
        if not (self.name or self.uri or self.digest or self.commit):
            raise FormatError("expected an ingredient with a name, a URI or a digest, got an empty one: name it")

    def to_json(self) -> dict[str, Json]:
        """A ResourceDescriptor: keys without a value are left out."""
        found: dict[str, Json] = {key: text for key, text in (("name", self.name), ("uri", self.uri)) if text}
        digest: dict[str, Json] = {"sha256": digests.hex_of(self.digest)} if self.digest else {}
        if self.commit:
            digest["gitCommit"] = self.commit
        if digest:
            found["digest"] = digest
        if self.attestation:
            found["annotations"] = {"attestation": self.attestation}
        return found

    @classmethod
    def from_json(cls, value: object) -> Ingredient:
        """Read one strictly; raises `FormatError`."""
        plain = _plain(value, {"annotations", "digest", "name", "uri"}, "an ingredient")
        digest = _plain(plain.get("digest", {}), {"gitCommit", "sha256"}, "digests")
        notes = _plain(plain.get("annotations", {}), {"attestation"}, "annotations")
        made = cls(
            name=_text(plain, "name"),
            uri=_text(plain, "uri"),
            digest=f"sha256:{_text(digest, 'sha256')}" if "sha256" in digest else "",
            commit=_text(digest, "gitCommit"),
            attestation=_text(notes, "attestation"),
        )
        if made.to_json() != plain:
            raise FormatError(f"expected an ingredient without empty parts, got {value!r:.120}: sign again")
        return made


@dataclass(frozen=True, slots=True)
class Lineage:
    """What files were made of: models they descend from, data they saw, sources they were fetched from, code."""

    parents: tuple[Ingredient, ...] = ()
    data: tuple[Ingredient, ...] = ()
    sources: tuple[Ingredient, ...] = ()
    code: tuple[Ingredient, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """Plain JSON, with all four lists."""
        return {part.name: [item.to_json() for item in getattr(self, part.name)] for part in fields(self)}

    @classmethod
    def from_json(cls, value: object) -> Lineage:
        """Read one strictly; raises `FormatError`."""
        names = [part.name for part in fields(cls)]
        if not isinstance(value, Mapping) or set(value) != set(names):
            raise FormatError(f"expected a lineage with {', '.join(names)}, got {value!r:.120}: sign again")
        for name in names:
            if not isinstance(value[name], list) or len(value[name]) > _MOST:
                raise FormatError(f"expected a list of at most {_MOST} {name}, got {value[name]!r:.80}: sign again")
        return cls(**{name: tuple(Ingredient.from_json(item) for item in value[name]) for name in names})


@dataclass(frozen=True, slots=True)
class Provenance:
    """Files under the name they were signed by, and what they were made of.

    Raises `FormatError` for a name that is empty, long or not printable.
    """

    name: str
    files: Manifest
    lineage: Lineage = field(default_factory=Lineage)

    def __post_init__(self) -> None:
        """Check the name."""
        _refuse_unplain(self.name, "a name")
        if not self.name:
            raise FormatError("expected a name of the files, got none: name them")

    @property
    def subjects(self) -> dict[str, str]:
        """The subjects of a statement: the manifest as `files`, each file as `files/<path>`, for other tools."""
        return {"files": self.files.digest} | {f"files/{item.path}": item.digest for item in self.files.entries}

    def to_json(self) -> dict[str, Json]:
        """Plain JSON; `Provenance.from_json(p.to_json()) == p`."""
        return {"files": self.files.to_json(), "lineage": self.lineage.to_json(), "name": self.name}

    @classmethod
    def from_json(cls, value: object) -> Provenance:
        """Read one strictly; raises `FormatError`."""
        if not isinstance(value, Mapping) or set(value) != {"files", "lineage", "name"}:
            raise FormatError(f"expected a provenance with files, lineage and name, got {value!r:.80}: sign again")
        return cls(_text(value, "name"), manifest.from_value(value["files"]), Lineage.from_json(value["lineage"]))


def _plain(value: object, known: set[str], what: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping) or set(value) - known:
        raise FormatError(f"expected {what} with {', '.join(sorted(known))} only, got {value!r:.120}: sign again")
    return value


def _text(value: Mapping[str, object], key: str) -> str:
    text = value.get(key, "")
    if not isinstance(text, str):
        raise FormatError(f"expected {key} as text, got {text!r:.60}: sign again")
    return text


def _refuse_unplain(text: str, what: str) -> None:
    if len(text) > _LONGEST or _UNPRINTABLE.search(text):
        raise FormatError(f"expected {what} of at most {_LONGEST} printable characters, got {text!r:.80}: shorten it")
