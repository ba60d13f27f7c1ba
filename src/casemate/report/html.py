"""report.html: one file for people, that needs no network and no script.

What a model or data set brings in (names of classes, columns, files) is shown as text, never as markup: the template
escapes everything, shows control characters by their numbers, cuts what is endless, and the page's content security
policy allows nothing but its own style and the pictures that it holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casemate.core.evidence import Quantity
from casemate.core.judgement import Status
from casemate.core.outcome import Clean, Finding, Inconclusive
from casemate.core.report import Report
from casemate.report import drawing, exposure, plots, words
from casemate.report.exhibits import Exhibit
from casemate.report.families import Drawn, drawn_with, grouped

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["framed", "render", "template"]

_LONGEST = 1000  # characters of one text; the rest is in report.json
_MOST = 80  # cards of a section, and lines of a list
# Control characters, those that turn the direction of writing, and halves of surrogate pairs: a name made of them can
# look like another.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_FIRST = (Status.FAILED, Status.UNDECIDED, Status.PASSED)


def render(report: Report, exhibits: Sequence[Exhibit] = ()) -> str:
    """The whole page; equal reports (with equal exhibits) give equal pages."""
    accepted = set(report.ruling.accepted)
    opened = [f for f in report.findings if f.id not in accepted]
    clean = [o for o in report.outcomes if isinstance(o, Clean)]
    drawn = Drawn(tuple(drawing.curves(report)), tuple(plots.trends(report)), tuple(exhibits))
    cards, drawn = drawn_with(grouped(report, opened)[:_MOST], drawn)
    unclear, drawn = drawn_with(
        grouped(report, [o for o in report.outcomes if isinstance(o, Inconclusive)])[:_MOST], drawn
    )
    suffered, drawn = drawn_with(grouped(report, [f for f in report.findings if f.id in accepted])[:_MOST], drawn)
    return template("report.html.j2").render(
        report=report,
        gates=sorted(report.ruling.gates, key=lambda gate: _FIRST.index(gate.status)),
        opened=opened,
        cards=cards,
        unclear=unclear,
        unclear_count=sum(isinstance(o, Inconclusive) for o in report.outcomes),
        accepted=suffered,
        passed=[o for o in clean if any(e.quantity is not Quantity.NOTE for e in o.evidence)],
        noted=[o for o in clean if o.evidence and all(e.quantity is Quantity.NOTE for e in o.evidence)],
        drawn=drawn,
        threats=exposure.by_threat(report),
        mends=exposure.best_mends(opened),
        untested=exposure.by_reason(report),
        severities=exposure.severities(opened),
        most=_MOST,
    )


def framed(page: str, *, height: int = 720) -> str:
    """A whole page for a notebook's cell: in a frame of its own, so that neither's style touches the other."""
    from markupsafe import escape

    style = "width:100%;border:1px solid #8886;border-radius:8px"
    return f'<iframe title="Casemate" sandbox="" style="{style}" height="{height}" srcdoc="{escape(page)}"></iframe>'


@cache
def template(name: str) -> Template:
    """A template of this package: it escapes what is put in, and refuses what is not there."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(whole=_whole, separated=words.separated)
    environment.globals.update(
        bar=drawing.bar, difference=drawing.difference, drawing=drawing, plots=plots, words=words, isfinding=_isfinding
    )
    return environment.get_template(name)


def _isfinding(outcome: object) -> bool:
    return isinstance(outcome, Finding)


def _shown(value: Any) -> Any:
    """What is put into the page: texts without characters that nobody sees, and of bounded length."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    text = str(value)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text) - _LONGEST:,} more characters)"
    return _UNSEEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text)


def _whole(text: str) -> str:
    """The text with `eps = 0.1`, `95 %` and `Art. 15` never broken over two lines."""
    for part in (" = ", " % ", "Art. "):
        text = text.replace(part, part.replace(" ", "\u00a0", 1 if part == " % " else -1))
    return text
