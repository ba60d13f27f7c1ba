"""Signatures of OpenSSF model-signing (v1.0 of its predicate), which others make and check with its own tools.

Made and checked by that library itself, with an elliptic-curve key or a certificate; we add what its messages lack. It
leaves out `.git`, `.github`, `.gitattributes` and `.gitignore` of a folder, even where the signature does not say so,
and lets a signature leave out more: each file that lies there and is not in the signature is told.
"""

from __future__ import annotations

import base64
import contextlib
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from casemate.errors import CasemateError, IntegrityError, Unavailable, UsageError
from casemate.formats import atomic, canonical, files

__all__ = ["check_with_certificate", "check_with_key", "is_bundle", "sign_with_certificate", "sign_with_key"]

_BUNDLE = "application/vnd.dev.sigstore.bundle"


def sign_with_key(path: Path, output: Path, *, key: Path, passphrase: str | None = None) -> None:
    """Sign a model with an elliptic-curve private key (P-256, P-384 or P-521, in PEM) into a Sigstore bundle.

    Raises `UsageError` for a key that does not open or a model with links; `Unavailable` without the library.
    """
    _refuse_odd(path, UsageError)
    secret = None if passphrase is None else passphrase.encode()
    with _told(f"expected an elliptic-curve private key in {key} and a model of plain files"):
        config = _library("signing").Config().use_elliptic_key_signer(private_key=key, password=secret)
        made = _made(config, path)
    atomic.write(output, made)


def sign_with_certificate(
    path: Path, output: Path, *, key: Path, certificate: Path, chain: Sequence[Path] = ()
) -> None:
    """Sign a model with a private key and its certificate, in PEM; `chain` leads from it to a root.

    Raises as `sign_with_key` does.
    """
    _refuse_odd(path, UsageError)
    with _told(f"expected the certificate of the key {key} and a model of plain files"):
        config = (
            _library("signing")
            .Config()
            .use_certificate_signer(
                private_key=key,
                signing_certificate=certificate,
                certificate_chain=list(chain) or [certificate],  # 1.1.1 cannot read an empty chain
            )
        )
        made = _made(config, path)
    atomic.write(output, made)


def check_with_key(path: Path, signature: Path, *, key: Path) -> tuple[str, ...]:
    """Check a signature against a model and a public key; what was left out of it and lies there is returned.

    Raises `IntegrityError` for anything that does not hold; `Unavailable` without the library.
    """
    with _told(f"expected an elliptic-curve public key in {key}"):
        config = _library("verifying").Config().use_elliptic_key_verifier(public_key=key)
    return _check(config, path, signature)


def check_with_certificate(path: Path, signature: Path, *, roots: Sequence[Path]) -> tuple[str, ...]:
    """Check a signature whose certificate leads to one of `roots`, in PEM; returns and raises as `check_with_key`.

    The certificate must have been valid when it says that it began: the format has no time of signing.
    """
    if not roots:
        raise UsageError("expected the certificate of a root, got none: name it with --root")
    with _told(f"expected certificates in {', '.join(map(str, roots))}"):
        config = _library("verifying").Config().use_certificate_verifier(certificate_chain=list(roots))
    return _check(config, path, signature)


def is_bundle(envelope: Mapping[str, Any]) -> bool:
    """Whether JSON is a Sigstore bundle, the form of these signatures."""
    return str(envelope.get("mediaType", "")).startswith(_BUNDLE)


def _check(config: Any, path: Path, signature: Path) -> tuple[str, ...]:
    _refuse_odd(path, IntegrityError)
    with _refused():
        config.verify(path, signature)
        bundle: Any = canonical.loads(signature.read_bytes())
        statement: Any = canonical.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        return _left_out(path, statement)


def _made(config: Any, path: Path) -> bytes:
    """The library writes piece by piece and through links; what it wrote goes to its place whole."""
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder, "signature")
        config.sign(path, aside)
        return aside.read_bytes()


def _left_out(path: Path, statement: Mapping[str, Any]) -> tuple[str, ...]:
    """The files of a folder that no digest of the statement is of; a folder of such files is told as one.

    Before 1.0 the subjects were the files.
    """
    if not path.is_dir():
        return ()
    predicate = statement["predicate"]
    covered = {item["name"] for item in predicate.get("resources", statement["subject"])}
    if predicate.get("serialization", {}).get("method") == "shards":  # "name:start:end"
        covered = {name.rsplit(":", 2)[0] for name in covered}
    kept = {str(parent) for name in covered for parent in PurePosixPath(name).parents}
    bare: dict[str, None] = {}
    for name in files.walk(path):
        if name not in covered:
            parents = [str(parent) for parent in reversed(PurePosixPath(name).parents)]
            bare[next((parent for parent in parents if parent not in kept), name)] = None
    return tuple(bare)


def _refuse_odd(path: Path, refusal: type[CasemateError]) -> None:
    """Links above all: a signer may have allowed them, and what they lead to can change after the check."""
    for name, item in files.look(path).items():
        if item.kind:
            raise refusal(f"expected plain files in {path}, got {item.detail} at {name!r:.120}: remove it")


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """Whatever the library raises of a signature is one refusal; what it prints meanwhile is not for our output."""
    from cryptography.exceptions import InvalidSignature

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (IntegrityError, UsageError, Unavailable):
        raise
    except InvalidSignature as error:
        raise IntegrityError(
            "bad signature: expected one by this key over this model, got another: check whom to trust"
        ) from error
    except Exception as error:  # its errors have no common root: a wrong chain alone raises five kinds
        raise IntegrityError(
            f"expected a signature that model-signing accepts, got {_words(error)}: do not use the model"
        ) from error


@contextlib.contextmanager
def _told(expected: str) -> Iterator[None]:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (OSError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{expected}, got {_words(error)}: check the files") from error


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300].rstrip(": ")


def _library(module: str) -> Any:
    """A module of the library, whose own imports fail one after the other where its extras are missing."""
    try:
        return import_module(f"model_signing.{module}")
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"expected model-signing to make or check such a signature, got no package {error.name}: "
            "pip install 'casemate[sign]'"
        ) from error
