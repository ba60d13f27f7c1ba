"""Adapters: from what a user has (an estimator, a module, a function, a file) to what an audit asks of it.

The only code that knows frameworks' objects and files. `wrap` makes a `core.model.Model` of a native object; nothing is
imported that the object does not bring along itself.

- `loading`: which adapter opens which model file. `extras`: what has to be installed for it.
- `sklearn`: estimators and pipelines, their closed forms and recipes. `skops`: their files.
- `xgboost`, `lightgbm`: boosters, their files and their trees.
- `torch`: modules and files of weights. `exported`: `.pt2` programs. `onnx`: graphs, through onnxruntime.
- `huggingface`: folders of text classifiers. `http`: endpoints. `function`: anything that can be called.
- `data`, `schema`, `tables`: CSV, Parquet, NPZ and arrays as `core.data.Data` with a schema that is inferred, shown
  and overridden.
- `labels`: class names and indices. `digest`: one name for a model's weights. `imports`: `pkg.module:name`.

The attacker here writes the files. What is loaded are the bytes that were scanned. A skops file may hold reviewed types
only, weights are read without running code, arrays without pickles; a pickle is opened where a scan finds it harmless,
in isolation, or where the user says that it is trusted. What this layer cannot see: whether weights were tampered with
(formats and their signatures do), and what a trusted pickle or factory does.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, cast

import numpy as np

from casemate.adapters.digest import from_framework
from casemate.core.model import Model
from casemate.core.schema import Schema
from casemate.errors import ModelError

__all__ = ["wrap"]

_FRAMEWORKS = {
    "xgboost": "xgboost:wrap_booster",
    "lightgbm": "lightgbm:wrap_booster",
    "torch": "torch:wrap_torch",
}
"""Where an object comes from -> who wraps it; all take `classes`, `schema`, `name` and `logits` as `wrap` does."""


def wrap(
    native: Any,
    *,
    classes: Sequence[str] | None = None,
    schema: Schema | None = None,
    name: str | None = None,
    logits: bool | None = None,
) -> Model:
    """A model around a scikit-learn estimator, a torch module or a callable; a `Model` passes through.

    `classes` are the names of the class indices in the data, `schema` describes one sample. `logits` says what a module
    (default: logits) or a function returns: logits or probabilities; left open, a function's answer to a few samples of
    the schema tells, and without a schema it is held to return labels.
    Raises `ModelError` for anything else, and where model, classes and schema do not fit together.
    """
    if isinstance(native, Model):
        return native
    if isinstance(native, type):
        raise ModelError(f"expected a fitted model, got the class {native.__name__}: make one and fit it")
    if hasattr(native, "as_model"):  # what one of our adapters opened
        return cast(Model, native.as_model(classes=classes, schema=schema, name=name, logits=logits))
    for framework, spec in _FRAMEWORKS.items():
        if from_framework(native, framework):
            module, _, function = spec.partition(":")
            wrapper = getattr(import_module(f"casemate.adapters.{module}"), function)
            return cast(Model, wrapper(native, classes=classes, schema=schema, name=name, logits=logits))
    if hasattr(native, "predict"):  # scikit-learn's protocol; whoever has it need not inherit from it
        from casemate.adapters.sklearn import wrap_estimator

        return wrap_estimator(native, classes=classes, schema=schema, name=name)
    if callable(native):
        from casemate.adapters.function import wrap_function

        return wrap_function(native, output=_output(native, schema, logits), classes=classes, name=name)
    raise ModelError(
        f"expected an estimator, a torch module or a callable, got {type(native).__name__}: pass the fitted model"
    )


def _output(function: Any, schema: Schema | None, logits: bool | None) -> str:
    if logits is not None:
        return "logits" if logits else "scores"
    if schema is None:
        return "labels"
    from casemate.adapters.function import Calls
    from casemate.adapters.probing import probes

    x = probes(schema, 8)
    answer = Calls(function, "", 0).raw(x)
    if answer.ndim != 2:
        return "labels"
    sums = answer.sum(axis=1)
    return "scores" if (answer >= 0).all() and np.allclose(sums, 1, atol=1e-4) else "logits"
