from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from casemate.core.budget import Spent
from casemate.core.case import Case
from casemate.core.lab import Lab, Stored
from casemate.errors import BudgetExhausted, ConfigError
from casemate.executors import Call, executor, fixed_threads
from casemate.formats import arrays
from test_audit import make_case


def job(case: Case, item: Stored, lab: Lab) -> Stored:
    rows = case.data("test").x[: int(item["n"])]
    return {"sum": int(case.the_model().labels(rows).sum()), "luck": lab.rng("luck", int(item["n"])).random()}


def threads_job(case: Case, item: Stored, lab: Lab) -> Stored:
    import torch

    return {"threads": torch.get_num_threads()}


def failing_job(case: Case, item: Stored, lab: Lab) -> Stored:
    raise ValueError("by design")


def calls(count: int, limit: int | None = None) -> list[Call]:
    return [Call(i, arrays.pack({"n": i + 1}), limit, None) for i in range(count)]


@pytest.fixture(scope="module")
def pool():
    made = executor("pool:2", 1)
    yield made
    made.close()


def test_a_pool_gives_what_one_process_gives_with_the_same_use(pool) -> None:
    lab = Lab("toy/x", 5)
    inline = sorted(executor("inline", 1).run(job, make_case(), lab, calls(7)))
    pooled = sorted(pool.run(job, make_case(), lab, calls(7)))
    assert inline == pooled
    assert [spent for _, _, spent in pooled] == [Spent(i + 1, 0) for i in range(7)]


@pytest.mark.parametrize("spec", ["inline", "pool"])
def test_the_budget_of_a_call_is_kept_wherever_it_runs(spec: str, pool) -> None:
    runner = executor("inline", 1) if spec == "inline" else pool
    with pytest.raises(BudgetExhausted):
        list(runner.run(job, make_case(), Lab("toy/x", 5), calls(4, limit=2)))


def test_an_error_in_a_worker_comes_back_and_the_pool_goes_on(pool) -> None:
    with pytest.raises(ValueError, match="by design"):
        list(pool.run(failing_job, make_case(), Lab("toy/x", 5), calls(3)))
    assert len(list(pool.run(job, make_case(), Lab("toy/x", 5), calls(3)))) == 3


def test_a_worker_has_its_threads_fixed_also_for_what_it_loads_later(pool) -> None:
    ((_, blob, _),) = pool.run(threads_job, make_case(), Lab("toy/x", 5), calls(1))
    assert arrays.unpack(blob) == {"threads": 1}


def test_fixing_threads_is_undone_afterwards() -> None:
    import torch

    before = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    with fixed_threads(2):
        assert torch.get_num_threads() == 2
        assert os.environ["OMP_NUM_THREADS"] == "2"
    assert (torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")) == before


@pytest.mark.parametrize("spec", ["", "threads", "pool:0", "pool:x", "pool:-1", "ray"])
def test_an_executor_that_does_not_exist_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="inline"):
        executor(spec, 1)


ORPHANS = """
import sys
sys.path[:0] = {path!r}
import test_executors as t
if __name__ == "__main__":
    pool = t.executor("pool:2", 1)
    list(pool.run(t.job, t.make_case(), t.Lab("toy/x", 5), t.calls(4)))
    print("ready", flush=True)
    import time
    time.sleep(60)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS.format(path=[str(Path(__file__).parent)]))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    workers = psutil.Process(parent.pid).children(recursive=True)
    assert len(workers) >= 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone = time.monotonic() + 20
    while any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers):
        assert time.monotonic() < gone, "a worker outlived its parent"
        time.sleep(0.1)


def test_a_case_that_cannot_be_sent_says_what_to_do(pool) -> None:
    import dataclasses
    import threading

    lock = threading.Lock()
    case = make_case()
    assert case.model is not None
    stuck = dataclasses.replace(case, model=dataclasses.replace(case.model, estimator=lock))
    with pytest.raises(ConfigError, match="inline"):
        list(pool.run(job, stuck, Lab("toy/x", 5), calls(1)))
