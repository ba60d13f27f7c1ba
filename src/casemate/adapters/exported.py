"""Programs that `torch.export` wrote (`.pt2`), read without running anything that the file says.

`torch.export.load` is no way to open a file of somebody else's: it unpickles weights, constants and sample inputs
without limits, evaluates shapes as Python text and calls any function below `torch` that a node names, such as
`torch.os.system`. So the archive is read here: its description is JSON, its weights are bytes, and its nodes may call
PyTorch's own tensor operators alone (`exported_graph`). What else it holds is opened with `trust` only.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from casemate.adapters.archives import check_archive
from casemate.adapters.extras import need
from casemate.adapters.loading import Declared
from casemate.adapters.torch import wrap_module
from casemate.adapters.verdicts import Held, check_verdict, hold
from casemate.core.model import Model
from casemate.core.schema import Schema
from casemate.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from casemate.adapters.exported_graph import Written

__all__ = ["Program", "open_exported"]


def open_exported(path: Path, declared: Declared) -> Program:
    """The program in a `.pt2` file, for `loading`.

    Raises `ModelError` for a damaged file, for a program with several inputs or outputs, and for one that only torch
    itself can open, which may run code from the file: it does so where `declared.trust` says that it may.
    """
    need("torch", f"read {path.name}")
    held = hold(path)
    check_archive(path, ModelError, held.data)
    check_verdict(held, runs=False, trust=declared.trust, notes=declared.notes)
    try:
        return _opened(_read(held))
    except _Refused as error:
        if declared.trust:
            return _trusted(held)
        raise ModelError(str(error)) from error
    except ModelError:
        raise
    except Exception as error:  # bytes from outside: zip, JSON and torch each have their own errors
        text = str(error).splitlines()[0][:200] if str(error) else "no message"
        raise ModelError(
            f"expected a program in {path.name}, got {type(error).__name__}: {text}: save it again with "
            "torch.export.save"
        ) from error


@dataclass(frozen=True)
class Program:
    """A program that was opened: the module, its input's dtype, and what is to be said of it."""

    module: nn.Module
    dtype: torch.dtype | None
    k: int
    notes: Mapping[str, str]
    cut: nn.Module | None = None

    def as_model(
        self, *, classes: Sequence[str] | None, schema: Schema | None, name: str | None, logits: bool | None
    ) -> Model:
        """The program as `wrap_module` makes it; a softmax (or sigmoid) in its end is cut off unless it gives `logits`.

        Raises `ModelError` as `wrap_module`.
        """
        cut = None if logits else self.cut
        model = wrap_module(
            cut or self.module,
            classes=classes or (tuple(map(str, range(self.k))) if schema is None and self.k else None),
            schema=schema,
            input_dtype=self.dtype,
            name=name or "exported program",
            probabilities=logits is False and cut is None,
        )
        notes = {**model.notes, **self.notes}
        if cut is not None:
            notes["outputs"] = "logits, read before the last softmax or sigmoid"
        whole = self.dtype is not None and not self.dtype.is_floating_point  # numbers of words have no gradient
        return replace(model, framework="torch.export", notes=notes, module=None if whole else model.module)


class _Refused(Exception):
    """The archive holds what only torch itself can open."""


def _read(path: Held) -> Written:
    from casemate.adapters.exported_graph import Payload, Written

    with zipfile.ZipFile(io.BytesIO(path.data)) as archive:
        files = {name.partition("/")[2]: name for name in archive.namelist()}
        if len(files) < len(archive.namelist()):
            raise ModelError(f"expected one folder in {path.name}, got several: save it again with torch.export.save")
        if any(name.startswith("data/aotinductor/") for name in files):
            raise ModelError(
                f"expected a program in {path.name}, got compiled code, which cannot be looked into: save it with "
                "torch.export.save"
            )
        found = [name for name in files if name.startswith("models/")]
        if len(found) != 1:
            raise ModelError(
                f"expected one program in {path.name}, got {len(found)}: save it again with torch.export.save of "
                "torch 2.8 or later"
            )
        own = found[0].removeprefix("models/").removesuffix(".json")
        program = json.loads(archive.read(files[found[0]]))
        tensors: dict[str, Payload] = {}
        for kind in ("weights", "constants"):
            config = files.get(f"data/{kind}/{own}_{kind}_config.json")
            if config is None:
                raise _refusal(path, f"{kind} of an old form")
            for name, item in json.loads(archive.read(config))["config"].items():
                if item["use_pickle"] or not str(item["path_name"]).startswith(("weight_", "tensor_")):
                    raise _refusal(path, f"the pickle of {name}")
                raw = archive.read(files[f"data/{kind}/{item['path_name']}"])
                tensors[name] = Payload(raw, item["tensor_meta"])
    inside = program["graph_module"]
    return Written(path.name, inside["graph"], inside["signature"], tensors, str(program.get("torch_version", "?")))


def _refusal(path: Held | Path, what: str) -> _Refused:
    return _Refused(
        f"expected a program that can be read without running code, got {what} in {path.name}: export it without, "
        "pass --isolate, or pass --trust if you know who wrote it"
    )


def _opened(written: Written) -> Program:
    from casemate.adapters.batching import Batched
    from casemate.adapters.exported_graph import ProgramNet, cut_at, input_meta, unknown_targets, width_of

    unknown = unknown_targets(written)
    if unknown:
        raise _refusal(Path(written.name), f"a call of {', '.join(unknown[:5])}")
    net = ProgramNet(written)
    dtype, batch = input_meta(written, net.given)
    before = cut_at(written, net.output)
    cut = None if before is None else ProgramNet(written, output=before)
    notes = {
        "mode": "train" if net.trains else "eval",
        "format": f"exported by torch {written.version}; its mode is fixed and cannot be changed",
    }
    if batch:
        notes["batch"] = f"the program takes {batch} samples at once: the last one is repeated until there are so many"
    parts = [part if part is None or not batch else Batched(part, batch=batch) for part in (net, cut)]
    assert parts[0] is not None
    return Program(parts[0].eval(), dtype, width_of(written, net.output), notes, parts[1] and parts[1].eval())


def _trusted(path: Held) -> Program:
    import torch

    from casemate.adapters.exported_graph import Loaded

    try:
        module = Loaded(torch.export.load(io.BytesIO(path.data)).module())
    except Exception as error:  # torch and whatever the file runs may raise anything
        raise ModelError(
            f"expected {path.name} to load, got {type(error).__name__}: {str(error).splitlines()[0]}: save it again"
        ) from error
    notes = {"trust": "opened by torch itself, which may run code in the file, because --trust said so"}
    return Program(module, None, 0, notes)
