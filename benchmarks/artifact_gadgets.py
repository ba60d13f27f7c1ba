"""Hold the tables of allowed names to the libraries themselves: what a clean pickle does when it is really loaded.

    python benchmarks/artifact_gadgets.py SECONDS SEED PYTHON...

For each PYTHON (an environment with some of the libraries, Python 3.8 or later), names of the tables are drawn and used
as an attacker would: called, made with and without arguments, given states, items and companions from a pool of paths,
module names, code, pickles and objects that would call something. Pickles that the scanner finds clean are loaded by
that Python in a process of its own, without privileges to grow files, with an audit hook that refuses whatever touches
the marks of the pool, and whatever starts a process, connects, deletes, loads a library or runs code. Each refusal is a
GADGET. Prints one JSON line for each PYTHON; exit 1 where a gadget was found.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
import json
import operator
import os
import pickle
import random
import resource
import select
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

MARK = "gadget_mark"
"""In every path, module name and piece of code of the pool: nothing but the pool's own can name it."""
MEMORY = 8 << 30  # bytes of addresses: torch asks for gigabytes it never uses
SECONDS = 1  # for one pickle
FORBIDDEN = (
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.remove",
    "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate", "os.putenv",
    "os.kill", "subprocess.Popen", "socket.", "shutil.", "ctypes.dlopen", "ctypes.call_function", "pty.spawn",
    "urllib.Request", "ftplib.", "smtplib.", "webbrowser.open", "sqlite3.connect", "tempfile.",
    "code.__new__", "sys.settrace", "sys.setprofile",
)  # fmt: skip
"""Audit events that no class needs to take its state back."""
NESTED = f"c{MARK}\nrun\n(tR.".encode()
TEXTS = (f"/{MARK}/file", MARK, f"{MARK}.name", f"__import__('{MARK}')", f"import {MARK}", f"y ~ {MARK}.f(x)", "x", "")
PLAIN = (*TEXTS, NESTED, NESTED.decode(), 0, 1, -1, 2.5, None, True, (), {}, [TEXTS[0]])
HOOKS = ("__setstate__", "__new__", "__hash__", "__eq__", "__setitem__", "append", "extend", "__del__", "__getattr__")
TRIGGERS = ("setdefault", "get", "items", "keys", "values", "copy", "close", "append", "update", "pop", "astype")


# ------------------------------------------------------------------------------------ in the other environment


def child() -> None:
    """Load the pickles of the standard input, one a line, and say of each what it did."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    armed, events = [False], []

    def hook(event, args):
        if armed[0] and _forbidden(event, args):
            events.append((event, repr(args)[:200]))
            raise PermissionError(event)

    signal.signal(signal.SIGALRM, _late)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no answer
    sys.addaudithook(hook)
    found = [(name, _found(*name)) for name in json.loads(sys.stdin.readline())]
    answers.write(json.dumps([(*name, _keys_of(one)) for name, one in found if one is not None]) + "\n")
    while True:  # another one where native code fell over or hung
        worker = os.fork()
        if not worker:
            break
        if os.waitpid(worker, 0)[1] == 0:
            return
    answers.write(json.dumps(os.getpid()) + "\n")
    for line in sys.stdin:
        events.clear()
        answers.write(json.dumps([_loaded(base64.b64decode(line), armed), events[:20]]) + "\n")


class Loader(pickle.Unpickler):
    """CPython's, which may import what the pickle itself names; `armed` says when the hook looks."""

    armed = None

    def find_class(self, module, name):
        """What the name stands for."""
        self.armed[0] = False
        try:
            return super().find_class(module, name)
        finally:
            self.armed[0] = True


def _late(*_):
    raise TimeoutError


def _forbidden(event, args):
    if event.startswith(FORBIDDEN):
        return True
    if event == "exec":
        return MARK in repr([getattr(args[0], part, "") for part in ("co_names", "co_consts", "co_filename")])
    if event == "compile" and args[1] == "<unknown>":
        return False  # read by `ast`, not run
    return MARK in repr(args)


def _loaded(data, armed):
    machine = Loader(io.BytesIO(data))
    machine.armed = armed
    signal.alarm(SECONDS)
    armed[0] = True
    try:
        held = machine.load()
        del held  # which runs __del__
        return "loaded"
    except TimeoutError:
        return "late"
    except BaseException as error:
        return type(error).__name__
    finally:
        armed[0] = False
        signal.alarm(0)


def _found(module, name):
    with contextlib.suppress(BaseException):
        return operator.attrgetter(name)(importlib.import_module(module))
    return None


def _keys_of(one):
    """The texts and names in what a class runs while it is made, takes its state back or is compared."""
    keys = set()
    for hook in HOOKS:
        code = getattr(getattr(one, hook, None), "__code__", None)
        keys |= {text for text in (*getattr(code, "co_consts", ()), *getattr(code, "co_names", ())) if _is_key(text)}
    return sorted(keys)[:60]


def _is_key(text):
    return isinstance(text, str) and text.isidentifier()


# -------------------------------------------------------------------------------------------------- the pickles


def plain(value):
    """A value of the pool without PROTO and STOP."""
    return pickle.dumps(value, 2)[2:-1]


