from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from casemate.errors import UsageError
from casemate.formats import atomic


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow past 1,000 bytes: the write fails half-way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_is_created_and_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    for data in (b"old", b"new"):
        atomic.write(tmp_path / "f", data)
        assert (tmp_path / "f").read_bytes() == data
    assert os.listdir(tmp_path) == ["f"]


def test_the_mode_is_narrowed_by_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic.write(tmp_path / "f", b"")
        atomic.write(tmp_path / "secret", b"", mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(tmp_path: Path, full_disk: None) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(UsageError, match="free some space"):
        atomic.write(tmp_path / "f", b"x" * 100_000)
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_a_missing_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="create the folder"):
        atomic.write(tmp_path / "none" / "f", b"")
    with pytest.raises(UsageError, match="create the folder"), atomic.write_new_folder(tmp_path / "none" / "d"):
        raise AssertionError("the block must not run")


def test_a_link_is_replaced_and_what_it_points_to_is_untouched(tmp_path: Path) -> None:
    (tmp_path / "aim").write_bytes(b"aim")
    (tmp_path / "f").symlink_to("aim")
    atomic.write(tmp_path / "f", b"new")
    assert (tmp_path / "aim").read_bytes() == b"aim"
    assert not (tmp_path / "f").is_symlink()


def test_the_longest_legal_name_can_be_written(tmp_path: Path) -> None:
    atomic.write(tmp_path / ("x" * 255), b"1")
    assert (tmp_path / ("x" * 255)).read_bytes() == b"1"


def test_a_folder_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with atomic.write_new_folder(target) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "f").write_bytes(b"1")
        assert not target.exists()
    assert (target / "deep" / "f").read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_folder_whose_block_raises_leaves_nothing_and_the_error_is_passed_on(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def fill() -> None:
        with atomic.write_new_folder(tmp_path / "run") as folder:
            (folder / "f").write_bytes(b"1")
            raise error

    with pytest.raises(error):
        fill()
    assert os.listdir(tmp_path) == []


def test_an_existing_folder_is_refused_before_and_after_the_block(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with pytest.raises(UsageError, match="new folder, got existing"), atomic.write_new_folder(target):
        target.mkdir()  # somebody else was faster
    assert os.listdir(tmp_path) == ["run"]
    with pytest.raises(UsageError, match="new folder, got existing"), atomic.write_new_folder(target):
        raise AssertionError("the block must not run")


@pytest.mark.parametrize("name", ["pipe", "link", "socket"])
def test_what_is_no_file_is_refused_and_stays(tmp_path: Path, name: str) -> None:
    # As root, --output /dev/full put a file in the place of the device.
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        before = (tmp_path / name).lstat()
        with pytest.raises(UsageError, match="device or pipe"):
            atomic.write(tmp_path / name, b"x")
        assert (tmp_path / name).lstat() == before


@pytest.mark.parametrize("place", ["/dev/null", "/dev/stdout", "/dev/fd/1"])
def test_a_name_in_dev_is_refused_before_anything_is_written(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_aside", None)  # were it not refused, nothing could be written
    with pytest.raises(UsageError, match="device or pipe"):
        atomic.write(place, b"x")
