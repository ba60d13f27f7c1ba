"""What came of a plug-in: one type for audit, guard and monitor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from casemate.core.evidence import Evidence

__all__ = ["Clean", "Failed", "Finding", "Inconclusive", "Outcome", "Severity", "SkipReason", "Skipped", "Threat"]


class Severity(StrEnum):
    """How bad a finding is."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for none to 4 for critical."""
        return list(Severity).index(self)


class SkipReason(StrEnum):
    """Why something was not tested."""

    NOT_APPLICABLE = "not_applicable"  # never counts against a gate
    UNAVAILABLE = "unavailable"  # a library or service is missing: a gate that depends on it is undecided
    BUDGET = "budget"  # the budget ended first: likewise


@dataclass(frozen=True, slots=True)
class Threat:
    """A row of the threat catalogue with its ids in the public lists."""

    name: str
    title: str
    atlas: tuple[str, ...] = ()
    owasp_ml: tuple[str, ...] = ()
    owasp_aisvs: tuple[str, ...] = ()
    nist: tuple[str, ...] = ()
    eu_ai_act: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """A weakness that is confirmed: `severity` holds at the favourable end of the interval, `could_be` at the other."""

    plugin: str
    about: str
    title: str
    severity: Severity
    could_be: Severity
    fingerprint: str
    evidence: tuple[Evidence, ...]
    mend: str = ""
    outcome: Literal["finding"] = "finding"

    @property
    def id(self) -> str:
        """`room/file_name#fingerprint`."""
        return f"{self.plugin}#{self.fingerprint}"


@dataclass(frozen=True, slots=True)
class Clean:
    """Measured, and even the unfavourable end of the interval is nothing to worry about."""

    plugin: str
    about: str = ""
    evidence: tuple[Evidence, ...] = ()
    outcome: Literal["clean"] = "clean"


@dataclass(frozen=True, slots=True)
class Inconclusive:
    """Measured, but the interval spans from nothing to `could_be`; `need` says what would decide."""

    plugin: str
    about: str
    could_be: Severity
    need: str
    evidence: tuple[Evidence, ...] = ()
    outcome: Literal["inconclusive"] = "inconclusive"


@dataclass(frozen=True, slots=True)
class Skipped:
    """Not tested, for a reason."""

    plugin: str
    reason: SkipReason
    detail: str
    about: str = ""
    evidence: tuple[Evidence, ...] = ()
    outcome: Literal["skipped"] = "skipped"


@dataclass(frozen=True, slots=True)
class Failed:
    """The plug-in broke: an error, or a law of the harness."""

    plugin: str
    error: str
    cause: str = "error"  # `error`, `law` (of the harness), `contradiction` (of an attack and a certificate)
    about: str = ""
    evidence: tuple[Evidence, ...] = ()
    outcome: Literal["failed"] = "failed"


Outcome = Finding | Clean | Inconclusive | Skipped | Failed
