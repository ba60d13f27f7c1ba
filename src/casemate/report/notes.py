"""Sentences that belong to a whole report: what its budget and its samples mean for it."""

from __future__ import annotations

from collections.abc import Iterable

from casemate.core.budget import Budget
from casemate.core.planner import Step

__all__ = ["notes_of"]


def notes_of(budget: Budget, steps: Iterable[Step], rows: int) -> tuple[str, ...]:
    """The notes of an audit with this budget and plan on `rows` test rows."""
    notes = []
    if budget.seconds is not None:
        notes.append("The budget was given in seconds: the evidence is valid, and another run may differ from it.")
    limits = {
        s.plugin.id: getattr(s.options, "samples", getattr(s.options, "rows", rows)) for s in steps if not s.skipped
    }
    part = [f"{name} {limit:,}" for name, limit in limits.items() if isinstance(limit, int) and limit < rows]
    if part:
        notes.append(f"Of {rows:,} test rows these looked at a sample of at most so many: {', '.join(part)}.")
    return tuple(notes)
