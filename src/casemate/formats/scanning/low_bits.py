"""What the low bits of weights tell: whether bytes were hidden in them, held against what benign weights do.

Low bits of trained weights are uniform already, and those of converted, pruned or freshly drawn ones are not: neither
entropy nor chi-square of a whole tensor is evidence, and what is encrypted or compressed, without its magic, cannot be
seen by anyone. What can be seen is *order*: the low bits of weights that nobody touched say nothing about those of
their neighbours. Each test is a bet against that, measured in nats, and its false-positive rate is at most
`trials * exp(-nats)` where its null model holds:

- `text`: each low byte is printable with probability at most 0.42, whatever came before. The score of a stretch is its
  likelihood ratio against a text of which 97 % is printable, a nonnegative martingale of mean 1 from each start, so
  that Ville's inequality and a union over the starts bound it for every length of text at once. 0.42 covers uniform
  bytes (0.38), bytes that end in zero bits (at most 0.38) and bytes of independent bits of any bias (0.403).
- `order`: equal bytes one, two, four or eight places apart, in windows of 1024 and 4096, are as many as in a random
  order of the same bytes (Chernoff's bound of a Poisson count; pairs overlap, so this one is approximate).
- `zeros`: windows whose low byte is zero throughout, beside windows where it is not.
- `magic`: the first bytes of programs, archives and pickles, of which at least 43 bits, mostly 52, are fixed.

Where a null model fails, the test is left out: values that repeat (quantised, half precision), values that follow from
each other (tables of sines, of positions, windows), and weights on a coarse grid, as drawn ones are, whose bits above
those that are tested are zero too often as well. Halves of 16 bits are tested in their lowest bit only.
Sources: EvilModel (Wang et al., 2021) for the layouts; Ville 1939, in Shafer and Vovk, Game-Theoretic Foundations for
Probability and Finance, 2.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Places = NDArray[np.intp]
    Words = NDArray[np.unsignedinteger]

__all__ = ["Hint", "chi_square", "entropy", "hints_of"]

_PRINTABLE: Final = 0.42  # at most, of low bytes that nobody touched
_TEXT: Final = 0.97  # of a text
_WINDOW: Final = 1024  # bytes
_LAGS: Final = (1, 2, 4, 8)
_LEAST: Final = 256  # values, fewer of which tell nothing
_DIVERSE: Final = 12  # different bytes in a text; patterns that repeat have fewer
_NEW: Final = 0.98  # share of values that differ, from which on each counts as a draw of its own
_SMOOTH: Final = 0.8  # correlation of neighbours, from which on values follow from each other
_TRIED: Final = 8  # windows, from the strongest on
_SHORT: Final = (b"\x1f\x8b\x08", b"cos\n", b"cnt\n")  # magics that chance gives more often than others
_FEWEST: Final = 16.0  # nats that are worth remembering


@dataclass(frozen=True, slots=True)
class Hint:
    """The strongest sign of one kind in a stretch of weights.

    `test`: text, order, zeros or magic; `layout`: where the bytes lie; `at`: index of the weight; `nats`: the evidence;
    `text`: the first bytes; `bits`: entropy of the stretch per byte; `squares`: its chi-square against uniform bytes.
    """

    test: str
    layout: str
    at: int
    nats: float
    text: bytes
    bits: float
    squares: float


@dataclass(frozen=True, slots=True)
class _Stream:
    """Bytes put together from low bits: `per` weights make one byte, from weight `first` on; which tests make sense.

    `above`: of each weight, the bits above those that were taken.
    """

    layout: str
    data: Bytes
    per: float
    first: int = 0
    text: bool = False
    order: bool = False
    above: Bytes | None = None


def entropy(data: Bytes) -> float:
    """Entropy of a histogram of bytes, in bits per byte, as observed (too small in short stretches)."""
    import numpy as np

    share = np.bincount(data, minlength=256) / max(1, len(data))
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


def chi_square(data: Bytes) -> float:
    """Pearson's statistic of bytes against the uniform distribution; 255 degrees of freedom."""
    import numpy as np

    expected = max(1, len(data)) / 256
    return float((((np.bincount(data, minlength=256) - expected) ** 2) / expected).sum())


