"""`casemate key`: make keys, show them, and say in a trust file whose signatures count."""

from __future__ import annotations

import datetime as dt
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from casemate.formats.trust import TrustFile

__all__ = ["app", "asked_passphrase", "list_", "new", "public", "revoke", "trust"]

_VARIABLE = "CASEMATE_KEY_PASSPHRASE"
app = typer.Typer(
    help="Make keys; say whose signatures count.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[Path, typer.Option("--file", help="The trust file.")]


@app.command()
def new(
    path: Annotated[Path, typer.Argument(help="The private key; PATH.pub is its other half.")],
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="Store the key unencrypted.")] = False,
) -> int:
    """Make a signing key (Ed25519).

    The passphrase is asked for, or read from CASEMATE_KEY_PASSPHRASE.
    """
    from casemate.cli._show import show
    from casemate.errors import UsageError
    from casemate.formats import keys

    other = path.with_name(path.name + ".pub")
    if os.path.lexists(other):
        raise UsageError(f"expected a new file, got existing {other}: choose another name; keys are not overwritten")
    key = keys.generate()
    keys.save_private(path, key, None if no_passphrase else _chosen_passphrase())
    try:
        keys.save_public(other, key.public_key())
    except BaseException:
        path.unlink(missing_ok=True)  # half a pair is none
        raise
    show(f"{keys.key_id(key.public_key())}", f"  {path}  (private: keep it)", f"  {other}  (public: give it away)")
    return 0


@app.command()
def public(path: Annotated[Path, typer.Argument(help="A private key, or a public one.")]) -> int:
    """Show the public half of a key, and its id."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from casemate.cli._show import show
    from casemate.formats import keys

    key = _public(path)
    text = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode().rstrip()
    show(f"{keys.key_id(key)}\n{text}")
    return 0


@app.command()
def trust(
    path: Annotated[Path, typer.Argument(help="A public key.")],
    file: File,
    owner: Annotated[str, typer.Option(help="Whose key it is.")] = "",
    not_before: Annotated[str | None, typer.Option(metavar="DAY", help="The first day it counts, in UTC.")] = None,
    not_after: Annotated[str | None, typer.Option(metavar="DAY", help="The day it stops counting, in UTC.")] = None,
) -> int:
    """Add a public key to a trust file (new if it is not there)."""
    from casemate.cli._show import show
    from casemate.formats import atomic
    from casemate.formats.trust import TrustedKey, TrustFile

    known = _read(file) if file.exists() else TrustFile()
    key = TrustedKey(_public(path).public_bytes_raw(), owner, _day(not_before), _day(not_after))
    atomic.write(file, known.add(key).dump())
    show(f"{key.id} is trusted in {file}")
    return 0


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="ID", help="A key's id, as `casemate key list` shows it.")],
    file: File,
    reason: Annotated[str, typer.Option(help="Why.")],
) -> int:
    """Revoke a key in a trust file: nothing it signed counts any more."""
    from casemate.cli._show import show
    from casemate.formats import atomic

    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    atomic.write(file, _read(file).revoke(name, reason=reason, when=now).dump())
    show(f"{name} is revoked in {file}")
    return 0


@app.command("list")
def list_(file: Annotated[Path, typer.Argument(help="A trust file.")]) -> int:
    """List the keys of a trust file with their days."""
    from rich.text import Text

    from casemate.cli._show import columns, show

    table = columns("key", "owner", "from", "until", "state", whole=("key",))
    now = dt.datetime.now(dt.UTC)
    for key in _read(file).keys:
        days = [f"{moment:%Y-%m-%d}" if moment else "" for moment in (key.not_before, key.not_after)]
        state = "valid"
        if key.revoked is not None:
            state = f"revoked {key.revoked:%Y-%m-%d}: {key.reason}"
        elif key.not_after is not None and now >= key.not_after:
            state = "expired"
        elif key.not_before is not None and now < key.not_before:
            state = "not valid yet"
        table.add_row(*(Text(text) for text in (key.id, key.owner, *days, state)))
    show(table)
    return 0


def asked_passphrase(path: Path, pem: bytes) -> str | None:
    """The passphrase of a private key with that content, if it has one: from CASEMATE_KEY_PASSPHRASE, else asked for.

    Raises `UsageError` where there is nobody to ask.
    """
    if b"ENCRYPTED" not in pem:
        return None
    return os.environ.get(_VARIABLE) or _prompt(f"passphrase of {path}: ")


def _chosen_passphrase() -> str:
    from casemate.errors import UsageError

    given = os.environ.get(_VARIABLE)
    if given:
        return given
    first = _prompt("passphrase: ")
    if not first or first != _prompt("once more: "):
        raise UsageError("expected the same passphrase twice, got another or none: choose one, or use --no-passphrase")
    return first


def _prompt(text: str) -> str:
    import getpass

    from casemate.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError(f"expected a passphrase, got nobody to ask: set {_VARIABLE}, or use a key without one")
    try:
        return getpass.getpass(text)
    except EOFError as error:
        raise UsageError("expected a passphrase, got the end of the input: type it, or set " + _VARIABLE) from error


def _public(path: Path) -> Ed25519PublicKey:
    from casemate.formats import keys

    pem = keys.read_pem(path)
    if b"PRIVATE KEY-----" in pem:
        return keys.load_private(path, asked_passphrase(path, pem), pem=pem).public_key()
    return keys.load_public(path, pem=pem)


def _read(file: Path) -> TrustFile:
    from casemate.errors import UsageError
    from casemate.formats.trust import TrustFile

    try:
        return TrustFile.load(file.read_bytes())
    except OSError as error:
        raise UsageError(f"expected a trust file, got {file}: {error.strerror or error}; check the path") from error


def _day(text: str | None) -> dt.datetime | None:
    from casemate.errors import UsageError

    if text is None:
        return None
    try:
        return dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC)
    except ValueError as error:
        raise UsageError(f"expected a day such as 2027-03-31, got {text!r:.40}: write it so") from error
