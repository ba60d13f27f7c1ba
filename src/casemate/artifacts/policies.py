"""Whether an audit under one policy counts under another: where the first lets pass what the second would not."""

from __future__ import annotations

import datetime as dt

from casemate.core.outcome import Severity
from casemate.core.policy import Accepted, Gate, Policy

__all__ = ["weaknesses"]


def weaknesses(attested: Policy, demanded: Policy, today: dt.date) -> tuple[str, ...]:
    """In words, each place where `attested` allows what `demanded` does not; empty if it is as strict or stricter.

    Gate by gate: each one demanded needs one at the same place with a bar as high; a gate over more places is none,
    for it passes on what was measured elsewhere. Severities fail from `fail_on` on, so a lower one is stricter.
    Each acceptance needs one that is demanded, of the same finding or its whole plug-in, valid today and as long.
    Errs on the strict side: two gates are never added up to one.
    """
    found = []
    if _bar(attested.fail_on) > _bar(demanded.fail_on):
        found.append(f"fails from {attested.fail_on} on, not from {demanded.fail_on}")
    found += [text for gate in demanded.gates for text in _missing(gate, attested.gates)]
    found += [text for item in attested.accepted for text in _unasked(item, demanded.accepted, today)]
    return tuple(found)


def _bar(fail_on: Severity) -> int:
    """Where failing begins; `none` switches it off, and so lies above everything."""
    return fail_on.rank if fail_on is not Severity.NONE else len(Severity)


def _missing(gate: Gate, attested: tuple[Gate, ...]) -> list[str]:
    place = ", ".join([gate.about, *(f"{key} = {gate.at[key]}" for key in sorted(gate.at))]).strip(", ")
    name = f"{gate.metric}{f' ({place})' if place else ''}"
    same = [other for other in attested if _same_place(gate, other)]
    if not same:
        return [f"has no gate on {name}"]
    found = []
    if gate.min is not None and not any(other.min is not None and other.min >= gate.min for other in same):
        found.append(f"asks less than {gate.min} of {name}")
    if gate.max is not None and not any(other.max is not None and other.max <= gate.max for other in same):
        found.append(f"allows more than {gate.max} of {name}")
    return found


def _same_place(gate: Gate, other: Gate) -> bool:
    if (gate.metric, gate.about, set(gate.at)) != (other.metric, other.about, set(other.at)):
        return False
    return all(_same(value, other.at[key]) for key, value in gate.at.items())


def _same(a: object, b: object) -> bool:
    # as the judgement compares them: a whole number that went through JSON is the number it was
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= 1e-9 * max(abs(a), abs(b))
    return a == b


def _unasked(item: Accepted, demanded: tuple[Accepted, ...], today: dt.date) -> list[str]:
    names = {item.finding, item.finding.partition("#")[0]}
    if any(other.finding in names and other.until >= max(item.until, today) for other in demanded):
        return []
    return [f"accepts {item.finding} until {item.until}"]
