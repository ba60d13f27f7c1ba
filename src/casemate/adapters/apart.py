"""Readers in C++ tried in a process of their own first: some damaged files end the process that reads them."""

from __future__ import annotations

import subprocess
import sys

__all__ = ["be_apart", "read_apart"]

_ROOM = """
import contextlib
with contextlib.suppress(ImportError, ValueError):
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({room}, {room}))
"""
_PATIENCE = 120  # seconds; the file is small or the machine is lost
_here = False


def be_apart() -> None:
    """Say that this process is one that may end: readers then run in it."""
    global _here
    _here = True


def read_apart(program: str, data: bytes) -> None:
    """Run a reader on bytes (its standard input) in a process of its own first; raises `ValueError` where it fails.

    The boosters' own readers, in C++, end the whole process on some damaged files. What they read is not kept here, and
    nothing is imported from the folder at hand. A header can tell of any number of classes: memory is limited there.
    """
    if _here:
        return
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _ROOM.format(room=(8 << 30) + 64 * len(data)) + program],
            input=data,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"a file that keeps its reader busy for {_PATIENCE} s") from error
    if done.returncode < 0:
        raise ValueError("a damaged file, on which its reader crashes")
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines()
        told = [line.partition("Error: ")[2] for line in lines if "Error: " in line]
        raise ValueError(told[0] if told else "a damaged file")
