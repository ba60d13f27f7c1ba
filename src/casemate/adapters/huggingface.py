"""Folders of text classifiers as transformers saves them; no code of theirs runs, and nothing is fetched."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.archives import check_archive
from casemate.adapters.digest import fingerprint
from casemate.adapters.extras import need
from casemate.adapters.loading import Declared
from casemate.adapters.torch_text import Reader, TextCalls, check_text_case
from casemate.adapters.verdicts import check_verdict, hold
from casemate.core.model import Model
from casemate.core.schema import Schema
from casemate.core.spelling import word_spans
from casemate.errors import ModelError
from casemate.formats.digests import Hasher

if TYPE_CHECKING:
    import torch

__all__ = ["TextFolder", "open_folder"]

Array = NDArray[Any]

_PICKLED = "pytorch_model.bin"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", _PICKLED)
_READ = (".json", ".txt", ".model", ".jinja", ".safetensors")
_TASK = "ForSequenceClassification"
_DEEPEST = 1000  # layers; each is built before it is seen that the file has no weights for it
_LARGEST = 1 << 20  # tokenisers without a limit say 1e30
_USUAL = 512  # tokens, where neither tokeniser nor model say how many they can read
_COMPANY = 32  # texts of the tokeniser's own words, by which padding is tried
_SAME = 1e-5  # relative: what rounding does to the logits of a text in company


def open_folder(path: Path, declared: Declared) -> TextFolder:
    """The classifier in a local folder: config.json, model.safetensors (or pytorch_model.bin) and a fast tokeniser.

    Nothing is fetched, and nothing in the folder is run: a folder that brings its own Python code (`auto_map`) is
    refused, and pytorch_model.bin is read with `weights_only`, where there is no model.safetensors. What is read is a
    private copy of the files, each scanned as it was copied.
    Raises `ModelError` for a folder of another task, a regression, several labels a text, weights that are missing or
    do not fit, and one without a tokeniser; `Unavailable` where transformers is not installed.
    """
    need("transformers", f"open the text classifier in {path.name}")
    need("torch", f"run the text classifier in {path.name}")
    need("safetensors", f"read the weights in {path.name}")
    with _copied(path, declared) as copy, _quiet():
        config = _checked(copy)
        weights = _weights(copy)
        module = _module(copy, config, weights)
        tokeniser = _tokeniser(copy)
    return TextFolder(path.name, module, tokeniser, weights)


@dataclass(frozen=True)
class TextFolder:
    """An opened folder: `module` gives logits in eval mode, `tokeniser` is fast; `weights` names their file."""

    name: str
    module: Any
    tokeniser: Any
    weights: str

    @property
    def classes_(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        named = self.module.config.id2label
        return tuple(str(named[index]) for index in sorted(named))

    def as_model(
        self,
        *,
        classes: Sequence[str] | None = None,
        schema: Schema | None = None,
        name: str | None = None,
        logits: bool | None = None,
    ) -> Model:
        """The model. `classes` in another order than the folder's reorder its answers; other names rename them.

        Texts of different lengths share a call only where padding leaves the answers as they are, which is tried here.
        Raises `ModelError` for another number of classes, and for data that are no texts.
        """
        check_text_case(schema, logits)
        order = _order(self.classes_, classes)
        limit = _limit(self.tokeniser, self.module.config)
        own = _Tokenised(self.module, self.tokeniser, limit, order)
        padded = _survives_padding(own)
        reader = Reader(own.read, own.forward, own.owners, padded=padded, batch_size=64 if padded else 1)
        calls = TextCalls(reader, self.module.get_input_embeddings())
        kept = Hasher("casemate.text.1").add(fingerprint(self.module), _spelled(self.tokeniser))
        return Model(
            name=name or self.name,
            digest=kept.add(str(limit), ",".join(map(str, order))).digest(),
            labels=calls.labels,
            classes=tuple(classes) if classes else self.classes_,
            scores=calls.scores,
            logits=calls.logits,
            saliency=calls.saliency if calls.embedding is not None else None,
            framework="transformers",
            notes={
                "architecture": type(self.module).__name__,
                "weights": self.weights,
                "truncation": f"texts are cut after {limit} tokens",
                "batches": "padded, with attention masks" if padded else "one text at a time: padding changes answers",
                "device": str(self.module.device),
                "dtype": str(self.module.dtype).removeprefix("torch."),
                "saliency": "gradients at the input embeddings",
            },
        )


@dataclass(frozen=True)
class _Tokenised:
    """Texts as a tokeniser writes them, and the logits of the module in the order of the user's classes."""

    module: Any
    tokeniser: Any
    limit: int
    order: tuple[int, ...]

    def read(self, asked: list[str]) -> tuple[list[dict[str, list[int]]], list[int]]:
        found = self._encoded(asked)
        rows = [{name: values[i] for name, values in found.items()} for i in range(len(asked))]
        return rows, [len(row["input_ids"]) for row in rows]

    def forward(self, rows: list[dict[str, list[int]]]) -> torch.Tensor:
        import torch

        if len(rows) == 1:
            batch = {name: torch.tensor([values]) for name, values in rows[0].items()}
        else:
            batch = self.tokeniser.pad(rows, padding=True, return_tensors="pt")
        out = self.module(**{name: values.to(self.module.device) for name, values in batch.items()})
        chosen: torch.Tensor = out.logits[:, list(self.order)]
        return chosen

    def owners(self, text: str, row: dict[str, list[int]]) -> NDArray[np.int64]:
        """The word in which each token ends (some begin with the space before it); -1 for tokens of no text."""
        del row
        spans = np.array(word_spans(text), dtype=np.int64).reshape(-1, 2)
        offsets = np.array(self._encoded([text], offsets=True)["offset_mapping"][0], dtype=np.int64).reshape(-1, 2)
        last = offsets[:, 1] - 1
        word = np.searchsorted(spans[:, 0], last, side="right") - 1
        inside = (offsets[:, 1] > offsets[:, 0]) & (word >= 0)
        inside[inside] = last[inside] < spans[word[inside], 1]
        return np.asarray(np.where(inside, word, -1), dtype=np.int64)

    def _encoded(self, asked: list[str], *, offsets: bool = False) -> Mapping[str, list[Any]]:
        found: Mapping[str, list[Any]] = self.tokeniser(
            asked, truncation=True, max_length=self.limit, return_offsets_mapping=offsets, verbose=False
        )
        return found


