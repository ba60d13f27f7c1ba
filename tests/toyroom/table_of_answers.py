"""A resource, and a probe that uses it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Facet
from casemate.core.lab import Lab, Stored
from casemate.core.plugin import probe, resource
from toyroom import THREAT

SHARE = Metric("toyroom.share", Quantity.NOTE, Direction.EXACT)


@resource(threat=THREAT, source="by hand", needs={Facet.LABELS, Facet.TEST})
def table_of_answers(case: Case, lab: Lab) -> Stored:
    """The model's answers on the test data."""
    return {"labels": case.the_model().labels(case.data("test").x), "luck": lab.rng("luck").random()}


@probe(threat=THREAT, source="by hand", needs={Facet.LABELS, Facet.TEST}, metrics=(SHARE,))
def share_of_class_one(case: Case, lab: Lab) -> Iterator[Evidence]:
    """How often the model answers with class 1."""
    answers = lab.get("toyroom/table_of_answers", case)
    value = float(np.mean(np.asarray(answers["labels"]) == 1))
    yield SHARE.measured(value, method="count", n=len(answers["labels"]), at={"luck": float(answers["luck"])})
