"""What every test shares: fixed threads, a fixed terminal and hypothesis settings."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Inherited by xdist's workers and by every process that a test starts: two of them share the cores, and a sum made by a
# fixed number of threads is the same on every machine.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# Help and tables are compared with text: the same width everywhere, and no colours because a CI service asks for them.
os.environ.update(COLUMNS="100", NO_COLOR="1", TERM="dumb", _TYPER_FORCE_DISABLE_TERMINAL="1")
for _name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
    os.environ.pop(_name, None)

# On CI a law is a gate and must not pass by luck on one run and fail on the next; at a desk it is a search.
settings.register_profile("desk", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("desk"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")
