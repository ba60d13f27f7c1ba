"""Serving: a model answers only behind its attestation, its schema and its guards, and every answer leaves an event.

The attacker here sends requests: samples out of the schema, adversarial or triggered ones, many of them. What this
room cannot see: who is behind a principal, and what was done to the process that runs it.
"""

from __future__ import annotations

__all__: list[str] = []