def _checked(path: Path) -> Mapping[str, Any]:
    """The configuration of a folder that is a text classifier and nothing else."""
    for name in ("config.json", "tokenizer_config.json"):
        for key, value in _settings(_json(path / name, needed=name == "config.json")):
            if key == "auto_map" or (key.endswith("_implementation") and "/" in str(value)):  # a kernel from the hub
                raise ModelError(
                    f"expected a classifier that transformers knows, got code of its own ({key} in {name}): save it as "
                    "one of transformers' architectures, or name a function"
                )
            if "layer" in key and isinstance(value, int) and value > _DEEPEST:
                raise ModelError(f"expected at most {_DEEPEST} layers, got {key} = {value} in {name}: mend the file")
    if (path / "adapter_config.json").exists():
        raise ModelError(f"expected whole weights in {path.name}, got an adapter of another model: merge them and save")
    config = _json(path / "config.json", needed=True)
    named = config.get("architectures")
    kinds = [str(kind) for kind in named] if isinstance(named, list) else []
    if not kinds or not all(kind.endswith(_TASK) for kind in kinds):
        raise ModelError(
            f"expected a text classifier (...{_TASK}) in {path.name}, got {', '.join(kinds) or 'no architecture'}: "
            "fine-tune it for classification first"
        )
    problem = config.get("problem_type")
    if problem not in (None, "single_label_classification"):
        raise ModelError(f"expected one class for each text in {path.name}, got {problem}: wrap it in a function")
    return config


def _settings(found: Any) -> Iterator[tuple[str, Any]]:
    """Every setting by its key, those inside of others included."""
    left = [found]
    while left:
        part = left.pop()
        for key, value in part.items() if isinstance(part, dict) else (("", item) for item in part):
            yield key, value
            if isinstance(value, dict | list):
                left.append(value)


def _json(file: Path, *, needed: bool) -> Mapping[str, Any]:
    if not file.is_file() and not needed:
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"expected {file.name} as JSON, got {type(error).__name__}: save the model again") from error
    if not isinstance(found, dict):
        raise ModelError(f"expected {file.name} to hold settings, got {type(found).__name__}: save the model again")
    return found


