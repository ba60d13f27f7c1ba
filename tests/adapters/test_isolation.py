"""Isolated models: the same answers through the walls, and hostile pickles that get nowhere behind them.

The hostile ones are inert: what they try is to write into a folder of this test, to read a file of this test, to reach
a port that this test listens on. The same pickle is shown to do it without walls, so that no test passes because a
payload is broken.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from casemate.adapters import confined, confinement, isolation, wrap
from casemate.adapters.data import from_arrays
from casemate.adapters.isolation import Isolated, Room
from casemate.adapters.loading import Declared, load_model
from casemate.adapters.verdicts import hold
from casemate.core.facets import Facet
from casemate.errors import ModelError, Unavailable
from casemate.formats.scanning.signs import Level

X = np.random.default_rng(0).normal(size=(60, 4))
Y = (X[:, 0] > 0).astype(int)
TRUSTED = Declared(isolate=True, trust=True)

# Runs whole inside one `exec`: tries each thing, and keeps what came of it where a model's answer can carry it out.
HOSTILE = """
import ctypes, json, os, signal, socket, subprocess, sys, time, types
given = json.loads({given!r})
done = {{}}

def attempt(name):
    def run(function):
        try:
            done[name] = str(function())
        except BaseException as error:
            done[name] = ""
    return run

@attempt("write")
def _():
    with open(given["folder"] + "/written", "w") as file:
        file.write("x")
    return "written"

@attempt("write here")
def _():
    for place in ("/tmp", "/model", "/dev", os.getcwd(), sys.prefix, "/"):
        try:
            with open(place + "/casemate-was-here", "w") as file:
                file.write("x")
        except OSError:
            continue
        os.unlink(place + "/casemate-was-here")
        return place
    raise OSError

@attempt("delete")
def _():
    os.unlink(given["spare"])
    return "deleted"

@attempt("read")
def _():
    return open(given["secret"]).read()

@attempt("environment")
def _():
    if given["word"] not in str(os.environ):
        raise KeyError
    return given["word"]

@attempt("parent's environment")
def _():
    for number in [os.getppid(), *range(1, 5)]:
        try:
            if given["word"] in open(f"/proc/{{number}}/environ").read():
                return given["word"]
        except OSError:
            pass
    raise OSError

@attempt("connect")
def _():
    with socket.create_connection(("127.0.0.1", given["port"]), timeout=2) as line:
        line.sendall(b"x")
    return "connected"

@attempt("listen")
def _():
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
    return "listening"

@attempt("unix socket")
def _():
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(given["unix"])
    return "connected"

@attempt("fork")
def _():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return "forked"

@attempt("start")
def _():
    return subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout

@attempt("replace itself")
def _():
    if given["walls"]:
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"])
    return "would"

@attempt("signal")
def _():
    os.kill(given["victim"], signal.SIGTERM)
    return "sent"

@attempt("look into")
def _():
    if ctypes.CDLL(None).ptrace(16, given["victim"], None, None):
        raise OSError
    return "attached"

@attempt("mount")
def _():
    if ctypes.CDLL(None).unshare(0x10020000):
        raise OSError
    return "own namespaces"

@attempt("inherit")
def _():
    for number in range(3, 256):
        try:
            if given["folder"] in os.readlink(f"/proc/self/fd/{{number}}"):
                return "a file"
        except OSError:
            pass
    raise OSError

model = types.SimpleNamespace(classes_=[0, 1])

class Teller:
    classes_ = __import__("numpy").array([json.dumps(done), "other"], dtype=object)
    n_features_in_ = 4
    def predict(self, x):
        return [self.classes_[0]] * len(x)

import builtins
builtins._casemate_teller = Teller()
"""


class _Exec:
    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code, {"__name__": "hostile"})


class _Get:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("__import__('builtins')._casemate_teller",)


def hostile(code: str) -> bytes:
    """A pickle that runs a text of Python and becomes what it left, and that needs no module of these tests."""
    run, get = pickle.dumps(_Exec(code), protocol=2)[2:-1], pickle.dumps(_Get(), protocol=2)[2:]
    return b"\x80\x02" + run + b"0" + get


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What a hostile model would like to reach; all of it belongs to this test."""
    (tmp_path / "secret").write_text("the secret")
    (tmp_path / "spare").write_text("")
    monkeypatch.setenv("CASEMATE_TEST_WORD", "a-word-of-this-test")
    with (
        socket.create_server(("127.0.0.1", 0)) as line,
        socket.socket(socket.AF_UNIX) as local,
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as victim,
    ):
        local.bind(str(tmp_path / "line"))
        local.listen()
        yield {
            "folder": str(tmp_path), "secret": str(tmp_path / "secret"), "spare": str(tmp_path / "spare"),
            "word": "a-word-of-this-test", "port": line.getsockname()[1], "unix": str(tmp_path / "line"),
            "victim": victim.pid, "walls": True,
        }  # fmt: skip
        assert victim.poll() in (None, -signal.SIGTERM)
        victim.kill()


