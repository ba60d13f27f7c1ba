"""Print constraints.txt: every package installed in this environment, pinned, Casemate itself left out."""

from __future__ import annotations

import re
from importlib.metadata import distributions

__all__ = ["constraints"]

HEADER = """\
# Every package of what `make check` installs, direct and transitive, resolved together on Python 3.11.
# Written by `make lock`. Pins carry no build tag: torch may be a CPU or a CUDA build of the same release."""
LEFT_OUT = {"casemate", "pip"}


def constraints() -> list[str]:
    """Return `name==version` for each installed distribution, sorted by normalised name."""
    pins = {
        re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(): found.version.partition("+")[0]
        for found in distributions()
    }
    return [f"{name}=={pins[name]}" for name in sorted(pins) if name not in LEFT_OUT]


if __name__ == "__main__":
    print(HEADER, *constraints(), sep="\n")
