"""Reports in a notebook: the page itself, in a frame of its own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import final

from casemate.core.report import Report

__all__ = ["NotebookReport", "for_notebooks"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class NotebookReport(Report):
    """A report that a notebook shows as its page; equal to any report with the same content.

    `folder` is where its evidence lies: with it the page has its pictures.
    """

    folder: Path | None = None

    def __eq__(self, other: object) -> bool:
        """Compare as reports: where the evidence lies is no part of what was found."""
        if not isinstance(other, Report):
            return NotImplemented
        return all(getattr(self, item.name) == getattr(other, item.name) for item in fields(Report))

    def _repr_html_(self) -> str:
        from casemate.report import html
        from casemate.report.exhibits import load_exhibits

        exhibits = load_exhibits(self, self.folder) if self.folder else ()
        return html.framed(html.render(self, exhibits))


def for_notebooks(report: Report, folder: Path | None = None) -> NotebookReport:
    """The same report, as one that shows itself."""
    return NotebookReport(**{item.name: getattr(report, item.name) for item in fields(Report)}, folder=folder)
