"""What weather, wear and typing errors do to a sample, in five strengths; nothing here looks at a model.

Every function takes samples, their ids and a severity from 1 to 5, and changes each sample with the random numbers of
its own id, whichever samples share its batch. Those numbers are the same at every severity, so that each severity is
the one before it, and more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.data import Data
from casemate.core.facets import DataKind
from casemate.core.norms import Norm
from casemate.core.rng import normals, sample_streams, signs, uniforms
from casemate.core.schema import Feature, FeatureKind, Schema
from casemate.engine.reach import reach_of
from casemate.evasion._edited import keys_beside

__all__ = ["SEVERITIES", "Corrupt", "Known", "corruptions_for", "known_of"]

Array = NDArray[Any]
Corrupt = Callable[..., Array]
"""`(x (n, ...), sample_id (n,), *, severity, seed) -> x (n, ...)`"""

SEVERITIES = (1, 2, 3, 4, 5)
"""From what nobody notices to what a person still copes with."""

_NOISE = (0.04, 0.08, 0.12, 0.16, 0.2)  # standard deviation, of the pixel range
_BLUR = (0.4, 0.8, 1.2, 1.6, 2.0)  # standard deviation, in pixels of an image 32 wide; of one under 24 as for 24
_CONTRAST = (0.75, 0.5, 0.35, 0.25, 0.15)  # what is left of the distance to the image's mean
_ROTATION = (5.0, 10.0, 15.0, 20.0, 30.0)  # degrees, to either side
_TRANSLATION = (0.03, 0.06, 0.09, 0.12, 0.15)  # of the height and width, in any direction
_JITTER = (0.05, 0.1, 0.2, 0.3, 0.5)  # standard deviation, in units of a feature's scale
_MISSING = (0.05, 0.1, 0.2, 0.3, 0.4)  # chance of each value
_TYPOS = (0.02, 0.05, 0.1, 0.15, 0.2)  # chance of each word
_SHORT = 3  # letters; shorter words are left as they are

Known = Mapping[str, Array]
"""`fill (d,)`: what stands in for a missing value of each column of a table; `span`: the range of an image's pixels."""


def corruptions_for(schema: Schema, known: Known) -> Mapping[str, Corrupt]:
    """The corruptions of this kind of data by name."""
    if schema.kind is DataKind.TEXT:
        return {"typos": _typos}
    if schema.kind is DataKind.TABLE:
        found = {"missing": partial(_missing, schema, known["fill"])}
        return found | ({"noise": partial(_jitter, schema)} if (schema.scale > 0).any() else {})
    pixel = schema.features[0]
    span = pixel.hi - pixel.lo
    if not np.isfinite(span):
        span = float(known["span"])
    makers = {
        "noise": _noise,
        "blur": _blur,
        "contrast": _contrast,
        "rotation": _rotation,
        "translation": _translation,
    }
    return {name: partial(_bounded, maker, pixel, span) for name, maker in makers.items()}


def known_of(data: Data) -> dict[str, Array]:
    """What `corruptions_for` needs to know of data, whichever samples it is given later.

    Of a table the median (or most frequent) value of each column, of images the range of their pixels.
    """
    if data.schema.kind is DataKind.IMAGE:
        return {"span": np.array(float(np.ptp(data.x)) or 1.0)}
    if data.schema.kind is DataKind.TEXT:
        return {}
    fill = np.zeros(data.x.shape[1])
    for column, feature in enumerate(data.schema.features):
        values = data.x[:, column]
        values = values[np.isfinite(values)]
        if not len(values):
            fill[column] = np.nan
        elif feature.kind is FeatureKind.NUMERIC:
            fill[column] = np.median(values)
        else:
            names, counts = np.unique(values, return_counts=True)
            fill[column] = names[counts.argmax()]
    return {"fill": fill}


def _bounded(
    maker: Callable[..., Array], pixel: Feature, span: float, x: Array, ids: Array, *, severity: int, seed: int
) -> Array:
    changed = maker(x.astype(np.float64), ids, severity - 1, seed=seed, span=span)
    return np.clip(changed, pixel.lo, pixel.hi).astype(x.dtype)


def _noise(x: Array, ids: Array, at: int, *, seed: int, span: float) -> Array:
    return np.asarray(x + _NOISE[at] * span * normals(seed, "noise", ids, x.shape[1:]))


