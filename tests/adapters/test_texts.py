"""scikit-learn text pipelines end to end: answers, digests, files, refits, refusals, and a whole audit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.svm import LinearSVC

import casemate
from casemate.adapters import wrap
from casemate.adapters.probing import probes
from casemate.adapters.sklearn import load_skops, save_skops, sklearn_recipe
from casemate.core.data import Data, texts
from casemate.core.facets import DataKind, Facet
from casemate.core.outcome import Finding, Skipped
from casemate.core.schema import Feature, Schema
from casemate.errors import ModelError
from casemate.testing import toy_case

SCHEMA = Schema(DataKind.TEXT, ())
TABLE = Schema(DataKind.TABLE, (1,), (Feature("x"),))
TRAIN, TEST = (toy_case("text").data(part) for part in ("train", "test"))
NAMES = np.array(["offer", "order"])

PIPELINES = {
    "tfidf, logistic": make_pipeline(TfidfVectorizer(stop_words="english"), LogisticRegression()),
    "tfidf, svc": make_pipeline(TfidfVectorizer(ngram_range=(1, 2), dtype=np.float32), LinearSVC()),
    "counts, nb": make_pipeline(CountVectorizer(), TfidfTransformer(), MultinomialNB()),
    "hashes, nb": make_pipeline(HashingVectorizer(n_features=256, alternate_sign=False), ComplementNB()),
    "union": make_pipeline(make_union(TfidfVectorizer(), TfidfVectorizer(analyzer="char")), LogisticRegression()),
    "calibrated": CalibratedClassifierCV(make_pipeline(TfidfVectorizer(), LinearSVC()), cv=2),
}


def fitted(name: str) -> Any:
    return PIPELINES[name].fit(list(TRAIN.x), NAMES[TRAIN.labels])


@pytest.mark.parametrize("name", PIPELINES)
def test_a_text_pipeline_answers_as_itself_alone_and_in_a_batch(name: str) -> None:
    native = fitted(name)
    model = wrap(native, schema=SCHEMA)
    np.testing.assert_array_equal(np.array(model.classes)[model.labels(TEST.x)], native.predict(list(TEST.x)))
    if hasattr(native, "predict_proba"):
        np.testing.assert_array_equal(model.ask(Facet.SCORES, TEST.x), native.predict_proba(list(TEST.x)))
    if model.logits is not None:
        together = model.logits(TEST.x)
        np.testing.assert_allclose(together[:, 1] - together[:, 0], native.decision_function(list(TEST.x)))
        alone = np.concatenate([model.logits(TEST.x[i : i + 1]) for i in range(len(TEST))])
        np.testing.assert_allclose(alone, together)
    assert model.labels(TEST.x[:0]).shape == (0,)
    assert (model.labels(TEST.x) == TEST.labels).mean() > 0.7


@pytest.mark.parametrize("name", PIPELINES)
def test_a_skops_file_gives_back_the_same_model_by_digest(name: str, tmp_path: Path) -> None:
    native = fitted(name)
    save_skops(tmp_path / "m.skops", native)
    model, again = wrap(native, schema=SCHEMA), wrap(load_skops(tmp_path / "m.skops"), schema=SCHEMA)
    assert again.digest == model.digest
    np.testing.assert_array_equal(again.labels(TEST.x), model.labels(TEST.x))


def test_the_digest_of_a_vectorizer_holds_in_another_process(tmp_path: Path) -> None:
    """scikit-learn notes the address of the stop words in it, which is another in every process."""
    native = fitted("calibrated")
    save_skops(tmp_path / "m.skops", native)
    digest = wrap(native, schema=SCHEMA).digest
    assert "_stop_words_id" in vars(native.calibrated_classifiers_[0].estimator[0])
    code = (
        "import sys; from casemate.adapters import wrap; from casemate.adapters.sklearn import load_skops;"
        "from casemate.core.schema import Schema; from casemate.core.facets import DataKind;"
        "print(wrap(load_skops(sys.argv[1]), schema=Schema(DataKind.TEXT, ())).digest)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.skops")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == digest


def test_one_named_column_of_texts_is_handed_over_in_a_frame() -> None:
    prepare = ColumnTransformer([("t", TfidfVectorizer(), "message")])
    native = make_pipeline(prepare, LogisticRegression()).fit(pd.DataFrame({"message": list(TRAIN.x)}), TRAIN.labels)
    model = wrap(native, schema=SCHEMA)
    expected = native.predict(pd.DataFrame({"message": list(TEST.x)}))
    np.testing.assert_array_equal(model.labels(TEST.x), expected)


def test_a_recipe_is_a_clone_that_is_fitted_again() -> None:
    native = fitted("tfidf, logistic")
    recipe = sklearn_recipe(native, SCHEMA, classes=("offer", "order"))
    assert recipe.settings == {"C": 1.0}
    again = recipe.fit(TRAIN, {}, np.random.default_rng(0))
    np.testing.assert_allclose(again.ask(Facet.SCORES, TEST.x), native.predict_proba(list(TEST.x)), atol=1e-12)
    half = TRAIN.take(np.arange(40))
    other = recipe.fit(half, {"C": 0.01, "tfidfvectorizer__stop_words": None}, np.random.default_rng(0))
    assert set(other.estimator[0].vocabulary_) == set(CountVectorizer().fit(half.x.astype(object)).vocabulary_)


def test_probes_are_texts_and_always_the_same() -> None:
    x = probes(SCHEMA, 20)
    assert x.dtype == np.dtypes.StringDType()
    assert x.shape == (20,)
    assert len(set(x)) > 10
    np.testing.assert_array_equal(x, probes(SCHEMA, 20))


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("native", "schema", "message"),
    [
        (
            lambda: LogisticRegression().fit(np.eye(4), [0, 1, 0, 1]),
            SCHEMA,
            "texts, got one that was fitted on 4 features",
        ),
        (lambda: fitted("counts, nb"), TABLE, "expected texts, .* got table data: name their column as .data. text"),
    ],
)
def test_texts_and_tables_are_not_taken_for_one_another(native: Any, schema: Schema, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        wrap(native(), schema=schema)


@pytest.mark.parametrize("name", ["counts, nb", "union", "calibrated"])
def test_a_file_cannot_make_the_audit_open_its_texts_as_files(name: str, tmp_path: Path) -> None:
    """`input='filename'` in a skops file would read whatever path a text spells."""
    save_skops(tmp_path / "m.skops", fitted(name))
    loaded = load_skops(tmp_path / "m.skops")
    inner = loaded.calibrated_classifiers_[1].estimator if name == "calibrated" else loaded
    vectorizer = inner[0].transformer_list[1][1] if name == "union" else inner[0]
    vectorizer.input = "filename"
    with pytest.raises(ModelError, match="opens each text as a file"):
        wrap(loaded, schema=SCHEMA)


@pytest.mark.parametrize("change", [{"prize": -1}, {"prize": 10**9}, {"prize": 0}, {"prize": 0.5}, {"extra": 3}])
def test_a_vocabulary_whose_columns_do_not_fit_is_a_damaged_file(change: dict[str, Any], tmp_path: Path) -> None:
    """Compiled code takes the columns as they come: one outside the matrix is memory that is somebody else's."""
    native = Pipeline([("words", CountVectorizer()), ("model", MultinomialNB())]).fit(list(TRAIN.x), TRAIN.labels)
    native[0].vocabulary_ = {**native[0].vocabulary_, **change}
    skops.io.dump(native, tmp_path / "m.skops")
    with pytest.raises(ModelError, match=r"in m.skops, got .*: damaged file"):
        load_skops(tmp_path / "m.skops")


