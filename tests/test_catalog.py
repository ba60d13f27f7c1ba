from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from casemate import catalog
from casemate.core.facets import PluginKind
from casemate.errors import CasemateError, LawBroken
from toyroom import rate

PROBE = '''
"""A third party's probe."""
from casemate.core.evidence import Direction, Metric, Quantity
from casemate.core.facets import Facet
from casemate.core.outcome import Threat
from casemate.core.plugin import probe

ROWS = Metric("acme.rows", Quantity.NOTE, Direction.EXACT)


@probe(threat=Threat("acme", "Acme's own"), source="Acme handbook, 1949", needs={Facet.TEST}, metrics=(ROWS,))
def count_rows(case, lab):
    """Counts the rows of the test data."""
    yield ROWS.measured(float(len(case.data("test"))), method="count", n=len(case.data("test")))
'''
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "casemate-acme"
version = "1.0"
[project.entry-points."casemate.plugins"]
acme = "acme.row_count"
[tool.setuptools]
packages = ["acme"]
"""
ASK = "import json; from casemate import catalog; print(json.dumps([[p.id, p.kind] for p in catalog.plugins()]))"


def installed(folder: Path, probe: str = PROBE) -> dict[str, str]:
    source, target = folder / "source", folder / "target"
    (source / "acme").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "acme" / "__init__.py").write_text("")
    (source / "acme" / "row_count.py").write_text(probe)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, cwd=folder)
    return {**os.environ, "PYTHONPATH": str(target)}


def test_a_third_party_probe_appears_after_pip_install_and_nothing_else_changes(tmp_path: Path) -> None:
    env = installed(tmp_path)
    out = subprocess.run([sys.executable, "-c", ASK], env=env, capture_output=True, text=True, check=True).stdout
    theirs = {tuple(row) for row in json.loads(out)}
    ours = {(p.id, str(p.kind)) for p in catalog.plugins()}
    assert theirs - ours == {("acme/row_count", "probe")}
    assert ours <= theirs


def test_a_third_party_that_cannot_be_imported_is_named_not_ignored(tmp_path: Path) -> None:
    env = installed(tmp_path, probe="raise ValueError('broken')")
    run = subprocess.run([sys.executable, "-c", ASK], env=env, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "entry point 'acme'" in run.stderr


def test_every_plug_in_of_the_house_is_found_once_and_by_its_file() -> None:
    found = catalog.plugins()
    assert len({(p.id, p.kind) for p in found}) == len(found)
    for plugin in found:
        room, file = plugin.id.split("/")
        assert plugin.function.__module__ == f"casemate.{room}.{file}"
        assert plugin.summary
    assert {p.kind for p in found} == set(PluginKind)


def test_every_threat_of_the_house_has_an_id_in_a_public_list() -> None:
    for plugin in catalog.plugins():
        threat = plugin.threat
        assert threat.title
        if threat.name != "preflight":
            assert threat.atlas or threat.owasp_ml or threat.nist or threat.eu_ai_act


def test_a_metric_belongs_to_the_room_that_measures_it_and_to_one_quantity() -> None:
    quantities: dict[str, set[str]] = {}
    for plugin in catalog.plugins():
        for metric in plugin.metrics:
            assert metric.name.partition(".")[0] == plugin.id.partition("/")[0]
            quantities.setdefault(metric.name, set()).add(metric.quantity)
    assert all(len(kinds) == 1 for kinds in quantities.values())


def test_a_name_that_is_not_there_is_refused() -> None:
    with pytest.raises(CasemateError, match="casemate list plugins"):
        catalog.find("evasion/none")


def test_two_plug_ins_of_one_kind_and_id_are_refused() -> None:
    import dataclasses

    twin = dataclasses.replace(rate.rate, source="another")
    with pytest.raises(LawBroken, match="got two"):
        catalog._unique([rate.rate, twin])
