"""`casemate verify`: 0 for what was signed and will do, 1 with its own words for everything that will not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.cli.signing_app import asked
from tests.report import samples

from casemate._attest import attest
from casemate.core.policy import Gate, Policy
from casemate.formats import canonical, keys, manifest
from casemate.formats.provenance import Provenance
from casemate.report import json as report_json

SIGNED = Path(__file__).parents[1] / "formats" / "golden" / "signed-1"


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SIGNED, tmp_path / "signed")
    return tmp_path / "signed"


def test_the_released_files_verify_and_show_where_they_come_from(capsys, at):
    code, out, err = asked(
        capsys, "verify", "signed/model", "--key", "signed/keys.json", "--verdict", "failed",
        "--parent", "signed/data.casemate.json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out.startswith("verified: model (4 files, 4,360 bytes, sha256:")
    for line in (
        "audit     failed on 2026-11-22",
        "parent    base sha256:",
        "(not checked)",
        "its own statement holds",
    ):
        assert line in out
    assert "https://example.org/repo 0123456789abcdef0123456789abcdef01234567" in out
    code, out, _ = asked(capsys, "verify", "signed/data", "--key", "signed/signer.pub")
    assert (code, "source    https://example.org/train.csv" in out) == (0, True)
    assert asked(capsys, "verify", "signed/data", "--manifest", "signed/data.manifest.json")[0] == 0


REFUSED = {
    "a byte": (lambda at: (at / "model" / "weights.bin").write_bytes(bytes(4353)), (), "weights.bin: digest"),
    "a file more": (lambda at: (at / "model" / "new").touch(), (), "new: added"),
    "another verdict": (None, ("--verdict", "passed"), "expected an audit that passed"),
    "no verdict asked": (None, (), "expected an audit that passed"),
    "a stale audit": (None, ("--verdict", "any", "--max-age", "0"), "stale audit"),
    "another key": (None, ("--verdict", "any", "--key", "other.pub"), "unknown key"),
    "another report": (None, ("--verdict", "any", "--report", "other"), "another report"),
    "a revoked key": (None, ("--verdict", "any", "--revoked", "gone.json"), "revoked key"),
    "a weaker policy": (None, ("--verdict", "any", "--policy", "strict.toml"), "asks less than 0.9"),
    "no audit": (None, ("--verdict", "any", "-a", "signed/files.casemate.json"), "of files alone"),
    "an expired key": (None, ("-a", "signed/by-expired.casemate.json"), "expired key"),
    "a thief's key": (None, ("-a", "signed/by-revoked.casemate.json"), "revoked key"),
    "another's statement": (None, ("-a", "signed/data.casemate.json"), "got others"),
    "a strange parent": (None, ("--verdict", "any", "--parent", "signed/files.casemate.json"), "another lineage"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_everything_that_does_not_hold_exits_with_1_and_its_own_words(capsys, at, case):
    play, arguments, message = REFUSED[case]
    keys.save_public(at.parent / "other.pub", keys.generate().public_key())
    (at.parent / "other").mkdir()
    (at.parent / "other" / "report.json").write_bytes(report_json.dumps(samples.report()))
    gate = '[[policy.gate]]\nmetric = "evasion.robust_accuracy"\nat = { eps = 0.1, norm = "linf" }\nmin = 0.9\n'
    (at.parent / "strict.toml").write_text(gate)
    asked(capsys, "key", "trust", "signed/signer.pub", "--file", "gone.json")
    (name,) = [word for word in asked(capsys, "key", "list", "gone.json")[1].split() if word.startswith("ed25519:")]
    asked(capsys, "key", "revoke", name, "--file", "gone.json", "--reason", "lost")
    if play is not None:
        play(at)
        arguments = ("--verdict", "any", *arguments)
    own_key = () if "--key" in arguments else ("--key", "signed/keys.json")
    code, out, err = asked(capsys, "verify", "signed/model", *own_key, *arguments)
    assert (code, out) == (1, ""), err
    assert message in err


def test_a_policy_as_strict_will_do_and_one_more_gate_will_not(capsys, at):
    key = keys.generate()
    keys.save_public(at.parent / "me.pub", key.public_key())
    report = samples.report()
    about = Provenance("model", manifest.of_path(at / "model"))
    (at / "model.casemate.json").write_bytes(canonical.dumps(attest(report, key, provenance=about)))
    demanded = Policy(report.policy.fail_on, report.policy.gates)
    for extra, wanted in ((), 0), ((Gate("privacy.x", min=1),), 1):
        lines = [f'[policy]\nfail_on = "{demanded.fail_on}"']
        for gate in (*demanded.gates, *extra):
            at_ = ", ".join(f"{name} = {value!r}".replace("'", '"') for name, value in gate.at.items())
            lines += [f'[[policy.gate]]\nmetric = "{gate.metric}"\nabout = "{gate.about}"\nat = {{ {at_} }}']
            lines += [f"{side} = {bar}" for side, bar in (("min", gate.min), ("max", gate.max)) if bar is not None]
        for item in report.policy.accepted:
            until = max(item.until, __import__("datetime").date(2099, 1, 1))
            lines += [f'[[policy.accept]]\nfinding = "{item.finding}"\nuntil = {until}\nreason = "r"']
        (at.parent / "policy.toml").write_text("\n".join(lines))
        asks = ("--verdict", "any", "--policy", "policy.toml")
        code, _, err = asked(capsys, "verify", "signed/model", "--key", "me.pub", *asks)
        assert code == wanted, err
        assert ("has no gate on privacy.x" in err) is bool(wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("signed/model",), "at least one key"),
        (("signed/model", "--key", "none.pub"), "readable file"),
        (("signed/none", "--key", "signed/signer.pub"), "readable file"),
        (("signed/model", "--key", "signed/signer.pub", "-a", "signed/keys.json"), "other JSON"),
        (("signed/model", "--key", "signed/signer.pub", "-a", "signed/model/weights.bin"), "no JSON"),
        (("signed/model", "--manifest", "signed/data.manifest.json", "--key", "signed/signer.pub"), "has no signer"),
        (("signed/model", "-a", "signed/model.key.sig", "--verdict", "any"), "know no audit"),
        (("signed/model", "-a", "signed/model.key.sig"), "got 0 keys"),
        (("signed/model", "--key", "signed/signer.pub", "--root", "signed/root.crt"), "got --root"),
        (("signed/model", "--key", "signed/signer.pub", "--max-age", "99999999999"), "less than or equal to 36500"),
        (("signed/model", "--key", "signed/signer.pub", "--revoked", "none.json"), "readable file"),
    ],
)
def test_wrong_use_exits_with_2(capsys, at, arguments, message):
    code, out, err = asked(capsys, "verify", *arguments)
    assert (code, out) == (2, ""), err
    assert message in err


def test_a_signature_of_model_signing_is_told_by_its_content(capsys, at):
    pytest.importorskip("model_signing.verifying", reason="the extra [sign] is not installed")
    key = ("-a", "signed/model.key.sig", "--key", "signed/openssf.pub")
    assert asked(capsys, "verify", "signed/model", *key)[0] == 0
    root = ("-a", "signed/model.certificate.sig", "--root", "signed/root.crt")
    assert asked(capsys, "verify", "signed/model", *root)[0] == 0
    (at / "model" / "empty").write_bytes(b"1")
    assert asked(capsys, "verify", "signed/model", *key)[0] == 1
    assert asked(capsys, "verify", "signed/model", *root)[0] == 1
