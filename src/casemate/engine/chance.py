"""Randomness that belongs to somebody else: models that draw from the global generators, made repeatable."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np

from casemate.core.rng import derive_seed

__all__ = ["drawn"]


@contextmanager
def drawn(seed: int, *names: str | int) -> Iterator[None]:
    """Inside, the global generators of Python, numpy and torch (where it is loaded) run from `(seed, names)`.

    Afterwards they are as they were. A model that has a generator of its own, or asks the system, is not reached.
    """
    value = derive_seed(seed, "chance", *names)
    torch = sys.modules.get("torch")
    cards = range(torch.cuda.device_count()) if torch is not None and torch.cuda.is_initialized() else ()
    python, legacy = random.getstate(), np.random.get_state()
    with nullcontext() if torch is None else torch.random.fork_rng(devices=cards):
        try:
            random.seed(value)
            np.random.seed(value % 2**32)
            if torch is not None:
                torch.manual_seed(value)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
