"""A confined interpreter, seen from outside: started with what it may see, asked over pipes, ended for certain."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from casemate.adapters import confinement
from casemate.adapters.archives import memory
from casemate.adapters.loading import Declared
from casemate.adapters.verdicts import Held
from casemate.errors import Unavailable

__all__ = ["Ended", "NoWalls", "Process"]

_LARGEST = 1 << 30  # bytes of one answer
_MEMORY = 8 << 30  # bytes of address space beside eight times the file; threads and libraries reserve much of it
_CPU = 4 * 3600  # seconds in all
_LIBRARIES = (
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/usr/share/zoneinfo",
)
_INSTALLED = frozenset({"site-packages", "dist-packages"})


class Ended(Exception):  # an inner signal: the room turns it into an error
    """The process gave no answer."""


class NoWalls(Ended):
    """The process could not be isolated."""


class Process:
    """A confined interpreter and its pipes."""

    def __init__(self, held: Held, declared: Declared) -> None:
        if sys.platform != "linux":
            raise Unavailable(f"expected Linux for --isolate, got {sys.platform}: convert the model where it was made")
        room = tempfile.mkdtemp(prefix="casemate-room-")
        life, keep = os.pipe()
        name = "model" + Path(held.name).suffix.lower()
        folder = declared.folder.resolve() if declared.folder is not None else None
        plan = {
            "room": room,
            "binds": _binds(folder),
            "path": _python_path(folder),
            "name": name,
            "size": len(held.data),
            "life": life,
            "limits": {
                "RLIMIT_AS": _MEMORY + 8 * len(held.data),
                "RLIMIT_DATA": memory() * 3 // 4,
                "RLIMIT_CPU": _CPU,
                "RLIMIT_FSIZE": 0,
                "RLIMIT_CORE": 0,
                "RLIMIT_NOFILE": 256,
                "RLIMIT_NPROC": 64,
            },
        }
        self._inner = subprocess.Popen(
            [sys.executable, "-P", "-s", "-B", confinement.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            pass_fds=(life,),
            start_new_session=True,  # an interruption at the terminal is its owner's to answer
            cwd="/",
            env={"PATH": "", "LANG": "C.UTF-8", "HOME": "/tmp", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        os.close(life)
        self.end = weakref.finalize(self, _end, self._inner, keep, room)
        text = json.dumps(plan).encode()
        self._turn = threading.Lock()
        self._walled = False
        self._sent = [len(text).to_bytes(8, "little") + text, held.data]

    def exchange(self, question: bytes, patience: float) -> bytes:
        """Send a question, and what has to go before it; the answer's bytes. Raises `Ended` where none comes."""
        with self._turn:
            return self._exchanged(question, patience)

    def _exchanged(self, question: bytes, patience: float) -> bytes:
        assert self._inner.stdin is not None
        assert self._inner.stdout is not None
        sending = [memoryview(part) for part in (*self._sent, question) if len(part)]
        self._sent = []
        got, last = bytearray(), time.monotonic() + patience
        out, back = self._inner.stdin.fileno(), self._inner.stdout.fileno()
        os.set_blocking(out, False)
        os.set_blocking(back, False)
        with selectors.DefaultSelector() as ready:
            ready.register(back, selectors.EVENT_READ)
            ready.register(out, selectors.EVENT_WRITE)
            while (size := self._size(got)) is None or len(got) < 8 + size:
                left = last - time.monotonic()
                if left <= 0:
                    raise Ended(f"no answer within {patience:g} s")
                for key, _ in ready.select(left):
                    if key.fd == back:
                        _receive(back, got, walled=self._walled)
                    elif not _give(out, sending):
                        ready.unregister(out)
        if len(got) > 8 + size:
            raise Ended("more bytes than one answer")
        return bytes(got[8:])

    def _size(self, got: bytearray) -> int | None:
        """The length of the answer, once that is there; before the first one it is said whether the walls stand.

        That is said before the model is opened, so that no model can say it.
        """
        said = len(confinement.READY)
        if not self._walled and len(got) >= said and not got.startswith(confinement.FAILED):
            if not got.startswith(confinement.READY):
                raise Ended("something else than an answer")
            self._walled = True
            del got[:said]
        size = int.from_bytes(got[:8], "little") if self._walled and len(got) >= 8 else None
        if size is not None and size > _LARGEST:
            raise Ended(f"an answer of more than {_LARGEST >> 20} MiB")
        return size


