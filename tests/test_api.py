from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import casemate
from casemate.core.facets import Facet
from casemate.errors import ConfigError, DataError, FormatError, IntegrityError, ModelError
from casemate.formats import keys


@pytest.fixture(scope="module")
def parts() -> tuple:
    x, y = load_breast_cancer(return_X_y=True)
    x = x[:, :6]
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[:300], y[:300])
    return model, (x[:300], y[:300]), (x[300:420], y[300:420])


def test_a_fitted_estimator_and_two_arrays_are_enough(parts: tuple, tmp_path: Path) -> None:
    model, train, test = parts
    report = casemate.audit(
        model, test=test, train=train, profile="quick", only=["evasion", "preflight"], output=tmp_path
    )
    robust = [e for o in report.outcomes for e in o.evidence if e.metric == "evasion.robust_accuracy"]
    assert [e.at["eps"] for e in robust] == [0.1, 0.25, 0.5]
    assert {e.n for e in robust} == {120}
    assert (tmp_path / "report.html").is_file()


def test_a_case_from_arrays_offers_what_it_was_given(parts: tuple) -> None:
    model, train, test = parts
    made = casemate.case(model, test=test, train=train, groups={"old": test[0][:, 0] > 14})
    assert {Facet.RECIPE, Facet.AFFINE, Facet.TRAIN, Facet.GROUPS} <= made.offers
    ids = [data.sample_id for data in made.splits.parts().values()]
    assert len(np.unique(np.concatenate(ids))) == 420
    assert made.bundle is not None


def test_a_torch_module_and_images_are_enough() -> None:
    from torch import nn

    images = np.random.default_rng(0).random((40, 1, 4, 4), dtype=np.float32)
    labels = np.arange(40) % 3
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    report = casemate.audit(net, test=(images, labels), profile="quick", only=["evasion"])
    assert report.data["test"].kind == "image"
    assert any(e.metric == "evasion.certified_accuracy" for o in report.outcomes for e in o.evidence)


def test_a_callable_is_audited_by_its_labels() -> None:
    def answer(x: np.ndarray) -> np.ndarray:
        return (x[:, 0] > 0).astype(np.int64)

    x = np.random.default_rng(0).normal(size=(60, 2))
    report = casemate.audit(answer, test=(x, (x[:, 0] > 0).astype(int)), classes=["no", "yes"], only=["preflight"])
    assert report.ruling.exit_code in (0, 1, 3)


def test_what_was_audited_can_be_signed_and_verified(parts: tuple, tmp_path: Path) -> None:
    model, _, test = parts
    policy = casemate.Policy(fail_on=casemate.Severity.NONE)
    report = casemate.audit(model, test=test, only=["preflight"], policy=policy)
    key = keys.generate()
    keys.save_private(tmp_path / "me.key", key)
    keys.save_public(tmp_path / "me.pub", key.public_key())
    envelope = casemate.sign(report, tmp_path / "me.key", days=30)
    (tmp_path / "audit.dsse.json").write_text(json.dumps(envelope))
    held = casemate.verify(tmp_path / "audit.dsse.json", [tmp_path / "me.pub"], bundle=report.bundle, policy=policy)
    assert (held.verdict, held.bundle_digest) == ("passed", report.bundle)
    with pytest.raises(IntegrityError, match="another"):
        casemate.verify(envelope, [tmp_path / "me.pub"], bundle=report.bundle, policy=casemate.Policy())
    with pytest.raises(FormatError, match="envelope"):
        casemate.verify(tmp_path / "me.pub", [tmp_path / "me.pub"], bundle=report.bundle)


def test_the_same_seed_gives_the_same_findings_and_two_reports_compare(parts: tuple, tmp_path: Path) -> None:
    model, train, test = parts
    for name in ("a", "b"):
        casemate.audit(model, test=test, train=train, profile="quick", only=["evasion"], output=tmp_path / name)
    differences = casemate.compare(tmp_path / "a", tmp_path / "b")
    robust = [d for d in differences if d.metric == "evasion.robust_accuracy"]
    assert len(robust) == 3
    assert all(d.paired and d.value == 0 and d.low <= 0 <= d.high for d in robust)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"test": None}, DataError, "pass test="),
        ({"test": 3}, DataError, "pair"),
        ({"profile": "fast"}, ConfigError, "quick"),
        ({"budget": "soon"}, ConfigError, "15m"),
        ({"seed": -1}, ConfigError, "seed"),
        ({"only": ["nosuch"]}, ConfigError, "nosuch"),
        ({"options": {"evasion/standard": {"epss": 1}}}, ConfigError, "epss"),
        ({"executor": "cloud"}, ConfigError, "inline"),
        ({"model": LogisticRegression()}, ModelError, "fit"),
        ({"model": 7}, ModelError, "expected"),
        ({"model": LinearRegression().fit([[0.0], [1.0]], [0.5, 1.5])}, casemate.UsageError, "expected"),
        ({"groups": {"sex": np.array(["f"])}}, DataError, "group"),
    ],
)
def test_wrong_arguments_are_refused_with_the_mend(parts: tuple, change: dict, error: type, words: str) -> None:
    model, _, test = parts
    arguments = {"test": test, "only": ["preflight"], **change}
    with pytest.raises(error, match=words):
        casemate.audit(arguments.pop("model", model), **arguments)
