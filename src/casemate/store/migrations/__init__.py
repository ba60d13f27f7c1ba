"""Schema migrations: one file a version, never changed once released."""

from __future__ import annotations

__all__: list[str] = []
