"""The demo: train four small models, audit each on the command line, and say where the reports are.

    python examples/run_demo.py [--only digits|credit|spam] [--profile quick|standard|full]

A model that fails its audit, or whose audit stays undecided, is what a demo is for: the exit code is 0 then. It is the
audit's own where that could not run (2 and 4), and 130 when interrupted. Run it again at any time: every step starts
afresh and writes below `examples/*/out`, which git ignores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["EXAMPLES", "Audit", "Example", "main", "mishap"]

HERE = Path(__file__).resolve().parent
VERDICTS = {0: "passed", 1: "failed", 3: "undecided"}


@dataclass(frozen=True)
class Audit:
    """One model: what it is, its configuration, and the folder of its report."""

    title: str
    config: str
    output: str


@dataclass(frozen=True)
class Example:
    """A folder with `train.py` and the audits of what that trains."""

    folder: str
    about: str
    audits: tuple[Audit, ...]


EXAMPLES = (
    Example(
        "digits",
        "a small convolutional net on 5,000 MNIST digits",
        (Audit("convolutional net", "casemate.toml", "out/report"),),
    ),
    Example(
        "credit",
        "who earns more than 50,000 dollars, by a random forest and a penalised logistic regression on UCI Adult",
        (
            Audit("random forest", "forest.toml", "out/forest-report"),
            Audit("logistic regression", "logistic.toml", "out/logistic-report"),
        ),
    ),
    Example(
        "spam",
        "which prompts try to override a language model's instructions, by TF-IDF and a logistic regression",
        (Audit("prompt filter", "casemate.toml", "out/report"),),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(description="Train four small models, audit each, and say where the reports are.")
    parser.add_argument("--only", choices=[example.folder for example in EXAMPLES], help="only this example")
    parser.add_argument("--profile", choices=["quick", "standard", "full"], default="quick", help="how long to audit")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    done: list[tuple[Example, Audit, int]] = []
    try:
        for example in EXAMPLES:
            if options.only in (None, example.folder):
                done += _run(example, options.profile)
    except subprocess.CalledProcessError as error:
        print(f"\nThe demo ended here: `{' '.join(error.cmd)}` ended with {error.returncode}.", file=sys.stderr)
        return mishap(error.returncode) or 4  # a training has no verdicts: its 1 is a traceback
    except KeyboardInterrupt:
        print("\nInterrupted; run it again whenever you like.", file=sys.stderr)
        return 130
    _summary(done, time.monotonic() - began)
    return 0


def mishap(code: int) -> int:
    """The demo's exit code for one of a step: 0 for any verdict; what killed a process is reported as a shell does."""
    if code < 0:
        return 128 - code
    return 0 if code in VERDICTS else code


def _run(example: Example, profile: str) -> list[tuple[Example, Audit, int]]:
    folder = HERE / example.folder
    _say(f"{example.folder}: {example.about}")
    _call([Path(sys.executable), folder / "train.py"], good={0})
    done = []
    for audit in example.audits:
        _say(f"{example.folder}: audit of the {audit.title}")
        command: list[str | Path] = [_casemate(), "audit", folder / audit.config, "--profile", profile]
        command += ["--output", folder / audit.output, "--store", folder / "out/store"]
        done.append((example, audit, _call(command, good=VERDICTS)))
    return done


def _call(command: Sequence[str | Path], *, good: Container[int]) -> int:
    """Run a command under the reader's eyes; raises `CalledProcessError` for an exit code that is not among `good`."""
    parts = [_relative(part) if isinstance(part, Path) else part for part in command]
    print(f"$ {' '.join(parts)}", flush=True)
    code = subprocess.run(parts, check=False).returncode
    if code not in good:
        raise subprocess.CalledProcessError(code, parts)
    return code


def _casemate() -> Path:
    """The command that belongs to this interpreter, whatever else is on the path."""
    return Path(sys.executable).with_name("casemate.exe" if sys.platform == "win32" else "casemate")


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _say(line: str) -> None:
    print(f"\n== {line}", flush=True)


def _summary(done: Sequence[tuple[Example, Audit, int]], seconds: float) -> None:
    _say(f"{len(done)} {'audit' if len(done) == 1 else 'audits'} in {seconds:.0f} s")
    for example, audit, code in done:
        output = HERE / example.folder / audit.output
        print(f"\n{audit.title} ({example.folder}): {VERDICTS[code]}")
        for name in ("report.html", "report.json"):
            print(f"  {_relative(output / name)}")
    print("\nThese models were trained as most are; what each finding means, and how to mend it, is in the report.")


if __name__ == "__main__":
    sys.exit(main())
