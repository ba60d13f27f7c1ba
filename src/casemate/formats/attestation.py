"""Attestations: signed statements about bytes, in the forms that other tools already read.

A statement is an in-toto Statement v1 (in-toto attestation framework, spec/v1/statement.md): subjects by name and
SHA-256, and a predicate of a declared type. It travels in a DSSE envelope (secure-systems-lab/dsse, envelope.md) and
is signed with Ed25519 over the pre-authentication encoding (protocol.md), which binds the type of the payload to its
bytes.

A valid signature says who signed what, not that it is true or still holds: the caller compares `subject_digests` with
what is in front of it and `Attestation.expires` with its clock.
"""

from __future__ import annotations

import base64
import binascii
import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from casemate.errors import FormatError, IntegrityError, UsageError
from casemate.formats import canonical, digests, keys
from casemate.formats.provenance import Provenance

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from casemate.formats.canonical import Json

__all__ = [
    "AUDIT_PREDICATE_TYPE",
    "FILES_PREDICATE_TYPE",
    "PAYLOAD_TYPE",
    "STATEMENT_TYPE",
    "Attestation",
    "FilesAttestation",
    "audit_predicate",
    "checked",
    "files_predicate",
    "pae",
    "sign",
    "signers",
    "statement",
    "subject_digests",
    "verify",
]

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
AUDIT_PREDICATE_TYPE = "urn:casemate:audit:1"
FILES_PREDICATE_TYPE = "urn:casemate:files:1"

_MAX_SIGNATURES = 100
_TIMES = ("audited", "created", "expires")


@dataclass(frozen=True, slots=True)
class Attestation:
    """What an audit attests: which bundle, by which report, under which policy, with which verdict, and until when.

    Digests are `sha256:<hex>`; `created` and `expires` are aware, kept in UTC, and `created < expires`. What follows
    may be absent: `audited`, when the report was made; `policy`, which has `policy_digest`; `provenance`, the files
    that held the bundle's model.

    Raises `FormatError` on construction if not.
    """

    bundle_digest: str
    report_digest: str
    policy_digest: str
    verdict: str
    created: datetime.datetime
    expires: datetime.datetime
    casemate_version: str
    audited: datetime.datetime | None = None
    policy: Mapping[str, Json] | None = None
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        """Check all fields, and bring times to UTC, so that equal instants are equal records."""
        for digest in (self.bundle_digest, self.report_digest, self.policy_digest):
            digests.hex_of(digest)
        for name in ("verdict", "casemate_version"):
            _refuse_text(name, getattr(self, name))
        _bring_to_utc(self, "created", "expires", *(("audited",) if self.audited is not None else ()))
        if self.policy is not None and canonical.digest(self.policy) != self.policy_digest:
            raise FormatError("expected the policy of policy_digest, got another: sign again")

    @property
    def measured(self) -> datetime.datetime:
        """When the audit was made: its report's time, or where that is not attested the signature's."""
        return self.created if self.audited is None else min(self.audited, self.created)

    def to_json(self) -> dict[str, Json]:
        """Plain JSON; `Attestation.from_json(p.to_json()) == p`."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _plain(value) for name, value in plain.items() if value is not None}

    @classmethod
    def from_json(cls, value: object) -> Attestation:
        """Read one strictly.

        Raises `FormatError` for a missing or unknown key and for any value the constructor refuses.
        """
        return cls(**_read(value, cls, optional={"audited", "policy", "provenance"}, what="an audit predicate"))


@dataclass(frozen=True, slots=True)
class FilesAttestation:
    """What a signature of files attests: these files, made of this, until when; nothing of how good they are.

    Raises `FormatError` on construction as `Attestation` does.
    """

    provenance: Provenance
    created: datetime.datetime
    expires: datetime.datetime
    casemate_version: str

    def __post_init__(self) -> None:
        """Check all fields, and bring times to UTC."""
        _refuse_text("casemate_version", self.casemate_version)
        _bring_to_utc(self, "created", "expires")

    def to_json(self) -> dict[str, Json]:
        """Plain JSON; `FilesAttestation.from_json(p.to_json()) == p`."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_json(cls, value: object) -> FilesAttestation:
        """Read one strictly; raises `FormatError`."""
        return cls(**_read(value, cls, optional=set(), what="a predicate of files"))


def statement(
    subjects: Mapping[str, str],
    predicate: Attestation | FilesAttestation | Mapping[str, object],
    *,
    predicate_type: str | None = None,
) -> dict[str, Json]:
    """Build an in-toto statement; `subjects` maps a name to `sha256:<hex>`; the type is by default its predicate's.

    Raises `UsageError` without subjects; `FormatError` for a digest or predicate that is none.
    """
    if not subjects:
        raise UsageError("expected at least one subject, got none: name what the statement is about")
    plain = predicate.to_json() if isinstance(predicate, Attestation | FilesAttestation) else predicate
    own = FILES_PREDICATE_TYPE if isinstance(predicate, FilesAttestation) else AUDIT_PREDICATE_TYPE
    value = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digests.hex_of(subjects[name])}} for name in sorted(subjects)],
        "predicateType": predicate_type or own,
        "predicate": plain,
    }
    return checked(canonical.loads(canonical.dumps(value)))


