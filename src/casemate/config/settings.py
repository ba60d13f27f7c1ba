"""The keys of casemate.toml and their types; anything else is refused with the nearest key there is."""

from __future__ import annotations

import datetime as dt
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    StrictInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from casemate.core.budget import parse_budget
from casemate.core.facets import DataKind, Profile
from casemate.core.model import Task
from casemate.core.names import nearest
from casemate.core.outcome import Severity
from casemate.errors import CasemateError, ConfigError

__all__ = [
    "AcceptSettings",
    "AuditSettings",
    "DataSettings",
    "GateSettings",
    "ModelSettings",
    "PolicySettings",
    "Settings",
    "TrainSettings",
    "load",
]

_LARGEST = 4 << 20  # bytes


def load(path: str | Path, *, trust: bool = False, authorised: bool = False, isolate: bool = False) -> Settings:
    """The settings in a file; relative paths in it are relative to its folder, and nothing that it names is opened yet.

    `trust` is what `--trust` says: the model's file may run code whatever its scan says. `isolate` is what `--isolate`
    says: it lives in a process without network and files. `authorised` is what `--i-am-authorised` says: the endpoint
    that it names may be attacked. Raises `ConfigError` for a file that is
    missing or not TOML, an unknown key (with the nearest one) and a value of the wrong type (with its place).
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            text = stream.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise ConfigError(f"expected a configuration under 4 MB, got a larger {file.name}: name the casemate.toml")
        raw = tomllib.loads(text.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"expected a configuration at {file}, got {error.strerror or error}: write one with `casemate init`"
        ) from error
    except (ValueError, RecursionError) as error:  # TOML's own faults, text that is no UTF-8, numbers without end
        raise ConfigError(f"expected TOML in {file.name}, got a fault ({error}): mend that line") from error
    folder = file.resolve().parent
    try:
        settings = Settings.model_validate(raw, context={"folder": folder})
    except ValidationError as error:
        raise ConfigError(_clear(error, file.name)) from error
    settings._folder = folder
    settings._trust = trust
    settings._isolate = isolate
    settings._authorised = authorised
    return settings


def _resolved(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path())
    return Path(folder) / path


FilePath = Annotated[Path, AfterValidator(_resolved)]
Name = Annotated[str, Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(_Section):
    """`[model]`: a file, a file of weights with the factory of their module, or something importable.

    `factory` alone is called for the model, which may be one that `casemate.adapters` wrapped already (its task and
    classes are then its own); `function` names a function that answers batches, whose answers are `outputs`.
    `trusted` lists types in a skops file; `classes` are the names of the class indices; `accuracy` is what its maker
    claims on the test data. `url` is an endpoint, and what follows it says how it is asked (see
    `adapters.http.Asking`).
    """

    path: FilePath | None = None
    factory: Name | None = None
    function: Name | None = None
    outputs: Literal["logits", "scores", "labels"] | None = None
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    trusted: tuple[str, ...] = ()
    name: Name | None = None
    accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    url: Any = None  # held to its form where it is used: what is wrong with it may be a secret, which no error repeats
    protocol: Literal["oip", "json"] = "oip"
    request: Name | None = None
    response: str | None = None
    tensor: Name | None = None
    answer: Name | None = None
    headers: Any = Field(default_factory=dict)  # as url
    batch: Annotated[StrictInt, Field(ge=1, le=100_000)] = 64
    requests_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    timeout: Annotated[float, Field(gt=0, le=3600)] = 30.0
    tries: Annotated[StrictInt, Field(ge=1, le=20)] = 5
    cost_per_query: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class DataSettings(_Section):
    """`[data]`: a file for each split, and what its columns mean (see `adapters.sources.Reading`).

    A table (`.parquet`, `.csv`, `.jsonl`): `target` names the column of labels, and `text` that of texts where the
    samples are texts. Arrays `x` and `y` in one `.npz`, or `x` in a `.npy` and its labels in another, named by
    `test_labels` beside `test` and so on. A folder of PNG and JPEG pictures, in one folder for each class; they are
    scaled to `bounds`, [0, 1] by default. `task` = "regression" says that the target is a number and that the model
    predicts it: the one output of a torch module, the answers of a function. `relations` such as "opened <= closed"
    hold between columns of every row.
    """

    test: FilePath | None = None
    train: FilePath | None = None
    tune: FilePath | None = None
    reference: FilePath | None = None
    test_labels: FilePath | None = None
    train_labels: FilePath | None = None
    tune_labels: FilePath | None = None
    reference_labels: FilePath | None = None
    text: Name | None = None
    target: Name | None = None
    sensitive: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    drop_sensitive: StrictBool = False
    source: Name | None = None
    kind: DataKind | None = None
    bounds: tuple[float, float] | None = None
    one_hot: StrictBool = False
    relations: tuple[Annotated[str, Field(pattern=r"^.*\S <= \S.*$")], ...] = ()
    task: Task | None = None

    @field_validator("bounds")
    @classmethod
    def _ordered(cls, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError("bounds as [low, high] with low < high")
        return bounds

    @property
    def files(self) -> dict[str, Path]:
        """The files of the splits that are named."""
        named = {"train": self.train, "tune": self.tune, "test": self.test, "reference": self.reference}
        return {name: path for name, path in named.items() if path is not None}

    @property
    def labels(self) -> dict[str, Path]:
        """The files of labels of the splits whose samples are in a file of their own."""
        named = {name: getattr(self, f"{name}_labels") for name in ("train", "tune", "test", "reference")}
        return {name: path for name, path in named.items() if path is not None}

    @model_validator(mode="after")
    def _labelled(self) -> DataSettings:
        alone = sorted(self.labels.keys() - self.files.keys())
        if alone:
            raise ValueError(f"{alone[0]} beside {alone[0]}_labels")
        return self


class TrainSettings(_Section):
    """`[train]`: how such a model is made again; a scikit-learn estimator needs nothing here."""

    recipe: Name | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class AuditSettings(_Section):
    """`[audit]`: how thoroughly, with how much, from which seed, where."""

    profile: Profile = Profile.STANDARD
    budget: Any = None  # held to its form below: a union of types would complain of one of them
    seed: Annotated[StrictInt, Field(ge=0, le=2**53)] = 0
    threads: Annotated[StrictInt, Field(ge=1)] = 1
    executor: Annotated[str, Field(pattern=r"^(inline|pool(:[1-9]\d*)?|ray.*)$")] = "inline"

    @field_validator("budget")
    @classmethod
    def _known_budget(cls, budget: Any) -> Any:
        asked = budget
        if isinstance(budget, dict):  # a table holds a count: of what, is its key
            ((key, asked),) = budget.items() if len(budget) == 1 else [("", None)]
            asked = asked if key in ("propagations", "queries") and type(asked) is int else ""
        try:
            parse_budget(asked)
        except CasemateError as error:
            raise ValueError("a budget such as '15m', 2_000_000 or { queries = 20_000 }") from error
        return budget


class GateSettings(_Section):
    """`[[policy.gate]]`: a bar for a metric."""

    metric: Name
    at: dict[str, str | int | float | bool] = Field(default_factory=dict)
    about: str = ""
    min: Annotated[float | None, Field(allow_inf_nan=False)] = None
    max: Annotated[float | None, Field(allow_inf_nan=False)] = None

    @model_validator(mode="after")
    def _bounded(self) -> GateSettings:
        if self.min is None and self.max is None:
            raise ValueError("min or max in a gate")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min <= max in a gate")
        return self


class AcceptSettings(_Section):
    """`[[policy.accept]]`: a finding that is accepted until a day, for a reason."""

    finding: Name
    until: dt.date
    reason: Name


class PolicySettings(_Section):
    """`[policy]`: what fails a run."""

    fail_on: Severity = Severity.HIGH
    gate: tuple[GateSettings, ...] = ()
    accept: tuple[AcceptSettings, ...] = ()


class Settings(_Section):
    """A whole casemate.toml. `columns` are the tables `[schema."column"]`, `probe` the options of plug-ins by id."""

    name: Name | None = None
    model: ModelSettings = Field(default_factory=ModelSettings)
    data: DataSettings = Field(default_factory=DataSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    probe: dict[str, dict[str, Any]] = Field(default_factory=dict)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    columns: dict[str, dict[str, Any]] = Field(default_factory=dict, alias="schema")
    _folder: Path = PrivateAttr(default_factory=Path)
    _trust: bool = PrivateAttr(default=False)
    _isolate: bool = PrivateAttr(default=False)
    _authorised: bool = PrivateAttr(default=False)

    @property
    def folder(self) -> Path:
        """The folder of the file, from which recipes and factories can be imported."""
        return self._folder

    @property
    def trust(self) -> bool:
        """Whether the user said that the model's file may run code."""
        return self._trust

    @property
    def isolate(self) -> bool:
        """Whether the user said that the model's file is loaded in a process without network and files."""
        return self._isolate

    @property
    def authorised(self) -> bool:
        """Whether the user said that the endpoint may be attacked."""
        return self._authorised


def _clear(error: ValidationError, name: str) -> str:
    """The first problem as one sentence: an unknown key before a wrong value, for the one may explain the other."""
    problems = error.errors(include_url=False)
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    place = [part for part in first["loc"] if not str(part).startswith(("function-", "dict[", "str", "int"))]
    if first["type"] == "extra_forbidden":
        keys = _keys(place[:-1])
        where = ".".join(map(str, place[:-1])) or "the file"
        return f"expected a key of {where} in {name}, got {str(place[-1])!r}: {nearest(str(place[-1]), keys)}"
    wanted = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "missing":
        return f"expected {'.'.join(map(str, place))} in {name}, got nothing: add it"
    got = repr(first["input"])
    return f"expected {wanted} at {'.'.join(map(str, place))} in {name}, got {got[:80]}: mend the value"


def _keys(place: list[int | str]) -> list[str]:
    section: Any = Settings
    for part in place:
        if isinstance(part, str):
            section = _section_of(section.model_fields[part].annotation)
    return [field.alias or key for key, field in section.model_fields.items()]


def _section_of(annotation: Any) -> Any:
    inside = [item for item in get_args(annotation) if isinstance(item, type) and issubclass(item, BaseModel)]
    return inside[0] if inside else annotation
