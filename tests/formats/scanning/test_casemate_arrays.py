"""Casemate's own containers."""

from __future__ import annotations

import numpy as np

from casemate.formats import arrays
from casemate.formats.scanning.signs import Level
from casemate.formats.scanning.walking import scan_bytes

DATA = arrays.pack({"x": np.arange(6.0), "note": "text"})


def test_our_own_evidence_is_clean_and_any_damage_is_told() -> None:
    found = scan_bytes(DATA, "e.cma")
    assert (found.level, found.formats) == (Level.CLEAN, ("casemate-arrays",))
    for at in range(8, len(DATA)):
        damaged = bytearray(DATA)
        damaged[at] ^= 1
        assert scan_bytes(bytes(damaged), "e.cma").level is Level.UNREADABLE
    assert scan_bytes(DATA + b"\x80\x04N.", "e.cma").level is Level.UNREADABLE
