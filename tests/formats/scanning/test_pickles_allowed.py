"""What the tables let a pickle do: calls, states and items that run code in allowed classes are told."""

from __future__ import annotations

import pickle
import struct

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.formats.scanning.desks import looked

from casemate.formats.scanning.pickles import rulings, shapes
from casemate.formats.scanning.pickles.rulings import Use, ruling
from casemate.formats.scanning.readers import torch_zips
from casemate.formats.scanning.readers.pickles import READERS
from casemate.formats.scanning.signs import Level
from casemate.formats.scanning.source import Source

NAMESPACE = b"cargparse\nNamespace\n"
NORM = b"cscipy.stats._continuous_distns\nnorm_gen\n"
NDARRAY = b"cnumpy\nndarray\n"
LINEAR = b"csklearn.linear_model._base\nLinearRegression\n"
EVIL = "import os"


def scan(data, name="m.pkl"):
    return looked(data, READERS, name=name)


def bare(value):
    return pickle.dumps(value, 2)[2:-1]


def called(name, *args):
    """A call by REDUCE of `module name` with arguments that are pickles without PROTO and STOP."""
    return b"c" + name.replace(" ", "\n").encode() + b"\n(" + b"".join(args) + b"tR"


def state_of(cls, state):
    return cls + b")\x81" + state + b"b"


def level(body):
    return scan(b"\x80\x04" + body + b".").level


# ------------------------------------------------------------------------------------------------------- the tables


def names(use):
    for framework in rulings.frameworks():
        table = rulings.table_of(framework)
        for module, held in table["names"].items():
            yield from ((module, name) for name, how in held.items() if how == use)


def test_every_callable_of_every_table_has_a_rule_or_was_reviewed():
    calls = set(names("call"))
    assert len(calls) > 80
    unread = [call for call in calls if shapes.rule_of(*call) is None and call not in shapes.REVIEWED]
    assert not unread, f"expected a rule or a review for each callable, got none for {unread}: add one in shapes.py"
    assert calls >= shapes.REVIEWED


def test_tables_are_read_one_by_one_and_name_themselves():
    rulings.table_of.cache_clear()
    rulings.ruling.cache_clear()
    assert ruling("sklearn.svm._classes", "SVC").use is Use.CLASS
    assert rulings.table_of.cache_info().currsize == 2  # the standard library's and that one
    assert ruling("../sklearn", "x").level is not Level.CLEAN
    for framework in rulings.frameworks():
        table = rulings.table_of(framework)
        assert table["framework"] == framework
        for trait in ("built", "filled", "members", "slotted"):
            for module, held in table.get(trait, {}).items():
                assert all(table["names"][module].get(name) in ("class", "call") for name in held), (trait, module)


# ------------------------------------------------------------------------------------------- states that run code


@pytest.mark.parametrize(
    "body",
    [
        state_of(NORM, bare({"_parse_arg_template": EVIL})),
        state_of(NORM, bare([("_parse_arg_template", EVIL)])),
        state_of(NORM, bare(({"_parse_arg_template": EVIL, "x": 1}, None))),
        state_of(LINEAR, bare({"_parse_arg_template": EVIL})),
        state_of(LINEAR, bare({f"x{i}": i for i in range(200)} | {"_parse_arg_template": EVIL})),
        state_of(LINEAR, bare([("__setstate__", 1)])),
        state_of(LINEAR, bare((None, {"__class__": 1}))),
        called("numpy.random._pickle __generator_ctor", bare(b"x" * 3), b"ctorch.storage\n_load_from_bytes\n"),
        called("torch._tensor _rebuild_from_type_v2", b"cbuiltins\ngetattr\n", b"ctorch\nTensor\n", b")", b"N"),
        called("numpy.core _ufunc_reconstruct", bare("os"), bare("system")),
        called("torch._utils _rebuild_parameter_with_state", b"N", b"\x88", b"}", bare({"__class__": 1})),
        called("functools partial", b"cbuiltins\nint\n") + b"(cbuiltins\ngetattr\n)}Ntb",
        called("collections defaultdict", b"cbuiltins\ngetattr\n"),
        called("builtins getattr", NDARRAY, bare("tofile")),
    ],
)  # fmt: skip
def test_known_classes_and_functions_that_run_what_they_are_given_are_alarms(body):
    assert level(body) is Level.MALICIOUS


