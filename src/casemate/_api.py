"""The functions that `import casemate` offers: an audit from an estimator and two arrays, and what follows from it."""

# These functions take what a caller has at hand as keywords, one name each; past the model all of them are optional.
# ruff: noqa: PLR0913

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casemate import adapters
from casemate._audit import Order, Place, run
from casemate.core.budget import Budget, parse_budget
from casemate.core.case import Case, Recipe
from casemate.core.data import Data, Splits
from casemate.core.facets import Profile
from casemate.core.model import Model, Task
from casemate.core.policy import Policy
from casemate.core.report import Report
from casemate.core.schema import Schema
from casemate.errors import ConfigError, DataError, FormatError
from casemate.report.notebook import for_notebooks

if TYPE_CHECKING:
    from casemate._compare import Comparison
    from casemate._harden import Hardened
    from casemate._replay import Replayed
    from casemate.adapters.data import Reading
    from casemate.artifacts.scans import Scan
    from casemate.formats.attestation import Attestation

__all__ = ["audit", "case", "compare", "harden", "replay", "scan", "sign", "verify", "wrap"]

Pair = tuple[Any, Any]


def wrap(
    model: Any, *, classes: Sequence[str] | None = None, schema: Schema | None = None, name: str | None = None
) -> Model:
    """A `Model` around a fitted estimator, a torch module or a callable; raises `ModelError` for anything else."""
    return adapters.wrap(model, classes=classes, schema=schema, name=name)


def case(
    model: Any,
    *,
    test: Pair | Data,
    train: Pair | Data | None = None,
    tune: Pair | Data | None = None,
    reference: Pair | Data | None = None,
    groups: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    schema: Schema | None = None,
    bounds: tuple[float, float] | None = None,
    recipe: Recipe | None = None,
    name: str | None = None,
) -> Case:
    """A case from what is in memory.

    `test`, `train`, `tune`, `reference` are pairs `(x (n, ...), y (n,))` or `Data`; data frames are welcome as x, and
    lists, arrays or columns of texts `(n,)`.
    `groups` holds sensitive attributes of the test rows, one array `(n,)` each. The schema is inferred (scales from the
    training rows) unless it is given; `bounds` are those of images. A scikit-learn estimator brings its own recipe.
    Raises `DataError` and `ModelError` for what does not fit together.
    """
    from casemate.adapters.data import Reading
    from casemate.engine.bundles import bundle_of

    given = {"train": train, "tune": tune, "test": test, "reference": reference}
    reading = Reading(classes=tuple(classes or _classes_of(model)) or None, bounds=bounds, task=_task(model))
    splits, names = _splits({k: v for k, v in given.items() if v is not None}, reading, schema, groups)
    shared = splits.parts()["test"].schema
    wrapped = adapters.wrap(model, classes=names or None, schema=shared, name=name)
    return Case(
        name=name or wrapped.name,
        model=wrapped,
        bundle=bundle_of(wrapped, shared),
        splits=splits,
        recipe=recipe or _own_recipe(model, shared, wrapped),
    )


def audit(
    model: Any,
    *,
    test: Pair | Data | None = None,
    train: Pair | Data | None = None,
    tune: Pair | Data | None = None,
    reference: Pair | Data | None = None,
    groups: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    schema: Schema | None = None,
    bounds: tuple[float, float] | None = None,
    recipe: Recipe | None = None,
    policy: Policy | None = None,
    profile: str = "standard",
    budget: str | int | None = None,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    only: Sequence[str] = (),
    output: str | Path | None = None,
    executor: str = "inline",
) -> Report:
    """Audit a fitted estimator, a torch module, a callable or a whole `Case`, and return the report.

    The data is as for `case`. `options` are those of plug-ins by id (`{"evasion/standard": {"eps": 0.1}}`), `only`
    limits the audit to ids or rooms, `budget` is `"5m"` or a count of propagations. With an `output` folder
    report.json, report.html and the evidence are written there, and the audit can be replayed. A notebook shows the
    report as its page. Raises `UsageError` for input that does not fit.

    >>> import numpy as np, casemate
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> x = np.random.default_rng(0).normal(size=(80, 2)); y = (x[:, 0] > 0).astype(int)
    >>> report = casemate.audit(DecisionTreeClassifier().fit(x, y), test=(x, y), only=["preflight"])
    >>> report.ruling.exit_code in (0, 1, 3)
    True
    """
    if isinstance(model, Case):
        chosen = model
    elif test is None:
        raise DataError("expected test data, got none: pass test=(x, y)")
    else:
        chosen = case(
            model,
            test=test,
            train=train,
            tune=tune,
            reference=reference,
            groups=groups,
            classes=classes,
            schema=schema,
            bounds=bounds,
            recipe=recipe,
        )
    order = _order(policy, profile, budget=parse_budget(budget), seed=seed, options=options, only=only)
    folder = Path(output) if output else None
    return for_notebooks(run(chosen, order, Place(output=folder, executor=executor)), folder)