def sign(statement: Mapping[str, object], private_key: Ed25519PrivateKey) -> dict[str, Json]:
    """Sign a statement into a DSSE envelope ready for JSON; the same statement and key give the same envelope.

    Raises `FormatError` if the statement is none.
    """
    payload = canonical.dumps(statement)
    checked(canonical.loads(payload))
    signature = private_key.sign(pae(PAYLOAD_TYPE, payload))
    return {
        "payload": base64.b64encode(payload).decode("ascii"),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {"keyid": keys.key_id(private_key.public_key()), "sig": base64.b64encode(signature).decode("ascii")}
        ],
    }


def verify(envelope: Mapping[str, object], public_keys: Iterable[Ed25519PublicKey]) -> dict[str, Json]:
    """Return the statement inside if a trusted key signed it; the payload is not parsed before that.

    Every signature that names a trusted key must hold; signatures of other keys are passed over. A payload changed
    after signing and a well-formed signature over something else look the same, so they share a message.

    Raises `IntegrityError` for anything wrong with the envelope, `UsageError` without public keys.
    """
    trusted = {keys.key_id(key): key for key in public_keys}
    if not trusted:
        raise UsageError("expected at least one public key, got none: say whose signature is trusted")
    if not isinstance(envelope, Mapping):
        raise IntegrityError(f"expected a DSSE envelope, got {type(envelope).__name__}: fetch the attestation again")
    if envelope.get("payloadType") != PAYLOAD_TYPE:
        got = f"{envelope.get('payloadType')!r:.80}"
        raise IntegrityError(
            f"wrong payload type: expected {PAYLOAD_TYPE}, got {got}: this is another kind of envelope"
        )
    payload = _decode("payload", envelope.get("payload"))
    known = [(trusted[name], name, sig) for name, sig in _signatures(envelope.get("signatures")) if name in trusted]
    if not known:
        raise IntegrityError(
            f"unknown key: expected a signature by {', '.join(sorted(trusted))}, got none: check whom to trust"
        )
    for key, name, sig in known:
        _check_signature(key, name, sig, pae(PAYLOAD_TYPE, payload))
    try:
        return checked(canonical.loads(payload))
    except FormatError as error:
        raise IntegrityError(f"signed, but not an in-toto statement: {error}") from error


def signers(envelope: Mapping[str, object]) -> tuple[str, ...]:
    """The ids of the keys that an envelope names, in its order; nothing is checked but its form.

    Raises `IntegrityError` for something else.
    """
    if not isinstance(envelope, Mapping):
        raise IntegrityError(f"expected a DSSE envelope, got {type(envelope).__name__}: fetch the attestation again")
    return tuple(name for name, _ in _signatures(envelope.get("signatures")))


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE pre-authentication encoding: "DSSEv1", then type and payload, each with its length in bytes before it."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def subject_digests(statement: Mapping[str, object]) -> dict[str, str]:
    """Name to `sha256:<hex>` of a statement's subjects.

    Raises `FormatError` if it is not a statement.
    """
    return _subjects(statement.get("subject"))


def audit_predicate(statement: Mapping[str, object]) -> Attestation:
    """Read the audit that a verified statement attests.

    Raises `FormatError` if its predicate is of another type or malformed.
    """
    _refuse_other_type(statement, AUDIT_PREDICATE_TYPE, "give an audit's attestation")
    found = Attestation.from_json(statement.get("predicate"))
    if found.provenance is not None:
        own = {"bundle": found.bundle_digest, "report.json": found.report_digest}
        _refuse_other_subjects(statement, own | found.provenance.subjects)
    return found


def files_predicate(statement: Mapping[str, object]) -> FilesAttestation:
    """Read the files that a verified statement attests.

    Raises `FormatError` if its predicate is of another type or malformed, or names other files than its subjects.
    """
    _refuse_other_type(statement, FILES_PREDICATE_TYPE, "give the attestation of files")
    found = FilesAttestation.from_json(statement.get("predicate"))
    _refuse_other_subjects(statement, found.provenance.subjects)
    return found


def _refuse_other_type(statement: Mapping[str, object], wanted: str, mend: str) -> None:
    kind = statement.get("predicateType")
    if kind != wanted:
        raise FormatError(f"expected predicate type {wanted}, got {kind!r:.80}: {mend}")


def _refuse_other_subjects(statement: Mapping[str, object], wanted: Mapping[str, str]) -> None:
    """Tools that know in-toto read the subjects, we the predicate: both have to say the same."""
    if subject_digests(statement) != wanted:
        raise FormatError("expected the subjects that the predicate names, got others: sign again")


