from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from tests.report import samples

from casemate.core.evidence import Direction
from casemate.core.judgement import TABLE
from casemate.report import drawing, html, words

HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "br", "img", "input", "hr", "link"}


class Page(HTMLParser):
    """Collects elements and text; fails on unbalanced ones."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def parsed(page: str) -> Page:
    reader = Page()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize("report", [samples.report(), samples.passing()], ids=["failed", "passed"])
def test_the_page_is_well_formed_offline_and_small(report):
    page = html.render(report)
    reader = parsed(page)
    assert len(page.encode()) < 400_000
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in reader.elements}
    addresses = {
        (k, v) for _, attributes in reader.elements for k, v in attributes.items() if k in ("href", "src", "xlink:href")
    }
    assert {v for k, v in addresses if k != "href" or not v.startswith("#")} == set()
    ids = {attributes["id"] for _, attributes in reader.elements if "id" in attributes}
    assert {v[1:] for _, v in addresses} <= ids
    assert "url(" not in page
    assert "@import" not in page
    assert not [k for _, attributes in reader.elements for k in attributes if k.startswith("on")]
    assert any("default-src 'none'" in (a.get("content") or "") for _, a in reader.elements)


def test_what_a_model_or_data_brings_in_is_shown_as_text():
    report = samples.report(label=HOSTILE)
    report = replace(
        report,
        name=HOSTILE,
        versions={HOSTILE: HOSTILE},
        settings={HOSTILE: {HOSTILE: HOSTILE}, "other": [HOSTILE]},
        files={'"><img src=x onerror=alert(1)>': HOSTILE},
        notes=(HOSTILE,),
    )
    page = html.render(report)
    reader = parsed(page)
    assert "<script" not in page
    assert "onerror=alert(1)>" not in page
    assert not {"script", "img"} & {tag for tag, _ in reader.elements}
    assert "".join(reader.text).count(HOSTILE) >= 8


def test_the_verdict_and_every_gate_are_told_in_words():
    report = samples.report()
    text = " ".join(" ".join(parsed(html.render(report)).text).split())
    assert words.VERDICT[report.ruling.status] in text
    for gate in report.ruling.gates:
        assert f"{gate.status} {words.notation(gate.gate)}" in text
        assert all(words.notation(part) in text for part in gate.reason.split("; "))
    assert "norm = L∞" in text


def test_every_outcome_has_its_place():
    report = samples.report()
    text = " ".join(parsed(html.render(report)).text)
    for finding in report.findings:
        assert finding.id in text
        assert words.sentence(finding.mend) in text
    for outcome in report.untested:
        assert outcome.plugin in text
    assert "at most" in text
    assert "at least" in text
    assert "lightgbm" in text
    assert "the last layer is a softmax on purpose" in text


def test_an_accepted_finding_does_not_count_among_the_open_ones():
    page = " ".join(html.render(samples.report()).split())
    assert "<b>6</b> findings" in page
    assert "(1 high, 3 medium, 2 low)" in page
    assert "<b>1</b> accepted" in page


def test_equal_reports_give_equal_pages():
    assert html.render(samples.report()) == html.render(samples.report())


@pytest.mark.parametrize("outcome", samples.outcomes(), ids=lambda o: o.plugin)
def test_a_bar_covers_its_width_and_holds_its_value(outcome):
    for item in outcome.evidence:
        bar = drawing.bar(item)
        if bar is None:
            assert item.quantity not in TABLE or item.quantity == "defect"
            continue
        assert 0 <= bar.low <= bar.value <= bar.high <= 100
        assert bar.zones[0].x == 0
        assert bar.zones[-1].x + bar.zones[-1].width == pytest.approx(100, abs=0.05)
        for zone, following in zip(bar.zones, bar.zones[1:], strict=False):
            assert zone.x + zone.width == pytest.approx(following.x, abs=0.05)


@pytest.mark.parametrize("outcome", samples.outcomes(), ids=lambda o: o.plugin)
def test_a_bar_puts_a_value_into_the_zone_of_its_severity(outcome):
    for item in outcome.evidence:
        bar = drawing.bar(item)
        if bar is None:
            continue
        unit = item.baseline if item.quantity == "lift" and item.baseline else 1.0
        zone = next(z for z in bar.zones if z.x <= bar.value <= z.x + z.width)
        assert zone.word == TABLE[item.quantity].at(item.value / unit)


def test_a_curve_joins_upper_and_lower_bounds_of_one_norm():
    (curve,) = drawing.curves(samples.report())
    assert curve.title == "L∞ norm"
    assert [(s.metrics, s.upper, len(s.points)) for s in curve.series] == [
        ("evasion.robust_accuracy", True, 3),
        ("evasion.certified_accuracy", False, 4),
    ]
    for series in curve.series:
        assert [p.x for p in series.points] == sorted(p.x for p in series.points)
        assert all(p.y_high <= p.y <= p.y_low for p in series.points)
    assert curve.certified
    assert len(curve.band.split()) == 7


def test_a_curve_takes_the_tightest_bound_of_each_metric():
    # A gate's eps and the eps of a curve were drawn as two lines over each other.
    evidence = [
        replace(samples.ROBUST, name=name).measured(
            samples.share(*numbers), method="m", about="linf", at={"norm": "linf", "eps": eps}
        )
        for name, eps, numbers in (
            ("a.robust", 0.1, (0.7, 0.6, 0.8)),
            ("a.curve", 0.1, (0.6, 0.5, 0.7)),
            ("a.curve", 0.05, (0.9, 0.8, 0.95)),
        )
    ]
    found = tuple(samples.judge("a/b", evidence))
    (curve,) = drawing.curves(replace(samples.report(), outcomes=found))
    assert curve.title == "L∞ norm"
    (line,) = curve.series
    assert line.metrics == "a.curve, a.robust"
    assert [(p.item.at["eps"], p.item.value) for p in line.points] == [(0.05, 0.9), (0.1, 0.6)]


def test_a_leak_s_eps_is_no_attacker_s_eps():
    item = samples.AUC.measured(samples.share(0.6, 0.5, 0.7), method="m", at={"eps": 1.0})
    found = tuple(samples.judge("a/b", [item, replace(item, at={"eps": 2.0})]))
    assert drawing.curves(replace(samples.report(), outcomes=found)) == []


def test_without_a_certificate_the_truth_may_lie_anywhere_below():
    report = samples.report()
    bare = tuple(o for o in report.outcomes if not (o.plugin == "evasion/standard" and o.about == "notes"))
    (curve,) = drawing.curves(replace(report, outcomes=bare))
    assert not curve.certified
    bottom = drawing.HEIGHT - drawing.BOTTOM
    assert curve.band.endswith(f",{bottom}")
    assert "anywhere below it" in html.render(replace(report, outcomes=bare))


def test_a_single_eps_is_no_curve():
    assert drawing.curves(samples.passing()) == []


def test_no_number_of_a_picture_is_broken():
    assert not re.search(r"(nan|inf)%|\"(nan|inf)\"", html.render(samples.report()))


def test_the_others_of_a_card_stand_in_the_order_of_eps():
    values = {0.5: 0.2, 0.1: 0.85, 0.25: 0.6, 0.05: 0.89}
    items = [samples.ROBUST.measured(samples.share(v, v, v), method="m", at={"eps": eps}) for eps, v in values.items()]
    page = html.render(replace(samples.report(), outcomes=tuple(samples.judge("a/b", items))))
    finding = page.split("<article")[1]
    # the gravest leads, and all stand below it
    assert re.findall(r"eps\u00a0=\u00a0([\d.]+)", finding)[:5] == ["0.5", "0.05", "0.1", "0.25", "0.5"]


def test_a_finding_tells_how_to_measure_it_again_and_the_page_what_to_put_in():
    report = samples.report()
    page = html.render(report)
    text = " ".join(" ".join(parsed(page).text).split())
    assert "casemate replay 'evasion/standard#356dd09f02f8' --report FOLDER --config CONFIG" in text
    assert text.count("FOLDER is the folder of this page") == 1
    assert "FOLDER" not in html.render(samples.passing())


def test_findings_of_one_kind_are_one_card_with_a_line_for_each_subject_on_one_scale():
    # Seventeen gaps between groups were seventeen cards that said the same.
    gaps = {"sex": (0.3, 0.29, 0.31), "age": (0.9, 0.88, 0.92)}
    items = [
        samples.SELECTION.measured(samples.share(*gap), method=f"groups {name}", about=name)
        for name, gap in gaps.items()
    ]
    found = tuple(samples.judge("fairness/group_gaps", items))
    page = html.render(replace(samples.report(), outcomes=found, notes=()))
    assert page.count('class="card finding') == 1
    card = page.split("<article")[1].split("</article>")[0]
    assert card.index("Groups age") < card.index("Groups sex")  # the worst first
    for finding in found:
        assert f'id="{finding.fingerprint}"' in card
        assert finding.id in card
    alone, beside = drawing.bar(items[0]), drawing.bar(items[0], items)
    assert beside.value < alone.value  # the scale reaches as far as the largest needs
    assert beside.zones == drawing.bar(items[1], items).zones


def test_what_a_second_card_of_a_plug_in_shares_with_the_first_is_folded():
    items = [
        replace(samples.SELECTION, name=f"a.{says}", says=says).measured(samples.share(0.3, 0.29, 0.31), method="m")
        for says in ("one", "two")
    ]
    page = html.render(replace(samples.report(), outcomes=tuple(samples.judge("fairness/group_gaps", items)), notes=()))
    first, second = (part.split("</article>")[0] for part in page.split("<article")[1:3])
    assert "<details>" not in first
    shown, _, folded = second.partition("<details>")
    assert "Source" in first
    assert "Source" not in shown
    assert "Source" in folded
    assert words.full(items[0].mend) in first
    assert words.full(items[0].mend) in folded


def test_a_certificate_of_nothing_is_not_told_as_a_proof():
    # Lower bounds of 0 were drawn as a line below which "it is proved" that no attack goes.
    items = list(samples.evasion_evidence())
    none = [replace(e, value=0.0, low=0.0, high=0.0) if e.errs is Direction.TOO_LOW else e for e in items]
    report = replace(samples.report(), outcomes=tuple(samples.judge("evasion/standard", none)))
    (curve,) = drawing.curves(report)
    assert not curve.certified
    assert "nothing here was certified" in html.render(report)


def test_one_of_a_thing_is_told_in_the_singular():
    for report in (samples.report(), samples.passing()):
        text = " ".join(" ".join(parsed(html.render(report)).text).split())
        assert not re.findall(r"(?<![\d,.])1 (?:findings|gates|files|rows|plug-ins|more measurements|samples)\b", text)


def test_the_gates_that_fail_come_first():
    page = html.render(samples.report())
    order = re.findall(r'class="status (failed|undecided|passed)-ink"', page)
    assert order == sorted(order, key=["failed", "undecided", "passed"].index)


def test_characters_that_nobody_sees_are_shown_and_endless_texts_are_cut():
    # A name with a right-to-left override reads as another name, and a name of 3 MB was a page of 30 MB.
    report = replace(samples.report(label="e\u202egnp.exe\x00"), name="\ud800" + "n" * 3_000_000)
    page = html.render(report)
    assert len(page.encode()) < 400_000
    assert not re.search("[\x00\u202e\ud800]", page)
    assert "e[U+202E]gnp.exe[U+0000]" in page
    assert "[U+D800]nnn" in page
    assert "(2,999,001 more characters)" in page


def test_a_page_of_thousands_of_findings_stays_small():
    items = [
        replace(samples.SELECTION, name=f"a.m{i}").measured(samples.share(0.3, 0.29, 0.31), method="m", about=f"g{i}")
        for i in range(3_000)
    ]
    page = html.render(replace(samples.report(), outcomes=tuple(samples.judge("fairness/group_gaps", items))))
    assert len(page.encode()) < 2_500_000
    assert "more in report.json" in page


def _crowd(count, name="{}", method="m", at=None):
    return [
        samples.SELECTION.measured(samples.share(0.3, 0.25, 0.35), method=method, about=name.format(i), at=at or {})
        for i in range(count)
    ]


LONG = "\u202e<script>\0'\"\U0001f600" * 1000
CROWDS = {
    "85 plug-ins of 60": [o for i in range(85) for o in samples.judge(f"room/p{i}", _crowd(60, method="m" * 80))],
    "1000 classes": samples.judge("fairness/group_gaps", _crowd(4000, "sex, class {}")),
    "endless names": [o for i in range(3) for o in samples.judge(f"room/p{i}", _crowd(45, LONG + "{}", LONG))],
    "1000 curves": samples.judge(
        "evasion/standard",
        [
            samples.ROBUST.measured(samples.share(0.9, 0.8, 0.99), method="m", about=f"class {c}", at={"eps": eps})
            for c in range(1000)
            for eps in (0.1, 0.2)
        ],
    ),
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_a_page_stays_small_and_counts_what_it_has_no_room_for(crowd):
    report = replace(samples.report(), outcomes=tuple(CROWDS[crowd]), files={f"sha256:{i}": "x" for i in range(9000)})
    page = html.render(report)
    assert len(page.encode()) < 2_500_000
    reader = parsed(page)
    assert "script" not in {tag for tag, _ in reader.elements}
    text = " ".join("".join(reader.text).split())
    left = [int(count.replace(",", "")) for count in re.findall(r"([\d,]+) more in report.json", text)]
    assert sum(left) > 0
    assert f"{len(report.findings)} finding" in text
    if crowd == "1000 classes":
        assert 4000 - 40 in left
