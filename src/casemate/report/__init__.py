"""What is made of a report, one file a format.

- `json` is the record, and the only format that is read back; `html` is for people, `terminal` for a shell.
- `markdown` is for a comment on a pull request; `sarif`, `junit` and `cyclonedx` are for other tools.

Every format says the same: the verdict is read from `Report.ruling`, never computed again, and the words for a number,
its interval and the way it errs come from one place, `words`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from casemate.errors import UsageError

if TYPE_CHECKING:
    from casemate.core.outcome import Finding
    from casemate.core.policy import Accepted
    from casemate.core.report import Report

__all__ = ["FORMATS", "acceptance", "rendered"]

FORMATS: Mapping[str, str] = {
    "html": "html:render",
    "json": "json:dumps",
    "sarif": "sarif:render",
    "junit": "junit:render",
    "markdown": "markdown:render",
    "cyclonedx": "cyclonedx:render",
}
"""Format -> `module:function` that makes its text of a report."""


def rendered(report: Report, name: str, *, config: Path | None = None, folder: Path | None = None) -> bytes:
    """A report in one of the `FORMATS`, in UTF-8.

    `config` is the file that SARIF's findings point into; the `folder` of the report holds the exhibits that HTML
    shows. Raises `UsageError` for a format that does not exist.
    """
    if name not in FORMATS:
        raise UsageError(f"expected a format ({', '.join(FORMATS)}), got {name!r}: choose one")
    module, _, function = FORMATS[name].partition(":")
    render = getattr(import_module(f"casemate.report.{module}"), function)
    if name == "html" and folder is not None:
        from casemate.report.exhibits import load_exhibits

        text = render(report, load_exhibits(report, folder))
    else:
        text = render(report, config=config) if name == "sarif" else render(report)
    return text if isinstance(text, bytes) else text.encode()


def acceptance(report: Report, finding: Finding) -> Accepted | None:
    """Who accepted a finding, until when and why; `None` for a finding that counts."""
    if finding.id not in report.ruling.accepted:
        return None
    matching = [item for item in report.policy.accepted if item.finding in (finding.id, finding.plugin)]
    return max(matching, key=lambda item: item.until, default=None)  # an expired one may lie beside it
