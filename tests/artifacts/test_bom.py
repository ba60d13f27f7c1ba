"""Bills of materials: valid by the published schema, with every file, every package and the licences they state."""

from __future__ import annotations

import json
from importlib import metadata
from importlib.resources import files as resource_files
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st
from license_expression import get_spdx_licensing
from tests.report import samples

from casemate.artifacts.bom import file_components, package_components
from casemate.artifacts.licences import SPDX, licence_of
from casemate.formats import digests, manifest
from casemate.report import cyclonedx

VALIDATOR = JsonStrictValidator(SchemaVersion.V1_7)
MIT_CLASSIFIER = "License :: OSI Approved :: MIT License"
APACHE = "License :: OSI Approved :: Apache Software License"
BSD = "License :: OSI Approved :: BSD License"


def valid(text: str) -> dict:
    fault = VALIDATOR.validate_str(text)
    assert fault is None, fault
    return json.loads(text)


@pytest.fixture(scope="module")
def packages() -> list[dict]:
    return package_components()


def test_the_packages_are_those_that_are_installed(packages: list[dict]) -> None:
    by_name = {item["name"].lower(): item for item in packages if item["type"] == "library"}
    assert set(by_name) == {item.metadata["Name"].lower() for item in metadata.distributions() if item.metadata["Name"]}
    assert by_name["numpy"]["version"] == metadata.version("numpy")
    assert by_name["numpy"]["purl"] == f"pkg:pypi/numpy@{metadata.version('numpy')}"
    assert by_name["scikit-learn"]["licenses"] == [{"license": {"id": "BSD-3-Clause"}}]
    assert [item["bom-ref"] for item in packages] == list(dict.fromkeys(item["bom-ref"] for item in packages))
    named = [item for item in by_name.values() if item.get("licenses")]
    assert len(named) >= 0.95 * len(by_name)
    plain = [item for item in named if "name" not in item["licenses"][0].get("license", {})]
    assert len(plain) >= 0.85 * len(named)  # 138 of 147 when this was written: the rest say only "BSD" or the like


def test_every_id_is_in_the_spdx_list_of_the_schema() -> None:
    listed = json.loads((resource_files("cyclonedx.schema") / "_res" / "spdx.SNAPSHOT.schema.json").read_text())["enum"]
    assert set(SPDX.values()) <= set(listed)


def test_every_expression_of_the_environment_is_one(packages: list[dict]) -> None:
    known = get_spdx_licensing()
    found = [entry["expression"] for item in packages for entry in item.get("licenses", ()) if "expression" in entry]
    assert found
    assert [text for text in found if known.validate(text).errors] == []


@pytest.mark.parametrize(
    ("expression", "words", "classifiers", "expected"),
    [
        ("MIT", None, [], {"license": {"id": "MIT"}}),
        ("mit", None, [], {"license": {"id": "MIT"}}),
        ("Apache-2.0 OR BSD-3-Clause", "ignored", [], {"expression": "Apache-2.0 OR BSD-3-Clause"}),
        ("LicenseRef-Own", None, [], {"expression": "LicenseRef-Own"}),
        (None, "The MIT License", [], {"license": {"id": "MIT"}}),
        (None, "BSD 3-Clause License", [BSD], {"license": {"id": "BSD-3-Clause"}}),
        (None, "Apache License, Version 2.0", [], {"license": {"id": "Apache-2.0"}}),
        (None, "MPL-2.0 AND MIT", [], {"expression": "MPL-2.0 AND MIT"}),
        (None, "UNKNOWN", [MIT_CLASSIFIER], {"license": {"id": "MIT"}}),
        (None, None, [MIT_CLASSIFIER], {"license": {"id": "MIT"}}),
        (None, "Copyright " * 100, [APACHE], {"license": {"id": "Apache-2.0"}}),
        (None, "BSD", [BSD], {"license": {"name": "BSD"}}),  # of two, three or four clauses: nobody says
        (None, None, [BSD], {"license": {"name": "BSD License"}}),
        (None, None, [MIT_CLASSIFIER, APACHE], {"license": {"name": "MIT License, Apache Software License"}}),
        (None, "Our own terms and more", [], {"license": {"name": "Our own terms and more"}}),
        (None, None, ["License :: OSI Approved", "Topic :: X"], None),
        (None, "", [], None),
    ],
)
def test_a_licence_is_named_as_far_as_it_is_known(expression, words, classifiers, expected) -> None:
    assert licence_of(expression, words, classifiers) == ([] if expected is None else [expected])


@given(st.none() | st.text(min_size=1), st.none() | st.text(), st.lists(st.text() | st.just(BSD), max_size=3))
def test_whatever_a_package_says_the_bill_is_valid(expression, words, classifiers) -> None:
    made = licence_of(expression, words, classifiers)
    part = {"type": "library", "bom-ref": "x", "name": "x", **({"licenses": made} if made else {})}
    valid(cyclonedx.render_files("m", manifest.of_bytes({"m": b""}), version="0", packages=[part]))


def test_a_bare_model_has_a_bill_of_its_files_alone(packages: list[dict], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name, content in {"a.bin": b"a", "é.txt": b""}.items():
        (tmp_path / "model" / name).write_bytes(content)
    listed = manifest.of_path(tmp_path / "model")
    made = valid(cyclonedx.render_files("model", listed, version="0.1.0", packages=packages))
    model = made["metadata"]["component"]
    assert (model["type"], model["name"], "hashes" in model) == ("machine-learning-model", "model", False)
    assert {item["name"]: item["hashes"][0]["content"] for item in model["components"]} == {
        "a.bin": digests.sha256_bytes(b"a")[7:],
        "é.txt": digests.sha256_bytes(b"")[7:],
    }
    assert model["properties"] == [{"name": "casemate:manifest", "value": listed.digest}]
    assert len(made["components"]) == len(packages)
    lone = valid(cyclonedx.render_files("a.bin", manifest.of_path(tmp_path / "model" / "a.bin"), version="0.1.0"))
    assert lone["metadata"]["component"]["hashes"][0]["content"] == digests.sha256_bytes(b"a")[7:]
    assert file_components(listed)[0]["properties"] == [{"name": "casemate:bytes", "value": "1"}]


def test_equal_contents_have_equal_bills_and_others_another_serial_number(packages: list[dict]) -> None:
    listed, other = manifest.of_bytes({"m": b"1"}), manifest.of_bytes({"m": b"2"})
    report = samples.report()
    texts = [
        cyclonedx.render(report),
        cyclonedx.render(report, files=listed),
        cyclonedx.render(report, files=other),
        cyclonedx.render(report, files=listed, packages=packages),
        cyclonedx.render_files("m", listed, version="0"),
        cyclonedx.render_files("m", other, version="0"),
    ]
    assert len({valid(text)["serialNumber"] for text in texts}) == len(texts)
    assert cyclonedx.render_files("m", listed, version="0") == texts[4]
    model = valid(texts[3])["metadata"]["component"]
    assert model["hashes"][0]["content"] == digests.sha256_bytes(b"1")[7:]  # the file's, not the fingerprint's
    assert {"name": "casemate:fingerprint", "value": report.model} in model["properties"]
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
