"""Preflight: wrong numbers from set-up mistakes.

The attacker: nobody; whoever prepared the audit made a mistake. Most wrong robustness numbers are such mistakes: a
model left in train mode, images scaled to 255, probabilities taken for logits, test rows that were trained on.

What we measure: one mistake a file, each with its number and the mend: a share of rows that behave differently from
what was declared, a gain in accuracy when a suspected mistake is undone, or a plain fact about shapes and classes.

What we cannot see: a mistake that leaves shapes, bounds and accuracy as they should be, such as labels that are wrong
in the same way in every split, or leakage through a feature that would not exist at prediction time.
"""

from __future__ import annotations

from casemate.core.outcome import Threat

__all__ = ["THREAT"]

THREAT = Threat(name="preflight", title="Wrong numbers from set-up mistakes")
