"""report.html: one file for people, that needs no network and no script.

What a model or data set brings in (names of classes, columns, files) is shown as text, never as markup: the template
escapes everything, shows control characters by their numbers, cuts what is endless, and the page's content security
policy allows nothing but its own style and the pictures that it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

_LARGEST = 2_400_000  # bytes of a page
# Most cards of a section and lines of a list, most pictures of a card, longest text (the rest is in report.json): the
# first that make a page of at most `_LARGEST` bytes.
_LIMITS = ((80, 80, 1000), (40, 20, 500), (20, 8, 300), (8, 2, 200), (3, 0, 100), (1, 0, 50))
_LONGEST = _LIMITS[0][2]
_FIRST = (Status.FAILED, Status.UNDECIDED, Status.PASSED)


def render(report: Report, exhibits: Sequence[Exhibit] = ()) -> str:
    """The whole page, below 2.5 MB; equal reports (with equal exhibits) give equal pages.

    What a page has no room for is counted where it would stand; all of it is in report.json.
    """
    page = ""
    for most, pictures, longest in _LIMITS:
        page = _page(report, exhibits, most=most, pictures=pictures, longest=longest)
        if len(page.encode()) <= _LARGEST:
            break
    return page


def _page(report: Report, exhibits: Sequence[Exhibit], *, most: int, pictures: int, longest: int) -> str:
    accepted = set(report.ruling.accepted)
    opened = [f for f in report.findings if f.id not in accepted]
    clean = [o for o in report.outcomes if isinstance(o, Clean)]
    drawn = Drawn(tuple(drawing.curves(report)), tuple(plots.trends(report)), tuple(exhibits))
    sections: dict[str, list[Finding] | list[Inconclusive]] = {
        "cards": opened,
        "unclear": [o for o in report.outcomes if isinstance(o, Inconclusive)],
        "accepted": [f for f in report.findings if f.id in accepted],
    }
    shown, left = {}, {}
    for name, found in sections.items():
        families = grouped(report, found)
        shown[name], drawn = drawn_with(families[:most], drawn)
        left[f"{name}_left"] = len(families) - len(shown[name])
    return template("report.html.j2").render(
        report=report,
        gates=sorted(report.ruling.gates, key=lambda gate: _FIRST.index(gate.status)),
        opened=opened,
        unclear_count=len(sections["unclear"]),
        passed=[o for o in clean if any(e.quantity is not Quantity.NOTE for e in o.evidence)],
        noted=[o for o in clean if o.evidence and all(e.quantity is Quantity.NOTE for e in o.evidence)],
        drawn=drawn,
        threats=exposure.by_threat(report),
        mends=exposure.best_mends(opened),
        untested=exposure.by_reason(report),
        severities=exposure.severities(opened),
        most=most,
        most_pictures=pictures,
        longest=longest,
        **shown,
        **left,
    )


def framed(page: str, *, height: int = 720) -> str:
    """A whole page for a notebook's cell: in a frame of its own, so that neither's style touches the other."""
    from markupsafe import escape

    style = "width:100%;border:1px solid #8886;border-radius:8px"
    return f'<iframe title="Casemate" sandbox="" style="{style}" height="{height}" srcdoc="{escape(page)}"></iframe>'


@cache
def template(name: str) -> Template:
    """A template of this package: it escapes what is put in, and refuses what is not there."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=pass_context(_shown),
    )
    environment.filters.update(whole=_whole, separated=words.separated, notation=words.notation)
    environment.globals.update(
        bar=drawing.bar, difference=drawing.difference, drawing=drawing, plots=plots, words=words, isfinding=_isfinding
    )
    return environment.get_template(name)


def _isfinding(outcome: object) -> bool:
    return isinstance(outcome, Finding)


def _shown(context: Mapping[str, Any], value: Any) -> Any:
    """What is put into the page: texts without characters that nobody sees, and of bounded length."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    longest = context.get("longest", _LONGEST)
    text, left = str(value)[:longest], max(len(value) - longest, 0)
    text = words.visible(text)
    return f"{text}… ({left:,} more characters)" if left else text


def _whole(text: str) -> str:
    """The text with `eps = 0.1`, `95 %` and `Art. 15` never broken over two lines."""
    for part in (" = ", " % ", "Art. "):
        text = text.replace(part, part.replace(" ", "\u00a0", 1 if part == " % " else -1))
    return text
