"""The probe over the files of the audited model."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest

from casemate.artifacts.unsafe_files import MALICIOUS, SUSPICIOUS, check_files
from casemate.core.evidence import Evidence
from casemate.core.judgement import severity_range
from casemate.core.outcome import Severity
from casemate.testing import toy_case

FILES = {
    "clean.pkl": pickle.dumps([1, 2]),
    "evil.pkl": b"cos\nsystem\n(S'true'\ntR.",
    "own.pkl": b"cmy_company.layers\nGate\n(tR.",
    "odd.bin": b"\x01\xf3\x99\x02odd",
}


def measured(folder: Path, *names: str) -> dict[str, Evidence]:
    for name in names:
        (folder / name).write_bytes(FILES[name])
    case = dataclasses.replace(toy_case("table"), files=tuple(folder / name for name in names))
    return {item.metric: item for item in check_files(case, None)}


@pytest.mark.parametrize(
    ("names", "malicious", "suspicious"),
    [
        (("clean.pkl",), (0, 0), (0, 0)),
        (("evil.pkl",), (1, 1), (0, 0)),
        (("own.pkl",), (0, 0), (1, 1)),
        (("clean.pkl", "evil.pkl", "own.pkl", "odd.bin"), (0.25, 0.5), (0.25, 0.5)),
    ],
)
def test_shares_count_files_and_what_could_not_be_judged_is_in_the_interval(
    names: tuple[str, ...], malicious: tuple[float, float], suspicious: tuple[float, float], tmp_path: Path
) -> None:
    found = measured(tmp_path, *names)
    for metric, (low, high) in ((MALICIOUS, malicious), (SUSPICIOUS, suspicious)):
        item = found[metric.name]
        assert (item.value, item.low, item.high, item.n) == (low, low, high, len(names))


def test_a_malicious_file_is_critical_an_unknown_class_of_medium_weight(tmp_path: Path) -> None:
    assert severity_range(measured(tmp_path, "evil.pkl")[MALICIOUS.name])[0] is Severity.CRITICAL
    assert severity_range(measured(tmp_path, "own.pkl")[SUSPICIOUS.name]) == (Severity.MEDIUM, Severity.MEDIUM)
    assert severity_range(measured(tmp_path, "odd.bin")[MALICIOUS.name]) == (Severity.NONE, Severity.CRITICAL)
