"""A model left in train mode answers with dropout on and with the statistics of the batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Facet
from casemate.core.lab import Lab
from casemate.core.plugin import probe
from casemate.preflight import THREAT
from casemate.preflight._common import Samples, sampled

__all__ = ["check_eval_mode"]

TRAIN_MODE = Metric(
    "preflight.train_mode",
    Quantity.DEFECT,
    Direction.EXACT,
    says="the model was given in train mode, which changes its answers",
    mend="call model.eval() before handing the model over",
)
LAYERS = Metric("preflight.mode_dependent_layers", Quantity.NOTE, Direction.EXACT, unit="layers")
_DEPENDENT = ("dropout", "batchnorm", "instancenorm", "droppath", "stochasticdepth")


@probe(
    threat=THREAT,
    source="Srivastava et al., JMLR 15, 2014 (dropout); Ioffe and Szegedy, ICML 2015, section 3.1 (batch norm)",
    needs={Facet.GRADIENTS},
    metrics=(TRAIN_MODE, LAYERS),
    options=Samples,
    requires=("torch",),
)
def check_eval_mode(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Find a model that was given in train mode and whose answers depend on it.

    1 when the adapter noted train mode, or a part of the module is still in it, and the module has layers that depend
    on the mode or answers differently in it (tried on a copy); else 0. Train mode that changes nothing is not a defect.
    Errs low: a home-made layer is only caught by a difference on the rows tried.
    """
    model = case.the_model()
    module = model.module
    layers = [name for name, part in module.named_modules() if type(part).__name__.lower().startswith(_DEPENDENT)]
    yield LAYERS.measured(len(layers), method=", ".join(layers[:8]) or "none", n=len(layers))
    training = [name or "the model" for name, part in module.named_modules() if part.training]
    if model.notes.get("mode") != "train" and not training:
        yield TRAIN_MODE.measured(0, method="the model was given in eval mode", n=1)
        return
    matters = bool(layers) or _answers_differ(module, case, lab)
    why = f"layers that depend on the mode: {', '.join(layers[:8]) or 'none known'}"
    yield TRAIN_MODE.measured(int(matters), method=f"given in train mode; {why}", n=1)


def _answers_differ(module: Any, case: Case, lab: Lab) -> bool:
    import torch

    test = case.splits.parts().get("test")
    if test is None:
        return False
    x = sampled(test, lab, min(lab.options.samples, 32)).x
    weight = next(iter(module.parameters()), torch.zeros(1))
    lab.meter.charge(forwards=2 * len(x))
    outputs = []
    for training in (False, True):
        trial = copy.deepcopy(module)
        try:
            trial.train(training)
        except NotImplementedError:  # an exported program has no modes
            return False
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(lab.seed_for("modes"))
            batch = torch.as_tensor(np.array(x), dtype=weight.dtype, device=weight.device)
            outputs.append(trial(batch).detach().cpu().numpy())
    return not np.allclose(outputs[0], outputs[1], rtol=lab.options.tolerance, atol=lab.options.tolerance)