def glob(name):
    """A name."""
    return b"c" + name[0].encode() + b"\n" + name[1].encode() + b"\n"


def made(opcode, name, args):
    """A call by REDUCE or NEWOBJ."""
    return glob(name) + b"(" + b"".join(args) + b"t" + opcode


def held(*pairs):
    """A dict of pieces of pickles."""
    return b"}(" + b"".join(pairs) + b"u"


class Attacker:
    """Draws pickles over names: `(module, name, keys of its states)`."""

    def __init__(self, names, rng):
        self.names, self.rng = [(module, name) for module, name, _ in names], rng
        self.keyed = [one for one in names if one[2]]
        self.makers = [name for name in MAKERS if name in self.names]
        self.baits = [name for name in BAITS if name in self.names]

    def value(self, depth=0):
        """A piece of a pickle from the pool."""
        pick = self.rng.random()
        if pick < 0.45 or depth > 2:
            return plain(self.rng.choice(PLAIN))
        if pick < 0.6:
            return glob(self.name())
        if pick < 0.75:
            return b"(" + b"".join(self.value(depth + 1) for _ in range(self.rng.randrange(3))) + b"t"
        if pick < 0.85:
            return held(*(plain(self.key()) + self.value(depth + 1) for _ in range(self.rng.randrange(1, 4))))
        if pick < 0.92:
            return self.bound(depth + 1)
        return self.object(depth + 1)

    def name(self):
        """A name of the tables, often one of those that could do the most."""
        return self.rng.choice(self.baits if self.rng.random() < 0.3 else self.names)

    def key(self):
        """A key of a state: what classes look up, and methods that others call."""
        return self.rng.choice((*TRIGGERS, *self.rng.choice(KEYS)))

    def bound(self, depth):
        """A call that is put off."""
        args = [glob(self.name()), *(self.value(depth) for _ in range(self.rng.randrange(3)))]
        return made(b"R", ("functools", "partial"), args)

    def object(self, depth=0):
        """An object of the tables, made, perhaps built and filled."""
        name, opcode = self.name(), self.rng.choice((b"\x81", b"\x81", b"R"))
        count = 0 if opcode == b"\x81" and self.rng.random() < 0.7 else self.rng.randrange(5)
        out = made(opcode, name, [self.value(depth + 1) for _ in range(count)])
        pick = self.rng.random()
        if pick < 0.1:
            return out + b"(" + self.value(depth + 1) + b"e"
        if pick < 0.2:
            return out + b"(" + self.value(depth + 1) + self.value(depth + 1) + b"u"
        if pick < 0.8:
            return out + self.state(depth) + b"b"
        return out

    def state(self, depth):
        """A state: mostly a dict of keys that classes look up."""
        if self.rng.random() < 0.25:
            return self.value(depth + 1)
        keys = [self.key() for _ in range(self.rng.randrange(1, 5))]
        return held(*(plain(key) + self.value(depth + 1) for key in keys))

    def looked_up(self):
        """An object whose state has what its own class looks up."""
        module, name, keys = self.rng.choice(self.keyed)
        count = min(len(keys), self.rng.randrange(1, 6))
        state = held(*(plain(key) + self.value(1) for key in self.rng.sample(keys, count)))
        return made(b"\x81", (module, name), []) + state + b"b"

    def triggered(self):
        """A call that is put off, where a class that takes its state back may run it."""
        call, key = self.bound(1), plain(self.rng.choice(TRIGGERS))
        if self.rng.random() < 0.2:
            call = glob(self.name())
        where = self.rng.choice((("collections", "OrderedDict"), ("sklearn.dummy", "DummyClassifier")))
        inner = made(b"\x81", where, []) + held(key + call) + b"b"
        if self.rng.random() < 0.3:
            inner = made(b"R", ("collections", "defaultdict"), [call])
        groups, maker = b"](" + inner + b"e", self.rng.choice(self.makers)
        state = held(plain("param_groups") + groups, plain("defaults") + inner, plain("nodes") + inner,
                     plain("_qhull") + inner, plain("orig_endog") + inner, plain("state") + inner)  # fmt: skip
        return self.rng.choice((
            made(b"\x81", maker, []) + state + b"b", made(b"\x81", maker, [inner]), made(b"R", maker, [inner]),
            made(b"R", ("builtins", "list"), [made(b"R", ("builtins", "iter"), [call, plain(0)])]),
        ))  # fmt: skip

    def pickle(self):
        """A whole one, as itself, in a set or as a key."""
        body = self.rng.choice((self.object, self.looked_up, self.triggered))()
        pick = self.rng.random()
        if pick < 0.1:
            body = b"\x8f(" + body + b"\x90"
        elif pick < 0.2:
            body = b"}" + body + b"Ns"
        return b"\x80\x04" + body + b"."


