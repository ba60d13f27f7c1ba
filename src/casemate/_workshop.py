"""The workshop makes labs: it remembers finished work, runs jobs on an executor, keeps files and builds resources."""

from __future__ import annotations

import json
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from casemate.core.budget import Meter, Spent
from casemate.core.case import Case
from casemate.core.evidence import Evidence
from casemate.core.facets import PluginKind, Profile
from casemate.core.lab import Job, Lab, Stored
from casemate.core.metering import metered_case, unmetered_case
from casemate.core.outcome import Failed, Outcome, Skipped
from casemate.core.planner import applicable
from casemate.core.plugin import Plugin
from casemate.errors import CasemateError, LawBroken, Unavailable, UsageError
from casemate.executors import Call, Executor
from casemate.formats import arrays, atomic, canonical, wire
from casemate.formats.digests import sha256_bytes, sha256_file
from casemate.store import Store

__all__ = [
    "Progress",
    "Workshop",
    "alone_in",
    "as_json",
    "case_digest",
    "code_digest",
    "recalled",
    "recorded",
    "versions",
]

Progress = Callable[[str, int, int], None]
_VERSIONED = ("casemate", "numpy", "scipy", "pandas", "scikit-learn", "torch", "skops", "safetensors")
_HEAD = struct.Struct("<QQ")
_BUILT = (PluginKind.RESOURCE, PluginKind.DETECTOR)


