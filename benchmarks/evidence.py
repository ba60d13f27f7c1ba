"""What the scripts of evidence share: the facts of a run, and a page and a record of it in docs/evidence."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "evidence"


def facts_of(*packages: str) -> dict[str, str]:
    """Commit, date, Python, and the versions of Casemate and some packages; says so where the checkout has changes."""
    return {
        "commit": _git("rev-parse", "--short", "HEAD") + (" with changes" if _changed() else ""),
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("casemate", *packages)},
    }


def measure(
    name: str,
    title: str,
    measurements: Mapping[str, Callable[[], dict[str, Any]]],
    asked: Sequence[str],
    *,
    facts: dict[str, str],
    intro: str = "",
) -> int:
    """Run the asked measurements (all by default) and write the page; 1 where a bar is not met.

    Each gives `bar, columns, rows, result, met`. What is not run keeps its last figures, with their commit and date.
    """
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    known = {key: old[key] for key in measurements if key in old}
    for key in asked or measurements:
        print(f"{key} ...", flush=True)
        known[key] = {**measurements[key](), "commit": facts["commit"], "date": facts["date"]}
        print(f"{key}: {known[key]['result']} ({'met' if known[key]['met'] else 'NOT met'})", flush=True)
        known = {name: known[name] for name in measurements if name in known}
        _write(path, title, known, facts=facts, intro=intro)  # at once: the next may be interrupted
    return 0 if all(got["met"] for got in known.values()) else 1


def _write(path: Path, title: str, known: Mapping[str, dict[str, Any]], *, facts: dict[str, str], intro: str) -> None:
    path.write_text(json.dumps({"facts": facts, **known}, indent=1, default=lambda value: value.item()) + "\n")
    lines = [f"# Evidence: {title}", "", f"Made by `make evidence-{path.stem}`.", "", told(facts), ""]
    lines += [intro, ""] if intro else []
    for key, got in known.items():
        bar = f"Bar: {got['bar']}. **{'Met' if got['met'] else 'Not met'}**: {got['result']}."
        lines += [f"## {key}", "", bar, "", *table(got["columns"], got["rows"])]
        lines += ["", f"Measured at commit {got['commit']} on {got['date']}.", ""]
    path.with_suffix(".md").write_text("\n".join(lines))


def told(facts: Mapping[str, str]) -> str:
    """The facts in a line."""
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a table in Markdown."""
    cells = [[_cell(value) for value in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in ([*columns], ["---"] * len(columns), *cells)]


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


def _changed() -> bool:
    """Whether anything but evidence itself differs from the commit."""
    return bool(_git("status", "--porcelain", "--", ".", ":!docs/evidence", ":!docs/benchmarks.md"))


def _git(*command: str) -> str:
    return subprocess.run(["git", *command], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
