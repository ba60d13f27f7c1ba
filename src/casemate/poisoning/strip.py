"""STRIP: a trigger still wins when the input is overlaid with others, and its entropy betrays it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.facets import DataKind, Facet, Phase, Profile, Scope
from casemate.core.lab import Lab
from casemate.core.options import Count, OpenShare
from casemate.core.plugin import guard
from casemate.core.records import Calibration, Decision, Request, Verdict
from casemate.core.stats import clopper_pearson
from casemate.engine.guarded import Ask
from casemate.errors import DataError, Unavailable
from casemate.poisoning import THREAT

__all__ = ["StripOptions", "calibrate_strip", "refuse_triggered", "strip_scores"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
_ID = "poisoning/strip"
_PARTS = ("reference", "tune", "train")


@dataclass(frozen=True, slots=True)
class StripOptions:
    """`overlays`: reference samples laid over each input; `fpr`: declared share of clean inputs refused.

    `samples`: most clean rows used, two thirds for the threshold and one third to measure what it does. `step`:
    overlays asked between two looks at the bound.
    """

    overlays: Count = 32
    fpr: OpenShare = 0.01
    samples: Count = 1500
    step: Count = 4


def calibrate_strip(case: Case, lab: Lab) -> Calibration:
    """Choose overlays and threshold on clean data, and measure the false-alarm rate on rows that had no part in it.

    Rows come from `reference`, `tune` or `train`, the first that is there, and fall into three parts at random. The
    threshold is the floor(fpr (m + 1))-th smallest of m clean entropies, below which a fresh clean input falls with
    probability at most `fpr` (exchangeability; Vovk et al. 2005). Training rows flatter it: their entropy is lower
    than that of fresh data, so it then errs towards missing triggers. Raises `Unavailable` without clean data,
    `DataError` for too little of it or images without bounds.
    """
    options: StripOptions = lab.options
    data = next((case.splits.parts()[part] for part in _PARTS if part in case.splits.parts()), None)
    if data is None:
        raise Unavailable("expected clean data to calibrate on, got none: name a reference, tune or train file")
    rows = lab.rng("rows").permutation(len(data))[: options.overlays + options.samples]
    overlays, clean = data.x[rows[: options.overlays]], data.x[rows[options.overlays :]]
    held_out = len(clean) // 3
    rank = math.floor(options.fpr * (len(clean) - held_out + 1) + 1e-9)
    if rank < 1 or held_out < 1:
        least = options.overlays + math.ceil(1.5 / options.fpr) + 1
        raise DataError(f"expected at least {least} clean rows for an fpr of {options.fpr}, got {len(data)}: add rows")
    lo, hi = _bounds(data)
    arrays, numbers = {"overlays": overlays}, {"lo": lo, "hi": hi, "step": float(options.step)}
    asking = case.the_model().ask
    scores, _ = strip_scores(clean, arrays, numbers, asking, threshold=math.inf)
    threshold = float(np.sort(scores[held_out:])[rank - 1])
    found = clopper_pearson(int((scores[:held_out] < threshold).sum()), held_out)
    bundle = "" if case.bundle is None else case.bundle.digest
    numbers["threshold"] = threshold
    return Calibration(_ID, bundle, options.fpr, found.value, found.low, found.high, held_out, numbers, arrays)


@guard(
    threat=THREAT,
    source="Gao et al., STRIP: a defence against trojan attacks on deep neural networks, ACSAC 2019",
    needs={Facet.SCORES},
    kinds={DataKind.IMAGE},
    options=StripOptions,
    profiles={Profile.QUICK: {"samples": 600}, Profile.FULL: {"overlays": 100, "samples": 6000}},
    phase=Phase.ADMIT,
    scope=Scope.NONE,
    calibrate=calibrate_strip,
)
def refuse_triggered(event: Request, state: None, calibration: Calibration, ask: Ask) -> tuple[None, Verdict]:
    """Refuse inputs whose prediction hardly changes whatever is laid over them.

    Score `(n,)`, in bits: the mean over k overlays r of the entropy H(p(clip(x + r))); low is suspicious. An input is
    let through as soon as its score can no longer fall below the threshold, whatever the overlays that are left would
    say; its score is then that lower bound. The attacker must have planted a trigger that wins over content; one that
    depends on the source class, or that was trained against STRIP, is missed: errs low. Images only: the same with
    features of a table replaced (entropy of the mean prediction) found none of the triggers tried on forests.
    """
    threshold = calibration.numbers["threshold"]
    score, _ = strip_scores(event.x, calibration.arrays, calibration.numbers, ask, threshold=threshold)
    refused = score < threshold
    decision = Decision.REFUSE if refused.any() else Decision.ALLOW
    reason = (
        f"{refused.sum()} of {len(score)} inputs keep their prediction under every overlay" if refused.any() else ""
    )
    return state, Verdict(_ID, decision, score, refused, threshold, reason)


def strip_scores(
    x: Array, arrays: Mapping[str, Array], numbers: Mapping[str, float], ask: Ask, *, threshold: float
) -> tuple[Floats, int]:
    """STRIP's score of `x (n, c, h, w)` in bits, `(n,)`, and how many overlaid samples were asked of the model.

    Scores below `threshold` are complete; above, they may be lower bounds at which asking stopped. `inf` completes all.
    """
    total, step, asked = len(arrays["overlays"]), max(1, int(numbers["step"])), 0
    score, open_rows = np.zeros(len(x)), np.arange(len(x))
    for start in range(0, total, step):
        if not len(open_rows):
            break
        overlays = arrays["overlays"][start : start + step]
        mixed = np.concatenate([_overlaid(x[open_rows], over, numbers) for over in overlays])
        p = np.asarray(ask(Facet.SCORES, mixed), dtype=np.float64).reshape(len(overlays), len(open_rows), -1)
        asked += len(mixed)
        # No entropy is negative, so what is summed up to here is the least that the mean can come to.
        score[open_rows] += _entropy(p).sum(axis=0) / total
        open_rows = open_rows[score[open_rows] < threshold]
    return score, asked


def _bounds(data: Data) -> tuple[float, float]:
    lo, hi = data.schema.features[0].lo, data.schema.features[0].hi
    if not (math.isfinite(lo) and math.isfinite(hi)):
        raise DataError(f"expected images with bounds, got [{lo}, {hi}]: declare the bounds of a pixel")
    return lo, hi


def _overlaid(x: Array, over: Array, numbers: Mapping[str, float]) -> Array:
    # Intensities add up, as in the paper, counted from the lower bound; averaging instead would halve the trigger.
    lo, hi = numbers["lo"], numbers["hi"]
    return np.asarray(np.clip(x + (over - x.dtype.type(lo)), lo, hi), dtype=x.dtype)


def _entropy(p: Floats) -> Floats:
    safe = np.where(p > 0, p, 1.0)
    return np.asarray(-(safe * np.log2(safe)).sum(axis=-1))
