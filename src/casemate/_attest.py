"""Attest: sign what an audit said of a bundle, and hold such a statement against the bundle in front of us."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from casemate.artifacts.provenance import Demands, hold_audit, refuse_days, valid_until
from casemate.core.judgement import rule
from casemate.core.policy import Policy
from casemate.core.report import Report
from casemate.errors import FormatError, IntegrityError, UsageError
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
    knows. Raises `UsageError` for a report that is about no bundle, or days that no calendar holds; `FormatError` for
    one whose outcomes do not give its verdict under its policy.
    """
    from casemate.report.json import digest

    if not report.bundle:
        raise UsageError("expected a report about a bundle, got one about data only: audit a model")
    created = (now or dt.datetime.now(dt.UTC)).replace(microsecond=0)
    _refuse_unruled(report, _moment(report) or created)
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
    a weaker policy, another verdict, an attestation that has expired or is dated in the future.
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
    refuse_days(body, clock)
    return body


def policy_digest(policy: Policy) -> str:
    """The digest of a policy."""
    return canonical.digest(canonical.loads(wire.write(policy, Policy)))


def _refuse_unruled(report: Report, made: dt.datetime) -> None:
    """The policy and the verdict are signed side by side: a report in which one was edited would join what never met.

    An acceptance ends on a local date of the machine that audited, which is within a day of ours.
    """
    days = (made.date() + dt.timedelta(days=step) for step in (-1, 0, 1))
    found = [rule(report.outcomes, report.policy, day).status for day in days]
    if report.ruling.status not in found:
        raise FormatError(
            f"expected a report whose outcomes under its policy give its verdict, got {report.ruling.status} where "
            f"they give {found[1]}: audit again"
        )


def _moment(report: Report) -> dt.datetime | None:
    """When the report was made, which its timings say; nothing where they do not."""
    try:
        moment = dt.datetime.fromisoformat(report.timings.created)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
