"""Make the files that `forest.toml` and `logistic.toml` name: two tables of UCI Adult, and two pipelines fitted on one.

`adult.parquet` is described in DATA.md. The same seed gives the same models.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

__all__ = ["CATEGORIES", "NUMBERS", "TARGET", "main", "pipelines", "tables"]

NUMBERS = ["age", "education_num", "capital_gain", "capital_loss", "hours_per_week"]
CATEGORIES = ["workclass", "marital_status", "occupation", "relationship", "race", "sex", "native_country"]
TARGET = "income"

FOLDER = Path(__file__).resolve().parent
SEED = 0


def main() -> None:
    """Write `out/train.parquet`, `out/test.parquet` and one skops file for each pipeline."""
    out = FOLDER / "out"
    out.mkdir(exist_ok=True)
    parts = tables()
    for name, part in parts.items():
        part.to_parquet(out / f"{name}.parquet", index=False)
    train, test = parts["train"], parts["test"]
    for name, pipeline in pipelines().items():
        print(f"fitting {name} on {len(train)} people ...", flush=True)
        pipeline.fit(train.drop(columns=TARGET), train[TARGET])
        accuracy = pipeline.score(test.drop(columns=TARGET), test[TARGET])
        print(f"accuracy on {len(test)} people that it has not seen: {accuracy:.3f}")
        skops.io.dump(pipeline, out / f"{name}.skops")


def tables() -> dict[str, pd.DataFrame]:
    """`train` and `test` as the original splits them, with the columns that the models see and the target.

    `fnlwgt` is a sampling weight and `education` says in words what `education_num` says: neither is a feature here.
    """
    people = pd.read_parquet(FOLDER / "adult.parquet")
    columns = [*NUMBERS, *CATEGORIES, TARGET]
    return {name: people.loc[people["split"] == name, columns].reset_index(drop=True) for name in ("train", "test")}


def pipelines() -> dict[str, Pipeline]:
    """A random forest and a penalised logistic regression behind the same preparation, not fitted."""
    estimators = {
        "forest": RandomForestClassifier(n_estimators=100, max_depth=12, random_state=SEED),
        "logistic": LogisticRegression(C=0.1, max_iter=1000),
    }
    return {name: Pipeline([("prepare", _prepared()), ("model", model)]) for name, model in estimators.items()}


def _prepared() -> ColumnTransformer:
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer([("numbers", StandardScaler(), NUMBERS), ("categories", one_hot, CATEGORIES)])


if __name__ == "__main__":
    main()