MAKERS = (
    ("torch.optim.adam", "Adam"),
    ("torch.optim.sgd", "SGD"),
    ("scipy.signal._ltisys", "TransferFunction"),
    ("sklearn.ensemble._hist_gradient_boosting.predictor", "TreePredictor"),
    ("nltk.probability", "FreqDist"),
    ("scipy.spatial._qhull", "Delaunay"),
    ("statsmodels.base.data", "ModelData"),
    ("collections", "Counter"),
)
"""Classes that call methods of what they are given, or hold, while they are loaded."""
BAITS = (
    ("torch.storage", "_load_from_bytes"), ("builtins", "getattr"), ("numpy._core", "_ufunc_reconstruct"),
    ("numpy.core", "_ufunc_reconstruct"), ("lightgbm.basic", "Booster"), ("xgboost.core", "Booster"),
    ("functools", "partial"), ("builtins", "max"), ("scipy.stats._continuous_distns", "norm_gen"),
    ("statsmodels.base.data", "ModelData"), ("numpy.random._pickle", "__generator_ctor"), ("builtins", "iter"),
    ("torch._tensor", "_rebuild_from_type_v2"), ("zoneinfo", "ZoneInfo._unpickle"), ("pandas", "DataFrame"),
)  # fmt: skip
"""Names that read, load or run something, if the rules let them."""
KEYS = (
    ("_parse_arg_template", "_attach_methods", "restore_design_info", "restore_model_spec", "formula", "frame"),
    ("handle", "_handle", "model_str", "network", "formula", "frame", "orig_endog", "orig_exog", "_object", "__model"),
    ("param_groups", "state", "defaults", "step", "hook", "with_module", "_modules", "all_weights", "activation"),
    ("func", "score_func", "pyfunc", "dtype", "nodes", "estimator", "_qhull", "X_thresholds_", "y_thresholds_"),
    ("_typ", "_mgr", "_data", "_metadata", "_flags", "levels", "codes", "names", "axes", "blocks", "coords", "row"),
    ("shapes", "name", "momtype", "_ctor_param", "_random_state", "data", "encodings", "_listener_handle", "_log"),
)
"""What classes look up when they take a state back, as their source says."""


def known_to_run():
    """Gadgets that the scanner knows: an oracle for the hook."""
    template = held(plain("_parse_arg_template") + plain(f"import {MARK}"))
    yield b"\x80\x02" + made(b"\x81", ("scipy.stats._continuous_distns", "norm_gen"), []) + template + b"b."
    yield b"\x80\x02" + made(b"R", ("torch.storage", "_load_from_bytes"), [plain(NESTED)]) + b"."


# ------------------------------------------------------------------------------------------------------ the run


def tried(python, seconds, rng):
    """What clean pickles did in one environment: counts, and each gadget with its pickle."""
    from casemate.formats.scanning.pickles import rulings
    from casemate.formats.scanning.walking import scan_bytes

    worker = Worker(python)
    known = [
        (module, name) for framework in sorted(rulings.frameworks())
        for module, names in rulings.table_of(framework)["names"].items() for name in names
        if not module.startswith(("transformers.models.", "torchvision.models.", "timm.models."))
    ]  # fmt: skip
    names = worker.begun(known)
    if not any(worker.load(data)[1] for data in known_to_run()):
        raise SystemExit(
            f"expected the hook to refuse known gadgets in {python}, got none: install torch or SciPy there"
        )
    attacker, end, counts, gadgets = Attacker(names, rng), time.monotonic() + seconds, Counter(), []
    while time.monotonic() < end:
        data = attacker.pickle()
        counts["made"] += 1
        if str(scan_bytes(data, "gadget.pkl").level) != "clean":
            continue
        counts["clean"] += 1
        end_of_it, events = worker.load(data)
        counts[end_of_it if end_of_it in ("loaded", "late", "crashed") else "raised"] += 1
        gadgets += [{"event": event, "args": args, "pickle": data.hex()} for event, args in events]
    worker.process.kill()
    return {"python": str(python), "names": len(names), **counts, "gadgets": len(gadgets), "examples": gadgets[:20]}


class Worker:
    """The process that loads, in the environment of `python`."""

    def __init__(self, python):
        alone = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            [str(python), "-B", "-E", "-s", str(Path(__file__).absolute()), "--child"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=alone, cwd="/",
        )  # fmt: skip

    def begun(self, names):
        """Those names that are there, with the keys of their states."""
        self._say(json.dumps(names))
        found = json.loads(self.process.stdout.readline())
        self.number = json.loads(self.process.stdout.readline())
        return found

    def load(self, data):
        """How loading a pickle ended, and what was refused."""
        self._say(base64.b64encode(data).decode())
        if not select.select([self.process.stdout], [], [], 5 * SECONDS)[0]:  # native code does not hear the alarm
            os.kill(self.number, signal.SIGKILL)
        answer = json.loads(self.process.stdout.readline())
        if isinstance(answer, list):
            return answer
        self.number = answer
        return "crashed", []

    def _say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


def main():
    """Run."""
    seconds, rng = float(sys.argv[1]), random.Random(int(sys.argv[2]))
    bad = False
    for python in sys.argv[3:]:
        found = tried(Path(python).absolute(), seconds, rng)  # a link says which environment it is
        bad = bad or found["gadgets"] > 0
        print(json.dumps(found))
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--child"]:
        child()
    else:
        sys.exit(main())
