"""Corruptions: how the model fares when nobody attacks and the world is merely untidy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from casemate.core.options import Count, Within
from casemate.core.plugin import probe
from casemate.core.stats import clopper_pearson
from casemate.errors import ConfigError
from casemate.evasion import THREAT
from casemate.evasion._broken import before_after
from casemate.evasion._corrupted import SEVERITIES, Corrupt, corruptions_for, known_of

__all__ = ["CorruptionOptions", "corrupt_inputs"]

Array = NDArray[Any]

_SHARD = 64  # samples a job; from nothing but the data, as in `standard`

KEPT = Metric(
    "evasion.corruption_kept",
    Quantity.ROBUSTNESS,
    Direction.EXACT,
    says="ordinary disturbances of the input make the model answer wrongly",
    mend="train with such disturbances (augmentation), collect data that has them, or refuse inputs of poor quality",
)
ACCURACY = Metric("evasion.corruption_accuracy", Quantity.NOTE, Direction.EXACT)
CLEAN = Metric("evasion.uncorrupted_accuracy", Quantity.NOTE, Direction.EXACT)


@dataclass(frozen=True, slots=True)
class CorruptionOptions:
    """`corruptions` by name (none: all of this kind of data), `severity` that is judged, `samples` of the test rows."""

    corruptions: tuple[str, ...] = ()
    severity: Annotated[int, Within(least=1, most=5)] = 3
    samples: Count = 500

    def check(self, case: Case) -> None:
        """Raise `ConfigError` for a corruption that there is not for the case's data."""
        _check(case.data("test"), self)


def _replayed(case: Case, arrays: Mapping[str, Stored], lab: Lab) -> Iterator[Evidence]:
    """The same evidence: the samples are disturbed again with the same random numbers, and the model asked again."""
    data = case.data("test")
    rows = data.places(np.asarray(arrays["answers"]["sample_id"]))
    yield from _measured(_answers(case, rows, lab), case, lab)


def _paired(arrays: Mapping[str, Stored], evidence: Evidence) -> tuple[Array, Array] | None:
    """Which samples are answered rightly when disturbed, for a paired comparison; None for the share that is kept."""
    kept = arrays["answers"]
    if evidence.metric != ACCURACY.name:
        return None
    labels = kept[f"{evidence.at['corruption']}-{evidence.at['severity']}"]
    return np.asarray(kept["sample_id"]), (np.asarray(labels) == kept["y"]).astype(np.float64)


@probe(
    threat=THREAT,
    source="severities 1 to 5 after Hendrycks and Dietterich, Benchmarking neural network robustness to common "
    "corruptions, ICLR 2019; the strengths are Casemate's, see _corrupted.py; intervals: Clopper-Pearson",
    needs={Facet.LABELS, Facet.TEST},
    kinds={DataKind.IMAGE, DataKind.TABLE, DataKind.TEXT},
    cost=Cost.MODERATE,
    metrics=(KEPT, ACCURACY, CLEAN),
    options=CorruptionOptions,
    profiles={Profile.QUICK: {"samples": 128}, Profile.FULL: {"samples": 2000}},
    replay=_replayed,
    paired=_paired,
)
def corrupt_inputs(case: Case, lab: Lab) -> Iterator[Evidence]:
    """How many answers survive noise, blur, low contrast, rotation, translation, missing values or typing errors.

    Of the sampled test rows that are answered rightly as they are, the share that still is at `severity`, with a
    Clopper-Pearson interval; and as notes the accuracy at every severity from 1 to 5, wrong rows included. There is no
    attacker: each row gets one random draw, so the number is an average case, far above what an attack leaves
    (`evasion/standard`). Fixed and one-hot columns stay as they are, and rules of the schema that held still do. A
    refusal counts as wrong.

    Raises `ConfigError` for an unknown corruption or severity.
    """
    data, options = case.data("test"), lab.options
    if case.the_model().task is Task.REGRESSION:
        return
    _check(data, options)
    rows = np.arange(len(data))
    if len(data) > options.samples:
        rows = np.sort(lab.rows_rng("rows").permutation(len(data))[: options.samples])
    yield from _measured(_answers(case, rows, lab), case, lab, show=True)


