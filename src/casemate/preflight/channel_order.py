"""Images whose axes are in another order than the model was trained on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.model import Task
from casemate.core.plugin import probe
from casemate.preflight import THREAT
from casemate.preflight._common import Samples, Variant, gains

__all__ = ["check_channel_order"]

LAST = Metric(
    "preflight.channels_last",
    Quantity.DEFECT,
    Direction.EXACT,
    says="the images have their channels last where (n, c, h, w) is expected",
    mend="transpose with x.transpose(0, 3, 1, 2); do not reshape",
)
GAIN = Metric(
    "preflight.channel_order_gain",
    Quantity.RATE_GAP,
    Direction.TOO_LOW,
    says="the model is more accurate with the axes of the images in another order",
    mend="give the axes and channels in the order of training; transpose, do not reshape",
)
_CHANNELS = (1, 3, 4)


@probe(
    threat=THREAT,
    source="torch.nn.Conv2d, documentation of version 2.13: input of shape (N, C, H, W)",
    needs={Facet.TEST, Facet.LABELS},
    kinds={DataKind.IMAGE},
    metrics=(LAST, GAIN),
    options=Samples,
    profiles={Profile.STANDARD: {"samples": 1000}, Profile.FULL: {"samples": 4000}},
)
def check_channel_order(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Look for channels last, for colours in reverse, and for axes that were reshaped or swapped.

    1 when the last axis has 1, 3 or 4 entries and the first does not; and the gain in accuracy on the same rows for
    each order that fits the shape, floored at 0, with paired intervals that hold for all at once.
    """
    data = case.data("test")
    channels, height, width = data.x.shape[1:]
    wrong = channels not in _CHANNELS and width in _CHANNELS
    yield LAST.measured(int(wrong), method=f"one image is {channels} x {height} x {width} as (c, h, w)", n=len(data))
    if data.y is None or case.the_model().task is Task.REGRESSION:
        return
    variants: dict[str, Variant] = {}
    if channels == 3:
        variants["the channels are reversed"] = lambda x: np.ascontiguousarray(x[:, ::-1])
    if channels > 1:
        variants["the axes are transposed instead of reshaped"] = lambda x: np.ascontiguousarray(
            x.reshape(len(x), height, width, channels).transpose(0, 3, 1, 2)
        )
    if height == width:
        variants["rows and columns are swapped"] = lambda x: np.ascontiguousarray(x.swapaxes(2, 3))
    yield from gains(case, lab, GAIN, variants)
