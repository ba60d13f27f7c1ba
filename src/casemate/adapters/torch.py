"""Torch modules as models, evaluated in eval mode on a copy; weights from files that run no code."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.affine import agrees
from casemate.adapters.archives import check_archive
from casemate.adapters.digest import fingerprint
from casemate.adapters.extras import need
from casemate.adapters.function import softmax
from casemate.adapters.imports import import_object
from casemate.adapters.loading import Declared
from casemate.adapters.probing import probes
from casemate.adapters.verdicts import Held, check_verdict, hold
from casemate.core.model import Affine, Model, Task, best_of
from casemate.core.schema import Schema
from casemate.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["build_module", "load_weights", "open_weights", "save_weights", "wrap_module", "wrap_torch"]

Array = NDArray[Any]


def wrap_torch(
    native: Any, *, classes: Sequence[str] | None, schema: Schema | None, name: str | None, logits: bool | None
) -> Model:
    """A model around a module of torch, as `wrap_module`; raises `ModelError` for anything else of torch's."""
    if not hasattr(native, "state_dict") or not hasattr(native, "modules"):
        raise ModelError(f"expected a torch.nn.Module, got {type(native).__name__}: pass the module")
    return wrap_module(native, classes=classes, schema=schema, name=name, probabilities=logits is False)


def wrap_module(
    module: nn.Module,
    *,
    classes: Sequence[str] | None = None,
    schema: Schema | None = None,
    input_dtype: torch.dtype | None = None,
    batch_size: int = 256,
    name: str | None = None,
    probabilities: bool = False,
    regression: bool = False,
) -> Model:
    """A model around a module that maps a batch `(n, ...)` to logits `(n, k)`, or to one logit `(n,)`, `(n, 1)`.

    The given module is left as it is: `notes["mode"]` says whether it was in train or eval mode, and what is evaluated
    (and offered as `module`) is a deep copy in eval mode on the same device. One logit `z` becomes the columns
    `(-z / 2, z / 2)`; with `probabilities` the output is one, and the logits are its logarithm. With `regression` one
    output is the predicted number. numpy in and out, cast to `input_dtype` (default: the parameters'), in batches of
    `batch_size`; scores are in float64. A part without a gradient may carry a `stand_in`, see `engine.straight`.
    Raises `ModelError` where the module fails on a sample of the schema, or its output does not fit these classes.
    """
    mode = "train" if any(part.training for part in module.modules()) else "eval"
    own = _copied(module)
    kept, device = _place(own)
    dtype = input_dtype or kept
    x = None if schema is None else probes(schema, 3)
    if regression:
        return _regressor(_Calls(own, dtype, device, batch_size), x, name or type(module).__name__, fingerprint(module))
    shaped, k = _shaped(_Calls(own, dtype, device, batch_size), x, probabilities, len(classes) if classes else 0)
    calls = _Calls(shaped, dtype, device, batch_size, last=_last_linear(own))
    return Model(
        name=name or type(module).__name__,
        digest=fingerprint(module),
        labels=calls.labels,
        classes=tuple(classes) if classes else tuple(str(index) for index in range(k)),
        scores=calls.scores,
        logits=calls.logits,
        activations=calls.activations if calls.has_activations(x) else None,
        module=shaped,
        affine=None if shaped is not own else _affine(own, calls, x),
        framework="torch",
        notes={
            "mode": mode,
            "device": str(device),
            "dtype": str(dtype).removeprefix("torch."),
            "outputs": "probabilities" if probabilities else "logits",
        },
    )


def _regressor(calls: _Calls, x: Array | None, name: str, digest: str) -> Model:
    """A model whose labels are the module's one output `(n,)` or `(n, 1)`; its module gives the latter."""
    from torch import nn

    if x is not None and ((out := _tried(calls, x)).ndim > 2 or out.numel() != len(x)):
        raise ModelError(f"expected one number for each sample, got {tuple(out.shape)}: return (n,) or (n, 1)")
    column = nn.Sequential(calls.module, nn.Flatten(0), nn.Unflatten(0, (-1, 1))).eval()
    asked = replace(calls, module=column)
    return Model(name, digest, asked.values, task=Task.REGRESSION, module=column, framework="torch")


def build_module(factory: str, *, folder: Path | None = None) -> nn.Module:
    """The module that `pkg.module:build` returns when called without arguments.

    Raises `ModelError` for a factory that is not there, raises, or returns something else.
    """
    import torch

    build = import_object(factory, folder=folder)
    if not callable(build):
        raise ModelError(f"expected {factory} to be a function, got {type(build).__name__}: name the function")
    try:
        module = build()
    except Exception as error:  # the user's code may raise anything
        raise ModelError(
            f"expected {factory}() to build a module, got {type(error).__name__}: {error}: mend it"
        ) from error
    if not isinstance(module, torch.nn.Module):
        got = type(module).__name__
        raise ModelError(f"expected {factory}() to return a torch.nn.Module, got {got}: return the bare module")
    return module


