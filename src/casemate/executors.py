"""Where units of work run: in this process, or in a pool of spawned ones. The result is the same.

An executor is given finished calls and yields results as they come. A worker process holds one case at a time, has its
threads fixed, never writes, and ends when its parent does.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

from casemate.core.budget import Meter, Spent
from casemate.core.case import Case
from casemate.core.lab import Job, Lab
from casemate.core.metering import metered_case, unmetered_case
from casemate.errors import ConfigError, LawBroken
from casemate.formats import arrays

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

__all__ = ["Call", "Executor", "Inline", "Pool", "executor", "fixed_threads", "perform"]


@dataclass(frozen=True, slots=True)
class Call:
    """One unit of work: a packed item and the limits of its meter."""

    position: int
    item: bytes
    limit: int | None
    deadline: float | None


class Executor(Protocol):
    """Runs one job for many calls."""

    @property
    def name(self) -> str:
        """What the report calls it."""

    def run(self, job: Job, case: Case, lab: Lab, calls: Sequence[Call]) -> Iterator[tuple[int, bytes, Spent]]:
        """Position, packed result and use of each call, in any order."""

    def close(self) -> None:
        """End whatever was started."""


def executor(spec: str, threads: int) -> Executor:
    """`inline`, `pool` (a worker for each core) or `pool:N`; raises `ConfigError` for anything else."""
    if spec == "inline":
        return Inline()
    match = re.fullmatch(r"pool(?::([1-9]\d{0,3}))?", spec)
    if match is None:
        raise ConfigError(f"expected the executor 'inline', 'pool' or 'pool:N', got {spec!r}: write one of these")
    return Pool(int(match[1] or os.cpu_count() or 1), threads)


def perform(job: Job, case: Case, lab: Lab, call: Call) -> tuple[int, bytes, Spent]:
    """Run one call here; item and result pass through their packed form, as they would between processes."""
    meter = Meter(limit=call.limit, deadline=call.deadline)
    own = replace(lab, meter=meter, getter=None)  # resources are built where the audit runs
    result = job(metered_case(unmetered_case(case), meter), arrays.unpack(call.item), own)
    if meter.refusals > 1:
        raise LawBroken(f"expected {lab.plugin} to stop when its budget ended, got {meter.refusals - 1} tries to go on")
    return call.position, arrays.pack(result), meter.spent


@final
class Inline:
    """Everything in this process, one call after the other."""

    name = "inline"

    def run(self, job: Job, case: Case, lab: Lab, calls: Sequence[Call]) -> Iterator[tuple[int, bytes, Spent]]:
        """Results in the order of the calls."""
        for call in calls:
            yield perform(job, case, lab, call)

    def close(self) -> None:
        """Nothing was started."""


@final
class Pool:
    """Spawned worker processes (never forked: a fork after torch has threads may hang)."""

    def __init__(self, workers: int, threads: int) -> None:
        self.name = f"pool:{workers}"
        self._workers = workers
        self._threads = threads
        self._pool: ProcessPoolExecutor | None = None
        self._processes: set[BaseProcess] = set()
        self._left_early = False
        self._folder = tempfile.TemporaryDirectory(prefix="casemate-pool-")

    def run(self, job: Job, case: Case, lab: Lab, calls: Sequence[Call]) -> Iterator[tuple[int, bytes, Spent]]:
        """Results as workers finish them; at most two calls a worker are under way."""
        if not calls:
            return
        parcel = self._parcel(job, unmetered_case(case), _portable(lab))
        waiting = list(reversed(calls))
        running: set[Future[tuple[int, bytes, Spent]]] = set()
        begun: dict[Future[tuple[int, bytes, Spent]], int] = {}
        ended = False
        try:
            while waiting or running:
                while waiting and len(running) < 2 * self._workers:
                    call = waiting.pop()
                    future = self._submitted(parcel, call)
                    begun[future] = call.position
                    running.add(future)
                done, running = wait(running, return_when=FIRST_COMPLETED)
                if any(future.exception() for future in done):
                    # One process would have stopped at the first failure in the order of the calls: say the same.
                    done |= wait(running).done
                    running = set()
                for future in sorted(done, key=begun.__getitem__):
                    yield future.result()
            ended = True
        finally:
            self._left_early = self._left_early or not ended
            for future in running:
                future.cancel()

    def close(self) -> None:
        """End the workers: at once where a run was left before its end, as by an interrupt."""
        if self._pool is not None:
            for process in self._processes if self._left_early else ():
                process.terminate()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        self._folder.cleanup()

    def _submitted(self, parcel: str, call: Call) -> Future[tuple[int, bytes, Spent]]:
        """A call on its way; the workers that it made start are noted."""
        import multiprocessing

        if self._pool is None:  # making it starts multiprocessing's bookkeeper, which unblocks interrupts: do it first
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, context, _begin_worker, (self._threads,))
        with _interrupts_held():
            before = set(multiprocessing.active_children())
            future = self._pool.submit(_in_worker, parcel, call)
            self._processes |= set(multiprocessing.active_children()) - before
        return future

    def _parcel(self, job: Job, case: Case, lab: Lab) -> str:
        import cloudpickle

        from casemate.formats.digests import sha256_bytes

        try:
            blob = cloudpickle.dumps((job, case, lab))
        except Exception as error:  # pickling runs the model's own code, which may raise anything
            raise ConfigError(
                f"expected a case that can be sent to other processes, got {error!r}: use executor = 'inline'"
            ) from error
        path = Path(self._folder.name) / f"{sha256_bytes(blob)[7:23]}.parcel"
        if not path.exists():
            path.write_bytes(blob)
        return str(path)


def _portable(lab: Lab) -> Lab:
    return Lab(
        lab.plugin, lab.seed, lab.options, plugins=lab.plugins, threads=lab.threads, sampling_seed=lab.sampling_seed
    )


_HELD: dict[str, Any] = {}  # in a worker: the last parcel, so that a case is read once and not for every call


def _in_worker(parcel: str, call: Call) -> tuple[int, bytes, Spent]:
    if parcel not in _HELD:
        import cloudpickle

        _HELD.clear()
        _HELD[parcel] = cloudpickle.loads(Path(parcel).read_bytes())  # written by our own parent, into its own folder
    job, case, lab = _HELD[parcel]
    return perform(job, case, lab, call)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold an interrupt back until the block ends: it would break off the start of a worker half-way.

    Held back in two ways: the handler waits, and what is started here begins with the signal blocked.
    """
    import signal

    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    came: list[tuple[int, Any]] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, signal.SIG_DFL if handler is None else handler)
        if came and callable(handler):
            handler(*came[0])


def _begin_worker(threads: int) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ExitStack().enter_context(fixed_threads(threads))


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """Fix the threads of BLAS, OpenMP and torch: their number changes the last bits of sums, and so a report.

    The environment is set too, for libraries that are only loaded by the work itself.
    """
    import sys

    from threadpoolctl import threadpool_limits

    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    torch = sys.modules.get("torch")
    torch_before = torch.get_num_threads() if torch else None
    os.environ.update(dict.fromkeys(names, str(threads)))
    with threadpool_limits(limits=threads):
        if torch:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
            if torch and torch_before is not None:
                torch.set_num_threads(torch_before)