@dataclass(slots=True)
class Workshop:
    """Everything that one audit shares between its plug-ins."""

    seed: int
    profile: Profile
    plugins: tuple[Plugin, ...]
    executor: Executor
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    threads: int = 1
    sampling_seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    store: Store | None = None
    run: str = ""
    output: Path | None = None
    on_progress: Progress | None = None
    files: dict[str, str] = field(default_factory=dict)
    kept: dict[str, bytes] = field(default_factory=dict)
    spent: dict[str, Spent] = field(default_factory=dict)
    charged: dict[str, tuple[str, Spent]] = field(default_factory=dict)
    _resources: dict[str, Stored] = field(default_factory=dict)
    _refused: dict[str, CasemateError] = field(default_factory=dict)
    _asked: dict[tuple[int, str], tuple[Meter, int | None]] = field(default_factory=dict)

    def lab(self, plugin: Plugin, options: Any, meter: Meter) -> Lab:
        """A lab for one plug-in."""
        return Lab(
            plugin=plugin.id,
            seed=self.seed,
            options=options,
            meter=meter,
            plugins=self.plugins,
            mapper=self.map,
            keeper=lambda name, values: self.keep(plugin.id, name, values),
            getter=lambda resource, case: self.resource(resource, case, meter),
            on_progress=self.on_progress,
            threads=self.threads,
            sampling_seed=self.sampling_seed,
        )

    def tell(self, name: str, done: int, total: int) -> None:
        """Tell whoever watches how far a plug-in is, or under the name `audit` how many of them are done."""
        if self.on_progress is not None:
            self.on_progress(name, done, total)

    def map(self, job: Job, case: Case, items: Sequence[Stored], lab: Lab) -> list[Stored]:
        """Run a job over items: what this run has finished before is read, the rest is worked on and kept at once."""
        left = lab.meter.left
        limit = None if left is None else left // max(len(items), 1)
        packed = [arrays.pack(item) for item in items]
        about = [lab.plugin, f"{job.__module__}.{job.__qualname__}", case_digest(case), as_json(lab.options), limit]
        keys = [self._key("job", *about, position, sha256_bytes(item)) for position, item in enumerate(packed)]
        done: dict[int, tuple[bytes, Spent]] = {}
        for position, key in enumerate(keys):
            if (blob := self._recall(key)) is not None:
                done[position] = blob
        lab.progress(len(done), len(items))
        calls = [Call(i, item, limit, lab.meter.deadline) for i, item in enumerate(packed) if i not in done]
        for position, result, spent in self.executor.run(job, case, lab, calls):
            done[position] = (result, spent)
            self._remember(keys[position], result, spent)
            lab.progress(len(done), len(items))
        for position in range(len(items)):
            lab.meter.spent = lab.meter.spent + done[position][1]
        return [arrays.unpack(done[position][0]) for position in range(len(items))]

    def keep(self, plugin: str, name: str, values: Stored) -> str:
        """Keep named arrays as a file of evidence under the output folder (in memory without one)."""
        return self.keep_bytes(f"evidence/{plugin.replace('/', '.')}/{name}", arrays.pack(values))

    def keep_bytes(self, stem: str, data: bytes) -> str:
        """Keep bytes as a file named by its stem and digest; returns the digest."""
        digest = sha256_bytes(data)
        path = f"{stem}.{digest[7:19]}.cma"
        self.files[digest] = path
        if self.output is None:
            self.kept[digest] = data
        elif not self.holds(digest, path):
            (self.output / path).parent.mkdir(parents=True, exist_ok=True)
            atomic.write(self.output / path, data)
        return digest

    def holds(self, digest: str, path: str) -> bool:
        """Whether the output folder has the file with these very bytes: one that was changed is no evidence."""
        return self.output is not None and (self.output / path).is_file() and sha256_file(self.output / path) == digest

    def resource(self, name: str, case: Case, meter: Meter) -> Stored:
        """A resource: read where this audit or an earlier one built it, else built; charged to whoever asks first.

        So is one that could not be built: whoever asks next is told the same error, and nothing is asked or paid again.
        """
        plugin = next((p for p in self.plugins if p.kind in _BUILT and p.id == name), None)
        if plugin is None:
            raise Unavailable(f"expected the resource {name}, got none of that id: install what offers it")
        if (why := applicable(plugin, case)) is not None:
            raise Unavailable(f"expected a case for {name}: it {why.detail}")
        options = plugin.configured(self.profile, self.options.get(name))
        origin = [dict(self.versions), code_digest(plugin)]  # the store outlives an upgrade, its resources must not
        about = ["resource", name, *origin, case_digest(case), as_json(options)]
        # Of a count as much was left as when it first asked: what it has paid since changes nothing of what it gets.
        _, left = self._asked.setdefault((id(meter), self._key(*about)), (meter, meter.left))
        key = self._key(*about, left)
        if key in self._resources:
            return self._resources[key]
        if key in self._refused:
            raise copy(self._refused[key])
        blob = self.store.resource(key) if self.store else None
        if blob is None:
            part = Meter(limit=meter.left, deadline=meter.deadline)
            try:
                built = plugin.function(metered_case(unmetered_case(case), part), self.lab(plugin, options, part))
            except CasemateError as error:
                self._refused[key] = copy(error)  # without its traceback, which holds what it was built from
                self._charge(key, name, part.spent, meter)
                raise
            blob = _joined(arrays.pack(built), part.spent)
            if self.store:
                self.store.put_resource(key, blob)
        packed, spent = _parted(blob)
        self._charge(key, name, spent, meter)
        self._resources[key] = arrays.unpack(packed)
        return self._resources[key]

    def _charge(self, key: str, name: str, spent: Spent, meter: Meter) -> None:
        if key not in self.charged:
            meter.spent = meter.spent + spent
            self.charged[key] = (name, spent)

    def finished(self, key_parts: Iterable[object]) -> bytes | None:
        """What a whole step of this run left behind, if it is finished."""
        found = self._recall(self._key("step", *key_parts))
        return found[0] if found else None

    def finish(self, key_parts: Iterable[object], blob: bytes) -> None:
        """Leave behind what a whole step of this run said."""
        self._remember(self._key("step", *key_parts), blob, Spent())

    def _recall(self, key: str) -> tuple[bytes, Spent] | None:
        blob = self.store.result(self.run, key) if self.store else None
        return None if blob is None else _parted(blob)

    def _remember(self, key: str, result: bytes, spent: Spent) -> None:
        if self.store:
            self.store.put_result(self.run, key, _joined(result, spent))

    def _key(self, *parts: object) -> str:
        return canonical.digest([self.seed, self.sampling_seed, self.profile.value, self.threads, *parts])