@pytest.mark.parametrize(
    "body",
    [
        state_of(b"cstatsmodels.base.data\nModelData\n", bare({"restore_model_spec": True, "formula": "f()"})),
        state_of(NORM, bare({"_attach_methods": None})),
        state_of(NORM, bare(("a", "b"))),
        state_of(LINEAR, bare((None, {"coef_": 1}))),  # setattr, one by one, on a class without slots
        state_of(LINEAR, b"}" + called("builtins str", bare("_build_f")) + b"Ns"),
        state_of(LINEAR, called("collections OrderedDict")),
        state_of(LINEAR, bare({f"x{i}": i for i in range(3000)})),
        state_of(LINEAR, bare({"a": 1})) + bare({"b": 2}) + b"b",
        called("cloudpickle.cloudpickle subimport", bare("numpy")) + bare({"load": 1}) + b"b",
        called("builtins getattr", b"cuuid\nSafeUUID\n", bare("unsafe")) + bare({"x": 1}) + b"b",
    ],
)  # fmt: skip
def test_states_that_no_pickler_writes_are_told(body):
    assert level(body) is Level.SUSPICIOUS


def test_keys_hidden_behind_many_others_or_in_the_memo_are_seen():
    filler = {f"x{i}": i for i in range(3000)}
    assert level(state_of(LINEAR, bare({**filler, "__setstate__": 1}))) is not Level.CLEAN
    kept = b"\x8c\x13_parse_arg_template\x94\x8c\x09import os\x940"
    pairs = b"".join(b"\x8c\x04%04d\x94K\x01" % i for i in range(200))
    assert level(kept + b"0" + state_of(NORM, b"}\x94(" + pairs + b"h\x00h\x01u")) is Level.MALICIOUS


@pytest.mark.parametrize(
    "body",
    [
        b"csklearn.linear_model._base\nLinearRegression\n)R",  # its constructor
        b"(N" + b"itorchvision.models.vgg\nVGG\n",
        called("transformers.models.llama.configuration_llama LlamaConfig", bare("x")),
        called("numpy.random._pickle __bit_generator_ctor", LINEAR),
        called("numpy._core.multiarray _reconstruct", LINEAR, bare((0,)), bare(b"b")),
        called("pandas.core.indexes.base _new_Index", LINEAR, b"}"),
        called("sklearn.neighbors._kd_tree newObj", NAMESPACE),
        called("pandas._libs.arrays __pyx_unpickle_NDArrayBacked", NAMESPACE, bare(1), b"N"),
        called("builtins iter", b"cbuiltins\nprint\n", bare(0)),
        called("builtins str", state_of(NAMESPACE, bare({"a": 1}))),
        called("torch._utils _rebuild_tensor_v2", state_of(NAMESPACE, bare({"dtype": 1})), bare(0), b")", b")"),
        called("zoneinfo ZoneInfo._unpickle", bare("../../etc/passwd"), b"\x88"),
        state_of(LINEAR, bare({"append": 1})) + b"Na", LINEAR + b")\x81Na",
        called("collections OrderedDict") + bare({"append": 1}) + b"bNNs",
        called("cloudpickle.cloudpickle subimport", bare("mymodule")),
    ],
)  # fmt: skip
def test_known_names_used_otherwise_than_in_real_files_are_told(body):
    assert level(body) is Level.SUSPICIOUS


def test_what_is_reached_through_two_spellings_is_held_to_the_same_rules():
    made = called("copyreg _reconstructor", NORM, b"cbuiltins\nobject\n", b"N")
    assert level(made + bare({"_parse_arg_template": EVIL}) + b"b") is Level.MALICIOUS
    assert level(called("copyreg _reconstructor", b"cnumpy\nsin\n", b"cbuiltins\nobject\n", b"N")) is Level.SUSPICIOUS


# --------------------------------------------------------------------------------------------------------- harmless


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_objects_of_the_libraries_themselves_are_clean(protocol):
    index = pd.MultiIndex.from_product([["a", "b"], [1, 2]])
    things = [
        stats.norm, stats.poisson, stats.norm(1, 2), stats.zipf, np.random.default_rng(1), np.random.RandomState(1),
        np.ma.array([1, 2], mask=[0, 1]), np.float32(1), np.dtype("f4"), np.array(["a"], np.dtypes.StringDType()),
        np.vectorize(np.sin), pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), pd.Series([1.0], index=["a"]),
        pd.DataFrame({"v": range(4)}, index=index), pd.Timestamp("2020-01-01", tz="Europe/Berlin"), pd.Interval(0, 1),
        pd.date_range("2020", periods=3, tz="UTC"), pd.Categorical(["a", "b"]), pd.offsets.MonthEnd(2), np.sin,
    ]  # fmt: skip
    for thing in things:
        found = scan(pickle.dumps(thing, protocol))
        assert found.level is Level.CLEAN, (thing, found.signs)