# ------------------------------------------------------------------------------------------------------------ the audit


def test_an_audit_of_texts_measures_what_applies_and_says_what_does_not() -> None:
    native = make_pipeline(TfidfVectorizer(), LogisticRegression(C=100.0)).fit(list(TRAIN.x), NAMES[TRAIN.labels])
    leaky = [*TEST.x, TRAIN.x[0], TRAIN.x[1]]
    report = casemate.audit(
        native,
        test=(leaky, [*NAMES[TEST.labels], *NAMES[TRAIN.labels[:2]]]),
        train=(pd.Series(list(TRAIN.x)), NAMES[TRAIN.labels]),
        groups={"channel": ["mail", "chat"] * (len(leaky) // 2)},
        profile="quick",
        only=["preflight", "fairness", "privacy", "evasion/corruptions"],
    )
    ran = {outcome.plugin for outcome in report.outcomes if not isinstance(outcome, Skipped)}
    not_applicable = {outcome.plugin for outcome in report.outcomes if isinstance(outcome, Skipped)}
    assert ran == {
        *(f"preflight/{name}" for name in ("batch_dependence", "class_count", "clean_accuracy", "determinism")),
        *(f"preflight/{name}" for name in ("generalisation_gap", "label_balance", "leakage", "output_meaning")),
        *("fairness/group_gaps", "privacy/membership", "evasion/corruptions"),
    }
    assert not_applicable == {
        f"preflight/{name}" for name in ("bounds", "channel_order", "dtype", "eval_mode", "normalisation")
    }
    leak = next(item for item in report.outcomes if item.about == "preflight.exact_duplicates: train")
    assert isinstance(leak, Finding)
    assert leak.evidence[0].value == 2 / len(leaky)
    assert report.data["test"].kind == "text"


def test_data_of_texts_keeps_identity_and_cannot_be_changed() -> None:
    data = Data(texts(["a", "ä", ""]), SCHEMA)
    assert data.digest == Data(texts(np.array(["a", "ä", ""])), SCHEMA).digest
    assert data.digest != Data(texts(["aä", "", ""]), SCHEMA).digest
    with pytest.raises(ValueError, match="read-only"):
        data.x[0] = "b"