def recorded(
    evidence: list[Evidence],
    trouble: Outcome | None,
    spent: Spent,
    files: Mapping[str, str],
    built: Mapping[str, tuple[str, Spent]],
) -> bytes:
    """What a finished step said, used, kept and built, as bytes that `recalled` reads."""
    body = {
        "evidence": json.loads(wire.write(tuple(evidence), tuple[Evidence, ...])),
        "trouble": wire.write_outcome(trouble) if trouble is not None else "",
        "spent": [spent.forwards, spent.backwards],
        "files": dict(files),
        "built": {key: [name, used.forwards, used.backwards] for key, (name, used) in built.items()},
    }
    return canonical.dumps(body)


def recalled(blob: bytes, plugin: str, shop: Workshop) -> tuple[list[Evidence], Skipped | Failed | None] | None:
    """What a finished step said, or `None` where a file that it kept has gone or changed: measure again."""
    body: Any = canonical.loads(blob)
    if shop.output is None or not all(shop.holds(digest, path) for digest, path in body["files"].items()):
        return None
    shop.files.update(body["files"])
    evidence = list(wire.read(canonical.dumps(body["evidence"]), tuple[Evidence, ...]))
    trouble = wire.read_outcome(body["trouble"]) if body["trouble"] else None
    shop.spent[plugin] = Spent(*body["spent"])
    shop.charged.update({key: (name, Spent(*used)) for key, (name, *used) in body["built"].items()})
    return evidence, trouble  # type: ignore[return-value]  # only these two kinds are recorded


@contextmanager
def alone_in(folder: Path | None) -> Iterator[None]:
    """Hold a folder for one audit; raises `UsageError` where another holds it: a page would tell of the other's report.

    The lock goes with the process, however it ends. Where the system or the disk has no locks, nothing is held.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        folder = None
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"expected one audit at a time in {folder}, got a second: wait, or choose another --output"
            ) from None
        except OSError:  # a network disk without locks
            pass
        yield
    finally:
        os.close(held)
        with suppress(OSError):
            folder.rmdir()  # where nothing came into it


def case_digest(case: Case) -> str:
    """The digest of everything in a case that can change a result."""
    plain = unmetered_case(case)
    return canonical.digest(
        {
            "model": plain.model.digest if plain.model else "",
            "notes": dict(plain.model.notes) if plain.model else {},
            "bundle": plain.bundle.digest if plain.bundle else "",
            "data": {name: data.digest for name, data in plain.splits.parts().items()},
            "schema": repr(plain.schema),
            "recipe": [plain.recipe.digest, as_json(dict(plain.recipe.settings))] if plain.recipe else [],
            "declared": dict(plain.declared),
            "surrogates": [model.digest for model in plain.surrogates],
        }
    )


def code_digest(plugin: Plugin) -> str:
    """The digest of the file that a plug-in is written in: a third party's plug-in has no version of ours."""
    where = getattr(sys.modules.get(plugin.function.__module__), "__file__", None)
    return sha256_bytes(Path(where).read_bytes()) if where and Path(where).is_file() else ""


def versions() -> dict[str, str]:
    """The versions of whatever may change a number."""
    found = {"python": platform.python_version(), "platform": sys.platform}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def as_json(options: Any) -> Any:
    """Options (a dataclass, or a mapping) as JSON values."""
    values = asdict(options) if hasattr(options, "__dataclass_fields__") else options
    return _texts(values)


def _texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _texts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(item) for item in value]
    return value if isinstance(value, bool | int | float | str | type(None)) else repr(value)


def _joined(packed: bytes, spent: Spent) -> bytes:
    return _HEAD.pack(spent.forwards, spent.backwards) + packed


def _parted(blob: bytes) -> tuple[bytes, Spent]:
    if len(blob) < _HEAD.size:
        raise LawBroken(f"expected a result in the store, got {len(blob)} bytes: start a new run")
    return blob[_HEAD.size :], Spent(*_HEAD.unpack_from(blob))
