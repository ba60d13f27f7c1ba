"""Paths and addresses in models: whether they lead out of the model's own folder."""

from __future__ import annotations

import re
from typing import Final

from casemate.formats.scanning.readers._members import climbs

__all__ = ["leaves_folder"]

_SCHEME: Final = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*:/")


def leaves_folder(path: str) -> str:
    """Why a path leaves the folder it is taken from, in words that follow "which"; empty where it does not."""
    if _SCHEME.match(path):
        return "is an address"
    if path.lstrip().startswith("~"):
        return "is in somebody's home folder"
    return climbs(path.strip()) or climbs(path)
