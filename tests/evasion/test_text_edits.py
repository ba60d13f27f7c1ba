"""Misspelled words: what brute force finds, what a linear model says, and the laws of an attack on texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from tests.adapters.conforming.huggingface_ import messages
from tests.evasion.makers import attacked, batch_from

from casemate.core.bracket import Batch, Claim, Goal, Ledger
from casemate.core.case import Case
from casemate.core.data import Data, Splits, texts
from casemate.core.evidence import Evidence
from casemate.core.facets import DataKind
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.norms import Norm
from casemate.core.plugin import attack
from casemate.core.schema import Schema
from casemate.core.spelling import one_slip, words_changed
from casemate.errors import LawBroken
from casemate.evasion import THREAT
from casemate.evasion._edited import misspellings, vocabulary
from casemate.evasion.standard import measure_robustness
from casemate.evasion.text_edits import TextEditOptions, edit_words

TEXT = Schema(DataKind.TEXT, ())
INF = float("inf")
MANY = TextEditOptions(5000)


def text_case(scores: Any, x: Any, y: Any, *, labels_only: bool = False, **more: Any) -> Case:
    model = Model(
        "texts",
        "sha256:texts",
        labels=lambda asked: scores(asked).argmax(1).astype(np.int64),
        scores=None if labels_only else scores,
        classes=("0", "1"),
        **more,
    )
    return Case(model=model, splits=Splits(test=Data(texts(x), TEXT, np.asarray(y))))


def weighing(weights: dict[str, float], bias: float) -> Any:
    """Probabilities of a bag of words that knows only these."""

    def scores(asked: np.ndarray) -> np.ndarray:
        total = np.array([bias + sum(weights.get(word, 0.0) for word in str(text).split()) for text in asked])
        return np.column_stack([1 - 1 / (1 + np.exp(-total)), 1 / (1 + np.exp(-total))])

    return scores


@pytest.fixture(scope="module")
def linear() -> tuple[Pipeline, Case]:
    x, y = messages(600, 0)
    pipe = make_pipeline(CountVectorizer(token_pattern=r"\S+"), LogisticRegression(C=0.3))
    pipe.fit(x[:400].tolist(), y[:400])
    case = text_case(lambda asked: pipe.predict_proba(asked.tolist()), x[400:460], y[400:460])
    return pipe, case


# ------------------------------------------------------------------------------------------------------- misspellings


@given(st.text(alphabet="aeostMqz'-19é", min_size=1, max_size=9))
def test_a_misspelling_is_one_slip_that_keeps_the_word_one_word(word: str) -> None:
    found = misspellings(word, frozenset())
    assert len(set(found)) == len(found)
    for other in found:
        assert other != word
        assert one_slip(word, other)
        assert len(other.split()) == 1
    letters = [letter for letter in word if letter.isalpha()]
    if len(letters) < 4:  # no slips of the hand: only what looks the same, or is not seen at all
        assert all(other.replace("\u200b", "") == word or len(other) == len(word) for other in found)


def test_a_misspelling_is_never_another_word_of_the_texts() -> None:
    known = vocabulary(["Form a trail; the film, frm", "tail"])
    assert {"form", "trail", "film", "frm", "tail"} <= known
    assert "from" in misspellings("form", known)
    assert "from" not in misspellings("form", known | {"from"})
    assert not {"frm", "Form,"} & set(misspellings("form", known))
    assert "tail" not in misspellings("trail", known)
    assert "tail" in misspellings("trail", frozenset())
    assert misspellings("", known) == []


# ------------------------------------------------------------------------------------------------------------ oracles


def closed_form(pipe: Pipeline, text: str, label: int) -> float:
    """The fewest words without which a linear model changes its mind: those that speak most for the label."""
    names, layer = pipe[0].vocabulary_, pipe[1]
    sign = 2 * label - 1
    gains = sorted((sign * layer.coef_[0, names[word]] for word in text.split()), reverse=True)
    margin = sign * layer.intercept_[0] + sum(gains)
    for count, gain in enumerate(gains, start=1):
        margin -= gain
        if margin < 0:
            return count
    return INF


def test_on_a_linear_model_it_needs_exactly_the_words_of_the_closed_form(linear: tuple[Pipeline, Case]) -> None:
    pipe, case = linear
    ledger, _ = attacked(edit_words, case, Goal(Norm.L0, INF), options=TextEditOptions(300))
    data = case.data("test")
    expected = [closed_form(pipe, str(text), int(label)) for text, label in zip(data.x, data.labels, strict=True)]
    right = ledger.upper > 0
    np.testing.assert_array_equal(ledger.upper[right], np.array(expected)[right])
    assert {1.0, 2.0, 3.0} & set(ledger.upper[right])


def needle(secret: str) -> Any:
    """Only one text in the world is answered otherwise, and no score leads there."""

    def scores(asked: np.ndarray) -> np.ndarray:
        found = np.array([str(text) == secret for text in asked])
        return np.where(found[:, None], [[0.1, 0.9]], [[0.9, 0.1]])

    return scores


@settings(max_examples=25)
@given(st.data(), st.booleans())
def test_one_word_is_found_wherever_it_is_and_whatever_the_scores_say(data: Any, labels_only: bool) -> None:
    words = data.draw(st.lists(st.sampled_from(["claim", "it", "now", "your", "Prize!"]), min_size=1, max_size=4))
    known = vocabulary([" ".join(words)])
    word = data.draw(st.integers(0, len(words) - 1))
    other = data.draw(st.sampled_from(misspellings(words[word], known)))
    secret = " ".join([*words[:word], other, *words[word + 1 :]])
    case = text_case(needle(secret), [" ".join(words)], [0], labels_only=labels_only)
    ledger, _ = attacked(edit_words, case, Goal(Norm.L0, INF), options=MANY)
    assert ledger.upper.tolist() == [1]
    assert ledger.witness.tolist() == [secret]


def brute(case: Case, text: str, label: int, most: int) -> float:
    """The fewest words of a text that turn its answer, by trying all."""
    words, known = text.split(), vocabulary([text])
    assert case.model is not None
    for count in range(1, most + 1):
        for places in combinations(range(len(words)), count):
            for others in product(*(misspellings(words[place], known) for place in places)):
                changed = list(words)
                for place, other in zip(places, others, strict=True):
                    changed[place] = other
                if case.model.labels(texts([" ".join(changed)]))[0] != label:
                    return count
    return INF


@settings(max_examples=8)
@given(st.integers(0, 1000), st.booleans())
def test_it_finds_the_fewest_words_that_brute_force_finds(seed: int, labels_only: bool) -> None:
    rng = np.random.default_rng(seed)
    letters = dict(zip("abehilnotw\u200b\u043e\u0456013", rng.normal(size=16), strict=True))  # margins of letters

    def scores(asked: np.ndarray) -> np.ndarray:
        total = np.array([1.5 + sum(letters.get(letter, 0.3) for letter in str(text)) for text in asked])
        return np.column_stack([1 - 1 / (1 + np.exp(-total)), 1 / (1 + np.exp(-total))])

    x = ["to be", "no it", "oh ab"]
    y = scores(texts(x)).argmax(1)
    case = text_case(scores, x, y, labels_only=labels_only)
    ledger, _ = attacked(edit_words, case, Goal(Norm.L0, INF), options=MANY)
    alone = [brute(text_case(scores, [t], [v]), t, int(v), 2) for t, v in zip(x, y, strict=True)]
    for found, best in zip(ledger.upper, alone, strict=True):
        assert found >= best
        assert found == best or best > 1
        if not labels_only:
            assert found == best


# --------------------------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("labels_only", [False, True])
@pytest.mark.parametrize("eps", [1.0, 3.0, INF])
def test_witnesses_keep_the_words_the_seed_and_their_independence(
    linear: tuple[Pipeline, Case], eps: float, labels_only: bool
) -> None:
    _, case = linear
    if labels_only:
        case = replace(case, model=replace(case.the_model(), scores=None))
    goal, options = Goal(Norm.L0, eps), TextEditOptions(60)
    whole, lab = attacked(edit_words, case, goal, options=options)
    again, _ = attacked(edit_words, case, goal, options=options)
    assert whole.witness.tolist() == again.witness.tolist()
    some = np.array([40, 7, 8])
    part, _ = attacked(edit_words, case, goal, options=options, batch=batch_from(case, some))
    assert part.witness.tolist() == whole.witness[some].tolist()
    found = np.isfinite(whole.upper)
    far = words_changed(case.data("test").x[found], whole.witness[found])
    np.testing.assert_array_equal(far, whole.upper[found])
    assert (far <= eps).all()
    assert (whole.upper[found] > 0).any() or eps == 1  # two words at least give a message away
    asked = lab.meter.spent.forwards
    judged = int(found.sum()) * 10  # each success is judged again, by the attack and by the harness
    assert asked <= 60 * len(found) + judged


def test_a_budget_that_ends_keeps_what_was_found(linear: tuple[Pipeline, Case]) -> None:
    _, case = linear
    nothing, lab = attacked(edit_words, case, Goal(Norm.L0, INF), limit=100)
    assert not (np.isfinite(nothing.upper) & (nothing.upper > 0)).any()
    assert lab.meter.refusals == 1
    some, lab = attacked(edit_words, case, Goal(Norm.L0, INF), limit=2500)
    assert (np.isfinite(some.upper) & (some.upper > 0)).any()
    assert lab.meter.refusals == 1


def test_texts_without_words_and_a_target_that_is_there_already() -> None:
    case = text_case(weighing({"prize": 2.0}, -1.0), ["", " \n", "1", "prize prize"], [0, 0, 0, 1])
    ledger, _ = attacked(edit_words, case, Goal(Norm.L0, INF))
    assert ledger.upper.tolist() == [INF, INF, INF, 2]
    aimed, _ = attacked(edit_words, case, Goal(Norm.L0, INF, target=1))
    assert aimed.upper.tolist() == [INF] * 4


def test_where_a_threshold_decides_and_not_the_scores_the_label_counts(linear: tuple[Pipeline, Case]) -> None:
    _, case = linear
    model = case.the_model()
    assert model.scores is not None
    scores = model.scores
    strict = replace(model, labels=lambda asked: (scores(asked)[:, 1] > 0.8).astype(np.int64))
    ledger, _ = attacked(edit_words, replace(case, model=strict), Goal(Norm.L0, INF), options=TextEditOptions(80))
    turned = np.isfinite(ledger.upper) & (ledger.upper > 0)
    assert turned.any()
    assert (strict.labels(ledger.witness[turned]) != case.data("test").labels[turned]).all()


def test_the_harness_refuses_a_text_that_is_another_one(linear: tuple[Pipeline, Case]) -> None:
    _, case = linear

    @attack(threat=THREAT, source="a cheat", needs=(), kinds={DataKind.TEXT}, norms={Norm.L0})
    def rewritten(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
        """Replace the whole text."""
        yield Claim(np.arange(len(batch)), x=batch.x[::-1])

    with pytest.raises(LawBroken, match="stay within l0"):
        attacked(rewritten, case, Goal(Norm.L0, 4.0))


# ---------------------------------------------------------------------------------------------------------- in company


@attack(threat=THREAT, source="random", needs=(), kinds={DataKind.TEXT}, norms={Norm.L0}, options=TextEditOptions)
def at_random(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """As many random misspellings of as many random words."""
    known = vocabulary(case.data("test").x.tolist())
    for row, text in enumerate(batch.x.tolist()):
        rng, words, tried = lab.rng("random", int(batch.sample_id[row])), text.split(), []
        for _ in range(lab.options.queries):
            changed = list(words)
            for at in rng.choice(len(words), min(int(goal.eps), len(words)), replace=False):
                changed[at] = str(rng.choice(misspellings(words[at], known) or [words[at]]))
            tried.append(" ".join(changed))
        asked = texts(tried)
        hit = np.flatnonzero(case.the_model().labels(asked) != batch.y[row])
        if len(hit):
            yield Claim(np.array([row]), x=asked[hit[:1]])


def test_it_breaks_more_than_random_misspellings_with_as_many_queries(linear: tuple[Pipeline, Case]) -> None:
    pipe, case = linear

    def broken(ledger: Ledger) -> int:
        return int(ledger.broken(3.0).sum())

    options, goal = TextEditOptions(40), Goal(Norm.L0, 3.0)
    searched, _ = attacked(edit_words, case, goal, options=options)
    blind = replace(case, model=replace(case.the_model(), scores=None))
    felt, _ = attacked(edit_words, blind, goal, options=options)
    drawn, _ = attacked(at_random, case, goal, options=options)
    data = case.data("test")
    able = sum(closed_form(pipe, str(text), int(label)) <= 3 for text, label in zip(data.x, data.labels, strict=True))
    assert broken(searched) == able >= 1.4 * broken(drawn)  # measured: 34 and 20
    assert broken(felt) >= broken(drawn)  # measured: 28


def test_by_labels_alone_it_learns_which_words_weigh() -> None:
    # Two words weigh as much as twelve others: who only puts words right again ends with one of them and some others.
    names = ["alpha", "bravo", *(f"small{c}" for c in "abcdefghijklmnopqrst"), *(f"plain{c}" for c in "abcdefghij")]
    weights = {name: 3.0 if i < 2 else 0.5 if i < 22 else 0.0 for i, name in enumerate(names)}
    rng = np.random.default_rng(5)
    x = [" ".join(rng.permutation(names)) for _ in range(12)]
    case = text_case(weighing(weights, -10.3), x, [1] * 12, labels_only=True)
    felt, _ = attacked(edit_words, case, Goal(Norm.L0, INF), options=TextEditOptions(200))
    assert felt.upper.mean() < 3  # measured: 2.4; with random sets in place of the heaviest words 3.6
    within, _ = attacked(edit_words, case, Goal(Norm.L0, 2.0), options=TextEditOptions(200))
    assert within.broken(2.0).tolist() == felt.broken(2.0).tolist()


def test_saliency_leads_to_the_word_where_queries_do_not_reach_all() -> None:
    weights = {"secret": 4.0}
    x = [" ".join(["word"] * at + ["secret"] + ["word"] * (99 - at)) for at in range(0, 100, 7)]

    def carried(asked: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
        return [np.array([weights.get(word, 0.0) for word in str(text).split()]) for text in asked]

    blind = text_case(weighing(weights, -2.0), x, [1] * len(x))
    told = text_case(weighing(weights, -2.0), x, [1] * len(x), saliency=carried)
    options, goal = TextEditOptions(10), Goal(Norm.L0, INF)
    assert attacked(edit_words, told, goal, options=options)[0].upper.tolist() == [1] * len(x)
    assert np.isinf(attacked(edit_words, blind, goal, options=options)[0].upper).sum() > len(x) / 2


def test_the_standard_probe_measures_texts_in_words_shows_some_and_replays(linear: tuple[Pipeline, Case]) -> None:
    from casemate import catalog

    _, case = linear
    shown: dict[str, Any] = {}
    kept: dict[str, Any] = {}

    def keeper(name: str, arrays: Any) -> str:
        (shown if name.startswith("exhibit") else kept)[name] = arrays
        return "sha256:" + "0" * 64

    plugin = measure_robustness
    lab = Lab(plugin.id, 3, options=plugin.options(queries=60), plugins=tuple(catalog.plugins()), keeper=keeper)
    evidence: list[Evidence] = list(plugin(case, lab))
    robust = [item for item in evidence if item.metric == "evasion.robust_accuracy"]
    assert [item.at for item in robust] == [{"norm": "l0", "eps": eps} for eps in (1.0, 2.0, 4.0)]
    values = [item.value for item in robust]
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]
    again = [item for item in plugin.replay(case, kept, lab) if item.metric == "evasion.robust_accuracy"]
    assert [item.value for item in again] == values
    exhibit = shown["exhibit-broken-l0"]
    assert exhibit["exhibit"] == "texts"
    assert len(exhibit["original"]) == len(exhibit["changed"]) > 0
    assert (words_changed(texts(exhibit["original"]), texts(exhibit["changed"])) >= 1).all()


def test_another_norm_than_words_is_refused_for_texts(linear: tuple[Pipeline, Case]) -> None:
    from casemate.errors import ConfigError

    lab = Lab("evasion/standard", 0, options=measure_robustness.options(norm="linf"))
    with pytest.raises(ConfigError, match="leave norm out"):
        list(measure_robustness(linear[1], lab))
