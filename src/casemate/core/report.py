"""The report: everything an audit says, without timings the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from casemate.core.budget import Spent
from casemate.core.judgement import Ruling
from casemate.core.outcome import Clean, Failed, Finding, Inconclusive, Skipped, Threat
from casemate.core.policy import Policy

__all__ = ["DataFacts", "PluginFacts", "Report", "Timings"]


@dataclass(frozen=True, slots=True)
class DataFacts:
    """One split: its digest and size; `sampled` says how many rows were looked at where not all were."""

    digest: str
    rows: int
    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class PluginFacts:
    """One plug-in of the plan: what it is, what it was asked, what it used."""

    title: str
    threat: Threat
    source: str
    options: Mapping[str, Any]
    spent: Spent


@dataclass(frozen=True, slots=True)
class Timings:
    """Everything that may differ between two runs of the same audit."""

    run: str = ""
    created: str = ""
    seconds: float = 0.0
    executor: str = ""
    plugins: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """An audit's result.

    `files` maps digests of evidence to paths beside the report; `calibrations` maps guards and watches to theirs.
    """

    name: str
    bundle: str
    model: str
    data: Mapping[str, DataFacts]
    seed: int
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    policy: Policy
    ruling: Ruling
    outcomes: tuple[Finding | Clean | Inconclusive | Skipped | Failed, ...]
    plugins: Mapping[str, PluginFacts]
    files: Mapping[str, str]
    calibrations: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    timings: Timings = field(default_factory=Timings)
    version: int = 1

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings, worst first."""
        found = [o for o in self.outcomes if isinstance(o, Finding)]
        return tuple(sorted(found, key=lambda f: (-f.severity.rank, f.id)))

    @property
    def untested(self) -> tuple[Skipped | Failed, ...]:
        """What was not tested, with the reason."""
        return tuple(o for o in self.outcomes if isinstance(o, Skipped | Failed))
