"""Contract checks for plug-ins and adapters, ours and yours: the laws the harness relies on, as functions that raise.

::

    from casemate.testing import check_probe
    from my_package.my_probe import my_probe

    def test_my_probe_keeps_the_contract():
        check_probe(my_probe)

Each check runs the plug-in on toy cases that fit it (or on a case of your own) and raises `LawBroken` with what was
expected and what was got. `check_plugin` picks the check that belongs to the kind. `check_model` holds a model to what
the framework behind it says.
"""

from __future__ import annotations

from casemate.testing.checks import (
    check_attack,
    check_certificate,
    check_detector,
    check_guard,
    check_hardening,
    check_plugin,
    check_probe,
    check_resource,
    check_watch,
)
from casemate.testing.models import check_model
from casemate.testing.toys import toy_case, toy_cases

__all__ = [
    "check_attack",
    "check_certificate",
    "check_detector",
    "check_guard",
    "check_hardening",
    "check_model",
    "check_plugin",
    "check_probe",
    "check_resource",
    "check_watch",
    "toy_case",
    "toy_cases",
]
