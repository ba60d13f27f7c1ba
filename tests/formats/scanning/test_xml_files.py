# ruff: noqa: E501 - a sample is one line
from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import Looked, corpus, held, looked

from casemate.formats.scanning.readers import xml_files
from casemate.formats.scanning.signs import Level


def look(text: str | bytes, name: str = "model.pmml") -> Looked:
    return looked(text if isinstance(text, bytes) else text.encode(), xml_files.READERS, name=name)


PMML = """<?xml version="1.0" encoding="UTF-8"?>
<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header copyright="x"><Extension name="a" value="b"/>
<Application name="JPMML"/></Header><DataDictionary><DataField name="x" optype="continuous" dataType="double"/></DataDictionary>
<RegressionModel functionName="regression"><MiningSchema><MiningField name="x"/></MiningSchema>
<RegressionTable intercept="1.5"><NumericPredictor name="x" coefficient="2"/></RegressionTable></RegressionModel></PMML>"""
OPENVINO = """<?xml version="1.0"?><net name="m" version="11"><layers><layer id="0" name="x" type="Parameter" version="opset1">
<data shape="1,3" element_type="f32"/></layer></layers><edges/><rt_info><MO_version value="2023"/></rt_info></net>"""
SVG = '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd"><svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'


def test_what_openvino_loads_is_unknown() -> None:
    assert [(sign.rule, sign.level) for sign in look(OPENVINO).signs] == [("xml/openvino", Level.UNKNOWN)]


@pytest.mark.parametrize(
    "text",
    [
        PMML,
        SVG,
        PMML.encode("utf-16"),
        '<?xml version="1.0" encoding="latin-1"?><a b="\xe9"/>'.encode("latin-1"),
    ],
)
def test_ordinary_models_are_clean(text: str | bytes) -> None:
    found = look(
        text.replace('encoding="UTF-8"', "")
        if isinstance(text, str)
        else text.replace('encoding="UTF-8"'.encode("utf-16-le"), b"")
    )
    assert found.formats == ("xml",)
    assert not found.signs, [(sign.rule, sign.what) for sign in found.signs]


@pytest.mark.parametrize(
    ("text", "rule", "level"),
    [
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "xml/external-entity", "malicious"),
        ('<!DOCTYPE a [<!ENTITY x PUBLIC "a" "http://x.invalid/">]><a/>', "xml/external-entity", "malicious"),
        ('<!DOCTYPE a [<!ENTITY % p SYSTEM "http://x.invalid/p"> %p;]><a/>', "xml/external-entity", "malicious"),
        ('<!DOCTYPE a SYSTEM "http://x.invalid/e.dtd"><a/>', "xml/external-dtd", "malicious"),
        ('<!DOCTYPE a PUBLIC "-//W3C//DTD" "file:///etc/passwd"><a/>', "xml/external-dtd", "malicious"),
        ('<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;"><!ENTITY d "&c;&c;">]><a>&d;</a>', "xml/nested-entity", "suspicious"),
        ("<!DOCTYPE a [<!ENTITY b '" + "x" * 2_000_000 + "'>]><a>&b;</a>", "xml/entity-bomb", "malicious"),
        ('<PMML xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="file:///etc/passwd"/></PMML>', "xml/xinclude", "malicious"),
        ('<PMML><Extension name="x"><script>alert(1)</script></Extension></PMML>', "xml/script", "suspicious"),
        ('<PMML><Extension name="x" value="Runtime.getRuntime().exec(1)"/></PMML>', "xml/script", "suspicious"),
        ("<PMML><Extension>os.system('true')</Extension></PMML>", "xml/script", "suspicious"),
        ('<?xml version="1.0"?><java class="java.beans.XMLDecoder"><object class="java.lang.ProcessBuilder"/></java>', "xml/xmldecoder", "malicious"),
        ('<?xml version="1.0"?><?xml-stylesheet href="http://x.invalid/x.xsl"?><a/>', "xml/instruction", "suspicious"),
        ("<PMML>" + "<a>" * 1000, "xml/depth", "malicious"),
        ('<PMML note="AKIAQYLPMN5HHHFPZAM2"/>', "secret/credential", "suspicious"),
    ],
)  # fmt: skip
def test_what_a_parser_would_fetch_expand_or_run_is_told(text: str, rule: str, level: str) -> None:
    found = look(text)
    assert rule in found.rules
    assert found.level == level
    again = look(text.encode("utf-16"))
    assert again.level == level


def test_nested_entities_are_counted_and_never_expanded() -> None:
    assert look(corpus("pmml/laughs.pmml")).level is Level.MALICIOUS
    for path in ("pmml/xxe_ext_dtd.pmml", "pmml/xxe_param.pmml", "openvino/xxe.xml"):
        assert look(corpus(path)).level is Level.MALICIOUS


@pytest.mark.parametrize(
    "text", ["<PMML>", "<PMML></net>", '<?xml version="1.0" encoding="utf-7"?><a/>', "<PMML>&undefined;</PMML>"]
)
def test_what_is_no_xml_is_unreadable(text: str) -> None:
    assert look(text).level is Level.UNREADABLE


def test_a_comment_or_blanks_before_it_hide_nothing() -> None:
    evil = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'
    for before in ("<!-- " + "x" * 9000 + " -->", " " * 9000, "\n"):
        assert look(before + evil, "model.bin").level is Level.MALICIOUS
    assert look("<!-- a note -->\n# Title & more <br>", "README.md").level is Level.CLEAN


def test_pages_and_notes_are_not_xml() -> None:
    for text in ("<!DOCTYPE html><html><br></html>", "<html><p></html>", "a < b"):
        assert look(text, "index.html").formats in ((), ("spy",))
    assert look("<p align=center>\n# Title", "README.md").formats == ("spy",)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 600), st.binary(max_size=3), st.booleans())
def test_damaged_files_end_without_failing(at: int, change: bytes, cut: bool) -> None:
    data = (PMML if at % 2 else '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]><a>&c;</a>').encode()
    held(data[:at] if cut else data[:at] + change + data[at + 1 :], xml_files.READERS)