def told(model: Isolated) -> dict[str, str]:
    assert model.classes_ is not None
    return dict(json.loads(model.classes_[0]))


def test_a_hostile_pickle_reaches_nothing_from_behind_the_walls(given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(hostile(HOSTILE.format(given=json.dumps(given))))
    assert hold(tmp_path / "m.pkl").scanned.level is Level.MALICIOUS
    model = load_model(tmp_path / "m.pkl", TRUSTED)
    done = told(model)
    assert len(done) == 16
    assert {name: what for name, what in done.items() if what} == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["line", "m.pkl", "secret", "spare"]
    model.room.close()


def test_the_same_pickle_reaches_all_of_it_without_walls(given: dict[str, Any], tmp_path: Path) -> None:
    given["walls"] = False
    (tmp_path / "m.pkl").write_bytes(hostile(HOSTILE.format(given=json.dumps(given))))
    program = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).classes_[0])"
    run = [sys.executable, "-c", program, str(tmp_path / "m.pkl")]
    done = json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    nothing = {name for name, what in done.items() if not what}
    # Some systems forbid these to anybody.
    assert nothing <= {"look into", "mount", "inherit", "parent's environment"}, done
    assert done["read"] == "the secret"
    assert (tmp_path / "written").exists()


def test_a_malicious_file_is_not_even_isolated_and_a_suspicious_one_is(tmp_path: Path) -> None:
    (tmp_path / "bad.pkl").write_bytes(hostile("raise SystemExit"))
    with pytest.raises(ModelError, match=r"malicious \(.*builtin__.exec.*--trust"):
        load_model(tmp_path / "bad.pkl", Declared(isolate=True))
    (tmp_path / "own.py").write_text(
        "import numpy\nclass Model:\n    classes_ = numpy.array(['no', 'yes'])\n"
        "    def predict(self, x):\n        return [self.classes_[int(r[0] > 0)] for r in x]\n"
        "    def get_params(self, deep=True):\n        return {}\n"
    )
    (tmp_path / "secret").write_text("x")
    code = b"\x80\x02cown\nModel\n)\x81."
    (tmp_path / "m.pkl").write_bytes(code)
    assert hold(tmp_path / "m.pkl").scanned.level is Level.SUSPICIOUS
    with pytest.raises(ModelError, match=r"suspicious \(.*own.Model.*--isolate.*--trust"):
        load_model(tmp_path / "m.pkl", Declared())
    (tmp_path / "linked").symlink_to(tmp_path)
    declared = Declared(isolate=True, folder=tmp_path / "linked")
    native = load_model(tmp_path / "m.pkl", declared)
    assert declared.notes == {"scan": "suspicious; loaded in isolation"}
    assert "own" not in sys.modules
    model = wrap(native, classes=("no", "yes"))
    np.testing.assert_array_equal(model.labels(X), X[:, 0] > 0)
    assert model.offers == {Facet.LABELS}
    native.room.close()


def test_an_isolated_forest_answers_as_it_does_outside_and_again_in_another_process(tmp_path: Path) -> None:
    estimator = RandomForestClassifier(5, random_state=0).fit(X, np.array(["no", "yes"])[Y])
    joblib.dump(estimator, tmp_path / "m.joblib", compress=3)
    native = load_model(tmp_path / "m.joblib", Declared(isolate=True))
    assert (native.classes_, native.n_features_in_) == (("no", "yes"), 4)
    schema = from_arrays(X, Y, classes=("yes", "no")).schema
    turned, model = wrap(native, classes=("yes", "no"), schema=schema), wrap(native)
    assert model.scores is not None
    np.testing.assert_array_equal(model.labels(X), estimator.predict(X) == "yes")
    np.testing.assert_array_equal(turned.labels(X), estimator.predict(X) == "no")
    np.testing.assert_array_equal(model.scores(X), estimator.predict_proba(X))
    assert model.labels(X[:0]).shape == (0,)
    assert model.offers == {Facet.LABELS, Facet.SCORES}
    assert model.digest == wrap(native).digest != turned.digest
    native.room.close()
    sent = cloudpickle.loads(cloudpickle.dumps(turned))
    np.testing.assert_array_equal(sent.labels(X), estimator.predict(X) == "no")
    sent.labels.__self__.room.close()


