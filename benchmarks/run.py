"""Run the short benchmarks one after the other and write their tables into docs/benchmarks.md.

`make bench` runs them all; `make bench ARGS=evasion_apgd` runs some. Each benchmark is a script of its own that prints
how often it ran and a Markdown table, and compares with a named peer at equal or better result. Its section of the page
is made new, but for the text below its table; the others, and what stands above them, stay as they are.
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


def main(names: list[str]) -> int:
    """Run the named benchmarks (all by default); returns 1 if one of them failed."""
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
            PAGE.write_text(renewed(PAGE.read_text(), SCRIPTS[name], done.stdout.strip(), _where(name)))
            print(f"{PAGE.name}: text below a new table is kept: read whether it still holds", flush=True)
    return int(failed > 0)


def renewed(page: str, title: str, made: str, where: str) -> str:
    """The page with one section made new; what others wrote stays: other sections, and text below this one's table."""
    head, *found = page.split("\n## ")
    pairs = (part.partition("\n") for part in found)
    sections = {name.strip(): body.strip() for name, _, body in pairs}
    sections[title] = "\n\n".join(part for part in (made, _written(sections.get(title, "")), where) if part)
    return head + "".join(f"\n## {name}\n\n{body}\n" for name, body in sections.items())


def _written(body: str) -> str:
    """What is neither above nor in the first table of a section, nor the line that says where it was measured."""
    blocks = body.split("\n\n")
    table = next((place for place, block in enumerate(blocks) if block.startswith("|")), len(blocks))
    return "\n\n".join(block for block in blocks[table + 1 :] if not block.startswith("Measured by "))


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
