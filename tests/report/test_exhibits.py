"""Exhibits on the page: pixels that a peer reads back, marked changes, curves, and files that cannot be trusted."""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from tests.report import samples

from casemate.core.evidence import Direction, Metric, Quantity
from casemate.core.exhibit import GROUPS, SUBJECTS, Groups, bars, lines, pictures, rows, texts_changed
from casemate.formats import arrays
from casemate.formats.digests import sha256_bytes
from casemate.report import exhibits, html, plots, png

HOSTILE = "<script>alert(1)</script>"


def report_with(folder: Path, *records, plugin="evasion.standard"):
    """A report whose files are these exhibits, written below `folder`."""
    files = {}
    for position, record in enumerate(records):
        data = arrays.pack(record)
        path = f"evidence/{plugin}/exhibit-e{position}.0123456789ab.cma"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        files[sha256_bytes(data)] = path
    return replace(samples.report(), files=files)


def decoded(address: str) -> np.ndarray:
    kind, _, data = address.partition(",")
    assert kind == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    image.load()
    return np.asarray(image)


shapes = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))
)


@given(hnp.arrays(np.uint8, shapes))
@settings(max_examples=40, deadline=None)
def test_another_reader_reads_the_same_pixels(pixels):
    np.testing.assert_array_equal(decoded(png.data_uri(pixels)), pixels)


@pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2), np.uint8)])
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(ValueError, match="expected bytes"):
        png.encoded(bad)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_show_before_after_and_the_amplified_difference(tmp_path, channels):
    before = np.full((2, channels, 4, 5), 0.5)
    after = before.copy()
    after[0, :, 1, 2] += 0.05
    after[1, :, 3, 0] -= 0.02
    record = pictures(before, after, was=["cat", HOSTILE], now=["dog", "cat"], bounds=(0.0, 1.0), about="linf")
    report = report_with(tmp_path, record)
    (shown,) = exhibits.load_exhibits(report, tmp_path)
    assert shown.plugin == "evasion/standard"
    assert shown.amplified == pytest.approx(20)
    first = shown.pictures[0]
    assert decoded(first.before).shape == ((4, 5) if channels == 1 else (4, 5, 3))
    assert decoded(first.after)[1, 2].max() == round(0.55 * 255)
    grew, fell = (decoded(item.difference).astype(int) for item in shown.pictures)
    assert grew[1, 2, 0] > grew[1, 2, 2]  # orange
    assert fell[3, 0, 0] < fell[3, 0, 2]  # blue
    assert (grew[0, 0] == 255).all()  # what did not change is white
    page = html.render(report, [shown])
    assert page.count('src="data:image/png;base64,') == 6
    assert "20 times amplified" in page
    assert HOSTILE not in page


def test_large_pictures_are_averaged_until_the_page_is_small(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.random((6, 3, 300, 200)).astype(np.float32)
    records = [
        pictures(noise, noise[::-1] * k, was=["a"] * 6, now=["b"] * 6, bounds=(0, 1)) for k in (1, 0.5, 0.25, 0.1)
    ]
    report = report_with(tmp_path, *records)
    page = html.render(report, exhibits.load_exhibits(report, tmp_path))
    assert page.count("<img") == 4 * 6 * 3
    assert len(page.encode()) < 2_500_000
    reduced = exhibits._reduced(noise.astype(float), 100)
    np.testing.assert_allclose(reduced[0, 0, 0, 0], noise[0, 0, :3, :3].mean(), rtol=1e-6)


def test_a_row_shows_its_changed_cells_and_counts_the_others(tmp_path):
    before = np.array([["40", "Private", "x"], ["50", "State", "x"]])
    after = np.array([["41", "Private", "x"], ["50", HOSTILE, "x"]])
    record = rows(before, after, names=["age", "work", "same"], was=["no", "no"], now=["yes", "yes"])
    report = report_with(tmp_path, record)
    (shown,) = exhibits.load_exhibits(report, tmp_path)
    assert [(name, [cell.changed for cell in cells]) for name, cells in shown.table.lines] == [
        ("age", [True, False]),
        ("work", [False, True]),
    ]
    assert shown.table.same == 1
    page = html.render(report, [shown])
    assert "<del>40</del> <ins>41</ins>" in page
    assert HOSTILE not in page


words_ = st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=40).map(" ".join)


