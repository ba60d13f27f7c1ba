"""Universal perturbations: one small change, the same for every input, that makes the model wrong on many."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.data import Data
from casemate.core.evidence import Direction, Evidence, Metric, Quantity, Scalar
from casemate.core.exhibit import MOST
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.metering import unmetered_case
from casemate.core.model import ABSTAIN, Task
from casemate.core.norms import Norm
from casemate.core.options import Count, Natural, Positive, Within
from casemate.core.plugin import probe
from casemate.core.rng import normals, signs
from casemate.core.schema import Schema
from casemate.core.stats import clopper_pearson
from casemate.engine.harness import steadied
from casemate.engine.prepared import prepare
from casemate.engine.reach import reach_of
from casemate.errors import ConfigError
from casemate.evasion import THREAT
from casemate.evasion._broken import before_after
from casemate.evasion._one_for_all import (
    NOTHING_RIGHT,
    answered,
    fitted_change,
    fooled_rows,
    pixel_range,
    rows_apart,
    staying,
)
from casemate.evasion.standard import usual_eps

__all__ = ["UniversalOptions", "fool_all_inputs"]

Array = NDArray[Any]

_STEP = 0.25  # of eps, the first step; they shrink to nothing along a cosine

KEPT = Metric(
    "evasion.universal_kept",
    Quantity.ROBUSTNESS,
    Direction.TOO_HIGH,
    says="one small change, the same for every input, makes the model answer wrongly",
    mend="train adversarially (casemate.harden), with the one change that fits a batch or with one for each input",
)
# Exact for the change that was found; a report would draw what errs too low as a certificate.
FOOLED = Metric("evasion.universal_fooling_rate", Quantity.NOTE, Direction.EXACT)
RANDOM = Metric("evasion.universal_random_kept", Quantity.NOTE, Direction.EXACT)


@dataclass(frozen=True, slots=True)
class UniversalOptions:
    """`norm` (linf, l2 or both), `eps` (None: by the kind of data), `samples` on either side; how hard to try.

    `steps` of the whole ascent for each eps; short ones away from the true classes and towards each of `targets` others
    come before it.
    """

    norm: Literal[Norm.LINF, Norm.L2] | tuple[Literal[Norm.LINF, Norm.L2], ...] = Norm.LINF
    eps: Positive | tuple[Positive, ...] | None = None
    samples: Annotated[int, Within(least=20)] = 1000
    steps: Count = 300
    targets: Natural = 10


def _replayed(case: Case, arrays: Mapping[str, Stored], lab: Lab) -> Iterator[Evidence]:
    """The same evidence: the kept change is added to the same rows again, and the model asked again."""
    for name in sorted(arrays):
        yield from _measured(_judged(case, arrays[name], lab), name, lab)


@probe(
    threat=THREAT,
    source="Moosavi-Dezfooli et al., Universal adversarial perturbations, CVPR 2017; found as in Shafahi et al., "
    "Universal adversarial training, AAAI 2020, section 4; intervals: Clopper-Pearson",
    needs={Facet.GRADIENTS, Facet.LABELS, Facet.TEST},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.MODERATE,
    metrics=(KEPT, FOOLED, RANDOM),
    options=UniversalOptions,
    profiles={
        Profile.QUICK: {"samples": 256, "steps": 60, "targets": 4},
        Profile.FULL: {"samples": 4000, "steps": 1000, "targets": 30},
    },
    replay=_replayed,
    requires=("torch",),
)
def fool_all_inputs(case: Case, lab: Lab) -> Generator[Evidence, None, str | None]:
    """How many answers survive one small change that is the same for every input, which an attacker computes once.

    The change v, with ||v / scale|| <= eps, raises the mean over fitting rows of min(cross-entropy, 9) by stochastic
    gradients (the paper's clipped loss), or minus the cross-entropy of one class for all (ours), whichever fools more
    of the fitting rows; the step is a sign (linf) or a unit vector (l2) with momentum (ours). Measured on rows that v
    was not fitted on: of those right as they are, the share that stays right with x + v inside the bounds; the share of
    all whose answer changes (the papers' fooling rate); and as control the share that stays right after a random change
    of the same size, another for each row. Fitted on the tune rows where there are labelled ones, else on half of the
    test rows, chosen by sample id. The attacker knows the weights. A refusal is not wrong. Errs too high: another v may
    fool more.

    Raises `ConfigError` for a norm or eps that does not fit, `Unavailable` for too few rows, `BudgetExhausted`.
    """
    if case.the_model().task is Task.REGRESSION:
        return None
    options: UniversalOptions = lab.options
    apart = rows_apart(case, lab, options.samples)
    if apart is None:
        return NOTHING_RIGHT
    fit, unseen, source = apart
    ready = prepare(case.the_model(), fit.x, lab.meter, seed=lab.seed_for("draws"))
    for norm in _norms(options):
        starts = [np.zeros(fit.schema.shape)]
        for place, eps in enumerate(_radii(options, norm, fit.schema)):
            ways: dict[str, Any] = {
                "put": partial(_put, norm=norm, eps=eps, schema=fit.schema),
                "move": partial(_moved, norm=norm, eps=eps),
            }
            hard: dict[str, Any] = {"steps": options.steps, "targets": options.targets}
            v = fitted_change(ready, fit, starts, rng=lab.rng(f"{norm} {eps}"), **ways, **hard)
            asked = {"sample_id": unseen.sample_id, "v": v, "norm": str(norm), "eps": eps, "fitted": len(fit)}
            kept = _judged(case, {**asked, "source": source}, lab)
            yield from _measured(kept, f"{norm}-{place}", lab)
            starts[1:] = [v]  # it lies in every larger ball
        _show(case, kept, lab)
    return None


def _norms(options: UniversalOptions) -> list[Norm]:
    asked = [options.norm] if isinstance(options.norm, str) else list(options.norm)
    unknown = [name for name in asked if name not in (Norm.LINF, Norm.L2)]
    if unknown or not asked:
        raise ConfigError(f"expected norm linf or l2 for evasion/universal, got {options.norm}: choose one or both")
    return [Norm(name) for name in dict.fromkeys(asked)]


def _radii(options: UniversalOptions, norm: Norm, schema: Schema) -> Sequence[float]:
    if options.steps < 1:
        raise ConfigError(f"expected steps >= 1 for evasion/universal, got {options.steps}: ask for more")
    if options.eps is None:
        return usual_eps(norm, schema)
    radii = sorted({float(eps) for eps in np.atleast_1d(options.eps)})
    if not radii or not all(0 < eps < np.inf for eps in radii):
        raise ConfigError(f"expected positive numbers as eps of evasion/universal, got {options.eps}: mend eps")
    return radii


def _random(norm: Norm, eps: float, ids: Array, shape: tuple[int, ...], seed: int) -> Array:
    """A random change of size eps for each id, `(n, ...)`: a corner of the cube, or a direction."""
    if norm is Norm.LINF:
        return np.asarray(eps * signs(seed, "universal", ids, shape))
    draw = normals(seed, "universal", ids, shape)
    size = np.sqrt((draw.reshape(len(draw), -1) ** 2).sum(axis=1))
    return np.asarray(eps * draw / size.reshape(-1, *(1,) * len(shape)))


def _put(
    v: Array, x: Array, sample_id: Array, turn: int, *, norm: Norm, eps: float, schema: Schema
) -> tuple[Array, Callable[[Array], Array]]:
    del sample_id, turn  # the same for every input
    reach = reach_of(norm, eps, x, schema)
    wanted = x + v * reach.scale
    points = np.clip(wanted, reach.low, reach.high)
    # Where a bound stops a row, its gradient says nothing of v.
    return points, lambda slope: np.where(points == wanted, slope * reach.scale, 0.0).mean(axis=0)


def _moved(v: Array, direction: Array, rate: float, *, norm: Norm, eps: float) -> Array:
    if norm is Norm.LINF:
        return np.clip(v + _STEP * eps * rate * np.sign(direction), -eps, eps)
    tiny = np.finfo(np.float64).tiny
    v = v + _STEP * eps * rate * direction / max(float(np.sqrt((direction**2).sum())), tiny)
    return np.asarray(v * min(1.0, eps / max(float(np.sqrt((v**2).sum())), tiny)))


def _judged(case: Case, kept: Stored, lab: Lab) -> dict[str, Any]:
    """What the model as the user gave it says of the rows as they are, with v, and with a random change."""
    norm, eps, v = Norm(str(kept["norm"])), float(kept["eps"]), np.asarray(kept["v"])

    def views(part: Data) -> dict[str, Array]:
        reach = reach_of(norm, eps, part.x, part.schema)
        noise = _random(norm, eps, part.sample_id, part.x.shape[1:], lab.seed)
        return {name: reach.settle(reach.x + by * reach.scale) for name, by in (("moved", v), ("shaken", noise))}

    return answered(case, kept, views)


def _measured(kept: Stored, name: str, lab: Lab) -> Iterator[Evidence]:
    digest = lab.keep(name, kept)
    y, clean, moved = (np.asarray(kept[key]) for key in ("y", "clean", "moved"))
    norm, n = str(kept["norm"]), len(y)
    common: dict[str, Any] = {
        "about": norm,
        "at": dict[str, Scalar](norm=norm, eps=float(kept["eps"])),
        "files": (digest,) if digest else (),
        "method": f"{n:,} test rows, fitted on {int(kept['fitted']):,} {kept['source']}",
    }
    yield FOOLED.measured(clopper_pearson(int(((moved != clean) & (moved != ABSTAIN)).sum()), n), **common)
    if not (clean == y).any():
        return
    common["method"] += "; of those answered rightly"
    for metric, view in ((KEPT, "moved"), (RANDOM, "shaken")):
        yield metric.measured(staying(kept, view), **common)


def _show(case: Case, kept: Stored, lab: Lab) -> None:
    """The change at the largest eps, alone on grey (of images), and some rows that it fooled."""
    case = unmetered_case(case)  # an exhibit is no measurement
    data, v = case.data("test"), np.asarray(kept["v"])
    chosen = fooled_rows(kept, "moved", MOST - (data.schema.kind is DataKind.IMAGE))
    if not len(chosen):
        return
    x = data.x[data.places(np.asarray(kept["sample_id"])[chosen])]
    if data.schema.kind is DataKind.IMAGE:
        x = np.concatenate([np.full_like(x[:1], sum(pixel_range(data)) / 2), x])
    reach = reach_of(Norm(str(kept["norm"])), float(kept["eps"]), x, data.schema)
    after = reach.settle(reach.x + v * reach.scale)
    was, now = (np.asarray(steadied(case).labels(part)) for part in (x, after))
    alone = "first the change alone, on grey; then " if data.schema.kind is DataKind.IMAGE else ""
    caption = f"one change for all, {kept['norm']} eps {float(kept['eps']):.3g}: {alone}rows that it fools"
    lab.show(
        f"universal-{kept['norm']}",
        before_after(case, x, after, was=was, now=now, about=str(kept["norm"]), caption=caption),
    )
