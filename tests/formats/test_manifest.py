from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import FormatError, UsageError
from casemate.formats import canonical, digests, manifest
from casemate.formats.manifest import Entry, Manifest, ProblemKind

GOLDEN = Path(__file__).parent / "golden" / "manifest-1.json"
FILES = {"model.safetensors": b"weights", "pre/scale.json": b"{}", "pre/é.txt": b"accent"}
EMPTY = digests.sha256_bytes(b"")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def kinds(problems: tuple[manifest.Problem, ...]) -> list[tuple[str, str]]:
    return [(problem.path, problem.kind.value) for problem in problems]


def listing(*paths: str) -> bytes:
    return json.dumps(
        {"version": 1, "entries": [{"path": path, "size": 0, "digest": EMPTY} for path in paths]}
    ).encode()


def test_files_bytes_and_json_give_one_manifest_and_the_folder_agrees_with_it(root: Path) -> None:
    made = manifest.of_files(root)
    assert made == manifest.of_files(root, [Path("pre", "scale.json"), "model.safetensors", "pre/é.txt"])
    assert made == manifest.of_bytes(FILES)
    assert made == manifest.from_json(canonical.dumps(made.to_json()))
    assert made == manifest.from_json(canonical.dumps_pretty(made.to_json()))
    assert manifest.verify(made, root) == ()


def test_the_first_released_version_is_read_for_ever() -> None:
    assert manifest.from_json(GOLDEN.read_bytes()) == manifest.of_bytes(FILES)
    assert manifest.of_bytes(FILES).digest == "sha256:6fbf2370d129cde08c311ce79cb1890bf407536b8bae2bb5d9e0cb4da464998c"


@given(st.permutations(sorted(FILES)))
def test_the_order_of_files_does_not_change_the_digest(names: list[str]) -> None:
    assert manifest.of_bytes({name: FILES[name] for name in names}).digest == manifest.of_bytes(FILES).digest


@given(st.sampled_from(sorted(FILES)), st.binary(max_size=8), st.text("abc", min_size=1, max_size=3))
def test_any_change_of_content_or_name_changes_the_digest(name: str, data: bytes, other: str) -> None:
    digest = manifest.of_bytes(FILES).digest
    assert (manifest.of_bytes(FILES | {name: data}).digest == digest) == (data == FILES[name])
    rest = {key: value for key, value in FILES.items() if key != name}
    assert manifest.of_bytes(rest).digest != digest
    assert manifest.of_bytes(rest | {other: FILES[name]}).digest != digest


def test_each_difference_is_found_and_typed(root: Path) -> None:
    made = manifest.of_files(root)
    (root / "model.safetensors").write_bytes(b"WEIGHTS")
    (root / "pre" / "scale.json").write_bytes(b"{ }")
    (root / "pre" / "é.txt").unlink()
    (root / "new").write_bytes(b"")
    assert kinds(manifest.verify(made, root)) == [
        ("model.safetensors", "digest"),
        ("new", "added"),
        ("pre/scale.json", "size"),
        ("pre/é.txt", "missing"),
    ]


