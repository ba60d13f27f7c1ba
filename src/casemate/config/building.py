"""From settings to what is audited: the model, the splits and the recipe that casemate.toml names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casemate.adapters import wrap
from casemate.adapters.digest import fingerprint, from_framework
from casemate.adapters.imports import import_object
from casemate.adapters.loading import Declared, load_model
from casemate.core.budget import parse_budget
from casemate.core.case import Case, Recipe
from casemate.core.data import Splits
from casemate.core.model import Model, Task
from casemate.core.policy import Accepted, Gate, Policy
from casemate.core.schema import Relation
from casemate.errors import CasemateError, ConfigError, DataError, ModelError

if TYPE_CHECKING:
    import numpy as np

    from casemate._audit import Order
    from casemate.config.settings import Settings
    from casemate.core.budget import Budget
    from casemate.core.data import Data
    from casemate.core.schema import Schema

__all__ = ["budget_of", "case_of", "order_of", "policy_of"]

_ASKED = ("protocol", "request", "response", "tensor", "answer", "headers", "batch")
_SENT = ("requests_per_second", "timeout", "tries")


def case_of(settings: Settings, *, queries: int | None = None, sent_before: int = 0) -> Case:
    """The case that settings describe: the model is loaded, every split is read, the recipe is imported.

    Class names are those that are declared, else an estimator's own, else those in the data. `queries` is the most that
    an endpoint may be sent (None: the count in [audit] budget, if there is one), of which an interrupted audit sent
    `sent_before`. Raises `ConfigError` where neither model nor data are named, `ModelError` and `DataError` for what
    does not load or fit.
    """
    from casemate.engine.bundles import bundle_of

    notes: dict[str, str] = {}
    native = _endpoint(settings, queries, sent_before) if settings.model.url is not None else _native(settings, notes)
    if native is None and not settings.data.files:
        raise ConfigError("expected a model or data, got neither: name [model] path or [data] test")
    splits, classes = _splits(settings, native)
    schema = next((data.schema for data in splits.parts().values()), None)
    model = None if native is None else _noted(_modelled(settings, native, classes, schema), notes)
    declared = {} if settings.model.accuracy is None else {"accuracy": settings.model.accuracy}
    return Case(
        name=settings.name or (model.name if model else settings.folder.name or "case"),
        model=model,
        bundle=None if model is None else bundle_of(model, schema),
        splits=splits,
        recipe=_recipe(settings, native, classes, schema),
        declared=declared,
        files=_files(settings),
    )


def _files(settings: Settings) -> tuple[Path, ...]:
    """What the model is loaded from: a file, or all files of a folder."""
    path = settings.model.path
    if path is None:
        return ()
    return tuple(sorted(item for item in path.rglob("*") if item.is_file())) if path.is_dir() else (path,)


def policy_of(settings: Settings) -> Policy:
    """The policy that settings describe."""
    given = settings.policy
    gates = tuple(Gate(gate.metric, gate.at, gate.about, gate.min, gate.max) for gate in given.gate)
    accepted = tuple(Accepted(item.finding, item.until, item.reason) for item in given.accept)
    return Policy(given.fail_on, gates, accepted)


def order_of(settings: Settings) -> Order:
    """What settings ask of an audit: seed, thoroughness, budget, options of plug-ins, and what fails."""
    from casemate._audit import Order

    asked = settings.audit
    return Order(
        policy=policy_of(settings),
        seed=asked.seed,
        profile=asked.profile,
        budget=budget_of(settings),
        options=settings.probe,
        threads=asked.threads,
    )


def budget_of(settings: Settings, asked: str | None = None) -> Budget:
    """The budget that settings name, or that of a command line: a count, underscores and all, or a time.

    `{ queries = n }` is a count for an endpoint. Raises `ConfigError` for another form, and for queries without a URL.
    """
    if asked is not None:
        count = asked.replace("_", "")
        return parse_budget(int(count) if count.isdecimal() and len(count) < 20 else asked)
    given = settings.audit.budget
    if isinstance(given, dict) and "queries" in given:
        if settings.model.url is None:
            raise ConfigError(
                "expected model.url beside budget = { queries = n }, got none: write { propagations = n }"
            )
        return parse_budget(given["queries"])
    return parse_budget(given)


def _native(settings: Settings, notes: dict[str, str]) -> Any:
    """The estimator, module or function, `None` where none is named; `notes` gets how a file was opened."""
    given, folder = settings.model, settings.folder
    if alone := sorted(given.model_fields_set & {*_ASKED, *_SENT, "cost_per_query"}):
        raise ConfigError(f"expected model.url beside model.{alone[0]}, got none: name the endpoint")
    if settings.isolate and given.path is None:
        raise ConfigError("expected model.path for --isolate, got another model or none: leave --isolate out")
    if given.function is not None:
        if given.path is not None or given.factory is not None:
            raise ConfigError("expected model.function alone, got it beside path or factory: name one model")
        return import_object(given.function, folder=folder, what="function")
    if given.path is None:
        return None if given.factory is None else _built(given.factory, settings)
    declared = Declared(given.factory, given.trusted, settings.trust, folder, settings.isolate, notes)
    return load_model(given.path, declared)


def _endpoint(settings: Settings, queries: int | None, sent_before: int) -> Any:
    from casemate.adapters.http import Asking, open_endpoint
    from casemate.adapters.sending import Sending

    given = settings.model
    if given.path is not None or given.factory is not None or given.function is not None:
        raise ConfigError("expected model.url alone, got it beside path, factory or function: name one model")
    if not isinstance(given.url, str):
        raise ConfigError("expected text as model.url, got another type: write it in quotes")
    if settings.audit.executor != "inline":
        raise ConfigError("expected executor = 'inline' beside model.url, got another: its limits hold for one process")
    limit = queries or budget_of(settings).propagations
    sending = Sending(queries=limit, **{name: getattr(given, name) for name in _SENT})
    how = {name: getattr(given, name) for name in ("url", "outputs", "cost_per_query", *_ASKED)}
    return open_endpoint(Asking(**how, sending=sending, authorised=settings.authorised, sent_before=sent_before))


def _built(factory: str, settings: Settings) -> Any:
    build = import_object(factory, folder=settings.folder)
    if not callable(build) or hasattr(build, "predict"):
        return build
    try:
        return build()
    except CasemateError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ModelError(
            f"expected {factory}() to build a model, got {type(error).__name__}: {error}: mend it"
        ) from error


def _splits(settings: Settings, native: Any) -> tuple[Splits, tuple[str, ...]]:
    from casemate.adapters.data import Reading, read_splits

    given = settings.data
    own = _own_classes(native)
    classes = settings.model.classes or own
    if not given.files:
        return Splits(), classes or ()
    if hasattr(native, "predict") and from_framework(native, "sklearn"):
        from casemate.adapters.sklearn import check_fitted

        check_fitted(native)  # one that is not fitted has no classes either, and would pass for a regressor
    reading = Reading(
        target=given.target,
        sensitive=given.sensitive,
        exclude=given.exclude,
        overrides=settings.columns,
        classes=classes or None,
        kind=given.kind,
        bounds=given.bounds,
        task=_task(settings, native),
        drop_sensitive=given.drop_sensitive,
        source=given.source,
        one_hot=given.one_hot,
        relations=tuple(Relation(*text.split(" <= ", 1)) for text in given.relations),
        text=given.text,
        labels=given.labels,
    )
    splits, names = read_splits(given.files, reading)
    bare = [name for name, data in splits.parts().items() if native is not None and data.y is None]
    if bare:
        raise DataError(
            f"expected labels to hold the model's answers against, got none in the {bare[0]} data: name their column "
            f"(or array) as [data] target, or their file beside a .npy as {bare[0]}_labels"
        )
    return splits, names


def _task(settings: Settings, native: Any) -> Task:
    """What the target is: as [data] task says, else as the model does."""
    if settings.data.task is not None:
        return settings.data.task
    if isinstance(native, Model):
        return native.task
    # Only of scikit-learn's does the absence of classes say that it is a regressor: a booster has none either.
    regressor = hasattr(native, "predict") and from_framework(native, "sklearn") and _own_classes(native) == ()
    return Task.REGRESSION if regressor else Task.CLASSIFICATION


def _own_classes(native: Any) -> tuple[str, ...]:
    from casemate.adapters.labels import class_name

    if isinstance(native, Model):
        return native.classes
    found = getattr(native, "classes_", None)
    return () if found is None or isinstance(found, list) else tuple(class_name(value) for value in found)


def _modelled(settings: Settings, native: Any, classes: tuple[str, ...], schema: Schema | None) -> Model:
    """The model, held to the task of the data: a classifier that is told numbers would be called broken everywhere."""
    task = _task(settings, native)
    if isinstance(native, Model):
        model = _as_wrapped(settings, native)
    elif task is Task.REGRESSION:
        model = _regressor(settings, native, schema)
    else:
        model = _model(settings, native, classes, schema)
    if settings.data.files and model.task is not task:
        raise ConfigError(
            f"expected a model for [data] task = {str(task)!r}, got one for {model.task} ({model.name}): mend task, or "
            "name a model of that task"
        )
    return model


def _as_wrapped(settings: Settings, model: Model) -> Model:
    """A model that the user's code wrapped: what [model] says beside it was said there."""
    given = settings.model
    beside = [name for name in ("outputs", "classes") if getattr(given, name) not in (None, getattr(model, name, None))]
    if beside:
        raise ConfigError(
            f"expected model.{beside[0]} beside a bare module or function, got it beside a wrapped model: say it where "
            "that is wrapped"
        )
    return replace(model, name=given.name or model.name)


