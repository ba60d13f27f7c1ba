"""Signing files with what they were made of, and holding a signed statement against files, keys and a clock."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casemate.artifacts.policies import weaknesses
from casemate.core.policy import Policy
from casemate.errors import FormatError, IntegrityError, UsageError
from casemate.formats import attestation, canonical, digests, keys, manifest, wire
from casemate.formats.attestation import Attestation, FilesAttestation
from casemate.formats.provenance import Ingredient, Provenance
from casemate.formats.trust import TrustedKey, TrustFile

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from casemate.formats.files import Told
    from casemate.formats.manifest import Manifest

__all__ = [
    "Demands",
    "Verified",
    "code_of",
    "hold_audit",
    "ingredient_of",
    "read_envelope",
    "read_manifest",
    "read_trust",
    "refuse_days",
    "refuse_other_files",
    "sign_files",
    "source_of",
    "valid_until",
    "verify_envelope",
    "verify_ingredients",
]

_SHOWN = 20  # differences that a message lists
_AHEAD = dt.timedelta(minutes=10)  # how far two honest clocks are apart
_SOURCE = re.compile(r"(?P<uri>[^#]+)(?:#sha256=(?P<digest>[0-9a-f]{64}))?")
_CODE = re.compile(r"(?:(?P<uri>.+)@)?(?P<commit>[0-9a-f]{40}|[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Demands:
    """What a statement has to satisfy beside its signature; whatever is given asks for an audit.

    Without a `verdict` an audit must have passed, and a statement without an audit will do. `report` is a digest.
    """

    policy: Policy | None = None
    verdict: str | None = None
    max_age: dt.timedelta | None = None
    report: str | None = None

    @property
    def audit(self) -> bool:
        """Whether only an audit will do."""
        return any(item is not None for item in (self.policy, self.verdict, self.max_age, self.report))


@dataclass(frozen=True, slots=True)
class Verified:
    """A statement whose signature and terms hold: who signed, what was said, of which files."""

    signers: tuple[str, ...]
    body: Attestation | FilesAttestation
    provenance: Provenance

    @property
    def audit(self) -> Attestation | None:
        """The audit, where it is one."""
        return self.body if isinstance(self.body, Attestation) else None


def sign_files(
    provenance: Provenance, key: Ed25519PrivateKey, *, days: int = 90, now: dt.datetime | None = None
) -> dict[str, Any]:
    """A signed statement (DSSE envelope, in-toto) of files and what they were made of, valid for `days`.

    Raises `UsageError` for days that no calendar holds.
    """
    created = (now or dt.datetime.now(dt.UTC)).replace(microsecond=0)
    body = FilesAttestation(provenance, created, valid_until(created, days), version("casemate"))
    return dict(attestation.sign(attestation.statement(provenance.subjects, body), key))


def verify_envelope(
    envelope: Mapping[str, Any], trust: TrustFile, demands: Demands | None = None, *, now: dt.datetime | None = None
) -> Verified:
    """Check signature, key, days and terms of a statement about files; the files themselves are not looked at.

    Raises `IntegrityError`, each with its own message: a signature that does not hold, an unknown, expired or revoked
    key, a statement that has expired or is of the future, of something else than files, no audit where one is demanded,
    another verdict, another report, a weaker policy, an audit that is too old.
    """
    clock = now or dt.datetime.now(dt.UTC)
    asked = demands or Demands()
    statement = attestation.verify(envelope, [key.public_key for key in trust.keys])
    body = _body(statement)
    signers = _valid_signers(envelope, trust, body.created, clock)
    refuse_days(body, clock)
    if body.provenance is None:
        raise IntegrityError("expected a statement about files, got one about a bundle in memory: use casemate sign")
    if isinstance(body, Attestation):
        hold_audit(body, asked, now=clock)
    elif asked.audit:
        raise IntegrityError(
            "expected the attestation of an audit, got a signature of files alone: sign with --report, or demand less"
        )
    return Verified(signers, body, body.provenance)


def hold_audit(body: Attestation, demands: Demands, *, now: dt.datetime) -> None:
    """Raise `IntegrityError` if an audit does not meet the demands; each has its own message."""
    verdict = demands.verdict or "passed"
    if verdict not in (body.verdict, "any"):
        raise IntegrityError(f"expected an audit that {verdict}, got one that was {body.verdict}: mend the model first")
    if demands.report is not None and body.report_digest != demands.report:
        raise IntegrityError(
            f"another report: expected the one that was signed ({body.report_digest[:19]}), got "
            f"{demands.report[:19]}: sign this one"
        )
    if demands.max_age is not None and now - body.measured > demands.max_age:
        raise IntegrityError(
            f"stale audit: expected one of the last {demands.max_age.days} days, got one of "
            f"{body.measured:%Y-%m-%d}: audit again"
        )
    if demands.policy is not None:
        _refuse_weaker(body, demands.policy, now.date())


def refuse_days(body: Attestation | FilesAttestation, now: dt.datetime) -> None:
    """Raise `IntegrityError` for a statement that is of the future, or has expired."""
    if body.created > now + _AHEAD:
        raise IntegrityError(
            f"expected an attestation of the past, got one of {body.created:%Y-%m-%d %H:%M} UTC: check the clocks"
        )
    if now >= body.expires:
        raise IntegrityError(
            f"expected an attestation that is still valid, got one that expired on {body.expires:%Y-%m-%d}: sign again"
        )


def refuse_other_files(wanted: Manifest, path: Path, *, told: Told | None = None) -> None:
    """Raise `IntegrityError` with what differs, if a file or folder is not what a manifest lists."""
    problems = manifest.verify_path(wanted, path, told=told)
    if problems:
        lines = [f"{item.path}: {item.kind.value.replace('_', ' ')} ({item.detail})" for item in problems[:_SHOWN]]
        lines += [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        listed = "".join(f"\n    {line}" for line in lines)
        raise IntegrityError(
            f"expected the {len(wanted.entries)} files that were signed ({wanted.digest[:19]}), got others:{listed}: "
            "do not use them, fetch them again"
        )


def verify_ingredients(
    verified: Verified, envelopes: Sequence[Mapping[str, Any]], trust: TrustFile, *, now: dt.datetime | None = None
) -> dict[str, Verified]:
    """The statements about what the files were made of, by the digest of their manifest, each verified as its own.

    Raises `IntegrityError` for one that does not hold, or that is about nothing in the lineage.
    """
    lineage = verified.provenance.lineage
    named = {item.digest for item in (*lineage.parents, *lineage.data)} - {""}
    found = {}
    for envelope in envelopes:
        part = verify_envelope(envelope, trust, Demands(verdict=None), now=now)
        digest = part.provenance.files.digest
        if digest not in named:
            raise IntegrityError(
                f"another lineage: expected the statement of a parent or of data, got that of {part.provenance.name} "
                f"({digest[:19]}), which is neither: give those that the model was made of"
            )
        found[digest] = part
    return found


def read_envelope(path: Path) -> dict[str, Any]:
    """The signed envelope in a file, ours or a Sigstore bundle, not verified yet.

    Raises `FormatError` for a file that holds none, `UsageError` for one that cannot be read.
    """
    try:
        found: Any = canonical.loads(_bytes(path))
    except FormatError as error:
        raise FormatError(f"expected an attestation in {path}, got no JSON ({error}): fetch it again") from error
    if not isinstance(found, dict) or {"mediaType", "payload"}.isdisjoint(found):
        raise FormatError(f"expected an attestation in {path}, got other JSON: name the file that casemate sign wrote")
    return found


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file; raises `FormatError` for a file that holds none, `UsageError` as `read_envelope` does."""
    return manifest.from_json(_bytes(path))


