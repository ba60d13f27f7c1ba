"""Scans of many files: which are found, what is allowed, what a lock remembers, which exit code and which formats."""

from __future__ import annotations

import datetime as dt
import json
import os
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.artifacts.allowances import Allowance, read_allowances
from casemate.artifacts.locks import lock_of, read_lock
from casemate.artifacts.scans import Interrupted, Scan, scan_paths
from casemate.errors import ConfigError, UsageError
from casemate.formats.scanning.signs import Level, Place, Scanned, Sign
from casemate.formats.scanning.walking import files_below
from casemate.report import scan_json, scan_sarif

ROOT = Path(__file__).resolve().parents[2]
SARIF = ROOT / "tests" / "formats" / "sarif"
EVIL = b"cos\nsystem\n(S'true'\ntR."
UNKNOWN = b"cmy_company.layers\nGate\n(tR."
TODAY = dt.date(2026, 11, 25)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that is clean, one of an unknown class, one that runs a command."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "clean.pkl").write_bytes(pickle.dumps({"weights": [1.0, 2.0]}))
    (tmp_path / "own.pkl").write_bytes(UNKNOWN)
    (tmp_path / "sub" / "evil.pkl").write_bytes(EVIL)
    return tmp_path


def levels(scan: Scan) -> dict[str, str]:
    return {Path(scanned.path).name: str(scanned.level) for scanned in scan.files}


def test_a_folder_is_scanned_to_its_last_file_and_each_once(folder: Path) -> None:
    scan = scan_paths([str(folder), str(folder / "own.pkl"), str(folder / "*.pkl")])
    assert levels(scan) == {"clean.pkl": "clean", "own.pkl": "suspicious", "evil.pkl": "malicious"}
    assert len(scan.files) == 3
    assert (scan.level, scan.exit_code) == (Level.MALICIOUS, 1)


def test_what_git_keeps_is_left_out_and_named(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "index").write_bytes(EVIL)
    scan = scan_paths([str(folder)])
    assert len(scan.files) == 3
    assert scan.left_out == (str(folder / ".git"),)
    shutil.rmtree(folder / ".git")
    (folder / ".git").write_bytes(EVIL)  # a file of that name is no store of git's
    assert levels(scan_paths([str(folder)]))[".git"] == "malicious"


@pytest.mark.parametrize("name", ["nothing.pkl", "*.nothing", ""])
def test_a_path_that_is_not_there_is_an_error(name: str, folder: Path) -> None:
    with pytest.raises(UsageError, match="expected a file"):
        scan_paths([str(folder / "sub2" / name)])


def test_pipes_and_broken_links_in_a_folder_are_told_and_never_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder / "gone")
    scan = scan_paths([str(folder)])
    assert levels(scan) | {"pipe": "unreadable", "link": "unreadable"} == levels(scan)


def test_a_folder_that_goes_or_is_closed_while_it_is_walked_is_told(folder: Path) -> None:
    """`os.walk` passes over folders that it cannot list: what lay in them was not judged, and the scan passed."""
    found = files_below(folder)
    first = next(found)
    shutil.rmtree(folder / "sub")
    assert [first, *found] == [folder / "clean.pkl", folder / "own.pkl", folder / "sub"]


