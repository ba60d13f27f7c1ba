"""What the files of the audited model do to whoever loads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from casemate.artifacts import THREAT
from casemate.core.case import Case
from casemate.core.evidence import Direction, Evidence, Metric, Quantity
from casemate.core.facets import Facet
from casemate.core.lab import Lab
from casemate.core.plugin import probe
from casemate.core.stats import Interval
from casemate.formats.scanning.signs import Level, Scanned
from casemate.formats.scanning.walking import scan_file

__all__ = ["check_files"]

MALICIOUS = Metric(
    "artifacts.malicious_files",
    Quantity.SUCCESS_RATE,
    Direction.TOO_LOW,
    says="a file of the model does what no model needs to whoever loads it",
    mend="do not load it; get the model from its first publisher, or convert it where it was made (casemate convert)",
    unit="share of files",
)
SUSPICIOUS = Metric(
    "artifacts.unreviewed_files",
    Quantity.UNREVIEWED,
    Direction.EXACT,
    says="a file of the model holds what is not known to be harmless",
    mend="look at `casemate scan`, convert the file (casemate convert), or review its code",
    unit="share of files",
)


@probe(
    threat=THREAT,
    source="MITRE ATLAS AML.T0011.000 (unsafe ML artifacts); Python's documentation of pickle (not secure)",
    needs={Facet.FILE},
    metrics=(MALICIOUS, SUSPICIOUS),
)
def check_files(case: Case, lab: Lab) -> Iterator[Evidence]:
    """Scan the model's files as `casemate scan` does, without loading them.

    Shares of the `n` files that are malicious, and that are suspicious; a file that could not be read or is of no known
    format may be either, which the interval says. Errs low: what harmless weights were trained to do is no matter of
    files.
    """
    del lab
    scans = [scan_file(path, name=path.name) for path in case.files]
    yield MALICIOUS.measured(_share(scans, Level.MALICIOUS), method=_told(scans, Level.MALICIOUS))
    yield SUSPICIOUS.measured(_share(scans, Level.SUSPICIOUS), method=_told(scans, Level.SUSPICIOUS))


def _share(scans: Sequence[Scanned], level: Level) -> Interval:
    """The share with a level; the upper end counts the files that could not be judged."""
    levels = [scanned.level for scanned in scans]
    hit = sum(found is level for found in levels) / len(scans)
    open_ = sum(found in (Level.UNREADABLE, Level.UNKNOWN) for found in levels) / len(scans)
    return Interval(hit, hit, hit + open_, len(scans), 0.95, "scan")


def _told(scans: Sequence[Scanned], level: Level) -> str:
    """What was found, the first three things of it; else how much was scanned."""
    found = [f"{scanned.path}: {sign.what}" for scanned in scans for sign in scanned.signs if sign.level is level]
    left = [scanned.path for scanned in scans if scanned.level in (Level.UNREADABLE, Level.UNKNOWN)]
    told = f"static scan of {len(scans)} file{'s' if len(scans) != 1 else ''}"
    if found:
        told += f"; {'; '.join(found[:3])}" + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    return told + (f"; not judged: {', '.join(left[:3])}" if left else "")
