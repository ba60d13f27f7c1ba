"""LightGBM: boosters, their `.txt` files, and the estimators around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.boosting import Booster, read_apart
from casemate.adapters.extras import need
from casemate.adapters.loading import Declared
from casemate.core.model import Model
from casemate.core.schema import Schema
from casemate.errors import ModelError
from casemate.formats.digests import Hasher

__all__ = ["open_booster", "wrap_booster"]

Array = NDArray[Any]
_READER = """
import sys, numpy, lightgbm
booster = lightgbm.Booster(model_str=sys.stdin.buffer.read().decode())
booster.model_to_string(), booster.dump_model()
rows = numpy.random.default_rng(0).normal(size=(64, booster.num_feature()))
booster.predict(rows, num_threads=1, validate_features=False)
"""
_OBJECTIVES = ("binary", "multiclass", "multiclassova")


def open_booster(path: Path, declared: Declared) -> Any:
    """The booster in a `.txt` file, for `loading`; reading it runs no code of the file's.

    Raises `ModelError` for a damaged file and `Unavailable` without lightgbm.
    """
    del declared
    lightgbm = need("lightgbm", f"read {path.name}")
    try:
        text = path.read_text(encoding="utf-8")
        _check_text(text)
        read_apart(_READER, text.encode())
        return lightgbm.Booster(model_str=text)
    except (OSError, ValueError, TypeError, lightgbm.basic.LightGBMError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ModelError(
            f"expected a booster of LightGBM in {path.name}, got {(lines or ['no message'])[0][:200]}: save it with "
            "Booster.save_model"
        ) from error


def wrap_booster(
    native: Any,
    *,
    classes: Sequence[str] | None = None,
    schema: Schema | None = None,
    name: str | None = None,
    logits: bool | None = None,
) -> Model:
    """A model around a `Booster`, or around a fitted `LGBMClassifier` as `sklearn.wrap_estimator` does.

    Answers are those of the best iteration where there is one, as LightGBM gives them. Raises `ModelError` for another
    objective than classification, and for a bare booster that was trained on categories of a data frame.
    """
    if hasattr(native, "booster_") or hasattr(native, "get_params"):
        from casemate.adapters.sklearn import wrap_estimator

        return replace(wrap_estimator(native, classes=classes, schema=schema, name=name), framework="lightgbm")
    return _booster(native).as_model(classes=classes, schema=schema, name=name, logits=logits)


@dataclass(frozen=True)
class _Answer:
    """`predict` of a booster, as margins or as probabilities, on one thread."""

    booster: Any
    margins: bool

    def __call__(self, x: Array) -> Array:
        found = self.booster.predict(
            np.asarray(x, dtype=np.float64), raw_score=self.margins, num_threads=1, validate_features=False
        )
        return np.asarray(found)


def _booster(native: Any) -> Booster:
    told = native.dump_model(num_iteration=1)
    objective = str(told.get("objective", "none"))
    if objective.partition(" ")[0] not in _OBJECTIVES:
        raise ModelError(
            f"expected a classifier ({', '.join(_OBJECTIVES)}), got a booster for {objective}: wrap its answers as a "
            "function"
        )
    if native.pandas_categorical:
        raise ModelError("expected a booster of numbers, got one with categories: audit the LGBMClassifier around it")
    # What it was trained with is no part of what it answers, and another after each reload.
    weights = native.model_to_string().partition("\nparameters:")[0]
    return Booster(
        native,
        _Answer(native, margins=True),
        _Answer(native, margins=False),
        max(2, int(told["num_class"])),
        int(native.num_feature()),
        tuple(native.feature_name()),
        Hasher("casemate.lightgbm.1").add(weights).digest(),
        "lightgbm",
        {"objective": objective, "rounds": f"{native.current_iteration():,}"},
    )


def _check_text(text: str) -> None:
    """LightGBM's reader trusts the counts in its header; hold them against what is there."""
    if not text.startswith("tree\n"):
        raise ValueError("a text that does not begin with tree")
    header, _, rest = text.partition("\nTree=")
    sizes = [line for line in header.splitlines() if line.startswith("tree_sizes=")]
    trees = text.count("\nTree=")
    if (
        len(sizes) != 1
        or len(sizes[0].partition("=")[2].split()) != trees
        or "end of trees" not in rest
        or "\npandas_categorical:" not in rest
    ):
        raise ValueError(f"{trees} trees, and not all that its header tells of")
