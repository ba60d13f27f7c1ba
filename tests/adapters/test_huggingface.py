"""Folders of text classifiers: what is opened, what is refused, and which words carry an answer."""

from __future__ import annotations

import json
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.adapters.conforming.huggingface_ import LENGTH, TEXT, classifier, folder, messages, natively, spoken

from casemate.adapters import huggingface, wrap
from casemate.adapters.huggingface import _survives_padding, _Tokenised
from casemate.adapters.loading import Declared, load_model
from casemate.core.data import texts
from casemate.core.model import Model
from casemate.core.spelling import word_spans
from casemate.errors import ModelError, Unavailable

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model() -> Model:
    made: Model = classifier()["model"]
    return made


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder(), tmp_path / "copy"))


def settings(path: Path, **changed: Any) -> None:
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, **changed}))


def test_it_learned_something_and_says_what_it_is(model: Model) -> None:
    x, y = messages(200, 9)
    assert (model.labels(x) == y).mean() > 0.9
    assert model.classes == ("ham", "spam")
    assert model.notes["weights"] == "model.safetensors"
    assert model.notes["truncation"] == f"texts are cut after {LENGTH} tokens"
    assert model.notes["batches"].startswith("padded")
    assert model.module is None  # gradient attacks on arrays have no business with texts


def test_a_text_is_answered_alike_alone_and_in_any_company(model: Model) -> None:
    x = texts([*messages(70, 1)[0], "a", "", "prize " * 60])
    assert model.logits is not None
    whole = model.logits(x)
    for rows in (np.arange(3), np.arange(len(x))[::-1], np.array([71, 72, 0])):
        np.testing.assert_allclose(model.logits(x[rows]), whole[rows], atol=1e-5)


def test_what_lies_behind_the_limit_is_not_read(model: Model) -> None:
    long = " ".join(["the"] * LENGTH)
    assert model.logits is not None
    np.testing.assert_array_equal(model.logits(texts([long])), model.logits(texts([f"{long} claim prize"])))


def test_classes_in_another_order_reorder_the_answers_and_other_names_rename_them(model: Model) -> None:
    opened = load_model(folder())
    x, _ = messages(20, 2)
    turned = wrap(opened, classes=("spam", "ham"))
    assert turned.logits is not None
    np.testing.assert_allclose(turned.logits(x), natively(folder(), x)[:, ::-1], atol=1e-5)
    assert turned.digest != model.digest
    renamed = wrap(opened, classes=("good", "bad"))
    np.testing.assert_array_equal(renamed.labels(x), model.labels(x))


def test_saliency_is_what_the_margin_loses_for_each_bit_of_a_word() -> None:
    opened = load_model(folder())
    opened.module.double()
    model = wrap(opened)
    x, y = messages(3, 3)
    assert model.saliency is not None
    assert model.logits is not None
    embedding, h = opened.module.get_input_embeddings(), 1e-4
    for text, label, found in zip(x, y, model.saliency(x, y), strict=True):
        for word, (begin, end) in enumerate(word_spans(str(text))):
            offsets = opened.tokeniser(str(text), return_offsets_mapping=True)["offset_mapping"]
            own = torch.tensor([[begin <= a < b <= end] for a, b in offsets])
            margins = []
            for scale in (1 + h, 1 - h):
                hook = embedding.register_forward_hook(lambda _, __, out, s=scale, o=own: torch.where(o, out * s, out))
                margins.append(float(model.logits(texts([text]))[0] @ np.array([-1, 1])) * (2 * label - 1))
                hook.remove()
            assert found[word] == pytest.approx((margins[0] - margins[1]) / (2 * h), rel=1e-2, abs=1e-7)


def test_saliency_is_the_same_in_any_company_and_counts_words_at_white_space(model: Model) -> None:
    x = texts([" claim\tyour  prize!now ", "", "meeting\u00a0now", "the " * LENGTH + "prize"])
    y = np.array([1, 0, 0, 1])
    assert model.saliency is not None
    together = model.saliency(x, y)
    assert [len(item) for item in together] == [3, 0, 2, LENGTH + 1]
    assert together[3][-1] == 0  # behind the limit
    for row in range(4):
        np.testing.assert_allclose(model.saliency(x[row : row + 1], y[row : row + 1])[0], together[row], atol=1e-5)


