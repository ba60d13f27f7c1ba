"""A third party's room: real, tiny plug-ins that the tests of the harness run, cheats among them."""

from __future__ import annotations

from casemate.core.outcome import Threat

THREAT = Threat("toy", "A toy threat", atlas=("AML.T0015",))
