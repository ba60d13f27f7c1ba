"""Run the short benchmarks one after the other and write their tables into docs/benchmarks.md.

`make bench` runs them all; `make bench ARGS=evasion_apgd` runs some. Each benchmark is a script of its own that prints
a Markdown table, and compares with a named peer at equal or better result.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
SCRIPTS = {
    "evasion_apgd": "APGD against pyautoattack's APGD",
    "evasion_hop_skip_jump": "HopSkipJump against adversarial-robustness-toolbox's",
    "evasion_adversarial_training": "Adversarial training against a plain PGD-7 loop",
}
HEAD = """# Benchmarks

Run them yourself:

```
make bench                 # the short ones, on this page
make evidence-core         # the bars of the foundation; results go to docs/evidence/ with the commit they were made at
```

Ratios are between the same samples, batch, dtype and threads, preparation and verification included; five repeats where
a table gives a spread, else one run; counts of forward and backward passes stand beside the seconds. Ratios, not
seconds, carry over to other machines.
"""


def main(names: list[str]) -> int:
    """Run the named benchmarks (all by default); returns 1 if one of them failed."""
    sections = _sections(PAGE.read_text() if PAGE.exists() else "")
    failed = 0
    for name in names or list(SCRIPTS):
        if name not in SCRIPTS:
            print(f"expected a benchmark ({', '.join(SCRIPTS)}), got {name}", file=sys.stderr)
            return 2
        print(f"{name} ...", flush=True)
        done = subprocess.run([sys.executable, f"benchmarks/{name}.py"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        print(done.stdout, flush=True)
        failed += done.returncode != 0
        if done.returncode == 0:
            sections[SCRIPTS[name]] = f"{done.stdout.strip()}\n\n{_where(name)}"
    PAGE.write_text(HEAD + "".join(f"\n## {title}\n\n{body}\n" for title, body in sorted(sections.items())))
    return int(failed > 0)


def _sections(page: str) -> dict[str, str]:
    """What the page says already, by heading: a benchmark that is not run keeps its last table."""
    found = {}
    for part in page.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        found[title.strip()] = body.strip()
    return {title: body for title, body in found.items() if title in SCRIPTS.values()}


def _where(name: str) -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return (
        f"Measured by `make bench ARGS={name}` at commit {commit.stdout.strip()} on {time.strftime('%Y-%m-%d')}, "
        f"{os.cpu_count()} cores, no GPU."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
