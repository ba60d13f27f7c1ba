"""The words of every report: a number with its interval, which way it errs, where it was measured, whom it concerns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from casemate.core.evidence import Direction, Evidence, Quantity
from casemate.core.judgement import Status
from casemate.core.outcome import SkipReason, Threat

__all__ = [
    "DIRECTION",
    "MEANING",
    "SKIPPED",
    "VERDICT",
    "bound",
    "counted",
    "date",
    "full",
    "in_order",
    "interval",
    "metric",
    "names",
    "notation",
    "number",
    "parts",
    "place",
    "plain",
    "recipe",
    "sentence",
    "separated",
    "size",
    "subject",
    "times",
    "told",
    "topic",
    "value",
    "visible",
    "where",
]

DIRECTION: Mapping[Direction, str] = {
    Direction.EXACT: "",
    Direction.TOO_HIGH: "at most",
    Direction.TOO_LOW: "at least",
    Direction.EITHER: "about",
}
"""The word before a value: `at most` where the truth can only be lower."""

MEANING: Mapping[Direction, str] = {
    Direction.EXACT: "Apart from sampling there is no error: a count or a proof.",
    Direction.TOO_HIGH: "The truth is at most this: a stronger attacker can only lower it.",
    Direction.TOO_LOW: "The truth is at least this: a better method can only raise it.",
    Direction.EITHER: "An estimate that may err either way.",
}
"""What the direction means, in a sentence."""

VERDICT: Mapping[Status, str] = {
    Status.PASSED: "Passed: every gate holds.",
    Status.FAILED: "Failed: at least one gate does not hold.",
    Status.UNDECIDED: "Undecided: at least one gate could not be decided.",
}
"""The verdict in a sentence."""

SKIPPED: Mapping[SkipReason, str] = {
    SkipReason.NOT_APPLICABLE: "does not apply to this case",
    SkipReason.UNAVAILABLE: "something it needs is not installed",
    SkipReason.BUDGET: "the budget ended first",
}
"""Why something was not tested."""

_LISTS = (
    ("MITRE ATLAS", "atlas"),
    ("OWASP ML", "owasp_ml"),
    ("OWASP AISVS", "owasp_aisvs"),
    ("NIST", "nist"),
    ("EU AI Act", "eu_ai_act"),
)

_NORMS: Mapping[str, str] = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}
# The id of a norm where this package writes one: `norm = linf`, `linf distance`, the subject of a metric of evasion.
_NORM = re.compile(r"(norm = |evasion\.\w+: |\b(?=\w+ (?:norm|distance)\b))(linf|l[012])\b")
_SUBJECTS: Mapping[str, Mapping[str, str]] = {
    "evasion": {name: f"{sign} norm" for name, sign in _NORMS.items()},
    "privacy": {"loss": "attack by loss", "rmia": "RMIA"},
}
_COUNT = re.compile(r"(?<=n = )\d{4,15}\b|(?<![\w.,#-])\d{5,15}(?![\w.])", re.ASCII)
# Control characters, those that turn the direction of writing or have no ink, and halves of surrogate pairs: a name
# made of them can look like another, move a terminal's cursor, or hide a text that a model reads.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u180b-\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ud800-\udfff\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e01ef]"
)
_SHORT = frozenset({"auc", "fpr", "tpr"})  # written in capitals

_NAMES = (
    ("clopper pearson", "Clopper-Pearson"),
    ("delong newcombe", "DeLong-Newcombe"),
    ("mcnemar", "McNemar"),
    ("bonferroni", "Bonferroni"),
    ("wilson", "Wilson"),
    ("bca", "BCa"),
)


def number(value: float) -> str:
    """Three decimals between 0.001 and 1000, whole numbers from there on, two digits below.

    >>> number(0.12345), number(40.0), number(16281.0), number(1234.5), number(3e-7)
    ('0.123', '40', '16,281', '1,234', '3e-07')
    """
    if abs(value) < 1e15 and (value == round(value) or abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.3f}" if 0.001 <= abs(value) < 1000 else f"{value:.2g}"


def counted(count: int, one: str, many: str = "") -> str:
    """A count with its noun.

    >>> counted(1, "finding"), counted(1200, "finding"), counted(2, "file of evidence", "files of evidence")
    ('1 finding', '1,200 findings', '2 files of evidence')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def date(moment: str) -> str:
    """A moment in ISO 8601 to the minute, for people.

    >>> date("2026-11-22T22:34:26+00:00")
    '2026-11-22 22:34 UTC'
    """
    day, _, rest = moment.partition("T")
    return f"{day} {rest[:5]}{' UTC' if rest.endswith(('+00:00', 'Z')) else ''}".strip()


