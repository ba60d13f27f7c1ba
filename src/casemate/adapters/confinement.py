"""The walls of a process that may run anything: no network, no files but Python's own, no children, limits.

Linux only. Run as a script in a fresh interpreter, of the standard library alone: before other code starts threads, and
before anything of the model is there. Namespaces (user, network, mount, processes, IPC) take away what could be
reached; a new root of read-only binds holds nothing of the user's; a system call filter refuses sockets, new programs
and new processes even so. Each wall is tried before the model is opened, and a missing one ends the process.

Sources: unshare(2), pivot_root(2), mount_setattr(2), seccomp(2), capabilities(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["FAILED", "READY", "confine", "main"]

READY = b"CASEMATE-WALLS-UP"
"""The first that is written, before anything of the model is opened: the walls stand."""
FAILED = b"CASEMATE-NO-WALLS"
"""What is written in its place where the walls cannot be built, followed by the reason; as long as `READY`."""

_MS_REC, _MS_BIND, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV = 16384, 4096, 1 << 18, 2, 4
_SPACES = 0x10000000 | 0x40000000 | 0x00020000 | 0x20000000 | 0x08000000 | 0x04000000  # user net mount pid ipc uts
_DETACH, _AT_FDCWD, _RECURSIVE = 2, -100, 0x8000
_READ_ONLY = 1 | 2  # and without set-uid
_NO_NEW_PRIVS, _SECCOMP, _PDEATHSIG, _BOUNDING_DROP, _DUMPABLE = 38, 22, 1, 24, 4
_THREAD = 0x00010000
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")

# Numbers of the system calls that are refused, by machine: `asm/unistd.h`. From 424 on all machines share them.
_NEW = (425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 438, 442, 447)  # io_uring, mounts, pidfd, secret memory
_CALLS: dict[str, dict[str, Any]] = {
    "x86_64": {
        "arch": 0xC000003E, "clone": 56, "prctl": 157, "pivot_root": 155, "capset": 126,
        "denied": (
            41, 42, 43, 44, 49, 50, 53, 57, 58, 59, 322,  # sockets; fork, vfork, execve, execveat
            101, 310, 311, 312, 155, 161, 165, 166, 272, 308,  # ptrace, foreign memory, roots, mounts, namespaces
            169, 175, 176, 246, 313, 248, 249, 250, 298, 304, 319, 321, 323,  # the kernel, keys, perf, memfd, bpf
            29, 68, 240, 135,  # shared memory, queues, personality
        ),
    },
    "aarch64": {
        "arch": 0xC00000B7, "clone": 220, "prctl": 167, "pivot_root": 41, "capset": 91,
        "denied": (
            198, 199, 200, 201, 202, 203, 206, 221, 281, 117, 270, 271, 272, 41, 51, 40, 39, 97, 268,
            142, 105, 106, 104, 273, 217, 218, 219, 241, 265, 279, 280, 282, 194, 186, 180, 92,
        ),
    },
}  # fmt: skip
_CLONE3 = 435


class _NoWall(Exception):
    """A wall that this machine does not let us build."""


def main() -> None:
    """Read the plan and the model from standard input, build the walls, hand the pipes to `isolated.serve`.

    The plan: a length in 8 bytes and JSON (`room`, an empty folder; `binds`; `path`, Python's; `name`, `size` of the
    model; `limits`; `life`, a pipe whose end means that nobody waits any more), then the model's bytes.
    """
    plan = json.loads(_exactly(int.from_bytes(_exactly(8), "little")))
    try:
        inner = confine(plan, lambda n: _exactly(n))
    except (_NoWall, OSError) as error:
        os.write(1, FAILED + str(error).encode(errors="replace")[:500])
        os._exit(1)
    if inner:
        _wait(inner, plan["life"])
    os.write(1, READY)
    sys.path[:] = plan["path"]
    from casemate.adapters.isolated import serve

    answers = os.dup(1)
    nowhere = os.open("/dev/null", os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    serve(0, answers, "/model/" + plan["name"])
    os._exit(0)


def confine(plan: dict[str, Any], read: Callable[[int], bytes]) -> int:
    """Build the walls around a child of this process: its number, and 0 in the child itself.

    `read` gives the next bytes of the model. Raises `OSError`, or an error that says which wall is missing.
    """
    calls = _CALLS.get(os.uname().machine)
    if sys.platform != "linux" or calls is None or sys.maxsize < 1 << 32:
        raise _NoWall(f"no walls for {sys.platform} on {os.uname().machine}")
    libc = ctypes.CDLL(None, use_errno=True)
    _separate(libc)
    _furnish(libc, plan, read, calls)
    inner = os.fork()
    if inner:
        return inner
    os.setsid()  # signals to one's own group pass namespaces: `kill(0, ...)` would reach whoever started us
    _check(libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "to die with its parent")
    os.close(plan["life"])
    _limit(plan["limits"])
    _drop(libc, calls)
    _filter(libc, calls)
    _try_walls()
    return 0


def _separate(libc: Any) -> None:
    """New namespaces, in which this user is who he was."""
    user, group = os.getuid(), os.getgid()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory runs out, it is this process that the kernel ends
    if libc.unshare(_SPACES):
        told = os.strerror(ctypes.get_errno())
        raise _NoWall(f"namespaces of its own ({told}); containers and some systems forbid them to users")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        try:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        except OSError as error:
            raise _NoWall(f"a user namespace with this user in it ({error.strerror})") from error


def _furnish(libc: Any, plan: dict[str, Any], read: Callable[[int], bytes], calls: dict[str, Any]) -> None:
    """A root in memory with the model, and read-only binds of what Python needs; the old root is gone."""
    room = plan["room"]
    _mount(libc, "none", "/", _MS_REC | _MS_PRIVATE)
    options = f"mode=755,size={plan['size'] + (32 << 20)}"
    _mount(libc, "none", room, _MS_NOSUID | _MS_NODEV, kind="tmpfs", options=options)
    for folder in ("/dev", "/tmp", "/model"):
        os.makedirs(room + folder)
    for path in (*plan["binds"], *_DEVICES):
        _bind(libc, room, path)
    left = plan["size"]
    with open(f"{room}/model/{plan['name']}", "wb") as file:
        while left:
            piece = read(min(left, 1 << 20))
            file.write(piece)
            left -= len(piece)
    os.chdir(room)
    _check(libc.syscall(calls["pivot_root"], b".", b"."), "a root of its own")
    _check(libc.umount2(b".", _DETACH), "to leave the old root")
    os.chdir("/")
    attributes = struct.pack("<QQQQ", _READ_ONLY, 0, 0, 0)
    done = libc.syscall(442, _AT_FDCWD, b"/", _RECURSIVE, attributes, ctypes.c_size_t(len(attributes)))
    _check(done, "a read-only root (Linux 5.12 or later)")


def _bind(libc: Any, room: str, path: str) -> None:
    if os.path.lexists(room + path) or not os.path.exists(path):
        return
    os.makedirs(os.path.dirname(room + path), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), room + path)
        return
    if os.path.isdir(path):
        os.mkdir(room + path)
    else:
        with open(room + path, "wb"):
            pass
    _mount(libc, path, room + path, _MS_BIND | _MS_REC)


def _limit(limits: dict[str, int]) -> None:
    import resource

    for name, most in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _drop(libc: Any, calls: dict[str, Any]) -> None:
    """No capability is left, none can come back, and nobody outside can be looked into."""
    for capability in range(64):
        libc.prctl(_BOUNDING_DROP, capability, 0, 0, 0)  # fails past the last one
    header, none = struct.pack("<Ii", 0x20080522, 0), bytes(24)
    _check(libc.syscall(calls["capset"], header, none), "to give up its capabilities")
    _check(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    _check(libc.prctl(_DUMPABLE, 0, 0, 0, 0), "not to be dumped")


def _filter(libc: Any, calls: dict[str, Any]) -> None:
    """A filter of system calls in classic BPF: refused ones fail with EPERM, and all threads are under it."""
    refuse, absent = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
    code = [_op(0x20, 4), _op(0x15, calls["arch"], 1, 0), _op(0x06, 0x80000000), _op(0x20, 0)]
    code += [_op(0x35, 0x40000000, 0, 1), _op(0x06, refuse)]  # x32: the same calls by other numbers
    for number in (*calls["denied"], *_NEW):
        code += [_op(0x15, number, 0, 1), _op(0x06, refuse)]
    code += [_op(0x15, _CLONE3, 0, 1), _op(0x06, absent)]  # its flags cannot be seen; libraries then take clone
    code += [_op(0x15, calls["prctl"], 0, 4), _op(0x20, 16), _op(0x15, _PDEATHSIG, 0, 1), _op(0x06, refuse)]
    code += [_op(0x06, 0x7FFF0000)]
    code += [_op(0x15, calls["clone"], 0, 3), _op(0x20, 16), _op(0x45, _THREAD, 1, 0), _op(0x06, refuse)]
    code += [_op(0x06, 0x7FFF0000)]
    program = ctypes.create_string_buffer(b"".join(code))
    filled = struct.pack("HxxxxxxP", len(code), ctypes.addressof(program))
    _check(libc.prctl(_SECCOMP, 2, ctypes.c_char_p(filled), 0, 0), "a filter of system calls")


def _op(code: int, value: int, then: int = 0, other: int = 0) -> bytes:
    return struct.pack("<HBBI", code, then, other, value)


def _try_walls() -> None:
    """Try what must fail."""
    import socket

    def write() -> None:
        with open("/model/written", "wb") as file:
            file.write(b"x")

    attempts: Sequence[tuple[str, Callable[[], object]]] = (
        ("network", lambda: socket.socket(socket.AF_INET)),
        ("files", write),
        ("processes", os.fork),
        ("the user's files", lambda: os.listdir("/proc")),
    )
    for name, attempt in attempts:
        try:
            attempt()
        except OSError:
            continue
        raise _NoWall(f"a wall before {name}; it was built and does not hold")


def _wait(inner: int, life: int) -> None:
    """Wait for the child, or for the end of whoever wants its answers; then end both."""
    handle = os.pidfd_open(inner)
    for descriptor in (0, 1):
        os.close(descriptor)
    select.select([handle, life], [], [])
    with contextlib.suppress(ProcessLookupError):
        os.kill(inner, signal.SIGKILL)
    status = os.waitpid(inner, 0)[1]
    os._exit(min(255, os.waitstatus_to_exitcode(status) % 256))


def _mount(libc: Any, source: str, target: str, flags: int, *, kind: str | None = None, options: str = "") -> None:
    given = [None if not text else os.fsencode(text) for text in (source, target, kind, options)]
    done = libc.mount(given[0], given[1], given[2], ctypes.c_ulong(flags), given[3])
    _check(done, f"{'files in memory' if kind else 'a read-only view of ' + source}")


def _check(done: int, what: str) -> None:
    if done:
        raise _NoWall(f"{what} ({os.strerror(ctypes.get_errno())})")


def _exactly(n: int) -> bytes:
    """The next `n` bytes of standard input, unbuffered: what follows belongs to the child."""
    parts = []
    while n:
        part = os.read(0, min(n, 1 << 20))
        if not part:
            os._exit(1)
        parts.append(part)
        n -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    main()
