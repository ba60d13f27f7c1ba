"""Journals: what an interrupted signing had read of a folder, so that the next one need not read it again.

A line is believed when three things hold. Whoever wrote it has the signing key: each line carries an HMAC under a key
derived from it, so nobody plants a digest beside the output. The file is the one that was read: same device, inode,
size, modification time and change time; the last is the kernel's own, which no program sets back. And the file was
still: one that was touched in the two seconds before the signing began, or since, is not written down, since a clock's
tick could hide another write. What remains is a file that changes without its change time: through a mapping into
memory, or below the file system (the raw disk, a restored snapshot, a clock set back by root). Sign with `--rehash`
after such a thing. Verifying never uses a journal, and refuses a file that is not what was signed.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, final

from casemate.errors import FormatError, UsageError
from casemate.formats import canonical, digests
from casemate.formats.files import Stamp

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Journal"]

_STILL = 2_000_000_000  # ns; the coarsest tick of a common file system is two seconds (FAT)
_OFTEN = 1.0  # seconds of work that a crash may lose; an interruption loses none
_LARGEST = 1 << 28  # bytes; a statement holds no more files than that


@final
class Journal:
    """The journal of one signing: `known` and `done` are what `manifest.of_path` asks for.

    Raises `UsageError` where it cannot be written, or where something else than a plain file lies in its place.
    """

    def __init__(self, path: Path, key: Ed25519PrivateKey, *, fresh: bool = False) -> None:
        self.path = path
        self.resumed = 0
        self._secret = hashlib.sha256(b"casemate.journal.1" + key.private_bytes_raw()).digest()
        self._begun = time.time_ns()
        with self._reported():
            if fresh:
                path.unlink(missing_ok=True)
            self._held = self._read()
        self._stream: BinaryIO | None = None
        self._flushed = 0.0

    def known(self, name: str, stamp: Stamp) -> str | None:
        """The digest of a file that was read before and has not been touched since."""
        digest = self._held.get((name, stamp))
        self.resumed += digest is not None
        return digest

    def done(self, name: str, stamp: Stamp, digest: str) -> None:
        """Write down the digest of a file, unless it was touched a moment before the signing began, or later."""
        if self._begun - max(stamp.mtime_ns, stamp.ctime_ns) < _STILL:
            return
        with self._reported():
            if self._stream is None:
                self._stream = _opened(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, "ab")
            self._stream.write(self._line(name, stamp, digest))
            if time.monotonic() - self._flushed > _OFTEN:
                self._stream.flush()
                self._flushed = time.monotonic()

    def close(self, *, finished: bool) -> None:
        """Close it, and remove it when what it was for is written; a line that no longer fits the disk is lost."""
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
        if finished:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"expected to be able to write {self.path}, got {error.strerror}: remove what lies there, free some "
                "space or name another --output"
            ) from error

    def _line(self, name: str, stamp: Stamp, digest: str) -> bytes:
        # whole numbers as text: device numbers and nanoseconds pass what a double holds
        plain = json.dumps([name, [str(number) for number in astuple(stamp)], digest]).encode()
        mark = hmac.new(self._secret, plain, hashlib.sha256).hexdigest().encode()
        return mark + b" " + plain + b"\n"

    def _read(self) -> dict[tuple[str, Stamp], str]:
        try:
            with _opened(self.path, os.O_RDONLY, "rb") as stream:
                lines = stream.read(_LARGEST).split(b"\n")
        except FileNotFoundError:
            return {}
        found = {}
        for line in lines:
            mark, _, plain = line.partition(b" ")
            if not hmac.compare_digest(mark, hmac.new(self._secret, plain, hashlib.sha256).hexdigest().encode()):
                continue  # cut short, or somebody else's
            with suppress(FormatError, ValueError, TypeError):
                value: Any = canonical.loads(plain)
                name, numbers, digest = value
                if digests.is_digest(digest):
                    found[str(name), Stamp(*map(int, numbers))] = str(digest)
        return found


def _opened(path: Path, flags: int, mode: Literal["ab", "rb"]) -> BinaryIO:
    """The journal, if it is a plain file of one name: a link would have us write elsewhere, a pipe would hold us."""
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags, 0o600)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no plain file")
    return os.fdopen(descriptor, mode)
