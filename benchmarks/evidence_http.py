"""The measurement behind the bar for endpoints: an audit of a real MLServer, labels only, within a budget of queries.

`make evidence-http` makes an environment of its own in a temporary folder, installs MLServer there, serves a classifier
of handwritten digits on loopback, and audits it through a proxy that counts what passes. It writes
docs/evidence/http.md and http.json.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from evidence import facts_of, measure

SERVER = ("mlserver==1.7.1", "mlserver-sklearn==1.7.1")
EPS = 0.1
BUDGETS = (200, 2_000, 20_000, 60_000)
TOLD = re.compile(r"([\d,]+) queries of ([\d,]+) allowed were sent to the endpoint")


def labels_within_a_budget(url: str, proxy: Proxy, metrics: str) -> dict[str, Any]:
    """Audits with labels alone at several budgets: what the report says was sent, and what came by."""
    rows = []
    for budget in BUDGETS:
        before = _served(metrics)
        done = _audit(url, proxy, budget)
        rows.append([budget, *_row(done, proxy), _served(metrics) - before])
    return {
        "bar": "MUST 5: labels only, queries reported = queries counted at the server, none beyond the budget",
        "columns": [*COLUMNS, "requests by MLServer's own count"],
        "rows": rows,
        "result": f"{sum(r[3] == r[4] for r in rows)} of {len(rows)} counts equal, "
        f"{sum(r[4] <= r[0] for r in rows)} of {len(rows)} budgets kept",
        "met": all(r[3] == r[4] <= r[0] and r[6] == r[5] and r[-1] == r[5] for r in rows),
    }


def failures_on_the_way(url: str, proxy: Proxy, metrics: str) -> dict[str, Any]:
    """The same where every seventh request is lost behind the proxy or answered with 503: each try is a query."""
    del metrics
    proxy.every = 7
    try:
        done = _audit(url, proxy, 20_000)
    finally:
        proxy.every = 0
    row = [20_000, *_row(done, proxy)]
    return {
        "bar": "every try counts, and the budget holds all the same",
        "columns": list(COLUMNS),
        "rows": [row],
        "result": f"{row[3]} reported, {row[4]} counted, {row[5] - row[6]} of {row[5]} requests failed",
        "met": row[3] == row[4] <= row[0] and row[5] > row[6],
    }


def scores_too(url: str, proxy: Proxy, metrics: str) -> dict[str, Any]:
    """The same model with its probabilities: the attacks with scores break more with as many queries."""
    del metrics
    done = _audit(url, proxy, 60_000, 'answer = "predict_proba"\noutputs = "scores"\n')
    row = [60_000, *_row(done, proxy)]
    return {
        "bar": "an audit with scores keeps its budget and count too",
        "columns": list(COLUMNS),
        "rows": [row],
        "result": f"robust accuracy at most {row[7]:.3f} at linf eps {EPS}",
        "met": row[3] == row[4] <= row[0],
    }


COLUMNS = (
    "budget",
    "exit code",
    "probes whose budget ended",
    "queries reported",
    "queries counted",
    "requests counted",
    "answered with 200",
    f"robust accuracy at linf {EPS} (at most)",
    "rows not fully attacked",
    "seconds",
)


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server and counts samples and requests; fails every `every`-th inference."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.port, self.every = port, 0
        self.clear()

    def clear(self) -> None:
        """Begin to count anew."""
        self.samples = self.requests = self.passed = 0


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy

    def setup(self) -> None:
        super().setup()
        self.behind = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)

    def finish(self) -> None:
        self.behind.close()
        super().finish()

    def log_message(self, *arguments: object) -> None:
        del arguments

    def do_GET(self) -> None:
        self._pass("GET", None)

    def do_POST(self) -> None:
        proxy, body = self.server, self.rfile.read(int(self.headers["content-length"]))
        proxy.samples += json.loads(body)["inputs"][0]["shape"][0]
        proxy.requests += 1
        fault = proxy.every and proxy.requests % proxy.every == 0
        if fault and proxy.requests % (2 * proxy.every) == 0:
            self.close_connection = True  # no answer at all
            return
        if fault:
            self._answer(503, {"retry-after": "0"}, b"busy")
            return
        proxy.passed += self._pass("POST", body) == 200

    def _pass(self, method: str, body: bytes | None) -> int:
        self.behind.request(method, self.path, body, {"content-type": "application/json"})
        found = self.behind.getresponse()
        self._answer(found.status, {"content-type": found.getheader("content-type", "")}, found.read())
        return found.status

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _audit(url: str, proxy: Proxy, budget: int, more: str = 'outputs = "labels"\n') -> dict[str, Any]:
    """One `casemate audit` in a process of its own; its exit code, report and seconds."""
    proxy.clear()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x, y = _digits()
        np.savez(folder / "test.npz", x=x[1200:], y=y[1200:])
        (folder / "casemate.toml").write_text(
            f'[model]\nurl = "{url}"\n{more}batch = 256\n'
            '[data]\ntest = "test.npz"\nkind = "image"\nbounds = [0.0, 1.0]\n'
            f'[audit]\nprofile = "quick"\nbudget = {budget}\n[probe."evasion/standard"]\neps = [{EPS}]\nsamples = 64\n'
        )
        command = [str(Path(sys.executable).parent / "casemate"), "audit"]
        refused = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if refused.returncode != 2 or "--i-am-authorised" not in refused.stderr or proxy.requests:
            raise SystemExit(
                f"expected a refusal without --i-am-authorised, got {refused.returncode}: {refused.stderr}"
            )
        start = time.perf_counter()
        done = subprocess.run(
            [*command, "--i-am-authorised"], cwd=folder, capture_output=True, text=True, check=False, env=_one_thread()
        )
        seconds = time.perf_counter() - start
        if done.returncode not in (0, 1, 3):
            raise SystemExit(f"expected a verdict, got {done.returncode}: {done.stderr}")
        report = json.loads((folder / "casemate-report" / "report.json").read_text())
    return {"code": done.returncode, "report": report, "seconds": seconds}


def _row(done: dict[str, Any], proxy: Proxy) -> list[Any]:
    report = done["report"]
    told = next((match for note in report["notes"] if (match := TOLD.search(note))), None)
    ended = sum(o.get("reason") == "budget" for o in report["outcomes"])
    reported = int(told[1].replace(",", "")) if told else -1
    robust, unfinished = (_value(report, f"evasion.{name}") for name in ("robust_accuracy", "unfinished"))
    counted = [proxy.samples, proxy.requests, proxy.passed]
    return [done["code"], ended, reported, *counted, robust, unfinished, done["seconds"]]


def _value(report: dict[str, Any], metric: str) -> float | str:
    found = [e["value"] for o in report["outcomes"] for e in o.get("evidence", ()) if e["metric"] == metric]
    return found[0] if found else "not measured"


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return (x[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8), y[order]


@contextlib.contextmanager
def _mlserver() -> Iterator[tuple[int, int]]:
    """MLServer with a classifier of digits, in an environment and a process of its own: its ports."""
    import joblib
    from sklearn.linear_model import LogisticRegression

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = [f"{package}=={metadata.version(package)}" for package in ("scikit-learn", "numpy")]
        print("installing", *SERVER, flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        subprocess.run([folder / "venv/bin/pip", "install", "--quiet", *SERVER, *own], check=True)
        x, y = _digits()
        model = LogisticRegression(max_iter=1000).fit(x[:1200].reshape(-1, 64), y[:1200])
        joblib.dump(model, folder / "model.joblib")
        rest, grpc, metrics = _free_ports(3)
        ports = {"http_port": rest, "grpc_port": grpc, "metrics_port": metrics}
        (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **ports}))
        served = {
            "name": "digits",
            "implementation": "mlserver_sklearn.SKLearnModel",
            "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}],
            "parameters": {"uri": "./model.joblib"},
        }
        (folder / "model-settings.json").write_text(json.dumps(served))
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [folder / "venv/bin/mlserver", "start", folder], cwd=folder, stdout=log, stderr=log, env=_one_thread()
            )
            try:
                _wait_for(f"http://127.0.0.1:{rest}/v2/models/digits/ready", process, folder / "log")
                yield rest, metrics
            finally:
                process.terminate()
                process.wait(30)


def _one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.5)
    raise SystemExit(f"expected MLServer to start, got:\n{log.read_text()[-2000:]}")


def _served(metrics: str) -> int:
    """Requests that MLServer says it has answered."""
    with urllib.request.urlopen(metrics, timeout=10) as answer:
        text = answer.read().decode()
    return sum(
        int(float(v)) for v in re.findall(r"^model_infer_request_success_total\{.*\} (\S+)$", text, re.MULTILINE)
    )


MEASUREMENTS = (labels_within_a_budget, failures_on_the_way, scores_too)
INTRO = (
    "A logistic regression of 64-pixel digits behind MLServer on loopback, 597 test rows, 64 of them attacked, "
    "profile `quick`. A proxy before the server counts the samples of every request that reaches it. Each audit "
    "was first refused without `--i-am-authorised`."
)


def main(arguments: list[str]) -> int:
    """Run the named measurements (all by default) and write the page."""
    facts = facts_of("numpy", "scikit-learn", "httpx") | dict(item.split("==") for item in SERVER)
    with _mlserver() as (port, metrics), Proxy(port) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url, own = f"http://127.0.0.1:{proxy.server_address[1]}/v2/models/digits", f"http://127.0.0.1:{metrics}/metrics"
        chosen = {f.__name__: partial(f, url, proxy, own) for f in MEASUREMENTS}
        try:
            return measure("http", "endpoints", chosen, arguments, facts=facts, intro=INTRO)
        finally:
            proxy.shutdown()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