def test_one_file_of_several_that_cannot_be_read_does_not_hide_the_others(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    scan = scan_paths([str(folder / "pipe"), str(folder / "sub" / "evil.pkl")])
    assert levels(scan) == {"pipe": "unreadable", "evil.pkl": "malicious"}
    with pytest.raises(UsageError, match="device or pipe"):
        scan_paths([str(folder / "pipe")])


def test_an_interruption_keeps_what_is_known(folder: Path) -> None:
    def told(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        scan_paths([str(folder)], told=told)
    assert levels(stopped.value.scan) == {"clean.pkl": "clean", "own.pkl": "suspicious"}
    assert stopped.value.total == 3


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_text_break_no_format(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"m\xff.pkl")).write_bytes(EVIL)
    scan = scan_paths([str(tmp_path)], digest=True)
    assert json.loads(scan_json.render(scan))["files"][0]["path"].endswith("m\\udcff.pkl")
    assert "os.system" in scan_sarif.render(scan)
    (tmp_path.parent / "a.lock").write_bytes(lock_of(scan.files).dump())
    lock = read_lock(tmp_path.parent / "a.lock")
    assert not any(sign.rule.startswith("lock/") for sign in scan_paths([str(tmp_path)], lock=lock).files[0].signs)


def test_an_empty_folder_does_not_pass(tmp_path: Path) -> None:
    assert scan_paths([str(tmp_path)]).exit_code == 3


@pytest.mark.parametrize(
    ("level", "fail_on", "code"),
    [
        (Level.MALICIOUS, Level.SUSPICIOUS, 1),
        (Level.SUSPICIOUS, Level.SUSPICIOUS, 1),
        (Level.SUSPICIOUS, Level.MALICIOUS, 0),
        (Level.UNREADABLE, Level.MALICIOUS, 3),
        (Level.UNKNOWN, Level.SUSPICIOUS, 3),
    ],
)
def test_exit_codes(level: Level, fail_on: Level, code: int) -> None:
    sign = Sign(level, "a/b", "what", Place("f"), "why", "mend")
    assert Scan((Scanned("f", 1, ("x",), (sign,)),), fail_on=fail_on).exit_code == code


@given(
    st.lists(st.lists(st.sampled_from([level for level in Level if level is not Level.CLEAN]), max_size=3), max_size=4)
)
def test_only_files_without_any_sign_pass_at_the_strictest(given_levels: list[list[Level]]) -> None:
    files = tuple(
        Scanned(str(i), 1, (), tuple(Sign(level, "a/b", "x", Place(str(i)), "y", "z") for level in some))
        for i, some in enumerate(given_levels)
    )
    assert (Scan(files).exit_code == 0) == (bool(files) and not any(given_levels))


# ---------------------------------------------------------------------------------------------------------- allowances


def write_policy(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    return path


def test_a_name_of_ones_own_is_allowed_until_its_day(folder: Path) -> None:
    text = '[[allow]]\nname = "my_company.layers.Gate"\nuntil = 2026-11-25\nreason = "reviewed by Ada"\n'
    allowances = read_allowances(write_policy(folder, text))
    inside = scan_paths([str(folder / "own.pkl")], allowances=allowances, today=TODAY)
    after = scan_paths([str(folder / "own.pkl")], allowances=allowances, today=TODAY + dt.timedelta(days=1))
    assert (inside.exit_code, len(inside.allowed), after.exit_code) == (0, 1, 1)
    assert ((), allowances) == (inside.expired, after.expired)


def test_what_is_harmful_cannot_be_allowed(folder: Path) -> None:
    allowances = [Allowance("os.system", dt.date(2100, 1, 1), "because"), Allowance("posix.system", TODAY, "so")]
    assert scan_paths([str(folder / "sub" / "evil.pkl")], allowances=allowances, today=TODAY).exit_code == 1


@pytest.mark.parametrize(
    "text",
    [
        "[[allow]]\nname = 'a.b'\nuntil = 2026-01-01\n",
        "[[allow]]\nname = 'a.b'\nuntil = '2026-01-01'\nreason = 'x'\n",
        "[[allow]]\nname = 'a.b'\nuntil = 2026-01-01T00:00:00\nreason = 'x'\n",
        "[[allow]]\nname = 'a.*'\nuntil = 2026-01-01\nreason = 'x'\n",
        "[[allow]]\nname = 'ab'\nuntil = 2026-01-01\nreason = 'x'\n",
        "[[allow]]\nname = 'a.b'\nuntil = 2026-01-01\nreason = ' '\n",
        "allow = 'a.b'\n",
        "[allow]\nname = 'a.b'\n",
        "[[accept]]\nname = 'a.b'\n",
        "[[allow]\n",
        "[[allow]]\nname = 'a.b'\nuntil = 2026-01-01\nreason = 'x'\n" * 2,
    ],
)
def test_a_policy_that_is_none_is_one_clear_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected .*, got .*: "):
        read_allowances(write_policy(tmp_path, text))


# --------------------------------------------------------------------------------------------------------------- locks


def test_a_lock_says_nothing_of_the_file_it_was_made_of_and_names_what_is_new(folder: Path) -> None:
    path = folder / "model.pkl"
    path.write_bytes(pickle.dumps(dt.date(2026, 1, 1)))
    lock_file = folder.parent / f"{folder.name}.lock"
    lock_file.write_bytes(lock_of(scan_paths([str(path)]).files).dump())
    lock = read_lock(lock_file)
    assert scan_paths([str(path)], lock=lock).exit_code == 0
    path.write_bytes(pickle.dumps([dt.date(2026, 1, 1), dt.timedelta(3)]))
    signs = scan_paths([str(path)], lock=lock).files[0].signs
    assert [(sign.rule, sign.subject) for sign in signs] == [("lock/new-name", "datetime.timedelta")]
    assert [sign.rule for sign in scan_paths([str(folder / "clean.pkl")], lock=lock).files[0].signs] == [
        "lock/new-file"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"files": {}, "version": 2}', '{"files": [], "version": 1}',
        '{"files": {"a": 1}, "version": 1}',
        '{"files": {"a": {"members": [1], "names": []}}, "version": 1}',
        '{"files": {"a": {"members": "x", "names": []}}, "version": 1}',
    ],
)  # fmt: skip
def test_a_lock_that_is_none_is_one_clear_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"expected .*, got .*: "):
        read_lock(path)