def harden(
    case: Case,
    *,
    policy: Policy | None = None,
    profile: str = "standard",
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    only: Sequence[str] = (),
    output: str | Path | None = None,
) -> Hardened:
    """Try the hardenings that fit (or `only` those named), audit each candidate again, keep what made nothing worse.

    Raises `UsageError` when none fits the case: hardening needs training data and a recipe.
    """
    from casemate._harden import harden as apply

    order = _order(policy, profile, budget=Budget(), seed=seed, options=options, only=())
    return apply(case, order, Place(output=Path(output) if output else None), only=tuple(only))


def replay(folder: str | Path, finding: str, case: Case) -> list[Replayed]:
    """Measure a finding of the report in `folder` again from what its audit kept."""
    from casemate._replay import replay as measure_again

    return measure_again(Path(folder), finding, case)


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Differences `b - a` of every measurement that the reports in two folders share, paired for the same samples.

    A list, which a notebook shows as a page.
    """
    from casemate._compare import compare as differences

    return differences(Path(a), Path(b))


def scan(*paths: str | Path, policy: str | Path | None = None, weights: bool = False) -> Scan:
    """Whether files, folders or patterns are safe to load, without loading them; `policy` is a TOML file of names.

    `.level` is the verdict, `.exit_code` that of the command, `.files` what is known of each. Raises `UsageError` for a
    path that is not there.
    """
    from casemate.artifacts.allowances import read_allowances
    from casemate.artifacts.scans import scan_paths

    allowances = read_allowances(Path(policy)) if policy is not None else ()
    return scan_paths([str(path) for path in paths], allowances=allowances, weights=weights)


def sign(report: Report, key: str | Path, *, passphrase: str | None = None, days: int = 90) -> dict[str, Any]:
    """Attest a report with an Ed25519 private key file: a DSSE envelope over an in-toto statement, valid for `days`.

    Raises `UsageError` for a file that is no such key, or a report that is about data only.
    """
    from casemate._attest import attest
    from casemate.formats import keys

    return attest(report, keys.load_private(key, passphrase), days=days)


def verify(
    envelope: Mapping[str, Any] | str | Path, keys: Sequence[str | Path], *, bundle: str, policy: Policy | None = None
) -> Attestation:
    """Check a signed attestation (a mapping or a file) against the digest of a bundle and, if given, a policy.

    Raises `IntegrityError` with its own message for a wrong signature, key, bundle, policy or verdict, or an expired
    one; `FormatError` for a file that holds no envelope.
    """
    from casemate._attest import hold
    from casemate.formats import keys as key_files

    signed = envelope if isinstance(envelope, Mapping) else _read_json(Path(envelope))
    return hold(signed, [key_files.load_public(key) for key in keys], bundle=bundle, policy=policy)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FormatError(f"expected an envelope in {path}, got {error}: name the signed file") from error
    if not isinstance(found, dict):
        raise FormatError(f"expected an envelope in {path}, got {type(found).__name__}: name the signed file")
    return found


def _order(
    policy: Policy | None,
    profile: str,
    *,
    budget: Budget,
    seed: int,
    options: Mapping[str, Mapping[str, Any]] | None,
    only: Sequence[str],
) -> Order:
    if profile not in list(Profile):
        raise ConfigError(f"expected a profile ({', '.join(Profile)}), got {profile!r}: choose one")
    return Order(
        policy=policy or Policy(),
        profile=Profile(profile),
        budget=budget,
        seed=seed,
        options=dict(options or {}),
        only=tuple(only),
    )


def _splits(
    given: Mapping[str, Pair | Data], reading: Reading, schema: Schema | None, groups: Mapping[str, Any] | None
) -> tuple[Splits, tuple[str, ...]]:
    from casemate.adapters.data import splits_from_arrays

    ready = {part: value for part, value in given.items() if isinstance(value, Data)}
    if ready and len(ready) < len(given):
        raise DataError("expected pairs (x, y) only, or Data only, got both: pass all splits in one form")
    if ready:
        return Splits(**ready), reading.classes or ()
    pairs = {part: _pair(value, part) for part, value in given.items()}
    return splits_from_arrays(pairs, reading, schema=schema, groups={"test": groups or {}})


def _pair(value: Any, part: str) -> Pair:
    if not (isinstance(value, tuple | list) and len(value) == 2):
        raise DataError(f"expected {part}=(x, y), got {type(value).__name__}: pass a pair of arrays")
    return value[0], value[1]


def _classes_of(model: Any) -> tuple[str, ...]:
    from casemate.adapters.labels import class_name

    found = model.classes if isinstance(model, Model) else getattr(model, "classes_", ())
    return tuple(class_name(value) for value in found)


def _task(model: Any) -> Task:
    if isinstance(model, Model):
        return model.task
    # `wrap` refuses a class, in words; a booster and anybody's own object do not say what they are
    if isinstance(model, type) or not (hasattr(model, "predict") and hasattr(model, "__sklearn_tags__")):
        return Task.CLASSIFICATION
    from sklearn.base import is_regressor

    return Task.REGRESSION if is_regressor(model) else Task.CLASSIFICATION


def _own_recipe(model: Any, schema: Schema, wrapped: Model) -> Recipe | None:
    if not (hasattr(model, "get_params") and hasattr(model, "fit")):
        return None
    from casemate.adapters.sklearn import sklearn_recipe

    return sklearn_recipe(model, schema, classes=wrapped.classes)
