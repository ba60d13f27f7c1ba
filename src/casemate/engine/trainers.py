"""Plain training of torch modules: one at a time, or many small ones at once with the same result.

`TorchRecipe` describes the training of a module and `recipe_of` makes a `Recipe` of it. All randomness comes from the
generator that is passed in (initial weights, order of samples, dropout); torch's global state is left as it was.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.budget import Spent
from casemate.core.case import Recipe
from casemate.core.data import Data
from casemate.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from casemate.core.model import Model

__all__ = [
    "Perturb",
    "TorchRecipe",
    "as_torch",
    "fit_many",
    "recipe_of",
    "set_dropout",
    "train_module",
    "training_cost",
    "with_settings",
]

Array = NDArray[Any]
Perturb = Callable[["nn.Module", "Tensor", "Tensor"], "Tensor"]
"""`(module in eval mode, x (b, ...), y (b,)) -> x (b, ...)`: what a batch is replaced by before it is learned."""

_SETTINGS = ("epochs", "lr", "batch", "weight_decay", "dropout", "optimizer", "schedule")
_DECAYS = {"adam": (0.0, 0.01, 0.1, 1.0), "sgd": (0.0, 1e-4, 1e-3, 1e-2)}
_DROPOUTS = (0.0, 0.1, 0.25, 0.5)


@dataclass(frozen=True)
class TorchRecipe:
    """How a torch module is trained: `build()` gives a fresh one whose output are the logits `(n, k)`.

    `optimizer` is `adam` (AdamW) or `sgd` (Nesterov momentum 0.9); `schedule` is `constant` or `cosine` (to zero).
    `dropout` sets the rate of every dropout layer; `None` leaves what `build` chose. `knobs` are what a sweep may try;
    `None` stands for weight decay and, where there are such layers, dropout. `build` lives at module level, so that
    other processes can import it.
    """

    build: Callable[[], nn.Module]
    epochs: int = 20
    lr: float = 1e-3
    batch: int = 64
    weight_decay: float = 0.0
    dropout: float | None = None
    optimizer: str = "adam"
    schedule: str = "constant"
    classes: tuple[str, ...] | None = None
    name: str | None = None
    knobs: Mapping[str, tuple[Any, ...]] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What `init` of `Recipe.fit` may override, by name."""
        return {name: getattr(self, name) for name in _SETTINGS}

    def configured(self, init: Mapping[str, Any]) -> TorchRecipe:
        """The recipe with some settings changed; raises `ModelError` for one that it does not have."""
        for key in init:
            if key not in _SETTINGS:
                raise ModelError(f"expected a setting of a torch recipe ({', '.join(_SETTINGS)}), got {key!r}: mend it")
        return replace(self, **init)


def recipe_of(recipe: TorchRecipe) -> Recipe:
    """The recipe that trains such a module from nothing and wraps it, in eval mode, as a `Model`."""
    sample = _built(recipe, np.random.Generator(np.random.Philox(0)))
    knobs = _knobs(recipe, sample) if recipe.knobs is None else recipe.knobs
    return Recipe(partial(_fit, recipe), _digest(recipe, sample), knobs=knobs, settings=recipe.settings)


def as_torch(recipe: Recipe) -> TorchRecipe | None:
    """The torch recipe behind a recipe that `recipe_of` made, else `None`."""
    if isinstance(recipe.fit, partial) and recipe.fit.func is _fit:
        found: TorchRecipe = recipe.fit.args[0]
        return found
    return None


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The same recipe with some settings fixed; a caller's `init` still overrides them."""
    if not settings:
        return recipe
    described = json.dumps({key: repr(value) for key, value in settings.items()}, sort_keys=True)
    digest = _sha256(f"{recipe.digest}|{described}")
    inner = as_torch(recipe)
    fit = partial(_fit_with, recipe.fit, dict(settings)) if inner is None else partial(_fit, inner.configured(settings))
    return replace(recipe, fit=fit, digest=digest, settings={**recipe.settings, **settings})


def training_cost(recipe: Recipe, n: int, init: Mapping[str, Any] | None = None) -> Spent:
    """What training on `n` samples is charged as: `epochs * n` each way for torch, else by agreement `n` each way."""
    inner = as_torch(recipe)
    passes = 1 if inner is None else inner.configured(init or {}).epochs
    return Spent(passes * n, passes * n)


