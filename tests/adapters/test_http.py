"""A model behind a real server on loopback: what is sent, how often, and what is made of what comes back."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import socket
import threading
import time
import traceback
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.conforming.http_ import CLASSES, SCHEMA, asked, expected, fitted, serving

from casemate import cli
from casemate._audit import Order, Place, run
from casemate.adapters import http, wrap
from casemate.adapters.http import Asking, open_endpoint
from casemate.adapters.oip import open_inference
from casemate.adapters.sending import Sender, Sending
from casemate.adapters.templates import template_of
from casemate.adapters.values import as_answers, as_labels, meaning_of
from casemate.config import case_of, load
from casemate.core.budget import Budget
from casemate.core.case import Case
from casemate.core.data import Data, Splits, texts
from casemate.core.facets import DataKind, Profile
from casemate.core.schema import Feature, Schema
from casemate.errors import BudgetExhausted, CasemateError, ConfigError, ModelError, UsageError
from casemate.store.queries import sent_before

pytest.importorskip("httpx")

X = np.random.default_rng(1).uniform(-1, 1, size=(60, 4))
SECRET = "s3cr3t-token-of-ours-that-is-longer-than-any-message-shows-of-a-label"
JSON = {"protocol": "json", "request": '{"instances": "$rows"}', "response": "predictions[*].label"}


@pytest.fixture
def server():
    made = serving(fitted(0))
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("casemate.adapters.sending._FIRST_WAIT", 0.005)


def case_behind(server, **how):
    y = expected(server, X)
    return Case(model=asked(server, **how), splits=Splits(test=Data(X, SCHEMA, y)))


# ---------------------------------------------------------------------------------------------------------- the budget


@pytest.mark.parametrize("limit", [64, 300, 1500])
def test_an_audit_never_sends_more_than_its_budget_whatever_fails_on_the_way(server, limit):
    server.faults = [(503, b"later") if i % 7 == 3 else 0 for i in range(400)]
    case = case_behind(server, sending=Sending(queries=limit))
    report = run(case, Order(profile=Profile.QUICK, budget=Budget(propagations=limit)))
    told = case.the_model().estimator.closing()
    assert f"{server.samples:,} queries of {limit:,} allowed" in told[-1]
    assert limit * 0.4 < server.samples <= limit
    assert report.ruling.exit_code != 0
    assert any(o.plugin == "evasion/standard" for o in report.untested)


def test_every_try_that_reached_the_server_is_a_query(server):
    model = asked(server, sending=Sending(queries=200))
    assert server.samples == 32
    server.faults = [(503, b""), (429, {"retry-after": "0"}, b""), (502, b""), (504, b"")]
    assert np.array_equal(model.labels(X[:10]), expected(server, X[:10]))
    assert server.samples == 32 + 5 * 10
    told = model.estimator.closing()[-1]
    assert (server.samples, "114 queries of 200 allowed" in told, "40 of them" in told) == (114, True, True)


def test_a_batch_that_does_not_fit_the_budget_is_not_sent(server):
    model = asked(server, sending=Sending(queries=100))
    with pytest.raises(BudgetExhausted, match="37 more queries to fit the 100"):
        model.labels(X[:37])  # 32 for the fingerprint, and 32 kept for its second taking
    assert server.samples == 32
    model.labels(X[:36])
    model.estimator.closing()
    assert server.samples == 100


def test_what_it_costs_is_said(server):
    model = asked(server, cost_per_query=0.5)
    model.labels(X[:6])
    assert "At 0.5 each they cost 35.00." in model.estimator.closing()[-1]


def test_what_was_sent_before_an_interruption_counts(server, tmp_path):
    """A resumed audit had a budget of its own, so that both together sent up to twice what was allowed."""
    order = Order(profile=Profile.QUICK, budget=Budget(propagations=300), only=("evasion/standard",))
    place = Place(tmp_path / "r", str(tmp_path / "s"))

    def stop(name, done, total):
        if server.samples > 120:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(case_behind(server, sending=Sending(queries=300)), order, place, on_progress=stop)
    sent = server.samples
    assert 120 < sent <= 300 - 32
    assert sent_before(place.store, "last", place.output) == sent
    case = case_behind(server, sending=Sending(queries=300), sent_before=sent)
    report = run(case, order, replace(place, resume="last"))
    assert sent < server.samples <= 300
    told = report.notes[-1]
    assert f"{server.samples:,} queries of 300 allowed were sent to the endpoint for this audit" in told
    assert f"{sent} of them before the audit was interrupted" in told
    assert sent_before(place.store, "last", place.output) == server.samples
    with pytest.raises(BudgetExhausted, match="32 more queries to fit the 300"):
        case_behind(server, sending=Sending(queries=300), sent_before=290)


# ------------------------------------------------------------------------------------------------- failures of a server


def test_it_waits_as_long_as_the_server_asks(server):
    model = asked(server)
    server.faults = [(429, {"retry-after": "1"}, b"")]
    start = time.monotonic()
    model.labels(X[:2])
    assert 1.0 <= time.monotonic() - start < 4.0


def test_it_gives_up_once_and_for_all(server):
    model = asked(server, sending=Sending(tries=3))
    server.faults = [(503, b'{"error": "warming up"}')] * 9
    with pytest.raises(ModelError, match=r"within 3 tries .* HTTP 503 \(warming up\) at try 3"):
        model.labels(X[:2])
    posts = server.posts
    with pytest.raises(ModelError, match="within 3 tries"):
        model.labels(X[:2])
    assert server.posts == posts


def test_a_wait_beyond_all_patience_is_not_begun(server):
    model = asked(server)
    server.faults = [(429, {"retry-after": "86400"}, b"")]
    with pytest.raises(ModelError, match="HTTP 429 at try 1"):
        model.labels(X[:2])


def test_no_connection_costs_no_query():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    endpoint = open_endpoint(Asking(address, **JSON, sending=Sending(tries=3, queries=40), authorised=True))
    with pytest.raises(ModelError, match=r"no connection .* at try 3"):
        wrap(endpoint, classes=CLASSES, schema=SCHEMA)
    assert (endpoint.sender.queries, endpoint.sender.repeated, endpoint.sender.requests) == (0, 0, 3)


def test_a_slow_answer_is_asked_for_again_and_charged_again(server):
    model = asked(server, sending=Sending(timeout=0.3))
    server.faults = [0.8]
    assert np.array_equal(model.labels(X[:5]), expected(server, X[:5]))
    assert server.samples == 32 + 10


def test_what_a_server_says_of_a_fault_is_cut_and_cleaned(server, monkeypatch):
    monkeypatch.setenv("OUR_TOKEN", f"Bearer {SECRET}")
    model = asked(server, headers={"Authorization": "env:OUR_TOKEN"})
    said = f"no \x1b[31m{SECRET}\r\n" + "x" * 5000
    server.faults = [(422, json.dumps({"detail": said}).encode())]
    with pytest.raises(ModelError) as caught:
        model.labels(X[:2])
    assert server.posts == 2  # a refusal is not tried again
    assert str(caught.value).startswith(
        f"expected an answer from {server.address}/v2/models/animals, got HTTP 422 (no "
    )
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    shown = io.StringIO()
    traceback.print_exception(caught.value, file=shown)
    assert server.seen[-1]["authorization"] == f"Bearer {SECRET}"
    assert SECRET[:12] not in shown.getvalue() + repr(model) + repr(model.estimator)


def test_no_redirect_is_followed(server):
    other = serving(fitted(1))
    model = asked(server)
    server.faults = [(307, {"location": f"{other.address}/v2/models/animals/infer"}, b"")]
    with pytest.raises(ModelError, match="HTTP 307: name the URL it leads to"):
        model.labels(X[:2])
    assert other.posts == 0
    other.shutdown()
    other.server_close()


def test_requests_keep_their_pace(server):
    model = asked(server, batch=1, sending=Sending(requests_per_second=50.0))
    server.at.clear()
    model.labels(X[:12])
    gaps = np.diff(server.at)
    assert len(gaps) == 11
    assert server.at[-1] - server.at[0] >= 11 * 0.02 - 0.01


def answered(raw, monkeypatch, *, every=None):
    """What a sender makes of raw bytes; with `every`, one byte of them each so many seconds, for ever the last."""
    monkeypatch.setenv("OUR_TOKEN", f"Bearer {AWKWARD}")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(65536)
                        connection.sendall(raw)
                        while every is not None:
                            time.sleep(every)
                            connection.sendall(raw[-1:])

        threading.Thread(target=serve, daemon=True).start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        sender = Sender(address, Sending(timeout=0.4, tries=2), {"Authorization": "env:OUR_TOKEN"})
        return sender.ask("", [], 1)


def response(body, *headers):
    return "\r\n".join(["HTTP/1.1 200 OK", f"content-length: {len(body)}", *headers, "", ""]).encode() + body


AWKWARD = 'tok/en"of\\ours-0123456789'
ESCAPED = json.dumps(AWKWARD).replace("/", "\\/").replace("o", "\\u006F").encode()
BOMB = gzip.compress(bytes(65 << 20))


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nx: a", b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n1"])
def test_a_server_that_dribbles_holds_nobody(head, monkeypatch):
    """A byte now and then came in time each; the header of such an answer would have lasted for weeks."""
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"got no answer within 0\.4 s at try 2"):
        answered(head, monkeypatch, every=0.1)
    assert time.monotonic() - began < 5


def test_a_packed_answer_is_unpacked_no_further_than_allowed(monkeypatch):
    """An answer packed twice became gigabytes before anybody counted."""
    assert answered(response(gzip.compress(b"[1]"), "content-encoding: gzip"), monkeypatch) == [1]
    for body, packing, words in (
        (BOMB, "gzip", "an answer under 64 MB"),
        (gzip.compress(BOMB), "gzip, gzip", "plain or in gzip, got gzip, gzip"),
        (b"[1]", "gzip", "in gzip as its header says"),
    ):
        with pytest.raises(ModelError, match=words):
            answered(response(body, f"content-encoding: {packing}"), monkeypatch)


def test_a_secret_comes_back_in_no_disguise(monkeypatch):
    """It came back in JSON's escapes, and in what the client complained of."""
    assert answered(response(b"[" + ESCAPED + b"]"), monkeypatch) == ["***"]
    for raw in (f"{AWKWARD}\r\n\r\n".encode(), f"HTTP/1.1 200 OK\r\n{AWKWARD}\r\n\r\n".encode()):
        with pytest.raises(ModelError, match="illegal") as caught:
            answered(raw, monkeypatch)
        assert "0123456789" not in "".join(traceback.format_exception(caught.value))


