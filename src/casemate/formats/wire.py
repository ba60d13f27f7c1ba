"""Records to JSON text and back, strictly: what is read is checked against the types of the record."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from casemate.core.outcome import Clean, Failed, Finding, Inconclusive, Outcome, Skipped
from casemate.core.records import Event
from casemate.errors import FormatError
from casemate.formats import canonical

__all__ = ["adapter", "read", "read_event", "read_outcome", "write", "write_event", "write_outcome"]


def write(value: object, kind: Any) -> bytes:
    """A record as canonical JSON."""
    return canonical.dumps(adapter(kind).dump_python(value, mode="json"))


def read(text: str | bytes, kind: Any) -> Any:
    """The record that `write` wrote; raises `FormatError` for anything that does not fit its type."""
    from pydantic import ValidationError

    data = canonical.loads(text)
    try:
        return adapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise FormatError(
            f"expected {first['msg'].lower()} at {place}, got {str(first['input'])[:80]!r}: mend it"
        ) from error


def write_outcome(outcome: Outcome) -> str:
    """An outcome as JSON text."""
    return write(outcome, _Outcome).decode()


def read_outcome(text: str) -> Outcome:
    """The outcome that was written."""
    outcome: Outcome = read(text, _Outcome)
    return outcome


def write_event(event: Event) -> str:
    """An event as JSON text."""
    return write(event, Event).decode()


def read_event(text: str) -> Event:
    """The event that was written."""
    event: Event = read(text, Event)
    return event


@cache
def adapter(kind: Any) -> Any:
    """Pydantic's adapter for a frozen record."""
    from pydantic import TypeAdapter

    return TypeAdapter(_discriminated() if kind is _Outcome else kind)


class _Outcome:
    """Stands for the union of outcomes, which pydantic tells apart by the field `outcome`."""


@cache
def _discriminated() -> Any:
    from pydantic import Field

    return Annotated[Finding | Clean | Inconclusive | Skipped | Failed, Field(discriminator="outcome")]
