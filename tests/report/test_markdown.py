"""Markdown: what a reader of a pull request sees, by a CommonMark parser, whatever things are called."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from tests.report import samples

from casemate.core.outcome import Skipped, SkipReason
from casemate.report import markdown, words

PARSER = MarkdownIt("commonmark").enable("table")
HOSTILE = [
    "[x](https://evil.example)",
    "![x](https://evil.example/p.png)",
    "<img src=x onerror=alert(1)>",
    "a | b | c\n| --- |",
    "`code`` ```",
    "@everyone, see www.evil.example or https://evil.example",
    "# big\n\n- list",
    "</details><script>",
    "\\` \\| &lt; **bold** __x__ ~~s~~ $m$",
    "<!-- -->",
    "--> <b>",
]


def tokens(text):
    for token in PARSER.parse(text):
        yield token
        yield from token.children or ()


def seen(text):
    """The text that a reader sees."""
    return "\n".join(t.content for t in tokens(text) if t.type in ("text", "code_inline"))


def shape(text):
    """The structure: every tag, and all HTML that is not our own comment."""
    return [
        (t.type, t.tag, t.content if t.type.startswith("html") else "")
        for t in tokens(text)
        if t.type not in ("text", "softbreak", "inline") and t.content != "<!-- -->"
    ]


def test_it_says_verdict_gates_findings_and_what_was_not_tested():
    report = samples.report()
    text = markdown.render(report)
    read = seen(text)
    assert "Failed: at least one gate does not hold." in read
    for gate in report.ruling.gates:
        assert words.notation(gate.gate) in read
    for finding in report.findings:
        assert (f"casemate explain '{finding.id}'" in read) == (finding.id not in report.ruling.accepted)
    assert "at most 0.083 [0.067, 0.102], eps = 0.2, norm = L∞, n = 1,000" in read
    assert "0.182 [0.161, 0.204], n = 4,000; >50K given: men 0.26, women 0.08" in read
    for outcome in report.untested:
        assert outcome.plugin in read
    assert "accepted until 2027-03-31: the last layer is a softmax on purpose" in read
    rows = [t for t in tokens(text) if t.type == "tr_open"]
    assert len(rows) == 1 + len(report.ruling.gates) + 1 + len(report.untested)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_changes_nothing_but_the_text(name):
    plain = shape(markdown.render(samples.report(label="sex", name="sex")))
    assert shape(markdown.render(samples.report(label=name, name=name))) == plain


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
@example("*\n\n| a\r\n[b]: c")
def test_any_name_changes_nothing_but_the_text(name):
    def made(word):
        report = samples.report(name=word)
        extra = Skipped("x/y", SkipReason.BUDGET, f"x{word}")
        return markdown.render(replace(report, outcomes=(*report.outcomes, extra), notes=(f"n{word}",)))

    assert shape(made(name)) == shape(made("word"))


def test_nobody_is_mentioned_and_nothing_is_linked():
    text = markdown.render(samples.report(label="@all www.evil.example https://evil.example"))
    assert "@all" not in text
    assert "www." not in text
    assert "://" not in text
    assert "@all www.evil.example https://evil.example" in seen(text).replace("\n", "")


def test_what_a_comment_cannot_hold_is_cut_and_said_so():
    report = samples.report()
    many = tuple(replace(o, about=f"{o.about} {i} {'x' * 400}") for i in range(200) for o in report.findings)
    text = markdown.render(replace(report, outcomes=many))
    assert 0.9 * markdown.MOST < len(text) <= markdown.MOST
    assert text.endswith("The rest is in the report.\n")


def test_a_passing_report_is_short():
    text = markdown.render(samples.passing())
    assert "Passed: every gate holds." in text
    assert "Findings" not in text
    assert "Not tested" not in text