def _regressor(settings: Settings, native: Any, schema: Schema | None) -> Model:
    """A model whose one output is the predicted number; raises `ConfigError` for `outputs` of a classifier."""
    given = settings.model
    if given.outputs in ("logits", "scores"):
        raise ConfigError(f"expected no outputs beside task = 'regression', got {given.outputs!r}: leave it out")
    return _number(native, schema, given.name)


def _number(native: Any, schema: Schema | None, name: str | None = None) -> Model:
    if from_framework(native, "torch") and hasattr(native, "state_dict"):
        from casemate.adapters.torch import wrap_module

        return wrap_module(native, schema=schema, name=name, regression=True)
    if isinstance(native, Model) or not callable(native) or hasattr(native, "predict") or hasattr(native, "as_model"):
        return wrap(native, schema=schema, name=name)
    from casemate.adapters.function import wrap_function

    return wrap_function(native, output="labels", name=name, task=Task.REGRESSION)


def _model(settings: Settings, native: Any, classes: tuple[str, ...], schema: Schema | None) -> Model:
    given = settings.model
    if given.outputs == "labels" and given.url is None:
        from casemate.adapters.function import wrap_function

        if hasattr(native, "predict") or from_framework(native, "torch"):
            raise ConfigError("expected outputs = 'labels' for a function only, got another model: leave it out")
        return wrap_function(native, output="labels", classes=classes or None, name=given.name)
    logits = None if given.outputs is None else given.outputs == "logits"
    return wrap(native, classes=classes or None, schema=schema, name=given.name, logits=logits)