OUTPUT = {"name": "predict", "datatype": "INT64", "shape": [2, 1], "data": [0, 1]}
MALFORMED = {
    "no JSON": (b"<html>hello</html>", "JSON from the endpoint"),
    "nested without end": (b"[" * 100_000, "JSON from the endpoint"),
    "NaN": (
        b'{"outputs": [{"name": "predict", "datatype": "FP64", "shape": [2], "data": [NaN, 1]}]}',
        "NaN is no JSON",
    ),
    "a list": (b"[]", "outputs in the answer"),
    "no outputs": ({"outputs": []}, "expected one output, got none"),
    "two outputs": ({"outputs": [OUTPUT, {**OUTPUT, "name": "b"}]}, "got predict, b: name one"),
    "another count": ({"outputs": [{**OUTPUT, "shape": [3, 1], "data": [0, 1, 2]}]}, "an output for 2 samples"),
    "a shape that lies": ({"outputs": [{**OUTPUT, "data": [0, 1, 2]}]}, "2 values as the output's shape says, got 3"),
    "no numbers": ({"outputs": [{**OUTPUT, "data": [None, 1]}]}, "labels or numbers, got None"),
    "an infinity": ({"outputs": [{**OUTPUT, "data": [10**400, 1.5]}]}, "finite numbers"),
    "an unknown label": ({"outputs": [{**OUTPUT, "datatype": "BYTES", "data": ["cat", "cow"]}]}, "got 'cow'"),
    "an unknown index": ({"outputs": [OUTPUT | {"data": [0, 3]}]}, "labels among 0, 1, 2, got '3'"),
    "columns for labels": ({"outputs": [{**OUTPUT, "shape": [2, 2], "data": [0, 1, 1, 0]}]}, "got 2 columns"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_an_answer_of_another_form_is_an_error_in_words(server, name):
    body, complaint = MALFORMED[name]
    model = asked(server, outputs="labels")
    server.faults = [(200, body if isinstance(body, bytes) else json.dumps(body).encode())]
    with pytest.raises(ModelError, match=complaint) as caught:
        model.labels(X[:2])
    assert "expected" in str(caught.value)
    assert str(caught.value).isprintable()


def test_scores_are_held_to_be_probabilities_of_each_class(server):
    model = asked(server, answer="predict_proba", outputs="scores")
    server.change = lambda answer: json.loads(json.dumps(answer).replace("0.", "7."))
    with pytest.raises(ModelError, match="probabilities from 0 to 1"):
        model.scores(X[:3])
    server.change = lambda answer: {"outputs": [{"name": "predict_proba", "shape": [3, 2], "data": [0.5] * 6}]}
    with pytest.raises(ModelError, match=r"scores of shape \(3, 3\), got \(3, 2\)"):
        model.scores(X[:3])


def test_a_model_that_is_replaced_during_the_audit_is_told(server):
    model = asked(server)
    assert "the same when the audit began and when it ended" in model.estimator.closing()[1]
    changed = int((fitted(1).predict(http._made_up(SCHEMA)) != fitted(0).predict(http._made_up(SCHEMA))).sum())
    server.estimator = fitted(1)
    assert changed
    assert f"{changed} of them had changed" in model.estimator.closing()[1]
    server.faults = [(404, b"gone")]
    assert "could not be taken again" in model.estimator.closing()[1]


# ----------------------------------------------------------------------------------------------- samples and their form


def test_numbers_go_as_the_declared_datatype_and_shape():
    schema = Schema(DataKind.IMAGE, (1, 2, 2), (Feature("pixel", lo=0.0, hi=1.0),))
    x = np.random.default_rng(0).random((3, 1, 2, 2)).astype(np.float32)
    codec = open_inference(
        {"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}, schema, None, None
    )
    (tensor,) = codec.body(x)["inputs"]
    assert (tensor["shape"], tensor["datatype"]) == ([3, 4], "FP32")
    assert np.array_equal(np.array(tensor["data"], dtype=np.float32), x.reshape(-1))
    with pytest.raises(ModelError, match="that FP32 of the input x can hold"):
        codec.body(x.astype(np.float64) * 1e300)
    whole = open_inference(
        {"name": "m", "inputs": [{"name": "x", "datatype": "INT32", "shape": [-1, 4]}]}, schema, None, None
    )
    with pytest.raises(ModelError, match="whole numbers for the INT32 input"):
        whole.body(x)


def test_texts_go_as_bytes_and_as_json():
    schema = Schema(DataKind.TEXT, ())
    x = texts(["buy now", "grüße"])
    (tensor,) = open_inference({"name": "m"}, schema, None, None).body(x)["inputs"]
    assert tensor == {"name": "input-0", "shape": [2, 1], "datatype": "BYTES", "data": ["buy now", "grüße"]}
    template = template_of('{"a": [{"text": "$row"}], "top": 1}', "[0].label", schema, ("ham", "spam"))
    assert template.body(x[1:]) == {"a": [{"text": "grüße"}], "top": 1}
    assert template.answers([{"label": "spam"}], 1).tolist() == ["spam"]
    assert http._made_up(schema).shape == (32,)


@pytest.mark.parametrize("path", ["a..b", "a[", "a[*].b[*]", "a b]", "[x]", ".", "a.[0]x]"])
def test_a_path_of_another_form_is_refused(path):
    with pytest.raises(ConfigError, match=r"\[number\]"):
        template_of('["$rows"]', path, SCHEMA, ())


@given(
    st.lists(st.sampled_from(["1", "2", "10", "cat", "0"]), min_size=2, max_size=4, unique=True),
    st.lists(st.integers(-1, 11), min_size=1, max_size=6),
    st.integers(1, 5),
)
def test_a_label_means_the_same_in_every_batch(classes, labels, cut):
    def read(part):
        try:
            return as_labels(as_answers(part, len(part)), classes).tolist() if part else []
        except ModelError:
            return None

    parts = [read(labels[:cut]), read(labels[cut:])]
    assert read(labels) == (None if None in parts else parts[0] + parts[1])


def test_a_label_beyond_all_classes_costs_no_memory():
    assert as_labels(np.array([999_999_999, 0]), ()).tolist() == [999_999_999, 0]
    with pytest.raises(ModelError, match="expected labels among"):
        as_labels(np.array([10**15, 0]), ())


@settings(max_examples=30)
@given(st.integers(2, 5), st.integers(1, 6), st.integers(0, 99))
def test_undeclared_answers_are_taken_for_no_more_than_they_are(k, n, seed):
    raw = np.random.default_rng(seed).normal(size=(n, k)) * 3 - 4
    e = np.exp(raw)
    assert meaning_of(e / e.sum(axis=1, keepdims=True)) == "scores"
    assert meaning_of(raw - raw.max() - 0.5) == "logits"
    assert meaning_of(raw.argmax(axis=1)) == meaning_of(raw.argmax(axis=1)[:, None].astype(float)) == "labels"
    for doubtful in (np.full((n, k), 0.9), np.full((n, 1), 0.3)):
        with pytest.raises(ModelError, match="say outputs"):
            meaning_of(doubtful)


# ------------------------------------------------------------------------------------------ casemate.toml, command line


@pytest.fixture
def at(server, tmp_path, monkeypatch):
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(4)])
    frame["animal"] = server.names(X)
    frame.to_csv(tmp_path / "test.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(at, server, more=""):
    (at / "casemate.toml").write_text(
        f'[model]\nurl = "{server.address}/v2/models/animals"\nclasses = ["cat", "dog", "owl"]\n{more}\n'
        '[data]\ntest = "test.csv"\ntarget = "animal"\n[audit]\nprofile = "quick"\nbudget = 400\n'
    )
    return at / "casemate.toml"


def test_a_url_is_audited_only_by_who_says_that_it_may_be(server, at, capsys):
    written(at, server)
    code = cli.run(["audit", "--only", "evasion/standard"])
    assert (code, server.posts) == (2, 0)
    assert "--i-am-authorised" in capsys.readouterr().err
    code = cli.run(["audit", "--only", "evasion/standard", "--i-am-authorised"])
    assert code in (1, 3)
    assert 0 < server.samples <= 400
    server.samples = 0
    cli.run(["audit", "--only", "evasion/standard", "--i-am-authorised", "--budget", "120", "-o", "other"])
    assert 0 < server.samples <= 120


def test_a_json_endpoint_of_the_settings(server, at):
    form = 'protocol = "json"\nrequest = \'{"instances": "$rows"}\'\nresponse = "predictions[*].label"\nbatch = 7\n'
    file = written(at, server, form)
    file.write_text(file.read_text().replace("/v2/models/animals", "/predict"))
    model = case_of(load(file, authorised=True)).the_model()
    assert np.array_equal(model.labels(X), expected(server, X))
    assert max(len(body["instances"]) for body in server.bodies) == 7


REFUSED = {
    "a secret in the header": (f'headers = {{ Authorization = "Bearer {SECRET}" }}', "in the environment"),
    "a number in the header": ("headers = { Authorization = 12345678901234 }", "in the environment"),
    "a header that is no table": (f'headers = "Authorization: {SECRET}"', "expected a table as model.headers"),
    "a variable that is not set": ('headers = { Authorization = "env:NOBODY_SETS_THIS" }', "got nothing: set it"),
    "a header of our own": ('headers = { Host = "env:HOME" }', "the name of a header to add"),
    "a path beside": ('path = "model.skops"', "expected model.url alone"),
    "a path without request": ('protocol = "json"', "expected model.request"),
    "a template for the other protocol": ('request = "[]"', "no model.request for protocol = 'oip'"),
    "a pace of nothing": ("requests_per_second = 0", "requests_per_second"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_do_not_fit_are_refused_without_repeating_a_secret(server, at, name):
    more, complaint = REFUSED[name]
    with pytest.raises(CasemateError, match=complaint) as caught:
        case_of(load(written(at, server, more), authorised=True))
    assert SECRET not in str(caught.value)
    assert "12345678901234" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [f"http://me:{SECRET}@127.0.0.1/", f"https://host/?key={SECRET}", "ftp://host/x", "host/x", "http://[::1", ""],
)
def test_a_url_of_another_form_is_refused_without_repeating_it(url):
    with pytest.raises(ConfigError, match=r"expected model\.url") as caught:
        open_endpoint(Asking(url, authorised=True))
    assert SECRET not in str(caught.value)


def test_keys_of_an_endpoint_without_one_are_refused(at):
    (at / "casemate.toml").write_text('[model]\ntries = 3\n[data]\ntest = "test.csv"\ntarget = "animal"\n')
    with pytest.raises(ConfigError, match=r"expected model\.url beside model\.tries"):
        case_of(load("casemate.toml"))


def test_an_endpoint_with_limits_stays_in_its_process(server):
    import cloudpickle

    with pytest.raises(ModelError, match="executor = 'inline'"):
        cloudpickle.dumps(asked(server, sending=Sending(queries=100)))
    model = asked(server)
    cloudpickle.dumps(model)
    assert "What other processes sent is not in these numbers." in model.estimator.closing()[-1]


def test_a_secret_that_comes_back_as_a_label_is_not_repeated(server, monkeypatch):
    monkeypatch.setenv("OUR_TOKEN", SECRET)
    model = asked(server, headers={"X-Key": "env:OUR_TOKEN"})
    for data in ([SECRET, "cat"], [SECRET, 1]):
        server.change = lambda answer, data=data: {"outputs": [{"name": "predict", "shape": [2], "data": data}]}
        with pytest.raises(ModelError, match="expected labels") as caught:
            model.labels(X[:2])
        assert SECRET[:12] not in "".join(traceback.format_exception(caught.value))


def test_secrets_do_not_travel(server, monkeypatch):
    import cloudpickle

    monkeypatch.setenv("OUR_TOKEN", SECRET)
    model = asked(server, headers={"X-Key": "env:OUR_TOKEN"})
    assert SECRET.encode() not in cloudpickle.dumps(model)
    with pytest.raises(UsageError, match="may be attacked"):
        open_endpoint(Asking(server.address))