def read_trust(paths: Sequence[Path], revoked: Path | None = None) -> TrustFile:
    """The keys in public key files and trust files together, less those that the file `revoked` revokes.

    Raises `UsageError` for no file, or one that is neither; `FormatError` for a trust file that is malformed.
    """
    if not paths:
        raise UsageError("expected at least one key, got none: say with --key whose signature is trusted")
    found = [_trust(path) for path in paths]
    if revoked is not None:
        gone = TrustFile.load(_bytes(revoked))
        found.append(TrustFile(tuple(key for key in gone.keys if key.revoked is not None)))
    return TrustFile().joined(found)


def ingredient_of(path: Path, *, told: Told | None = None) -> Ingredient:
    """What a parent or a data set is called by: of an attestation or a manifest file what it lists, else of the files.

    The signature of an attestation is not checked here: it is when the lineage is verified. Raises `UsageError` for
    what is not there, `FormatError` for an attestation without files.
    """
    value: Any = None
    if path.is_file() and not path.is_symlink() and path.stat().st_size <= canonical.MAX_BYTES:
        with suppress(FormatError):
            value = canonical.loads(path.read_bytes())
    if isinstance(value, dict) and "payloadType" in value:
        payload = _payload(value, path)
        body = _body(attestation.checked(canonical.loads(payload)))
        if body.provenance is None:
            raise FormatError(f"expected the attestation of files in {path}, got one about a bundle: sign the files")
        part = body.provenance
        return Ingredient(part.name, digest=part.files.digest, attestation=digests.sha256_bytes(payload))
    if isinstance(value, dict) and set(value) == {"entries", "version"}:
        return Ingredient(path.stem, digest=manifest.from_value(value).digest)
    return Ingredient(path.resolve().name, digest=manifest.of_path(path, told=told).digest)


