"""Budgets: a count of propagations for identical reports, or seconds for a deadline."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from casemate.core.facets import Cost
from casemate.errors import BudgetExhausted, ConfigError

__all__ = ["Budget", "Meter", "Spent", "allocate", "parse_budget"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_WEIGHT = {Cost.CHEAP: 1, Cost.MODERATE: 4, Cost.EXPENSIVE: 16}


@dataclass(frozen=True, slots=True)
class Budget:
    """How much an audit may use; `None` is without limit. A propagation is one sample through the model, either way."""

    propagations: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What was used: samples sent forward, samples sent backward."""

    forwards: int = 0
    backwards: int = 0

    @property
    def propagations(self) -> int:
        """Forwards plus backwards."""
        return self.forwards + self.backwards

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.forwards + other.forwards, self.backwards + other.backwards)


@dataclass(slots=True)
class Meter:
    """Counts what a plug-in uses and refuses what it may not.

    `charge` comes before the work: it raises `BudgetExhausted` and counts nothing when the limit would be passed.
    `refusals` counts those; a plug-in that goes on after one is caught by it.
    """

    limit: int | None = None
    deadline: float | None = None  # time.monotonic()
    spent: Spent = field(default_factory=Spent)
    refusals: int = 0

    @property
    def left(self) -> int | None:
        """Propagations left, or `None` without a limit."""
        return None if self.limit is None else max(0, self.limit - self.spent.propagations)

    def affords(self, propagations: int) -> bool:
        """Whether so many more propagations fit."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            return False
        return self.limit is None or self.spent.propagations + propagations <= self.limit

    def observe(self, forwards: int) -> None:
        """Count work of the harness itself, which no limit stops: a claim is always measured."""
        self.spent = self.spent + Spent(forwards, 0)

    def charge(self, forwards: int = 0, backwards: int = 0) -> None:
        """Count work about to be done; raises `BudgetExhausted` instead when it does not fit."""
        if not self.affords(forwards + backwards):
            self.refusals += 1
            raise BudgetExhausted(
                f"expected {forwards + backwards} more propagations to fit the budget, got {self.left} left: "
                "raise the budget or ask for less"
            )
        self.spent = self.spent + Spent(forwards, backwards)


def parse_budget(text: str | int | dict[str, int] | None) -> Budget:
    """A budget from `"15m"`, `"90s"`, a count, or `{"propagations": n}`; raises `ConfigError` for anything else.

    >>> parse_budget("15m")
    Budget(propagations=None, seconds=900.0)
    """
    if text is None:
        return Budget()
    if isinstance(text, dict) and set(text) == {"propagations"}:
        text = text["propagations"]
    if isinstance(text, int) and not isinstance(text, bool) and text > 0:
        return Budget(propagations=text)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip()) if isinstance(text, str) else None
    if match is None or float(match[1]) <= 0:
        raise ConfigError(
            f"expected a budget such as '15m', '90s' or {{propagations = 2_000_000}}, got {text!r}: write one of these"
        )
    return Budget(seconds=float(match[1]) * _UNITS[match[2]])


def allocate(total: int | None, costs: Sequence[Cost]) -> list[int | None]:
    """Shares of a count budget, in proportion to cost class; the remainder goes to the first.

    >>> allocate(42, [Cost.CHEAP, Cost.MODERATE, Cost.EXPENSIVE])
    [2, 8, 32]
    """
    if total is None or not costs:
        return [None] * len(costs)
    weights = [_WEIGHT[cost] for cost in costs]
    shares: list[int | None] = [total * weight // sum(weights) for weight in weights]
    first = shares[0]
    shares[0] = (first or 0) + total - sum(share or 0 for share in shares)
    return shares
