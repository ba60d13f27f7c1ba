"""A small DistilBERT, trained for two seconds on made-up messages and saved as transformers saves it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from casemate.adapters import wrap
from casemate.adapters.loading import Declared, load_model
from casemate.core.data import texts
from casemate.core.facets import DataKind
from casemate.core.schema import Feature, Schema

CLASSES = ("ham", "spam")
TEXT = Schema(DataKind.TEXT, ())
TABLE = Schema(DataKind.TABLE, (1,), (Feature("a"),))
LENGTH = 24
_GIVEAWAYS = (
    "meeting tomorrow dinner thanks morning project weekend family coffee lecture ticket library garden",
    "winner claim prize urgent cash offer guaranteed bonus credit lottery discount exclusive reward",
)
_PLAIN = "the a to and you for with your this is on at we have please about now again some from"


def messages(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Texts `(n,)` of 4 to 14 words and whether they are spam, by two or three words that give it away."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    found = []
    for label in y:
        telling = rng.choice(_GIVEAWAYS[label].split(), rng.integers(2, 4), replace=False)
        words = np.concatenate([telling, rng.choice(_PLAIN.split(), rng.integers(2, 12))])
        found.append(" ".join(rng.permutation(words)))
    return texts(found), y.astype(np.int64)


def spoken(*, limit: int = LENGTH) -> Any:
    """A WordPiece tokeniser learned from the messages."""
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=180, special_tokens=special, show_progress=False)
    made.train_from_iterator(messages(400, 0)[0].tolist(), trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=limit,
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip


@cache
def folder(seed: int = 0) -> Path:
    """Where the trained classifier lies; other seeds give other weights."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    path = Path(tempfile.mkdtemp()) / "messages"
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    tokeniser = spoken()
    torch.manual_seed(seed)
    config = transformers.DistilBertConfig(
        vocab_size=len(tokeniser), dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=LENGTH,
        id2label=dict(enumerate(CLASSES)), label2id={name: i for i, name in enumerate(CLASSES)},
    )  # fmt: skip
    net = transformers.DistilBertForSequenceClassification(config).train()
    x, y = messages(1024, seed)
    batch = tokeniser(x.tolist(), truncation=True, max_length=LENGTH, padding=True, return_tensors="pt")
    step = torch.optim.Adam(net.parameters(), 3e-3)
    for rows in [part for _ in range(4) for part in torch.randperm(len(x)).split(64)]:
        step.zero_grad()
        out = net(batch["input_ids"][rows], batch["attention_mask"][rows], labels=torch.tensor(y)[rows])
        out.loss.backward()
        step.step()
    net.save_pretrained(path)
    tokeniser.save_pretrained(path)
    return path


def natively(path: Path, x: np.ndarray) -> np.ndarray:
    """The logits that transformers gives, one text after the other."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    net = AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokeniser = AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        rows = [net(**tokeniser(str(text), truncation=True, return_tensors="pt")).logits for text in x]
    return np.asarray(torch.cat(rows).numpy())


def classifier() -> dict[str, Any]:
    path = folder()
    opened = load_model(path, Declared())
    x = texts([*messages(60, 5)[0], "", "claim " * 40, "Ünïcode “quotes” 中文 \u200b"])
    native = natively(path, x)
    return {
        "model": wrap(opened, schema=TEXT),
        "x": x,
        "native_predict": lambda asked: natively(path, asked).argmax(1),
        "native_logits": lambda asked: native if len(asked) == len(x) else natively(path, asked),
        "reopened": wrap(load_model(path), schema=TEXT),
        "other": wrap(load_model(folder(1)), schema=TEXT),
        "refused": {
            "a table": lambda: wrap(opened, schema=TABLE),
            "a class too many": lambda: wrap(opened, classes=("ham", "spam", "other")),
            "probabilities": lambda: wrap(opened, logits=False),
        },
        "tolerance": 1e-5,
    }


def cases() -> dict[str, Callable[[], dict[str, Any]]]:
    return {"a small DistilBERT": classifier}
