"""Evasion: inputs changed a little at prediction time so that the model answers wrongly.

Who the attacker is: whoever may send inputs to the model and gains from a wrong answer: a fraudster who wants a
transaction to pass, a sender who wants spam to be delivered, someone who wants a sign to be misread.

What they know, from most to least: the weights (white box: `apgd`, `apgd_t` towards each class, `linear`, `trees`, and
for the nearest and the fewest changes `fmn`, `fab` and `sigma_zero`), those of a model like it (`transfer`; where there
is none, of a `surrogate` trained on the model's own answers), or only the scores that the model returns for as many
questions as they like (`square` on images, `blocks` on tables, `spsa`, `text_edits`), or its labels alone (`rays`,
`hop_skip_jump`, `text_edits`). They know the true class of their input, and may change every feature that the schema
does not call immutable, within its bounds, by at most eps in units of its scale; of a text, some words by one character
each. Two attackers are weaker in one way and worse in another: one whose single perturbation serves all inputs
(`universal`), and one who prints a `patch` and cannot choose where it is seen.

What we measure: per test sample a bracket, the distance below which a certificate proves that no change of the answer
exists, and the distance at which an attack found one. From the brackets follow robust accuracy (an upper bound, from
attacks), certified accuracy (a lower bound, from proofs) and both as curves over eps. Every success is measured again
on the model as the user gave it.

A number of a model that hides its gradients says nothing: `masking` looks for the signs and says which number is not to
be trusted, and why. Of a model that predicts numbers, `regression` measures how much further off they can be pushed.
Beside the attackers there is the untidy world: `corruptions` measures what noise, blur, missing values or typing errors
do to the answers, as an average and not as a worst case.

What we cannot see: attacks stronger than ours (a sample that stands may still fall: robust accuracy errs too high
unless the certificate meets it), changes that a norm does not describe (rotations, synonyms), changes of
categories without a declared `switch_cost`, and attackers who adapt to a guard in front of the model.
"""

from __future__ import annotations

from casemate.core.outcome import Threat

__all__ = ["THREAT"]

THREAT = Threat(
    name="evasion",
    title="Small changes of an input make the model answer wrongly",
    atlas=("AML.T0015", "AML.T0043"),
    owasp_ml=("ML01",),
    nist=("NISTAML.022",),
    eu_ai_act=("Art. 15",),
)
