"""The one tree of errors; every message says what was expected, what was got, and the mend.

::

    CasemateError
    ├── UsageError            the caller's input is wrong            exit 2
    │   ├── ConfigError       casemate.toml
    │   ├── DataError         a data set, a schema
    │   └── ModelError        a model, a factory, a recipe
    ├── FormatError           bytes that cannot be read              exit 2 for one's own input, 3 under a gate
    ├── IntegrityError        a digest or signature does not hold    exit 1
    ├── Unavailable           something is not installed or offered  exit 3
    ├── BudgetExhausted       a budget is used up; what is measured so far stays valid
    └── LawBroken             a plug-in broke a law of the harness   the outcome is Failed
        └── Contradiction     an attack and a certificate disagree   the run fails
"""

from __future__ import annotations

__all__ = [
    "BudgetExhausted",
    "CasemateError",
    "ConfigError",
    "Contradiction",
    "DataError",
    "FormatError",
    "IntegrityError",
    "LawBroken",
    "ModelError",
    "Unavailable",
    "UsageError",
]


class CasemateError(Exception):
    """Anything Casemate raises on purpose."""


class UsageError(CasemateError):
    """The caller's input is wrong: exit code 2."""


class ConfigError(UsageError):
    """The configuration is wrong."""


class DataError(UsageError):
    """A data set or its schema is wrong."""


class ModelError(UsageError):
    """A model, its factory or its recipe is wrong."""


class FormatError(CasemateError):
    """Bytes that cannot be read as what they claim to be."""


class IntegrityError(CasemateError):
    """A digest or a signature does not hold."""


class Unavailable(CasemateError):
    """A library, a file or a facet that is needed is not there."""


class BudgetExhausted(CasemateError):
    """The budget is used up; everything measured before stays valid."""


class LawBroken(CasemateError):
    """A plug-in broke a law of the harness: its result is not used."""


class Contradiction(LawBroken):
    """A lower bound lies above an upper bound: one of the two methods is wrong, and the run fails."""