def _receive(descriptor: int, got: bytearray, *, walled: bool) -> None:
    try:
        part = os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return
    if not part and not walled and got.startswith(confinement.FAILED):
        raise NoWalls(got[len(confinement.FAILED) :].decode(errors="replace"))
    if not part:
        raise Ended("the end of its process")
    got += part


def _give(descriptor: int, sending: list[memoryview]) -> bool:
    """Write what fits; whether there is more."""
    try:
        sending[0] = sending[0][os.write(descriptor, sending[0][: 1 << 16]) :]
    except BlockingIOError:
        return True
    except BrokenPipeError:
        sending.clear()  # its last words are yet to be read
        return False
    if not sending[0]:
        del sending[0]
    return bool(sending)


def _end(inner: subprocess.Popen[bytes], keep: int, room: str) -> None:
    """Let go of the life line, upon which the guard outside the walls kills what is inside, and ends."""
    os.close(keep)
    for stream in (inner.stdin, inner.stdout):
        if stream is not None:
            stream.close()
    try:
        inner.wait(10)
    except subprocess.TimeoutExpired:
        inner.kill()
        inner.wait()
    shutil.rmtree(room, ignore_errors=True)


def _python_path(folder: Path | None) -> list[str]:
    """Where the interpreter inside finds modules: its own, installed ones, Casemate, the user's beside his settings."""
    own = [sysconfig.get_path("stdlib"), os.path.join(sysconfig.get_path("platstdlib"), "lib-dynload")]
    kept = [path for path in sys.path if path and os.path.isdir(path) and Path(path).name in _INSTALLED]
    dynamic = [path for path in sys.path if Path(path).name == "lib-dynload"]
    mine = str(Path(__file__).parents[2])
    return list(dict.fromkeys([*own, *dynamic, *_packages(), *kept, mine, *([str(folder)] if folder else [])]))


def _packages() -> list[str]:
    found = [*site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return [path for path in dict.fromkeys(found) if os.path.isdir(path)]


def _binds(folder: Path | None) -> list[str]:
    """What the room shows of this machine, outer folders first: Python, packages, libraries, Casemate, own modules."""
    # Of Python's folders the libraries alone: an environment may be a whole project, and pip keeps passwords there.
    prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    own = [os.path.join(prefix, part) for prefix in prefixes for part in ("lib", "lib32", "lib64")]
    own += [*_python_path(None), str(Path(__file__).parents[1])]
    mine = str(Path(__file__).parents[2])
    wanted = [*_LIBRARIES, *(path for path in own if path != mine or Path(mine).name in _INSTALLED)]
    wanted += [os.path.realpath(path) for path in wanted]
    wanted += [str(path) for path in _modules(folder)]
    kept: list[str] = []
    for path in sorted(dict.fromkeys(wanted), key=lambda text: text.count("/")):
        inside = any(path.startswith(outer.rstrip("/") + "/") and not os.path.islink(outer) for outer in kept)
        if os.path.exists(path) and path != "/" and not inside:
            kept.append(path)
    return kept


def _modules(folder: Path | None) -> Iterator[Path]:
    """The Python files and packages in a folder, and nothing else of it."""
    for path in sorted(folder.iterdir()) if folder is not None and folder.is_dir() else ():
        if not path.is_symlink() and (path.suffix == ".py" or (path / "__init__.py").is_file()):
            yield path.resolve()
