"""Endpoints: a real server on loopback in front of fitted estimators, by the Open Inference Protocol and by plain JSON.

`serving` starts one; tests tell it to fail on demand through `Served.faults`.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from casemate.adapters import wrap
from casemate.adapters.http import Asking, open_endpoint
from casemate.core.facets import DataKind
from casemate.core.model import Model
from casemate.core.schema import Feature, FeatureKind, Schema

CLASSES = ("cat", "dog", "owl")
RNG = np.random.default_rng(7)
X = RNG.uniform(-1, 1, size=(48, 4))
SCHEMA = Schema(DataKind.TABLE, (4,), tuple(Feature(f"f{i}", lo=-1.0, hi=1.0) for i in range(4)))
KINDS = ("plain", "striped")
MIXED = Schema(
    DataKind.TABLE,
    (3,),
    (
        Feature("kind", FeatureKind.CATEGORY, 0, 1, categories=KINDS),
        Feature("age", FeatureKind.INTEGER, 0, 9),
        Feature("size", lo=-1.0, hi=1.0, missing_ok=True),
    ),
)


class Served(ThreadingHTTPServer):
    """A server of one estimator with class names; counts the samples it was sent, also those it failed on.

    `faults` are taken one for each POST before the model is asked: `(status, headers, body)`, or a number of seconds to
    wait. `change` rewrites an answer. `metadata` are the inputs and outputs that it declares.
    """

    daemon_threads = True

    def __init__(self, estimator: Any, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.estimator = estimator
        self.metadata = {"inputs": [], "outputs": [], **(metadata or {})}
        self.faults: list[Any] = []
        self.change: Callable[[Any], Any] = lambda answer: answer
        self.samples = self.posts = 0
        self.seen: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        self.at: list[float] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def names(self, x: np.ndarray) -> list[str]:
        return [str(name) for name in self.estimator.predict(x)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    disable_nagle_algorithm = True  # head and body leave apart, and the second would wait 40 ms for an acknowledgement
    server: Served

    def log_message(self, *arguments: Any) -> None:
        del arguments

    def do_GET(self) -> None:
        self.answer(200, json.dumps({"name": "animals", "platform": "test", **self.server.metadata}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        server.posts += 1
        server.at.append(time.monotonic())
        server.seen.append({name.lower(): value for name, value in self.headers.items()})
        server.bodies.append(body)
        rows = rows_of(self.path, body)
        server.samples += len(rows)
        if server.faults:
            fault = server.faults.pop(0)
            if not isinstance(fault, int | float):
                self.answer(*fault)
                return
            time.sleep(fault)
        if {item["name"] for item in body.get("outputs", [])} - {"predict", "predict_proba"}:
            self.answer(400, b'{"error": "no such output"}')
            return
        found = oip(server, body, rows) if self.path.endswith("/infer") else plain(server, rows)
        self.answer(200, json.dumps(server.change(found)).encode())

    def answer(self, status: int, *rest: Any) -> None:
        headers, content = rest if len(rest) == 2 else ({}, rest[0])
        with contextlib.suppress(ConnectionError):  # a client that did not wait
            self.send(status, headers, content)

    def send(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def rows_of(path: str, body: Any) -> np.ndarray:
    if path.endswith("/infer"):
        tensors = {item["name"]: np.array(item["data"]).reshape(item["shape"]) for item in body["inputs"]}
        if set(tensors) == set(MIXED.names):
            columns = [tensor[:, 0] for tensor in tensors.values()]
            return numbers([dict(zip(tensors, row, strict=True)) for row in zip(*columns, strict=True)])
        (only,) = tensors.values()
        return only
    samples = body.get("instances") or [body["sample"]]
    return numbers(samples) if isinstance(samples[0], dict) else np.array(samples, dtype=np.float64)


def numbers(records: list[dict[str, Any]]) -> np.ndarray:
    return np.array(
        [[KINDS.index(r["kind"]), float(r["age"]), 0.0 if r["size"] is None else float(r["size"])] for r in records]
    )


def oip(server: Served, body: Any, rows: np.ndarray) -> Any:
    asked = [item["name"] for item in body.get("outputs", [])] or ["predict"]
    outputs = []
    for name in asked:
        if name == "predict":
            outputs.append({"name": name, "shape": [len(rows), 1], "datatype": "BYTES", "data": server.names(rows)})
        else:
            scores = server.estimator.predict_proba(rows)
            outputs.append(
                {"name": name, "shape": list(scores.shape), "datatype": "FP64", "data": scores.ravel().tolist()}
            )
    return {"model_name": "animals", "outputs": outputs}


def plain(server: Served, rows: np.ndarray) -> Any:
    scores = server.estimator.predict_proba(rows)
    named = [dict(zip(map(str, server.estimator.classes_), map(float, row), strict=True)) for row in scores]
    answers = [{"label": name, "scores": by} for name, by in zip(server.names(rows), named, strict=True)]
    return {"predictions": answers}


def fitted(seed: int, width: int = 4) -> LogisticRegression:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(200, width))
    if width == 3:  # as the samples of `MIXED` are
        x = np.column_stack([rng.integers(0, 2, 200), rng.integers(0, 10, 200), x[:, 0]])
    centre = x - x.mean(axis=0)
    winner = (centre @ rng.normal(size=(width, 3))).argmax(axis=1)
    return LogisticRegression(C=10.0).fit(x, np.array(CLASSES)[winner])


def serving(estimator: Any, metadata: Mapping[str, Any] | None = None) -> Served:
    """A server that runs until the process ends or `stop` is called on it."""
    server = Served(estimator, metadata)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


@cache
def server_of(seed: int, width: int = 4) -> Served:
    return serving(fitted(seed, width), DECLARED if width == 3 else None)


DECLARED = {
    "inputs": [
        {"name": "kind", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "age", "datatype": "INT64", "shape": [-1, 1]},
        {"name": "size", "datatype": "FP64", "shape": [-1, 1]},
    ],
    "outputs": [{"name": "predict", "datatype": "BYTES", "shape": [-1, 1]}],
}


def asked(server: Served, *, schema: Schema = SCHEMA, **how: Any) -> Model:
    """The model behind a server, by the Open Inference Protocol unless `how` says otherwise."""
    path = "/v2/models/animals" if how.get("protocol", "oip") == "oip" else "/predict"
    endpoint = open_endpoint(Asking(server.address + path, authorised=True, **how))
    return wrap(endpoint, classes=CLASSES, schema=schema)


def expected(server: Served, x: np.ndarray) -> np.ndarray:
    return np.array([CLASSES.index(name) for name in server.names(x)])


def labels_only() -> dict[str, Any]:
    pytest.importorskip("httpx")
    server = server_of(0)
    return {
        "model": asked(server, batch=20),
        "x": X,
        "native_predict": lambda x: expected(server, x),
        "reopened": asked(server),
        "other": asked(server_of(1)),
        "refused": {
            "nobody who allowed it": lambda: open_endpoint(Asking(server.address)),
            "a written secret": lambda: asked(server, headers={"Authorization": "Bearer abc"}),
            "a URL with a password": lambda: open_endpoint(Asking("http://me:pw@127.0.0.1/", authorised=True)),
            "an output that is not there": lambda: asked(server, answer="nothing"),
            "text as scores": lambda: asked(server, outputs="scores"),
        },
    }


def scores() -> dict[str, Any]:
    pytest.importorskip("httpx")
    server = server_of(0)
    return {
        "model": asked(server, answer="predict_proba"),
        "x": X,
        "native_predict": lambda x: expected(server, x),
        "native_scores": server.estimator.predict_proba,
        "reopened": asked(server, answer="predict_proba"),
        "other": asked(server_of(1), answer="predict_proba"),
        "tolerance": 1e-12,
    }


def mixed_rows() -> np.ndarray:
    x = np.column_stack([RNG.integers(0, 2, 30), RNG.integers(0, 10, 30), RNG.uniform(-1, 1, 30)]).astype(np.float64)
    x[3, 2] = np.nan
    return x


def records() -> dict[str, Any]:
    pytest.importorskip("httpx")
    server = server_of(2, 3)
    how = {"protocol": "json", "request": '{"instances": "$records"}', "response": "predictions[*].scores"}
    return {
        "model": asked(server, schema=MIXED, **how),
        "x": mixed_rows(),
        "native_predict": lambda x: expected(server, np.nan_to_num(x)),
        "native_scores": lambda x: server.estimator.predict_proba(np.nan_to_num(x)),
        "reopened": asked(server, schema=MIXED, **how),
        "other": asked(server_of(3, 3), schema=MIXED, **how),
        "tolerance": 1e-12,
        "refused": {
            "a request without samples": lambda: asked(server, schema=MIXED, **{**how, "request": '{"instances": []}'}),
            "a request that is no JSON": lambda: asked(server, schema=MIXED, **{**how, "request": "{{ rows }}"}),
            "a path of another form": lambda: asked(server, schema=MIXED, **{**how, "response": "a[*].b[*]"}),
            "a path to nothing": lambda: asked(server, schema=MIXED, **{**how, "response": "predictions[*].id"}),
        },
    }


def columns() -> dict[str, Any]:
    pytest.importorskip("httpx")
    server = server_of(2, 3)
    x = np.nan_to_num(mixed_rows())
    return {
        "model": asked(server, schema=MIXED),
        "x": x,
        "native_predict": lambda x: expected(server, x),
        "reopened": asked(server, schema=MIXED),
        "refused": {"data without the declared columns": lambda: asked(server, schema=SCHEMA)},
    }


def one_by_one() -> dict[str, Any]:
    pytest.importorskip("httpx")
    server = server_of(0)
    how = {"protocol": "json", "request": '{"sample": "$row"}', "response": "predictions[0].label"}
    return {
        "model": asked(server, **how),
        "x": X[:20],
        "native_predict": lambda x: expected(server, x),
        "reopened": asked(server, **how),
    }


def cases() -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "labels as text, by the Open Inference Protocol": labels_only,
        "scores, by the Open Inference Protocol": scores,
        "a tensor for each column": columns,
        "records and scores by class name": records,
        "one sample a request": one_by_one,
    }
