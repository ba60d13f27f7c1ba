"""JUnit XML: a test case for each gate and each plug-in, for whatever shows test results.

It is red where the verdict is: a failure means that a gate failed, an error that one could not be decided. A finding
below the policy's bar passes, with its numbers as output; what was not tested is skipped, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as Tree

from casemate.core.evidence import Quantity
from casemate.core.judgement import Status
from casemate.core.outcome import Failed, Finding, Inconclusive, Outcome, Severity, Skipped
from casemate.core.report import Report
from casemate.report import acceptance, words

__all__ = ["render"]

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2


def render(report: Report) -> str:
    """The document, with suites `gates` and one for each room; equal reports without timings give equal text."""
    root = Tree.Element("testsuites", {"name": _legal(f"casemate {report.name}")})
    gates = _suite(root, "gates")
    for gate in report.ruling.gates:
        case = Tree.SubElement(gates, "testcase", {"classname": "casemate.gates", "name": _legal(gate.gate)})
        if gate.status is Status.FAILED:
            _mark(case, "failure", "gate", gate.reason)
        elif gate.status is Status.UNDECIDED:
            _mark(case, "error", "undecided", gate.reason)
    names = sorted({*report.plugins, *(outcome.plugin for outcome in report.outcomes)})
    for room in sorted({name.partition("/")[0] for name in names}):
        suite = _suite(root, room)
        for name in names:
            if name.partition("/")[0] == room:
                _plugin(suite, report, name)
    for suite in root:
        _count(suite)
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    root.set("time", f"{report.timings.seconds:.3f}")
    Tree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Tree.tostring(root, encoding="unicode")}\n'


def _suite(root: Tree.Element, name: str) -> Tree.Element:
    return Tree.SubElement(root, "testsuite", {"name": _legal(name)})


def _count(suite: Tree.Element) -> None:
    cases = suite.findall("testcase")
    counts = {"tests": len(cases)}
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        counts[key] = sum(case.find(tag) is not None for case in cases)
    for key, count in counts.items():
        suite.set(key, str(count))
    suite.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")


def _plugin(suite: Tree.Element, report: Report, name: str) -> None:
    room, _, short = name.partition("/")
    seconds = report.timings.plugins.get(name, 0.0)
    about = {"classname": f"casemate.{room}", "name": short or room, "time": f"{seconds:.3f}"}
    case = Tree.SubElement(suite, "testcase", {key: _legal(value) for key, value in about.items()})
    mine = [outcome for outcome in report.outcomes if outcome.plugin == name]
    text = _lines(mine)
    mark = _marked(report, mine)
    if mark is not None:
        _mark(case, *mark, text)
    elif text:
        Tree.SubElement(case, "system-out").text = text


def _marked(report: Report, mine: Sequence[Outcome]) -> tuple[str, str, str] | None:
    """How a plug-in's case ends (tag, type, message) as far as it bears on the policy's bar; `None` where it passes."""
    bar = report.policy.fail_on
    opened = [o for o in mine if isinstance(o, Finding) and acceptance(report, o) is None]
    found = [finding for finding in opened if _counts(finding.severity, bar)]
    unclear = [o for o in mine if (isinstance(o, Inconclusive) or o in opened) and _counts(_could_be(o), bar)]
    broken = [o for o in mine if isinstance(o, Failed)]
    skipped = [o for o in mine if isinstance(o, Skipped)]
    if found:
        worst = max(found, key=lambda finding: finding.severity.rank)
        return "failure", str(worst.severity), words.sentence(worst.title)
    if broken and bar is not Severity.NONE:
        return "error", broken[0].cause, broken[0].error
    if unclear:
        return "error", "inconclusive", f"could be {_could_be(unclear[0])}: {unclear[0].about}"
    if skipped or broken:
        return "skipped", "", "; ".join([*map(_why, skipped), *map(_why, broken)])
    return None


def _counts(severity: Severity, bar: Severity) -> bool:
    return bar is not Severity.NONE and severity.rank >= bar.rank


def _could_be(outcome: Outcome) -> Severity:
    return outcome.could_be if isinstance(outcome, Finding | Inconclusive) else Severity.NONE


def _why(outcome: Skipped | Failed) -> str:
    return outcome.detail if isinstance(outcome, Skipped) else f"it broke: {outcome.error}"


def _mark(case: Tree.Element, tag: str, kind: str, message: str, text: str = "") -> None:
    mark = Tree.SubElement(case, tag, {"message": _legal(message), **({"type": kind} if kind else {})})
    mark.text = text or None


def _lines(outcomes: Sequence[Outcome]) -> str:
    lines = []
    for outcome in outcomes:
        if isinstance(outcome, Skipped | Failed):
            lines.append(f"not tested: {_why(outcome)}")
            continue
        lines.append(_headline(outcome))
        for item in words.in_order(e for e in outcome.evidence if e.quantity is not Quantity.NOTE):
            where = ", ".join(part for part in (words.place(item), words.size(item)) if part)
            lines.append(f"  {words.told(item)}  {where}".rstrip())
    return _legal("\n".join(lines))


def _headline(outcome: Outcome) -> str:
    if isinstance(outcome, Finding):
        return f"{outcome.severity}: {words.sentence(outcome.title)} ({words.notation(outcome.about)}) {outcome.id}"
    could = f", could be {outcome.could_be}" if isinstance(outcome, Inconclusive) else ""
    return f"{outcome.outcome}{could}: {outcome.about or outcome.plugin}"


def _legal(text: str) -> str:
    """The text with what XML cannot hold (control characters, lone surrogates) written as an escape."""
    return _ILLEGAL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