def _blur(x: Array, ids: Array, at: int, *, seed: int, span: float) -> Array:
    from scipy.ndimage import gaussian_filter

    del ids, seed, span
    sides = [_BLUR[at] * max(side, 24) / 32 for side in x.shape[2:]]
    return np.asarray(gaussian_filter(x, sigma=(0, 0, *sides), mode="nearest"))


def _contrast(x: Array, ids: Array, at: int, *, seed: int, span: float) -> Array:
    del ids, seed, span
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    return np.asarray(mean + _CONTRAST[at] * (x - mean))


def _rotation(x: Array, ids: Array, at: int, *, seed: int, span: float) -> Array:
    from scipy.ndimage import rotate

    del span
    angles = _ROTATION[at] * signs(seed, "rotation", ids).astype(np.float64)
    turned = [
        rotate(image, angle, axes=(1, 2), reshape=False, order=1, mode="nearest")
        for image, angle in zip(x, angles, strict=True)
    ]
    return np.stack(turned)


def _translation(x: Array, ids: Array, at: int, *, seed: int, span: float) -> Array:
    from scipy.ndimage import shift

    del span
    angle = 2 * np.pi * uniforms(seed, "translation", ids)
    steps = _TRANSLATION[at] * np.stack([np.sin(angle) * x.shape[2], np.cos(angle) * x.shape[3]], axis=1)
    moved = [shift(image, (0, *step), order=1, mode="nearest") for image, step in zip(x, steps, strict=True)]
    return np.stack(moved)


def _jitter(schema: Schema, x: Array, ids: Array, *, severity: int, seed: int) -> Array:
    """Measurement noise: numbers move by a share of their scale, within their bounds; what is fixed stays.

    Two columns whose relation the noise would turn round meet instead.
    """
    step = _JITTER[severity - 1] * schema.scale * normals(seed, "jitter", ids, x.shape[1:])
    whole = np.array([feature.kind is not FeatureKind.NUMERIC for feature in schema.features])
    return reach_of(Norm.LINF, np.inf, x, schema).settle(x + np.where(whole, np.rint(step), step))


def _missing(schema: Schema, fill: Array, x: Array, ids: Array, *, severity: int, seed: int) -> Array:
    """Values that were not collected: NaN where the schema allows it, else what an imputer would put there."""
    gone = uniforms(seed, "missing", ids, x.shape[1:]) < _MISSING[severity - 1]
    free = np.array([not feature.block and not feature.immutable for feature in schema.features])
    may_miss = np.array([feature.missing_ok for feature in schema.features])
    changed = np.where(gone & free & (may_miss | np.isfinite(fill)), np.where(may_miss, np.nan, fill), x)
    # What the imputer knows of single columns can break a relation between two: these columns are not missing then.
    related = np.isin(schema.names, [name for relation in schema.relations for name in (relation.left, relation.right)])
    broken = ~schema.allowed(changed) & schema.allowed(x)
    return np.where(broken[:, None] & related, x, changed).astype(x.dtype)


def _typos(x: Array, ids: Array, *, severity: int, seed: int) -> Array:
    """One slip of the hand in some words: two letters swapped, one left out, doubled, or a key beside it."""
    found = [
        _mistyped(str(text), _TYPOS[severity - 1], rng)
        for text, rng in zip(x, sample_streams(seed, "typos", ids), strict=True)
    ]
    return np.array(found, dtype=x.dtype)


def _mistyped(text: str, chance: float, rng: np.random.Generator) -> str:
    start, out, begin = None, [], 0
    for place, letter in enumerate(text + " "):
        if letter.isalpha() and start is None:
            start = place
        elif not letter.isalpha() and start is not None:
            if place - start >= _SHORT:
                luck, *draws = rng.random(4)
                if luck < chance:
                    out += [text[begin:start], _slip(text[start:place], *draws)]
                    begin = place
            start = None
    return "".join([*out, text[begin:]])


def _slip(word: str, where: float, how: float, which: float) -> str:
    """One slip at an inner letter, by three numbers in [0, 1); the letter is left out where nothing else changes it."""
    at = 1 + int(where * (len(word) - 2))
    before, letter, after = word[:at], word[at], word[at + 1 :]
    near = keys_beside(letter) or letter
    slips = (
        before + after[0] + letter + after[1:],
        before + after,
        before + letter + letter + after,
        before + near[int(which * len(near))] + after,
    )
    slip = slips[int(how * len(slips))]
    return slip if slip != word else before + after
