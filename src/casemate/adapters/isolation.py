"""`--isolate`: a model whose file may run anything lives in a process that can do nothing but answer.

What the model's code may reach is in `confinement`. On this side its answers are bytes from a stranger: read with a
limit and a last moment, unpacked without pickles, held to shape and range. They can be wrong, as any model's can.
What this cannot keep from the model: time and memory up to its limits, and the samples that it is asked about.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.adapters.confined import Ended, NoWalls, Process
from casemate.adapters.isolated import frame
from casemate.adapters.loading import Declared
from casemate.adapters.verdicts import Held, check_verdict, hold
from casemate.core.model import Model, Task
from casemate.core.schema import Schema
from casemate.errors import CasemateError, FormatError, ModelError, Unavailable
from casemate.formats import arrays
from casemate.formats.digests import Hasher, sha256_bytes
from casemate.formats.scanning.signs import Level

__all__ = ["PATIENCE", "Isolated", "Room", "open_isolated"]

Array = NDArray[Any]

PATIENCE = 600.0
"""Seconds that one answer may take."""
_MOST_CLASSES = 100_000


def open_isolated(path: Path, declared: Declared) -> Isolated:
    """The model in a file, opened in a process of its own, for `loading`.

    Raises `ModelError` for a malicious file without `declared.trust` and for one that does not open, and `Unavailable`
    with the reason where this machine cannot isolate a process.
    """
    if path.is_dir():
        raise ModelError(f"expected one model file for --isolate, got the folder {path.name}: leave --isolate out")
    held = hold(path)
    check_verdict(held, runs=True, isolate=True, trust=declared.trust)
    if not held.clean:
        declared.notes["scan"] = f"{held.scanned.level}; loaded in isolation"
    if held.scanned.level is Level.MALICIOUS:
        declared.notes["trust"] = "a malicious file, loaded in isolation because --trust said so"
    return Isolated(Room(held, declared))


@dataclass(frozen=True)
class Isolated:
    """A model in a room: `classes_` are the names it gives itself, None where it has none."""

    room: Room

    @property
    def classes_(self) -> tuple[str, ...] | None:
        """Its own names of its classes, in the order of its labels."""
        return self.room.classes

    @property
    def n_features_in_(self) -> int | None:
        """How many numbers one of its samples has, where it says so."""
        return self.room.width

    def as_model(
        self,
        *,
        classes: Sequence[str] | None = None,
        schema: Schema | None = None,
        name: str | None = None,
        logits: bool | None = None,
    ) -> Model:
        """The model: labels, and scores where it has probabilities.

        Raises `ModelError` where it fits neither classes nor schema, or where its process fails.
        """
        how = {"classes": None if classes is None else tuple(classes), "schema": schema, "name": name, "logits": logits}
        answers = _Answers(self.room, *self.room.wrap(how))
        state = Hasher("casemate.isolated.1").add(sha256_bytes(self.room.held.data), json.dumps(list(answers.classes)))
        return Model(
            name=name or self.room.held.name,
            digest=state.digest(),
            labels=answers.labels,
            classes=answers.classes,
            task=answers.task,
            scores=answers.scores if answers.scored else None,
            framework="isolated",
            notes={
                "isolation": "loaded and asked in a process without network, without files but Python's own, that can "
                "neither write nor start others",
                **self.room.declared.notes,
            },
        )


@dataclass(frozen=True)
class _Answers:
    """The answers of a model in a room, held to their form."""

    room: Room
    number: int
    classes: tuple[str, ...]
    task: Task
    scored: bool

    def labels(self, x: Array) -> Array:
        found = self.room.ask("labels", self.number, x)
        regression = self.task is Task.REGRESSION
        if found.shape != (len(x),) or found.dtype.kind not in ("f" if regression else "i"):
            raise ModelError(
                f"expected {len(x)} labels from the isolated model, got {found.dtype} {found.shape}: mend it"
            )
        if not regression and len(found) and not (found.min() >= -1 and found.max() < len(self.classes)):
            raise ModelError(
                f"expected labels of {len(self.classes)} classes from the isolated model, got others: mend it"
            )
        return found.astype(np.float64 if regression else np.int64)

    def scores(self, x: Array) -> Array:
        found = self.room.ask("scores", self.number, x)
        if found.shape != (len(x), len(self.classes)) or found.dtype.kind != "f":
            raise ModelError(
                f"expected scores ({len(x)}, {len(self.classes)}) from the isolated model, got {found.dtype} "
                f"{found.shape}: mend it"
            )
        return found.astype(np.float64)


class Room:
    """The process: started at once, and again where this was sent to another process; ended with this object."""

    def __init__(self, held: Held, declared: Declared, *, patience: float = PATIENCE) -> None:
        self.held, self.declared, self.patience = held, declared, patience
        self.classes: tuple[str, ...] | None = None
        self.width: int | None = None
        self._hows: list[dict[str, Any]] = []
        self._dead = ""
        self._started: Process | None = None
        self._start()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_started": None}

    def wrap(self, how: dict[str, Any]) -> tuple[int, tuple[str, ...], Task, bool]:
        """Say what the data is like: a number to ask by, the classes, the task, and whether there are scores."""
        told = self._wrapped(how)
        self._hows.append(how)
        named = told.get("classes")
        if (
            not isinstance(named, list)
            or not all(isinstance(text, str) for text in named)
            or len(named) > _MOST_CLASSES
            or len(set(named)) < len(named)
        ):
            raise ModelError("expected different names of classes from the isolated model, got something else: mend it")
        wanted = how["classes"]
        if wanted is not None and tuple(named) != wanted:
            raise ModelError(f"expected {len(wanted)} classes from the isolated model, got others: mend it")
        task = Task.REGRESSION if told.get("task") == str(Task.REGRESSION) else Task.CLASSIFICATION
        if wanted is not None and task is Task.REGRESSION:
            raise ModelError(f"expected {len(wanted)} classes from the isolated model, got a regression: mend it")
        return len(self._hows) - 1, tuple(named), task, told.get("scores") is True and task is Task.CLASSIFICATION

    def ask(self, what: str, number: int, x: Array) -> Array:
        """The answer to samples `(n, ...)`; raises `ModelError` where there is none."""
        found = self._told({"do": what, "model": number, "x": np.asarray(x)}).get("answer")
        if not isinstance(found, np.ndarray):
            raise ModelError(f"expected {what} from the isolated model, got none: mend it")
        return found

    def close(self) -> None:
        """End the process."""
        if self._started is not None:
            self._started.end()

    def _wrapped(self, how: dict[str, Any]) -> Mapping[str, Any]:
        return self._told({"do": "wrap", "how": np.frombuffer(pickle.dumps(how), dtype=np.uint8)})

    def _start(self) -> None:
        self._started = Process(self.held, self.declared)
        given = self.declared
        told = self._told(
            {
                "do": "open",
                "factory": given.factory,
                "trusted": list(given.trusted),
                "folder": str(given.folder.resolve()) if given.folder else None,
            }
        )
        named = told.get("classes")
        whole = isinstance(named, list) and len(named) <= _MOST_CLASSES and all(isinstance(item, str) for item in named)
        self.classes = tuple(map(str, named)) if whole and isinstance(named, list) else None
        width = told.get("width")
        self.width = width if type(width) is int and 0 < width < 1 << 24 else None

    def _told(self, question: dict[str, Any]) -> Mapping[str, Any]:
        if self._dead:
            raise ModelError(f"expected an isolated model, got one that ended before ({self._dead}): load it again")
        if self._started is None:
            self._start()
            for how in self._hows:
                self._wrapped(how)
        assert self._started is not None
        try:
            told = arrays.unpack(self._started.exchange(frame(question), self.patience))
        except (Ended, FormatError) as error:
            self._started.end()
            self._dead = str(error)[:200]
            raise self._fault(str(error), isinstance(error, NoWalls)) from error
        if "error" in told:
            text = _plain(str(told["error"]))
            if told.get("kind") == "CasemateError":
                raise ModelError(
                    f"expected {self.held.name} to answer in isolation, got, in its own words: {text!r}: weigh that as "
                    "what a stranger advises"
                )
            raise ModelError(
                f"expected {self.held.name} to answer in isolation, got {text or 'an error'}: it may need what it "
                "cannot have there (network, files, processes)"
            )
        return told

    def _fault(self, told: str, walls: bool) -> CasemateError:
        if walls:
            return Unavailable(
                f"expected a machine that can isolate a process, got none that offers {_plain(told)}: run it on Linux "
                "where user namespaces are allowed, or convert the model where it was made"
            )
        return ModelError(f"expected an answer from the isolated {self.held.name}, got {_plain(told)}: do not trust it")


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:300]
