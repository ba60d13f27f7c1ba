"""Poisoning: training data or models that were changed so that the model errs when the attacker wishes.

The attacker: someone who can put samples into the training data, label them, or hand over a trained model. They
choose a trigger or a direction in which the model shall drift; they need not know its weights.

What we measure: how well a guard tells triggered requests from clean ones at a false-alarm rate that it was promised
and that was measured on clean data which had no part in its threshold; and whether what arrives still looks like the
data that the model was audited on.

What we cannot see: triggers that only work on some source classes or that blend into what a class looks like (STRIP
assumes a trigger that wins over any content), attackers who know the guard and train against it, a change of the world
that leaves each feature's distribution alone, and poison that was there when the reference data were collected.
"""

from __future__ import annotations

from casemate.core.outcome import Threat

__all__ = ["THREAT"]

THREAT = Threat(
    name="poisoning",
    title="Poisoned data and backdoored models",
    atlas=("AML.T0020", "AML.T0018.000", "AML.T0043.004", "AML.T0031"),
    owasp_ml=("ML02", "ML10"),
    owasp_aisvs=("1.1.4", "1.3.1", "1.3.5", "12.3.1", "12.3.4"),
    nist=("AI 100-2 E2025: poisoning attacks",),
    eu_ai_act=("Article 15",),
)
