"""A probe: share of wrong answers, in shards, with a little randomness and a resource."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Cost, Facet, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.plugin import probe
from casemate.core.stats import clopper_pearson
from toyroom import THREAT

RATE = Metric("toyroom.error_rate", Quantity.SUCCESS_RATE, Direction.EITHER, says="it errs", mend="train more")


@dataclass(frozen=True)
class Options:
    """How many rows make a shard."""

    shard: int = 16


def shard_job(case: Case, item: Stored, lab: Lab) -> Stored:
    rows = np.asarray(item["rows"])
    data = case.data("test")
    noise = lab.rng("noise", int(data.sample_id[rows[0]])).random()
    return {"wrong": case.the_model().labels(data.x[rows]) != data.labels[rows], "noise": noise}


def measure(arrays: dict[str, Stored], files: tuple[str, ...]) -> Iterator[Evidence]:
    wrong = np.asarray(arrays["answers"]["wrong"])
    noise = float(np.asarray(arrays["answers"]["noise"]).mean())
    yield RATE.measured(clopper_pearson(int(wrong.sum()), len(wrong)), method="count", at={"noise": noise}, files=files)


def replay(case: Case, arrays: dict[str, Stored], lab: Lab) -> Iterator[Evidence]:
    yield from measure(arrays, ())


@probe(
    threat=THREAT,
    source="by hand",
    needs={Facet.LABELS, Facet.TEST},
    cost=Cost.MODERATE,
    metrics=(RATE,),
    options=Options,
    profiles={Profile.QUICK: {"shard": 8}},
    replay=replay,
)
def rate(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Share of wrong answers."""
    n = len(case.data("test"))
    items = [{"rows": np.arange(i, min(i + lab.options.shard, n))} for i in range(0, n, lab.options.shard)]
    found = lab.map(shard_job, case, items)
    answers = {"wrong": np.concatenate([f["wrong"] for f in found]), "noise": np.array([f["noise"] for f in found])}
    yield from measure({"answers": answers}, (lab.keep("answers", answers),))
