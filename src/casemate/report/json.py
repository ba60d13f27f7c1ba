"""report.json: the record of an audit, and the only format that is read back.

Canonical JSON (sorted keys, shortest numbers), so that equal reports are equal bytes. `timings` is the one part that
may differ between two runs of the same audit, and the one part that the digest leaves out. Readers are strict: a key,
type or value that this release would not write is refused, save for keys added later, whose defaults an older report
takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from casemate.core.judgement import Status
from casemate.core.report import Report
from casemate.errors import CasemateError, FormatError
from casemate.formats import canonical

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["SCHEMA_ID", "VERSION", "digest", "dumps", "loads", "schema"]

VERSION = 1
SCHEMA_ID = "urn:casemate:schema:report-1"
_TAGS = ("finding", "clean", "inconclusive", "skipped", "failed")


def dumps(report: Report) -> bytes:
    """The bytes of report.json: canonical JSON, indented for people.

    Raises `FormatError` for what JSON cannot hold, such as an infinite number in a plug-in's options.
    """
    return canonical.dumps_pretty(_plain(report))


def loads(data: bytes | str) -> Report:
    """The report that `dumps` wrote; `dumps(loads(data)) == data`.

    Raises `FormatError` for anything else: not JSON, another version, an unknown key, a value of the wrong type, a
    number outside its interval, a verdict that is not that of the gates.
    """
    from pydantic import ValidationError

    given = canonical.loads(data)
    if not isinstance(given, dict) or "ruling" not in given:
        raise FormatError("expected a Casemate report, got other JSON: name the report.json of an audit")
    if given.get("version") != VERSION:
        got = repr(given.get("version"))[:40]
        raise FormatError(f"expected report version {VERSION}, got {got}: read it with the release that wrote it")
    _refuse_untagged(given.get("outcomes"))
    try:
        report = _adapter().validate_python(given)  # what it coerces, the comparison below refuses
    except ValidationError as error:
        raise FormatError(_complaint(error.errors(include_url=False), given)) from error
    except FormatError:
        raise
    except CasemateError as error:  # a record's own law, such as an interval that does not hold its value
        raise FormatError(f"expected a report that an audit wrote, got one against the law: {error}") from error
    _refuse_strangers(given, canonical.loads(dumps(report)), "$")
    _refuse_contradictions(report)
    return report


def _refuse_contradictions(report: Report) -> None:
    """A verdict that its own gates contradict: every format would show the one and list the others."""
    found = {gate.status for gate in report.ruling.gates}
    worst = next((s for s in (Status.FAILED, Status.UNDECIDED, Status.PASSED) if s in found), Status.UNDECIDED)
    if report.ruling.status is not worst:
        raise FormatError(
            f"expected the verdict {worst} that the gates give, got {report.ruling.status}: "
            "restore the file from its source"
        )


def digest(report: Report) -> str:
    """`sha256:<hex>` of everything but `timings`: equal for the same audit on every executor and after a resume."""
    plain = _plain(report)
    del plain["timings"]
    return canonical.digest(plain)


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of report.json; outcomes are told apart by the key `outcome`."""
    found = _adapter().json_schema(mode="validation")
    records = [found, *found["$defs"].values()]
    for record in records:
        if record.get("type") == "object" and "properties" in record:
            record["additionalProperties"] = False
    for name in ("Finding", "Clean", "Inconclusive", "Skipped", "Failed"):
        found["$defs"][name]["required"].append("outcome")
    items = found["properties"]["outcomes"]["items"]
    items["oneOf"] = items.pop("anyOf")
    found["properties"]["version"] = {"const": VERSION, "title": "Version"}
    found["required"].append("version")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **found}


def _plain(report: Report) -> dict[str, Any]:
    plain: dict[str, Any] = _adapter().dump_python(report, mode="python")
    return plain


@cache
def _adapter() -> TypeAdapter[Report]:
    from pydantic import TypeAdapter

    return TypeAdapter(Report)


def _complaint(errors: Sequence[Any], given: dict[str, Any]) -> str:
    first = next((e for e in errors if _concerns(e["loc"], given)), errors[0])
    where = ".".join(str(part) for part in first["loc"])
    return f"expected a report, got a fault at {where}: {first['msg'].lower()}; restore the file from its source"


def _refuse_untagged(outcomes: Any) -> None:
    """The key `outcome` has a default in the records, and must be in the file all the same."""
    for position, item in enumerate(outcomes if isinstance(outcomes, list) else ()):
        if not isinstance(item, dict) or item.get("outcome") not in _TAGS:
            kinds, got = ", ".join(_TAGS), repr(item)[:60]
            raise FormatError(
                f"expected an outcome ({kinds}) at outcomes.{position}, got {got}: restore the file from its source"
            )


def _concerns(loc: tuple[int | str, ...], given: dict[str, Any]) -> bool:
    """Whether an error is about the kind of outcome that is there: pydantic reports each kind that it tried."""
    if loc[0] != "outcomes" or len(loc) < 3:
        return True
    item = given["outcomes"][loc[1]]
    return isinstance(item, dict) and str(loc[2]).lower() == item.get("outcome")


def _refuse_strangers(given: Any, again: Any, where: str) -> None:
    """Everything in the file must be in what this release would write: dataclasses drop keys that they do not know."""
    if isinstance(given, dict) and isinstance(again, dict):
        for key, value in given.items():
            if key not in again:
                raise FormatError(f"expected only keys of report version {VERSION}, got {where}.{key}: remove it")
            _refuse_strangers(value, again[key], f"{where}.{key}")
    elif isinstance(given, list) and isinstance(again, list) and len(given) == len(again):
        for position, (value, other) in enumerate(zip(given, again, strict=True)):
            _refuse_strangers(value, other, f"{where}[{position}]")
    elif isinstance(given, bool) is not isinstance(again, bool) or given != again:
        raise FormatError(f"expected {again!r:.60} at {where}, got {given!r:.60}: restore the file from its source")
