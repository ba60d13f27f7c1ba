"""A surrogate: a small net trained on the model's own answers, so that an attacker has gradients to borrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.case import Case
from casemate.core.data import Data, Splits, digest_of_arrays
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.model import Model, Task
from casemate.core.norms import Norm
from casemate.core.options import Count, Natural
from casemate.core.plugin import resource
from casemate.core.schema import FeatureKind, Schema
from casemate.core.stats import clopper_pearson
from casemate.engine.masking import guidance, spread_of
from casemate.engine.reach import reach_of
from casemate.errors import BudgetExhausted, ModelError, Unavailable
from casemate.evasion import THREAT

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["METRICS", "SurrogateOptions", "lent", "surrogate_of", "train_surrogate"]

Array = NDArray[Any]

_RESOURCE = "evasion/surrogate"
_PARTS = ("train", "tune", "reference")
_HELD, _MOST_HELD = 0.2, 400  # of the first rows, and rows, that the net never sees
_LEAST = 60  # rows: with fewer neither a net nor its agreement says anything
_STEP = 0.3  # of how far the rows differ from each other in each feature: 0.1 on digits, as in the paper
_BATCH, _RATE = 64, 2e-3
_SHARE = 4  # at most one part in so many of what is left of a budget
_ROWS, _RIVALS, _GUIDED = 64, 8, 0.8  # when gradients count as hidden, as in `engine.masking`

_AGREEMENT = Metric("evasion.surrogate_agreement", Quantity.NOTE, Direction.EXACT)
_MISSING = Metric("evasion.surrogate_missing", Quantity.NOTE, Direction.EXACT, unit="surrogates")
METRICS = (_AGREEMENT, _MISSING)
"""What `lent` may say of a surrogate; for the probe that asks for it."""


@dataclass(frozen=True, slots=True)
class SurrogateOptions:
    """Asks the model at most `queries` times; `rounds` of new points; a net `width` wide, trained for `epochs`."""

    queries: Count = 3000
    rounds: Natural = 3
    epochs: Count = 32
    width: Count = 128


@resource(
    threat=THREAT,
    source="Papernot et al., Practical black-box attacks against machine learning, AsiaCCS 2017, Algorithm 1",
    needs={Facet.LABELS},
    kinds={DataKind.IMAGE, DataKind.TABLE},
    cost=Cost.MODERATE,
    options=SurrogateOptions,
    profiles={
        Profile.QUICK: {"queries": 600, "rounds": 1, "epochs": 20, "width": 64},
        Profile.FULL: {"queries": 20_000, "rounds": 5, "width": 256},
    },
    requires=("torch",),
)
def train_surrogate(case: Case, lab: Lab) -> Stored:
    """Train a small net to answer as the model does, and measure on rows that it never saw how often it does.

    The attacker has inputs of the same kind (the train, tune and reference data, without their labels) and the model's
    answers to at most `queries` of them, its scores where it gives some, else its labels. As in the paper, rounds of
    new points follow, each a step along the sign of the net's own gradient for the class that the model said, its
    direction turned from round to round (their periodical step size), and the net learns again. Ours: soft labels, a
    round goes on with the net of the one before, points keep the schema. Stored: the weights, the `agreement` on
    `held` rows, `chance` (what two independent answerers with these rates would agree, Cohen 1960), `asked`, `source`.
    Charged: the answers, and a forward and a backward for each row and epoch; where a count limits it, at most a
    quarter of what is left.

    Raises `Unavailable` for a regression or too few rows, `ModelError` for a surrogate that agrees no better than
    chance, `BudgetExhausted`.
    """
    model, options = case.the_model(), lab.options
    if model.task is Task.REGRESSION:
        raise Unavailable("expected a classifier for evasion/surrogate, got a regression: there are no classes to copy")
    x, schema, source = _inputs(case)
    most = _affordable(options, lab)
    first = lab.rng("rows").permutation(len(x))[: max(most // 2, min(most, _LEAST))]
    cut = min(max(int(len(first) * _HELD), _LEAST // 3), _MOST_HELD)
    answers = _Answers(model)
    held, held_soft = answers.to(x[first[:cut]])
    seen, soft = answers.to(x[first[cut:]])
    if len(held) < _LEAST // 3 or len(seen) < _LEAST // 3:
        raise Unavailable(f"expected answers to {_LEAST} rows, got {len(held) + len(seen)}: the model refuses most")
    net = _fitted(answers, seen, soft, schema, spare=most - len(first), lab=lab)
    said = _labels(net, held)
    ours, theirs = (np.bincount(labels, minlength=answers.classes) for labels in (said, held_soft.argmax(1)))
    agreed, chance = int((said == held_soft.argmax(1)).sum()), float((ours * theirs).sum() / len(held) ** 2)
    rate = clopper_pearson(agreed, len(held))
    if rate.low <= chance:
        raise ModelError(
            f"expected a surrogate that agrees with the model more often than chance ({chance:.3f}), got "
            f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}] on {len(held)} rows: give more data or queries"
        )
    weights = {f"w{i}": value.numpy() for i, value in enumerate(net.state_dict().values())}
    facts = {"agreed": agreed, "held": len(held), "chance": chance, "asked": answers.asked, "source": source}
    return {**weights, **facts, "agreement": rate.value, "classes": answers.classes, "width": options.width}


def surrogate_of(stored: Stored, schema: Schema) -> Model:
    """The trained net of a stored surrogate as a model with gradients, for inputs of that schema."""
    import torch

    net = _net(schema, int(stored["classes"]), int(stored["width"]))
    names = list(net.state_dict())
    weights = {f"w{i}": np.array(stored[f"w{i}"]) for i in range(len(names))}
    state = {name: torch.from_numpy(weights[f"w{i}"]) for i, name in enumerate(names)}
    net.load_state_dict(state)
    return Model(
        "surrogate", digest_of_arrays(weights), labels=partial(_labels, net.eval()), module=net, framework="torch"
    )


def lent(case: Case, lab: Lab, *, attacked: Array | None = None) -> tuple[Case, tuple[Evidence, ...]]:
    """The case with a surrogate to borrow gradients from where it has none of its own to show, and what to say of it.

    Called by a probe before it hands work to other processes: a resource is built where the audit runs, and travels in
    the case. A case is returned as it is where it has surrogates, a regression, texts, weights or trees in
    closed form (whose own attacks left nothing for a surrogate to break), or gradients that lead uphill.
    Without train, tune and reference data the inputs are the test rows that are not `attacked` (positions), if there
    are enough. A surrogate that could not be had is a note (`evasion.surrogate_missing`) with the reason.
    """
    if not _wanted(case, lab):
        return case, ()
    asked = _from_spare_rows(case, attacked)
    try:
        stored = lab.get(_RESOURCE, asked)
        schema = case.data("test").schema
        found = replace(case, surrogates=(*case.surrogates, surrogate_of(stored, schema)))
    except (Unavailable, ModelError, BudgetExhausted) as error:
        return case, (_MISSING.measured(1.0, method=f"transfer was not tried: {error}", n=1),)
    source = str(stored["source"]) if asked is case else "test rows that are not attacked"
    method = f"rows held out; {int(stored['asked']):,} answers to {source}; by chance {float(stored['chance']):.3f}"
    return found, (_AGREEMENT.measured(clopper_pearson(int(stored["agreed"]), int(stored["held"])), method=method),)


def _wanted(case: Case, lab: Lab) -> bool:
    model = case.the_model()
    known = case.kind in (DataKind.IMAGE, DataKind.TABLE) and model.task is Task.CLASSIFICATION
    # What is linear or a forest is attacked by its own structure: there a surrogate broke nothing more.
    better = case.offers & {Facet.SURROGATES, Facet.AFFINE, Facet.TREES}
    if not known or better or find_spec("torch") is None:
        return False
    return Facet.GRADIENTS not in case.offers or _hidden(case, lab)


def _hidden(case: Case, lab: Lab) -> bool:
    """Whether steps along the model's gradients do less than random ones on too many samples."""
    test = case.data("test")
    part = test.take(np.sort(lab.rows_rng("surrogate").permutation(len(test))[:_ROWS]))
    if not lab.meter.affords(len(part) * (_RIVALS + 5)):
        return False
    lab.meter.charge(forwards=len(part), backwards=len(part))
    steps = lab.rng("surrogate").choice([-1.0, 1.0], size=(_RIVALS, *part.x.shape))
    try:
        return guidance(case.the_model(), part, steps) < _GUIDED
    except Unavailable:  # a module that cannot be copied: nobody follows its gradients
        return True


