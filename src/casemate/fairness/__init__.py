"""Fairness: whether the model treats groups of people differently.

The attacker: nobody needs to attack; the model's ordinary answers do the harm, to a group that training data or the
choice of features disfavoured. What they know is beside the point.

What we measure: gaps between groups, and between the groups of two attributes crossed, in how often the favourable
class is predicted, in true and false positive rates, and in calibration; each with an interval that holds for all
groups at once. Whether a gap is unjust is for people to decide: equal rates of errors and equal calibration exclude
one another wherever base rates differ (Kleinberg, Mullainathan and Raghavan, ITCS 2017; Chouldechova, Big Data 5,
2017).

What we cannot see: groups that the data do not name, wrong or biased labels, people who never reached the data, harm to
one person that no group rate shows, and groups too thin to measure (those are named, never passed).
"""

from __future__ import annotations

from casemate.core.outcome import Threat

__all__ = ["THREAT"]

THREAT = Threat(
    name="bias",
    title="Unequal treatment of groups",
    nist=("AI 100-1: fair, with harmful bias managed",),
    eu_ai_act=("Article 10(2)(f)",),
)