def in_order(items: Iterable[Evidence]) -> list[Evidence]:
    """Measurements by where they were made, numbers by size: `eps` 0.1, 0.25, 0.5."""
    return sorted(items, key=lambda item: [(key, *_sortable(item.at[key])) for key in sorted(item.at)])


def value(item: Evidence) -> str:
    """The value with its direction and unit: `at most 0.412`, `3 models`, `at least 0.060 (6.0 x chance)`."""
    certain = item.quantity is Quantity.NOTE and item.low == item.high
    return " ".join(word for word in ("" if certain else DIRECTION[item.errs], plain(item), times(item)) if word)


def plain(item: Evidence) -> str:
    """The value with its unit alone: `0.412`, `3 models`."""
    return _fixed(item, item.value) if item.unit == "share" else f"{_fixed(item, item.value)} {item.unit}"


def times(item: Evidence) -> str:
    """`(6.0 × chance)` for a lift whose chance level is known, else nothing."""
    return f"({item.value / item.baseline:.1f} × chance)" if item.quantity is Quantity.LIFT and item.baseline else ""


def interval(item: Evidence) -> str:
    """`[0.380, 0.445]`, or nothing for a number without sampling error."""
    return "" if item.low == item.high else f"[{_fixed(item, item.low)}, {_fixed(item, item.high)}]"


def bound(item: Evidence) -> str:
    """Value and interval: `at most 0.412 [0.380, 0.445]`."""
    return " ".join(part for part in (value(item), interval(item)) if part)


def recipe(item: Evidence) -> str:
    """How the interval was made, with names written as names: `95 % interval: Clopper-Pearson`; nothing without one."""
    if item.low == item.high:
        return ""
    name = item.interval.replace("_", " ")
    for plain, proper in _NAMES:
        name = name.replace(plain, proper)
    return f"{item.confidence * 100:g} % interval: {name}"


def sentence(text: str) -> str:
    """The text with a capital at its beginning, unless that is the name of a metric or plug-in.

    >>> sentence("test rows are in other splits"), sentence("fairness.tpr_gap is 0.2")
    ('Test rows are in other splits', 'fairness.tpr_gap is 0.2')
    """
    name = any(mark in text.split(" ")[0].rstrip(".") for mark in "._/(")
    return text if name else text[:1].upper() + text[1:]


def full(text: str) -> str:
    """A whole sentence: with a capital and a full stop."""
    return sentence(text) + ("" if text.endswith((".", "!", "?", ":")) or not text else ".")


def told(item: Evidence) -> str:
    """Value and interval for a list, where a defect, which is there or not, is told in a word."""
    if item.quantity is Quantity.DEFECT and item.low == item.high:
        return "certain" if item.value >= 0.5 else "not there"
    return bound(item)


def size(item: Evidence) -> str:
    """`n = 1,000`, or nothing where nothing was counted."""
    return f"n = {item.n:,}" if item.n else ""


def place(item: Evidence) -> str:
    """Where it was measured: `eps = 0.1, norm = L∞`."""
    return notation(", ".join(f"{key} = {_short(item.at[key])}" for key in sorted(item.at)))


def metric(name: str) -> str:
    """A metric without its room, as words.

    >>> metric("evasion.robust_accuracy"), metric("privacy.tpr_at_fpr")
    ('robust accuracy', 'TPR at FPR')
    """
    parts = name.rpartition(".")[2].split("_")
    return " ".join(part.upper() if part in _SHORT else part for part in parts)


