"""Privacy: what a model gives away about the rows that it was trained on.

Who the attacker is: someone who holds a record and wants to know whether it was in the training set (which says, for a
hospital's model, that its owner was a patient there). They may be a customer of the endpoint.

What they know: the record with its true label, the model's answer to it (labels suffice for a crude attack; scores or
logits for the good ones), and for RMIA also how such models are trained and data of the same kind, from which they
train shadow models of their own.

What we measure: how well such attackers tell training rows from held-out rows: AUC, and the true positive rate at 1 %
and 0.1 % false positives, which is what matters to the few people who are exposed (Carlini et al. 2022). A control
tells how well members and non-members can be told apart *without* the model; where it can, the two splits differ, and
the attack's figures are not leakage alone.

What we cannot see: attackers stronger than ours (white-box, more shadow models, several queries a record): every figure
errs too low. No figure here is a proof; only training with differential privacy gives one.
"""

from __future__ import annotations

from casemate.core.outcome import Threat

__all__ = ["THREAT"]

THREAT = Threat(
    name="membership_inference",
    title="Someone learns whether a record was in the training data",
    atlas=("AML.T0024.000",),
    owasp_ml=("ML04",),
    nist=("NISTAML.033",),
    eu_ai_act=("Art. 15",),
)