def test_a_whole_torch_module_and_weights_with_a_factory_are_isolated(tmp_path: Path) -> None:
    import torch

    (tmp_path / "net.py").write_text(
        "import torch\ndef build():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))\n"
    )
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    torch.save(module.state_dict(), tmp_path / "m.pt")
    native = load_model(tmp_path / "m.pt", Declared("net:build", isolate=True, folder=tmp_path))
    x = X.astype(np.float32)
    model = wrap(native, schema=from_arrays(x, np.arange(60) % 3).schema)
    np.testing.assert_array_equal(model.labels(x), module(torch.tensor(x)).argmax(1).numpy())
    native.room.close()


TELLER = """
import builtins, json, os, time, numpy
def forge(number, data):
    try:
        os.write(number, data)
    except OSError:
        pass

class Teller:
    classes_ = numpy.array(["no", "yes"])
    n_features_in_ = 4
    def get_params(self, deep=True):
        return {{}}
    def predict(self, x):
        {body}
builtins._casemate_teller = Teller()
"""


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("os._exit(3)", "the end of its process"),
        (f"[forge(n, {bytes([255] * 64)!r}) for n in range(3, 9)]", "more than 1024 MiB"),
        ("[forge(n, b'CASEMATE-NO-WALLS but lies') for n in range(3, 9)]", "more than 1024 MiB"),
        (f"[forge(n, {bytes([9] + 16 * [0])!r}) for n in range(3, 9)]", "(a container|more bytes than one answer)"),
    ],
)
def test_an_isolated_model_that_fails_is_one_clear_error(body: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(hostile(TELLER.format(body=body)))
    room = Room(hold(tmp_path / "m.pkl"), TRUSTED, patience=60)
    with pytest.raises((ModelError, Unavailable), match=rf"(?s)^expected .*, got .*{says}.*: "):
        wrap(Isolated(room)).labels(X)
    room.close()


def test_a_fault_of_the_model_itself_is_told_and_leaves_it_alive(tmp_path: Path) -> None:
    body = (
        "return ['yes'] * len(x) if x[0][0] < 1 else ['maybe'] if x[0][0] < 2 else numpy.zeros(1 << int(20 * x[0][0]))"
    )
    (tmp_path / "m.pkl").write_bytes(hostile(TELLER.format(body=body)))
    room = Room(hold(tmp_path / "m.pkl"), TRUSTED, patience=60)
    model = wrap(Isolated(room))
    for first, says in ((1, "classes_, got others"), (2, "more memory than"), (5, "dimension exceeded")):
        with pytest.raises(ModelError, match=rf"expected .*{says}.*: "):
            model.labels(np.full((2, 4), first))
        np.testing.assert_array_equal(model.labels(np.zeros((2, 4))), [1, 1])
    room.close()


def test_its_process_ends_with_it_however_it_ends(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(hostile(TELLER.format(body="time.sleep(60)")))
    room = Room(hold(tmp_path / "m.pkl"), TRUSTED, patience=30)
    room.patience = 0.5
    assert room._started is not None
    guard = room._started._inner
    inside = Path(f"/proc/{guard.pid}/task/{guard.pid}/children").read_text().split()
    assert len(inside) == 1
    with pytest.raises(ModelError, match="no answer within"):
        wrap(Isolated(room)).labels(X)
    assert guard.poll() is not None
    assert not Path(f"/proc/{inside[0]}").exists()
    with pytest.raises(ModelError, match="ended before"):
        room.ask("labels", 0, X)


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        ("{'classes': ['a', 'a']}", "different names of classes"),
        ("{'classes': ['a', 'b'], 'task': 'regression'}", "2 classes .*, got a regression"),
        ("{'error': 'expected x, got y: run this', 'kind': 'CasemateError'}", "in its own words: .*run this"),
    ],
)
def test_what_a_model_says_of_itself_is_held_to_its_form_and_told_as_its_own(
    lie: str, says: str, tmp_path: Path
) -> None:
    """Its code shares the process that answers, and can answer in its place."""
    code = f"from casemate.adapters import isolated\nisolated._Host.wrapped = lambda host, asked: {lie}\n"
    (tmp_path / "m.pkl").write_bytes(hostile(code + TELLER.format(body="return ['yes'] * len(x)")))
    room = Room(hold(tmp_path / "m.pkl"), TRUSTED, patience=60)
    with pytest.raises(ModelError, match=f"^expected .*{says}.*: "):
        wrap(Isolated(room), classes=("a", "b"))
    room.close()


