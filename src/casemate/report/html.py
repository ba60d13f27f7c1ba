"""report.html: one file for people, that needs no network and no script.

What a model or data set brings in (names of classes, columns, files) is shown as text, never as markup: the template
escapes everything, and the page's content security policy allows nothing but its own style.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from casemate.core.evidence import Evidence, Quantity
from casemate.core.judgement import severity_range
from casemate.core.outcome import Clean, Finding, Inconclusive
from casemate.core.report import PluginFacts, Report
from casemate.report import drawing, words

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["Card", "render"]


@dataclass(frozen=True, slots=True)
class Card:
    """What a card shows: an outcome, its gravest measurement, the others, and what its plug-in is.

    `again` says that a card above is of the same plug-in, so that threat and source can be folded away.
    """

    outcome: Finding | Inconclusive
    lead: Evidence | None
    rest: tuple[Evidence, ...]
    facts: PluginFacts | None
    accepted: bool
    again: bool = False

    @property
    def replayable(self) -> bool:
        """Whether the audit kept what a replay needs."""
        return any(item.files for item in self.outcome.evidence)


def render(report: Report) -> str:
    """The whole page; equal reports give equal pages."""
    cards = [_card(report, finding) for finding in report.findings]
    shown = _marked(card for card in cards if not card.accepted)
    unclear = [_card(report, o) for o in report.outcomes if isinstance(o, Inconclusive)]
    clean = [o for o in report.outcomes if isinstance(o, Clean)]
    return _template().render(
        report=report,
        open_findings=shown,
        accepted=[card for card in cards if card.accepted],
        unclear=sorted(unclear, key=lambda card: (-card.outcome.could_be.rank, card.outcome.plugin)),
        passed=[o for o in clean if any(e.quantity is not Quantity.NOTE for e in o.evidence)],
        noted=[o for o in clean if o.evidence and all(e.quantity is Quantity.NOTE for e in o.evidence)],
        curves=drawing.curves(report),
        severities=Counter(str(card.outcome.severity) for card in shown if isinstance(card.outcome, Finding)),
    )


def _card(report: Report, outcome: Finding | Inconclusive) -> Card:
    items = [item for item in outcome.evidence if item.quantity is not Quantity.NOTE]
    lead = max(items, key=_gravity) if items else None
    rest = tuple(words.in_order(item for item in outcome.evidence if item is not lead))
    accepted = isinstance(outcome, Finding) and outcome.id in report.ruling.accepted
    return Card(outcome, lead, rest, report.plugins.get(outcome.plugin), accepted)


def _marked(cards: Iterable[Card]) -> list[Card]:
    seen: set[str] = set()
    marked = []
    for card in cards:
        marked.append(replace(card, again=card.outcome.plugin in seen))
        seen.add(card.outcome.plugin)
    return marked


def _gravity(item: Evidence) -> tuple[int, int]:
    best, worst = severity_range(item)
    return best.rank, worst.rank


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["whole"] = _whole
    environment.globals.update(bar=drawing.bar, drawing=drawing, words=words)
    return environment.get_template("report.html.j2")


def _whole(text: str) -> str:
    """The text with `eps = 0.1`, `95 %` and `Art. 15` never broken over two lines."""
    for part in (" = ", " % ", "Art. "):
        text = text.replace(part, part.replace(" ", "\u00a0", 1 if part == " % " else -1))
    return text
