"""A scan as JSON: version 1, `schemas/scan-1.schema.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from casemate.artifacts.scans import Scan
from casemate.formats import canonical
from casemate.formats.scanning.signs import Scanned, Sign

__all__ = ["render", "whole"]


def render(scan: Scan) -> str:
    """The scan as canonical JSON, for people's eyes too; equal scans give equal texts."""
    told = whole(
        {
            "version": 1,
            "verdict": str(scan.level),
            "exit_code": scan.exit_code,
            "files": [_file(scanned) for scanned in scan.files],
            "allowed": [
                {**_sign(sign), "until": item.until.isoformat(), "reason": item.reason} for sign, item in scan.allowed
            ],
            "left_out": list(scan.left_out),
        }
    )
    return canonical.dumps_pretty(told).decode()


def whole(told: Any) -> Any:
    """Plain data whose texts are Unicode: half a surrogate, as names in a file may have, becomes an escape of it."""
    if isinstance(told, str):
        return told.encode("utf-8", "backslashreplace").decode()
    if isinstance(told, dict):
        return {whole(key): whole(value) for key, value in told.items()}
    return [whole(value) for value in told] if isinstance(told, list) else told


def _file(scanned: Scanned) -> dict[str, Any]:
    return {
        "path": scanned.path,
        "size": scanned.size,
        **({"digest": scanned.digest} if scanned.digest else {}),
        "verdict": str(scanned.level),
        "formats": list(scanned.formats),
        "signs": [_sign(sign) for sign in scanned.signs],
        "names": [
            {"member": item.member, "module": item.module, "name": item.name, "called": item.called}
            for item in scanned.used
        ],
        "members": [{"name": name, "size": size} for name, size in scanned.members],
    }


def _sign(sign: Sign) -> dict[str, Any]:
    place = {"file": sign.place.file, "member": sign.place.member, "opcode": sign.place.opcode}
    told: Mapping[str, Any] = {
        "level": str(sign.level),
        "rule": sign.rule,
        "what": sign.what,
        "where": {**place, **({} if sign.place.offset is None else {"offset": sign.place.offset})},
        "why": sign.why,
        "mend": sign.mend,
        "certainty": str(sign.certainty),
        "subject": sign.subject,
    }
    return dict(told)