def test_the_label_belongs_to_what_saliency_is_asked_for(model: Model) -> None:
    x, y = messages(10, 4)
    assert model.saliency is not None
    for one, other in zip(model.saliency(x, y), model.saliency(x, 1 - y), strict=True):
        np.testing.assert_allclose(one, -other, atol=1e-6)  # two classes: the margins are opposite


def test_padding_that_changes_answers_is_noticed(copied: Path) -> None:
    class Mean(torch.nn.Module):  # an embedding that looks at its neighbours, which padding then changes
        def forward(self, ids: Any) -> Any:
            hidden = inner(ids)
            return hidden + hidden.mean(dim=1, keepdim=True)

    opened = load_model(copied)
    inner = opened.module.get_input_embeddings()
    opened.module.distilbert.embeddings.word_embeddings = Mean()
    model = wrap(opened)
    assert model.notes["batches"].startswith("one text at a time")
    x = texts(["claim", "a meeting about the prize of the morning"])
    assert model.logits is not None
    np.testing.assert_array_equal(model.logits(x)[:1], model.logits(x[:1]))


def test_a_model_that_reads_from_left_to_right_and_has_no_padding(tmp_path: Path) -> None:
    tokeniser = spoken()
    tokeniser.pad_token = None
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=len(tokeniser), n_embd=16, n_layer=1, n_head=2, n_positions=LENGTH)
    transformers.GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "gpt")
    tokeniser.save_pretrained(tmp_path / "gpt")
    model = wrap(load_model(tmp_path / "gpt"))
    x, y = messages(6, 0)
    assert model.logits is not None
    np.testing.assert_allclose(model.logits(x), natively(tmp_path / "gpt", x), atol=1e-5)
    assert model.notes["batches"].startswith("one text at a time")
    assert model.saliency is not None
    assert [len(item) for item in model.saliency(x, y)] == [len(str(text).split()) for text in x]


def test_roberta_has_fewer_places_than_its_table_has_rows(tmp_path: Path) -> None:
    tokeniser = spoken(limit=10**30)
    config = transformers.RobertaConfig(
        vocab_size=len(tokeniser), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=20, pad_token_id=0, type_vocab_size=1,
    )  # fmt: skip
    transformers.RobertaForSequenceClassification(config).save_pretrained(tmp_path / "r")
    tokeniser.save_pretrained(tmp_path / "r")
    model = wrap(load_model(tmp_path / "r"))
    assert model.notes["truncation"] == "texts are cut after 19 tokens"
    assert model.labels(texts(["the " * 99])).shape == (1,)