def test_functions_rebuilt_from_code_are_alarms_and_harmless_types_are_not():
    assert level(called("cloudpickle.cloudpickle _builtin_type", bare("CodeType"))) is Level.MALICIOUS
    assert level(called("cloudpickle.cloudpickle _builtin_type", bare("NoneType"))) is Level.CLEAN
    assert level(called("cloudpickle.cloudpickle subimport", bare("scipy.stats"))) is Level.CLEAN
    assert level(called("cloudpickle.cloudpickle subimport", bare("os"))) is Level.MALICIOUS


def test_names_of_a_torchscript_archive_are_known_only_there():
    data = b"\x80\x02c__torch__.Net\nNet\n)\x81}X\x01\x00\x00\x00aNsb."
    names = ["m/data.pkl", "m/constants.pkl", "m/code/__torch__.py", "m/version"]
    assert torch_zips.scripts(names) == {"m/data.pkl", "m/constants.pkl"}
    for others in (names[:2], [*names, "n/data.pkl"], names[:1] + names[2:]):
        assert not torch_zips.scripts(others)
    assert scan(data).level is Level.SUSPICIOUS
    beside = data.replace(b"__torch__.Net", b"__torch__Net")  # a module of another name, which only Python would find
    bodies = (
        (data, set()),
        (data[:-1] + b"cos\nsystem\n.", {"pickle/dangerous-name"}),
        (beside, {"pickle/unknown-name"}),
    )
    for body, wanted in bodies:
        from casemate.formats.scanning.desk import Desk
        from casemate.formats.scanning.limits import Limits

        source = Source("m.pt", body, ("m/data.pkl",))
        source.script = True
        assert {sign.rule for sign in Desk(READERS, Limits(), len(body)).look(source)} == wanted


# ----------------------------------------------------------------------------------------- names, hints and limits


def test_a_sign_of_a_name_says_which():
    assert {sign.subject for sign in scan(b"\x80\x02cmymodel\nModel\n)\x81.").signs} == {"mymodel.Model"}
    assert {sign.subject for sign in scan(b"\x80\x04" + called("operator itemgetter", b"N") + b".").signs} == {
        "operator.itemgetter"
    }


@pytest.mark.parametrize("name", ["m.pkl", "m.pickle", "M.PT", "m.bin", "m.sav", "m.p", "m.dill", "model"])
def test_an_import_that_breaks_afterwards_is_no_text_where_somebody_unpickles_it(name):
    broken = b"coystem\n(Vtrue\ntR."
    assert {"pickle/unknown-name", "pickle/damaged"} <= scan(broken, name).rules


@pytest.mark.parametrize("name", ["notes.txt", "README.md", "requirements.txt"])
def test_the_same_bytes_under_the_name_of_a_text_are_one(name):
    assert not READERS[0].claims(Source(name, b"coystem\n(Vtrue\ntR."))
    assert not READERS[0].claims(Source("LICENSE", b"copyright\nthe authors\n"))


def test_a_memo_index_that_makes_python_allocate_gigabytes_is_an_alarm():
    data = b"\x80\x02Nr" + struct.pack("<I", 0xFFFFFFFF) + b"."
    assert scan(data).rules == {"pickle/memory"}
    assert scan(b"\x80\x02Nr" + struct.pack("<I", 70_000) + b".").level is Level.CLEAN


def test_pickles_without_end_are_a_limit():
    from casemate.formats.scanning.limits import Limits
    from casemate.formats.scanning.walking import scan_bytes

    found = scan_bytes(
        b"N." * 300_000, "m.pkl", limits=Limits(seconds=300.0)
    )  # so that it is not the clock that ends it
    assert "limits/objects" in {sign.rule for sign in found.signs}


def test_no_table_that_was_made_lets_in_what_belongs_to_a_harmful_family():
    # numpy.loads (once an alias of pickle.loads) had come in by a walk through numpy's functions.
    import importlib.resources
    import json

    from casemate.formats.scanning.pickles import dangers

    folder = importlib.resources.files("casemate.formats.scanning.pickles") / "allowed"
    for file in folder.iterdir():
        if file.name.endswith(".json") and file.name != "stdlib.json":  # by hand, each call with a rule of its own
            names = json.loads(file.read_text(encoding="utf-8"))["names"]
            pairs = [(module, name) for module, found in names.items() for name in found]
            assert [pair for pair in pairs if dangers.danger_of(*pair)] == []
