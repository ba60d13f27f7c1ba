"""Text modules of torch with a tokeniser of one's own."""

from __future__ import annotations

from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.conforming.huggingface_ import TABLE, TEXT, messages

from casemate.adapters import wrap
from casemate.adapters.torch_text import TextModule
from casemate.core.data import texts
from casemate.core.model import Model
from casemate.testing import check_model

torch = pytest.importorskip("torch")
X, Y = messages(1024, 0)


class Words:
    """Ids of words; 1 is every other one."""

    def __init__(self, corpus: Any) -> None:
        self.ids = {word: i for i, word in enumerate(sorted({w for t in corpus for w in str(t).split()}), start=2)}

    def __call__(self, asked: list[str]) -> list[list[int]]:
        return [[self.ids.get(word, 1) for word in text.split()] for text in asked]


class Bag(torch.nn.Module):
    """The mean of the embeddings, through one layer: padding would change it."""

    def __init__(self, size: int, classes: int = 2) -> None:
        super().__init__()
        self.seen = torch.nn.Embedding(size, 8)
        self.drop = torch.nn.Dropout(0.3)
        self.out = torch.nn.Linear(8, classes)

    def forward(self, ids: Any) -> Any:
        return self.out(self.drop(self.seen(ids).mean(dim=1)))


def fixed(asked: list[str]) -> Any:
    """Characters, 80 of them, padded with zeros."""
    rows = torch.zeros(len(asked), 80, dtype=torch.int64)
    for row, text in zip(rows, asked, strict=True):
        codes = [min(ord(letter), 255) for letter in text][:80]
        row[: len(codes)] = torch.tensor(codes)
    return rows


@pytest.fixture(scope="module")
def trained() -> tuple[Any, Words]:
    torch.manual_seed(0)
    words = Words(X)
    net = Bag(len(words.ids) + 2)
    step = torch.optim.Adam(net.parameters(), 3e-2)
    for _ in range(2):
        for text, label in zip(X[:400], Y[:400], strict=True):
            step.zero_grad()
            torch.nn.functional.cross_entropy(net(torch.tensor(words([str(text)]))), torch.tensor([label])).backward()
            step.step()
    return net, words


@pytest.fixture(scope="module")
def model(trained: tuple[Any, Words]) -> Model:
    return wrap(TextModule(*trained), classes=("ham", "spam"), schema=TEXT)


def test_it_answers_as_the_module_does_alone(model: Model, trained: tuple[Any, Words]) -> None:
    net, words = trained
    x = texts([*X[500:560], "unheard-of", "prize"])

    def native(asked: Any) -> Any:
        with torch.no_grad():
            return torch.cat([net.eval()(torch.tensor(words([str(t)]))) for t in asked]).numpy()

    other = TextModule(Bag(len(words.ids) + 2), words)
    check_model(
        model,
        lambda asked: native(asked).argmax(1),
        x,
        native_logits=native,
        reopened=wrap(TextModule(net, words)),
        other=wrap(other),
        refused={
            "a table": lambda: wrap(TextModule(net, words), schema=TABLE),
            "three classes": lambda: wrap(TextModule(net, words), classes=("a", "b", "c")),
            "probabilities": lambda: wrap(TextModule(net, words), logits=False),
            "no module": lambda: wrap(TextModule(words, words)),  # type: ignore[arg-type]
            "a module without ids": lambda: wrap(TextModule(torch.nn.Linear(2, 2), words)),
            "one logit": lambda: wrap(TextModule(Bag(200, 1), words)),
            "a tokeniser that raises": lambda: wrap(TextModule(net, lambda asked: asked.missing)),  # type: ignore[attr-defined]
            "rows that are missing": lambda: wrap(TextModule(net, lambda asked: [])),
        },
    )
    assert (model.labels(X[500:]) == Y[500:]).mean() > 0.9


def test_a_text_of_no_words_is_read_as_padding(model: Model) -> None:
    assert model.labels(texts(["", " \n"])).shape == (2,)


def test_saliency_of_a_bag_of_words_is_what_the_closed_form_says(model: Model, trained: tuple[Any, Words]) -> None:
    net, words = trained
    with torch.no_grad():
        ahead = (net.seen.weight @ (net.out.weight[1] - net.out.weight[0])).numpy()
    assert model.saliency is not None
    for text, label, found in zip(X[:20], Y[:20], model.saliency(X[:20], Y[:20]), strict=True):
        ids = words([str(text)])[0]
        np.testing.assert_allclose(found, ahead[ids] / len(ids) * (2 * label - 1), atol=1e-6)


@settings(max_examples=40)
@given(st.lists(st.text(alphabet="ab é\u200b\t1", min_size=1, max_size=9), min_size=1, max_size=4))
def test_tokens_find_their_words_whatever_a_token_is(asked: list[str]) -> None:
    class Letters(torch.nn.Module):  # the margin is the sum of what each letter weighs
        def __init__(self) -> None:
            super().__init__()
            self.seen = torch.nn.Embedding(256, 1)
            with torch.no_grad():
                self.seen.weight.copy_(torch.arange(256.0)[:, None])

        def forward(self, ids: Any) -> Any:
            total = self.seen(ids).sum(dim=1)
            return torch.cat([torch.zeros_like(total), total], dim=1)

    found = wrap(TextModule(Letters(), fixed)).saliency(texts(asked), np.ones(len(asked), dtype=int))  # type: ignore[misc]
    for text, carried in zip(asked, found, strict=True):
        words = text.split()
        assert len(carried) == len(words)
        letters = sum(min(ord(letter), 255) for letter in text.rstrip())
        assert carried.sum() == pytest.approx(letters if words else 0)
        if words and text == " ".join(words):
            own = [sum(min(ord(letter), 255) for letter in word) for word in words]
            assert carried == pytest.approx([weight + 32 * (j > 0) for j, weight in enumerate(own)])


def test_a_method_of_the_module_may_be_the_tokeniser_and_its_vocabulary_counts() -> None:
    class Own(Bag):
        def __init__(self, words: Words) -> None:
            super().__init__(len(words.ids) + 2)
            self.vocabulary = dict(words.ids)

        def encode(self, asked: list[str]) -> list[list[int]]:
            return [[self.vocabulary.get(word, 1) for word in text.split()] for text in asked]

    torch.manual_seed(0)
    net = Own(Words(X))
    first = wrap(TextModule(net, net.encode)).digest
    assert wrap(TextModule(net.eval(), net.encode)).digest == first
    net.vocabulary["prize"] = 1
    assert wrap(TextModule(net, net.encode)).digest != first


def test_without_an_embedding_there_is_no_saliency() -> None:
    net = torch.nn.EmbeddingBag(256, 2)
    model = wrap(TextModule(net, fixed))
    assert model.saliency is None
    assert model.notes["saliency"].startswith("none")
    assert model.scores is not None
    np.testing.assert_allclose(model.scores(X[:9]).sum(axis=1), 1)


def test_it_travels_with_its_saliency(model: Model) -> None:
    sent = cloudpickle.loads(cloudpickle.dumps(model))
    for one, other in zip(sent.saliency(X[:5], Y[:5]), model.saliency(X[:5], Y[:5]), strict=True):  # type: ignore[misc]
        np.testing.assert_array_equal(one, other)