def _read(value: object, cls: type, *, optional: set[str], what: str) -> dict[str, Any]:
    names = [field.name for field in fields(cls)]
    if not isinstance(value, Mapping) or not set(names) - optional <= set(value) <= set(names):
        raise FormatError(f"expected {what} with exactly {', '.join(names)}, got {value!r:.120}: sign again")
    found: dict[str, Any] = {}
    for name, item in value.items():
        if name in ("policy", "provenance"):
            found[name] = Provenance.from_json(item) if name == "provenance" else _mapping(name, item)
        elif not isinstance(item, str):
            raise FormatError(f"expected {name} as text, got {item!r:.40}: sign again")
        else:
            found[name] = canonical.parse_timestamp(item) if name in _TIMES else item
    return found


def _mapping(name: str, value: object) -> Mapping[str, Json]:
    if not isinstance(value, Mapping):
        raise FormatError(f"expected {name} as an object, got {value!r:.40}: sign again")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return canonical.timestamp(value)
    return value.to_json() if isinstance(value, Provenance) else value


def _refuse_text(name: str, text: object) -> None:
    if not isinstance(text, str) or not 0 < len(text) <= 100:
        raise FormatError(f"expected {name} of 1 to 100 characters, got {text!r:.40}: set it")


def _bring_to_utc(record: Attestation | FilesAttestation, *names: str) -> None:
    for name in names:
        moment = canonical.parse_timestamp(canonical.timestamp(getattr(record, name)))
        object.__setattr__(record, name, moment)
    if record.created >= record.expires:
        raise FormatError(
            f"expected created before expires, got {record.created} and {record.expires}: correct the dates"
        )


def checked(value: Json) -> dict[str, Json]:
    """The value, if it has the form of a statement; who signed it is another question. Raises `FormatError` if not."""
    if not isinstance(value, dict) or value.get("_type") != STATEMENT_TYPE:
        raise FormatError(
            f"expected an in-toto statement of type {STATEMENT_TYPE}, got {value!r:.80}: build it with statement()"
        )
    if set(value) != {"_type", "subject", "predicateType", "predicate"}:
        raise FormatError(
            f"expected _type, subject, predicateType and predicate, got {sorted(value)!r:.120}: build it again"
        )
    if not isinstance(value["predicateType"], str) or not isinstance(value["predicate"], dict):
        raise FormatError("expected a predicate object and its type, got something else: build it with statement()")
    _subjects(value["subject"])
    return value


def _subjects(subjects: object) -> dict[str, str]:
    result: dict[str, str] = {}
    for subject in subjects if isinstance(subjects, list) else []:
        name, digest = (subject.get("name"), subject.get("digest")) if isinstance(subject, Mapping) else (None, None)
        text = f"sha256:{digest.get('sha256')}" if isinstance(digest, Mapping) else ""
        if not isinstance(name, str) or name in result or not digests.is_digest(text):
            raise FormatError(
                f"expected subjects with own names and a sha256, got {subject!r:.120}: build it with statement()"
            )
        result[name] = text
    if not result:
        raise FormatError("expected a list of subjects, got none: build it with statement()")
    return result


def _signatures(value: object) -> list[tuple[str, bytes]]:
    if not isinstance(value, list) or not value:
        raise IntegrityError("empty signatures: expected at least one signature, got none: sign it with casemate sign")
    if len(value) > _MAX_SIGNATURES:
        raise IntegrityError(
            f"expected at most {_MAX_SIGNATURES} signatures, got {len(value)}: fetch the attestation again"
        )
    result = []
    for item in value:
        name = item.get("keyid") if isinstance(item, Mapping) else None
        if not isinstance(name, str):
            raise IntegrityError(
                f"expected signatures with keyid and sig, got {item!r:.80}: fetch the attestation again"
            )
        result.append((name, _decode("signature", item.get("sig"))))
    return result


def _decode(what: str, text: object) -> bytes:
    """Accept base64 in one form only: DSSE allows others, which would give one attestation several texts."""
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        data = None
    if data is None or base64.b64encode(data).decode("ascii") != text:
        raise IntegrityError(
            f"non-canonical base64: expected the {what} in standard base64, got {text!r:.40}: fetch it again"
        )
    return data


def _check_signature(key: Ed25519PublicKey, name: str, signature: bytes, message: bytes) -> None:
    from cryptography.exceptions import InvalidSignature

    if len(signature) != 64:
        raise IntegrityError(
            f"bad signature by {name}: expected 64 bytes, got {len(signature)}: fetch the attestation again"
        )
    try:
        key.verify(signature, message)
    except InvalidSignature as error:
        mend = "payload or signature was changed after signing, fetch the attestation again"
        raise IntegrityError(f"bad signature by {name}: expected one over this payload, got another: {mend}") from error
