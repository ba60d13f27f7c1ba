"""`casemate verify`: whether files are those that somebody trusted signed, and what was said of them will do."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from casemate.artifacts.provenance import Demands, Verified
    from casemate.formats.provenance import Ingredient

__all__ = ["Wanted", "verify"]


class Wanted(StrEnum):
    """The verdict that an audit must have had."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    ANY = "any"


Paths = list[Path] | None


def verify(
    path: Annotated[Path, typer.Argument(help="The file or folder that was signed.")],
    attestation: Annotated[
        Path | None, typer.Option("--attestation", "-a", help="By default PATH.casemate.json.")
    ] = None,
    key: Annotated[Paths, typer.Option("--key", "-k", help="A public key, or a trust file of several.")] = None,
    revoked: Annotated[Path | None, typer.Option(help="A trust file whose revoked keys count for nothing.")] = None,
    policy: Annotated[Path | None, typer.Option(help="A casemate.toml: the audit's policy must be as strict.")] = None,
    max_age: Annotated[int | None, typer.Option(min=0, max=36500, help="How old an audit may be, in days.")] = None,
    verdict: Annotated[Wanted | None, typer.Option(help="Ask for an audit with this verdict.")] = None,
    report: Annotated[Path | None, typer.Option(help="Ask for an audit with this report.")] = None,
    parent: Annotated[Paths, typer.Option(help="Attestations of what it was made of, verified too.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Compare with a manifest that nobody signed.")] = None,
    root: Annotated[Paths, typer.Option(help="Root certificates, for model-signing's certificates.")] = None,
) -> int:
    """Hold files against a signed statement; exit 1 where they differ."""
    from casemate.artifacts import provenance, signing
    from casemate.cli._progress import progress
    from casemate.cli._show import show
    from casemate.errors import UsageError

    if manifest is not None:
        _refuse_beside(attestation, key, revoked, policy, max_age, verdict, report, parent, root)
        return _compare(path, manifest)
    whole = path.resolve()
    place = attestation or whole.parent / (whole.name + ".casemate.json")
    envelope = provenance.read_envelope(place)
    if signing.is_bundle(envelope):
        _refuse_beside(revoked, policy, max_age, verdict, report, parent)
        return _check_with_library(path, place, key=key, root=root)
    if root:
        raise UsageError(
            f"expected --key for our own attestation {place}, got --root: certificates are model-signing's"
        )
    trust = provenance.read_trust(key or (), revoked)
    verified = provenance.verify_envelope(envelope, trust, _demands(policy, max_age, verdict, report))
    parts = provenance.verify_ingredients(verified, [provenance.read_envelope(item) for item in parent or ()], trust)
    with progress() as tell:
        provenance.refuse_other_files(
            verified.provenance.files, path, told=lambda done, total: tell("verify", done, total)
        )
    show(*_lines(verified, parts))
    return 0


def _demands(policy: Path | None, max_age: int | None, verdict: Wanted | None, report: Path | None) -> Demands:
    from casemate import config
    from casemate._replay import report_in
    from casemate.artifacts.provenance import Demands
    from casemate.report import json as report_json

    return Demands(
        policy=None if policy is None else config.policy_of(config.load(policy)),
        verdict=None if verdict is None else str(verdict),
        max_age=None if max_age is None else dt.timedelta(days=max_age),
        report=None if report is None else report_json.digest(report_in(report)),
    )


def _compare(path: Path, listed: Path) -> int:
    from casemate.artifacts import provenance
    from casemate.cli._progress import progress
    from casemate.cli._show import show

    wanted = provenance.read_manifest(listed)
    with progress() as tell:
        provenance.refuse_other_files(wanted, path, told=lambda done, total: tell("verify", done, total))
    show(f"the same files: {len(wanted.entries):,}, as listed in {listed}; nobody signed that list")
    return 0


def _check_with_library(path: Path, signature: Path, *, key: Paths, root: Paths) -> int:
    from casemate.artifacts import signing
    from casemate.cli._show import show
    from casemate.errors import UsageError

    if root:
        _refuse_beside(key)
        left_out = signing.check_with_certificate(path, signature, roots=root)
    elif key is not None and len(key) == 1:
        left_out = signing.check_with_key(path, signature, key=key[0])
    else:
        raise UsageError(
            f"expected one public key or root certificates, got {len(key or ())} keys: name --key or --root"
        )
    show("verified: every file that model-signing's signature covers")
    for name in left_out:
        show(f"  not covered: {name}")
    return 0


def _lines(verified: Verified, parts: dict[str, Verified]) -> list[str]:
    body, about = verified.body, verified.provenance
    size = sum(entry.size for entry in about.files.entries)
    lines = [
        f"verified: {about.name} ({len(about.files.entries):,} files, {size:,} bytes, {about.files.digest[:19]})",
        f"  signed    {body.created:%Y-%m-%d} by {', '.join(verified.signers)}, valid until {body.expires:%Y-%m-%d}",
    ]
    audit = verified.audit
    if audit is not None:
        lines += [f"  audit     {audit.verdict} on {audit.measured:%Y-%m-%d}, report {audit.report_digest[:19]}"]
    lineage = about.lineage
    for word, items in (("parent", lineage.parents), ("data", lineage.data)):
        for item in items:
            part = parts.get(item.digest)
            state = "not checked" if part is None else f"its own statement holds, by {', '.join(part.signers)}"
            lines += [f"  {word:<9} {_named(item)} ({state})"]
    lines += [f"  source    {_named(item)}" for item in lineage.sources]
    lines += [f"  code      {_named(item)}" for item in lineage.code]
    return lines


def _named(item: Ingredient) -> str:
    return " ".join(text for text in (item.name, item.uri, item.commit, item.digest[:19]) if text)


def _refuse_beside(*given: object) -> None:
    from casemate.errors import UsageError

    if any(item is not None for item in given):
        raise UsageError(
            "expected options that fit this kind of signature, got others beside them: a manifest has no signer, and "
            "model-signing's signatures know no audit"
        )
