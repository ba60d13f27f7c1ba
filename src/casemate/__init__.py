"""Casemate attacks a machine-learning model, hardens it, guards it and watches it, and shows the evidence.

A fitted estimator (or a torch module) and two arrays are enough::

    import casemate

    report = casemate.audit(model, test=(x_test, y_test), train=(x_train, y_train))
    report.ruling.status        # passed, failed or undecided
    report.findings             # what is wrong, worst first, each with its evidence

`case` keeps what is audited in one value, for `audit`, `harden` and `replay`. `audit` returns a `Report`: outcomes with
intervals and a direction of error, and a ruling under a `Policy`. `harden` tries remedies and audits again; `scan` says
whether a file is safe to load; `sign` and `verify` attest what was audited; `Case`, `Data`, `Schema` and `Recipe`
describe what is audited when two arrays do not say enough. `casemate.testing` checks plug-ins of your own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from casemate._api import audit, case, compare, harden, replay, scan, sign, verify, wrap
    from casemate.core.case import Case, Recipe
    from casemate.core.data import Data, Splits
    from casemate.core.model import Model
    from casemate.core.outcome import Severity
    from casemate.core.policy import Accepted, Gate, Policy
    from casemate.core.report import Report
    from casemate.core.schema import Feature, Schema
    from casemate.errors import CasemateError, UsageError

__all__ = [
    "Accepted",
    "Case",
    "CasemateError",
    "Data",
    "Feature",
    "Gate",
    "Model",
    "Policy",
    "Recipe",
    "Report",
    "Schema",
    "Severity",
    "Splits",
    "UsageError",
    "audit",
    "case",
    "compare",
    "harden",
    "replay",
    "scan",
    "sign",
    "verify",
    "wrap",
]

_HOME = {
    "Accepted": "core.policy",
    "Case": "core.case",
    "CasemateError": "errors",
    "Data": "core.data",
    "Feature": "core.schema",
    "Gate": "core.policy",
    "Model": "core.model",
    "Policy": "core.policy",
    "Recipe": "core.case",
    "Report": "core.report",
    "Schema": "core.schema",
    "Severity": "core.outcome",
    "Splits": "core.data",
    "UsageError": "errors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import casemate` loads no framework."""
    if name not in __all__:
        raise AttributeError(f"module 'casemate' has no attribute {name!r}")
    return getattr(import_module(f"casemate.{_HOME.get(name, '_api')}"), name)


def __dir__() -> list[str]:
    return __all__
