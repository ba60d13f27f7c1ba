"""Digests, always written `sha256:` and 64 lower-case hexadecimal digits (SHA-256, FIPS 180-4)."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, final

import numpy as np

from casemate.errors import FormatError, UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Hasher", "hex_of", "is_digest", "sha256_array", "sha256_bytes", "sha256_file"]

_CHUNK = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def sha256_bytes(data: bytes | bytearray | memoryview) -> str:
    """Digest of bytes held in memory."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Digest of a file's content, read in pieces of 1 MiB; equal to `sha256_bytes` of the whole.

    Raises `UsageError` if the file cannot be read.
    """
    state = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                state.update(chunk)
    except OSError as error:
        raise UsageError(f"expected a readable file, got {path}: {error.strerror or error}; check the path") from error
    return "sha256:" + state.hexdigest()


def sha256_array(array: NDArray[np.generic]) -> str:
    """Digest of an array's element type, shape and values in C order, equal on every machine.

    Numbers are hashed as little-endian bytes whatever their byte order and strides, so NaN payloads and the sign of
    zero count. Text is hashed as length-prefixed UTF-8, so the same words have one digest as `<U5`, `<U9` or as an
    object array of `str`.

    Raises `FormatError` for masked, structured, extended-precision and any other object arrays: their bytes are not
    their value.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise FormatError("expected a plain array, got a masked one: call filled() first, or hash data and mask apart")
    kind, size = array.dtype.kind, array.dtype.itemsize
    hasher = Hasher("casemate.array.1")
    shape = ",".join(str(n) for n in array.shape)
    if kind in "UO":
        hasher.add("text", shape)
        for word in _utf8_words(array):
            hasher.add(word)
        return hasher.digest()
    if kind not in "biufcSMm" or (kind == "f" and size > 8) or (kind == "c" and size > 16):
        raise FormatError(
            f"expected numbers, booleans, dates or text, got dtype {array.dtype}: convert with astype first"
        )
    fixed = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    hasher.add(fixed.dtype.newbyteorder("<").str, shape)
    hasher.add(fixed.reshape(-1).view(np.uint8).data if fixed.nbytes else b"")
    return hasher.digest()


def _utf8_words(array: NDArray[np.generic]) -> Iterator[bytes]:
    for index, word in enumerate(array.flat):
        if not isinstance(word, str):
            mend = "convert the column to text or to numbers"
            raise FormatError(f"expected only str in an object array, got {type(word).__name__} at {index}: {mend}")
        try:
            yield word.encode("utf-8")
        except UnicodeEncodeError as error:
            raise FormatError(
                f"expected Unicode text, got a lone surrogate at {index}: decode the source again"
            ) from error


def is_digest(text: object) -> bool:
    """Whether `text` is a `str` in the one accepted form, `sha256:` and 64 lower-case hexadecimal digits."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def hex_of(digest: str) -> str:
    """Return the 64 hexadecimal digits of a digest.

    Raises `FormatError` if it is not one.
    """
    if not is_digest(digest):
        raise FormatError(f"expected sha256:<64 hex digits>, got {digest!r:.80}: recompute the digest")
    return digest.removeprefix("sha256:")


@final
class Hasher:
    """Digest of a list of fields, each with its type and length in front, so no two lists share a text.

    `Hasher(domain)` separates uses: equal fields under two domains have different digests. `add` takes `str` (hashed
    as UTF-8) or bytes, and "a" differs from b"a".
    """

    __slots__ = ("_state",)

    def __init__(self, domain: str) -> None:
        self._state = hashlib.sha256()
        self.add(domain)

    def add(self, *fields: str | bytes | memoryview) -> Hasher:
        """Append fields in order; returns itself.

        Raises `FormatError` for text that UTF-8 cannot hold.
        """
        for field in fields:
            tag, data = (b"s", _utf8(field)) if isinstance(field, str) else (b"b", field)
            self._state.update(tag + len(data).to_bytes(8, "little"))
            self._state.update(data)
        return self

    def digest(self) -> str:
        """Return the digest of the fields so far; more may follow."""
        return "sha256:" + self._state.hexdigest()


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError(
            f"expected Unicode text, got a lone surrogate in {text!r:.40}: decode the source again"
        ) from error
