"""Write the JSON Schemas of what Casemate persists to schemas/; a test compares the committed files with the code."""

from __future__ import annotations

from pathlib import Path

from casemate.formats import canonical
from casemate.report import json as report_json

__all__ = ["schemas"]

FOLDER = Path(__file__).resolve().parent.parent / "schemas"


def schemas() -> dict[str, bytes]:
    """The text of every schema by the name of its file."""
    return {f"report-{report_json.VERSION}.schema.json": canonical.dumps_pretty(report_json.schema())}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in schemas().items():
        (FOLDER / name).write_bytes(text)
        print(f"wrote {FOLDER / name}")
