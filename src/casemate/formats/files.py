"""Files below a folder and their digests: no link is followed, no device opened, no file read twice."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from casemate.errors import CasemateError, IntegrityError, UsageError

__all__ = ["Found", "Kind", "Stamp", "Told", "hashed", "look", "walk"]

Told = Callable[[int, int], None]
"""Progress: `(bytes read, bytes in all)`."""

_CHUNK = 1 << 20
_TELL = 0.25  # seconds between two words of progress
_WORKERS = 8  # hashing lets go of the interpreter; more than the disk can serve at once gains nothing
_LINK, _SPECIAL, _UNREADABLE = "link", "not_a_file", "unreadable"
Kind = str
"""Why an entry is no file to hash: `link`, `not_a_file`, `unreadable`; empty for a regular file."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a file system says of a file: where it lies, its size in bytes, its times in ns.

    `ctime_ns` is the kernel's own on POSIX: a program can set `mtime_ns` back, and not this.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """The stamp in the answer of `stat`."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class Found:
    """An entry of a folder as it was met: its path, its stamp, and for what is no plain file which kind and why."""

    file: Path
    stamp: Stamp
    kind: Kind = ""
    detail: str = ""

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.stamp.size


_NOTHING = Stamp(0, 0, 0, 0, 0)


def walk(root: str | os.PathLike[str]) -> dict[str, Found]:
    """Everything below a folder but folders, by relative path with `/`, sorted; links are met and never followed.

    Raises `UsageError` if `root` is not a folder.
    """
    top = Path(root)
    if not top.is_dir():
        raise UsageError(f"expected a folder, got {top}: check the path")
    return dict(sorted(_below(top)))


def look(path: str | os.PathLike[str]) -> dict[str, Found]:
    """What `walk` gives of a folder, or one entry under its own name for anything else; a link is not followed.

    Raises `UsageError` where there is nothing.
    """
    place = Path(path)
    try:
        status = place.lstat()
    except OSError as error:
        raise UsageError(f"expected a file or a folder, got {place}: {error.strerror}; check the path") from error
    if stat.S_ISDIR(status.st_mode):
        return walk(place)
    return {place.name: _met(place, status)}


def hashed(
    found: Mapping[str, Found], *, told: Told | None = None, done: Callable[[str, str], None] | None = None
) -> dict[str, str | CasemateError]:
    """`sha256:<hex>` of each file by its name, read once each, several at a time; of an unreadable one an error.

    `told` hears of the bytes read; `done(name, digest)` of each file that is finished. Both are called by the calling
    thread. What is read must be what was met and must not change meanwhile, else the error is an `IntegrityError`.
    """
    meter = _Meter(sum(item.size for item in found.values()))
    results: dict[str, str | CasemateError] = {}
    with closing(_as_finished(found, meter)) as finished:  # an error of `done` must not leave threads behind
        for name, result in finished:
            if result is not None:
                results[name] = result
                if done is not None and isinstance(result, str):
                    done(name, result)
            if told is not None:
                told(meter.read, meter.total)
    return results


def _as_finished(found: Mapping[str, Found], meter: _Meter) -> Generator[tuple[str, str | CasemateError | None]]:
    """Names with their digests as threads finish them; a name without a result passes the time."""
    stop = threading.Event()
    # the largest first: the one that takes longest must not begin last
    waiting = deque(sorted(found, key=lambda name: -found[name].size))
    finished: SimpleQueue[tuple[str, str | BaseException]] = SimpleQueue()

    def work() -> None:
        with suppress(IndexError):
            while not stop.is_set():
                name = waiting.popleft()
                try:
                    finished.put((name, _digest(found[name], meter, stop)))
                except BaseException as error:  # whoever waits for the name has to hear of it
                    finished.put((name, error))

    count = min(_WORKERS, (os.cpu_count() or 1) + 1, len(found))
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        left = len(found)
        while left:
            try:
                name, result = finished.get(timeout=_TELL)
            except Empty:
                yield "", None
                continue
            if not isinstance(result, str | CasemateError):
                raise result
            left -= 1
            yield name, result
    finally:  # also where whoever asked has had enough
        stop.set()
        for thread in threads:
            thread.join()


class _Meter:
    def __init__(self, total: int) -> None:
        self.total, self.read = total, 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.read += count


def _digest(item: Found, meter: _Meter, stop: threading.Event) -> str | CasemateError:
    # O_NONBLOCK: a pipe that took the file's place since must not hold us
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        descriptor = os.open(item.file, flags)
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or not _same(item.stamp, Stamp.of(status)):
                return _changed(item)
            state, buffer = hashlib.sha256(), memoryview(bytearray(min(_CHUNK, item.size) or 1))
            left = item.size
            while (count := stream.readinto(buffer)) and count <= left and not stop.is_set():
                left -= count
                state.update(buffer[:count])
                meter.add(count)
            if count:  # it grows under our hands, perhaps for ever
                return _changed(item)
            if not _same(item.stamp, Stamp.of(os.fstat(descriptor))):
                return _changed(item)
    except OSError as error:
        return UsageError(f"expected a readable file, got {item.file}: {error.strerror or error}; check the path")
    return "sha256:" + state.hexdigest()


def _changed(item: Found) -> IntegrityError:
    return IntegrityError(f"expected {item.file} to stay as it was found, got another while it was read: do it again")


def _same(before: Stamp, now: Stamp) -> bool:
    # what Windows tells of a folder's entries is another time and no inode
    return before == now if os.name == "posix" else before.size == now.size


def _below(top: Path) -> Iterator[tuple[str, Found]]:
    waiting = [(top, "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            items = list(os.scandir(folder))
        except OSError as error:
            yield prefix.rstrip("/") or ".", Found(folder, _NOTHING, _UNREADABLE, f"cannot be read: {error.strerror}")
            continue
        for item in items:
            name, file = prefix + item.name, Path(item.path)
            if hasattr(item, "is_junction") and item.is_junction():  # Windows, from Python 3.12 on
                yield name, Found(file, _NOTHING, _LINK, "a link, whose target can change")
                continue
            try:
                status = item.stat(follow_symlinks=False)
            except OSError as error:
                yield name, Found(file, _NOTHING, _UNREADABLE, f"cannot be read: {error.strerror}")
                continue
            if stat.S_ISDIR(status.st_mode):
                waiting.append((file, name + "/"))
            else:
                yield name, _met(file, status)


def _met(file: Path, status: os.stat_result) -> Found:
    if stat.S_ISLNK(status.st_mode):
        return Found(file, _NOTHING, _LINK, "a link, whose target can change")
    if not stat.S_ISREG(status.st_mode):
        return Found(file, _NOTHING, _SPECIAL, "a device, pipe or socket")
    return Found(file, Stamp.of(status))
