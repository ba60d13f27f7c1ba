"""Plug-ins that break the laws; the harness has to notice each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Facet
from casemate.core.lab import Lab
from casemate.core.norms import Norm
from casemate.core.plugin import Plugin, attack, probe
from casemate.errors import BudgetExhausted
from toyroom import THREAT

RATE = Metric("cheats.rate", Quantity.SUCCESS_RATE, Direction.EITHER)
GOOD = RATE.measured(0.0, method="none", n=1)


def cheat(**declared: Any) -> Callable[[Callable[..., Any]], Plugin]:
    return probe(threat=THREAT, source="malice", needs={Facet.LABELS, Facet.TEST}, metrics=(RATE,), **declared)


@cheat()
def changes_its_input(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Writes into the test data through the array's owner."""
    x = case.data("test").x
    owner = x.base if x.base is not None else x
    owner.setflags(write=True)
    owner.reshape(-1)[0] += 1
    yield GOOD


@cheat()
def ignores_its_budget(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Goes on asking after the meter has refused."""
    for _ in range(50):
        try:
            case.the_model().labels(case.data("test").x)
        except BudgetExhausted:
            continue
    yield GOOD


@cheat()
def lies_about_its_interval(case: Case, lab: Lab) -> Iterator[Evidence]:
    """An interval without its value, forced past the constructor."""
    item = RATE.measured(0.2, method="none", n=1)
    object.__setattr__(item, "low", 0.5)
    yield item


@cheat()
def yields_no_evidence(case: Case, lab: Lab) -> Iterator[Any]:
    """Yields a bare number."""
    yield 0.5


@cheat()
def measures_what_it_did_not_declare(case: Case, lab: Lab) -> Iterator[Evidence]:
    """A metric out of nowhere."""
    yield Metric("cheats.other", Quantity.SUCCESS_RATE, Direction.EITHER).measured(0.0, method="none", n=1)


@cheat()
def names_a_file_it_did_not_keep(case: Case, lab: Lab) -> Iterator[Evidence]:
    """A digest of nothing."""
    yield RATE.measured(0.0, method="none", n=1, files=("sha256:" + "0" * 64,))


@cheat()
def raises(case: Case, lab: Lab) -> Iterator[Evidence]:
    """An ordinary bug, after some evidence."""
    yield GOOD
    raise ZeroDivisionError("by design")


CHEATS = {
    plugin.function.__name__: plugin
    for plugin in (
        changes_its_input,
        ignores_its_budget,
        lies_about_its_interval,
        yields_no_evidence,
        measures_what_it_did_not_declare,
        names_a_file_it_did_not_keep,
        raises,
    )
}


@attack(threat=THREAT, source="malice", needs={Facet.LABELS}, norms={Norm.LINF})
def far_away(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """Claims a success outside the ball."""
    yield Claim(np.arange(len(batch)), x=batch.x + 10 * goal.eps)
