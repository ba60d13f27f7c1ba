"""The page of a comparison: each measurement stands where its interval and its direction put it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier
from tests.report import samples
from tests.report.test_html import HOSTILE, parsed

import casemate
from casemate import _compare
from casemate.cli.compare import compare
from casemate.errors import UsageError
from casemate.report import comparison_html
from casemate.report import json as report_json
from casemate.report.notebook import NotebookReport


def row(metric="a.m", **changes):
    made = _compare.Difference(metric, "sex", "eps = 0.1", 0.5, 0.7, 0.1, 0.3, 100, paired=True, better=1)
    return replace(made, **changes)


def sections(rows, a=None, b=None):
    page = comparison_html.render(rows, a or samples.report(), b or samples.passing())
    parsed(page)
    found = {part.split('"')[0]: part for part in page.split('<section aria-labelledby="')[1:]}
    return page, found


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({}, "better"),
        ({"better": -1}, "worse"),
        ({"better": 0}, "other"),
        ({"a": 0.7, "b": 0.5, "low": -0.3, "high": -0.1}, "worse"),
        ({"low": -0.1}, "unclear"),
        ({"p": 0.2}, "unclear"),
        ({"p": 0.01, "low": -0.01}, "better"),
        ({"b": 0.5, "low": 0.0, "high": 0.0}, "same"),
        ({"noted": True}, "notes"),
        ({"noted": True, "metric": "a.clean_accuracy", "better": 0}, "other"),
    ],
)
def test_a_measurement_stands_where_its_interval_and_direction_put_it(changes, place):
    _, found = sections([row(**changes)])
    assert set(found) == {place}


def test_what_got_worse_comes_first_and_the_same_is_folded():
    page, found = sections([row(b=0.5, low=0.0, high=0.0), row("a.up"), row("a.down", better=-1)])
    assert list(found) == ["worse", "better", "same"]
    assert "<details>" in found["same"]
    assert "<details>" not in found["worse"]
    assert "\N{MINUS SIGN}" in found["worse"]
    assert "Down, sex, eps\u00a0=\u00a00.1" in page


def test_names_from_outside_are_text():
    page, _ = sections([row(HOSTILE, about=HOSTILE, at=HOSTILE)], a=samples.report(HOSTILE, name=HOSTILE))
    assert HOSTILE not in page


def test_without_a_shared_measurement_the_page_says_so():
    assert "share no measurement" in sections([])[0]


def test_a_notebook_shows_a_report_and_a_comparison(tmp_path):
    x = np.random.default_rng(0).normal(size=(80, 2))
    y = (x[:, 0] > 0).astype(int)
    folders = [tmp_path / name for name in "ab"]
    model = DecisionTreeClassifier(random_state=0).fit(x, y)
    made = [casemate.audit(model, test=(x, y), only=["preflight"], output=folder) for folder in folders]
    assert isinstance(made[0], NotebookReport)
    plain = report_json.loads((folders[0] / "report.json").read_bytes())
    assert made[0] == plain
    assert plain == made[0]
    assert replace(made[0], seed=9) != plain
    assert report_json.dumps(made[0]) == report_json.dumps(plain)
    found = casemate.compare(*folders)
    assert compare(*folders, output=tmp_path / "page.html") == 0
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == found.page()
    with pytest.raises(UsageError, match=r"FILE\.html"):
        compare(*folders, output=tmp_path / "page.txt")
    assert found == list(found)
    for shown in (made[0]._repr_html_(), found._repr_html_()):
        reader = parsed(shown)
        ((tag, attributes),) = reader.elements
        assert (tag, attributes["sandbox"]) == ("iframe", "")
        parsed(attributes["srcdoc"])
        assert attributes["srcdoc"].startswith("<!doctype html>")
