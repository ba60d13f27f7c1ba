"""Adversarial patches: one printed square that makes the model wrong wherever it lies in the picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.evidence import Direction, Evidence, Metric, Quantity, Scalar
from casemate.core.exhibit import MOST
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.model import Task
from casemate.core.options import Count, Natural, OpenShare, Within
from casemate.core.plugin import probe
from casemate.core.rng import uniforms
from casemate.core.schema import FeatureKind, Schema
from casemate.engine.prepared import prepare
from casemate.errors import ConfigError
from casemate.evasion import THREAT
from casemate.evasion._broken import before_after
from casemate.evasion._one_for_all import (
    NOTHING_RIGHT,
    answered,
    fitted_change,
    fooled_rows,
    pixel_range,
    rows_apart,
    staying,
)

__all__ = ["PatchOptions", "cover_with_patch"]

Array = NDArray[Any]

_STEP = 0.1  # of the range of a pixel, the first step; they shrink to nothing along a cosine

KEPT = Metric(
    "evasion.patch_kept",
    Quantity.ROBUSTNESS,
    Direction.TOO_HIGH,
    says="one printed square, laid anywhere in the picture, makes the model answer wrongly",
    mend="train on pictures with such squares pasted in, decide by a vote over views that each leave a part out, or "
    "refuse pictures with a strange square",
)
GREY = Metric("evasion.patch_grey_kept", Quantity.NOTE, Direction.EXACT)
NOISE = Metric("evasion.patch_noise_kept", Quantity.NOTE, Direction.EXACT)


@dataclass(frozen=True, slots=True)
class PatchOptions:
    """`shares` of the picture that a square covers, `samples` on either side; how hard to try.

    `steps` of the whole ascent for each share; short ones away from the true classes and towards each of `targets`
    others come before it.
    """

    shares: OpenShare | tuple[OpenShare, ...] = (0.02, 0.05, 0.1)
    samples: Annotated[int, Within(least=20)] = 1000
    steps: Count = 400
    targets: Natural = 10


def _replayed(case: Case, arrays: Mapping[str, Stored], lab: Lab) -> Iterator[Evidence]:
    """The same evidence: the kept patch is laid on the same places again, and the model asked again."""
    for name in sorted(arrays):
        yield from _measured(_judged(case, arrays[name], lab), name, lab)


@probe(
    threat=THREAT,
    source="Brown et al., Adversarial patch, NeurIPS 2017 workshop, section 2; intervals: Clopper-Pearson",
    needs={Facet.GRADIENTS, Facet.LABELS, Facet.TEST},
    kinds={DataKind.IMAGE},
    cost=Cost.MODERATE,
    metrics=(KEPT, GREY, NOISE),
    options=PatchOptions,
    profiles={
        Profile.QUICK: {"samples": 256, "steps": 80, "targets": 4},
        Profile.FULL: {"samples": 4000, "steps": 1500, "targets": 30},
    },
    replay=_replayed,
    requires=("torch",),
)
def cover_with_patch(case: Case, lab: Lab) -> Generator[Evidence, None, str | None]:
    """How many answers survive a square patch at a random place, the same patch for every picture.

    The patch replaces a square of about `share` of the pixels (and every channel) by values within the bounds. As in
    the paper it is optimised over random pictures and random places; not turned or scaled, so this says nothing of a
    printed one seen from aside. The loss is the mean of min(cross-entropy, 9) of the true class, or as in the paper
    minus the cross-entropy of one class for all, whichever fools more of the fitting rows (ours); the steps are signs
    with momentum (ours). Measured on rows that it was not fitted on, each at one new random place: of those right as
    they are, the share that stays right; as controls the same with a grey square and with one of random values, at the
    same places. Fitted on the tune rows where there are labelled ones, else on half of the test rows, chosen by sample
    id. The attacker knows the weights. A refusal is not wrong. Errs too high: another patch or place may fool more.

    Raises `ConfigError` for a share that does not fit, `Unavailable` for too few rows, `BudgetExhausted`.
    """
    if case.the_model().task is Task.REGRESSION or not case.data("test").schema.scale.any():
        return None
    options: PatchOptions = lab.options
    sides = _sides(options, case.data("test").schema)
    apart = rows_apart(case, lab, options.samples)
    if apart is None:
        return NOTHING_RIGHT
    fit, unseen, source = apart
    ready = prepare(case.the_model(), fit.x, lab.meter, seed=lab.seed_for("draws"))
    low, high = pixel_range(fit)
    for place, (share, side) in enumerate(sides.items()):
        put, move = partial(_put, seed=lab.seed), partial(_moved, low=low, high=high)
        rng = lab.rng(f"patch {side}")
        start = rng.uniform(low, high, size=(fit.schema.shape[0], side, side))
        hard: dict[str, Any] = {"steps": options.steps, "targets": options.targets}
        patch = _lawful(fitted_change(ready, fit, [start], put=put, move=move, rng=rng, **hard), fit.schema)
        asked = {"sample_id": unseen.sample_id, "patch": patch, "share": share, "low": low, "high": high}
        kept = _judged(case, {**asked, "fitted": len(fit), "source": source}, lab)
        yield from _measured(kept, f"patch-{place}", lab)
        _show(case, kept, place, lab)
    return None


def _sides(options: PatchOptions, schema: Schema) -> dict[float, int]:
    """The side in pixels of the square for each share, the smaller first; shares with one and the same are one."""
    if options.steps < 1:
        raise ConfigError(f"expected steps >= 1 for evasion/patch, got {options.steps}: ask for more")
    shares = sorted({float(share) for share in np.atleast_1d(options.shares)})
    if not shares or not all(0 < share < 1 for share in shares):
        raise ConfigError(f"expected shares of the picture in (0, 1), got {options.shares}: mend shares")
    _, height, width = schema.shape
    sides: dict[int, float] = {}
    for share in shares:
        sides.setdefault(min(max(round(math.sqrt(share * height * width)), 1), height, width), share)
    return {share: side for side, share in sides.items()}


def _put(patch: Array, x: Array, sample_id: Array, turn: int, *, seed: int) -> tuple[Array, Callable[[Array], Array]]:
    """The pictures with the patch, each at the place of its id in this turn; and the mean gradient under it."""
    window = _windows(x.shape, patch.shape[-1], sample_id, turn, seed)
    points = np.array(x)
    points[window] = patch
    return points, lambda slope: slope[window].mean(axis=0)


def _windows(shape: tuple[int, ...], side: int, sample_id: Array, turn: int, seed: int) -> tuple[Array, ...]:
    """Index arrays of a square in every channel of each picture `(n, c, h, w)`, at random places."""
    n, channels, height, width = shape
    draw = uniforms(seed, ("patch place", turn), sample_id, 2)
    along = np.arange(side)
    top = (draw[:, 0] * (height - side + 1)).astype(np.int64)[:, None] + along
    left = (draw[:, 1] * (width - side + 1)).astype(np.int64)[:, None] + along
    pictures, planes = np.arange(n)[:, None, None, None], np.arange(channels)[None, :, None, None]
    return pictures, planes, top[:, None, :, None], left[:, None, None, :]


def _moved(patch: Array, direction: Array, rate: float, *, low: float, high: float) -> Array:
    return np.clip(patch + _STEP * rate * (high - low) * np.sign(direction), low, high)


def _lawful(patch: Array, schema: Schema) -> Array:
    return patch if schema.features[0].kind is FeatureKind.NUMERIC else np.rint(patch)


def _judged(case: Case, kept: Stored, lab: Lab) -> dict[str, Any]:
    """What the model as the user gave it says of the pictures as they are, with the patch, a grey and a random one."""
    patch, low, high = np.asarray(kept["patch"]), float(kept["low"]), float(kept["high"])

    def views(part: Data) -> dict[str, Array]:
        noise = low + (high - low) * uniforms(lab.seed, "patch noise", part.sample_id, patch.shape)
        grey = np.full_like(patch, (low + high) / 2)
        covers = {"patched": patch, "grey": _lawful(grey, part.schema), "noise": _lawful(noise, part.schema)}
        return {name: _covered(part, cover, lab) for name, cover in covers.items()}

    return answered(case, kept, views)


def _covered(part: Data, cover: Array, lab: Lab) -> Array:
    """The pictures with a square at the places to measure at, which no turn of the ascent has seen."""
    x = np.array(part.x)
    x[_windows(x.shape, cover.shape[-1], part.sample_id, -1, lab.seed)] = cover
    return x


def _measured(kept: Stored, name: str, lab: Lab) -> Iterator[Evidence]:
    digest = lab.keep(name, kept)
    y, side = np.asarray(kept["y"]), np.asarray(kept["patch"]).shape[-1]
    if not (np.asarray(kept["clean"]) == y).any():
        return
    common: dict[str, Any] = {
        "at": dict[str, Scalar](share=float(kept["share"])),
        "files": (digest,) if digest else (),
        "method": f"{len(y):,} test rows, a square of {side} x {side} pixels fitted on {int(kept['fitted']):,} "
        f"{kept['source']}; of those answered rightly",
    }
    for metric, cover in ((KEPT, "patched"), (GREY, "grey"), (NOISE, "noise")):
        yield metric.measured(staying(kept, cover), **common)


def _show(case: Case, kept: Stored, place: int, lab: Lab) -> None:
    """Some rows that the patch fools."""
    data, chosen = case.data("test"), fooled_rows(kept, "patched", MOST)
    if not len(chosen):
        return
    part = data.take(data.places(np.asarray(kept["sample_id"])[chosen]))
    after = _covered(part, np.asarray(kept["patch"]), lab)
    was, now = (np.asarray(kept[name])[chosen] for name in ("y", "patched"))
    caption = f"one patch for all, {float(kept['share']):.0%} of the picture, at random places: rows that it fools"
    lab.show(f"patch-{place}", before_after(case, part.x, after, was=was, now=now, about="", caption=caption))
