"""Signs that a model hides its gradients instead of resisting: robust accuracy then only says that attacks got lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.data import Data
from casemate.core.facets import Facet
from casemate.core.metering import unmetered
from casemate.core.model import Model
from casemate.core.norms import Norm
from casemate.engine.prepared import prepare
from casemate.engine.reach import reach_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["guidance", "is_random", "signs_of_masking"]

Array = NDArray[Any]

_ROWS = 64
_RIVALS = 8  # random steps that one along the gradient has to beat
_GUIDED = 0.8  # of the rows; ordinary networks are at 0.95 and more, a chance gradient at 1 / 9
_STEP = 0.25  # of how far the samples differ from each other, in each feature
_SAME = 1e-4  # relative: more than rounding differs between two runs of one kernel
_OPEN = (Facet.GRADIENTS, Facet.LOGITS, Facet.SCORES)


def signs_of_masking(before: Model, after: Model, data: Data, rng: np.random.Generator) -> tuple[str, ...]:
    """In words, what makes attacks on `after` weaker than on `before` without making it any harder to fool.

    Each sign counts only where `before` did not show it. Errs towards silence: a model may hide its gradients elsewhere
    than at the samples. Source: Athalye, Carlini and Wagner, Obfuscated gradients give a false sense of security, ICML
    2018, section 3.1; the share of guided rows is ours.
    """
    before, after = unmetered(before), unmetered(after)
    lost = [str(facet) for facet in _OPEN if facet in before.offers - after.offers]
    if lost:
        return (f"it no longer offers {', '.join(lost)}: attacks that need them say nothing of it any more",)
    part = data.take(np.sort(rng.permutation(len(data))[:_ROWS]))
    if is_random(after, part) and not is_random(before, part):
        return (
            "it answers the same sample differently each time: noise that no certificate averages is no protection",
        )
    if Facet.GRADIENTS not in after.offers or Facet.GRADIENTS not in before.offers:
        return ()
    steps = rng.choice([-1.0, 1.0], size=(_RIVALS, *part.x.shape))
    was, now = guidance(before, part, steps), guidance(after, part, steps)
    if now < min(was, _GUIDED):
        return (
            f"its gradients lead nowhere: a step along them beats random steps on {now:.0%} of the samples (before: "
            f"{was:.0%}), so it hides them from the attacks and may be as easy to fool as before",
        )
    return ()


def is_random(model: Model, data: Data) -> bool:
    """Whether the same samples get other answers the second time, by more than rounding."""
    facet = next((f for f in (Facet.LOGITS, Facet.SCORES) if f in model.offers), Facet.LABELS)
    first, second = (np.asarray(model.ask(facet, data.x), dtype=np.float64) for _ in range(2))
    return not np.allclose(first, second, rtol=_SAME, atol=_SAME * float(np.abs(first).max(initial=0)), equal_nan=True)


def guidance(model: Model, data: Data, steps: NDArray[np.float64]) -> float:
    """The share of samples on which a step along the gradient's signs does more than each of `steps (r, n, ...)`.

    What a step does is measured on the model's own answers: how far the true class falls behind the best other one.
    Steps are equally long in every feature, and end at the schema's bounds.
    """
    schema = data.schema
    units = np.where(schema.scale > 0, schema.scale, 1.0)
    spread = float(np.std(data.x.astype(np.float64) / units, axis=0).mean())
    reach = reach_of(Norm.LINF, _STEP * spread, data.x, schema)
    start = _lead(model, data.x, data.labels)
    ways = (_uphill(model, data), *steps)
    length = reach.eps * reach.scale
    fell = [start - _lead(model, reach.settle(reach.x + length * way), data.labels) for way in ways]
    return float(np.mean(fell[0] > np.max(fell[1:], axis=0)))


def _uphill(model: Model, data: Data) -> Array:
    """The signs of the gradient of (best wrong logit - true logit), `(n, ...)`."""
    import torch

    ready = prepare(model, data.x)
    true = torch.tensor(data.labels, dtype=torch.int64, device=ready.device)[:, None]

    def behind(logits: Tensor) -> Tensor:
        other = logits.scatter(1, true, float("-inf")).amax(dim=1)
        return other - logits.gather(1, true)[:, 0]

    _, _, slope = ready.gradient(ready.tensor(data.x), behind)
    return np.asarray(slope.sign().double().cpu().numpy())


def _lead(model: Model, x: Array, y: Array) -> NDArray[np.float64]:
    """How far the true class is ahead of the best other one in the model's own answers, `(n,)`."""
    facet = Facet.LOGITS if model.logits is not None else Facet.SCORES if model.scores is not None else Facet.LABELS
    answer = np.array(model.ask(facet, x), dtype=np.float64)
    if facet is Facet.LABELS:
        return np.asarray(answer == y, dtype=np.float64)
    own = np.arange(len(y)), np.asarray(y, dtype=np.int64)
    true = answer[own].copy()
    answer[own] = -np.inf
    return np.asarray(true - answer.max(axis=1))
