"""A torch model made ready for attacks: frozen, BatchNorm folded away, and every propagation charged to a meter."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.budget import Meter, Spent
from casemate.core.model import Model
from casemate.engine.chance import drawn
from casemate.engine.folding import fold
from casemate.engine.kept import keeping
from casemate.errors import ModelError, Unavailable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Prepared", "prepare", "slope_at"]

Array = NDArray[Any]
# Samples that the prepared module is compared on; beyond some dozens only the price grows.
_COMPARED = 16
_TOLERANCE = {"torch.float64": 1e-9, "torch.float32": 1e-4}
_COARSE_TOLERANCE = 2e-2  # half precision
_SLOPES = 1e-2  # of their size: ordinary nets folded differ by 1e-6, those with a backward pass of their own by 1 or 2
# Samples that go through the module at once: larger parts fall out of a core's cache (256 at once took up to 1.9 times
# as long a sample on a small CNN), and on a GPU a shard is no larger anyway.
_PART = 64
_MEMORY = 1 << 30  # bytes that the graphs of one part may hold; a constant, so that a report depends on no machine
_PASSING = 4  # of the largest output: what a pass holds for a moment, beside what it keeps for the way back
_DRAWS = 8  # answers of a random model that are averaged
_BARELY = 100  # roundings
_SURE = 0.9  # of them name one class: a search need not go on


@dataclass(frozen=True)
class Prepared:
    """A frozen copy of a model's module with the logits of the original, up to rounding.

    It is never the judge: what an attack finds on it is measured again on the model itself. `notes` say what was done.
    Of a model that answers at `random`, logits and gradients are means over `draws` answers (expectation over
    transformations: Athalye, Engstrom, Ilyas and Kwok, Synthesizing robust adversarial examples, ICML 2018, section 2;
    for defences: Athalye, Carlini and Wagner, ICML 2018, section 4.2). The loss is that of the mean logits; theirs is
    the mean loss. Its randomness follows from `seed` and the number of the call, as far as it comes from the global
    generators (see `chance`). The graph of one row takes about `row_bytes`.
    """

    module: nn.Module
    device: torch.device
    dtype: torch.dtype
    meter: Meter
    channels_last: bool = False
    notes: tuple[str, ...] = ()
    random: bool = False
    draws: int = 1
    row_bytes: int = 1
    seed: int = 0
    _turn: Iterator[int] = field(default_factory=count, repr=False, compare=False)

    @property
    def part(self) -> int:
        """How many rows go through the module at once."""
        return int(np.clip(_MEMORY // (self.row_bytes * self.draws), 1, _PART))

    def tensor(self, x: Array) -> Tensor:
        """An array of floats `(n, ...)` as a tensor of the module's device, dtype and memory format; always a copy."""
        import torch

        moved = torch.from_numpy(np.array(x, order="C")).to(self.device, self.dtype)
        return moved.contiguous(memory_format=torch.channels_last) if self.channels_last and moved.ndim == 4 else moved

    def straight(self) -> Prepared:
        """The same answers with gradients that pass straight through what has none, see `straight.Straight`."""
        from casemate.engine.straight import Straight

        notes = (*self.notes, "straight through operations without a gradient")
        return replace(self, module=Straight(self.module), notes=notes, _turn=count())

    def logits(self, x: Tensor) -> Tensor:
        """Logits `(n, k)`, without a graph; charges n forwards first, so `BudgetExhausted` comes before the work.

        Of a random model means over `draws` answers, each charged.
        """
        import torch

        self.meter.charge(forwards=len(x) * self.draws)
        with torch.no_grad(), self._chance():
            return torch.cat([_mean([self._answer(part) for _ in range(self.draws)]) for part in x.split(self.part)])

    def gradient(
        self, x: Tensor, loss: Callable[[Tensor], Tensor], done: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `(n, k)`, `loss(logits) (n,)` and its gradient with respect to `x (n, ...)`.

        Charges n forwards and n backwards first, times `draws`; the backwards of a part all of whose rows are `done` by
        their logits, `(n,)`, are not made but given back, and its gradient is 0. `loss` and `done` must treat each row
        by itself: they are asked for one part of the rows at a time, with zeros as the logits of all others. A loss
        that does not depend on x differentiably (a model that rounds or thresholds) has gradient 0: that is what such
        an attacker sees. Of a random model the logits returned are such that a row leads by no more than rounding
        unless nearly all answers agree, and not at all unless most do: a search that believes in luck ends too early.
        """
        import torch

        self.meter.charge(forwards=len(x) * self.draws, backwards=len(x) * self.draws)
        found, top, spared = [], 0, 0
        with torch.enable_grad(), self._chance():
            for part in x.split(self.part):
                leaf = part.detach().requires_grad_(True)
                outputs = [self._answer(leaf) for _ in range(self.draws)]
                logits = _mean([output.detach() for output in outputs]).requires_grad_(True)
                seen, own = _decided(logits.detach(), outputs), slice(top, top + len(part))
                # The loss may know its samples (their classes), so it is given as many logits as there are samples.
                values = loss(_padded(logits, top, len(x)))[own]
                (pull,) = torch.autograd.grad(values.sum(), [logits])
                idle = done is not None and bool(done(_padded(seen, top, len(x)))[own].all())
                found.append((seen, values.detach(), torch.zeros_like(part) if idle else _pulled(leaf, outputs, pull)))
                spared += len(part) * self.draws if idle else 0
                top += len(part)
        self.meter.spent = self.meter.spent + Spent(0, -spared)
        logits, values, slope = (torch.cat(pile) for pile in zip(*found, strict=True))
        return logits, values, slope

    def _answer(self, x: Tensor) -> Tensor:
        logits: Tensor = self.module(x)
        return logits

    def _chance(self) -> AbstractContextManager[None]:
        return drawn(self.seed, "prepared", next(self._turn)) if self.random else nullcontext()


def prepare(
    model: Model, x_sample: Array, meter: Meter | None = None, *, seed: int = 0, draws: int | None = None
) -> Prepared:
    """A frozen copy of `model.module` for attacks, equal to it on `x_sample (m, ...)`.

    Parameters need no gradient, eval mode, BatchNorm folded into the convolution or linear layer before it,
    channels-last memory where that pays. Folding is kept only if the logits of up to 16 real samples agree (1e-4
    relative, 1e-9 in float64), every label is the same, and so are the gradients within 1 %: a graph forgets a
    backward pass that the module writes itself. Else the plain frozen copy is used, and a note says so. Half
    precision is computed as the model does it and searched in float32. A module that answers these samples otherwise
    the second time is random: it is not folded, and each of its answers is a mean over `draws` (None: 8).
    Charges the comparison to `meter`, once for each meter and model: the copies themselves are kept in this process
    while the module stays as it is (see `kept`), the comparison is made anew for each job, so that no report depends on
    which process did what before. Raises `Unavailable` for a model without a module or with one that cannot be copied,
    `ModelError` where its output is not `(n, k)`.
    """
    if model.module is None:
        raise Unavailable("expected a model with a torch module, got none: use an attack that needs no gradients")
    known = meter or Meter()
    bench = _bench(model.module)
    for_whom = (x_sample.shape[1:], str(x_sample.dtype))
    if bench.last is None or bench.last[0] is not known or bench.last[1] != for_whom:
        bench.last = (known, for_whom, _chosen(bench, x_sample, known))
    ready = bench.last[2]
    repeats = max(1, _DRAWS if draws is None else draws) if ready.random else 1
    ready = replace(ready, seed=seed, draws=repeats, _turn=count())
    return replace(ready, notes=(*ready.notes, f"{ready.part} rows at once, of about {ready.row_bytes:,} bytes each"))


@dataclass(slots=True)
class _Bench:
    """What is made of a module once: its frozen copy, the folded one (or None), and what was chosen last for whom."""

    plain: nn.Module
    folded: nn.Module | None
    count: int
    wide: dict[bool, nn.Module] = field(default_factory=dict)  # in channels-last memory, by whether it is folded
    last: tuple[Meter, tuple[Any, ...], Prepared] | None = None


def _bench(module: nn.Module) -> _Bench:
    def made() -> tuple[nn.Module, _Bench]:
        plain = _frozen(module)
        with drawn(0, "fold"):
            folded, folds = fold(plain)
        return plain, _Bench(plain, folded, folds)

    return keeping(module, made)


def _chosen(bench: _Bench, x_sample: Array, meter: Meter) -> Prepared:
    """The copy that is as fast as can be and agrees with the plain one."""
    from torch import nn

    ready = _plain(bench, meter)
    sample = ready.tensor(x_sample[:_COMPARED])
    ready = _within_memory(ready, sample)
    with drawn(0, "compare"):
        expected = ready.logits(sample)
        if expected.ndim != 2 or len(expected) != len(sample):
            raise ModelError(
                f"expected logits ({len(sample)}, k) from the module, got {tuple(expected.shape)}: return logits"
            )
        sloped = None if bench.folded is None else _sloped(ready, sample)
        again = ready.logits(sample) if sloped is None else sloped[0]
    tolerance = _TOLERANCE.get(str(_place(bench.plain)[1]), _COARSE_TOLERANCE)
    if not _close(expected, again, tolerance):
        return replace(ready, random=True, notes=(*ready.notes, "random: its answers are averaged"))
    folded = False
    if bench.folded is not None and sloped is not None:
        tried = replace(ready, module=_like(bench.plain, bench.folded))
        got, other = _sloped(tried, sample)
        why = "" if _agree(expected, got, tolerance) else "the folded model answered otherwise"
        if not why and not _parallel(sloped[1], other, max(_SLOPES, 10 * tolerance)):
            why = "the folded model has other gradients"
        folded = not why
        note = f"folded {bench.count} BatchNorm layers" if folded else f"not folded: {why}"
        ready = replace(tried if folded else ready, notes=(*ready.notes, note))
    layers = [part for part in ready.module.modules() if isinstance(part, nn.Conv2d)]
    if sample.ndim != 4 or not layers or max(layer.in_channels for layer in layers) < _WIDE:
        return ready
    if folded not in bench.wide:
        bench.wide[folded] = _in_channels_last(ready.module)
    wide = replace(ready, module=bench.wide[folded], channels_last=True, notes=(*ready.notes, "channels last"))
    try:
        return wide if _agree(expected, wide.logits(wide.tensor(x_sample[:_COMPARED])), tolerance) else ready
    except RuntimeError:  # a module that calls `view` on its features cannot take them in this order
        return ready


def _plain(bench: _Bench, meter: Meter) -> Prepared:
    import torch

    device, dtype = _place(bench.plain)
    wide = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    return Prepared(_like(bench.plain, bench.plain), device, wide, meter)


def _like(plain: nn.Module, module: nn.Module) -> nn.Module:
    """The module, asked in float32 where the plain one computes in half precision."""
    import torch

    from casemate.engine.single import Single

    dtype = _place(plain)[1]
    return module if dtype in (torch.float32, torch.float64) else Single(module, dtype).eval()


def _within_memory(ready: Prepared, sample: Tensor) -> Prepared:
    """As many rows at once as the memory of a graph allows, from what two rows of the sample keep for the way back."""
    import torch

    rows = sample[:2].detach().requires_grad_(True)
    ready.meter.charge(forwards=len(rows))
    own = {tensor.untyped_storage().data_ptr() for tensor in chain(ready.module.parameters(), ready.module.buffers())}
    saved: dict[int, int] = {}
    largest = [rows.nbytes]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    def seen(module: nn.Module, args: Any, out: Any) -> None:
        largest.append(out.nbytes if isinstance(out, torch.Tensor) else 0)

    watch = torch.nn.modules.module.register_module_forward_hook(seen)
    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), drawn(0, "size"):
            held = ready.module(rows)  # alive to the end, so that no two tensors take the same place
    except Exception:  # the user's code may not take so few rows
        return ready
    finally:
        watch.remove()
    del held
    kept_for_later = sum(size for place, size in saved.items() if place not in own)
    each = max(1, (kept_for_later + _PASSING * max(largest)) // max(1, len(rows)))
    return replace(ready, row_bytes=each)


def _frozen(module: nn.Module) -> nn.Module:
    """A frozen copy in eval mode; the user's module stays as it is."""
    try:
        plain = copy.deepcopy(module)
    except Exception as error:  # a module may hold anything; the original may be in train mode, and is not ours to run
        raise Unavailable(
            f"expected a module that can be copied, got {type(error).__name__}: detach tensors that it keeps, or use "
            "attacks that need no gradients"
        ) from error
    for parameter in plain.parameters():
        parameter.requires_grad_(False)
    return plain.eval()


def _place(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    import torch

    tensors = chain(module.parameters(), module.buffers())
    first = next((tensor for tensor in tensors if tensor.is_floating_point()), None)
    return (torch.device("cpu"), torch.get_default_dtype()) if first is None else (first.device, first.dtype)


def _mean(answers: list[Tensor]) -> Tensor:
    import torch

    return answers[0] if len(answers) == 1 else torch.stack(answers).mean(dim=0)


def _decided(logits: Tensor, answers: list[Tensor]) -> Tensor:
    """The mean logits where nearly all answers name their highest class; much the same ones where not."""
    import torch

    if len(answers) == 1:
        return logits
    top = logits.argmax(dim=1)
    agreeing = torch.stack([answer.argmax(dim=1) == top for answer in answers]).double().mean(dim=0)[:, None]
    apart = logits - logits.mean(dim=1, keepdim=True)
    apart = apart / apart.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(apart.dtype).tiny)
    close = 1 + torch.where(agreeing > 0.5, _BARELY * torch.finfo(apart.dtype).eps * apart, 0.0)
    return torch.where(agreeing >= _SURE, logits, close)


def _padded(logits: Tensor, top: int, n: int) -> Tensor:
    """The logits of some rows among zeros for all others, `(n, k)`."""
    import torch

    return torch.nn.functional.pad(logits, (0, 0, top, n - top - len(logits)))


def _pulled(leaf: Tensor, outputs: list[Tensor], pull: Tensor) -> Tensor:
    """The gradient of one part from that of its mean logits."""
    import torch

    pulls = [pull.to(end.dtype) / len(outputs) if len(outputs) > 1 else pull for end in outputs]
    return torch.nan_to_num(slope_at(leaf, outputs, pulls), posinf=0.0, neginf=0.0)


def slope_at(leaf: Tensor, ends: list[Tensor], pulls: list[Tensor] | None = None, *, again: bool = False) -> Tensor:
    """The gradient at `leaf (n, ...)` of outputs, each with its pull (None: numbers); 0 where there is no way back.

    `again`: the graph is kept.
    """
    import torch

    found = None
    if way := [k for k, end in enumerate(ends) if end.requires_grad]:
        given, back = None if pulls is None else [pulls[k] for k in way], [ends[k] for k in way]
        try:
            (found,) = torch.autograd.grad(back, [leaf], given, retain_graph=again, allow_unused=True)
        except RuntimeError as error:
            # Of heaviside, for one, which has no derivative, not even 0; and of a function without a backward pass.
            if not isinstance(error, NotImplementedError) and "not implemented" not in str(error):
                raise
    return torch.zeros_like(leaf) if found is None else found


def _close(expected: Tensor, got: Tensor, tolerance: float) -> bool:
    """Whether two answers are the same up to rounding; what is no number twice is the same."""
    same = (got == expected) | (got.isnan() & expected.isnan())
    span = expected.nan_to_num(posinf=0.0, neginf=0.0).abs().amax().clamp(min=1e-3) if expected.numel() else 1.0
    return bool((same | ((got - expected).abs() <= tolerance * span)).all())


def _agree(expected: Tensor, got: Tensor, tolerance: float) -> bool:
    import torch

    if got.shape != expected.shape or not torch.equal(expected.argmax(1), got.argmax(1)):
        return False
    return bool((got - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1e-3))


def _sloped(ready: Prepared, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of a sum of all of them: no two weighed alike, as softmax has a sum without slope."""
    import torch

    logits, _, slope = ready.gradient(x, lambda z: z @ torch.arange(1, 1 + z.shape[1], dtype=z.dtype, device=z.device))
    return logits, slope


def _parallel(expected: Tensor, got: Tensor, tolerance: float) -> bool:
    return bool((got - expected).norm() <= tolerance * expected.norm())


def _in_channels_last(module: nn.Module) -> nn.Module:
    """A copy of the same in channels-last memory.

    Decided by structure and never by a clock: the choice changes the rounding, and a report must not depend on how busy
    the machine was. It pays from a few channels on (see `benchmarks/evasion_apgd.py`); with one or two there is nothing
    to gain.
    """
    import torch

    moved = copy.deepcopy(module)
    for parameter in moved.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return moved


_WIDE = 8
