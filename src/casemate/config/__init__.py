"""casemate.toml: what is audited, with which data, how thoroughly, and what fails.

`load` reads and checks a file; `case_of`, `order_of`, `budget_of` and `policy_of` make of it what an audit takes;
`propose` writes a first one.
"""

from __future__ import annotations

from casemate.config.building import budget_of, case_of, order_of, policy_of
from casemate.config.proposal import propose
from casemate.config.settings import Settings, load

__all__ = ["Settings", "budget_of", "case_of", "load", "order_of", "policy_of", "propose"]
