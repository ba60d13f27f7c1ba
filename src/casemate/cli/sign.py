"""`casemate sign`: a signed statement of which files these are, what they were made of, and what an audit said."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from casemate.artifacts.journals import Journal
    from casemate.core.report import Report
    from casemate.formats.files import Told
    from casemate.formats.manifest import Manifest
    from casemate.formats.provenance import Lineage, Provenance

__all__ = ["Method", "sign"]


class Method(StrEnum):
    """How to sign."""

    ED25519 = "ed25519"
    KEY = "key"
    CERTIFICATE = "certificate"


Paths = list[Path] | None
Ingredients = tuple[Paths, Paths, list[str] | None, list[str] | None]
Audit = tuple[Path, Path, bool] | None
_DAYS = 90


def sign(
    path: Annotated[Path, typer.Argument(help="A model or data: a file, or a folder with everything in it.")],
    key: Annotated[Path | None, typer.Option("--key", "-k", help="The private key (see `casemate key new`).")] = None,
    report: Annotated[Path | None, typer.Option(help="The folder of an audit's report on this model.")] = None,
    config: Annotated[Path, typer.Option(help="How the audit loaded the model, for --report.")] = Path("casemate.toml"),
    days: Annotated[int | None, typer.Option(min=1, help="How long the statement is valid; 90 by default.")] = None,
    parent: Annotated[Paths, typer.Option(help="A model it was made from: attestation, manifest or files.")] = None,
    data: Annotated[Paths, typer.Option(help="Data it was trained on: attestation, manifest or files.")] = None,
    source: Annotated[list[str] | None, typer.Option(metavar="URI[#sha256=HEX]", help="Where it was fetched.")] = None,
    code: Annotated[list[str] | None, typer.Option(metavar="[URI@]COMMIT", help="The code that made it.")] = None,
    name: Annotated[str, typer.Option(help="What to call it; by default its file name.")] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="By default PATH.casemate.json.")] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Write the manifest alone, without a key.")] = False,
    rehash: Annotated[bool, typer.Option("--rehash", help="Read everything again after an interruption.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Let --report unpickle the model: it may run code.")] = False,
    method: Annotated[Method, typer.Option(help="Ours, or OpenSSF model-signing's key or certificate.")] = (
        Method.ED25519
    ),
    certificate: Annotated[Path | None, typer.Option(help="The key's certificate, for --method certificate.")] = None,
    chain: Annotated[Paths, typer.Option(help="Certificates between it and its root.")] = None,
) -> int:
    """Sign which files a model or data set is, and what an audit said."""
    place = _place(path, output, method)
    lineage = (parent, data, source, code)
    record = None if report is None else report / "report.json"
    _refuse_input(place, key, certificate, *(chain or ()), *(parent or ()), *(data or ()), record, config)
    if method is not Method.CERTIFICATE:
        _refuse_beside("without --method certificate", **{"--certificate": certificate, "--chain": chain})
    own = {"--report": report, "--days": days, "--name": name, "lineage": any(lineage)}
    if method is not Method.ED25519:
        _refuse_beside(f"with --method {method}", **own, **{"--unsigned": unsigned})
        return _sign_with_library(path, place, key, method, certificate=certificate, chain=chain)
    if unsigned:
        _refuse_beside("with --unsigned", **own, **{"--key": key})
        return _write_manifest(path, place)
    return _sign(
        path, place, _needed(key), name=name, days=_DAYS if days is None else days, rehash=rehash, lineage=lineage,
        audit=None if report is None else (report, config, trust),
    )  # fmt: skip


def _sign(
    path: Path, place: Path, key: Path, *, name: str, days: int, rehash: bool, lineage: Ingredients, audit: Audit
) -> int:
    from casemate.artifacts.journals import Journal
    from casemate.cli._show import show
    from casemate.cli.key import asked_passphrase
    from casemate.formats import atomic, files, keys, manifest
    from casemate.formats.provenance import Provenance

    pem = keys.read_pem(key)
    secret = keys.load_private(key, asked_passphrase(key, pem), pem=pem)
    # what will not do must be said before hours of hashing
    report = None if audit is None else _report(audit[0])
    about = Provenance(name or path.resolve().name, manifest.Manifest(()))
    _envelope(about, report, secret, days)
    journal, finished = Journal(place.with_name(f".{place.name}.journal"), secret, fresh=rehash), False
    try:
        found = files.look(path)
        made_of, listed = _read(path, lineage, journal)
        if report is not None and audit is not None:
            _refuse_other_model(report, path, config=audit[1], trust=audit[2])
        _refuse_changed(path, found)
        about = Provenance(about.name, listed, made_of)
        atomic.write(place, _dumped(_envelope(about, report, secret, days)))
        finished = True
    except KeyboardInterrupt as interruption:
        print("interrupted: give the same command again, and what was read is not read again", file=sys.stderr)
        raise SystemExit(130) from interruption
    finally:
        journal.close(finished=finished)
    resumed = f", {journal.resumed:,} of them read before the interruption" if journal.resumed else ""
    show(f"signed by {keys.key_id(secret.public_key())}: {_counted(listed)}{resumed}", f"  {place}")
    return 0


def _read(path: Path, lineage: Ingredients, journal: Journal) -> tuple[Lineage, Manifest]:
    from casemate.cli._progress import progress
    from casemate.formats import manifest

    with progress() as tell:
        made_of = _lineage(*lineage, told=lambda done, total: tell("lineage", done, total))
        listed = manifest.of_path(
            path, known=journal.known, done=journal.done, told=lambda done, total: tell("sign", done, total)
        )
    return made_of, listed


def _envelope(about: Provenance, report: Report | None, secret: Ed25519PrivateKey, days: int) -> dict[str, Any]:
    from casemate._attest import attest
    from casemate.artifacts import provenance

    if report is None:
        return provenance.sign_files(about, secret, days=days)
    return attest(report, secret, days=days, provenance=about)


def _dumped(envelope: dict[str, Any]) -> bytes:
    from casemate.errors import UsageError
    from casemate.formats import canonical

    text = canonical.dumps_pretty(envelope)
    if len(text) > canonical.MAX_BYTES:
        raise UsageError(
            f"expected a statement of at most {canonical.MAX_BYTES >> 20} MiB, got {len(text) >> 20}: these are too "
            "many files for one, sign their folders apart or pack them into archives"
        )
    return text


def _write_manifest(path: Path, place: Path) -> int:
    from casemate.cli._progress import progress
    from casemate.cli._show import show
    from casemate.formats import atomic, canonical, manifest

    with progress() as tell:
        listed = manifest.of_path(path, told=lambda done, total: tell("manifest", done, total))
    atomic.write(place, canonical.dumps_pretty(listed.to_json()))
    show(f"listed: {_counted(listed)}", f"  {place}")
    return 0


def _sign_with_library(
    path: Path, place: Path, key: Path | None, method: Method, *, certificate: Path | None, chain: Paths
) -> int:
    from casemate.artifacts import signing
    from casemate.cli._show import show
    from casemate.cli.key import asked_passphrase
    from casemate.errors import UsageError
    from casemate.formats import keys

    private = _needed(key)
    if method is Method.KEY:
        passphrase = asked_passphrase(private, keys.read_pem(private))
        signing.sign_with_key(path, place, key=private, passphrase=passphrase)
    elif certificate is None:
        raise UsageError("expected the certificate of the key, got none: name it with --certificate")
    else:
        signing.sign_with_certificate(path, place, key=private, certificate=certificate, chain=chain or ())
    show("signed with model-signing, which leaves out .git and .github", f"  {place}")
    return 0


def _lineage(parent: Paths, data: Paths, source: list[str] | None, code: list[str] | None, *, told: Told) -> Lineage:
    from casemate.artifacts import provenance
    from casemate.formats.provenance import Lineage

    return Lineage(
        parents=tuple(provenance.ingredient_of(item, told=told) for item in parent or ()),
        data=tuple(provenance.ingredient_of(item, told=told) for item in data or ()),
        sources=tuple(map(provenance.source_of, source or ())),
        code=tuple(map(provenance.code_of, code or ())),
    )


def _report(folder: Path) -> Report:
    from casemate._replay import report_in

    return report_in(folder)


def _refuse_other_model(report: Report, path: Path, *, config: Path, trust: bool) -> None:
    """The statement says that these files were audited: so they are loaded, and what they hold is compared."""
    from casemate.errors import IntegrityError

    found = _digest_by_config(path, config, trust=trust) if config.is_file() else None
    if found is None:
        found = _digest_alone(path, trust=trust)
    if found != report.model:
        raise IntegrityError(
            f"expected the model that was audited ({report.model[:19]}), got {found[:19]} in {path}: audit this one, "
            "or name with --config how the audit loaded it"
        )


def _digest_by_config(path: Path, config: Path, *, trust: bool) -> str | None:
    """The digest of the model that a configuration loads; nothing if it is not among the files."""
    from casemate import config as configuration

    settings = configuration.load(config, trust=trust)
    model = settings.model.path
    if model is None or not model.resolve().is_relative_to(path.resolve()):
        return None
    case = configuration.case_of(settings)
    return case.model.digest if case.model else None


def _digest_alone(path: Path, *, trust: bool) -> str:
    from casemate.adapters import wrap
    from casemate.adapters.loading import Declared, load_model

    return wrap(load_model(path, Declared(trust=trust))).digest


def _refuse_changed(path: Path, before: Any) -> None:
    from casemate.errors import IntegrityError
    from casemate.formats import files

    if files.look(path) != before:
        raise IntegrityError(f"expected {path} to stay as it was read, got another meanwhile: sign again")


def _place(path: Path, output: Path | None, method: Method) -> Path:
    from casemate.errors import UsageError

    whole = path.resolve()
    ending = ".casemate.json" if method is Method.ED25519 else ".sig"
    place = output or whole.parent / (whole.name + ending)
    if place.is_dir():
        raise UsageError(f"expected a file for the signature, got the folder {place}: name a file")
    if path.is_dir() and place.resolve().is_relative_to(whole):
        raise UsageError(f"expected an output outside {path}, got {place}: what is signed cannot hold its signature")
    if place.resolve() == whole:
        raise UsageError(f"expected an output beside {path}, got the same file: name another")
    return place


def _refuse_input(place: Path, *given: Path | None) -> None:
    """What is read must not be written over: a private key least of all."""
    from casemate.errors import UsageError

    if place.resolve() in {item.resolve() for item in given if item is not None}:
        raise UsageError(f"expected an --output of its own, got {place}, which is read: name another")


def _refuse_beside(what: str, **given: object) -> None:
    """An option that would have no effect promises what the signature does not hold."""
    from casemate.errors import UsageError

    names = [name for name, value in given.items() if value]
    if names:
        raise UsageError(
            f"expected options that go {what}, got {', '.join(names)}: leave them out, or sign with Ed25519 (and then "
            "its file with another method)"
        )


def _needed(key: Path | None) -> Path:
    from casemate.errors import UsageError

    if key is None:
        raise UsageError("expected a private key, got none: name it with --key, or list the files with --unsigned")
    return key


def _counted(listed: Manifest) -> str:
    count, size = len(listed.entries), sum(entry.size for entry in listed.entries)
    return f"{count:,} file{'s' if count != 1 else ''}, {size:,} bytes, {listed.digest[:19]}"
