"""Weights that are not what weights are: no numbers, absurd numbers, bytes hidden in low bits, tensors out of place.

`weigh` reads one tensor in blocks and keeps a few figures; `weight_signs` judges all tensors of a file together, since
a model has thousands of them and each is a chance of a false alarm. Off by default: it reads every byte.

What it cannot see: payloads that look like noise (encrypted, or compressed without their magic), spread with an
error-correcting code, cut over many small tensors, or in weights that repeat or follow from each other; see
`low_bits`. Copies of a tensor are common (tied weights, averaged and target networks), so only many copies that fill a
file are told.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from casemate.formats.scanning.limits import Meter
from casemate.formats.scanning.low_bits import Hint, hints_of
from casemate.formats.scanning.signs import Certainty, Level, Place, Sign
from casemate.formats.scanning.source import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Words = NDArray[np.unsignedinteger]

__all__ = ["FALSE_ALARMS", "KINDS", "Stored", "Weighed", "weigh", "weight_signs"]

FALSE_ALARMS: Final = 1e-4
"""Chance that hidden data are told of a file that has none, where the null models of `low_bits` hold."""
_SURE: Final = 1e-9  # chance, below which they are told as likely
_BLOCK: Final = 1 << 18  # elements
_OVERLAP: Final = 1 << 10  # elements that two blocks share, so that no magic is cut in two
_FLOATS: Final = {"F64": (8, 52), "F32": (4, 23), "F16": (2, 10), "BF16": (2, 7)}  # bytes, bits of the mantissa
_SIZES: Final = {"I8": 1, "U8": 1, "BOOL": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8}
KINDS: Final[Mapping[str, str]] = {
    **{name: name for name in (*_FLOATS, *_SIZES)},
    "f8": "F64", "f4": "F32", "f2": "F16", "c16": "F64", "c8": "F32", "i1": "I8", "u1": "U8", "i2": "I16", "u2": "U16",
    "i4": "I32", "u4": "U32", "i8": "I64", "u8": "U64", "b1": "BOOL", "C64": "F32",
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "F32", "ComplexDoubleStorage": "F64",
}  # fmt: skip
"""The type of a tensor's numbers by what safetensors, numpy and torch call it; a complex number is two of them."""
_HUGE: Final = 100  # binary exponent of what no weight has: 1e30
_LARGE: Final = 1 << 20  # bytes
_HASHED: Final = 1 << 16  # bytes: copies of smaller tensors are no matter
_NAMED_SO: Final = ("flat", "embed", "vocab", "token", "table", "exp_avg", "moment", "optim", "mask", "bias_table")


@dataclass(frozen=True, slots=True)
class Stored:
    """A storage of torch's: the pickle's place and the key by which that pickle asks for it."""

    pickle: tuple[str, ...]
    key: str
    place: Place
    size: int


@dataclass(slots=True)
class Weighed:
    """What is kept of one tensor: figures, no bytes.

    `huge`: different values beyond 1e30, at most three, with `times` of them; `trials`: of the tests in `hints`.
    """

    name: str
    place: Place
    kind: str
    shape: tuple[int, ...] | None
    size: int
    elements: int = 0
    nonzero: int = 0
    nans: int = 0
    infinite: int = 0
    positive: int = 0
    denormal: int = 0
    times: int = 0
    huge: set[int] = field(default_factory=set)
    hints: dict[str, Hint] = field(default_factory=dict)
    trials: int = 0
    digest: bytes = b""


def weigh(source: Source, name: str, kind: str, shape: tuple[int, ...] | None, meter: Meter) -> Weighed:
    """The figures of a tensor, read in blocks of 2^18 numbers.

    `kind`: the type as its format calls it, with `<` or `>` in front as numpy has it; numbers of a type that is not in
    `KINDS` are searched for programs, archives and texts in their bytes as they lie. `shape` is None where it is not
    known. Raises `LimitReached` when the time is up, which each byte prolongs.
    """
    import numpy as np

    known = KINDS.get(kind.lstrip("<>=|"), "")
    found = Weighed(name, source.place(), known or kind, shape, source.size)
    meter.weighed += source.size
    view = memoryview(source.data)
    width, mantissa = _FLOATS.get(known, (1, 0))
    row = shape[-1] if shape else 0
    many = source.size // width
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, many, _BLOCK):
        meter.tick()
        size = min(_BLOCK + _OVERLAP, many - start)
        order = ">" if kind.startswith(">") else "<"
        words = np.frombuffer(view, f"{order}u{width}", size, start * width).astype(f"u{width}", copy=False)
        if mantissa:
            _count(found, words[:_BLOCK], mantissa)
        hints, trials = hints_of(words, mantissa, row)
        found.trials += trials
        for hint in hints:
            _keep(found, hint, start)
        if source.size >= _HASHED:
            digest.update(words[:_BLOCK].tobytes())
    found.digest = digest.digest() if source.size >= _HASHED else b""
    return found


