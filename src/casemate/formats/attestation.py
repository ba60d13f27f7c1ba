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
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from casemate.errors import FormatError, IntegrityError, UsageError
from casemate.formats import canonical, digests, keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from casemate.formats.canonical import Json

__all__ = [
    "AUDIT_PREDICATE_TYPE",
    "PAYLOAD_TYPE",
    "STATEMENT_TYPE",
    "Attestation",
    "audit_predicate",
    "pae",
    "sign",
    "statement",
    "subject_digests",
    "verify",
]

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
AUDIT_PREDICATE_TYPE = "urn:casemate:audit:1"

_MAX_SIGNATURES = 100


@dataclass(frozen=True, slots=True)
class Attestation:
    """What an audit attests: which bundle, by which report, under which policy, with which verdict, and until when.

    Digests are `sha256:<hex>`; `created` and `expires` are aware, kept in UTC, and `created < expires`.

    Raises `FormatError` on construction if not.
    """

    bundle_digest: str
    report_digest: str
    policy_digest: str
    verdict: str
    created: datetime.datetime
    expires: datetime.datetime
    casemate_version: str

    def __post_init__(self) -> None:
        """Check all fields, and bring times to UTC, so that equal instants are equal records."""
        for digest in (self.bundle_digest, self.report_digest, self.policy_digest):
            digests.hex_of(digest)
        for name in ("verdict", "casemate_version"):
            text = getattr(self, name)
            if not isinstance(text, str) or not 0 < len(text) <= 100:
                raise FormatError(f"expected {name} of 1 to 100 characters, got {text!r:.40}: set it")
        for name in ("created", "expires"):
            object.__setattr__(self, name, canonical.parse_timestamp(canonical.timestamp(getattr(self, name))))
        if self.created >= self.expires:
            raise FormatError(
                f"expected created before expires, got {self.created} and {self.expires}: correct the dates"
            )

    def to_json(self) -> dict[str, Json]:
        """Plain JSON; `Attestation.from_json(p.to_json()) == p`."""
        times = {"created": canonical.timestamp(self.created), "expires": canonical.timestamp(self.expires)}
        return asdict(self) | times

    @classmethod
    def from_json(cls, value: object) -> Attestation:
        """Read one strictly.

        Raises `FormatError` for a missing or unknown key and for any value the constructor refuses.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping) or set(value) != set(names):
            raise FormatError(
                f"expected an audit predicate with exactly {', '.join(names)}, got {value!r:.120}: sign again"
            )
        for name in names:
            if not isinstance(value[name], str):
                raise FormatError(f"expected {name} as text, got {value[name]!r:.40}: sign again")
        times = {name: canonical.parse_timestamp(value[name]) for name in ("created", "expires")}
        return cls(**(dict(value) | times))


def statement(
    subjects: Mapping[str, str],
    predicate: Attestation | Mapping[str, object],
    *,
    predicate_type: str = AUDIT_PREDICATE_TYPE,
) -> dict[str, Json]:
    """Build an in-toto statement; `subjects` maps a name to `sha256:<hex>`.

    Raises `UsageError` without subjects; `FormatError` for a digest or predicate that is none.
    """
    if not subjects:
        raise UsageError("expected at least one subject, got none: name what the statement is about")
    plain = predicate.to_json() if isinstance(predicate, Attestation) else predicate
    value = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digests.hex_of(subjects[name])}} for name in sorted(subjects)],
        "predicateType": predicate_type,
        "predicate": plain,
    }
    return _checked(canonical.loads(canonical.dumps(value)))


def sign(statement: Mapping[str, object], private_key: Ed25519PrivateKey) -> dict[str, Json]:
    """Sign a statement into a DSSE envelope ready for JSON; the same statement and key give the same envelope.

    Raises `FormatError` if the statement is none.
    """
    payload = canonical.dumps(statement)
    _checked(canonical.loads(payload))
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
        return _checked(canonical.loads(payload))
    except FormatError as error:
        raise IntegrityError(f"signed, but not an in-toto statement: {error}") from error


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
    kind = statement.get("predicateType")
    if kind != AUDIT_PREDICATE_TYPE:
        raise FormatError(
            f"expected predicate type {AUDIT_PREDICATE_TYPE}, got {kind!r:.80}: give an audit's attestation"
        )
    return Attestation.from_json(statement.get("predicate"))


def _checked(value: Json) -> dict[str, Json]:
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