@given(words_, words_)
@settings(max_examples=60, deadline=None)
def test_the_stretches_of_a_text_give_both_texts_back(before, after):
    parts = exhibits._compared(before, after)
    if not any(part.kind == "gap" for part in parts):
        for kind, text in (("before", before), ("after", after)):
            assert " ".join(p.text for p in parts if p.kind in ("same", kind)).split() == text.split()


def test_changed_words_are_marked_and_what_is_far_from_them_is_left_out(tmp_path):
    before = " ".join(f"w{i}" for i in range(200))
    after = before.replace("w100 ", "<b>W100</b> ")
    report = report_with(tmp_path, texts_changed([before], [after], was=["spam"], now=["ham"]))
    (shown,) = exhibits.load_exhibits(report, tmp_path)
    page = html.render(report, [shown])
    assert "<del>w100</del>" in page
    assert "<ins>&lt;b&gt;W100&lt;/b&gt;</ins>" in page
    assert [part.kind for part in shown.texts[0].parts] == ["gap", "same", "before", "after", "same", "gap"]
    assert "w99" in page
    assert "w50 " not in page


def test_a_letter_that_only_looks_the_same_is_told_by_its_number(tmp_path):
    # An attack with Cyrillic letters was shown as "your" struck out and "your" put in.
    record = texts_changed(["say your name"], ["say y\u043eur na\u200bme"], was=["x"], now=["y"])
    report = report_with(tmp_path, record)
    page = html.render(report, exhibits.load_exhibits(report, tmp_path))
    assert "<ins>y\u043e[U+043E]ur na[U+200B]me</ins>" in page


def test_a_roc_has_even_axes_and_logarithmic_ones_on_which_chance_is_a_diagonal(tmp_path):
    x = np.array([0.0, 0.001, 0.01, 0.1, 1.0])
    report = report_with(tmp_path, lines({"loss": (x, np.sqrt(x))}, x="FPR", y="TPR", x_log=True, diagonal=True))
    (shown,) = exhibits.load_exhibits(report, tmp_path)
    even, log = shown.plots
    assert [text for _, text in even.x_ticks] == ["0", "0.25", "0.5", "0.75", "1"]
    assert [text for _, text in log.x_ticks] == ["0.001", "0.01", "0.1", "1"]
    points = [tuple(map(float, point.split(","))) for point in log.lines[0].points.split()]
    width = plots.WIDTH - plots.LEFT - plots.RIGHT
    height = plots.HEIGHT - plots.TOP - plots.BOTTOM
    assert points[0] == (plots.LEFT, plots.HEIGHT - plots.BOTTOM)  # rates of 0 stand at the least rate that is shown
    for (px, py), rate in zip(points[1:], [0.001, 0.01, 0.1, 1.0], strict=True):
        assert px == pytest.approx(plots.LEFT + width * (1 + math.log10(rate) / 3), abs=0.06)
        assert py == pytest.approx(plots.TOP + height * (-math.log10(math.sqrt(rate)) / 3), abs=0.06)
    assert html.render(report, [shown]).count('class="plot"') == 2


