"""What the store knows of runs: how many queries one has sent, so that it counts on, and whether one began."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from casemate.core.case import Case
from casemate.store import Store, open_store

__all__ = ["begun_since", "count_on", "sent_before"]


def begun_since(where: str | Path, output: Path | None, since: dt.datetime) -> bool:
    """Whether a run with this `output` folder has begun since a moment, to the second."""
    folder, second = str(output.resolve()) if output else "", since.replace(microsecond=0)
    store = open_store(where)
    try:
        return any(row.output == folder and dt.datetime.fromisoformat(row.created) >= second for row in store.runs())
    finally:
        store.close()


def sent_before(where: str | Path, resume: str, output: Path | None) -> int:
    """What the run to be resumed has sent, known before its endpoint is asked anything; 0 where there is no such run.

    `resume` is the id of a run, or `last`: before the case is there, that is the last with this `output` folder.
    """
    folder = str(output.resolve()) if output else ""
    store = open_store(where)
    try:
        runs = [row.id for row in store.runs() if row.id == resume or (resume == "last" and row.output == folder)]
        return store.queries(runs[-1]) if runs else 0
    finally:
        store.close()


def count_on(case: Case, store: Store, run: str) -> None:
    """Let the endpoint of a case, if it is one, count on from what this run has sent, and note what it sends."""
    account = getattr(case.model.estimator, "account", None) if case.model is not None else None
    if account is not None:
        account(store.queries(run), lambda queries: store.put_queries(run, queries))
