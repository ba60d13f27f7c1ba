"""Signed files: nothing that differs by a byte, a name or a kind passes; no statement counts for more than it says."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import json
import os
import re
import shutil
import socket
import stat
import threading
import time
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.test_judgement import gates, outcomes
from tests.report import samples

from casemate._attest import attest
from casemate.artifacts import provenance
from casemate.artifacts.journals import Journal
from casemate.artifacts.policies import weaknesses
from casemate.artifacts.provenance import Demands
from casemate.core.judgement import Status, rule
from casemate.core.outcome import Severity
from casemate.core.policy import Accepted, Gate, Policy
from casemate.errors import CasemateError, FormatError, IntegrityError, UsageError
from casemate.formats import attestation, canonical, digests, files, keys, manifest
from casemate.formats.provenance import Ingredient, Lineage, Provenance
from casemate.formats.trust import TrustedKey, TrustFile
from casemate.report import json as report_json

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "formats" / "golden"
SIGNED = GOLDEN / "signed-1"
THEN = dt.datetime(2026, 11, 25, 13, tzinfo=dt.UTC)
TODAY = THEN.date()
KEY = keys.generate()
TRUST = TrustFile((TrustedKey(KEY.public_key().public_bytes_raw()),))
BLOCK = 1 << 20
SIZES = (0, 1, 2, 4095, 4096, 65536, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, (16 << 20) + 3)


def golden(name: str) -> dict[str, Any]:
    return provenance.read_envelope(SIGNED / f"{name}.casemate.json")


def signed(path: Path, **lineage: Any) -> dict[str, Any]:
    about = Provenance(path.name, manifest.of_path(path), Lineage(**lineage))
    return provenance.sign_files(about, KEY, now=THEN)


def check(envelope: dict[str, Any], path: Path) -> None:
    verified = provenance.verify_envelope(envelope, TRUST, now=THEN)
    provenance.refuse_other_files(verified.provenance.files, path)


# ------------------------------------------------------------------------------------------------- what was released


def test_the_first_released_attestations_and_manifests_verify_for_ever() -> None:
    trust = provenance.read_trust([SIGNED / "keys.json"])
    assert provenance.read_trust([SIGNED / "signer.pub"]).keys[0].id == trust.keys[0].id
    report = report_json.loads((GOLDEN / "report-1.json").read_bytes())
    demands = Demands(report.policy, "failed", dt.timedelta(days=7), report_json.digest(report))
    model = provenance.verify_envelope(golden("model"), trust, demands, now=THEN)
    provenance.refuse_other_files(model.provenance.files, SIGNED / "model")
    assert model.signers == (trust.keys[0].id,)
    assert model.audit is not None
    assert model.audit.bundle_digest == report.bundle
    assert model.provenance.lineage.parents[0].name == "base"
    assert model.provenance.lineage.code[0].commit == "0123456789abcdef0123456789abcdef01234567"
    parts = provenance.verify_ingredients(model, [golden("data")], trust, now=THEN)
    (data,) = parts.values()
    provenance.refuse_other_files(data.provenance.files, SIGNED / "data")
    assert data.audit is None
    assert [item.uri for item in data.provenance.lineage.sources] == [
        "https://example.org/train.csv",
        "https://example.org/more",
    ]
    listed = manifest.from_json((SIGNED / "data.manifest.json").read_bytes())
    assert listed == data.provenance.files == manifest.of_path(SIGNED / "data")
    assert listed.digest == "sha256:" + DATA_MANIFEST


DATA_MANIFEST = "aae3bac7a8b20ae7d3594ee7254f8bd6eb699911fcb53b670c00ab89b8208f41"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("by-revoked", r"revoked key: .* revoked on 2026-10-03 \(the laptop was stolen\)"),
        ("by-expired", "expired key: .* valid until 2026-06-01"),
        ("short", "expired on 2026-12-24"),
    ],
)
def test_released_statements_that_no_longer_count_say_why_for_ever(name: str, message: str) -> None:
    trust = provenance.read_trust([SIGNED / "keys.json"])
    with pytest.raises(IntegrityError, match=message):
        provenance.verify_envelope(golden(name), trust, now=THEN + dt.timedelta(days=31))


SCHEMAS = {
    name: json.loads((ROOT / "schemas" / f"{name}-1.schema.json").read_bytes()) for name in ("manifest", "trust")
}
SCHEMAS["statement"] = json.loads((ROOT / "schemas" / "attestation-1.schema.json").read_bytes())


def statements() -> list[Any]:
    envelopes = [json.loads((GOLDEN / "attestation-1.json").read_bytes()), golden("model"), golden("data")]
    return [json.loads(base64.b64decode(item["payload"])) for item in envelopes]


def kinds() -> list[tuple[str, Any, Any]]:
    def read(value: Any) -> object:
        plain = attestation.checked(canonical.loads(json.dumps(value)))
        if plain["predicateType"] == attestation.FILES_PREDICATE_TYPE:
            return attestation.files_predicate(plain)
        return attestation.audit_predicate(plain)

    return [
        *(("statement", item, read) for item in statements()),
        ("trust", json.loads((SIGNED / "keys.json").read_bytes()), lambda value: TrustFile.load(json.dumps(value))),
        (
            "manifest",
            json.loads((SIGNED / "data.manifest.json").read_bytes()),
            lambda value: manifest.from_json(json.dumps(value)),
        ),
    ]


def test_what_is_written_fits_its_schema() -> None:
    for name, value, _ in kinds():
        jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
        jsonschema.validate(value, SCHEMAS[name], jsonschema.Draft202012Validator)


@given(st.data())
def test_what_a_reader_takes_fits_the_schema(data: st.DataObject) -> None:
    name, value, read = data.draw(st.sampled_from(kinds()))
    value = copy.deepcopy(value)
    places = [place for place in walk(value) if place[1] != "policy"]
    holder, step = data.draw(st.sampled_from(places))
    odd = st.sampled_from([None, 0, -1, 1.5, True, "", "x", "sha256:", [], {}, [{}], {"sha256": "00"}])
    if isinstance(holder, dict) and data.draw(st.booleans()):
        holder["new"] = data.draw(odd)
    elif data.draw(st.booleans()):
        del holder[step]
    else:
        holder[step] = data.draw(odd)
    try:
        read(value)
    except CasemateError:
        return
    jsonschema.validate(value, SCHEMAS[name], jsonschema.Draft202012Validator)


def walk(value: Any) -> list[tuple[Any, Any]]:
    steps = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [pair for step in steps for pair in [(value, step), *walk(value[step])] if step != "policy"]


# ------------------------------------------------------------------------------------------------- files that differ


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sized") / "model"
    folder.mkdir()
    for size in SIZES:
        (folder / f"{size}.bin").write_bytes(os.urandom(size))
    return folder, signed(folder)


@given(st.sampled_from(SIZES[1:]), st.data())
def test_a_wrong_byte_anywhere_in_a_file_of_any_size_fails(
    sized: tuple[Path, dict[str, Any]], size: int, data: st.DataObject
) -> None:
    folder, envelope = sized
    borders = [place for place in (0, 1, 4095, 4096, BLOCK - 1, BLOCK, 16 << 20, size - 1) if place < size]
    place = data.draw(st.sampled_from(borders) | st.integers(0, size - 1))
    flip = data.draw(st.integers(1, 255))
    file = folder / f"{size}.bin"
    before = file.stat()
    lone = signed(file) if size <= 65536 else None
    change(file, place, flip)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # a thief sets the time back
    try:
        with pytest.raises(IntegrityError, match=rf"{size}\.bin: digest"):
            check(envelope, folder)
        if lone is not None:
            with pytest.raises(IntegrityError, match=rf"{size}\.bin: digest"):
                check(lone, file)
    finally:
        change(file, place, flip)


def change(file: Path, place: int, flip: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(place)
        old = stream.read(1)
        stream.seek(place)
        stream.write(bytes([old[0] ^ flip]))


def test_whole_files_of_all_sizes_hold_and_are_each_read_once(sized: tuple[Path, dict[str, Any]]) -> None:
    folder, envelope = sized
    check(envelope, folder)
    told: list[tuple[int, int]] = []
    listed = manifest.of_path(folder, told=lambda done, total: told.append((done, total)))
    assert told[-1] == (sum(SIZES), sum(SIZES))
    assert {entry.digest for entry in listed.entries} == {
        digests.sha256_bytes((folder / f"{size}.bin").read_bytes()) for size in SIZES
    }


def _swap(root: Path) -> None:
    (root / "a.bin").rename(root / "c")
    (root / "b.bin").rename(root / "a.bin")
    (root / "c").rename(root / "b.bin")


def _rename(root: Path, old: str, new: str) -> None:
    (root / old).rename(root / new)


def _link(root: Path, name: str) -> None:
    outside = root.parent / "outside"
    (root / name).rename(outside)
    (root / name).symlink_to(outside)


def _pipe(root: Path) -> None:
    (root / "a.bin").unlink()
    os.mkfifo(root / "a.bin")


def _emptied(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


def _device(root: Path) -> None:
    try:
        os.mknod(root / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:  # not root: any other kind that is no file will do
        _socket(root, "null")


def _socket(root: Path, name: str) -> None:
    before = Path.cwd()
    os.chdir(root)  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as plug:
            plug.bind(name)
    finally:
        os.chdir(before)


TRICKS = {
    "device": (_device, "null: not a file"),
    "socket": (lambda root: _socket(root, "plug"), "plug: not a file"),
    "added": (lambda root: (root / "new").write_bytes(b""), "new: added"),
    "added and hidden": (lambda root: (root / ".hidden").write_bytes(b""), ".hidden: added"),
    "added below": (lambda root: (root / "sub" / "a.bin").write_bytes(b"a" * 9), "sub/a.bin: added"),
    "removed": (lambda root: (root / "a.bin").unlink(), "a.bin: missing"),
    "removed though empty": (lambda root: (root / "empty").unlink(), "empty: missing"),
    "renamed": (lambda root: _rename(root, "a.bin", "z.bin"), "a.bin: missing"),
    "moved": (lambda root: _rename(root, "a.bin", "sub/a.bin"), "sub/a.bin: added"),
    "swapped": (_swap, "a.bin: digest"),
    "case": (lambda root: _rename(root, "a.bin", "A.bin"), "a.bin: case fold|A.bin: added"),
    "case twin": (lambda root: (root / "A.bin").write_bytes(b"a" * 9), "A.bin: added"),
    "folder's case": (lambda root: _rename(root, "sub", "Sub"), "Sub/é.txt: added"),
    "decomposed": (
        lambda root: _rename(root, "sub/é.txt", unicodedata.normalize("NFD", "sub/é.txt")),
        "not nfc",
    ),
    "look-alike": (lambda root: _rename(root, "a.bin", "\u0430.bin"), "a.bin: missing"),
    "invisible": (lambda root: _rename(root, "a.bin", "a\u200e.bin"), "unsafe name"),
    "blank": (lambda root: _rename(root, "a.bin", "a.bin "), "a.bin: missing"),
    "link": (lambda root: _link(root, "a.bin"), "a.bin: link"),
    "twin on Windows": (lambda root: (root / "a.bin.").write_bytes(b"a" * 9), "a.bin.: case fold"),
    "dangling link": (lambda root: (root / "gone").symlink_to("nowhere"), "gone: link"),
    "linked folder": (lambda root: _link(root, "sub"), "sub: link"),
    "pipe": (_pipe, "a.bin: not a file"),
    "shorter": (lambda root: (root / "a.bin").write_bytes(b"a" * 8), "a.bin: size"),
    "longer": (lambda root: (root / "empty").write_bytes(b"\0"), "empty: size"),
    "folder for a file": (lambda root: ((root / "a.bin").unlink(), (root / "a.bin").mkdir()), "a.bin: missing"),
    "emptied": (_emptied, "a.bin: missing"),
    "emptied below": (lambda root: (root / "sub" / "é.txt").unlink(), "sub/é.txt: missing"),
    "itself a link": (lambda root: _link(root.parent, root.name), "model: link"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for name, content in {"a.bin": b"a" * 9, "b.bin": b"b" * 9, "empty": b"", "sub/é.txt": b"accent"}.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_with_files_and_names_passes(root: Path, trick: str) -> None:
    envelope = signed(root)
    check(envelope, root)
    play, message = TRICKS[trick]
    play(root)
    with pytest.raises(IntegrityError, match=message):
        check(envelope, root)


def test_a_lone_file_has_to_keep_its_name_and_be_a_file(root: Path) -> None:
    envelope = signed(root / "a.bin")
    check(envelope, root / "a.bin")
    (root / "c.bin").write_bytes(b"a" * 9)
    for other in (root / "c.bin", root, Path("/dev/null")):
        with pytest.raises(IntegrityError, match="expected the 1 files"):
            check(envelope, other)
    with pytest.raises(UsageError, match="No such file"):
        check(envelope, root / "none")


def test_what_cannot_be_signed_is_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    (root / "link").symlink_to("a.bin")
    for path, message in (
        (tmp_path / "nothing", "an empty folder"),
        (root, "a link"),
        (root / "link", "a link"),
        (Path("/dev/zero"), "a device"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(UsageError, match=message):
            manifest.of_path(path)


def test_a_file_that_is_swapped_after_it_was_met_is_not_listed(root: Path, tmp_path: Path) -> None:
    def swap(name: str, stamp: files.Stamp) -> None:
        if name == "a.bin":
            (tmp_path / "other").write_bytes(b"e" * 9)
            (tmp_path / "other").replace(root / "a.bin")

    with pytest.raises(IntegrityError, match=r"a\.bin to stay as it was found"):
        manifest.of_path(root, known=swap)
    shutil.rmtree(root / "sub")

    def divert(name: str, stamp: files.Stamp) -> None:
        if name == "a.bin":
            root.rename(tmp_path / "moved")
            shutil.copytree(tmp_path / "moved", tmp_path / "evil")
            root.symlink_to("evil")

    with pytest.raises(IntegrityError, match="to stay as it was found"):
        manifest.of_path(root, known=divert)


@given(st.data())
def test_changing_any_character_of_an_envelope_never_changes_what_it_says(data: st.DataObject) -> None:
    text = (SIGNED / "model.casemate.json").read_text()
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(codec="utf-8").filter(lambda letter: letter != text[place]) | st.just(""))
    before = provenance.verify_envelope(golden("model"), TRUSTED, Demands(verdict="any"), now=THEN)
    try:
        value: Any = canonical.loads(text[:place] + letter + text[place + 1 :])
        assert provenance.verify_envelope(value, TRUSTED, Demands(verdict="any"), now=THEN) == before
    except (IntegrityError, FormatError):
        return


TRUSTED = provenance.read_trust([SIGNED / "keys.json"])


# ----------------------------------------------------------------------------------------- keys, days, audits, lineage


def test_each_way_a_statement_fails_has_its_own_message(root: Path) -> None:
    policy = Policy(gates=(Gate("evasion.robust_accuracy", {"eps": 0.1}, min=0.5),))
    report = samples.report()
    about = Provenance("model", manifest.of_path(root))
    plain = provenance.sign_files(about, KEY, now=THEN)
    audit = attest(report, KEY, now=THEN, provenance=about)
    made = dt.datetime.fromisoformat(report.timings.created)
    cases: list[tuple[str, dict[str, Any], TrustFile, Demands, dt.datetime]] = [
        ("unknown key", plain, TrustFile((TrustedKey(bytes(32)),)), Demands(), THEN),
        ("expired on", plain, TRUST, Demands(), THEN + dt.timedelta(days=90)),
        ("of the past", plain, TRUST, Demands(), THEN - dt.timedelta(days=1)),
        ("signature of files alone", plain, TRUST, Demands(verdict="any"), THEN),
        ("signature of files alone", plain, TRUST, Demands(policy=Policy()), THEN),
        ("expected an audit that passed", audit, TRUST, Demands(), THEN),
        ("another report", audit, TRUST, Demands(verdict="any", report="sha256:" + "0" * 64), THEN),
        (
            "stale audit",
            audit,
            TRUST,
            Demands(verdict="any", max_age=dt.timedelta(days=1)),
            max(THEN, made + dt.timedelta(days=2)),
        ),
        ("weaker policy: .* no gate on evasion", audit, TRUST, Demands(policy, "any"), THEN),
        ("about a bundle in memory", attest(report, KEY, now=THEN), TRUST, Demands(verdict="any"), THEN),
    ]
    for message, envelope, trust, demands, now in cases:
        with pytest.raises(IntegrityError, match=message):
            provenance.verify_envelope(envelope, trust, demands, now=now)
    assert provenance.verify_envelope(audit, TRUST, Demands(report.policy, "any"), now=THEN).audit is not None


def test_a_report_whose_policy_or_outcomes_were_edited_is_not_signed() -> None:
    report = samples.report()
    stricter = replace(report.policy, gates=(Gate("evasion.robust_accuracy", {}, min=1.0),), accepted=())
    passed = replace(report, ruling=replace(report.ruling, status=Status.PASSED))
    for edited in (passed, replace(passed, policy=stricter), replace(passed, outcomes=())):
        with pytest.raises(FormatError, match="under its policy give its verdict, got passed where they give"):
            attest(edited, KEY, now=THEN)


def test_an_old_audit_is_stale_however_late_it_is_signed(root: Path) -> None:
    late = THEN + dt.timedelta(days=400)
    audit = attest(samples.report(), KEY, now=late, provenance=Provenance("model", manifest.of_path(root)))
    with pytest.raises(IntegrityError, match="stale audit"):
        provenance.verify_envelope(audit, TRUST, Demands(verdict="any", max_age=dt.timedelta(days=30)), now=late)


def test_keys_rotate_and_are_revoked(root: Path) -> None:
    new = keys.generate()
    day = dt.timedelta(days=1)
    old_key = TrustedKey(KEY.public_key().public_bytes_raw(), "us", THEN - 300 * day, THEN + 30 * day)
    new_key = TrustedKey(new.public_key().public_bytes_raw(), "us", THEN + 10 * day)
    both = TrustFile().add(old_key).add(new_key)
    assert TrustFile.load(both.dump()) == both
    about = Provenance("model", manifest.of_path(root))
    by_old = provenance.sign_files(about, KEY, now=THEN)
    by_new = provenance.sign_files(about, new, now=THEN + 20 * day)
    early = provenance.sign_files(about, new, now=THEN)
    assert provenance.verify_envelope(by_old, both, now=THEN + 20 * day).signers == (old_key.id,)
    assert provenance.verify_envelope(by_new, both, now=THEN + 40 * day).signers == (new_key.id,)
    failures = [
        (by_old, both, THEN + 30 * day, "expired key"),
        (early, both, THEN + 20 * day, "not valid yet"),
        (by_new, both.revoke(new_key.id, reason="lost", when=THEN), THEN + 20 * day, r"revoked key.*\(lost\)"),
    ]
    for envelope, trust, now, message in failures:
        with pytest.raises(IntegrityError, match=message):
            provenance.verify_envelope(envelope, trust, now=now)
    twice = copy.deepcopy(by_old)
    payload = base64.b64decode(twice["payload"])
    sig = new.sign(attestation.pae(attestation.PAYLOAD_TYPE, payload))
    twice["signatures"].append({"keyid": new_key.id, "sig": base64.b64encode(sig).decode()})
    one_gone = both.revoke(old_key.id, reason="retired early", when=THEN)
    open_days = TrustFile(tuple(TrustedKey(key.raw, revoked=key.revoked, reason=key.reason) for key in one_gone.keys))
    assert provenance.verify_envelope(twice, open_days, now=THEN).signers == (new_key.id,)  # the other one still counts
    with pytest.raises(UsageError, match="which is there"):
        both.add(old_key)
    with pytest.raises(UsageError, match="it was on"):
        one_gone.revoke(old_key.id, reason="again", when=THEN)


def test_a_list_of_revoked_keys_takes_trust_and_gives_none(root: Path, tmp_path: Path) -> None:
    other = TrustedKey(keys.generate().public_key().public_bytes_raw())
    mine = TRUST.keys[0]
    (tmp_path / "trust").write_bytes(TRUST.dump())
    gone = TrustFile((other,)).add(mine).revoke(mine.id, reason="stolen", when=THEN)
    (tmp_path / "revoked").write_bytes(gone.dump())
    found = provenance.read_trust([tmp_path / "trust"], tmp_path / "revoked")
    assert [key.id for key in found.keys] == [mine.id]
    with pytest.raises(IntegrityError, match="revoked key"):
        provenance.verify_envelope(signed(root), found, now=THEN)


def test_malformed_trust_files_are_refused() -> None:
    good = json.loads((SIGNED / "keys.json").read_bytes())
    first, moment = good["keys"][0], "2026-01-01T00:00:00Z"
    for broken in (
        [], {"keys": [], "version": 2}, {"keys": [], "version": True}, {"keys": {}, "version": 1}, {**good, "more": 1},
        *({"keys": keys_, "version": 1} for keys_ in (
            [first, first], [{"id": first["id"]}], [first | {"revoked": moment}],
            [first | {"reason": "r"}], [first | {"not_after": "soon"}],
            [first | {"id": "ed25519:0000000000000000"}], [first | {"public": "AAAA"}], [first | {"public": "!"}],
            [first | {"owner": "\x1b[31m"}], [first | {"not_after": first["not_before"]}],
            [first | {"extra": "x"}], ["x"],
        )),
    ):  # fmt: skip
        with pytest.raises(FormatError):
            TrustFile.load(json.dumps(broken))


policies = st.builds(
    Policy,
    st.sampled_from(list(Severity)),
    st.lists(gates, max_size=3).map(tuple),
    st.lists(
        st.builds(
            Accepted,
            st.sampled_from(["evasion/standard", "evasion/standard#abc", "privacy/membership"]),
            st.integers(-2, 5).map(lambda days: TODAY + dt.timedelta(days=days)),
            st.just("why"),
        ),
        max_size=2,
    ).map(tuple),
)


@given(st.lists(outcomes(), max_size=4), policies, policies, st.integers(0, 6), st.booleans())
def test_what_passed_a_policy_that_is_no_weaker_passes_the_demanded_one(
    found: list[Any], attested: Policy, demanded: Policy, later: int, alike: bool
) -> None:
    today = TODAY + dt.timedelta(days=later)
    if alike:  # else hardly any pair says anything
        attested = Policy(attested.fail_on, (*attested.gates, *demanded.gates), demanded.accepted[1:])
    if weaknesses(attested, demanded, today):
        return
    still = Policy(demanded.fail_on, demanded.gates, tuple(item for item in demanded.accepted if item.until >= today))
    if rule(found, attested, TODAY).status is Status.PASSED:
        assert rule(found, still, TODAY).status is Status.PASSED


@given(policies)
def test_a_policy_is_never_weaker_than_itself(policy: Policy) -> None:
    assert weaknesses(policy, policy, TODAY - dt.timedelta(days=9)) == ()


def test_each_weakness_is_named() -> None:
    gate = Gate("m", {"eps": 0.1}, min=0.5, max=0.9)
    soon = Accepted("a/b#1", TODAY, "r")
    strict = Policy(Severity.LOW, (gate,))
    cases = [
        (Policy(Severity.MEDIUM, (gate,)), "fails from medium on, not from low"),
        (Policy(Severity.NONE, (gate,)), "fails from none on"),
        (Policy(Severity.LOW), r"has no gate on m \(eps = 0.1\)"),
        (Policy(Severity.LOW, (Gate("m", {}, min=0.5, max=0.9),)), "has no gate"),
        (Policy(Severity.LOW, (Gate("m", {"eps": 0.1}, "digit 8", min=0.5, max=0.9),)), "has no gate"),
        (Policy(Severity.LOW, (Gate("m", {"eps": 0.1}, min=0.4, max=0.9),)), "asks less than 0.5"),
        (Policy(Severity.LOW, (Gate("m", {"eps": 0.1}, min=0.5),)), "allows more than 0.9"),
        (Policy(Severity.LOW, (gate,), (soon,)), "accepts a/b#1"),
    ]
    for weak, message in cases:
        (found,) = weaknesses(weak, strict, TODAY)
        assert re.search(message, found)
    stricter = Policy(
        Severity.LOW, (Gate("m", {"eps": 0.1}, min=0.6), Gate("m", {"eps": 0.1}, max=0.8), Gate("n", min=1))
    )
    assert weaknesses(stricter, strict, TODAY) == ()
    whole = Policy(Severity.LOW, (gate,), (Accepted("a/b", TODAY, "r"),))
    assert weaknesses(Policy(Severity.LOW, (gate,), (soon,)), whole, TODAY) == ()
    assert weaknesses(Policy(Severity.LOW, (gate,), (soon,)), whole, TODAY + dt.timedelta(days=1)) != ()


def test_lineage_names_files_by_their_manifest_and_is_checked_as_far_as_it_is_given(root: Path, tmp_path: Path) -> None:
    base, other = tmp_path / "base", tmp_path / "other.json"
    shutil.copytree(root, base)
    other.write_text('{"learner": {}}')  # a booster's file is JSON too
    parent = signed(base)
    (tmp_path / "base.casemate.json").write_bytes(canonical.dumps(parent))
    (tmp_path / "base.manifest.json").write_bytes(canonical.dumps(manifest.of_path(base).to_json()))
    found = [provenance.ingredient_of(tmp_path / name) for name in ("base", "base.casemate.json", "base.manifest.json")]
    assert {item.digest for item in found} == {manifest.of_path(base).digest}
    assert [item.name for item in found] == ["base", "base", "base.manifest"]
    assert found[1].attestation == digests.sha256_bytes(base64.b64decode(parent["payload"]))
    assert provenance.ingredient_of(other).digest == manifest.of_path(other).digest
    child = signed(root / "a.bin", parents=(found[1],), code=(provenance.code_of("a" * 40),))
    verified = provenance.verify_envelope(child, TRUST, now=THEN)
    assert list(provenance.verify_ingredients(verified, [parent], TRUST, now=THEN)) == [found[0].digest]
    with pytest.raises(IntegrityError, match="another lineage"):
        provenance.verify_ingredients(verified, [signed(other)], TRUST, now=THEN)
    with pytest.raises(IntegrityError, match="unknown key"):
        provenance.verify_ingredients(verified, [parent], TrustFile((TrustedKey(bytes(32)),)), now=THEN)
    for bad in ("main", "a" * 39, "https://x@main"):
        with pytest.raises(UsageError, match="--code COMMIT"):
            provenance.code_of(bad)
    with pytest.raises(UsageError, match="--source URI"):
        provenance.source_of("https://x#sha256=12")
    with pytest.raises(FormatError, match="printable"):
        Ingredient("a\x1b[31m")
    for loose in (
        {"uri": "x", "digest": {}},
        {"uri": "x", "name": ""},
        {"uri": "x", "annotations": {}},
        {},
        {"id": "x"},
    ):
        with pytest.raises(FormatError):
            Ingredient.from_json(loose)


def test_subjects_and_predicate_have_to_say_the_same(root: Path) -> None:
    about = Provenance("model", manifest.of_path(root))
    statement: Any = json.loads(base64.b64decode(provenance.sign_files(about, KEY, now=THEN)["payload"]))
    assert {item["name"] for item in statement["subject"]} == {
        "files", "files/a.bin", "files/b.bin", "files/empty", "files/sub/é.txt",
    }  # fmt: skip
    statement["subject"][1]["digest"]["sha256"] = "0" * 64
    with pytest.raises(IntegrityError, match="subjects that the predicate names"):
        provenance.verify_envelope(attestation.sign(statement, KEY), TRUST, now=THEN)


# -------------------------------------------------------------------------------------------------------- interruptions


def old(folder: Path) -> None:
    """Wait until the journal holds the files for still: their change time cannot be set back."""
    latest = max(item.stamp.ctime_ns for item in files.walk(folder).values())
    time.sleep(max(0.0, (latest + 2_100_000_000 - time.time_ns()) / 1e9))


def test_an_interrupted_signing_goes_on_and_believes_only_its_own_journal(root: Path, tmp_path: Path) -> None:
    place = tmp_path / ".journal"
    young = Journal(place, KEY)
    manifest.of_path(root, known=young.known, done=young.done)
    young.close(finished=False)
    assert not place.exists()  # files that were touched a moment ago are not written down
    old(root)

    class Interrupted(Exception):
        pass

    first = Journal(place, KEY)
    written: list[str] = []

    def until_two(name: str, stamp: files.Stamp, digest: str) -> None:
        if len(written) == 2:
            raise Interrupted
        written.append(name)
        first.done(name, stamp, digest)

    with pytest.raises(Interrupted):
        manifest.of_path(root, known=first.known, done=until_two)
    first.close(finished=False)
    second = Journal(place, KEY)
    read: list[str] = []
    listed = manifest.of_path(root, known=second.known, done=lambda name, stamp, digest: read.append(name))
    assert (second.resumed, sorted([*written, *read])) == (2, sorted(files.walk(root)))
    assert listed == manifest.of_path(root)
    second.close(finished=False)

    stranger = Journal(place, keys.generate())
    manifest.of_path(root, known=stranger.known)
    assert stranger.resumed == 0  # lines that somebody else wrote
    whole = place.read_bytes()
    for damaged, believed in ((re.sub(rb'[0-9a-f]{64}"]', b"0" * 64 + b'"]', whole), 0), (whole[:-5], 1)):
        place.write_bytes(damaged)
        journal = Journal(place, KEY)
        assert manifest.of_path(root, known=journal.known) == listed
        assert journal.resumed == believed
    place.write_bytes(whole)
    name = written[0]
    content, status = (root / name).read_bytes(), (root / name).stat()
    (root / name).write_bytes(content[::-1] or b"x")
    os.utime(root / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    third = Journal(place, KEY)
    assert manifest.of_path(root, known=third.known) == manifest.of_path(root)
    assert third.resumed == 1  # the file whose time was set back is read again
    assert Journal(place, KEY, fresh=True)._held == {}
    assert not place.exists()


def test_what_a_listener_raises_ends_the_reading_and_its_threads(sized: tuple[Path, dict[str, Any]]) -> None:
    before = threading.active_count()

    def told(done: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough") as caught:
        manifest.of_path(sized[0], told=told)
    assert threading.active_count() == before
    assert caught.traceback


def test_a_file_that_grows_while_it_is_read_is_no_endless_one(root: Path) -> None:
    def grow(name: str, stamp: files.Stamp) -> None:
        with (root / name).open("ab") as stream:
            stream.write(b"more")

    with pytest.raises(IntegrityError, match="to stay as it was found"):
        manifest.of_path(root, known=grow)
    with pytest.raises(IntegrityError, match="to stay as it was found"):
        manifest.of_path("/proc/self/status")  # a regular file of size 0, they say


def test_a_file_that_is_changed_behind_the_reader_is_not_listed(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as stream:
        stream.truncate(768 << 20)  # sparse: read for a while, no disk
    (tmp_path / "small").write_bytes(b"")
    changed: list[int] = []

    def told(done: int, total: int) -> None:  # first when the small one is finished
        if done < total and not changed:
            change(file, 0, 1)
            changed.append(done)

    with pytest.raises(IntegrityError, match="to stay as it was found"):
        manifest.of_path(tmp_path, told=told)
    assert changed