def _forge(report, folder, how):
    digest, path = next(iter(report.files.items()))
    if how == "gone":
        (folder / path).unlink()
    elif how == "changed":
        (folder / path).write_bytes(b"CMARRAY1" + bytes(80))
    elif how == "outside":
        (folder / "exhibit-x.cma").write_bytes((folder / path).read_bytes())
        return replace(report, files={digest: "evidence/../../exhibit-x.cma"}), folder / "evidence"
    elif how == "null byte":
        return replace(report, files={digest: "a/exhibit-\0.cma"}), folder
    return report, folder


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("gone", "not beside the report"),
        ("changed", "not the one that was measured"),
        ("outside", "out of the report"),
        ("null byte", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_told_and_not_shown(tmp_path, how, says):
    record = texts_changed(["a"], ["b"], was=["x"], now=["y"])
    report, folder = _forge(report_with(tmp_path, record), tmp_path, how)
    (shown,) = exhibits.load_exhibits(report, folder)
    assert says in shown.fault
    assert says in html.render(report, [shown])


def groups(about, *rates, names=None, thin=()):
    value = np.array(rates)
    ends = np.clip(value - 0.05, -1, 1), np.clip(value + 0.08, -1, 1)
    return Groups(about, names or [f"g{i}" for i in range(len(rates))], value, *ends, np.full(len(rates), 1200), thin)


def test_bars_stand_in_the_card_of_their_metric_with_every_number(tmp_path):
    subjects = groups("sex", 0.08, 0.26, names=["women", HOSTILE], thin=["X (n = 7)"]), groups("race", 0.1, 0.12)
    record = bars(subjects, metric="fairness.selection_gap", confidence=0.95, caption="rate by group")
    report = report_with(tmp_path, record, plugin="fairness.group_gaps")
    shown = exhibits.load_exhibits(report, tmp_path)
    women, men = shown[0].groups.bars
    assert (women.end, men.end) == ("lowest", "highest")
    assert (men.x, men.width) == (0, pytest.approx(100 * 0.26 / 0.34, abs=0.01))
    assert (men.x_low, men.x_high) == (pytest.approx(100 * 0.21 / 0.34, abs=0.01), 100)
    page = html.render(report, shown)
    assert HOSTILE not in page
    cards = [part for part in page.split("<article") if "Rate by group" in part]
    assert [part.count('<rect class="rate') for part in cards] == [2, 2]  # sex is a finding, race is not
    assert all("Groups are given the favourable class" in part or "Selection gap" in part for part in cards)
    assert all(told in cards[0] for told in ("<b>0.080</b>", "[0.030, 0.160]", "n = 1,200", "X (n = 7)"))


def test_bars_below_zero_start_at_zero(tmp_path):
    record = bars([groups("sex", -0.2, 0.1)], metric="fairness.calibration_gap", confidence=0.95)
    (shown,) = exhibits.load_exhibits(report_with(tmp_path, record), tmp_path)
    below, above = shown.groups.bars
    assert (above.x, below.x + below.width) == pytest.approx((shown.groups.zero, shown.groups.zero))
    assert shown.groups.zero == pytest.approx(100 * 0.25 / 0.43, abs=0.01)
    assert shown.groups.told(-0.2) == "\u22120.200"


def test_of_many_groups_the_highest_and_lowest_are_kept_and_the_others_counted(tmp_path):
    many = groups("zip", *np.random.default_rng(0).permutation(np.linspace(0, 0.9, 500)), thin=["t"] * 90)
    others = [groups(f"s{i}", 0.1, 0.1 + i / 100) for i in range(40)]
    record = bars([*others, many], metric="fairness.tpr_gap", confidence=0.95)
    shown = exhibits.load_exhibits(report_with(tmp_path, record), tmp_path)
    assert [s.about for s in shown] == [*(f"s{i}" for i in range(25, 40)), "zip"]
    found = shown[-1].groups
    assert (len(found.bars), found.between, found.left_out) == (GROUPS, 500 - GROUPS, 41 - SUBJECTS)
    assert {bar.value for bar in found.bars if bar.end} == {0.0, 0.9}
    assert found.thin == ("t",) * GROUPS + (f"{90 - GROUPS} more",)


GOOD = {"exhibit": "pictures", "was": ["a"], "now": ["b"], "bounds": [0, 1]}
ROW = {"exhibit": "rows", "original": np.array([["a"]]), "changed": np.array([["b"]]), "was": ["a"], "now": ["b"]}
BAR = dict(bars([groups("sex", 0.1, 0.3)], metric="m", confidence=0.95))
LINE = {"exhibit": "lines", "x_title": "", "y_title": "", "x_log": True, "diagonal": True}
BAD = [
    {},
    {"exhibit": "film"},
    {"exhibit": np.zeros(3)},
    GOOD,
    {**GOOD, "original": np.zeros((1, 1, 2, 2)), "changed": np.zeros((1, 1, 3, 2))},
    {**GOOD, "original": np.zeros(()), "changed": np.zeros(())},
    {**GOOD, "original": "x", "changed": "y"},
    {**GOOD, "original": np.zeros((1, 1, 2, 2)), "changed": np.zeros((1, 1, 2, 2)), "was": []},
    {**ROW, "names": []},
    {**ROW, "names": ["a"], "now": 1},
    {"exhibit": "texts", "original": 7, "changed": ["a"], "was": ["a"], "now": ["b"]},
    {**LINE, "names": ["a"], "x0": np.array([np.nan]), "y0": np.array([1.0])},
    {**LINE, "names": ["a"], "x0": np.array([1.0, 2.0]), "y0": np.array([1.0])},
    {**LINE, "names": []},
    {**BAR, "subjects": []},
    {**BAR, "subjects": ["sex", "age"]},
    {**BAR, "names0": ["a"]},
    {**BAR, "low0": np.array([0.2, 0.2])},
    {**BAR, "high0": np.array([0.2, np.nan])},
    {**BAR, "value0": np.array([[0.1, 0.3]])},
    {**BAR, "n0": np.array([0.1, 1e300])},
    {**BAR, "between0": "x"},
    {**BAR, "confidence": np.zeros(2)},
]


@pytest.mark.parametrize("record", BAD, ids=range(len(BAD)))
def test_a_file_that_holds_something_else_is_told_and_not_shown(tmp_path, record):
    (shown,) = exhibits.load_exhibits(report_with(tmp_path, record), tmp_path)
    assert "nothing that this release can draw" in shown.fault


def test_nan_and_constant_pictures_are_drawn(tmp_path):
    blank = np.full((1, 1, 3, 3), np.nan)
    record = pictures(blank, blank, was=["a"], now=["a"], bounds=(0.5, 0.5))
    (shown,) = exhibits.load_exhibits(report_with(tmp_path, record), tmp_path)
    assert not shown.fault
    assert (decoded(shown.pictures[0].difference) == 255).all()


def test_an_exhibit_stands_in_the_card_that_has_its_subject(tmp_path):
    record = texts_changed(["a b"], ["a c"], was=["x"], now=["y"], about="digit 8", caption="found here")
    report = report_with(tmp_path, record)
    page = html.render(report, exhibits.load_exhibits(report, tmp_path))
    (card,) = [part for part in page.split("<article") if "Found here" in part]
    assert "digit 8" in card
    lost = replace(exhibits.load_exhibits(report, tmp_path)[0], plugin="nobody/else")
    assert "Found here" in html.render(report, [lost]).split("Pictures of what passed")[1]


def test_a_trend_takes_shares_at_three_values_of_one_coordinate():
    noted = Metric("a.kept", Quantity.NOTE, Direction.EXACT)
    items = [
        noted.measured(samples.share(v, v - 0.1, v + 0.1), method="m", about=name, at={"kind": name, "severity": s})
        for name, values in (("blur", (0.9, 0.5, 0.2)), ("few", (0.9, 0.5)))
        for s, v in enumerate(values, 1)
    ]
    report = replace(samples.report(), outcomes=tuple(samples.judge("a/b", items)))
    (trend,) = plots.trends(report)
    (panel,) = trend.panels
    assert (trend.key, panel.name, panel.first, panel.last) == ("severity", "blur", "0.900", "0.200")
    assert [y for _, y, _, _ in panel.points] == sorted(y for _, y, _, _ in panel.points)
    assert all(high < y < low for _, y, low, high in panel.points)
    assert re.search("Kept against severity", html.render(report))