def _from_spare_rows(case: Case, attacked: Array | None) -> Case:
    """The case as the surrogate is to see it: where it has no other data, with the test rows that nobody attacks."""
    if attacked is None or any(name in case.splits.parts() for name in _PARTS):
        return case
    test = case.data("test")
    spare = np.setdiff1d(np.arange(len(test)), attacked)
    return replace(case, splits=Splits(test=test, reference=test.take(spare))) if len(spare) else case


def _inputs(case: Case) -> tuple[Array, Schema, str]:
    parts: dict[str, Data] = {name: case.splits.parts()[name] for name in _PARTS if name in case.splits.parts()}
    n = sum(map(len, parts.values()))
    if n < _LEAST:
        raise Unavailable(
            f"expected at least {_LEAST} rows beside those attacked, got {n}: name a train, tune or reference file"
        )
    schema = next(iter(parts.values())).schema
    return np.concatenate([data.x for data in parts.values()]), schema, " and ".join(parts)


def _affordable(options: SurrogateOptions, lab: Lab) -> int:
    """How many answers to ask for: those and the training fit a part of what is left of a count."""
    if lab.meter.left is None:
        return options.queries
    most = min(options.queries, lab.meter.left // (_SHARE * (1 + 2 * options.epochs)))
    if most < _LEAST:
        raise BudgetExhausted(f"expected a budget for {_LEAST} answers and a net, got {lab.meter.left}: raise it")
    return most


@dataclass(slots=True)
class _Answers:
    """The model as the attacker sees it: probabilities of the classes, from scores, logits or labels alone."""

    model: Model
    classes: int = 0
    asked: int = 0

    def to(self, x: Array) -> tuple[Array, Array]:
        """Those of the inputs that got an answer, and the answers `(m, k)`."""
        facet = next((f for f in (Facet.SCORES, Facet.LOGITS) if f in self.model.offers), Facet.LABELS)
        answer = np.asarray(self.model.ask(facet, x))
        self.asked += len(x)
        if facet is Facet.LABELS:
            self.classes = self.classes or max(len(self.model.classes), int(answer.max(initial=0)) + 1)
            good = (answer >= 0) & (answer < self.classes)
            return x[good], np.eye(self.classes)[answer[good].astype(np.int64)]
        soft = np.asarray(answer, dtype=np.float64)
        if facet is Facet.LOGITS:
            soft = np.exp(soft - soft.max(axis=1, keepdims=True))
        self.classes = soft.shape[1]
        good = np.isfinite(soft).all(axis=1) & (soft.sum(axis=1) > 0)
        return x[good], soft[good] / soft[good].sum(axis=1, keepdims=True)


def _fitted(answers: _Answers, x: Array, soft: Array, schema: Schema, *, spare: int, lab: Lab) -> nn.Module:
    """Papernot's Algorithm 1: learn, make new points along the signs of the gradients, ask, learn again."""
    import torch

    options: SurrogateOptions = lab.options
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lab.seed_for("weights"))
        net = _net(schema, answers.classes, options.width)
    _standardised(net, x)
    rng = lab.rng("training")
    for turn in range(options.rounds + 1):
        _learn(net, x, soft, epochs=options.epochs // (options.rounds + 1), rng=rng, lab=lab)
        if turn < options.rounds:
            picked = rng.choice(len(x), size=spare // options.rounds)
            lab.meter.charge(forwards=len(picked), backwards=len(picked))
            signs = _signs(net, x[picked], soft[picked]) * (-1.0 if turn % 2 == 0 else 1.0)
            more, said = answers.to(_moved(x, picked, signs, schema))
            x, soft = np.concatenate([x, more]), np.concatenate([soft, said])
    return net.eval().requires_grad_(False)


def _learn(net: nn.Module, x: Array, soft: Array, *, epochs: int, rng: np.random.Generator, lab: Lab) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    inputs, wanted = (torch.tensor(np.array(values), dtype=_dtype(net)) for values in (x, soft))
    step = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=1e-4)
    batches = -(-len(x) // _BATCH)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(step, max(epochs * batches, 1))
    for _ in range(epochs):
        lab.meter.charge(forwards=len(x), backwards=len(x))
        for rows in np.array_split(rng.permutation(len(x)), batches):
            step.zero_grad(set_to_none=True)
            cross_entropy(net(inputs[rows]), wanted[rows]).backward()
            step.step()
            falling.step()


def _signs(net: nn.Module, x: Array, soft: Array) -> Array:
    """The signs of the gradient of the net's score for the class that the model said, `(m, ...)`."""
    import torch

    inputs = torch.tensor(np.array(x), dtype=_dtype(net), requires_grad=True)
    said = torch.tensor(soft.argmax(1))
    scores = net(inputs).log_softmax(1).gather(1, said[:, None])
    (slope,) = torch.autograd.grad(scores.sum(), [inputs])
    return np.asarray(slope.nan_to_num().sign().double().numpy())


def _moved(x: Array, picked: Array, signs: Array, schema: Schema) -> Array:
    reach = reach_of(Norm.LINF, _STEP * spread_of(x, schema), x[picked], schema)
    return reach.settle(reach.x + reach.eps * reach.scale * signs)


def _net(schema: Schema, classes: int, width: int) -> nn.Module:
    """A convolutional net for images, two hidden layers for tables; in front, what makes their values alike."""
    from torch import nn

    if schema.kind is DataKind.IMAGE:
        channels, *sides = schema.shape
        stride = max(1, max(sides) // 32)  # a large picture is seen coarsely: its net would cost as much as the model
        half = max(width // 8, 8)
        return nn.Sequential(
            _front((channels, 1, 1), ()),
            nn.Conv2d(channels, half, 3 + 2 * (stride > 1), stride=stride, padding=1 + (stride > 1)), nn.ReLU(),
            nn.Conv2d(half, 2 * half, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(2 * half, 2 * half, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Linear(32 * half, width), nn.ReLU(), nn.Linear(width, classes),
        )  # fmt: skip
    named = [(i, len(f.categories)) for i, f in enumerate(schema.features) if f.kind is FeatureKind.CATEGORY]
    inputs = len(schema.features) + sum(count for _, count in named)
    return nn.Sequential(
        _front(schema.shape, named), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, classes),
    ).double()  # fmt: skip  # a table's columns may be of any size


def _front(shape: tuple[int, ...], named: Sequence[tuple[int, int]]) -> nn.Module:
    """Missing values to the mean, every column (channel) to mean 0 and deviation 1, categories as one-hot beside it."""
    import torch
    from torch import nn

    class Front(nn.Module):
        mean: Tensor
        deviation: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(shape))
            self.register_buffer("deviation", torch.ones(shape))

        def forward(self, x: Tensor) -> Tensor:
            known = torch.where(torch.isnan(x), self.mean, x)
            parts = [(known - self.mean) / self.deviation]
            parts += [(x[:, [i]] == torch.arange(count, device=x.device)).to(x.dtype) for i, count in named]
            return torch.cat(parts, dim=1) if named else parts[0]

    return Front()


def _standardised(net: Any, x: Array) -> None:
    """Give the front of a net the means and deviations of `x (n, ...)`."""
    import torch

    axes = (0,) if x.ndim == 2 else (0, 2, 3)
    values = np.where(np.isfinite(x), x, np.nan).astype(np.float64)
    known = np.isfinite(values).any(axis=axes)
    mean, deviation = np.zeros(known.shape), np.ones(known.shape)
    mean[known], deviation[known] = (of(values[:, known], axis=axes) for of in (np.nanmean, np.nanstd))
    deviation[deviation < 1e-12] = 1.0
    front, shape = net[0], net[0].mean.shape
    front.mean.copy_(torch.from_numpy(mean).reshape(shape))
    front.deviation.copy_(torch.from_numpy(deviation).reshape(shape))


def _dtype(net: nn.Module) -> torch.dtype:
    return next(net.parameters()).dtype


def _labels(net: nn.Module, x: Array) -> Array:
    import torch

    with torch.no_grad():
        found: Array = net(torch.tensor(np.array(x), dtype=_dtype(net))).argmax(1).numpy()
    return found