def _noted(model: Model, notes: Mapping[str, str]) -> Model:
    return replace(model, notes={**model.notes, **notes}) if notes else model


def _recipe(settings: Settings, native: Any, classes: tuple[str, ...], schema: Schema | None) -> Recipe | None:
    from casemate.engine.trainers import with_settings

    found = _named_recipe(settings, native, classes, schema)
    if found is None and from_framework(native, "sklearn") and hasattr(native, "get_params"):
        from casemate.adapters.sklearn import sklearn_recipe

        found = sklearn_recipe(native, schema, classes=classes or None)
    if found is None and settings.train.settings:
        raise ConfigError("expected train.recipe beside train.settings, got none: name the recipe")
    return None if found is None else with_settings(found, settings.train.settings)


def _named_recipe(settings: Settings, native: Any, classes: tuple[str, ...], schema: Schema | None) -> Recipe | None:
    from casemate.engine.trainers import TorchRecipe, recipe_of

    spec = settings.train.recipe
    if spec is None:
        return None
    found = import_object(spec, folder=settings.folder, what="recipe")
    if callable(found) and not isinstance(found, Recipe | TorchRecipe) and not _parameters(found):
        found = _called(found, spec)
    if isinstance(found, TorchRecipe):
        return recipe_of(found if found.classes or not classes else replace(found, classes=classes))
    if isinstance(found, Recipe):
        return found
    if not callable(found) or len(_parameters(found)) < 3:
        raise ModelError(
            f"expected a recipe fit(data, init, rng) at {spec}, got {type(found).__name__}: name the function"
        )
    return Recipe(
        _Fit(found, spec, classes, schema, settings.model.outputs, _task(settings, native)),
        fingerprint(found),
        knobs={key: tuple(values) for key, values in getattr(found, "knobs", {}).items()},
        settings=dict(getattr(found, "settings", {})),
    )


def _parameters(function: Any) -> list[str]:
    """The positional parameters of a function; a class or a built-in one has none that are worth a guess."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _called(make: Callable[[], Any], spec: str) -> Any:
    try:
        return make()
    except CasemateError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ModelError(f"expected {spec}() to give a recipe, got {type(error).__name__}: {error}: mend it") from error


@dataclass(frozen=True)
class _Fit:
    """A user's `fit(data, init, rng)` as a recipe's: what it returns is wrapped, what it raises is named."""

    function: Callable[[Data, Mapping[str, Any], np.random.Generator], Any]
    spec: str
    classes: tuple[str, ...]
    schema: Schema | None
    outputs: str | None
    task: Task = Task.CLASSIFICATION

    def __call__(self, data: Data, init: Mapping[str, Any], rng: np.random.Generator) -> Model:
        try:
            native = self.function(data, init, rng)
        except CasemateError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise ModelError(
                f"expected the recipe {self.spec} to fit, got {type(error).__name__}: {error}: mend the recipe"
            ) from error
        schema = self.schema or data.schema
        if self.task is Task.REGRESSION:
            return _number(native, schema)
        logits = None if self.outputs is None else self.outputs == "logits"
        return wrap(native, classes=self.classes or None, schema=schema, logits=logits)
