"""The vocabulary: frozen types and the functions that interpret them. numpy and scipy only; no security knowledge.

Start with `case` (what is audited), `plugin` (what audits it), `lab` (what it may use), `evidence` and `outcome` (what
comes of it), `judgement` (what that means) and `report`. `bracket` is the ledger of attacks and certificates.
"""

from __future__ import annotations

__all__: list[str] = []
