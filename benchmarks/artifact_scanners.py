"""Scan files with one scanner, in its own environment, and write what it said: one JSON line a file.

    python artifact_scanners.py TOOL < files.txt > answers.jsonl

TOOL: casemate, picklescan, picklescan-strict, modelscan, fickling, modelaudit. Needs the tool and the standard library
alone. Each file is asked twice in this process; `seconds` is the second time, `first` the first. An answer is one of
`flagged` (an alarm), `passed`, `error` (the tool says that it could not read the file, or raises), `timeout`, and
`warned` (what the tool calls suspicious, below its alarm). A file that takes more than LIMIT seconds is a timeout.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import resource
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

LIMIT = float(os.environ.get("SCANNER_LIMIT", "60"))
MEMORY = 3 << 30


def casemate() -> Callable[[str], str]:
    """This project's own."""
    from casemate.formats.scanning.walking import scan_file

    said = {"malicious": "flagged", "suspicious": "warned", "unreadable": "error", "unknown": "error"}
    return lambda path: said.get(str(scan_file(Path(path)).level), "passed")


def picklescan(strict: bool = False) -> Callable[[str], str]:
    """The blocklist most model hubs use; `strict` alarms at what it does not know."""
    from picklescan.scanner import scan_file_path

    def scan(path: str) -> str:
        found = scan_file_path(path, strict=strict)
        if found.infected_files:
            return "flagged"
        return "error" if found.scan_err else "warned" if found.suspicious_count else "passed"

    return scan


def modelscan() -> Callable[[str], str]:
    """Protect AI's."""
    from modelscan.modelscan import ModelScan

    def scan(path: str) -> str:
        tool = ModelScan()
        tool.scan(path)
        if tool.issues.all_issues:
            return "flagged"
        return "error" if tool.errors else "passed"

    return scan


def fickling() -> Callable[[str], str]:
    """Trail of Bits' decompiler, by its own scan of a file."""
    from fickling.analysis import Severity
    from fickling.loader import scan_file, scan_zip_archive

    def scan(path: str) -> str:
        zipped = zipfile.is_zipfile(path)
        results = list(scan_zip_archive(path).values()) if zipped else [scan_file(path)]
        if any(item.severity != Severity.LIKELY_SAFE for item in results):
            return "flagged"
        return "error" if any(item.errors for item in results) else "passed"

    return scan


def modelaudit() -> Callable[[str], str]:
    """Promptfoo's, without its cache."""
    from modelaudit.core import scan_file

    def scan(path: str) -> str:
        found = scan_file(path, {"cache_enabled": False})
        levels = {str(getattr(issue.severity, "value", issue.severity)) for issue in found.issues}
        if levels & {"warning", "critical"}:
            return "flagged"
        return "passed" if found.success else "error"

    return scan


TOOLS: dict[str, Callable[[], Callable[[str], str]]] = {
    "casemate": casemate,
    "picklescan": picklescan,
    "picklescan-strict": lambda: picklescan(strict=True),
    "modelscan": modelscan,
    "fickling": fickling,
    "modelaudit": modelaudit,
}


class TooLong(BaseException):
    """The file took longer than the limit."""


def _late(*_: object) -> None:
    raise TooLong


def timed(scan: Callable[[str], str], path: str) -> tuple[str, float]:
    """What it says, and after how many seconds."""
    start = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            said = scan(path)
    except TooLong:
        said = "timeout"
    except BaseException as error:
        said = "error: " + type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return said, time.perf_counter() - start


def peak_of_process() -> float:
    """The most memory that this process held, in MB; `ru_maxrss` would count the one that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Scan the files on standard input."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _late)
    scan = TOOLS[sys.argv[1]]()
    for line in sys.stdin:
        path = line.rstrip("\n")
        said, first = timed(scan, path)
        again = first if said == "timeout" or first > 2 else timed(scan, path)[1]
        peak = peak_of_process()
        print(json.dumps({"path": path, "said": said, "first": first, "seconds": again, "peak_mb": peak}), flush=True)


if __name__ == "__main__":
    main()
