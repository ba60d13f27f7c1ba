"""Mutate files and hold the scanner to CPython's unpickler: what would run never passes, nothing crashes or hangs.

    python artifact_fuzz.py MUTATIONS SECONDS SEED < files.txt

Each file is mutated (flipped, cut, spliced with another, doubled, with changed lengths) and scanned from memory. Where
the bytes are a pickle, CPython's C unpickler follows them too, with stand-ins for every name it asks for: nothing is
imported or called for real, and an audit hook ends the process if anything tries. A mutation for which it asked for a
name that is not known to be harmless, and that the scanner found clean, is a MISS. Prints one JSON line.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from casemate.formats.scanning.limits import Limits
from casemate.formats.scanning.pickles.rulings import ruling
from casemate.formats.scanning.signs import Level
from casemate.formats.scanning.walking import scan_bytes

LIMIT = Limits()
SLACK = 2.0  # seconds above the limit: one step between two looks at the clock
MEMORY = 3 << 30  # bytes: a memo index of 2**32 makes CPython ask for 64 GiB
OPCODES = bytes(ord(op.code) for op in pickletools.opcodes) + b"\x00\xff"
LARGEST = 1 << 18  # bytes: larger files mutate slowly and tell no more


class StandIn:
    """What every name is for the unpickler: can be called, built, appended to and hashed; does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> StandIn:
        """Another one."""
        return StandIn()

    def __setitem__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """Nothing."""

    def extend(self, _: Any) -> None:
        """Nothing."""

    def add(self, _: Any) -> None:
        """Nothing."""


class Traced(pickle.Unpickler):
    """CPython's unpickler, with a note of every name instead of the thing."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.names: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> Any:
        """Note the name."""
        self.names.add((module, name))
        return StandIn

    def persistent_load(self, pid: Any) -> Any:
        """Any object that lies outside of the pickle."""
        return StandIn()


def names_of(data: bytes) -> set[tuple[str, str]]:
    """What CPython's unpickler asks for, in this and the pickles that follow it."""
    stream, names = io.BytesIO(data), set()
    for _ in range(64):
        machine = Traced(stream)
        try:
            machine.load()
        except Exception:
            return names | machine.names
        names |= machine.names
    return names


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four changes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if out:
            out = rng.choice(CHANGES)(out, other, rng)
    return bytes(out)


def _flipped(out: bytearray, other: bytes, rng: random.Random) -> bytearray:
    out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return out


def _other_opcode(out: bytearray, other: bytes, rng: random.Random) -> bytearray:
    out[rng.randrange(len(out))] = rng.choice(OPCODES)
    return out


def _without(out: bytearray, other: bytes, rng: random.Random) -> bytearray:
    at = rng.randrange(len(out))
    del out[at : at + rng.randrange(1, 17)]
    return out


def _with_noise(out: bytearray, other: bytes, rng: random.Random) -> bytearray:
    at = rng.randrange(len(out))
    out[at:at] = rng.randbytes(rng.randrange(1, 17))
    return out


def _stuttering(out: bytearray, other: bytes, rng: random.Random) -> bytearray:
    at = rng.randrange(len(out))
    out[at:at] = out[at : at + rng.randrange(1, 17)]
    return out


def _grafted(out: bytearray, other: bytes, rng: random.Random) -> bytearray:
    at, start = rng.randrange(len(out)), rng.randrange(max(1, len(other)))
    out[at:at] = other[start : start + rng.randrange(1, 64)]
    return out


def _cut(out: bytearray, other: bytes, rng: random.Random) -> bytearray:
    return out[: rng.randrange(len(out))]


def _other_length(out: bytearray, other: bytes, rng: random.Random) -> bytearray:
    at = rng.randrange(len(out))
    out[at : at + 4] = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, len(out))).to_bytes(4, "little")
    return out


def _behind_another(out: bytearray, other: bytes, rng: random.Random) -> bytearray:
    return bytearray(other[: rng.randrange(1, 1 + len(other))] + out) if other else out


CHANGES = (_flipped, _other_opcode, _without, _with_noise, _stuttering, _grafted, _cut, _other_length, _behind_another)


def endless(files: list[bytes], rng: random.Random) -> Iterator[bytes]:
    """Mutations without end."""
    while True:
        yield mutated(rng.choice(files), rng.choice(files), rng)


def main() -> int:
    """Run."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    most, seconds, seed = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    paths = [Path(line.rstrip("\n")) for line in sys.stdin]
    files = [path.read_bytes() for path in paths if path.stat().st_size <= LARGEST]
    rng = random.Random(seed)
    for data in files[:50]:
        scan_bytes(data, "warm")
    armed = [False]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if armed[0] and event in ("os.system", "os.exec", "subprocess.Popen", "socket.connect", "exec", "os.fork"):
            sys.stderr.write(f"EXECUTED {event} {arguments!r:.200}\n")
            sys.exit(9)

    sys.addaudithook(hook)
    levels: Counter[str] = Counter()
    misses: list[str] = []
    executes, slowest, start = 0, 0.0, time.monotonic()
    for count, data in enumerate(endless(files, rng), start=1):
        armed[0] = True
        names = names_of(data)
        armed[0] = False
        began = time.monotonic()
        level = scan_bytes(data, "mutation.pkl", limits=LIMIT).level
        slowest = max(slowest, time.monotonic() - began - LIMIT.seconds_per_mib * len(data) / (1 << 20))
        levels[str(level)] += 1
        bad = [name for name in names if ruling(*name).level is not Level.CLEAN]
        executes += bool(bad)
        if bad and level is Level.CLEAN:
            misses.append(data.hex() if len(data) < 2000 else data[:2000].hex())
        if count >= most or time.monotonic() - start > seconds:
            break
    report = {"mutations": count, "executing": executes, "misses": len(misses), "slowest": slowest, "levels": levels,
              "seconds": time.monotonic() - start, "examples": misses[:10]}  # fmt: skip
    print(json.dumps(report))
    return 1 if misses or slowest > LIMIT.seconds + SLACK else 0


if __name__ == "__main__":
    sys.exit(main())
