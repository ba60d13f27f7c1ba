"""The page that teaches plug-ins is right: its code runs, its number has an oracle, its package is found."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from casemate.core.budget import Meter
from casemate.core.case import Case
from casemate.core.data import Data, Splits
from casemate.core.evidence import Direction
from casemate.core.facets import DataKind, PluginKind, Profile
from casemate.core.lab import Lab, Stored
from casemate.core.metering import metered_case
from casemate.core.model import Model
from casemate.core.plugin import Plugin
from casemate.core.schema import Feature, Schema
from casemate.errors import BudgetExhausted

PAGE = Path(__file__).resolve().parents[1] / "docs" / "write-a-plugin.md"


def block(title: str) -> str:
    found = re.search(rf'```\w+ title="{re.escape(title)}"\n(.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"expected a block titled {title} in {PAGE.name}"
    return found[1]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's package as pip would lay it out: the module, its metadata and its entry points."""
    site = tmp_path_factory.mktemp("site")
    (site / "casemate_noise").mkdir()
    (site / "casemate_noise" / "__init__.py").touch()
    (site / "casemate_noise" / "noise.py").write_text(block("casemate_noise/noise.py"), encoding="utf-8")
    project = tomllib.loads(block("pyproject.toml"))["project"]
    info = site / "casemate_noise-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in rows.items()) for group, rows in groups]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return site


@pytest.fixture(scope="module")
def noise(package: Path) -> Iterator[Plugin]:
    sys.path.insert(0, str(package))
    try:
        yield importlib.import_module("casemate_noise.noise").random_noise
    finally:
        sys.path.remove(str(package))


def case_at_distance(distance: float, n: int = 2000) -> Case:
    """A threshold at 0, and samples that lie `distance` from it on either side."""
    x = np.where(np.arange(n) % 2 == 0, distance, -distance)[:, None]
    schema = Schema(DataKind.TABLE, (1,), (Feature("a", lo=-1.0, hi=1.0),))
    model = Model("threshold", "sha256:0", labels=lambda rows: (rows[:, 0] > 0).astype(np.int64), classes=("no", "yes"))
    return Case(model=model, splits=Splits(test=Data(x, schema, y=(x[:, 0] > 0).astype(np.int64))))


def lab_for(plugin: Plugin, *, kept: dict[str, Stored] | None = None, limit: int | None = None) -> Lab:
    def keep(name: str, arrays: Stored) -> str:
        if kept is not None:
            kept[name] = arrays
        return "sha256:kept"

    options = plugin.configured(Profile.STANDARD, {"samples": 2000})
    return Lab(plugin=plugin.id, seed=7, options=options, keeper=keep, meter=Meter(limit=limit))


def test_the_page_declares_a_probe_with_the_id_it_promises(noise: Plugin) -> None:
    assert (noise.kind, noise.id) == (PluginKind.PROBE, "casemate_noise/noise")


def test_the_share_is_the_closed_form_of_a_threshold_under_uniform_noise(noise: Plugin) -> None:
    # A sample at distance d from the threshold flips with probability (eps - d) / (2 eps): 1/4 at d = eps / 2.
    (evidence,) = noise(case_at_distance(0.05), lab_for(noise))
    assert evidence.low <= 0.25 <= evidence.high
    assert evidence.high - evidence.low < 0.05
    assert (evidence.n, evidence.errs) == (2000, Direction.TOO_LOW)


def test_noise_that_does_not_reach_the_threshold_breaks_nothing(noise: Plugin) -> None:
    (evidence,) = noise(case_at_distance(0.11), lab_for(noise))
    assert evidence.value == 0


def test_the_same_seed_gives_the_same_evidence_and_the_kept_arrays_are_enough_to_replay_it(noise: Plugin) -> None:
    case, kept = case_at_distance(0.05), dict[str, Stored]()
    (first,) = noise(case, lab_for(noise, kept=kept))
    (second,) = noise(case, lab_for(noise))
    assert noise.replay is not None
    (replayed,) = noise.replay(case, kept, lab_for(noise))
    assert first == second
    assert (replayed.value, replayed.low, replayed.high, replayed.at) == (first.value, first.low, first.high, first.at)


def test_the_probe_stops_when_its_budget_ends(noise: Plugin) -> None:
    lab = lab_for(noise, limit=3999)
    with pytest.raises(BudgetExhausted):
        list(noise(metered_case(case_at_distance(0.05), lab.meter), lab))
    assert lab.meter.spent.propagations == 2000


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("test_contract.py", "test_random_noise_keeps_the_contract"),
        ("test_noise.py", "test_half_the_reach_flips_a_quarter"),
    ],
)
def test_a_test_that_the_page_shows_passes(noise: Plugin, title: str, name: str) -> None:
    # `noise` makes the page's package importable; both tests fail by raising.
    shown: dict[str, Callable[[], None]] = {}
    exec(compile(block(title), str(PAGE), "exec"), shown)
    shown[name]()
    assert noise.id == "casemate_noise/noise"


def test_the_catalogue_finds_the_package_by_its_entry_point(package: Path) -> None:
    code = "import json; from casemate.catalog import plugins; print(json.dumps([p.id for p in plugins()]))"
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    assert "casemate_noise/noise" in json.loads(done.stdout)
