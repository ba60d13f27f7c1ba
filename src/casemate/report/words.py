"""The words of every report: a number with its interval, which way it errs, where it was measured, whom it concerns."""

from __future__ import annotations

from collections.abc import Mapping

from casemate.core.evidence import Direction, Evidence, Quantity
from casemate.core.judgement import Status
from casemate.core.outcome import SkipReason, Threat

__all__ = [
    "DIRECTION",
    "MEANING",
    "SKIPPED",
    "VERDICT",
    "bound",
    "interval",
    "names",
    "number",
    "place",
    "plain",
    "sentence",
    "size",
    "times",
    "told",
    "value",
]

DIRECTION: Mapping[Direction, str] = {
    Direction.EXACT: "",
    Direction.TOO_HIGH: "at most",
    Direction.TOO_LOW: "at least",
    Direction.EITHER: "about",
}
"""The word before a value: `at most` where the truth can only be lower."""

MEANING: Mapping[Direction, str] = {
    Direction.EXACT: "Apart from sampling there is no error: a count or a proof.",
    Direction.TOO_HIGH: "The truth is at most this: a stronger attacker can only lower it.",
    Direction.TOO_LOW: "The truth is at least this: a better method can only raise it.",
    Direction.EITHER: "An estimate that may err either way.",
}
"""What the direction means, in a sentence."""

VERDICT: Mapping[Status, str] = {
    Status.PASSED: "Passed: every gate holds.",
    Status.FAILED: "Failed: at least one gate does not hold.",
    Status.UNDECIDED: "Undecided: at least one gate could not be decided.",
}
"""The verdict in a sentence."""

SKIPPED: Mapping[SkipReason, str] = {
    SkipReason.NOT_APPLICABLE: "does not apply to this case",
    SkipReason.UNAVAILABLE: "something it needs is not installed",
    SkipReason.BUDGET: "the budget ended first",
}
"""Why something was not tested."""

_LISTS = (
    ("MITRE ATLAS", "atlas"),
    ("OWASP ML", "owasp_ml"),
    ("OWASP AISVS", "owasp_aisvs"),
    ("NIST", "nist"),
    ("EU AI Act", "eu_ai_act"),
)


def number(value: float) -> str:
    """Three decimals between 0.001 and 1000, whole numbers as such, everything else with three digits.

    >>> number(0.12345), number(40.0), number(3e-7)
    ('0.123', '40', '3e-07')
    """
    if value == round(value) and abs(value) < 1e15:
        return f"{value:.0f}"
    return f"{value:.3f}" if 0.001 <= abs(value) < 1000 else f"{value:.3g}"


def value(item: Evidence) -> str:
    """The value with its direction and unit: `at most 0.412`, `3 models`, `at least 0.060 (6.0 x chance)`."""
    certain = item.quantity is Quantity.NOTE and item.low == item.high
    return " ".join(word for word in ("" if certain else DIRECTION[item.errs], plain(item), times(item)) if word)


def plain(item: Evidence) -> str:
    """The value with its unit alone: `0.412`, `3 models`."""
    return _fixed(item, item.value) if item.unit == "share" else f"{_fixed(item, item.value)} {item.unit}"


def times(item: Evidence) -> str:
    """`(6.0 × chance)` for a lift whose chance level is known, else nothing."""
    return f"({item.value / item.baseline:.1f} × chance)" if item.quantity is Quantity.LIFT and item.baseline else ""


def interval(item: Evidence) -> str:
    """`[0.380, 0.445]`, or nothing for a number without sampling error."""
    return "" if item.low == item.high else f"[{_fixed(item, item.low)}, {_fixed(item, item.high)}]"


def bound(item: Evidence) -> str:
    """Value and interval: `at most 0.412 [0.380, 0.445]`."""
    return " ".join(part for part in (value(item), interval(item)) if part)


def sentence(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def told(item: Evidence) -> str:
    """Value and interval for a list, where a defect, which is there or not, is told in a word."""
    if item.quantity is Quantity.DEFECT and item.low == item.high:
        return "certain" if item.value >= 0.5 else "not there"
    return bound(item)


def size(item: Evidence) -> str:
    """`n = 1,000`, or nothing where nothing was counted."""
    return f"n = {item.n:,}" if item.n else ""


def place(item: Evidence) -> str:
    """Where it was measured: `eps = 0.1, norm = linf`."""
    return ", ".join(f"{key} = {_short(item.at[key])}" for key in sorted(item.at))


def names(threat: Threat) -> list[tuple[str, str]]:
    """The threat's ids: pairs of a public list and the ids in it, without the lists that have none."""
    pairs = [(title, ", ".join(getattr(threat, field))) for title, field in _LISTS]
    return [(title, ids) for title, ids in pairs if ids]


def _fixed(item: Evidence, x: float) -> str:
    # a share of 1 or 0 beside an interval keeps its decimals, so that columns of shares read alike
    return f"{x:.3f}" if item.unit == "share" and (x == 0 or 0.001 <= abs(x) <= 1) else number(x)


def _short(x: object) -> str:
    return f"{x:g}" if isinstance(x, float) else str(x)