def open_weights(path: Path, declared: Declared) -> nn.Module:
    """The module of the declared factory with the weights in a file, for `loading`; as `load_weights`."""
    need("torch", f"read {path.name}")
    if declared.factory is None:
        raise ConfigError(
            f"expected model.factory beside the weights {path.name}, got none: name the function that builds the "
            "module, as 'pkg.module:build'"
        )
    return _loaded(hold(path), declared)


def load_weights(path: str | Path, factory: str, *, folder: Path | None = None) -> nn.Module:
    """The module that `factory` builds, in eval mode, with the weights of a `.safetensors` file or a saved state_dict.

    A state_dict is read with `weights_only`: no code in it is run. Raises `ModelError` for a file that is missing,
    refused by its scan or holds anything else, for names or shapes that are not the module's, and as `build_module`.
    """
    file = Path(path)
    if not file.is_file():
        raise ModelError(f"expected a file of weights, got nothing at {file}: check [model] path")
    return _loaded(hold(file), Declared(factory, folder=folder))


def _loaded(held: Held, declared: Declared) -> nn.Module:
    factory, file = declared.factory or "", Path(held.name)
    check_archive(file, ModelError, held.data)
    check_verdict(held, runs=file.suffix.lower() != ".safetensors", trust=declared.trust, notes=declared.notes)
    module = build_module(factory, folder=declared.folder)
    missing, unexpected = _filled(module, held, declared)
    if missing or unexpected:
        parts = [f"no {_some(missing)}"] if missing else []
        parts += [f"unknown {_some(unexpected)}"] if unexpected else []
        raise ModelError(
            f"expected the weights of what {factory} builds in {file.name}, got {' and '.join(parts)}: name the "
            "factory that the weights were trained with"
        )
    return module.eval()


def save_weights(path: str | Path, module: nn.Module) -> None:
    """Write a module's weights as safetensors, whole or not at all; `load_weights` reads them back."""
    import safetensors.torch

    from casemate.formats import atomic

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    atomic.write(Path(path), safetensors.torch.save(tensors))


@dataclass(frozen=True)
class _Calls:
    """The answers of a module in eval mode; `last` is its last linear layer, whose input are the activations."""

    module: Any
    dtype: Any
    device: Any
    batch_size: int
    last: Any = field(default=None, repr=False)

    def labels(self, x: Array) -> Array:
        return best_of(self.logits(x))

    def values(self, x: Array) -> Array:
        return self.logits(x)[:, 0].astype(np.float64)

    def scores(self, x: Array) -> Array:
        return softmax(self.logits(x))

    def logits(self, x: Array) -> Array:
        import torch

        with torch.no_grad():
            parts = [_array(self.module(part)) for part in self.batches(x)]
        return np.asarray(np.concatenate(parts))

    def activations(self, x: Array) -> Array:
        import torch

        seen: list[Any] = []
        hook = self.last.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
        try:
            with torch.no_grad():
                for part in self.batches(x):
                    self.module(part)
        finally:
            hook.remove()
        return np.concatenate([_array(part.reshape(len(part), -1)) for part in seen])

    def has_activations(self, x: Array | None) -> bool:
        """Whether the last linear layer is passed once for each batch and keeps the samples apart."""
        if self.last is None:
            return False
        return x is None or len(self.activations(x)) == len(x)

    def batches(self, x: Array) -> list[Any]:
        """The samples as tensors on the module's device, `batch_size` at a time."""
        import torch

        sent = np.asarray(x)
        starts = range(0, max(len(sent), 1), self.batch_size)  # an empty batch passes once, for its shape
        parts = (np.ascontiguousarray(sent[start : start + self.batch_size]) for start in starts)
        # A copy: torch cannot be told that an array is read-only, and a module may work in place.
        return [torch.tensor(part, dtype=self.dtype, device=self.device) for part in parts]


def _array(answer: Any) -> Array:
    """An answer in its own precision; half precision, of which numpy knows only one kind, as float32."""
    return np.asarray((answer if answer.element_size() >= 4 else answer.float()).cpu().numpy())


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module).eval()
    except Exception as error:  # a module may hold anything
        raise ModelError(
            f"expected a module that can be copied, got {type(error).__name__}: {error}: detach tensors that it keeps"
        ) from error


def _place(module: nn.Module) -> tuple[torch.dtype, torch.device]:
    import torch

    tensors = [*module.parameters(), *module.buffers()]
    dtype = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)
    return dtype, next((tensor.device for tensor in tensors), torch.device("cpu"))


def _shaped(calls: _Calls, x: Array | None, probabilities: bool, k: int) -> tuple[Any, int]:
    """The module with `(n, k)` logits as output, and `k`; the module itself where it has them already."""
    if x is None:
        last = _last_linear(calls.module)
        columns = k or (last.out_features if last is not None else 0)
        return (_reshaped(calls.module, False, probabilities) if probabilities else calls.module), columns
    out = _tried(calls, x)
    single = out.ndim == 1 or (out.ndim == 2 and out.shape[1] == 1)
    if out.ndim > 2 or len(out) != len(x):
        raise ModelError(
            f"expected logits of shape ({len(x)}, k) for {len(x)} samples, got {tuple(out.shape)}: flatten the output"
        )
    found = 2 if single else int(out.shape[1])
    if k and found != k:
        number = (
            ", or for a number set [data] task = 'regression' (wrap_module(net, regression=True))" if single else ""
        )
        raise ModelError(
            f"expected {k} logits, one for each class, got {1 if single else found}: list its classes{number}"
        )
    return (_reshaped(calls.module, single, probabilities) if single or probabilities else calls.module), found