def fit_many(
    recipe: TorchRecipe,
    data: Data,
    rows: Array,
    rngs: Sequence[np.random.Generator],
    init: Mapping[str, Any] | None = None,
) -> list[Model]:
    """Train `k` modules at once, the i-th on `data.take(rows[i])` with `rngs[i]`; `rows (k, m)`.

    The same models as `recipe_of(recipe).fit` gives one by one, up to the rounding of sums (which Adam enlarges: of a
    gradient that is nothing but rounding, such as that of a bias in front of BatchNorm, it makes whole steps); with
    dropout the same law but other random numbers. Modules that `torch.func.vmap` refuses are trained one by one.
    Source: torch.func's documentation, "Model ensembling".
    """
    chosen = recipe.configured(init or {})
    modules = [_built(chosen, rng) for rng in rngs]
    x, y = _tensors(modules[0], data.x, data.labels)
    if len(modules) > 1 and _stackable(modules, x[:2]):
        _train_stacked(chosen, modules, x, y, rows=np.asarray(rows), rngs=rngs)
    else:
        for module, picked, rng in zip(modules, rows, rngs, strict=True):
            _train(chosen, module, data.take(picked), rng)
    return [_wrapped(chosen, module.eval(), data) for module in modules]


def train_module(  # noqa: PLR0913 - the knobs of training are all keyword-only
    module: nn.Module,
    x: Array,
    y: Array,
    *,
    rng: np.random.Generator,
    epochs: int = 20,
    lr: float = 1e-3,
    batch: int = 64,
    weight_decay: float = 0.0,
    optimizer: str = "adam",
    schedule: str = "constant",
    perturb: Perturb | None = None,
) -> nn.Module:
    """Train `module` in place on `x (n, ...)`, `y (n,)` by cross-entropy and return it in eval mode.

    Each epoch cuts a new permutation into `ceil(n / batch)` batches of nearly equal size, so that none is ragged.
    `perturb` sees the module in eval mode and replaces each batch (adversarial training). The caller charges the meter.
    Raises `ModelError` for labels that are not class indices, or an unknown optimizer or schedule.
    """
    import torch
    from torch.nn.functional import cross_entropy

    inputs, labels = _tensors(module, x, y)
    with _seeded(rng):
        step = _optimizer(optimizer, list(module.parameters()), lr=lr, weight_decay=weight_decay)
        total = epochs * math.ceil(len(x) / batch)
        for count, picked in enumerate(_batches(rng, len(x), batch=batch, epochs=epochs)):
            rows = torch.from_numpy(picked)
            seen, wanted = inputs[rows], labels[rows]
            if perturb is not None:
                seen = perturb(module.eval(), seen, wanted).detach()
            module.train()
            step.zero_grad(set_to_none=True)
            cross_entropy(module(seen), wanted).backward()
            _set_rate(step, _rate(schedule, lr, count / total))
            step.step()
        step.zero_grad(set_to_none=True)
    return module.eval()


def set_dropout(module: nn.Module, rate: float) -> int:
    """Set the rate of every dropout layer and return how many there are; `ModelError` for a rate outside [0, 1)."""
    if not 0 <= rate < 1:
        raise ModelError(f"expected a dropout rate in [0, 1), got {rate}: mend it")
    layers = _dropout_layers(module)
    for layer in layers:
        layer.p = rate
    return len(layers)


def _fit(recipe: TorchRecipe, data: Data, init: Mapping[str, Any], rng: np.random.Generator) -> Model:
    chosen = recipe.configured(init)
    module = _built(chosen, rng)
    _train(chosen, module, data, rng)
    return _wrapped(chosen, module, data)


def _fit_with(
    fit: Callable[[Data, Mapping[str, Any], np.random.Generator], Model],
    settings: Mapping[str, Any],
    data: Data,
    init: Mapping[str, Any],
    rng: np.random.Generator,
) -> Model:
    return fit(data, {**settings, **init}, rng)


def _built(recipe: TorchRecipe, rng: np.random.Generator) -> nn.Module:
    with _seeded(rng):
        module = recipe.build()
    if recipe.dropout is not None and set_dropout(module, recipe.dropout) == 0 and recipe.dropout > 0:
        raise ModelError(f"expected a module with dropout layers for dropout = {recipe.dropout}, got none: add them")
    return module


def _train(recipe: TorchRecipe, module: nn.Module, data: Data, rng: np.random.Generator) -> None:
    settings = {name: value for name, value in recipe.settings.items() if name != "dropout"}
    train_module(module, data.x, data.labels, rng=rng, **settings)


def _wrapped(recipe: TorchRecipe, module: nn.Module, data: Data) -> Model:
    from casemate.adapters import wrap

    return wrap(module, classes=recipe.classes, schema=data.schema, name=recipe.name)


def _stackable(modules: Sequence[nn.Module], x: Tensor) -> bool:
    """Whether vmap takes the forward pass: control flow that depends on the data, for one, it refuses."""
    import torch

    copies = [copy.deepcopy(module).train() for module in modules[:2]]
    try:
        with torch.random.fork_rng(devices=[]):
            _Stack(copies).forward(x.expand(2, *x.shape))
    except (RuntimeError, ValueError):
        return False
    return True