@contextmanager
def _copied(path: Path, declared: Declared) -> Iterator[Path]:
    """A copy of the files that are read, in a folder that nobody else can write to, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="casemate-") as place:
        inside = Path(place) / (path.resolve().name or "model")
        inside.mkdir()
        unused = {_PICKLED} if any((path / name).is_file() for name in _WEIGHTS if name != _PICKLED) else set()
        for file in sorted(path.iterdir()):
            if file.is_file() and file.name not in unused and (file.suffix in _READ or file.name == _PICKLED):
                held = hold(file)
                check_archive(file, ModelError, held.data)
                check_verdict(held, runs=file.name == _PICKLED, trust=declared.trust, notes=declared.notes)
                (inside / file.name).write_bytes(held.data)
        yield inside


def _weights(path: Path) -> str:
    found = next((name for name in _WEIGHTS if (path / name).is_file()), None)
    if found is None:
        raise ModelError(f"expected model.safetensors in {path.name}, got none: save it with save_pretrained")
    return found


def _module(path: Path, config: Mapping[str, Any], weights: str) -> Any:
    """The module in eval mode, half precision as float32; every one of its weights comes from the file."""
    import torch
    from transformers import AutoModelForSequenceClassification

    try:
        module, found = AutoModelForSequenceClassification.from_pretrained(
            path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=not weights.endswith(".bin"),
            weights_only=True,
            attn_implementation="eager",  # other ones may be fetched, and round differently in another company
            output_loading_info=True,
        )
    except Exception as error:  # files from outside: transformers, safetensors and torch each have their own errors
        raise ModelError(
            f"expected a classifier in {path.name}, got {type(error).__name__}: {_line(error)}: save it again"
        ) from error
    lacking = sorted(found["missing_keys"]) + sorted(str(key) for key in found["mismatched_keys"])
    if lacking:
        raise ModelError(
            f"expected all weights of {config['architectures'][0]} in {weights}, got none for {lacking[0]} "
            f"({len(lacking)} such): save the trained model again"
        )
    if module.config.num_labels < 2:
        raise ModelError(f"expected at least 2 classes in {path.name}, got a regression: wrap it in a function")
    if module.dtype in (torch.float16, torch.bfloat16):
        module = module.float()
    return module.eval()


def _tokeniser(path: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        raise ModelError(
            f"expected a tokeniser in {path.name}, got {type(error).__name__}: {_line(error)}: save it beside the model"
        ) from error
    if not found.is_fast:
        raise ModelError(f"expected a tokenizer.json in {path.name}, got {type(found).__name__}: save a fast tokeniser")
    return found


def _order(own: tuple[str, ...], classes: Sequence[str] | None) -> tuple[int, ...]:
    """Which logit is which of the user's classes: by name where the names are the same, else by place."""
    if classes and len(classes) != len(own):
        raise ModelError(f"expected {len(own)} classes ({', '.join(own)}), got {len(classes)}: list them all")
    if classes and set(classes) == set(own):
        return tuple(own.index(name) for name in classes)
    return tuple(range(len(own)))


def _limit(tokeniser: Any, config: Any) -> int:
    """How many tokens are read: what the tokeniser says, and no more than the model has positions."""
    said = tokeniser.model_max_length
    places = getattr(config, "max_position_embeddings", None) or 0
    table = (
        places - (getattr(config, "pad_token_id", None) or 0) - 1
        if "roberta" in config.model_type and places
        else places
    )
    known = [int(limit) for limit in (said, table) if isinstance(limit, int | float) and 0 < limit <= _LARGEST]
    limit, own = min(known, default=_USUAL), int(tokeniser.num_special_tokens_to_add())
    if limit <= own:
        raise ModelError(
            f"expected a tokeniser that reads more than its own {own} tokens of a text, got a limit of {limit}: mend "
            "model_max_length"
        )
    return limit


def _survives_padding(own: _Tokenised) -> bool:
    """Whether the answers to short texts and a long one are the same alone and together.

    Many, of words that the model knows: one that is sure of itself shows of a single text next to nothing.
    """
    import torch

    rng = np.random.default_rng(0)
    known = np.setdiff1d(np.arange(len(own.tokeniser)), own.tokeniser.all_special_ids)
    if len(known) == 0:
        return False
    lengths = [*rng.integers(1, 8, _COMPANY - 1), min(own.limit, 48)]
    rows, _ = own.read([str(own.tokeniser.decode(rng.choice(known, n).tolist())) for n in lengths])
    with torch.no_grad():
        try:
            alone = torch.cat([own.forward([row]) for row in rows])
        except Exception as error:  # settings and ids from outside: what does not fit fails in many ways
            raise ModelError(
                f"expected a classifier that takes what its tokeniser writes, got {type(error).__name__}: "
                f"{_line(error)}: save both again"
            ) from error
        try:
            together = own.forward(rows)
        except (ValueError, RuntimeError):  # no token to pad with
            return False
    return bool((alone - together).abs().max() <= _SAME * (1 + alone.abs().max()))


def _spelled(tokeniser: Any) -> str:
    """What a tokeniser is made of, without how it was last called."""
    made = json.loads(tokeniser.backend_tokenizer.to_str())
    return json.dumps({name: part for name, part in made.items() if name not in ("padding", "truncation")})


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else "no message"


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no reports from transformers: what is wrong is raised."""
    reports: Any = need("transformers.utils.logging", "open a text classifier")
    level, bars = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity(logging.CRITICAL)
    reports.disable_progress_bar()
    try:
        yield
    finally:
        reports.set_verbosity(level)
        if bars:
            reports.enable_progress_bar()
