"""Model files read once: the bytes that are scanned are the bytes that are loaded, whatever happens to the path.

What may be loaded follows from the scan. A format that runs nothing (skops, safetensors, ONNX, boosters' own files) is
refused only where it is malicious; one that can run code only where it is not known to be harmless.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from casemate.adapters.archives import memory
from casemate.errors import ModelError
from casemate.formats.scanning.signs import Level, Scanned, Sign
from casemate.formats.scanning.walking import scan_bytes

__all__ = ["Held", "check_verdict", "hold", "told_sign"]

_CUT = 200
_OPEN = os.O_RDONLY  # a pipe, also one that took the file's place just now, must not wait for a writer
for _flag in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"):
    _OPEN |= getattr(os, _flag, 0)
_SAFER = (
    "convert it to skops, safetensors or ONNX where it was made (casemate convert), pass --isolate to casemate audit, "
    "which loads it in a process without network and files, or --trust if you know who wrote it"
)
_MENDS = {
    Level.MALICIOUS: "do not load it; tell whoever published it, or pass --trust if you wrote it yourself",
    Level.SUSPICIOUS: f"review that code, {_SAFER}",
    Level.UNREADABLE: f"get it again from where it was made, {_SAFER}",
    Level.UNKNOWN: _SAFER,
}


@dataclass(frozen=True, slots=True)
class Held:
    """A file's bytes, read once, and what the scan says of exactly these; `name` is that of the file alone."""

    name: str
    data: bytes = field(repr=False)
    scanned: Scanned = field(repr=False)

    @property
    def clean(self) -> bool:
        """Whether all of it is known to be harmless."""
        return self.scanned.level is Level.CLEAN


def hold(path: str | Path) -> Held:
    """Read a file, once, and scan what was read.

    Raises `ModelError` for a file that is missing, no regular file, or larger than this machine's memory.
    """
    file = Path(path)
    try:
        with os.fdopen(os.open(file, _OPEN), "rb") as stream:
            size = os.fstat(stream.fileno())
            if not stat.S_ISREG(size.st_mode):
                raise ModelError(f"expected a model file, got a device or pipe at {file}: check [model] path")
            if size.st_size > memory():
                raise ModelError(
                    f"expected {file.name} to fit into memory, got {size.st_size / 2**30:.3g} GiB: use a larger machine"
                )
            data = stream.read(size.st_size + 1)
            if len(data) != size.st_size:
                raise ModelError(f"expected {file.name} to stay as it is, got one that is being written: wait for it")
    except (OSError, ValueError) as error:
        why = "nothing" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or str(error)
        raise ModelError(f"expected a model file, got {why} at {file}: check [model] path") from error
    return Held(file.name, data, scan_bytes(data, file.name))


def check_verdict(
    held: Held, *, runs: bool, trust: bool = False, isolate: bool = False, notes: dict[str, str] | None = None
) -> None:
    """Refuse a file by its scan; `runs`: opening its format can run code.

    `trust` lets everything pass, which `notes` are told where it was needed, `isolate` everything but what is
    malicious. Raises `ModelError` that names the worst sign and what can be done.
    """
    level = held.scanned.level
    if level is Level.CLEAN or (level is not Level.MALICIOUS and (isolate or not runs)):
        return
    if trust:
        if notes is not None:
            told = f"{_plain(held.name)} is {level}, loaded because --trust said so"
            notes["trust"] = f"{notes['trust']}; {told}" if "trust" in notes else told
        return
    sign = next(sign for sign in held.scanned.signs if sign.level is level)
    raise ModelError(
        f"expected a model file that is known to be harmless, got {held.name}, {level} ({told_sign(sign)}): "
        f"{_MENDS[level]}"
    )


def told_sign(sign: Sign) -> str:
    """A sign in one line: what, where, why."""
    where = str(sign.place).removeprefix(sign.place.file).removeprefix("!/").strip()
    what = f"{_plain(sign.what)} ({_plain(where)})" if where else _plain(sign.what)
    return f"{what}; {_plain(sign.why)}"


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:_CUT]
