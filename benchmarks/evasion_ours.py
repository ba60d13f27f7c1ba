"""Our side of `make evidence-evasion`: the probe as an audit runs it, and one attack under the harness.

Seconds contain preparation and the harness's judgement. What was found is then judged once more, as the peers' is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from evasion_nets import Net
from evasion_peers import Run, distances, stands

from casemate.adapters import wrap
from casemate.catalog import plugins
from casemate.core.bracket import Goal
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.facets import DataKind, Profile
from casemate.core.lab import Lab
from casemate.core.norms import Norm
from casemate.core.plugin import Plugin
from casemate.core.schema import Feature, Schema
from casemate.engine.harness import batch_of, open_ledger, pursue
from casemate.evasion.standard import measure_robustness

__all__ = ["SAMPLES", "case_of", "pursued", "standard"]

SAMPLES = 256


def case_of(net: Net, x: np.ndarray, y: np.ndarray) -> Case:
    """The net as a user gives it, with some samples."""
    schema = Schema(DataKind.IMAGE, x.shape[1:], (Feature("pixel", lo=0.0, hi=1.0),))
    model = wrap(net.module, classes=tuple("0123456789"), schema=schema, name=net.name)
    return Case(model=model, splits=Splits(test=Data(x, schema, y)))


def standard(net: Net, seed: int, eps: float | tuple[float, ...] | None = None, n: int = SAMPLES) -> Run:
    """The probe in its standard profile, preparation and judgement included."""
    kept: dict[str, Any] = {}

    def keep(name: str, arrays: Mapping[str, Any]) -> str:
        kept.update(arrays)
        return ""

    given = {"samples": n, "norm": net.norm, "eps": net.eps if eps is None else eps}
    options = measure_robustness.configured(Profile.STANDARD, given)
    lab = Lab(measure_robustness.id, seed, options=options, plugins=plugins(), keeper=keep)
    x, y = net.x[:n], net.y[:n]
    case = case_of(net, x, y)
    start = time.process_time()
    for _ in measure_robustness(case, lab):
        pass
    seconds = time.process_time() - start
    spent = int(kept["forwards"]), int(kept["backwards"])
    goal = Goal(Norm(net.norm), float(np.max(given["eps"])))
    return _judged(net, (x, y), kept["witness"], goal, (seconds, *spent))


def pursued(
    attack: Plugin, net: Net, samples: tuple[np.ndarray, np.ndarray], goal: Goal, *, seed: int = 0, **given: Any
) -> Run:
    """One attack under the harness, with its options in the standard profile but for those given."""
    x, y = samples
    start = time.process_time()
    case, batch = case_of(net, x, y), batch_of(x, y, np.arange(len(x)))
    ledger = open_ledger(case, batch, goal.norm)
    lab = Lab(attack.id, seed, options=attack.configured(Profile.STANDARD, given))
    pursue(attack, case, batch, goal, lab, ledger=ledger, rows=np.arange(len(x)))
    spent = time.process_time() - start, lab.meter.spent.forwards, lab.meter.spent.backwards
    return _judged(net, samples, ledger.witness, goal, spent)


def _judged(
    net: Net, samples: tuple[np.ndarray, np.ndarray], witness: np.ndarray, goal: Goal, spent: tuple[float, int, int]
) -> Run:
    """The run, by the judge of the peers' points; where nothing was found the witness is the sample."""
    far = distances(net.module, *samples, witness.astype(samples[0].dtype), goal.norm)
    return Run(*spent, stands(net.module, *samples, far, goal.eps), far)
