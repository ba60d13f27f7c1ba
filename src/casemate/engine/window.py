"""A window: the requests of a stretch of time, as a watch sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.errors import DataError

__all__ = ["Window"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Window:
    """Samples `x (n, d)`, the answers `labels (n,)`, and where known `scores (n,)` and who asked, `principals (n,)`.

    Raises `DataError` when the window is empty or lengths differ.
    """

    x: Array
    labels: Array
    scores: Array = field(default_factory=lambda: np.empty(0))
    principals: Array = field(default_factory=lambda: np.empty(0, dtype=np.str_))

    def __post_init__(self) -> None:
        n = len(self.x)
        if n == 0 or self.x.ndim != 2:
            raise DataError(f"expected rows of features (n, d), n >= 1, got {self.x.shape}: wait for more events")
        for name in ("labels", "scores", "principals"):
            values = getattr(self, name)
            if len(values) != n and (name == "labels" or len(values)):
                raise DataError(f"expected {n} {name}, one for each row, got {len(values)}: align the events")

    def __len__(self) -> int:
        return len(self.x)
