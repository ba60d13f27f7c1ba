"""Sentences that belong to a whole report: what its budget and its samples mean for it."""

from __future__ import annotations

from collections.abc import Iterable

from casemate.core.budget import Budget
from casemate.core.case import Case
from casemate.core.planner import Step

__all__ = ["notes_of"]


def notes_of(budget: Budget, steps: Iterable[Step], case: Case) -> tuple[str, ...]:
    """The notes of an audit of this case with this budget and plan, when all is measured.

    A native model that has `closing` says the last ones: an endpoint tells what it was sent, and whether it changed.
    """
    rows = len(case.splits.test) if case.splits.test is not None else 0
    notes = []
    if budget.seconds is not None:
        notes.append("The budget was given in seconds: the evidence is valid, and another run may differ from it.")
    limits = {
        s.plugin.id: getattr(s.options, "samples", getattr(s.options, "rows", rows)) for s in steps if not s.skipped
    }
    part = [f"{name} {limit:,}" for name, limit in limits.items() if isinstance(limit, int) and limit < rows]
    if part:
        notes.append(f"Of {rows:,} test rows these looked at a sample of at most so many: {', '.join(part)}.")
    told = case.model.notes if case.model is not None else {}
    notes += [f"How the model was loaded: {told[key]}." for key in ("trust", "scan", "isolation") if key in told]
    closing = getattr(case.model.estimator, "closing", None) if case.model is not None else None
    return (*notes, *(closing() if closing is not None else ()))
