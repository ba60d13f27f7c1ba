"""Gradients past what has none: the forward pass stays exact, the backward pass goes straight through.

A file of its own because it needs torch to define its classes; load it where torch is wanted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Straight"]


class Straight(nn.Module):
    """The same answers as `inner`, with gradients through operations that have none or one of 0.

    Backward pass differentiable approximation (BPDA): Athalye, Carlini and Wagner, Obfuscated gradients give a false
    sense of security, ICML 2018, section 4.1. Their `g(x) = x` (4.1.1) stands in for round, floor, ceil, trunc, sign,
    heaviside and casts to whole numbers; a comparison `a > b` counts as `a - b` where it is turned into numbers, picks
    from two (`where`) or is counted; `detach` and `no_grad` are passed over. Which operations is ours, and the result
    is a heuristic: the stand-in may point the wrong way.

    For anything else a part of the module may carry `stand_in`, a differentiable function (or module) of the same
    inputs whose output has the same shape (4.1.2): its backward pass is used in place of the part's own. `bypassed`
    names what was passed over so far; `stands_in` says whether any part has one.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.stands_in = any(callable(getattr(part, "stand_in", None)) for part in inner.modules())
        self.inner = copy.deepcopy(inner) if self.stands_in else inner  # no hook may stay on the plain one
        self.bypassed: set[str] = set()
        for part in self.inner.modules() if self.stands_in else ():
            if callable(getattr(part, "stand_in", None)):
                part.register_forward_hook(self._stood_in, with_kwargs=True)

    def forward(self, x: Tensor) -> Tensor:
        """What `inner` answers to `x (n, ...)`."""
        with _Bypass(self.bypassed):
            # A clone: the module may work in place on what it believes to be a detached tensor.
            out: Tensor = self.inner(x.clone())
        return out

    def _stood_in(self, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return out
        stand_in: Any = part.stand_in
        self.bypassed.add("stand_in")
        return _through(out, stand_in(*args, **kwargs))


class _Through(torch.autograd.Function):
    """Forward the first tensor, backward the second."""

    @staticmethod
    def forward(ctx: Any, hard: Tensor, soft: Tensor) -> Tensor:
        ctx.dtype = soft.dtype
        return hard.clone()

    @staticmethod
    def backward(ctx: Any, *pulls: Any) -> Any:
        return None, pulls[0].to(ctx.dtype)


def _through(hard: Tensor, soft: Tensor) -> Tensor:
    found: Tensor = _Through.apply(hard, soft.expand_as(hard))  # type: ignore[no-untyped-call]  # torch has no types
    return found


class _Bypass(TorchFunctionMode):
    """Sends the functions of torch that a module calls by the rules below.

    A tensor of booleans or whole numbers cannot carry a gradient, so what it was made from is written on it (`_soft`)
    until it becomes a number again.
    """

    def __init__(self, bypassed: set[str]) -> None:
        super().__init__()
        self.bypassed = bypassed

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = _RULES.get(func)
        if rule is None:
            return func(*args, **(kwargs or {}))
        found = rule(func, args, dict(kwargs or {}))
        if found is NotImplemented:
            return func(*args, **(kwargs or {}))
        self.bypassed.add(getattr(func, "__name__", str(func)))
        return found


Rule = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""`(function, args, kwargs) -> what it returns`, or NotImplemented where it is to be called as it is."""


def _live(value: Any) -> bool:
    """Whether a gradient may arrive here."""
    return isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled()


def _soft(value: Any) -> Tensor | None:
    found: Tensor | None = getattr(value, "_soft", None) if isinstance(value, Tensor) else None
    return found if found is not None and torch.is_grad_enabled() else None


def _softened(value: Any) -> Any:
    """A marked tensor as numbers with a gradient; anything else as it is."""
    soft = _soft(value)
    if soft is not None:
        return _through(value.detach().to(soft.dtype), soft)
    if type(value) in (list, tuple):
        return type(value)(_softened(item) for item in value)
    return value


def _given(hard: Tensor, soft: Tensor) -> Tensor:
    """The exact result with the gradient of the soft one: at once where it can carry one, else written on it."""
    if hard.is_floating_point():
        return _through(hard.detach(), soft)
    hard._soft = soft  # type: ignore[attr-defined]
    return hard


def _rounded(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The identity backwards."""
    if not _live(args[0]):
        return NotImplemented
    name = getattr(func, "__name__", "")
    if name.endswith("_") and not name.endswith("__"):
        own = args[0]
        hard = func(own.detach().clone(), *args[1:], **kwargs)
        return own.copy_(_through(hard, own.clone()))
    return _through(func(args[0].detach(), *args[1:], **kwargs), args[0])


def _sawtooth(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What rounding takes away has no slope where rounding has slope 1."""
    return func(args[0].detach(), *args[1:], **kwargs) if _live(args[0]) else NotImplemented


def _compared(sign: int) -> Rule:
    def rule(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs or not any(_live(value) for value in args):
            return NotImplemented
        hard = func(*args)
        hard._soft = sign * (args[0] - args[1])
        return hard

    return rule


def _cast(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """To whole numbers: remember; back to floats: the identity backwards."""
    own = args[0]
    soft = own if _live(own) else _soft(own)
    if soft is None:
        return NotImplemented
    hard = func(own, *args[1:], **kwargs)
    if not isinstance(hard, Tensor) or hard is own or (own.is_floating_point() and hard.is_floating_point()):
        return NotImplemented
    return _given(hard, soft.to(hard.dtype) if hard.is_floating_point() else soft)


def _as_numbers(smooth: Callable[..., Tensor] | None = None) -> Rule:
    """Arithmetic, and moves of entries, on what is marked: the same on numbers (or `smooth`) has the gradient."""

    def rule(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        marked = any(_soft(value) is not None for value in _flat(args))
        stepped = smooth is not None and any(_live(value) for value in args)
        if not marked and not stepped:
            return NotImplemented
        hard = func(*args, **kwargs)
        return _given(hard, (smooth or func)(*map(_softened, args), **({} if smooth else kwargs)))

    return rule


def _flat(args: Sequence[Any]) -> list[Any]:
    return [item for value in args for item in (value if type(value) in (list, tuple) else [value])]


def _picked(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`where(condition, a, b)` as a mixture of both."""
    if len(args) != 3 or _soft(args[0]) is None:
        return NotImplemented
    hard, part = func(*args, **kwargs), _softened(args[0])
    return _given(hard, part * args[1] + (1 - part) * args[2])


def _looked_up(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A place in a list of levels: as steep as the list is from its first to its last."""
    table, index = args
    soft = _soft(index)
    if soft is None or index.dtype == torch.bool or table.ndim != 1 or not table.is_floating_point():
        return _as_numbers()(func, args, kwargs) if _soft(table) is not None else NotImplemented
    slope = (table[-1] - table[0]) / max(len(table) - 1, 1)
    return _through(table[index], slope * soft)


def _placed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Between which edges a value lies: one step up from each edge to the next."""
    value, edges = args[:2] if func is torch.bucketize else args[1::-1]
    if not _live(value) or edges.ndim != 1 or len(edges) < 2:
        return NotImplemented
    return _given(func(*args, **kwargs), value * ((len(edges) - 1) / (edges[-1] - edges[0])))


def _joint(both: Callable[[Tensor, Tensor], Tensor]) -> Rule:
    def rule(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        soft = [_soft(value) for value in args]
        if len(soft) != 2 or soft[0] is None or soft[1] is None or args[0].dtype != torch.bool:
            return NotImplemented
        return _given(func(*args, **kwargs), both(soft[0], soft[1]))

    return rule


def _turned(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    soft = _soft(args[0])
    if soft is None or args[0].dtype != torch.bool:
        return NotImplemented
    return _given(func(*args, **kwargs), -soft)


def _still_here(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if _live(args[0]) else NotImplemented


def _taken_out(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A tensor that was detached for numpy is not any more; numpy gets one that is."""
    return func(args[0].detach(), *args[1:], **kwargs) if _live(args[0]) else NotImplemented


def _still_enabled(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`no_grad` inside the module: the attacker's graph goes on."""
    return None if torch.is_grad_enabled() and not any(args) else NotImplemented


def _table() -> Mapping[Any, Rule]:
    numbers = (
        "add sub subtract mul multiply div divide true_divide neg negative rsub __add__ __radd__ __sub__ __rsub__ "
        "__mul__ __rmul__ __truediv__ __rtruediv__ __rdiv__ __neg__ __pow__ pow sum mean cumsum prod reshape view "
        "flatten permute transpose movedim swapaxes unsqueeze squeeze cat concat stack hstack vstack expand repeat "
        "contiguous clone flip matmul __matmul__ clamp clip abs"
    )
    rules: list[tuple[str, Rule]] = [
        ("round floor ceil trunc fix sign sgn heaviside", _rounded),
        ("round_ floor_ ceil_ trunc_ fix_ sign_ sgn_ heaviside_", _rounded),
        ("remainder fmod frac __mod__ __rmod__", _sawtooth),
        ("gt ge greater greater_equal __gt__ __ge__", _compared(1)),
        ("lt le less less_equal __lt__ __le__", _compared(-1)),
        ("float double half bfloat16 int long short char byte bool to type type_as", _cast),
        ("quantize_per_tensor dequantize", _cast),
        (numbers, _as_numbers()),
        ("floor_divide __floordiv__", _as_numbers(torch.true_divide)),
        ("__rfloordiv__", _as_numbers(lambda a, b: b / a)),
        ("where", _picked),
        ("__getitem__", _looked_up),
        ("bucketize searchsorted", _placed),
        ("logical_and bitwise_and __and__ __rand__", _joint(torch.minimum)),
        ("logical_or bitwise_or __or__ __ror__", _joint(torch.maximum)),
        ("logical_not bitwise_not __invert__", _turned),
        ("detach", _still_here),
        ("numpy tolist item __array__", _taken_out),
    ]
    table: dict[Any, Rule] = {torch._C._set_grad_enabled: _still_enabled, torch.Tensor.data.__get__: _still_here}  # type: ignore[attr-defined]
    for names, rule in rules:
        for name in names.split():
            for place in (torch, Tensor):
                if callable(found := getattr(place, name, None)) and not isinstance(found, type):
                    table[found] = rule
    return table


_RULES = _table()