def _check(data: Data, options: CorruptionOptions) -> None:
    known = corruptions_for(data.schema, known_of(data))
    unknown = sorted(set(options.corruptions) - set(known))
    if unknown:
        raise ConfigError(f"expected corruptions among {', '.join(known)}, got {unknown[0]!r}: choose from these")
    if options.severity not in SEVERITIES:
        raise ConfigError(f"expected a severity from 1 to 5, got {options.severity}: choose one")
    if options.samples < 1:
        raise ConfigError(f"expected samples >= 1 for evasion/corruptions, got {options.samples}: ask for at least one")


def _answers(case: Case, rows: Array, lab: Lab) -> dict[str, Any]:
    """The model's labels as they are, and after each corruption at each severity, with ids and true labels."""
    fill = known_of(case.splits.train or case.data("test"))
    items = [{"rows": rows[top : top + _SHARD], **fill} for top in range(0, len(rows), _SHARD)]
    parts = lab.map(_shard, case, items)
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}


def _shard(case: Case, item: Stored, lab: Lab) -> Stored:
    data = case.data("test").take(item["rows"])
    model = case.the_model()
    found = {"sample_id": data.sample_id, "y": data.labels, "clean": model.labels(data.x)}
    for name, corrupt in _chosen(data, item, lab).items():
        for severity in SEVERITIES:
            found[f"{name}-{severity}"] = model.labels(_drawn(corrupt, data, severity, lab, name))
    return found


def _chosen(data: Data, known: Stored, lab: Lab) -> dict[str, Corrupt]:
    found = corruptions_for(data.schema, known)
    return {name: corrupt for name, corrupt in found.items() if name in (lab.options.corruptions or found)}


def _drawn(corrupt: Corrupt, data: Data, severity: int, lab: Lab, name: str) -> Array:
    return corrupt(np.array(data.x), data.sample_id, severity=severity, seed=lab.seed_for(name))


def _measured(kept: dict[str, Any], case: Case, lab: Lab, *, show: bool = False) -> Iterator[Evidence]:
    digest = lab.keep("answers", kept)
    files = (digest,) if digest else ()
    y, right = kept["y"], kept["clean"] == kept["y"]
    n = len(y)
    method = f"{n:,} of {len(case.data('test')):,} test rows, one random draw each"
    yield CLEAN.measured(clopper_pearson(int(right.sum()), n), method=method, files=files)
    data = case.data("test")
    for name in _chosen(data, known_of(case.splits.train or data), lab):
        for severity in SEVERITIES:
            hits = kept[f"{name}-{severity}"] == y
            at: dict[str, Scalar] = {"corruption": name, "severity": severity}
            yield ACCURACY.measured(clopper_pearson(int(hits.sum()), n), method=method, about=name, at=at, files=files)
            if severity == lab.options.severity and right.any():
                rate = clopper_pearson(int((hits & right).sum()), int(right.sum()))
                yield KEPT.measured(rate, method=f"{method}; of those answered rightly", about=name, at=at, files=files)
        if show:
            _show(case, kept, name, lab)


def _show(case: Case, kept: dict[str, Any], name: str, lab: Lab) -> None:
    """Some samples that were right and are not any more."""
    data, severity = case.data("test"), lab.options.severity
    labels = kept[f"{name}-{severity}"]
    lost = np.flatnonzero((kept["clean"] == kept["y"]) & (labels != kept["y"]))[:MOST]
    if not len(lost):
        return
    part = data.take(np.flatnonzero(np.isin(data.sample_id, kept["sample_id"][lost])))
    lost = np.array([int(np.flatnonzero(kept["sample_id"] == key)[0]) for key in part.sample_id])
    corrupt = _chosen(part, known_of(case.splits.train or data), lab)[name]
    changed = _drawn(corrupt, part, severity, lab, name)
    caption = f"{name} at severity {severity}"
    was, now = kept["clean"][lost], labels[lost]
    lab.show(name, before_after(case, part.x, changed, was=was, now=now, about=name, caption=caption))
