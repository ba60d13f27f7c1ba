"""The lab: everything a plug-in may use beside its case, injected by the harness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.metering import metered_case
from casemate.core.plugin import NoOptions, Plugin
from casemate.core.rng import derive_seed, stream
from casemate.errors import Unavailable

__all__ = ["Job", "Lab", "Mapper", "Stored", "nothing_kept", "one_by_one"]

Stored = Mapping[str, Any]
"""What travels between processes and into the store: names to arrays, numbers, strings and lists of these."""

Job = Callable[[Case, Stored, "Lab"], Stored]
"""A unit of work: a function at module level; `(case, item, lab) -> Stored`."""


class Mapper(Protocol):
    """Runs one job over many items, each with its own lab, in the order of the items; may use other processes."""

    def __call__(self, job: Job, case: Case, items: Sequence[Stored], lab: Lab) -> list[Stored]:
        """The results, in the order of the items."""


@dataclass(frozen=True)
class Lab:
    """What a plug-in is given: options, budget, randomness, other processes, resources and a place for its files.

    A plug-in that takes all its randomness from `rng` or `seed_for`, works on what `map` hands it and charges `meter`
    for propagations gives the same evidence in one process, in many, and after being interrupted.
    """

    plugin: str
    seed: int
    options: Any = field(default_factory=NoOptions)
    meter: Meter = field(default_factory=Meter)
    plugins: tuple[Plugin, ...] = ()
    mapper: Mapper = field(default_factory=lambda: one_by_one)
    keeper: Callable[[str, Stored], str] = field(default_factory=lambda: nothing_kept)
    getter: Callable[[str, Case], Stored] | None = None
    on_progress: Callable[[str, int, int], None] | None = None
    threads: int = 1
    sampling_seed: int | None = None

    def rows_rng(self, name: str) -> np.random.Generator:
        """A stream for choosing rows: it stays the same when a hardened model is audited with fresh attack seeds."""
        seed = self.seed if self.sampling_seed is None else self.sampling_seed
        return stream(seed, self.plugin, name)

    def rng(self, name: str, sample_id: int = 0) -> np.random.Generator:
        """A random stream keyed by the audit's seed, this plug-in, a name and a sample."""
        return stream(self.seed, self.plugin, name, int(sample_id))

    def seed_for(self, name: str) -> int:
        """63 bits for seeding a framework, keyed likewise."""
        return derive_seed(self.seed, self.plugin, name)

    def map(self, job: Job, case: Case, items: Sequence[Stored]) -> list[Stored]:
        """Run `job` on every item with an equal share of what is left of the budget; results in order."""
        return self.mapper(job, case, items, self)

    def get(self, resource: str, case: Case) -> Stored:
        """A resource by id, built at most once an audit; raises `Unavailable` outside one."""
        if self.getter is None:
            raise Unavailable(f"expected a lab that can build {resource}, got a bare one: run it through an audit")
        return self.getter(resource, case)

    def keep(self, name: str, arrays: Stored) -> str:
        """Keep per-sample results as a file of evidence; returns its digest."""
        return self.keeper(name, arrays)

    def show(self, name: str, exhibit: Stored) -> None:
        """Put an exhibit (see `core.exhibit`) beside the numbers of the report; called where evidence is measured."""
        self.keeper(f"exhibit-{name}", exhibit)

    def progress(self, done: int, total: int) -> None:
        """Tell whoever watches how far this plug-in is."""
        if self.on_progress is not None:
            self.on_progress(self.plugin, done, total)

    def portion(self, parts: int) -> Lab:
        """A lab with a meter of its own that holds one of `parts` equal shares of what is left."""
        left = self.meter.left
        share = None if left is None else left // max(parts, 1)
        return replace(self, meter=Meter(limit=share, deadline=self.meter.deadline))


def one_by_one(job: Job, case: Case, items: Sequence[Stored], lab: Lab) -> list[Stored]:
    """Run the items in this process, one after the other."""
    results = []
    labs = [lab.portion(len(items)) for _ in items]
    for position, (item, part) in enumerate(zip(items, labs, strict=True)):
        results.append(job(metered_case(case, part.meter), item, part))
        lab.meter.spent = lab.meter.spent + part.meter.spent
        lab.progress(position + 1, len(items))
    return results


def nothing_kept(name: str, arrays: Stored) -> str:
    """A keeper that keeps nothing: for use outside an audit."""
    del name, arrays
    return ""
