"""casemate.toml: what is audited, with which data, how thoroughly, and what fails.

`load` reads and checks a file, `case_of` and `policy_of` make the case and the policy of it, `propose` writes a
first one.
"""

from __future__ import annotations

from casemate.config.building import case_of, policy_of
from casemate.config.proposal import propose
from casemate.config.settings import Settings, load

__all__ = ["Settings", "case_of", "load", "policy_of", "propose"]