def _reshaped(module: Any, single: bool, probabilities: bool) -> Any:
    from casemate.adapters.shaping import Shaper

    return Shaper(module, single=single, probabilities=probabilities).eval()


def _tried(calls: _Calls, x: Array) -> Any:
    import torch

    try:
        with torch.no_grad():
            out = calls.module(replace(calls, batch_size=len(x)).batches(x)[0])
    except Exception as error:  # a module's own code may raise anything
        raise ModelError(
            f"expected the module to take samples of shape {x.shape[1:]} as {calls.dtype}, got {type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}: mend the shape or declare kind and channels"
        ) from error
    if not isinstance(out, torch.Tensor):
        raise ModelError(f"expected the module to return one tensor, got {type(out).__name__}: return the logits alone")
    return out


def _last_linear(module: nn.Module) -> Any:
    from torch import nn

    layers = [part for part in module.modules() if isinstance(part, nn.Linear)]
    return layers[-1] if layers else None


def _affine(module: nn.Module, calls: _Calls, x: Array | None) -> Affine | None:
    """The closed form of linear layers in a row; checked against the module."""
    from torch import nn

    layers = list(module) if isinstance(module, nn.Sequential) else [module]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    idle = (nn.Flatten, nn.Identity, nn.Dropout)
    if not linear or not all(isinstance(layer, (nn.Linear, *idle)) for layer in layers):
        return None
    weights, bias = np.eye(linear[0].in_features), np.zeros(linear[0].in_features)
    for layer in linear:
        matrix = layer.weight.detach().double().cpu().numpy()
        offset = 0.0 if layer.bias is None else layer.bias.detach().double().cpu().numpy()
        weights, bias = matrix @ weights, matrix @ bias + offset
    if x is None:
        x = np.random.default_rng(0).normal(size=(8, linear[0].in_features)).astype(np.float32)
    found = Affine(weights, bias)
    return found if agrees(found, calls.logits, np.nan_to_num(x).astype(np.float32)) else None


def _filled(module: nn.Module, file: Held, declared: Declared) -> tuple[list[str], list[str]]:
    """Put the weights of a file into the module: names that it lacked, names that it did not know."""
    state = _state_of(file, declared)
    kept = module.state_dict()
    wrong = [name for name in state if name in kept and state[name].shape != kept[name].shape]
    if wrong:
        name = wrong[0]
        raise ModelError(
            f"expected {name} of shape {tuple(kept[name].shape)}, as the factory builds it, got "
            f"{tuple(state[name].shape)} in {file.name} ({len(wrong)} such): name the factory of these weights"
        )
    other = next((name for name in state if name in kept and _sort(state[name]) != _sort(kept[name])), None)
    if other is not None:  # torch would cast them: whole numbers without their scale, complex ones without a half
        raise ModelError(
            f"expected {other} as {kept[other].dtype}, as the factory builds it, got {state[other].dtype} "
            f"({_layout(state[other])}) in {file.name}: save the state_dict as it was trained"
        )
    try:
        result = module.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        raise ModelError(
            f"expected weights for the module in {file.name}, got others ({str(error).splitlines()[0]}): save the "
            "state_dict again"
        ) from error
    return sorted(result.missing_keys), sorted(result.unexpected_keys)


def _sort(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.is_quantized, _layout(tensor)


def _layout(tensor: torch.Tensor) -> str:
    return f"{tensor.layout} on meta".removeprefix("torch.") if tensor.is_meta else str(tensor.layout)


def _state_of(file: Held, declared: Declared) -> Mapping[str, Any]:
    import torch

    try:
        if file.name.lower().endswith(".safetensors"):
            found: Any = need("safetensors.torch", f"read {file.name}").load(file.data)
        else:
            found = _unpickled(file, declared)
    except Exception as error:  # bytes from outside: zip, pickle and safetensors each have their own errors
        raise ModelError(
            f"expected a file of weights, got {type(error).__name__} from {file.name}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}: save the state_dict, best as safetensors"
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in found.items()
    ):
        raise ModelError(f"expected a state_dict in {file.name}, got {type(found).__name__}: save module.state_dict()")
    return found


def _unpickled(file: Held, declared: Declared) -> Any:
    """What torch's own restricted unpickler makes of the bytes; Python's, where the user trusts what that refuses."""
    import torch

    try:
        return torch.load(io.BytesIO(file.data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not declared.trust:
            raise
    found = torch.load(io.BytesIO(file.data), map_location="cpu", weights_only=False)
    declared.notes["trust"] = f"a {file.scanned.level} file of weights, unpickled because --trust said so"
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f", ... ({len(names)} in all)" if len(names) > 3 else "")
