"""The versions of the store's schema."""

from __future__ import annotations

__all__: list[str] = []
