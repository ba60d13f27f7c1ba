"""Signatures of OpenSSF model-signing: made here and checked by its own tools, made by them and checked here."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from casemate.artifacts import signing
from casemate.errors import IntegrityError, Unavailable, UsageError

SIGNED = Path(__file__).parents[1] / "formats" / "golden" / "signed-1"


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for module in ("signing", "verifying"):
        monkeypatch.delitem(sys.modules, f"model_signing.{module}", raising=False)
    with pytest.raises(Unavailable, match=r"pip install 'casemate\[sign\]'"):
        signing.check_with_key(SIGNED / "model", SIGNED / "model.key.sig", key=SIGNED / "openssf.pub")
    with pytest.raises(Unavailable, match="casemate"):
        signing.sign_with_key(SIGNED / "model", tmp_path / "sig", key=tmp_path / "key")


@pytest.fixture(scope="module")
def library() -> None:
    pytest.importorskip("model_signing.verifying", reason="the extra [sign] is not installed")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key with a passphrase, one without, its certificate below a root, and a root of somebody else."""
    folder = tmp_path_factory.mktemp("pki")
    key, root, other = (ec.generate_private_key(curve) for curve in (ec.SECP384R1(), ec.SECP256R1(), ec.SECP256R1()))
    for name, lock in (("key", NoEncryption()), ("locked", BestAvailableEncryption(b"pass"))):
        (folder / name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    for name, item in (("pub", key), ("other.pub", other)):
        public = item.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / name).write_bytes(public)
    for name, holder, issuer, owner in (
        ("root", root, root, True),
        ("stranger", other, other, True),
        ("leaf", key, root, False),
    ):
        (folder / name).write_bytes(certificate(name, holder, "root" if issuer is root else name, issuer, ca=owner))
    return folder


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, by: str, issuer: ec.EllipticCurvePrivateKey, *, ca: bool
) -> bytes:
    def called(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = dt.datetime.now(dt.UTC)
    usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
    made = (
        x509.CertificateBuilder()
        .subject_name(called(name))
        .issuer_name(called(by))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=2 if ca else 1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    return made.sign(issuer, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shutil.copytree(SIGNED / "model", tmp_path / "model")
    return tmp_path / "model"


def own_tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.usefixtures("library")
def test_the_first_released_signatures_verify_for_ever() -> None:
    assert signing.check_with_key(SIGNED / "model", SIGNED / "model.key.sig", key=SIGNED / "openssf.pub") == ()
    roots = [SIGNED / "root.crt"]
    assert signing.check_with_certificate(SIGNED / "model", SIGNED / "model.certificate.sig", roots=roots) == ()


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("secret", ["key", "locked"])
def test_a_key_s_signature_is_read_by_its_own_tool_and_the_reverse(model: Path, pki: Path, secret: str) -> None:
    ours, theirs = model.parent / "ours.sig", model.parent / "theirs.sig"
    signing.sign_with_key(model, ours, key=pki / secret, passphrase="pass" if secret == "locked" else None)
    done = own_tool("verify", "key", model, "--signature", ours, "--public_key", pki / "pub")
    assert done.returncode == 0, done.stderr
    done = own_tool("sign", "key", model, "--signature", theirs, "--private_key", pki / "key")
    assert done.returncode == 0, done.stderr
    for signature in (ours, theirs):
        assert signing.check_with_key(model, signature, key=pki / "pub") == ()
    (model / "empty").write_bytes(b"\0")
    assert own_tool("verify", "key", model, "--signature", ours, "--public_key", pki / "pub").returncode != 0


@pytest.mark.usefixtures("library")
def test_a_certificate_s_signature_is_read_by_its_own_tool_and_the_reverse(model: Path, pki: Path) -> None:
    ours, theirs, roots = model.parent / "ours.sig", model.parent / "theirs.sig", [pki / "root"]
    signing.sign_with_certificate(model, ours, key=pki / "key", certificate=pki / "leaf")
    root = ("--certificate_chain", pki / "root")
    done = own_tool("verify", "certificate", model, "--signature", ours, *root)
    assert done.returncode == 0, done.stderr
    made = ("--private_key", pki / "key", "--signing_certificate", pki / "leaf")
    done = own_tool("sign", "certificate", model, "--signature", theirs, *made, *root)
    assert done.returncode == 0, done.stderr
    for signature in (ours, theirs):
        assert signing.check_with_certificate(model, signature, roots=roots) == ()
        with pytest.raises(IntegrityError, match="model-signing accepts"):
            signing.check_with_certificate(model, signature, roots=[pki / "stranger"])
    (model / "pre" / "one.bin").write_bytes(b"\x08")
    with pytest.raises(IntegrityError, match=r"pre/one\.bin"):
        signing.check_with_certificate(model, ours, roots=roots)


@pytest.mark.usefixtures("library")
def test_no_trick_with_files_passes(model: Path, pki: Path) -> None:
    signature = model.parent / "sig"
    signing.sign_with_key(model, signature, key=pki / "key")
    kept = model.parent / "kept"
    shutil.copytree(model, kept)
    tricks = {
        "changed": lambda: (model / "weights.bin").write_bytes(b"\x01" + (kept / "weights.bin").read_bytes()[1:]),
        "added": lambda: (model / "new").write_bytes(b""),
        "removed": lambda: (model / "empty").unlink(),
        "renamed": lambda: (model / "empty").rename(model / "Empty"),
        "link": lambda: ((model / "empty").unlink(), (model / "empty").symlink_to(kept / "empty")),
        "folder's link": lambda: (shutil.rmtree(model), model.symlink_to(kept)),
    }
    for trick, play in tricks.items():
        play()
        with pytest.raises(IntegrityError):
            signing.check_with_key(model, signature, key=pki / "pub")
        model.unlink() if model.is_symlink() else shutil.rmtree(model)
        shutil.copytree(kept, model)
        assert signing.check_with_key(model, signature, key=pki / "pub") == (), trick
    text = signature.read_text()
    for broken in ("", "{}", text[:-9], text.replace('"sig":"', '"sig":"AAAA')):
        signature.write_text(broken)
        with pytest.raises(IntegrityError):
            signing.check_with_key(model, signature, key=pki / "pub")
    signature.write_text(text)
    with pytest.raises(IntegrityError, match="Key mismatch"):
        signing.check_with_key(model, signature, key=pki / "other.pub")


@pytest.mark.usefixtures("library")
def test_links_are_refused_though_a_signer_allowed_them(model: Path, pki: Path) -> None:
    signature = model.parent / "sig"
    (model / "link").symlink_to(SIGNED / "keys.json")
    tool = ("--signature", signature, "--private_key", pki / "key", "--allow_symlinks")
    assert own_tool("sign", "key", model, *tool).returncode == 0
    with pytest.raises(IntegrityError, match="a link, whose target can change at 'link'"):
        signing.check_with_key(model, signature, key=pki / "pub")
    with pytest.raises(UsageError, match="link"):
        signing.sign_with_key(model, model.parent / "other.sig", key=pki / "key")


@pytest.mark.usefixtures("library")
def test_what_a_signature_does_not_cover_is_told(model: Path, pki: Path) -> None:
    (model / ".git").mkdir()
    (model / ".git" / "config").write_text("[core]")
    signing.sign_with_key(model, model.parent / "sig", key=pki / "key")
    assert signing.check_with_key(model, model.parent / "sig", key=pki / "pub") == (".git",)


@pytest.mark.usefixtures("library")
def test_git_s_files_are_told_though_the_signature_is_silent_about_them(model: Path, pki: Path) -> None:
    signature = model.parent / "sig"
    tool = ("--signature", signature, "--private_key", pki / "key", "--no-ignore-git-paths")
    assert own_tool("sign", "key", model, *tool).returncode == 0
    assert signing.check_with_key(model, signature, key=pki / "pub") == ()
    (model / ".git").mkdir()
    (model / ".git" / "hook").write_text("evil")
    (model / ".gitattributes").write_text("* filter=evil")
    assert signing.check_with_key(model, signature, key=pki / "pub") == (".git", ".gitattributes")


@pytest.mark.usefixtures("library")
def test_a_signature_is_written_whole_or_not_at_all(model: Path, pki: Path) -> None:
    place, victim = model.parent / "sig", model.parent / "victim"
    victim.write_text("mine")
    place.symlink_to(victim)
    signing.sign_with_key(model, place, key=pki / "key")
    assert (victim.read_text(), place.is_symlink()) == ("mine", False)
    with pytest.raises(UsageError, match="able to write"):
        signing.sign_with_key(model, model.parent / "none" / "sig", key=pki / "key")


@pytest.mark.usefixtures("library")
def test_wrong_keys_are_the_user_s_to_mend(model: Path, pki: Path) -> None:
    sig = model.parent / "sig"
    for call in (
        lambda: signing.sign_with_key(model, sig, key=pki / "locked"),
        lambda: signing.sign_with_key(model, sig, key=pki / "locked", passphrase="no"),
        lambda: signing.sign_with_key(model, sig, key=pki / "pub"),
        lambda: signing.sign_with_certificate(model, sig, key=pki / "key", certificate=pki / "root"),
        lambda: signing.check_with_key(model, SIGNED / "model.key.sig", key=SIGNED / "signer.pub"),
        lambda: signing.check_with_certificate(model, SIGNED / "model.key.sig", roots=[]),
    ):
        with pytest.raises(UsageError):
            call()
    assert not sig.exists()