def _keep(found: Weighed, hint: Hint, start: int) -> None:
    old = found.hints.get(hint.test)
    if old is None or old.nats < hint.nats:
        found.hints[hint.test] = Hint(
            hint.test, hint.layout, start + hint.at, hint.nats, hint.text, hint.bits, hint.squares
        )


def _count(found: Weighed, words: Words, mantissa: int) -> None:
    import numpy as np

    def of(number: int) -> np.unsignedinteger:
        return words.dtype.type(number)

    bits = 8 * words.itemsize
    full = (1 << (bits - 1 - mantissa)) - 1
    size = words & of((1 << (bits - 1)) - 1)
    power = size >> of(mantissa)
    special = power == of(full)
    found.elements += len(words)
    found.nonzero += int(np.count_nonzero(size))
    found.denormal += int(np.count_nonzero((power == 0) & (size != 0)))
    if special.any():
        infinite = size == of(full << mantissa)
        found.infinite += int(infinite.sum())
        found.positive += int((infinite & (words == size)).sum())
        found.nans += int((special & ~infinite).sum())
    if bits - 1 - mantissa >= 8:
        high = (power >= of(full // 2 + _HUGE)) & ~special
        largest = of(((full - 1) << mantissa) | ((1 << mantissa) - (1 << max(0, mantissa - 7))))
        high &= size < largest  # the largest number of a type stands for minus infinity in masks
        if high.any():
            found.times += int(high.sum())
            found.huge.update(int(value) for value in np.unique(size[high])[:3])


# -------------------------------------------------------------------------------------------------------------- verdict


def weight_signs(
    tensors: Sequence[Weighed], stored: Sequence[Stored], asked: Mapping[tuple[str, ...], frozenset[str]]
) -> Iterator[Sign]:
    """What stands out among all tensors of a file.

    `stored`: storages of torch's; `asked`: the keys that each pickle asks for, by the pickle's place.
    """
    trials = sum(tensor.trials for tensor in tensors)
    for tensor in tensors:
        yield from _numbers(tensor)
        yield from _hidden(tensor, trials)
    yield from _out_of_place(tensors)
    for storage in stored:
        if storage.pickle in asked and storage.key not in asked[storage.pickle]:
            what = f"a storage of {storage.size:,} bytes that the pickle beside it never asks for"
            why = "nothing loads it with the model: it is there for somebody else"
            yield _sign("unused", what, why, storage.place, "save the model anew", certainty=Certainty.POSSIBLE)


def _sign(rule: str, what: str, why: str, place: Place, mend: str, *, certainty: Certainty = Certainty.CERTAIN) -> Sign:
    return Sign(Level.SUSPICIOUS, f"weights/{rule}", what, place, why, mend, certainty)


def _numbers(tensor: Weighed) -> Iterator[Sign]:
    """NaN, infinity, denormals and absurd numbers, without what masks and running bests hold."""
    who, mend = f"{tensor.name!r:.80}", "take an earlier checkpoint, or train anew from there"
    if tensor.nans:
        what = f"{tensor.nans:,} of {tensor.elements:,} numbers of {who} are NaN"
        yield _sign("nan", what, "every output that they touch is NaN too", tensor.place, mend)
    flat = tensor.shape is not None and len(tensor.shape) < 2
    mask = not tensor.positive and not flat and tensor.infinite > tensor.elements // 20
    if tensor.infinite and not mask and tensor.elements > 1:
        what = f"{tensor.infinite:,} of {tensor.elements:,} numbers of {who} are infinite"
        yield _sign("infinity", what, "outputs that they touch are infinite or NaN", tensor.place, mend)
    constant = len(tensor.huge) == 1 and tensor.times > 1  # fills a mask
    if tensor.huge and not constant and tensor.elements > 1:
        what = f"{tensor.times:,} of {tensor.elements:,} numbers of {who} are beyond 1e30"
        why = "no training leaves such weights: outputs overflow, or nothing else counts"
        yield _sign("scale", what, why, tensor.place, mend, certainty=Certainty.LIKELY)
    state = any(part in tensor.name.lower() for part in _NAMED_SO)
    wide = tensor.kind != "F16" and tensor.shape is not None and tensor.elements >= 1024 and not state
    if wide and tensor.denormal > 0.9 * tensor.nonzero and tensor.denormal >= 1024:
        what = f"{tensor.denormal:,} of {tensor.elements:,} numbers of {who} are denormal"
        why = "they are too small to matter, and processors work up to a hundred times slower on them"
        yield _sign("denormal", what, why, tensor.place, "set them to zero", certainty=Certainty.POSSIBLE)


_TOLD: Final = {
    "text": "a text", "order": "bytes whose order is not by chance", "zeros": "a stretch of zeros beside other numbers",
    "magic": "the beginning of a program, an archive, a script or a pickle",
}  # fmt: skip
_HIDDEN_WHY: Final = "weights are a place to bring a payload past scanners, for some code that takes it out and runs it"
_HIDDEN_MEND: Final = "round the weights to fewer bits, which destroys it, and find out who added it"


def _hidden(tensor: Weighed, trials: int) -> Iterator[Sign]:
    """The strongest hint, where its chance over all tests of the file is small enough."""
    most = math.log(max(1, trials))
    hints = [hint for hint in tensor.hints.values() if _chance(hint, most) <= FALSE_ALARMS]
    if not hints:
        return
    best = max(hints, key=lambda hint: (hint.test == "magic", hint.test == "text", hint.nats))
    chance = _chance(best, most)
    shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in best.text[:48])
    what = (
        f"{_TOLD[best.test]} in the {best.layout} of {tensor.name!r:.80} from number {best.at:,}: {shown!r} "
        f"(entropy {best.bits:.2f} bits a byte, chi-square {best.squares:.0f}, chance "
        f"{'below 1e-30' if chance < 1e-30 else f'{chance:.0e}'})"
    )
    sure = best.test == "magic" or (best.test == "text" and chance < _SURE)
    certainty = Certainty.LIKELY if sure else Certainty.POSSIBLE
    yield _sign("hidden-data", what, _HIDDEN_WHY, tensor.place, _HIDDEN_MEND, certainty=certainty)


def _chance(hint: Hint, trials: float) -> float:
    """At most: of such a hint anywhere in the file, after `trials` (a logarithm) of them."""
    return math.exp(min(0.0, trials - hint.nats))


def _out_of_place(tensors: Sequence[Weighed]) -> Iterator[Sign]:
    """A flat tensor that is most of the file, and copies that are."""
    total = sum(tensor.size for tensor in tensors)
    if total < 2 * _LARGE or len(tensors) < 4:
        return
    for tensor in tensors:
        named = any(part in tensor.name.lower() for part in _NAMED_SO)
        flat = tensor.shape is not None and sum(size > 1 for size in tensor.shape) < 2
        if tensor.size > total / 2 and flat and not named:
            what = f"{tensor.name!r:.80}, a flat tensor with {tensor.size / total:.0%} of all bytes"
            why = "a layer's large tensors have two axes or more: something may be stored in it"
            yield _sign("oversized", what, why, tensor.place, "ask what it is for", certainty=Certainty.POSSIBLE)
    copies = Counter(tensor.digest for tensor in tensors if tensor.digest and tensor.nonzero)
    for digest, count in copies.items():
        same = [tensor for tensor in tensors if tensor.digest == digest]
        if count >= 4 and sum(tensor.size for tensor in same) > 0.75 * total:
            what = f"{count} tensors with the same numbers, {same[0].name!r:.80} among them"
            why = "copies of one layer fill the file: it is not what a training run leaves"
            yield _sign("copies", what, why, same[0].place, "ask how it was made", certainty=Certainty.POSSIBLE)