def test_a_signal_to_its_own_group_does_not_reach_whoever_started_it(tmp_path: Path) -> None:
    """Namespaces do not hold `kill(0, ...)`, which ended the audit and all that shared its group."""
    (tmp_path / "m.pkl").write_bytes(hostile(TELLER.format(body="os.kill(0, 15); return ['yes'] * len(x)")))
    program = (
        "import sys; from pathlib import Path; from casemate.adapters import wrap; import numpy\n"
        "from casemate.adapters.loading import *\n"
        "n = load_model(Path(sys.argv[1]), Declared(isolate=True, trust=True))\n"
        "print(wrap(n).labels(numpy.zeros((2, 4))))"
    )
    run = [sys.executable, "-c", program, str(tmp_path / "m.pkl")]
    done = subprocess.run(run, capture_output=True, text=True, start_new_session=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[1 1]\n"), done.stderr


def test_a_process_whose_owner_is_killed_does_not_outlive_it(tmp_path: Path) -> None:
    joblib.dump(LogisticRegression().fit(X, Y), tmp_path / "m.joblib")
    program = (
        "import sys, time; from pathlib import Path; from casemate.adapters.loading import *\n"
        "n = load_model(Path(sys.argv[1]), Declared(isolate=True)); print(n.room._started._inner.pid, flush=True)\n"
        "time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "m.joblib")], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    guard = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    until = time.monotonic() + 10
    while _runs(guard) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _runs(guard)


def _runs(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_where_namespaces_are_missing_it_refuses_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real script under a filter that refuses `unshare`, as containers have it."""
    joblib.dump(LogisticRegression().fit(X, Y), tmp_path / "m.joblib")
    script = tmp_path / "walls.py"
    script.write_text(
        "import ctypes, os, struct, sys\n"
        f"sys.path.insert(0, {str(Path(confinement.__file__).parent)!r})\n"
        "import confinement as walls\n"
        "sys.path.pop(0)\n"
        "number = 272 if os.uname().machine == 'x86_64' else 97\n"
        "code = [walls._op(0x20, 0), walls._op(0x15, number, 0, 1)]\n"
        "code += [walls._op(0x06, 0x00050001), walls._op(0x06, 0x7FFF0000)]\n"
        "program = ctypes.create_string_buffer(b''.join(code)); libc = ctypes.CDLL(None)\n"
        "libc.prctl(38, 1, 0, 0, 0)\n"
        "assert not libc.prctl(22, 2, ctypes.c_char_p(struct.pack('HxxxxxxP', 4, ctypes.addressof(program))), 0, 0)\n"
        "walls.main()\n"
    )
    monkeypatch.setattr(confinement, "__file__", str(script))
    with pytest.raises(
        Unavailable, match=r"isolate a process, got none that offers namespaces .*Operation not permitted"
    ):
        load_model(tmp_path / "m.joblib", Declared(isolate=True))


def test_a_folder_and_other_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="one model file for --isolate"):
        load_model(tmp_path, Declared(isolate=True))
    joblib.dump(LogisticRegression().fit(X, Y), tmp_path / "m.joblib")
    monkeypatch.setattr(confined.sys, "platform", "darwin")
    with pytest.raises(Unavailable, match="expected Linux for --isolate, got darwin"):
        load_model(tmp_path / "m.joblib", Declared(isolate=True))


def test_what_the_room_shows_holds_no_file_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("")
    (tmp_path / ".env").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "linked.py").symlink_to("/etc/passwd")
    shown = [Path(path) for path in confined._binds(tmp_path)]
    assert tmp_path / "own.py" in shown
    hidden = [
        Path.home() / ".ssh",
        Path("/etc/passwd"),
        tmp_path / ".env",
        tmp_path / "data",
        Path("/proc"),
        Path("/var"),
        Path(sys.prefix) / "pip.conf",
        Path(sys.prefix) / "pyvenv.cfg",
    ]
    home = [path for path in shown if path == Path.home()]
    assert home == []
    assert not [(a, b) for a in hidden for b in shown if a == b or b in a.parents]
    assert isolation.PATIENCE > 0
    assert not os.path.exists("/model")