class _Stack:
    """Modules of one architecture as one: every parameter and buffer gets a leading axis `k`."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        from torch.func import stack_module_state

        self.modules = modules
        self.skeleton = copy.deepcopy(modules[0]).train()
        self.parameters, self.buffers = stack_module_state(list(modules))

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(k, b, c)` of `x (k, b, ...)`."""
        from torch.func import functional_call, vmap

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], part: Tensor) -> Tensor:
            logits: Tensor = functional_call(self.skeleton, (parameters, buffers), (part,))
            return logits

        logits: Tensor = vmap(one, randomness="different")(self.parameters, self.buffers, x)
        return logits

    def write_back(self) -> None:
        """Put the trained state into the modules."""
        import torch

        with torch.no_grad():
            for i, module in enumerate(self.modules):
                for name, parameter in module.named_parameters():
                    parameter.copy_(self.parameters[name][i])
                for name, buffer in module.named_buffers():
                    buffer.copy_(self.buffers[name][i])


def _train_stacked(
    recipe: TorchRecipe,
    modules: Sequence[nn.Module],
    x: Tensor,
    y: Tensor,
    *,
    rows: Array,
    rngs: Sequence[np.random.Generator],
) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    stack, n = _Stack(modules), rows.shape[1]
    with _seeded(rngs[0]):
        for rng in rngs[1:]:
            _torch_seed(rng)  # each stream moves on as it does in training one by one
        parameters = list(stack.parameters.values())
        step = _optimizer(recipe.optimizer, parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
        streams = [_batches(rng, n, batch=recipe.batch, epochs=recipe.epochs) for rng in rngs]
        total = recipe.epochs * math.ceil(n / recipe.batch)
        for count, orders in enumerate(zip(*streams, strict=True)):
            picked = torch.from_numpy(np.take_along_axis(rows, np.stack(orders), axis=1))
            step.zero_grad(set_to_none=True)
            logits = stack.forward(x[picked])
            losses = cross_entropy(logits.flatten(0, 1), y[picked].flatten(), reduction="none")
            losses.view(picked.shape).mean(dim=1).sum().backward()  # no term of one model reaches another's parameters
            _set_rate(step, _rate(recipe.schedule, recipe.lr, count / total))
            step.step()
    stack.write_back()


def _tensors(module: nn.Module, x: Array, y: Array) -> tuple[Tensor, Tensor]:
    import torch

    if np.asarray(y).dtype.kind not in "iu":
        raise ModelError(f"expected labels as class indices, got dtype {np.asarray(y).dtype}: encode the classes")
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    inputs = torch.tensor(np.asarray(x), dtype=like.dtype, device=like.device)
    return inputs, torch.tensor(np.asarray(y), dtype=torch.int64, device=like.device)


def _batches(rng: np.random.Generator, n: int, *, batch: int, epochs: int) -> Iterator[NDArray[np.int64]]:
    for _ in range(epochs):
        yield from np.array_split(rng.permutation(n), math.ceil(n / batch))


def _optimizer(name: str, parameters: list[Tensor], *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    import torch

    if name == "adam":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=0.9, nesterov=True)
    raise ModelError(f"expected the optimizer adam or sgd, got {name!r}: choose one of these")


def _rate(schedule: str, lr: float, done: float) -> float:
    if schedule == "constant":
        return lr
    if schedule == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * done))
    raise ModelError(f"expected the schedule constant or cosine, got {schedule!r}: choose one of these")


def _set_rate(step: torch.optim.Optimizer, rate: float) -> None:
    for group in step.param_groups:
        group["lr"] = rate


@contextmanager
def _seeded(rng: np.random.Generator) -> Iterator[None]:
    """Torch seeded from `rng` inside, as it was outside."""
    import torch

    seed = _torch_seed(rng)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _torch_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63 - 1))


def _dropout_layers(module: nn.Module) -> list[Any]:
    from torch.nn.modules.dropout import _DropoutNd

    return [layer for layer in module.modules() if isinstance(layer, _DropoutNd)]


def _knobs(recipe: TorchRecipe, module: nn.Module) -> dict[str, tuple[Any, ...]]:
    knobs: dict[str, tuple[Any, ...]] = {"weight_decay": _DECAYS.get(recipe.optimizer, ())}
    if _dropout_layers(module):
        knobs["dropout"] = _DROPOUTS
    return knobs


def _digest(recipe: TorchRecipe, module: nn.Module) -> str:
    """Names the code of `build`, what it builds (a closure or a partial may build anything), and the settings."""
    try:
        source = inspect.getsource(recipe.build)
    except (OSError, TypeError):  # made at run time
        source = ""
    shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    settings = {key: repr(value) for key, value in recipe.settings.items()}
    return _sha256(json.dumps([source, repr(module), shapes, settings]))


def _sha256(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
