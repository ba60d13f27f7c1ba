from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from casemate.errors import UsageError
from casemate.formats import keys


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_a_key_pair_round_trips_and_only_its_owner_can_read_it(tmp_path: Path, passphrase: str | None) -> None:
    key = keys.generate()
    keys.save_private(tmp_path / "k.pem", key, passphrase)
    keys.save_public(tmp_path / "k.pub", key.public_key())
    assert (tmp_path / "k.pem").stat().st_mode & 0o777 == 0o600
    back = keys.load_private(tmp_path / "k.pem", passphrase)
    keys.load_public(tmp_path / "k.pub").verify(back.sign(b"m"), b"m")
    assert keys.key_id(keys.load_public(tmp_path / "k.pub")) == keys.key_id(key.public_key())


def test_the_key_id_is_the_start_of_sha_256_of_the_raw_key() -> None:
    # RFC 8032 section 7.1, test 1; hash by sha256sum
    raw = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert keys.key_id(Ed25519PublicKey.from_public_bytes(raw)) == "ed25519:21fe31dfa154a261"


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"mine")
    for save in (
        lambda: keys.save_private(tmp_path / "k", keys.generate()),
        lambda: keys.save_public(tmp_path / "k", keys.generate().public_key()),
    ):
        with pytest.raises(UsageError, match="not overwritten"):
            save()
    assert (tmp_path / "k").read_bytes() == b"mine"


def test_wrong_use_of_passphrases_is_said_clearly(tmp_path: Path) -> None:
    keys.save_private(tmp_path / "locked", keys.generate(), "right")
    keys.save_private(tmp_path / "open", keys.generate())
    with pytest.raises(UsageError, match="check the passphrase"):
        keys.load_private(tmp_path / "locked", "wrong")
    with pytest.raises(UsageError, match="expected the passphrase of"):
        keys.load_private(tmp_path / "locked")
    with pytest.raises(UsageError, match="expected no passphrase"):
        keys.load_private(tmp_path / "open", "right")
    with pytest.raises(UsageError, match="an empty one"):
        keys.save_private(tmp_path / "new", keys.generate(), "")
    assert not (tmp_path / "new").exists()


def test_wrong_files_and_algorithms_are_said_clearly(tmp_path: Path) -> None:
    key, other = keys.generate(), ec.generate_private_key(ec.SECP256R1())
    keys.save_private(tmp_path / "private", key)
    keys.save_public(tmp_path / "public", key.public_key())
    (tmp_path / "ec").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "ec.pub").write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "text").write_text("hello")
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    (tmp_path / "broken").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    (tmp_path / "broken.pub").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    cases = [
        (keys.load_private, "public", "expected a private key .* a public one"),
        (keys.load_private, "ec", "expected an Ed25519 key .* got EC"),
        (keys.load_private, "text", "no PEM key"),
        (keys.load_private, "large", "more than 65536 bytes"),
        (keys.load_private, "broken", "does not open"),
        (keys.load_private, "none", "readable key file"),
        (keys.load_public, "private", "expected a public key .* a private one"),
        (keys.load_public, "ec.pub", "expected an Ed25519 key .* got EC"),
        (keys.load_public, "broken.pub", "does not open"),
    ]
    for load, name, message in cases:
        with pytest.raises(UsageError, match=message):
            load(tmp_path / name)
