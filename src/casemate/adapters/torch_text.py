"""Torch modules that read texts: a tokeniser in front of them, and gradients at the embeddings for each word."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.digest import fingerprint
from casemate.adapters.extras import need
from casemate.adapters.function import softmax
from casemate.core.data import texts
from casemate.core.facets import DataKind
from casemate.core.model import Model, best_of
from casemate.core.schema import Schema
from casemate.core.spelling import word_spans
from casemate.errors import ModelError
from casemate.formats.digests import Hasher

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Reader", "TextCalls", "TextModule", "check_text_case"]

Array = NDArray[Any]
_TRIED = ("one", "two words", "and a longer text, with some punctuation: it's here to be read (or not)!")


@dataclass(frozen=True)
class Reader:
    """How texts become the input of a module.

    `read`: texts -> the tokens of each, of whatever type, and how many they are. `forward`: some of them at once ->
    logits `(n, k)`; token j of a text is at `[:, j]` of what the embedding returns. `owners`: a text and its tokens ->
    the word of each token, `(tokens,)`, -1 for those of none. `padded`: whether texts of different lengths may share a
    call of `forward`, up to `batch_size`.
    """

    read: Callable[[list[str]], tuple[list[Any], list[int]]]
    forward: Callable[[list[Any]], torch.Tensor]
    owners: Callable[[str, Any], NDArray[np.int64]]
    padded: bool
    batch_size: int = 64


@dataclass(frozen=True)
class TextCalls:
    """The answers of a module to texts `(n,)`; `embedding` is the layer whose output the gradients are taken at.

    Texts are asked in the order of their lengths, and never in company that changes their answers.
    """

    reader: Reader
    embedding: Any = field(default=None, repr=False)

    def labels(self, x: Array) -> Array:
        """Class indices `(n,)`."""
        return best_of(self.logits(x))

    def scores(self, x: Array) -> Array:
        """Probabilities `(n, k)` in float64."""
        return softmax(self.logits(x))

    def logits(self, x: Array) -> Array:
        """Logits `(n, k)`, floats; raises `ModelError` where the module does not give one row for each text."""
        import torch

        asked = [str(text) for text in x] or [_TRIED[0]]  # no texts ask for one, for the number of classes
        parts, rows = [], []
        with torch.no_grad():
            for group, tokens in self._groups(asked):
                out = self.reader.forward(tokens)
                if out.ndim != 2 or len(out) != len(group):
                    raise ModelError(
                        f"expected logits of shape ({len(group)}, k) for {len(group)} texts, got {tuple(out.shape)}: "
                        "return one row for each text"
                    )
                parts.append((out if out.dtype is torch.float64 else out.float()).cpu().numpy())
                rows.append(group)
        found = np.concatenate(parts)
        return np.asarray(found[np.argsort(np.concatenate(rows))][: len(x)])

    def saliency(self, x: Array, y: Array) -> list[NDArray[np.float64]]:
        """For each text how much each of its words carries the label: what the margin would lose without the word.

        The margin is the logit of `y (n,)` less the largest other one; of each token its embedding times the gradient
        of the margin there, summed over the tokens of a word; 0 for a word that the module does not read. Source:
        gradient times input, Shrikumar et al., "Not just a black box", 2016.
        """
        asked = [str(text) for text in x]
        found = [np.zeros(len(word_spans(text))) for text in asked]
        for group, tokens in self._groups(asked):
            effects = self._effects(tokens, np.asarray(y)[group])
            for row, own, effect in zip(group, tokens, effects, strict=True):
                words = self.reader.owners(asked[row], own)
                known = words >= 0
                np.add.at(found[row], words[known], effect[: len(words)][known])
        return found

    def _groups(self, asked: list[str]) -> Iterator[tuple[NDArray[np.int64], list[Any]]]:
        tokens, lengths = self.reader.read(asked)
        size = self.reader.batch_size
        order = np.argsort(lengths, kind="stable")
        steps = np.flatnonzero(np.diff(np.array(lengths)[order])) + 1
        for part in np.split(order, steps[:0] if self.reader.padded else steps):
            for start in range(0, len(part), size):
                rows = part[start : start + size]
                yield rows, [tokens[row] for row in rows]

    def _effects(self, tokens: list[Any], y: Array) -> Array:
        """Embedding times gradient of the margin, `(n, tokens)`."""
        import torch

        seen: list[torch.Tensor] = []

        def leaf(_: object, given: object, out: torch.Tensor) -> torch.Tensor:
            del given
            seen.append(out.detach().requires_grad_())
            return seen[-1]

        hook = self.embedding.register_forward_hook(leaf)
        try:
            with torch.enable_grad():
                logits = self.reader.forward(tokens)
                aim = torch.as_tensor(y, device=logits.device).long()[:, None]
                own = logits.gather(1, aim)[:, 0]
                margin = own - logits.scatter(1, aim, -torch.inf).max(dim=1).values
                (gradient,) = torch.autograd.grad(margin.sum(), seen[:1])
        finally:
            hook.remove()
        return np.asarray((gradient * seen[0].detach()).sum(dim=-1).double().cpu().numpy())


@dataclass(frozen=True)
class TextModule:
    """A torch module and the function that turns texts into its input; `wrap` takes it, and a factory may return it.

    `encode(list of texts)` returns token ids: a tensor or an array `(n, l)`, or a list of lists. `module(ids (n, l))`,
    int64, returns logits `(n, k)`. Each text is encoded by itself, and only texts with equally many tokens are asked
    together, so that no answer depends on another text and `encode` need not pad; one that pads to a fixed length is
    as good. A text without tokens is read as the one token `pad`. Gradients are taken at the first `nn.Embedding`.
    """

    module: nn.Module
    encode: Callable[[list[str]], Any]
    pad: int = 0
    batch_size: int = 256

    def as_model(
        self,
        *,
        classes: Sequence[str] | None = None,
        schema: Schema | None = None,
        name: str | None = None,
        logits: bool | None = None,
    ) -> Model:
        """The model, in eval mode, on a copy of the module.

        Raises `ModelError` for what is no module, other data than texts, probabilities as output, and where module,
        tokeniser and classes do not fit together; `Unavailable` without torch.
        """
        torch = need("torch", "run a text module")
        if not isinstance(self.module, torch.nn.Module) or not callable(self.encode):
            got = f"{type(self.module).__name__} and {type(self.encode).__name__}"
            raise ModelError(f"expected a torch.nn.Module and a function encode, got {got}: pass both")
        check_text_case(schema, logits)
        calls = self._calls()
        columns = _tried(calls).shape[1]
        if classes and len(classes) != columns:
            raise ModelError(f"expected {len(classes)} logits, one for each class, got {columns}: list the classes")
        kept = calls.embedding is not None
        return Model(
            name=name or type(self.module).__name__,
            digest=Hasher("casemate.text.1").add(fingerprint(self.module), _digest_of(self.encode)).digest(),
            labels=calls.labels,
            classes=tuple(classes) if classes else tuple(str(index) for index in range(columns)),
            scores=calls.scores,
            logits=calls.logits,
            saliency=calls.saliency if kept else None,
            framework="torch",
            notes={
                "mode": "train" if self.module.training else "eval",
                "outputs": "logits",
                "saliency": "gradients at the first embedding" if kept else "none: the module has no nn.Embedding",
            },
        )

    def _calls(self) -> TextCalls:
        from torch import nn

        try:
            module = copy.deepcopy(self.module).eval()
        except Exception as error:  # a module may hold anything
            raise ModelError(
                f"expected a module that can be copied, got {type(error).__name__}: {error}: detach what it keeps"
            ) from error
        embedding = next((part for part in module.modules() if isinstance(part, nn.Embedding)), None)
        own = _Encoded(module, self.encode, self.pad)
        return TextCalls(Reader(own.read, own.forward, own.owners, padded=False, batch_size=self.batch_size), embedding)


def check_text_case(schema: Schema | None, logits: bool | None) -> None:
    """Raises `ModelError` for data that are no texts, and for a text model that is said to return probabilities."""
    if schema is not None and schema.kind is not DataKind.TEXT:
        raise ModelError(f"expected texts for a text model, got {schema.kind} data: set [data] kind = 'text'")
    if logits is False:
        raise ModelError("expected logits from a text model, got outputs = 'scores': return what softmax is given")


@dataclass(frozen=True)
class _Encoded:
    """The input of a user's module: rows of ids, which of them belong to which word."""

    module: Any
    encode: Callable[[list[str]], Any]
    pad: int

    def read(self, asked: list[str]) -> tuple[list[list[int]], list[int]]:
        rows = [self._ids([text])[0] or [self.pad] for text in asked]
        return rows, [len(row) for row in rows]

    def forward(self, rows: list[list[int]]) -> torch.Tensor:
        import torch

        device = next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))
        out = self.module(torch.tensor(rows, dtype=torch.int64, device=device))
        if not isinstance(out, torch.Tensor):
            raise ModelError(f"expected the module to return one tensor, got {type(out).__name__}: return the logits")
        return out

    def owners(self, text: str, row: list[int]) -> NDArray[np.int64]:
        """The word of each token: what the text up to the end of a word shares with the whole belongs to it or before.

        What stands before the first word counts to it, padding behind the last to none.
        """
        ends = [end for _, end in word_spans(text)]
        found = np.full(len(row), -1, dtype=np.int64)
        begin = 0
        for word, start in enumerate(self._ids([text[:end] for end in ends]) if ends else []):
            pairs = zip(row, start, strict=False)
            shared = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(row), len(start)))
            found[begin:shared] = word
            begin = max(begin, shared)
        padding = next((i for i, token in enumerate(reversed(row)) if token != self.pad), len(row))
        found[len(row) - padding :] = -1
        return found

    def _ids(self, asked: list[str]) -> list[list[int]]:
        try:
            found = self.encode(asked)
            rows = [[int(token) for token in row] for row in found]
        except Exception as error:  # the user's code may raise anything
            raise ModelError(
                f"expected token ids of {len(asked)} texts from encode, got {type(error).__name__}: {error}: mend it"
            ) from error
        if len(rows) != len(asked):
            raise ModelError(f"expected one row of ids for each of {len(asked)} texts, got {len(rows)}: mend encode")
        return rows


def _tried(calls: TextCalls) -> Array:
    """The logits of a few texts, `(n, k)`; raises `ModelError` where there are none."""
    try:
        found = calls.logits(texts(_TRIED))
    except ModelError:
        raise
    except Exception as error:  # a module's own code may raise anything
        line = str(error).splitlines()[0] if str(error) else ""
        raise ModelError(
            f"expected the module to take the ids of a text, got {type(error).__name__}: {line}: mend encode or module"
        ) from error
    if found.shape[1] < 2:
        raise ModelError(f"expected logits of at least 2 classes, got {found.shape[1]}: return one for each class")
    return found


def _digest_of(encode: Callable[[list[str]], Any]) -> str:
    """A tokeniser's digest; of a method of the module, the code and what the module holds beside weights."""
    owner = getattr(encode, "__self__", None)
    if owner is None or not hasattr(owner, "state_dict"):
        return fingerprint(encode)
    plain = {name: value for name, value in vars(owner).items() if not name.startswith("_") and name != "training"}
    return fingerprint([getattr(encode, "__func__", None), plain])