def source_of(text: str) -> Ingredient:
    """`URI` or `URI#sha256=HEX`: where data was fetched from, and of which bytes; raises `UsageError` for another form.

    >>> source_of("https://example.org/adult.csv").uri
    'https://example.org/adult.csv'
    """
    match = _SOURCE.fullmatch(text)
    if match is None:
        raise UsageError(f"expected --source URI or URI#sha256=<64 hex digits>, got {text!r:.120}: write it so")
    return Ingredient(uri=match["uri"], digest=f"sha256:{match['digest']}" if match["digest"] else "")


def code_of(text: str) -> Ingredient:
    """`COMMIT` or `URI@COMMIT`, the commit in full; raises `UsageError` for another form.

    >>> code_of("https://example.org/repo@" + "a" * 40).uri
    'https://example.org/repo'
    """
    match = _CODE.fullmatch(text)
    if match is None:
        raise UsageError(f"expected --code COMMIT or URI@COMMIT in full, got {text!r:.120}: see `git rev-parse HEAD`")
    return Ingredient(uri=match["uri"] or "", commit=match["commit"])


def valid_until(created: dt.datetime, days: int) -> dt.datetime:
    """When a statement ends; raises `UsageError` for days that no calendar holds."""
    try:
        return created + dt.timedelta(days=days)
    except OverflowError as error:
        raise UsageError(f"expected days that a calendar holds, got {days}: choose fewer") from error


def _body(statement: Mapping[str, Any]) -> Attestation | FilesAttestation:
    try:
        if statement.get("predicateType") == attestation.FILES_PREDICATE_TYPE:
            return attestation.files_predicate(statement)
        return attestation.audit_predicate(statement)
    except FormatError as error:
        raise IntegrityError(f"signed, but no statement that this release reads: {error}") from error


def _valid_signers(
    envelope: Mapping[str, Any], trust: TrustFile, signed: dt.datetime, now: dt.datetime
) -> tuple[str, ...]:
    """Those signers whose key counts; one is enough, and without one the first complaint is raised."""
    by_id = {key.id: key for key in trust.keys}
    valid, complaints = [], []
    for name in dict.fromkeys(attestation.signers(envelope)):
        if name in by_id:
            try:
                by_id[name].refuse(signed=signed, now=now)
            except IntegrityError as error:
                complaints.append(error)
            else:
                valid.append(name)
    if not valid:
        raise complaints[0]
    return tuple(valid)


def _refuse_weaker(body: Attestation, demanded: Policy, today: dt.date) -> None:
    if body.policy is None:
        if body.policy_digest != canonical.digest(canonical.loads(wire.write(demanded, Policy))):
            raise IntegrityError("expected an audit under this policy, got one under another: audit under this policy")
        return
    try:
        attested: Policy = wire.read(canonical.dumps(body.policy), Policy)
    except FormatError as error:
        raise IntegrityError(f"signed, but no policy that this release reads: {error}") from error
    found = weaknesses(attested, demanded, today)
    if found:
        raise IntegrityError(
            f"weaker policy: expected an audit under this policy or a stricter one, got one under another that "
            f"{'; '.join(found[:_SHOWN])}: audit under this policy"
        )


def _payload(envelope: Mapping[str, Any], path: Path) -> bytes:
    try:
        return base64.b64decode(envelope.get("payload") or "", validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise FormatError(f"expected an attestation in {path}, got a payload that is not base64: fetch it") from error


def _trust(path: Path) -> TrustFile:
    data = _bytes(path)
    if data.lstrip()[:1] == b"{":
        return TrustFile.load(data)
    return TrustFile((TrustedKey(keys.load_public(path, pem=data).public_bytes_raw()),))


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(canonical.MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"expected a readable file, got {path}: {error.strerror or error}; check the path") from error
