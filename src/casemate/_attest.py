"""Attest: sign what an audit said of a bundle, and hold such a statement against the bundle in front of us."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from casemate.artifacts.provenance import Demands, hold_audit, valid_until
from casemate.core.policy import Policy
from casemate.core.report import Report
from casemate.errors import IntegrityError, UsageError
from casemate.formats import attestation, canonical, wire
from casemate.formats.attestation import Attestation

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from casemate.formats.provenance import Provenance

__all__ = ["attest", "hold", "policy_digest"]


def attest(
    report: Report,
    key: Ed25519PrivateKey,
    *,
    days: int = 90,
    now: dt.datetime | None = None,
    provenance: Provenance | None = None,
) -> dict[str, Any]:
    """A signed statement (DSSE envelope, in-toto) that this bundle was audited with this report, policy and verdict.

    Valid for `days`. With `provenance` it is also one about the files that hold the model: that they do, the caller
    knows. Raises `UsageError` for a report that is about no bundle, or days that no calendar holds.
    """
    from casemate.report.json import digest

    if not report.bundle:
        raise UsageError("expected a report about a bundle, got one about data only: audit a model")
    created = (now or dt.datetime.now(dt.UTC)).replace(microsecond=0)
    policy: Any = canonical.loads(wire.write(report.policy, Policy))
    body = Attestation(
        bundle_digest=report.bundle,
        report_digest=digest(report),
        policy_digest=policy_digest(report.policy),
        verdict=str(report.ruling.status),
        created=created,
        expires=valid_until(created, days),
        casemate_version=report.versions.get("casemate", "unknown"),
        audited=_moment(report),
        policy=policy,
        provenance=provenance,
    )
    subjects = {"bundle": report.bundle, "report.json": body.report_digest}
    subjects |= provenance.subjects if provenance is not None else {}
    return dict(attestation.sign(attestation.statement(subjects, body), key))


def hold(
    envelope: Mapping[str, Any],
    keys: Iterable[Ed25519PublicKey],
    *,
    bundle: str,
    policy: Policy | None = None,
    verdict: str | None = "passed",
    now: dt.datetime | None = None,
) -> Attestation:
    """Check an envelope against the digest of the bundle in front of us, and return what it attests.

    Raises `IntegrityError`, each with its own message: a signature that does not hold, an unknown key, another bundle,
    a weaker policy, another verdict, an attestation that has expired.
    """
    clock = now or dt.datetime.now(dt.UTC)
    statement = attestation.verify(envelope, keys)
    body = attestation.audit_predicate(statement)
    if body.bundle_digest != bundle or bundle not in attestation.subject_digests(statement).values():
        raise IntegrityError(
            f"expected the bundle that was audited ({body.bundle_digest[:19]}), got {bundle[:19]}: "
            "audit and sign this one"
        )
    hold_audit(body, Demands(policy=policy, verdict=verdict or "any"), now=clock)
    if clock >= body.expires:
        raise IntegrityError(
            f"expected an attestation that is still valid, got one that expired on {body.expires:%Y-%m-%d}: audit again"
        )
    return body


def policy_digest(policy: Policy) -> str:
    """The digest of a policy."""
    return canonical.digest(canonical.loads(wire.write(policy, Policy)))


def _moment(report: Report) -> dt.datetime | None:
    """When the report was made, which its timings say; nothing where they do not."""
    try:
        moment = dt.datetime.fromisoformat(report.timings.created)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