def subject(about: str, metric: str) -> str:
    """Whom or what a measurement of a metric is about; norms and attacks by their names, a group by its own.

    >>> subject("linf", "evasion.robust_accuracy"), subject("l1", "fairness.selection_gap")
    ('L∞ norm', 'l1')
    """
    return _SUBJECTS.get(metric.partition(".")[0], {}).get(about, about)


def notation(text: str) -> str:
    """A sentence of this package in which norms stand as the field writes them; report.json keeps their ids.

    >>> notation("evasion.robust_accuracy (eps = 0.1, norm = linf) at least 0.5")
    'evasion.robust_accuracy (eps = 0.1, norm = L∞) at least 0.5'
    >>> notation("evasion.robust_accuracy: l2"), notation("fairness.selection_gap: l2")
    ('evasion.robust_accuracy: L2', 'fairness.selection_gap: l2')
    """
    return _NORM.sub(lambda found: f"{found[1]}{_NORMS[found[2]]}", text)


def topic(about: str) -> str:
    """The subject of an outcome, `metric: about`, in words.

    >>> topic("evasion.robust_accuracy: linf"), topic("preflight.train_mode"), topic("notes")
    ('Robust accuracy, L∞ norm', 'Train mode', 'Notes')
    """
    name, colon, rest = about.partition(": ")
    if "." not in name or " " in name:
        return sentence(about)
    said = metric(name)
    return ", ".join(part for part in (said[:1].upper() + said[1:], subject(rest, name) if colon else "") if part)


def where(item: Evidence) -> str:
    """Where it was measured, in words, without what its subject says already: `eps = 0.1, L∞ norm`."""
    return ", ".join(parts(item)[1 if item.about else 0 :])


def parts(item: Evidence) -> list[str]:
    """Subject and coordinates, each in words: `["L∞ norm", "eps = 0.1"]`."""
    told = [_at(key, item.at[key]) for key in sorted(item.at) if item.at[key] != item.about]
    whom = _at("norm", item.about) if item.about and item.at.get("norm") == item.about else ""
    return [whom or subject(item.about, item.metric), *told] if item.about else told


def separated(text: str) -> str:
    """A sentence with separators in its large counts; four digits may be a year, unless they are an `n`.

    >>> separated("n = 5421 of 16281 rows, 2016, v1.23456")
    'n = 5,421 of 16,281 rows, 2016, v1.23456'
    """
    return _COUNT.sub(lambda found: f"{int(found[0]):,}", text)


def visible(text: str) -> str:
    """The text with characters that nobody sees told by their numbers; line ends and tabs stay.

    >>> visible(f"a{chr(0x202E)}b{chr(27)}[31m")
    'a[U+202E]b[U+001B][31m'
    """
    return _UNSEEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text)


def names(threat: Threat) -> list[tuple[str, str]]:
    """The threat's ids: pairs of a public list and the ids in it, without the lists that have none."""
    pairs = [(title, ", ".join(x.removeprefix(f"{title} ") for x in getattr(threat, field))) for title, field in _LISTS]
    return [(title, ids) for title, ids in pairs if ids]


def _fixed(item: Evidence, x: float) -> str:
    # a share of 1 or 0 beside an interval keeps its decimals, so that columns of shares read alike
    return f"{x:.3f}" if item.unit == "share" and (x == 0 or 0.001 <= abs(x) <= 1) else number(x)


def _at(key: str, x: object) -> str:
    if key == "norm":
        return f"{_NORMS.get(str(x), x)} norm"
    name = key.upper() if key in _SHORT else key.replace("_", " ")
    return f"{name} = {_short(x)}"


def _short(x: object) -> str:
    return f"{x:.4g}" if isinstance(x, float) else str(x)


def _sortable(x: object) -> tuple[int, float, str]:
    return (0, float(x), "") if isinstance(x, int | float) else (1, 0.0, str(x))
