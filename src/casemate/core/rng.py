"""Random numbers keyed by names and sample ids, so that no result depends on batch, order or executor.

`stream` and `derive_seed` serve whole computations (a shuffle, a framework's seed). `uniforms`, `normals`, `signs` and
`integers` serve attacks: row i depends on (seed, name, sample_ids[i]) and on nothing else, hence the same numbers come
out whichever samples share the batch, in whichever process. They run Philox4x32-10 (Salmon, Moraes, Dror, Shaw,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011), counter = (block, sample id), key = hash of (seed, name).

Not for cryptography or differential privacy: who knows the seed knows the numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
import scipy  # loads scipy.special at first use: `import casemate` must be fast
from numpy.typing import ArrayLike, NDArray

from casemate.errors import UsageError

__all__ = ["derive_seed", "integers", "normals", "sample_streams", "signs", "stream", "uniforms"]

_Part = str | int
Name = _Part | tuple[_Part, ...]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)
# Blocks per pass: the dozen temporaries of a pass then stay in a second-level cache.
_CHUNK = 1 << 14


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator of (seed, names): Philox keyed by 128 bits of SHA-256 over the length-prefixed names.

    `stream(0, "a", "bc")` and `stream(0, "ab", "c")`, and `1` and `"1"`, differ. Raises: UsageError for a seed or name
    that is neither text nor a whole number.
    """
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(seed, names)[:16], "little")))


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive a seed in [0, 2**63) for a framework that wants a whole number. Raises: as `stream`."""
    return int.from_bytes(_digest(seed, names)[16:24], "little") >> 1


def sample_streams(seed: int, name: Name, sample_ids: ArrayLike) -> Iterator[np.random.Generator]:
    """Yield one generator per sample id, in order; slow (about 20 us each), for code that cannot use `uniforms`."""
    for sample_id in _as_ids(sample_ids).tolist():
        yield stream(seed, *_as_names(name), sample_id)


def uniforms(seed: int, name: Name, sample_ids: ArrayLike, shape: int | tuple[int, ...] = ()) -> NDArray[np.float64]:
    """Draw from [0, 1): `(n, *shape)` float64 on the grid of 2**-53; row i is keyed by (seed, name, sample_ids[i]).

    A longer shape continues a shorter one: the first k numbers of a row are the same. Put a step into the name,
    `("square", step)`, to draw anew. A cast to float32 may round up to 1.0. Raises: UsageError as `stream`, and for
    sample ids that are not whole numbers within int64.
    """
    bits = _bits(seed, name, sample_ids, shape)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(seed: int, name: Name, sample_ids: ArrayLike, shape: int | tuple[int, ...] = ()) -> NDArray[np.float64]:
    """Draw standard normals, `(n, *shape)` float64, by inversion, hence within 8.3 of zero. See `uniforms`."""
    bits = _bits(seed, name, sample_ids, shape)
    # 52 bits plus a half is exact in float64 and never 0 or 1, where the quantile is infinite.
    open_unit = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return np.asarray(scipy.special.ndtri(open_unit), dtype=np.float64)


def signs(seed: int, name: Name, sample_ids: ArrayLike, shape: int | tuple[int, ...] = ()) -> NDArray[np.int8]:
    """Draw a fair -1 or +1, `(n, *shape)` int8, so that a product keeps the other factor's dtype. See `uniforms`."""
    shape = _as_shape(shape)
    count = math.prod(shape)
    words = _bits(seed, name, sample_ids, (-(-count // 64),))
    single = (words[:, :, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    flat = single.reshape(len(words), -1)[:, :count].astype(np.int8)
    return (2 * flat - 1).astype(np.int8).reshape(len(words), *shape)


def integers(
    seed: int, name: Name, sample_ids: ArrayLike, shape: int | tuple[int, ...] = (), *, low: int = 0, high: int
) -> NDArray[np.int64]:
    """Draw whole numbers in [low, high), `(n, *shape)` int64; probabilities are even to within 2**-32. See `uniforms`.

    Source: multiply-shift, Lemire, "Fast random integer generation in an interval", 2019, without its rejection step.
    Raises: UsageError also unless 1 <= high - low <= 2**32.
    """
    span = high - low
    if not 1 <= span <= 2**32:
        raise UsageError(f"expected 1 <= high - low <= 2**32, got low={low}, high={high}: widen the range")
    bits = _bits(seed, name, sample_ids, shape)
    width = np.uint64(span)
    carry = ((bits & _LOW32) * width) >> _SHIFT32
    drawn = ((bits >> _SHIFT32) * width + carry) >> _SHIFT32
    return drawn.astype(np.int64) + np.int64(low)


def _digest(seed: int, names: tuple[str | int, ...]) -> bytes:
    hasher = hashlib.sha256(b"casemate.rng.1")
    if not isinstance(seed, int | np.integer):
        raise UsageError(f"expected the seed as a whole number, got {seed!r}: pass it first, names after it")
    for part in (seed, *names):
        data = _encode(part)
        hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.digest()


def _encode(part: object) -> bytes:
    if isinstance(part, str):
        return b"s" + part.encode()
    if isinstance(part, int | np.integer) and not isinstance(part, bool):
        return b"i" + str(int(part)).encode()
    raise UsageError(f"expected seeds and names as text or whole numbers, got {part!r}: convert with str or int")


def _as_names(name: Name) -> tuple[str | int, ...]:
    return name if isinstance(name, tuple) else (name,)


def _as_shape(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    return shape if isinstance(shape, tuple) else (shape,)


def _as_ids(sample_ids: ArrayLike) -> NDArray[np.int64]:
    ids = np.asarray(sample_ids)
    if ids.size == 0:
        ids = ids.astype(np.int64)
    fits = ids.dtype.kind in "iu" and (ids.dtype != np.uint64 or bool(np.all(ids < np.uint64(2**63))))
    if ids.ndim != 1 or not fits:
        raise UsageError(
            f"expected sample_ids (n,) as int64, got {ids.dtype} {ids.shape}: number the samples with np.arange"
        )
    return ids.astype(np.int64)


def _bits(seed: int, name: Name, sample_ids: ArrayLike, shape: int | tuple[int, ...]) -> NDArray[np.uint64]:
    """64 random bits per number, `(n, *shape)`: two numbers out of every block of four words."""
    shape = _as_shape(shape)
    ids = _as_ids(sample_ids).view(np.uint64)
    key = _digest(seed, ("per-sample", *_as_names(name)))
    key_words = (int.from_bytes(key[:4], "little"), int.from_bytes(key[4:8], "little"))
    count = math.prod(shape)
    blocks = -(-count // 2)
    out = np.empty((len(ids), blocks, 2), dtype=np.uint64)
    rows = max(1, _CHUNK // max(1, blocks))
    for top in range(0, len(ids), rows):
        part = ids[top : top + rows, None]
        for left in range(0, blocks, _CHUNK):
            index = np.arange(left, min(blocks, left + _CHUNK), dtype=np.uint64)[None, :]
            counter = np.broadcast_arrays(index & _LOW32, index >> _SHIFT32, part & _LOW32, part >> _SHIFT32)
            word = _philox(counter, key_words)
            target = out[top : top + rows, left : left + _CHUNK]
            target[..., 0] = word[0] | (word[1] << _SHIFT32)
            target[..., 1] = word[2] | (word[3] << _SHIFT32)
    return out.reshape(len(ids), 2 * blocks)[:, :count].reshape(len(ids), *shape)


def _philox(counter: tuple[NDArray[np.uint64], ...], key: tuple[int, int]) -> tuple[NDArray[np.uint64], ...]:
    """Philox4x32-10: four 32-bit words per counter of four 32-bit words, all held in uint64 (SC 2011, section 3.3)."""
    c0, c1, c2, c3 = counter
    for turn in range(_ROUNDS):
        k0, k1 = (np.uint64((word + turn * step) & 0xFFFFFFFF) for word, step in zip(key, _WEYL, strict=True))
        left, right = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (right >> _SHIFT32) ^ c1 ^ k0, right & _LOW32, (left >> _SHIFT32) ^ c3 ^ k1, left & _LOW32
    return c0, c1, c2, c3
