"""Attest: sign what an audit said of a bundle, and hold such a statement against the bundle in front of us."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from casemate.core.policy import Policy
from casemate.core.report import Report
from casemate.errors import IntegrityError, UsageError
from casemate.formats import attestation, canonical, wire
from casemate.formats.attestation import Attestation

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["attest", "hold", "policy_digest"]


def attest(report: Report, key: Ed25519PrivateKey, *, days: int = 90, now: dt.datetime | None = None) -> dict[str, Any]:
    """A signed statement (DSSE envelope, in-toto) that this bundle was audited with this report, policy and verdict.

    Valid for `days`. Raises `UsageError` for a report that is about no bundle.
    """
    from casemate.report.json import digest

    if not report.bundle:
        raise UsageError("expected a report about a bundle, got one about data only: audit a model")
    created = (now or dt.datetime.now(dt.UTC)).replace(microsecond=0)
    body = Attestation(
        bundle_digest=report.bundle,
        report_digest=digest(report),
        policy_digest=policy_digest(report.policy),
        verdict=str(report.ruling.status),
        created=created,
        expires=created + dt.timedelta(days=days),
        casemate_version=report.versions.get("casemate", "unknown"),
    )
    subjects = {"bundle": report.bundle, "report.json": body.report_digest}
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
    another policy, another verdict, an attestation that has expired.
    """
    statement = attestation.verify(envelope, keys)
    body = attestation.audit_predicate(statement)
    if body.bundle_digest != bundle or bundle not in attestation.subject_digests(statement).values():
        raise IntegrityError(
            f"expected the bundle that was audited ({body.bundle_digest[:19]}), got {bundle[:19]}: "
            "audit and sign this one"
        )
    if policy is not None and body.policy_digest != policy_digest(policy):
        raise IntegrityError("expected an audit under this policy, got one under another: audit under this policy")
    if verdict is not None and body.verdict != verdict:
        raise IntegrityError(f"expected an audit that {verdict}, got one that was {body.verdict}: mend the model first")
    if (now or dt.datetime.now(dt.UTC)) >= body.expires:
        raise IntegrityError(
            f"expected an attestation that is still valid, got one that expired on {body.expires:%Y-%m-%d}: audit again"
        )
    return body


def policy_digest(policy: Policy) -> str:
    """The digest of a policy."""
    return canonical.digest(canonical.loads(wire.write(policy, Policy)))