def test_links_are_problems_even_to_the_same_bytes_and_are_never_followed(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = manifest.of_files(root)
    outside = tmp_path_factory.mktemp("outside")
    (root / "model.safetensors").rename(outside / "model.safetensors")
    (root / "model.safetensors").symlink_to(outside / "model.safetensors")
    (root / "pre").rename(outside / "pre")
    (root / "pre").symlink_to(outside / "pre")
    assert kinds(manifest.verify(made, root)) == [
        ("model.safetensors", "link"),
        ("pre", "added"),
        ("pre", "link"),
        ("pre/scale.json", "missing"),
        ("pre/é.txt", "missing"),
    ]
    with pytest.raises(UsageError, match="a link"):
        manifest.of_files(root, ["model.safetensors"])


def test_a_pipe_is_a_problem_and_is_not_opened(root: Path) -> None:
    made = manifest.of_files(root)
    (root / "model.safetensors").unlink()
    os.mkfifo(root / "model.safetensors")
    assert kinds(manifest.verify(made, root)) == [("model.safetensors", "not_a_file")]


def test_names_that_look_the_same_are_problems(root: Path) -> None:
    made = manifest.of_files(root)
    (root / "MODEL.safetensors").write_bytes(b"")
    decomposed = unicodedata.normalize("NFD", "é.txt")
    (root / "pre" / decomposed).write_bytes(b"")
    found = manifest.verify(made, root)
    assert ("MODEL.safetensors", "added") in kinds(found)
    assert ("model.safetensors", "case_fold") in kinds(found)
    assert ("pre/" + decomposed, "not_nfc") in kinds(found)
    assert ("pre/é.txt", "case_fold") in kinds(found)
    with pytest.raises(FormatError, match="only in case"):
        manifest.of_files(root, ["MODEL.safetensors", "model.safetensors"])
    with pytest.raises(FormatError, match="normal form C"):
        manifest.of_files(root)


def test_names_that_would_disturb_a_terminal_are_problems_and_shown_escaped(root: Path) -> None:
    made = manifest.of_files(root)
    (root / "a\x1b[31m").write_bytes(b"")
    (root / "b\u202etxt").write_bytes(b"")
    with open(os.fsencode(root) + b"/c\xff", "wb"):
        pass
    found = manifest.verify(made, root)
    assert kinds(found) == [
        ("a\\u001b[31m", "added"),
        ("a\\u001b[31m", "unsafe_name"),
        ("b\\u202etxt", "added"),
        ("b\\u202etxt", "unsafe_name"),
        ("c\\udcff", "added"),
        ("c\\udcff", "unsafe_name"),
    ]
    canonical.dumps([problem.path for problem in found])  # can be reported


HOSTILE = {
    "../out": ProblemKind.ESCAPES_ROOT,
    "a/../../out": ProblemKind.ESCAPES_ROOT,
    "..": ProblemKind.ESCAPES_ROOT,
    "/etc/passwd": ProblemKind.ABSOLUTE,
    "C:/windows": ProblemKind.ABSOLUTE,
    "c:x": ProblemKind.ABSOLUTE,
    "a\\b": ProblemKind.UNSAFE_NAME,
    "a\x00b": ProblemKind.UNSAFE_NAME,
    "a//b": ProblemKind.UNSAFE_NAME,
    "./a": ProblemKind.UNSAFE_NAME,
    "a/": ProblemKind.UNSAFE_NAME,
    "": ProblemKind.UNSAFE_NAME,
    "e\u0301": ProblemKind.NOT_NFC,
}


@pytest.mark.parametrize(("path", "kind"), HOSTILE.items())
def test_hostile_paths_are_refused_when_read_and_reported_when_verified(
    tmp_path: Path, path: str, kind: ProblemKind
) -> None:
    with pytest.raises(FormatError, match="portable relative path"):
        manifest.from_json(listing(path))
    with pytest.raises(FormatError, match="portable relative path"):
        manifest.of_bytes({path: b""})
    found = manifest.verify(Manifest((Entry(path, 0, EMPTY),)), tmp_path)
    assert {problem.kind for problem in found} == {kind, ProblemKind.MISSING}


def test_a_path_that_climbs_out_to_a_matching_file_is_still_missing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").write_bytes(b"")
    found = manifest.verify(
        Manifest((Entry("../out", 0, EMPTY), Entry(str(tmp_path / "out"), 0, EMPTY))), tmp_path / "in"
    )
    assert [problem.kind for problem in found].count(ProblemKind.MISSING) == 2


def test_duplicates_and_case_twins_inside_a_manifest_are_found(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="a twice"):
        manifest.from_json(listing("a", "b", "a"))
    with pytest.raises(FormatError, match="only in case"):
        manifest.from_json(listing("Straße", "STRASSE"))
    (tmp_path / "a").write_bytes(b"")
    twice = Manifest((Entry("a", 0, EMPTY), Entry("a", 1, EMPTY)))
    assert ProblemKind.DUPLICATE in {problem.kind for problem in manifest.verify(twice, tmp_path)}


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{}",
        b'{"entries":{},"version":1}',
        b'{"entries":[],"version":2}',
        b'{"entries":[],"version":true}',
        b'{"entries":[],"version":1,"more":0}',
        b'{"entries":[[]],"version":1}',
        b'{"entries":[{"path":"a","size":0}],"version":1}',
        listing("a").replace(b": 0", b": -1"),
        listing("a").replace(b": 0", b": true"),
        listing("a").replace(b": 0", b": 0.5"),
        listing("a").replace(b"sha256:", b"md5:"),
        listing("a").replace(b'"a"', b"1"),
        listing("a").replace(b'"size"', b'"path": "b", "size"'),
    ],
)
def test_malformed_manifests_are_refused(text: bytes) -> None:
    with pytest.raises(FormatError):
        manifest.from_json(text)


def test_wrong_use_is_said_clearly(root: Path) -> None:
    with pytest.raises(UsageError, match="expected a folder"):
        manifest.verify(Manifest(()), root / "none")
    with pytest.raises(UsageError, match="nothing there"):
        manifest.of_files(root, ["none"])
    with pytest.raises(UsageError, match="nothing there"):
        manifest.of_files(root, ["pre"])
    with pytest.raises(FormatError, match="twice"):
        manifest.of_files(root, ["model.safetensors", "model.safetensors"])
