"""A scan as SARIF 2.1.0: each sign a result that points at the byte where it was seen.

What could not be judged is a result of kind `open`; what a policy allows is suppressed. The rules are those that
something was found by: readers have no list of what they look for that would be complete.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from casemate.artifacts.scans import Scan
from casemate.formats import canonical
from casemate.formats.scanning.signs import Certainty, Level, Sign
from casemate.report.sarif import SCHEMA, unlinked, uri_of
from casemate.report.scan_json import whole

__all__ = ["render"]

_LEVEL = {Level.MALICIOUS: "error", Level.SUSPICIOUS: "warning"}
_SCORE = {Level.MALICIOUS: "9.5", Level.SUSPICIOUS: "5.5"}
_RANK = {Certainty.CERTAIN: 95.0, Certainty.LIKELY: 75.0, Certainty.POSSIBLE: 40.0}
_PRINT = "casemateSign/v1"
_Files = dict[str, tuple[int, int]]  # the index and the size of each


def render(scan: Scan, *, version: str = "") -> str:
    """The log; equal scans give equal logs. Fingerprints outlast changes of offsets."""
    told: list[tuple[Sign, date | None, str]] = [(sign, None, "") for scanned in scan.files for sign in scanned.signs]
    told += [(sign, item.until, item.reason) for sign, item in scan.allowed]
    rules = sorted({sign.rule for sign, _, _ in told})
    files = {scanned.path: (number, scanned.size) for number, scanned in enumerate(scan.files)}
    driver = {"name": "Casemate", "rules": [_rule(rule, told) for rule in rules]}
    run = {
        "tool": {"driver": {**driver, **({"version": version} if version else {})}},
        "automationDetails": {"id": "casemate-scan/"},
        "invocations": [{"executionSuccessful": True, "exitCode": scan.exit_code}],
        "artifacts": [
            {
                "location": {"uri": uri_of(Path(scanned.path))},
                "length": scanned.size,
                "roles": ["analysisTarget"],
                **({"hashes": {"sha-256": scanned.digest.removeprefix("sha256:")}} if scanned.digest else {}),
            }
            for scanned in scan.files
        ],
        "results": [_result(sign, until, why, rules, files) for sign, until, why in told],
        "properties": {"verdict": str(scan.level), "leftOut": list(scan.left_out)},
    }
    return canonical.dumps_pretty(whole({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})).decode()


def _rule(rule: str, told: list[tuple[Sign, Any, str]]) -> dict[str, Any]:
    sign = next(sign for sign, _, _ in told if sign.rule == rule)
    found: dict[str, Any] = {
        "id": rule,
        "name": "".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", rule)),
        "shortDescription": {"text": unlinked(sign.why)},
        "help": {"text": unlinked(sign.mend)},
        "properties": {"tags": ["security", "supply-chain", rule.partition("/")[0]]},
    }
    if sign.level in _SCORE:
        found["properties"]["security-severity"] = _SCORE[sign.level]
    return found


def _result(sign: Sign, until: date | None, why: str, rules: list[str], files: _Files) -> dict[str, Any]:
    where = "".join(_print_parts(sign))
    open_ = sign.level not in _LEVEL
    return {
        "ruleId": sign.rule,
        "ruleIndex": rules.index(sign.rule),
        "kind": "open" if open_ else "fail",
        "level": "none" if open_ else _LEVEL[sign.level],
        "rank": _RANK[sign.certainty],
        "message": {
            "text": unlinked(f"{sign.what} ({sign.place}): {sign.why}. {sign.mend[:1].upper()}{sign.mend[1:]}.")
        },
        "locations": [_location(sign, files)],
        "partialFingerprints": {_PRINT: hashlib.sha256(where.encode("utf-8", "surrogatepass")).hexdigest()[:32]},
        "suppressions": []
        if until is None
        else [{"kind": "external", "status": "accepted", "justification": f"Allowed until {until}: {why}"}],
        "properties": {"level": str(sign.level), "certainty": str(sign.certainty), "subject": sign.subject},
    }


def _print_parts(sign: Sign) -> Iterator[str]:
    yield from (sign.rule, "\0", sign.place.file, "\0", sign.place.member, "\0", sign.subject or sign.what)


def _location(sign: Sign, files: _Files) -> dict[str, Any]:
    artifact: dict[str, Any] = {"uri": uri_of(Path(sign.place.file))}
    index, size = files.get(sign.place.file, (-1, 0))
    if index >= 0:
        artifact["index"] = index
    physical: dict[str, Any] = {"artifactLocation": artifact}
    if sign.place.offset is not None and not sign.place.member:  # an offset in a member is none of the file
        start = min(sign.place.offset, size)  # what is missing begins where the file ends
        physical["region"] = {"byteOffset": start, "byteLength": min(1, size - start)}
    name = "!/".join(part for part in (sign.place.member, sign.subject) if part)
    where: dict[str, Any] = {"physicalLocation": physical}
    if name:
        at = "" if sign.place.offset is None else f" at byte {sign.place.offset}"
        where["logicalLocations"] = [{"fullyQualifiedName": f"{name}{at}", "kind": "member"}]
    return where