def test_a_pytorch_file_is_read_without_running_it_and_only_where_there_is_no_other(
    copied: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    class Boom:
        def __reduce__(self) -> Any:
            return Path.touch, (copied / "ran",)

    torch.save({"x": Boom()}, copied / "pytorch_model.bin")
    assert wrap(load_model(copied)).digest == model.digest  # the other one is not even looked at
    weights = load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pytorch_model\.bin, malicious"):
        load_model(copied)
    with monkeypatch.context() as patch:
        patch.setattr(huggingface, "check_verdict", lambda *args, **how: None)  # it holds without the scan too
        with pytest.raises(ModelError, match="expected a classifier in copy, got"):
            load_model(copied)
    assert not (copied / "ran").exists()
    torch.save(weights, copied / "pytorch_model.bin")
    again = wrap(load_model(copied))
    assert again.digest == model.digest
    assert again.notes["weights"] == "pytorch_model.bin"


def test_another_tokeniser_is_another_model(copied: Path, model: Model) -> None:
    made = json.loads((copied / "tokenizer.json").read_text())
    vocabulary = made["model"]["vocab"]
    vocabulary["the"], vocabulary["you"] = vocabulary["you"], vocabulary["the"]
    (copied / "tokenizer.json").write_text(json.dumps(made))
    assert wrap(load_model(copied), schema=TEXT).digest != model.digest


CHANGED: dict[str, tuple[str, dict[str, Any]]] = {
    "code": ("config.json", {"auto_map": {"AutoModel": "evil.Model"}}),
    "code inside": ("config.json", {"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}),
    "code of a tokeniser": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tok", None]}}),
    "a kernel": ("config.json", {"_attn_implementation": "evil/kernel"}),
    "layers": ("config.json", {"n_layers": 10**6}),
    "DistilBertForMaskedLM": ("config.json", {"architectures": ["DistilBertForMaskedLM"]}),
    "no list": ("config.json", {"architectures": 7}),
    "several labels": ("config.json", {"problem_type": "multi_label_classification"}),
    "a regression": ("config.json", {"id2label": {"0": "score"}, "label2id": {"score": 0}}),
    "three classes": ("config.json", {"id2label": {str(i): f"c{i}" for i in range(3)}, "label2id": {"c0": 0}}),
}
"""What is written into which file."""


def change(path: Path, what: str) -> None:
    if what in CHANGED:
        settings(path / CHANGED[what][0], **CHANGED[what][1])
    elif what == "an adapter":
        (path / "adapter_config.json").write_text("{}")
    elif what == "damage":
        (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:1000])
    elif what in ("no JSON", "nesting"):
        (path / "config.json").write_text("{" if what == "no JSON" else "[" * 100_000)
    else:
        (path / what).unlink()


REFUSED = {
    "code": "auto_map in config.json",
    "code of a tokeniser": "auto_map in tokenizer_config.json",
    "code inside": "auto_map in config.json",
    "a kernel": "_attn_implementation in config.json",
    "layers": "at most 1000 layers, got n_layers = 1000000",
    "nesting": "as JSON, got RecursionError|config.json, malicious",
    "no list": "got no architecture",
    "an adapter": "an adapter of another model",
    "DistilBertForMaskedLM": "got DistilBertForMaskedLM",
    "several labels": "multi_label",
    "a regression": "expected .* got",
    "three classes": "expected .* got",
    "damage": "expected a classifier in copy",
    "no JSON": "as JSON",
    "model.safetensors": "expected model.safetensors in copy",
    "tokenizer.json": "expected a tokeniser|expected a tokenizer.json",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_classifier_is_refused_with_the_reason(copied: Path, what: str) -> None:
    change(copied, what)
    with pytest.raises(ModelError, match=REFUSED[what]) as caught:
        load_model(copied, Declared())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("tokenizer_config.json", {"model_max_length": 2}, "more than its own 2 tokens of a text, got a limit of 2"),
        ("config.json", {"chunk_size_feed_forward": 10**9}, "takes what its tokeniser writes, got ValueError"),
    ],
)
def test_a_folder_that_opens_and_cannot_read_is_refused(
    file: str, change: dict[str, Any], message: str, copied: Path
) -> None:
    settings(copied / file, **change)
    with pytest.raises(ModelError, match=message):
        wrap(load_model(copied))


class PooledOverAll(torch.nn.Module):
    """A classifier that takes the mean over all positions, those of padding included."""

    def __init__(self, inner: Any, scale: float) -> None:
        super().__init__()
        self.inner, self.scale, self.config, self.device = inner, scale, inner.config, inner.device
        self.last = torch.nn.Linear(inner.config.dim, 2)

    def forward(self, **batch: Any) -> Any:
        hidden = self.inner.base_model(**batch)[0].mean(dim=1)
        return types.SimpleNamespace(logits=self.last(hidden) * self.scale + torch.tensor([20.0, -20.0]))


@pytest.mark.parametrize("scale", [0.01, 1.0, 1000.0])
def test_padding_is_tried_rightly_whatever_the_weights(scale: float) -> None:
    tokeniser = spoken()
    config = transformers.DistilBertConfig(
        vocab_size=len(tokeniser), dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=LENGTH
    )
    for seed in range(12):
        torch.manual_seed(seed)
        honest = transformers.DistilBertForSequenceClassification(config).eval()
        nets = honest, PooledOverAll(honest, scale).eval()
        padded = [_survives_padding(_Tokenised(net, tokeniser, LENGTH, (0, 1))) for net in nets]
        assert padded == [True, False], seed


def test_weights_that_the_file_lacks_are_not_made_up(copied: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copied / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"got none for classifier\.weight"):
        load_model(copied)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(Unavailable, match=r"pip install 'casemate\[text\]'"):
        load_model(folder())
