"""Machinery that several rooms need and core cannot hold: attack harness, prepared models, trainers, guarded models."""

from __future__ import annotations

__all__: list[str] = []
