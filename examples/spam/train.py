"""Make the files that `casemate.toml` names: two tables of texts, and a filter fitted on one of them.

`prompts.parquet` is described in DATA.md. The same seed gives the same filter.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import skops.io
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline

__all__ = ["TARGET", "TEXT", "main", "pipeline", "tables"]

TEXT = "text"
TARGET = "label"

FOLDER = Path(__file__).resolve().parent
SEED = 0


def main() -> None:
    """Write `out/train.parquet`, `out/test.parquet` and `out/filter.skops`."""
    out = FOLDER / "out"
    out.mkdir(exist_ok=True)
    parts = tables()
    for name, part in parts.items():
        part.to_parquet(out / f"{name}.parquet", index=False)
    train, test = parts["train"], parts["test"]
    print(f"fitting the filter on {len(train)} texts ...", flush=True)
    fitted = pipeline().fit(train[TEXT], train[TARGET])
    print(f"accuracy on {len(test)} texts that it has not seen: {fitted.score(test[TEXT], test[TARGET]):.3f}")
    skops.io.dump(fitted, out / "filter.skops")


def tables() -> dict[str, pd.DataFrame]:
    """`train` and `test`: three quarters and one quarter of each class. No text is in the file twice."""
    prompts = pd.read_parquet(FOLDER / "prompts.parquet")
    train, test = train_test_split(prompts, test_size=0.25, stratify=prompts[TARGET], random_state=SEED)
    return {"train": train.reset_index(drop=True), "test": test.reset_index(drop=True)}


def pipeline() -> Pipeline:
    """Words and pairs of words, weighted by how rare they are, and a logistic regression; not fitted."""
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    return Pipeline([("words", words), ("model", LogisticRegression(C=10.0, max_iter=1000))])


if __name__ == "__main__":
    main()
