"""Small PNG files, written by hand: the report's pictures need no imaging library."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["data_uri", "encoded"]

_GREY, _RGB = 0, 2  # PNG's colour types
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of grey values `(h, w)` or colours `(h, w, 3)`, eight bits each; equal pixels give equal bytes.

    Every line is stored as its difference from the one above (filter 2), which small pictures pack best with. Raises
    `ValueError` for another shape or type. Source: ISO/IEC 15948, sections 5, 9.2 and 11.2.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or 0 in pixels.shape:
        raise ValueError(f"expected bytes (h, w) or (h, w, 3), got {pixels.dtype} {pixels.shape}: convert the picture")
    height, width = pixels.shape[:2]
    lines = pixels.reshape(height, -1)
    above = np.vstack([np.zeros_like(lines[:1]), lines[:-1]])
    filtered = np.hstack([np.full((height, 1), 2, np.uint8), lines - above])
    head = struct.pack(">IIBBBBB", width, height, 8, _GREY if pixels.ndim == 2 else _RGB, 0, 0, 0)
    body = zlib.compress(filtered.tobytes(), 9)
    return _SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """The same as an address that holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(encoded(pixels)).decode("ascii")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