def hints_of(words: Words, mantissa: int, row: int) -> tuple[list[Hint], int]:
    """The signs in one block of floating-point weights, and how many trials that was.

    `words`: their bit patterns, shape `(n,)`; `mantissa`: bits of the mantissa; `row`: length of the last axis.
    """
    import numpy as np

    together = int(np.bitwise_or.reduce(words)) & ((1 << mantissa) - 1)
    shift = (together & -together).bit_length() - 1 if together else mantissa  # bits that a conversion left empty
    room = mantissa - shift
    if len(words) < _LEAST or room < 1 or _smooth(words, mantissa, row):
        return list(_magic(_whole(words))), words.nbytes
    low = words[(words << words.dtype.type(1)) != 0] >> words.dtype.type(shift)  # without zeros of either sign
    ordered = np.sort(low)
    differ = 1 + np.count_nonzero(ordered[1:] != ordered[:-1])
    draws = bool(len(low) >= _LEAST and differ >= _NEW * len(low))
    found: list[Hint] = []
    trials = 0
    for stream in (_whole(words), *_streams(low, room, draws)):
        trials += len(stream.data)
        found += _hints(stream)
    best: dict[str, Hint] = {}
    for hint in found:
        if hint.test not in best or hint.nats > best[hint.test].nats:
            best[hint.test] = hint
    return list(best.values()), trials


def _hints(stream: _Stream) -> Iterator[Hint]:
    if stream.text:
        yield from _text(stream)
    if stream.order:
        yield from _order(stream)
        yield from _zeros(stream)
    yield from _magic(stream)


# -------------------------------------------------------------------------------------------------------------- layouts


def _whole(words: Words) -> _Stream:
    return _Stream("whole weights", _as_bytes(words, 0, words.itemsize), 1 / words.itemsize)


