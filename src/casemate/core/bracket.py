"""Brackets: per sample, the distance below which no attack can succeed and the distance at which one did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.norms import Norm
from casemate.errors import Contradiction

__all__ = ["Batch", "Bracket", "Claim", "Goal", "Ledger"]

Array = NDArray[Any]
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Goal:
    """What an attacker wants: a wrong answer within `eps` of the sample in `norm` (in units of the schema's scale).

    `eps = inf` asks for the smallest distance. `target` is a wanted class, or `None` for any wrong one.
    """

    norm: Norm
    eps: float
    target: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples that an attack or a certificate works on: `x (n, ...)`, `y (n,)`, `sample_id (n,)`, read-only."""

    x: Array
    y: Array
    sample_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Array) -> Batch:
        """The rows at the given positions."""
        return Batch(_still(self.x[rows]), _still(self.y[rows]), _still(self.sample_id[rows]))


@dataclass(frozen=True, slots=True)
class Claim:
    """What a plug-in says of some rows of its batch; the harness believes nothing of it.

    An attack gives `x (m, ...)`, samples that it holds for wrongly answered. A certificate gives `radius (m,)`, the
    distance below which it holds the answer for unchangeable. With neither, an attack may say by how much the truth
    still led where it came nearest, `lead (m,)`, in units of the logits: no evidence, it says where to look on.
    """

    rows: NDArray[np.int64]
    x: Array | None = None
    radius: NDArray[np.float64] | None = None
    lead: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Bracket:
    """One sample: no success below `lower`, a success at `upper` (`inf`: none was found), and which method said so."""

    lower: float
    upper: float
    lower_by: str
    upper_by: str


@dataclass(slots=True)
class Ledger:
    """All brackets of one goal over `n` samples: joins claims by the largest lower and the smallest upper bound.

    The two may touch: a bound of `lower` says that nothing *below* it succeeds. Where they cross by more than rounding
    (`1e-6`, relative) one of the two methods is wrong: `Contradiction`. `lead` is the least that an attack said
    of a sample that it did not break (NaN: none did); nothing is concluded from it.
    """

    norm: Norm
    x: Array
    lower: NDArray[np.float64] = field(init=False)
    upper: NDArray[np.float64] = field(init=False)
    witness: Array = field(init=False)
    lower_by: NDArray[np.object_] = field(init=False)
    upper_by: NDArray[np.object_] = field(init=False)
    lead: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.x)
        self.lower = np.zeros(n)
        self.upper = np.full(n, np.inf)
        self.witness = np.array(self.x, copy=True)
        self.lower_by = np.full(n, "", dtype=object)
        self.upper_by = np.full(n, "", dtype=object)
        self.lead = np.full(n, np.nan)

    def raise_lower(self, rows: Array, radius: Array, method: str) -> None:
        """Join lower bounds `radius (m,)` for `rows (m,)`."""
        better = radius > self.lower[rows]
        self.lower[rows[better]] = radius[better]
        self.lower_by[rows[better]] = method
        self._agree(rows)

    def drop_upper(self, rows: Array, distance: Array, x: Array, method: str) -> None:
        """Join upper bounds `distance (m,)`, witnessed by `x (m, ...)`."""
        better = distance < self.upper[rows]
        chosen = rows[better]
        self.upper[chosen] = distance[better]
        self.witness[chosen] = x[better]
        self.upper_by[chosen] = method
        self._agree(rows)

    def join(self, rows: Array, found: Mapping[str, Array]) -> None:
        """Join the `lower, upper, witness, lower_by, upper_by` of another ledger over the same goal."""
        for position, row in enumerate(rows):
            at = np.array([row])
            self.raise_lower(at, found["lower"][position : position + 1], str(found["lower_by"][position]))
            part = slice(position, position + 1)
            self.drop_upper(at, found["upper"][part], found["witness"][part], str(found["upper_by"][position]))

    def arrays(self) -> dict[str, Array]:
        """The ledger as plain arrays, for a file of evidence."""
        return {
            "lower": self.lower,
            "upper": self.upper,
            "witness": self.witness,
            "lower_by": self.lower_by.astype("U"),
            "upper_by": self.upper_by.astype("U"),
        }

    def bracket(self, row: int) -> Bracket:
        """The bracket of one sample."""
        by = str(self.lower_by[row]), str(self.upper_by[row])
        return Bracket(float(self.lower[row]), float(self.upper[row]), *by)

    def broken(self, eps: float) -> NDArray[np.bool_]:
        """Mask `(n,)`: a witness at most `eps` away exists (up to rounding)."""
        return np.asarray(self.upper <= eps * (1 + _TOLERANCE) + 1e-12)

    def _agree(self, rows: Array) -> None:
        crossed = self.lower[rows] > self.upper[rows] * (1 + _TOLERANCE) + 1e-12
        if crossed.any():
            row = int(rows[np.flatnonzero(crossed)[0]])
            raise Contradiction(
                f"expected a lower bound below the upper one, got {self.lower[row]:.9g} by {self.lower_by[row]} above "
                f"{self.upper[row]:.9g} by {self.upper_by[row]} for row {row} ({self.norm}): one of the two is wrong"
            )


def _still(array: Array) -> Array:
    array.setflags(write=False)
    return array
