"""`casemate sign`: what is signed is what lies there, and an audit is attested of the model it was about alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from tests.cli.signing_app import asked

import casemate
from casemate.artifacts import provenance
from casemate.formats import keys, manifest

CHILD = """
import sys
from tests.cli.signing_app import _APP
from casemate.cli._boundary import guarded
sys.exit(guarded(lambda: _APP(args=sys.argv[1:], prog_name="casemate", standalone_mode=False), arguments=sys.argv[1:]))
"""


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = keys.generate()
    keys.save_private("me.key", key)
    keys.save_public("me.pub", key.public_key())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(b"weights")
    (tmp_path / "model" / "config.txt").write_bytes(b"")
    return tmp_path


def said(path):
    trust = provenance.read_trust([path.parent / "me.pub"])
    return provenance.verify_envelope(provenance.read_envelope(path), trust)


def test_a_folder_is_signed_beside_itself_with_what_it_was_made_of(capsys, at):
    (at / "data.csv").write_text("x\n1\n")
    source = "https://example.org/data.csv#sha256=" + "a" * 64
    assert asked(capsys, "sign", "data.csv", "-k", "me.key", "--source", source)[0] == 0
    commit = "https://example.org/repo@" + "b" * 40
    code, out, _ = asked(
        capsys, "sign", "model", "--key", "me.key", "--days", 10, "--data", "data.csv.casemate.json", "--code", commit
    )
    assert code == 0
    assert "2 files, 7 bytes" in out
    found = said(at / "model.casemate.json")
    assert found.provenance.files == manifest.of_path(at / "model")
    assert (found.body.expires - found.body.created).days == 10
    assert [item.name for item in found.provenance.lineage.data] == ["data.csv"]
    assert found.provenance.lineage.code[0].commit == "b" * 40
    assert said(at / "data.csv.casemate.json").provenance.lineage.sources[0].digest == "sha256:" + "a" * 64
    assert sorted(os.listdir(at)) == [
        "data.csv", "data.csv.casemate.json", "me.key", "me.pub", "model", "model.casemate.json",
    ]  # fmt: skip
    monkeypatched = at / "model"
    os.chdir(monkeypatched)
    assert asked(capsys, "sign", ".", "--key", "../me.key")[0] == 0
    assert said(at / "model.casemate.json").provenance.name == "model"


def test_a_bare_manifest_needs_no_key(capsys, at):
    assert asked(capsys, "sign", "model", "--unsigned", "-o", "list.json")[0] == 0
    assert manifest.from_json((at / "list.json").read_bytes()) == manifest.of_path(at / "model")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model",), "a private key, got none"),
        (("none", "--key", "me.key"), "No such file"),
        (("model", "--key", "me.pub"), "a private key in me.pub"),
        (("model", "--key", "me.key", "-o", "model/in.json"), "outside model"),
        (("model", "--key", "me.key", "-o", "model"), "got the folder"),
        (("model/weights.bin", "--key", "me.key", "-o", "model/weights.bin"), "the same file"),
        (("model", "--key", "me.key", "--code", "main"), "--code COMMIT"),
        (("model", "--key", "me.key", "--source", "a#b"), "--source URI"),
        (("model", "--key", "me.key", "--days", "99999999"), "a calendar holds"),
        (("model", "--key", "me.key", "--name", "a\nb"), "printable"),
        (("model", "--key", "me.key", "--report", "none"), "report.json"),
        (("model", "--key", "me.key", "--method", "key", "--report", "none"), "go with --method key, got --report"),
        (("model", "--key", "me.key", "--method", "key", "--days", "9"), "go with --method key, got --days"),
        (("model", "--key", "me.key", "--certificate", "c"), "without --method certificate, got --certificate"),
        (("model", "--key", "me.key", "--unsigned", "--source", "x"), "with --unsigned, got lineage, --key"),
        (("model", "--key", "me.key", "-o", "me.key"), "an --output of its own"),
        (("model", "--key", "me.key", "-o", "run/report.json", "--report", "run"), "an --output of its own"),
        (("model", "--key", "/dev/zero"), "more than 65536 bytes"),
        (("model", "--key", "me.key", "--method", "certificate"), "name it with --certificate"),
    ],
)
def test_wrong_use_is_said_and_nothing_is_left_behind(capsys, at, arguments, message):
    before = sorted(os.listdir(at))
    code, out, err = asked(capsys, "sign", *arguments)
    assert (code, out) == (2, "")
    assert message in err.replace(" got ", ", got ").replace(",, ", ", ")
    assert sorted(os.listdir(at)) == before


def test_an_audit_is_attested_of_the_model_that_it_was_about(capsys, at):
    import skops.io

    x = np.random.default_rng(0).normal(size=(60, 3))
    y = (x[:, 0] > 0).astype(int)
    audited, other = LogisticRegression().fit(x, y), LogisticRegression(C=0.5).fit(x, y)
    skops.io.dump(audited, at / "model.skops")
    skops.io.dump(other, at / "other.skops")
    policy = casemate.Policy(fail_on=casemate.Severity.NONE)
    report = casemate.audit(audited, test=(x, y), only=["preflight"], policy=policy, output=at / "run")
    code, _, err = asked(capsys, "sign", "other.skops", "--key", "me.key", "--report", "run")
    assert code == 1
    assert "the model that was audited" in err
    assert not (at / "other.skops.casemate.json").exists()
    code, _, err = asked(capsys, "sign", "model.skops", "--key", "me.key", "--report", "run")
    assert (code, err) == (0, "")
    found = said(at / "model.skops.casemate.json")
    assert found.audit.bundle_digest == report.bundle
    assert found.audit.audited is not None

    # a configuration says how the model inside a folder is loaded
    (at / "model.skops").rename(at / "model" / "model.skops")
    np.savez(at / "test.npz", x=x, y=y)
    (at / "casemate.toml").write_text('[model]\npath = "model/model.skops"\n[data]\ntest = "test.npz"\n')
    assert asked(capsys, "sign", "model", "--key", "me.key", "--report", "run")[0] == 0
    assert len(said(at / "model.casemate.json").provenance.files.entries) == 3
    (at / "other.skops").replace(at / "model" / "model.skops")
    assert asked(capsys, "sign", "model", "--key", "me.key", "--report", "run")[0] == 1


def test_an_interrupted_signing_goes_on_where_it_was(capsys, at):
    big = at / "model" / "big.bin"
    with big.open("wb") as stream:
        stream.truncate(6 << 30)  # sparse: seconds of hashing, no disk
    time.sleep(2.1)  # what was touched a moment ago is not written down
    command = [sys.executable, "-c", CHILD, "sign", "model", "--key", "me.key"]
    paths = os.pathsep.join(item for item in sys.path if item)
    child = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    journal = at / ".model.casemate.json.journal"
    until = time.monotonic() + 60
    while not journal.exists():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(0.3)  # a small file is read now, most likely both, and the large one is not
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, "give the same command again" in err) == (130, True), err
    assert not (at / "model.casemate.json").exists()
    kept = len(journal.read_bytes().splitlines())
    assert kept in (1, 2)
    big.unlink()
    code, out, _ = asked(capsys, "sign", "model", "--key", "me.key")
    assert (code, f"{kept} of them read before" in out) == (0, True)
    assert not journal.exists()
    assert said(at / "model.casemate.json").provenance.files == manifest.of_path(at / "model")


def _linked(place):
    place.symlink_to("victim")


@pytest.mark.parametrize("planted", [_linked, os.mkfifo, lambda place: os.link("victim", place), os.mkdir])
def test_a_journal_is_written_to_a_plain_file_of_its_own_alone(capsys, at, planted):
    (at / "victim").write_text("mine")
    place = at / ".model.casemate.json.journal"
    planted(place)
    code, out, err = asked(capsys, "sign", "model", "--key", "me.key")
    assert (code, out) == (2, "")
    assert "journal" in err
    assert (at / "victim").read_text() == "mine"
    code, _, err = asked(capsys, "sign", "model", "--key", "me.key", "--rehash")
    assert code == (2 if place.is_dir() else 0), err
    assert (at / "victim").read_text() == "mine"


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
"""


def test_a_full_disk_is_said_and_what_was_there_stays(capsys, at):
    asked(capsys, "sign", "model", "--key", "me.key")
    before = (at / "model.casemate.json").read_bytes()
    for number in range(100):
        (at / "model" / str(number)).write_bytes(b"")
    time.sleep(2.1)  # so that the journal is written as well
    command = [sys.executable, "-c", FULL + CHILD, "sign", "model", "--key", "me.key"]
    paths = os.pathsep.join(item for item in sys.path if item)
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, check=False)
    assert (done.returncode, "File too large" in done.stderr) == (2, True), done.stderr
    assert (at / "model.casemate.json").read_bytes() == before
    assert asked(capsys, "sign", "model", "--key", "me.key")[0] == 0  # the cut journal does no harm


def test_the_same_key_and_files_leave_the_same_statement_but_for_its_time(capsys, at):
    asked(capsys, "sign", "model", "--key", "me.key", "-o", "a.json")
    asked(capsys, "sign", "model", "--key", "me.key", "-o", "b.json", "--rehash")
    a, b = (said(at / name) for name in ("a.json", "b.json"))
    assert a.provenance == b.provenance
    assert set(json.loads((at / "a.json").read_bytes())) == {"payload", "payloadType", "signatures"}