def _streams(low: Words, room: int, draws: bool) -> Iterator[_Stream]:
    """Bytes in every layout that has been published: whole low bytes in both orders, and one, two or four low bits."""
    import numpy as np

    for first, layout in ((0, "8 low bits"), (8, "bits 8 to 15")):
        if room >= first + 8:
            above = (low >> low.dtype.type(min(first + 8, room))).astype(np.uint8) if room > first + 8 else None
            data = _as_bytes(low, first // 8, 1)
            yield _Stream(layout, data, 1, text=draws and not first, order=draws and above is not None, above=above)
    for count in (2, 3):
        if room >= 8 * count - 1:
            for step, way in ((1, "low byte first"), (-1, "high byte first")):
                yield _Stream(f"{8 * count} low bits, {way}", _as_bytes(low, 0, count, step), 1 / count)
    for bits in (1, 2, 4):
        if room >= bits + 1:
            yield from _packed(low.astype(np.uint8), bits, draws)


def _as_bytes(words: Words, first: int, count: int, step: int = 1) -> Bytes:
    """Bytes `first` to `first + count` of each word, little end first, or the other way with a step of -1."""
    import numpy as np

    raw = np.ascontiguousarray(words).view(np.uint8).reshape(-1, words.itemsize)[:, first : first + count]
    return np.ascontiguousarray(raw[:, ::step]).reshape(-1)


def _packed(plane: Bytes, bits: int, draws: bool) -> Iterator[_Stream]:
    """Bytes of one, two or four low bits of each weight, from every weight that a byte could begin with."""
    import numpy as np

    per = 8 // bits
    pieces = plane & np.uint8((1 << bits) - 1)
    above = plane >> np.uint8(bits)
    name = "1 low bit" if bits == 1 else f"{bits} low bits"
    for first in range(per):
        whole = pieces[first : first + (len(pieces) - first) // per * per].reshape(-1, per)
        for order, way in ((range(per), "low bit first"), (range(per - 1, -1, -1), "high bit first")):
            data = np.zeros(len(whole), np.uint8)
            for place, column in enumerate(order):
                data |= whole[:, column] << np.uint8(bits * place)
            ordered = draws and bits == 1 and not first
            yield _Stream(f"{name}, {way}", data, per, first, bits == 1 or draws, ordered, above)


def _smooth(words: Words, mantissa: int, row: int) -> bool:
    """Whether values follow from their neighbours, in a row or from row to row."""
    import numpy as np

    if words.itemsize == 2 and mantissa == 7:
        values = (words.astype(np.uint32) << np.uint32(16)).view(np.float32)
    else:
        values = words.view(f"f{words.itemsize}")
    with np.errstate(all="ignore"):
        values = np.clip(np.nan_to_num(values[: 1 << 16].astype(np.float64)), -1e30, 1e30)
        values = values - values.mean()
        power = float((values**2).mean())
        lags = {1, 2, row} if 2 < row < len(values) // 2 else {1, 2}
        return power > 0 and any(float((values[lag:] * values[:-lag]).mean()) > _SMOOTH * power for lag in lags)


# ---------------------------------------------------------------------------------------------------------------- tests


def _hint(test: str, stream: _Stream, start: int, end: int, nats: float) -> Hint:
    data = stream.data[start:end]
    at = stream.first + int(start * stream.per)
    return Hint(test, stream.layout, at, nats, data[:64].tobytes(), entropy(data), chi_square(data))


def _text(stream: _Stream) -> Iterator[Hint]:
    """The stretch that speaks most for a text, by the sums of log likelihood ratios."""
    import numpy as np

    score = _scores()[stream.data]
    for _ in range(4):
        sums = np.cumsum(score)
        before = sums - score
        gain = sums - np.minimum.accumulate(before)
        end = int(np.argmax(gain)) + 1 if len(gain) else 0
        nats = float(gain[end - 1]) if end else 0.0
        if nats < _FEWEST:
            return
        start = int(np.argmin(before[:end]))
        if len(np.unique(stream.data[start:end])) >= _DIVERSE:
            yield _hint("text", stream, start, end, nats)
            return
        score[start:end] = -10.0  # a pattern that repeats: look beside it


def _scores() -> NDArray[np.float64]:
    import numpy as np

    scores = np.full(256, math.log((1 - _TEXT) / (1 - _PRINTABLE)))
    scores[[9, 10, 13, *range(32, 127)]] = math.log(_TEXT / _PRINTABLE)
    return scores


def _order(stream: _Stream) -> Iterator[Hint]:
    """Windows with too many equal bytes one, two, four or eight places apart."""
    import numpy as np

    many = len(stream.data)
    for size in sorted({min(many, _WINDOW), min(many, 4 * _WINDOW)}):
        if size < _LEAST:
            return
        data = stream.data[: many // size * size].reshape(-1, size)
        cells = np.bincount((data + 256 * np.arange(len(data))[:, None]).reshape(-1), minlength=256 * len(data))
        squares = (cells.reshape(len(data), 256).astype(np.float64) ** 2).sum(1)
        for lag in _LAGS:
            equals = data[:, lag:] == data[:, :-lag]
            expected = np.maximum((size - lag) * (squares - size) / (size * (size - 1)), 1.0)
            found = np.maximum(equals.sum(1), expected)
            nats = found * np.log(found / expected) - found + expected
            yield from _strongest(stream, size, nats, equals)


def _strongest(stream: _Stream, size: int, nats: NDArray[np.float64], equals: NDArray[np.bool_]) -> Iterator[Hint]:
    """The strongest window whose evidence, the bytes in `equals`, is not that of a coarse grid."""
    import numpy as np

    for window in (int(index) for index in np.argsort(nats)[: -_TRIED - 1 : -1]):
        if nats[window] < _FEWEST:
            return
        if not _coarse(stream, window * size + np.flatnonzero(equals[window])):
            yield _hint("order", stream, window * size, (window + 1) * size, float(nats[window]))
            return


def _coarse(stream: _Stream, places: Places) -> bool:
    """Whether the weights of these bytes lie on a coarse grid, as drawn ones do: the bits above are zero too often."""
    import numpy as np

    if stream.above is None or not len(places):
        return False
    per = int(stream.per)
    bits = stream.above[(places[:, None] * per + np.arange(per)).reshape(-1)] & np.uint8(1)
    return bool(bits.mean() < 0.5 - 0.5 / math.sqrt(len(bits)))


def _zeros(stream: _Stream) -> Iterator[Hint]:
    """Windows whose low bytes are zero beside windows where hardly any is."""
    import numpy as np

    count = len(stream.data) // _WINDOW
    if stream.layout != "8 low bits" or count < 4:
        return
    share = (stream.data[: count * _WINDOW].reshape(count, _WINDOW) == 0).mean(1)
    if share.max() >= 0.98 and np.median(share) <= 0.05:  # the chance of it is far below the smallest double
        best = int(np.argmax(share))
        if not _coarse(stream, best * _WINDOW + np.arange(_WINDOW)):
            yield _hint("zeros", stream, best * _WINDOW, (best + 1) * _WINDOW, 700.0)


def _magic(stream: _Stream) -> Iterator[Hint]:
    data = stream.data.tobytes()
    for literal, before, whole in _magics():
        at = data.find(literal)
        while at >= 0:
            if whole.match(data, max(0, at - before)):
                bits = 43 if literal in _SHORT else 52
                yield _hint("magic", stream, at, min(len(data), at + _WINDOW), bits * math.log(2))
                return
            at = data.find(literal, at + 1)


@cache
def _magics() -> tuple[tuple[bytes, int, re.Pattern[bytes]], ...]:
    """What is tried where a literal is found: `(literal, bytes of the whole before it, the whole)`."""
    return tuple(
        (literal, before, re.compile(whole))
        for literal, before, whole in (
            (b"\x7fELF", 0, rb"\x7fELF[\x01\x02][\x01\x02]\x01[\0-\x12][\0-\5]\0{7}"),
            (b"This program", 0, rb"This program cannot be run in DOS"),
            (b"\xcf\xfa\xed\xfe", 0, rb"\xcf\xfa\xed\xfe[\x07\x0c]\0\0\x01[\0-\xff]{3}\0[\x01-\x0c]\0\0\0"),
            (b"\0asm", 0, rb"\0asm\x01\0\0\0"),
            (b"dex\n", 0, rb"dex\n03[5-9]\0"),
            (b"\xca\xfe\xba\xbe", 0, rb"\xca\xfe\xba\xbe\0[\0-\3]\0[\x2d-\x50]\0"),
            (b"\r\r\n", 1, rb"[\x80-\xff]\r\r\n[\0-\3]\0\0\0[\0-\xff]{8}\xe3\0\0\0\0"),
            (
                b"PK\3\4", 0, rb"PK\x03\x04[\n\x14\x2d]\0[\0-\xff][\0\x08][\0\x08]\0"
                rb"[\0-\xff]{16}[\x01-\xff]\0[\0-\xff]\0[ -~]{2}",
            ),
            (b"\xfd7zXZ", 0, rb"\xfd7zXZ\0\0[\0\x01\x04\n]"),
            (b"7z\xbc\xaf", 0, rb"7z\xbc\xaf\x27\x1c\0[\2-\4]"),
            (b"BZh", 0, rb"BZh[1-9]1AY&SY"),
            (b"Rar!", 0, rb"Rar!\x1a\x07[\0\x01]"),
            (b"\x1f\x8b\x08", 0, rb"\x1f\x8b\x08[\0\x08][\0-\xff]{4}[\0\2\4][\0\3\xff]"),
            (b"ustar", 0, rb"ustar(?:\x0000|  \0)"),
            (b"\x80\4\x95", 0, rb"\x80\x04\x95[\0-\xff]{3}[\0-\3]\0{4}[\x8c\x8d\x8f(){}\]cKMJGXCB][\x01-\xff]"),
            (b"\x80\5\x95", 0, rb"\x80\x05\x95[\0-\xff]{3}[\0-\3]\0{4}[\x8c\x8d\x8f(){}\]cKMJGXCB][\x01-\xff]"),
            (b"\x80\2", 0, rb"\x80\x02[\0-\xff]{0,4}?c[a-z_][\w.]{1,40}\n[A-Za-z_][\w.]{1,40}\n"),
            (b"\x80\3", 0, rb"\x80\x03[\0-\xff]{0,4}?c[a-z_][\w.]{1,40}\n[A-Za-z_][\w.]{1,40}\n"),
            *((b"c%b\n" % name, 0, rb"\w+\n\w{3,20}\n[()SVXUq\x8c\x94]") for name in (
                b"os", b"nt", b"posix", b"builtins", b"__builtin__", b"subprocess", b"runpy", b"importlib")),
            (b"bin/", 7, rb"[\0-\xff]{0,4}#! ?/(?:usr/)?bin/\w\w"),
            (b"-----BEGIN", 0, rb"-----BEGIN [A-Z]{3}"),
            (b"%PDF-1", 0, rb"%PDF-1\.\d"),
        )
    )  # fmt: skip