# ------------------------------------------------------------------------------------------------------------- formats


def rendered(folder: Path) -> tuple[Scan, Any, Any]:
    text = '[[allow]]\nname = "my_company.layers.Gate"\nuntil = 2100-01-01\nreason = "reviewed"\n'
    policy = write_policy(folder.parent, text)
    scan = scan_paths([str(folder)], allowances=read_allowances(policy), digest=True)
    return scan, json.loads(scan_json.render(scan)), json.loads(scan_sarif.render(scan, version="1.0"))


def test_json_is_what_its_schema_says(folder: Path) -> None:
    scan, found, _ = rendered(folder)
    jsonschema.Draft202012Validator(json.loads((ROOT / "schemas" / "scan-1.schema.json").read_text())).validate(found)
    assert found["exit_code"] == scan.exit_code == 1
    evil = next(item for item in found["files"] if item["path"].endswith("evil.pkl"))
    assert evil["verdict"] == "malicious"
    assert {"member": "", "module": "os", "name": "system", "called": True} in evil["names"]
    assert len(found["allowed"]) == 1


def test_sarif_is_schema_valid_points_at_bytes_and_suppresses_what_is_allowed(folder: Path) -> None:
    scan, _, log = rendered(folder)
    schema = next(SARIF.glob("*.json"))
    jsonschema.validators.validator_for(json.loads(schema.read_text()))(json.loads(schema.read_text())).validate(log)
    results = log["runs"][0]["results"]
    assert len(results) == sum(len(scanned.signs) for scanned in scan.files) + 1
    assert sum(bool(item["suppressions"]) for item in results) == 1
    evil = next(item for item in results if "os.system" in item["message"]["text"])
    assert evil["level"] == "error"
    assert evil["locations"][0]["physicalLocation"]["region"]["byteOffset"] == 0


def test_a_region_ends_where_its_file_ends(tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4" + bytes(30))
    scan = scan_paths([str(tmp_path)])
    places = [item["locations"][0] for item in json.loads(scan_sarif.render(scan))["runs"][0]["results"]]
    regions = [place["physicalLocation"]["region"] for place in places if "region" in place["physicalLocation"]]
    assert regions
    assert all(region["byteOffset"] + region["byteLength"] <= 34 for region in regions)


def test_a_fingerprint_outlasts_a_change_of_offset(tmp_path: Path) -> None:
    prints = []
    for junk in (b"", b"N0"):
        (tmp_path / "model.pkl").write_bytes(junk + EVIL)
        results = json.loads(scan_sarif.render(scan_paths([str(tmp_path / "model.pkl")])))["runs"][0]["results"]
        prints.append({item["partialFingerprints"]["casemateSign/v1"] for item in results if "os.system" in str(item)})
    assert prints[0] == prints[1] != set()
