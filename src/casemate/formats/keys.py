"""Ed25519 keys (RFC 8032) in PEM files: PKCS #8 for the private half, SubjectPublicKeyInfo for the public one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from casemate.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["generate", "key_id", "load_private", "load_public", "read_pem", "save_private", "save_public"]

_MAX_BYTES = 64 << 10
_LONGEST = 1023  # bytes of a passphrase, OpenSSL's limit


def generate() -> Ed25519PrivateKey:
    """Make a private key from the operating system's random source; `.public_key()` is its other half."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


def key_id(public_key: Ed25519PublicKey) -> str:
    """`ed25519:` and the first 16 hex digits of SHA-256 of the 32 raw bytes: a name to find a key by, not a proof."""
    return "ed25519:" + hashlib.sha256(public_key.public_bytes_raw()).hexdigest()[:16]


def save_private(path: str | os.PathLike[str], key: Ed25519PrivateKey, passphrase: str | None = None) -> None:
    """Write a private key, readable by its owner only (mode 0600), encrypted if there is a passphrase.

    Raises `UsageError` if the file exists (a key is never overwritten), cannot be written, or the passphrase is empty,
    too long or no text.
    """
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    if passphrase == "":
        raise UsageError(
            "expected a passphrase, got an empty one: choose one, or pass None to store the key unencrypted"
        )
    lock = NoEncryption() if passphrase is None else BestAvailableEncryption(_encoded(passphrase))
    _create(Path(path), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock), mode=0o600)


def save_public(path: str | os.PathLike[str], key: Ed25519PublicKey) -> None:
    """Write a public key.

    Raises `UsageError` if the file exists or cannot be written.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    _create(Path(path), key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), mode=0o644)


def read_pem(path: str | os.PathLike[str]) -> bytes:
    """The content of a key file, for the loaders: a pipe can be read once only.

    Raises `UsageError` for a file that cannot be read or is larger than any key.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"expected a readable key file, got {path}: {error.strerror or error}; check the path"
        ) from error
    if len(data) > _MAX_BYTES:
        raise UsageError(f"expected a key file, got {path} with more than {_MAX_BYTES} bytes: check the path")
    return data


def load_private(
    path: str | os.PathLike[str], passphrase: str | None = None, *, pem: bytes | None = None
) -> Ed25519PrivateKey:
    """Read a private key; `pem` is the file's content, where it was read already.

    Raises `UsageError`: not a readable private key, another algorithm, a passphrase that is missing, wrong or not
    needed.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = read_pem(path) if pem is None else pem
    _refuse_other_half(path, pem, wanted=b"PRIVATE KEY-----", other=b"PUBLIC KEY-----")
    encrypted = b"ENCRYPTED" in pem
    if encrypted and not passphrase:
        raise UsageError(f"expected the passphrase of {path}, got none: give it")
    if not encrypted and passphrase:
        raise UsageError(
            f"expected no passphrase, since {path} is not encrypted, got one: leave it out, or check the path"
        )
    try:
        key = load_pem_private_key(pem, _encoded(passphrase) if passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        mend = "check the passphrase and the file" if encrypted else "check the file"
        raise UsageError(f"expected a private key in {path}, got one that does not open: {mend}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"expected an Ed25519 key in {path}, got {_algorithm(key)}: make one with casemate key")
    return key


def load_public(path: str | os.PathLike[str], *, pem: bytes | None = None) -> Ed25519PublicKey:
    """Read a public key; `pem` is the file's content, where it was read already.

    Raises `UsageError`: not a readable public key, or another algorithm.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    pem = read_pem(path) if pem is None else pem
    _refuse_other_half(path, pem, wanted=b"PUBLIC KEY-----", other=b"PRIVATE KEY-----")
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"expected a public key in {path}, got one that does not open: check the file") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"expected an Ed25519 key in {path}, got {_algorithm(key)}: make one with casemate key")
    return key


def _encoded(passphrase: str) -> bytes:
    try:
        data = passphrase.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError("expected a passphrase in UTF-8, got other bytes: choose another") from error
    if len(data) > _LONGEST:
        raise UsageError(f"expected a passphrase of at most {_LONGEST} bytes, got {len(data)}: choose a shorter one")
    return data


def _create(path: Path, data: bytes, *, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise UsageError(
            f"expected a new file, got existing {path}: choose another name; keys are not overwritten"
        ) from error
    except OSError as error:
        raise UsageError(f"expected to be able to write {path}, got {error.strerror}: check the folder") from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UsageError(f"expected to be able to write {path}, got {error.strerror}: free some space") from error
        raise


def _refuse_other_half(path: str | os.PathLike[str], pem: bytes, *, wanted: bytes, other: bytes) -> None:
    if wanted in pem:
        return
    words = {b"PRIVATE KEY-----": "private", b"PUBLIC KEY-----": "public"}
    got = f"a {words[other]} one" if other in pem else "no PEM key"
    raise UsageError(f"expected a {words[wanted]} key in {path}, got {got}: give the other file")


def _algorithm(key: object) -> str:
    return type(key).__name__.lstrip("_").removesuffix("PrivateKey").removesuffix("PublicKey")
