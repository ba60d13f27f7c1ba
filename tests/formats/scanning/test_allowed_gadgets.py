"""What allowed names could be made to do with each other: chains of names of the tables that run code are told."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections import OrderedDict, defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.formats.scanning.desks import looked

from casemate.formats.scanning.pickles import rulings
from casemate.formats.scanning.pickles.rulings import Use, ruling
from casemate.formats.scanning.readers.pickles import READERS
from casemate.formats.scanning.signs import Level

ROOT = Path(__file__).resolve().parents[3]
BYTES = b"C\x18cgadget_mark\nrun\n(I1\ntR."  # a pickle of protocol 0, which does not look like one
GETATTR, LOADS = b"cbuiltins\ngetattr\n", b"ctorch.storage\n_load_from_bytes\n"
DUMMY = b"csklearn.dummy\nDummyClassifier\n)\x81"
ORDERED = b"ccollections\nOrderedDict\n)\x81"
BOOSTER = b"clightgbm.basic\nBooster\n"


def level(body):
    return looked(b"\x80\x04" + body + b".", READERS, name="m.pkl").level


def bare(value):
    return pickle.dumps(value, 2)[2:-1]


def call(name, *args):
    return b"c" + name.replace(" ", "\n").encode() + b"\n(" + b"".join(args) + b"tR"


def made(name, *args):
    return call(name, *args)[:-1] + b"\x81"


def keyed(key, value):
    return b"}" + bare(key) + value + b"s"


def bound(function, *args, named=b"}"):
    return call("functools partial", function) + b"(" + function + b"(" + b"".join(args) + b"t" + named + b"Ntb"


MAXIMUM = bound(b"cbuiltins\nmax\n", b"](" + BYTES + b"e", named=keyed("key", LOADS))
"""Calls `_load_from_bytes` with bytes of the file as soon as anything calls it."""


# ------------------------------------------------------------------------- functions that are only called, not kept


@pytest.mark.parametrize("function", [GETATTR, LOADS, b"cnumpy._core\n_ufunc_reconstruct\n", b"cfunctools\npartial\n"])
@pytest.mark.parametrize(
    "kept",
    [
        b"%s",
        b"](%se",
        b"]%sa",
        b"(%sl",
        b"}X\x01\0\0\0k%ss",
        b"}(X\x01\0\0\0k%su",
        b"%s\x85",
        b"(%st\x85",
        b"\x8f(%s\x90",
        b"(%s\x91",
        DUMMY + b"}X\x04\0\0\0func%ssb",
        DUMMY + b"%sb",
        DUMMY + b"(%stb",
        ORDERED + b"X\x01\0\0\0k%ss",
        ORDERED + b"(X\x01\0\0\0k%su",
        b"ccollections\ndeque\n)R%sa",
        b"csklearn.dummy\nDummyClassifier\n(%st\x81",
        b"cfunctools\npartial\n(%stR",
        b"ccollections\ndefaultdict\n(%stR",
        b"cbuiltins\nstr\n(%s\x85tR",
        b"]\x940%sq\x010h\x00h\x01a",
    ],
)
def test_functions_that_reach_others_are_alarms_wherever_they_are_kept(kept, function):
    assert level(kept.replace(b"%s", function)) is Level.MALICIOUS


def test_a_kept_function_is_seen_behind_any_number_of_others():
    assert level(b"](" + b"N" * 5000 + bare(["x"] * 5000) + LOADS + b"e") is Level.MALICIOUS
    assert level(b"(" + LOADS * (1 << 12) + b"t") is Level.MALICIOUS
    assert level(b"]\x94(" + b"K\x01" * 40_000 + b"e" + b"h\x00" + GETATTR + b"a") is Level.MALICIOUS


# ------------------------------------------------------- who calls what it holds while it is loaded, or thrown away


@pytest.mark.parametrize(
    "chain",
    [
        made("torch.optim.adam Adam")
        + keyed("param_groups", b"]" + ORDERED + keyed("setdefault", b"%s") + b"ba")
        + b"b",
        made("torch.optim.adam Adam") + keyed("param_groups", b"]" + DUMMY + keyed("setdefault", b"%s") + b"ba") + b"b",
        made("torch.optim.adam Adam")
        + keyed("param_groups", b"]" + call("collections defaultdict", b"%s") + b"a")
        + b"b",
        made("scipy.signal._ltisys TransferFunction", DUMMY + keyed("to_tf", b"%s") + b"b"),
        made("scipy.spatial._qhull Delaunay") + keyed("_qhull", DUMMY + keyed("close", b"%s") + b"b") + b"b",
        call("nltk.probability FreqDist", ORDERED + keyed("items", b"%s") + b"b"),
        call("builtins list", call("builtins iter", b"%s", bare(0))),
        made("builtins tuple", call("builtins iter", b"%s")),
        made("collections Counter", b"%s"),
        made("numpy object_", call("functools partial", b"cbuiltins\nint\n")) + b"%sb",
        made("_io StringIO") + b"(" + bare("") + bare("\n") + bare(0) + keyed("close", b"%s") + b"tb",
        made("statsmodels.discrete.discrete_model NegativeBinomial") + keyed("_initialize", b"%s") + b"b",
    ],
)
def test_what_is_called_while_loading_is_told_whoever_calls_it(chain):
    assert level(chain.replace(b"%s", MAXIMUM)) is Level.MALICIOUS
    for harmless in (bound(b"cbuiltins\nmax\n", bare(1)), bound(b"cnumpy\nmean\n")):
        assert level(chain.replace(b"%s", harmless)) is not Level.CLEAN or b"defaultdict" in chain


@pytest.mark.parametrize(
    "function",
    [
        bound(BOOSTER, bare({}), b"N", bare("/a/file")),
        bound(b"ctransformers.training_args\nTrainingArguments\n"),
        bound(b"cgensim.models.word2vec\nWord2Vec\n"),
        bound(b"cbuiltins\ntype\n", bare("x")),
        bound(b"cbuiltins\nmax\n", bare([1]), named=keyed("key", BOOSTER)),
        bound(b"cbuiltins\nsorted\n", b"(" + BOOSTER + b"t"),
        bound(b"cbuiltins\nprint\n", named=keyed("file", DUMMY)),
        call("functools partial", BOOSTER),
        call("collections defaultdict", BOOSTER),
        call("collections defaultdict", b"cbuiltins\nprint\n"),
    ],
)
def test_what_reads_or_calls_is_not_bound(function):
    assert level(function) is Level.SUSPICIOUS


# ------------------------------------------------------------------------------------- formulas, and names let go


def test_formulas_that_statsmodels_and_lifelines_evaluate_are_told():
    data, ols = "statsmodels.base.data PandasData", "statsmodels.regression.linear_model OLS"
    for name in (data, ols, "lifelines.fitters.cox_time_varying_fitter CoxTimeVaryingFitter"):
        for key in ("formula", "model_spec", "design_info"):
            assert level(made(name) + bare({key: "y ~ x + C(sys)"}) + b"b") is Level.SUSPICIOUS
            assert level(made(name) + bare({key: "y ~ os.system('id')"}) + b"b") is Level.MALICIOUS
            assert level(made(name) + bare({key: "y ~ __import__('os')"}) + b"b") is Level.MALICIOUS
            assert level(made(name) + bare({key: "y ~ open('x', 'w')"}) + b"b") is Level.MALICIOUS
            assert level(made(name) + bare({key: None}) + b"b") is Level.CLEAN
    for key in ("restore_design_info", "restore_model_spec"):  # the first until 0.13
        assert level(made(data) + bare({key: True}) + b"b") is Level.SUSPICIOUS
        filler = {f"x{i}": i for i in range(9000)}
        assert level(made(data) + bare(filler | {key: True}) + b"b") is not Level.CLEAN


@pytest.mark.parametrize(
    "name",
    [
        "nltk.classify.senna Senna",
        "nltk.classify.svm SvmClassifier",
        "nltk.classify.weka WekaClassifier",
        "nltk.classify.maxent TadmMaxentClassifier",
        "xgboost.callback TrainingCheckPoint",
        "sklearn.callback._scoring_monitor ScoringMonitor",
        "sklearn.callback ScoringMonitor",
        "torch.nn.cpp ModuleWrapper",
        "ultralytics.nn.autobackend AutoBackend",
        "numpy.core._multiarray_umath implement_array_function",
        "numpy.core._multiarray_umath int_asbuffer",
        "numpy set_numeric_ops",
        "numpy.lib.utils <lambda>",
    ],
)
def test_names_that_run_programs_listen_or_read_memory_are_in_no_table(name):
    assert ruling(*name.split(" ")).level is not Level.CLEAN


def test_what_the_maker_of_the_tables_refuses_is_in_none_of_them():
    script = (ROOT / "scripts" / "allowed_globals.py").read_text()
    assert "REFUSED = re.compile(" in script
    code = "import sys, json; sys.path[:0] = ['scripts', 'benchmarks']; import allowed_globals as made; "
    out = subprocess.run(
        [sys.executable, "-c", code + "print(json.dumps([made.REFUSED.pattern, sorted(made.KEPT)]))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    pattern, kept = json.loads(out.stdout)
    refused = re.compile(pattern)
    for framework in rulings.frameworks():
        for module, names in rulings.table_of(framework)["names"].items():
            assert not [name for name in names if refused.fullmatch(f"{module}|{name}")], module
    assert all(ruling(*name.split("|")).use is Use.VALUE for name in kept)


# ------------------------------------------------------------------------------------------------------- harmless


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_functions_that_models_really_hold_stay_clean(protocol):
    adam = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))])
    adam.param_groups[0]["params"] = []
    things = [
        partial(torch.nn.LayerNorm, eps=1e-6),
        partial(np.full, 3, 1.0),
        partial(partial(np.mean, axis=0), keepdims=True),
        defaultdict(list, {"a": [1]}),
        defaultdict(partial(np.zeros, 3)),
        defaultdict(partial(defaultdict, int)),
        OrderedDict(a=1),
        [np.object_, bytes, range, defaultdict],
        {"activation": torch.nn.functional.gelu},
        adam,
        np.random.default_rng(1),
        np.vectorize(np.sin),
        partial(torch.nn.Conv2d, padding=1, dtype=torch.float16),
    ]
    for thing in things:
        found = looked(pickle.dumps(thing, protocol), READERS, name="m.pkl")
        assert found.level is Level.CLEAN, (thing, found.signs)
