"""`casemate key`: keys that nobody else can read, and a trust file that says whose signatures count."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys

import pytest
from tests.cli.signing_app import asked

from casemate.formats import keys
from casemate.formats.trust import TrustFile


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CASEMATE_KEY_PASSPHRASE", raising=False)
    return tmp_path


def test_a_new_key_is_its_owner_s_alone_and_never_written_over(capsys, at, monkeypatch):
    code, out, _ = asked(capsys, "key", "new", "me.key", "--no-passphrase")
    assert code == 0
    assert out.startswith("ed25519:")
    assert stat.S_IMODE((at / "me.key").stat().st_mode) == 0o600
    assert keys.key_id(keys.load_private(at / "me.key").public_key()) == keys.key_id(
        keys.load_public(at / "me.key.pub")
    )
    before = (at / "me.key").read_bytes()
    assert asked(capsys, "key", "new", "me.key", "--no-passphrase")[0] == 2
    (at / "me.key.pub").unlink()
    assert asked(capsys, "key", "new", "me.key", "--no-passphrase")[0] == 2
    assert (at / "me.key").read_bytes() == before
    code, shown, _ = asked(capsys, "key", "public", "me.key")
    assert (code, shown.splitlines()[0]) == (0, out.splitlines()[0])


def test_a_passphrase_comes_from_the_variable_and_without_anybody_to_ask_it_is_said(capsys, at, monkeypatch):
    monkeypatch.setenv("CASEMATE_KEY_PASSPHRASE", "correct horse")
    assert asked(capsys, "key", "new", "locked.key")[0] == 0
    assert keys.load_private(at / "locked.key", "correct horse")
    assert asked(capsys, "key", "public", "locked.key")[0] == 0
    monkeypatch.setenv("CASEMATE_KEY_PASSPHRASE", "wrong")
    assert asked(capsys, "key", "public", "locked.key")[0] == 2
    monkeypatch.delenv("CASEMATE_KEY_PASSPHRASE")
    for command in (("public", "locked.key"), ("new", "other.key")):
        code, _, err = asked(capsys, "key", *command)
        assert code == 2
        assert "set CASEMATE_KEY_PASSPHRASE" in err
    assert not (at / "other.key").exists()
    assert asked(capsys, "key", "public", "locked.key.pub")[0] == 0


@pytest.mark.parametrize(
    ("passphrase", "message"), [("\udcff", "in UTF-8"), ("x" * 1024, "at most 1023 bytes"), ("é" * 512, "got 1024")]
)
def test_a_passphrase_that_no_key_can_have_leaves_no_key(capsys, at, monkeypatch, passphrase, message):
    monkeypatch.setenv("CASEMATE_KEY_PASSPHRASE", passphrase)
    code, _, err = asked(capsys, "key", "new", "me.key")
    assert (code, message in err, list(at.iterdir())) == (2, True, [])


def test_the_end_of_the_input_is_no_passphrase(at):
    terminal, its_end = pty.openpty()
    command = [sys.executable, "-c", "from casemate.cli import main; main()", "key", "new", "me.key"]
    child = subprocess.Popen(command, stdin=its_end, stderr=subprocess.PIPE, start_new_session=True)
    try:
        asked_for = child.stderr.read(len("passphrase: "))
        os.write(terminal, b"\x04")  # Ctrl-D
        _, err = child.communicate(timeout=20)
    finally:
        child.kill()
        os.close(terminal)
        os.close(its_end)
    assert (asked_for, child.returncode, list(at.iterdir())) == (b"passphrase: ", 2, [])
    assert b"the end of the input" in err


def test_half_a_pair_is_not_left_behind(capsys, at):
    assert asked(capsys, "key", "new", "n" * 253, "--no-passphrase")[0] == 2  # with .pub it is too long a name
    assert list(at.iterdir()) == []


def test_a_key_is_read_from_a_pipe_once(capsys, at):
    asked(capsys, "key", "new", "me.key", "--no-passphrase")
    for name in ("me.key", "me.key.pub"):
        reader, writer = os.pipe()
        os.write(writer, (at / name).read_bytes())
        os.close(writer)
        try:
            code, out, _ = asked(capsys, "key", "public", f"/dev/fd/{reader}")
        finally:
            os.close(reader)
        assert (code, out.startswith("ed25519:")) == (0, True)


def test_words_that_a_trust_file_cannot_hold_are_not_written_to_it(capsys, at):
    asked(capsys, "key", "new", "me.key", "--no-passphrase")
    trusted = ("key", "trust", "me.key.pub", "--file", "keys.json")
    for owner in ("a\nb", "\x1b[31m", "x" * 501):
        assert asked(capsys, *trusted, "--owner", owner)[0] == 2
        assert not (at / "keys.json").exists()
    assert asked(capsys, *trusted, "--owner", "é")[0] == 0
    (key,) = TrustFile.load((at / "keys.json").read_bytes()).keys
    assert asked(capsys, "key", "revoke", key.id, "--file", "keys.json", "--reason", "stolen\nlaptop")[0] == 2
    assert TrustFile.load((at / "keys.json").read_bytes()).keys == (key,)


def test_a_trust_file_is_made_listed_and_revoked_in(capsys, at):
    for name in ("a", "b", "c"):
        asked(capsys, "key", "new", name, "--no-passphrase")
    days = ("--not-before", "2025-01-01", "--not-after", "2025-06-01")
    assert asked(capsys, "key", "trust", "a.pub", "--file", "keys.json", "--owner", "release team")[0] == 0
    assert asked(capsys, "key", "trust", "b.pub", "--file", "keys.json", *days)[0] == 0
    assert asked(capsys, "key", "trust", "c.pub", "--file", "keys.json", "--not-before", "2999-01-01")[0] == 0
    first, second, third = TrustFile.load((at / "keys.json").read_bytes()).keys
    assert (first.owner, f"{second.not_after:%Y-%m-%d}") == ("release team", "2025-06-01")
    assert asked(capsys, "key", "revoke", first.id, "--file", "keys.json", "--reason", "stolen")[0] == 0
    code, out, _ = asked(capsys, "key", "list", "keys.json")
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("ed25519:")}
    assert code == 0
    assert "stolen" in lines[first.id]
    assert "expired" in lines[second.id]
    assert "not valid yet" in lines[third.id]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list", "none.json"), "expected a trust file"),
        (("list", "me.pub"), "expected JSON"),
        (("trust", "me.pub", "--file", "keys.json", "--not-after", "soon"), "expected a day"),
        (("trust", "none.pub", "--file", "keys.json"), "readable key file"),
        (("revoke", "ed25519:0", "--file", "keys.json", "--reason", "r"), "expected a trust file"),
        (("revoke", "ed25519:0", "--file", "keys.json"), "--reason"),
        (("public", "none"), "readable key file"),
    ],
)
def test_wrong_use_is_said_in_one_line(capsys, at, arguments, message):
    keys.save_public(at / "me.pub", keys.generate().public_key())
    code, _, err = asked(capsys, "key", *arguments)
    assert code == 2
    assert message.replace("expected ", "") in err
