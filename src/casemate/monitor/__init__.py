"""Monitoring: windows over events that serving emitted, watches over windows, incidents that ask for a new audit.

The attacker here changes what the model is fed over time: drifting data, streams of probes. What this room cannot see:
anything that leaves the inputs and answers of a window as they were.
"""

from __future__ import annotations

__all__: list[str] = []
