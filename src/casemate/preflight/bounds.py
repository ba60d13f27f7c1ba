"""Data that break the schema, and bounds that the data do not use."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import DataKind, Facet
from casemate.core.lab import Lab
from casemate.core.plugin import probe
from casemate.preflight import THREAT

__all__ = ["check_bounds"]

BROKEN = Metric(
    "preflight.schema_broken",
    Quantity.DEFECT_SHARE,
    Direction.EXACT,
    says="rows break the declared schema",
    mend="mend the rows, or declare the bounds and kinds that they really have (divide images by 255 or set [0, 255])",
)
UNUSED = Metric(
    "preflight.bounds_unused",
    Quantity.DEFECT,
    Direction.EXACT,
    says="the images use a sliver of their declared bounds: any eps means something else than it seems",
    mend="declare the bounds that the images really have, [0, 1] for images that were divided by 255",
)
UNBOUNDED = Metric("preflight.unbounded", Quantity.NOTE, Direction.EXACT, unit="features")
_SLIVER = 0.05


@probe(
    threat=THREAT,
    source="Carlini et al., On evaluating adversarial robustness, arXiv:1902.06705v1 (domain of inputs)",
    needs={Facet.TEST},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    metrics=(BROKEN, UNUSED, UNBOUNDED),
)
def check_bounds(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Hold every split to its schema: bounds, finiteness, whole numbers, categories, one-hot blocks and relations.

    Share of rows that break each rule, over all rows; 1 when images span less than a twentieth of their declared
    bounds. Exact.
    """
    del lab
    for part, data in case.splits.parts().items():
        problems = data.schema.problems(data.x)
        if not problems:
            yield BROKEN.measured(0, method="every rule holds", about=part, n=len(data))
        for rule, mask in sorted(problems.items()):
            span = f"values from {np.nanmin(data.x):.4g} to {np.nanmax(data.x):.4g}"
            method = f"{rule}: {mask.sum()} of {len(data)} rows; {span}"
            yield BROKEN.measured(mask.mean(), method=method, about=f"{part}: {rule}", n=len(data))
    data = case.data("test")
    free = [f.name for f in data.schema.features if not np.isfinite([f.lo, f.hi]).all() and not f.categories]
    if free:
        yield UNBOUNDED.measured(len(free), method=f"no bounds declared: {', '.join(free[:8])}")
    elif data.schema.kind is DataKind.IMAGE:
        lo, hi = data.schema.features[0].lo, data.schema.features[0].hi
        used = float(np.ptp(data.x)) / (hi - lo) if hi > lo else 1.0
        method = f"values from {data.x.min():.4g} to {data.x.max():.4g} in [{lo:g}, {hi:g}]"
        yield UNUSED.measured(int(used < _SLIVER), method=method, n=len(data))
