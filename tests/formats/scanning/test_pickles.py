# ruff: noqa: E501 (hand-made pickles)
"""What is said of pickles: each technique made here by hand, and real files of real libraries."""

from __future__ import annotations

import base64
import collections
import copyreg
import datetime
import enum
import functools
import io
import os
import pickle
import random
import struct
import types
import zlib

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import PICKLE, held, looked

from casemate.formats.scanning.pickles.dangers import danger_of
from casemate.formats.scanning.readers.pickles import READERS
from casemate.formats.scanning.signs import Level

EVIL = b"cos\nsystem\n(S'true'\ntR."
TORCH_MAGIC = 0x1950A86A20F9469CFC6C


def scan(data, name="m.pkl"):
    return looked(data, READERS, name=name)


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def called(module, name, *args):
    """A pickle that calls a name with arguments which are pickles without PROTO and STOP."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93(" + b"".join(args) + b"tR."


def bare(value):
    return pickle.dumps(value, 2)[2:-1]


# -------------------------------------------------------------------------------------------------- known to be harmful


@pytest.mark.parametrize(
    "data",
    [
        EVIL, PICKLE, b"(S'true'\nios\nsystem\n.", b"(cos\nsystem\nS'true'\no.", b"(cos\nsystem\nS'true'\no0N.",
        b"\x80\x04cos\nsystem\n)\x81.", b"\x80\x04cos\nsystem\n)}\x92.", b"\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02cantigravity\nfly\n.", b"\x80\x04" + text("torch") + text("_ops.os.system") + b"\x93.",
        b"\x80\x04\x8c\x02osq\x03000h\x03\x8c\x06system\x93.".replace(b"000", b"0"),
        b"\x80\x02c__builtin__\neval\n(X\x01\x00\x00\x001tR.", b"\x80\x02ccommands\ngetoutput\n.",
        b"\x80\x04\x95\xff\xff\xff\xff\x00\x00\x00\x00" + PICKLE[2:], b"\x80\x04\x95\x01" + bytes(7) + PICKLE[2:],
        b"\x80\x04" + b"]" * 20_000 + PICKLE[2:], b"N." * 3000 + PICKLE, b"\x80\x04N." * 3000 + EVIL, PICKLE[:-1] + b"\xff",
        PICKLE[:-1], called("builtins", "getattr", b"cbuiltins\nint\n", bare("__class__")),
        called("copyreg", "add_extension", bare("os"), bare("system"), bare(65))[:-1] + b"0\x82\x41.",
        called("cloudpickle.cloudpickle", "_make_function", b"N"),
        called("io", "BytesIO", b"B" + struct.pack("<I", len(PICKLE)) + PICKLE),
        called("io", "BytesIO", b"B" + struct.pack("<I", len(EVIL)) + EVIL),
        b"\x80\x04cbuiltins\nint\n}" + text("a") + b"Nsb.", b"\x80\x04cbuiltins\nint\nNa.",
        called("argparse", "Namespace")[:-1] + b"}" + text("__class__") + b"Nsb.",
        called("argparse", "Namespace")[:-1] + b"N}" + text("__setstate__") + b"Ns\x86b.",
        called("builtins", "bytearray", bare(1 << 40)), called("numpy._core.multiarray", "_reconstruct",
        b"cnumpy\nndarray\n", b"(" + bare(1 << 40) + b"t", b"C\x01b"),
    ],
)  # fmt: skip
def test_what_harms_is_called_malicious(data):
    assert scan(data).level is Level.MALICIOUS


def test_signs_stay_when_the_rest_cannot_be_read():
    found = scan(PICKLE[:-1] + b"\xff\xff")
    assert {sign.level for sign in found.signs} == {Level.MALICIOUS, Level.UNREADABLE}
    assert found.at("pickle/damaged") == len(PICKLE) - 1


def test_a_name_is_told_once_with_its_count_place_and_opcode():
    found = scan(b"\x80\x04" + PICKLE[2:-1] * 40 + b".")
    (sign,) = found.signs
    assert sign.what == "imports os.system (40 times)"
    assert (sign.place.offset, sign.place.opcode) == (PICKLE.index(b"\x93"), "STACK_GLOBAL")


def test_a_bomb_of_containers_is_malicious():
    data = b"\x80\x02]q\x00" + b"".join(
        b"](" + b"h" + bytes([i]) * 1 + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(40)
    )
    assert scan(data + b".").rules == {"pickle/expansion"}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "never_listed"), ("posix", "x"), ("subprocess", "y"), ("test.support", "z"), ("torch._inductor.a.b", "c"),
        ("torch", "hub.load"), ("numpy", "f2py.x"), ("importlib.machinery", "X"), ("pandas", "read_anything"),
        ("pandas.io.parsers.readers", "read_csv"), ("torch.storage", "os.system"), ("collections", "abc.sys.modules"),
        ("multiprocessing.pool", "Pool"), ("distutils.spawn", "spawn"), ("joblib", "load"), ("builtins", "exec"),
        ("builtins", "__import__"), ("__builtin__", "execfile"), ("urllib.request", "x"), ("asyncio", "run"),
    ],
)  # fmt: skip
def test_families_are_named_by_their_module(module, name):
    assert danger_of(module, name)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("mymodel", "Model"), ("os.path_tools", "x"), ("numpy", "ndarray"), ("torch.nn.modules.linear", "Linear"),
        ("sklearn.datasets._base", "Bunch"), ("http", "HTTPStatus"), ("ossify", "x"), ("sympy.core.symbol", "Symbol"),
    ],
)  # fmt: skip
def test_names_that_are_merely_unknown_are_not_called_harmful(module, name):
    assert danger_of(module, name) == "" or module == "os.path_tools"


# ------------------------------------------------------------------------------------------------------- only suspicious


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02cmymodel\nModel\n)\x81.", b"\x80\x04\x82\x07.", called("functools", "partial", b"cmymodel\nrun\n"),
        called("operator", "attrgetter", bare("x")), called("_codecs", "encode", bare("x"), bare("rot13")),
        called("builtins", "getattr", b"cmymodel\nMode\n", bare("A")), called("xgboost.core", "Booster"),
        called("collections", "defaultdict", b"cmymodel\nmake\n"), called("builtins", "len", b"N"),
        called("argparse", "Namespace")[:-1] + b")R.", b"\x80\x04]Nb.", b"\x80\x04K\x01)R.",
        b"\x80\x04cbuiltins\nlist\n]R.",
        b"\x80\x04N." + bytes(60), b"\x80\x04N.what is this",
    ],
)  # fmt: skip
def test_what_is_not_known_is_suspicious_and_no_alarm(data):
    assert scan(data).level is Level.SUSPICIOUS


def test_getattr_on_an_allowed_class_is_no_alarm():
    data = called("builtins", "getattr", b"cuuid\nSafeUUID\n", bare("unsafe"))
    assert scan(data).level is Level.CLEAN


# -------------------------------------------------------------------------------------------------------------- harmless


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_and_the_standard_library_are_clean(protocol):
    things = [
        {"a": [1, 2.5, None, True, "é", b"x", (1,), {2}, frozenset({3}), 1 << 200, complex(1, 2)]},
        datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), collections.OrderedDict(a=1),
        collections.defaultdict(list, a=[1]), collections.Counter("aab"), collections.deque([1], 3),
        types.SimpleNamespace(a=1), functools.partial(int, base=2), random.Random(1), range(3), slice(1, 2), len,
        bytearray(b"x"), io.BytesIO(b"plain"),
    ]  # fmt: skip
    for thing in things if protocol > 1 else things[:4]:
        data = pickle.dumps(thing, protocol)
        assert scan(data).level is Level.CLEAN, (thing, scan(data).signs)


def test_several_pickles_in_a_row_and_a_newline_behind_are_clean():
    data = b"".join(pickle.dumps([i, "text"], i % 6) for i in range(12))
    assert scan(data).signs == scan(data + b"\n").signs == ()


@pytest.mark.parametrize(
    "text",
    [
        "catboost\nnumpy\npandas\nscikit-learn\n", "click\nrequests\n", "I am a text.\n", "N.B. read this\n", "(in the\nbeginning\n",
        "config: 1\nname: x\n", "{}", "[]", "c,o,s\n1,2,3\n", "0.1,0.2\n", "# title\n", ".", "...", "Some notes\nof mine", "",
        "import os\nos.system('x')\n", "V1\nT2\n", "%PDF-1.4\n", "<xml/>", "F1 score\n0.5\n", "1\n2\n3\n", "L\n", "tree\nversion=v4\n",
    ],
)  # fmt: skip
def test_texts_are_no_pickles(text):
    assert not READERS[0].claims(looked_source(text.encode()))


def looked_source(data):
    from casemate.formats.scanning.source import Source

    return Source("x", data)


# ---------------------------------------------------------------------------------------------------------------- joblib


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def dumped(thing, **options):
    file = io.BytesIO()
    joblib.dump(thing, file, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "thing",
    [
        np.arange(1000.0), [np.zeros((0, 3)), np.zeros((5, 4), order="F"), np.array(3.5)], np.array(["abc", "d"]),
        {"a": np.zeros(7, bool), "b": np.arange(9, dtype=">i2"), "c": np.zeros(2, "datetime64[ns]")},
        np.array([{"a": np.arange(4)}, None, "x"], object), np.zeros(3, [("a", "i4"), ("b", "f8", (2,))]),
        np.frombuffer(b"\x80\x04.cos\nnothing\n" * 50, np.uint8),
    ],
)  # fmt: skip
def test_joblib_streams_are_read_past_their_arrays(thing):
    found = scan(dumped(thing))
    assert found.level is Level.CLEAN, found.signs


def test_harm_behind_and_inside_joblib_arrays_is_found():
    array = np.arange(5000, dtype=np.uint16)
    for thing in ([array, Evil()], np.array([array, Evil()], object), [np.array([Evil()], object), array]):
        assert scan(dumped(thing)).level is Level.MALICIOUS


def test_raw_bytes_that_pickle_would_run_are_found_though_joblib_skips_them():
    data = dumped(np.arange(100.0, 200.0))
    start = data.index(np.arange(100.0, 200.0).tobytes())
    padding = next(n for n in range(17) if data[start - n - 1] == n and data[start - n : start] == b"\xff" * n)
    for code, inside in ((b"(", PICKLE[2:]), (b"0", PICKLE[2:])):  # joblib takes it for the length of the padding
        forged = data[: start - padding - 1] + code + inside.ljust(code[0], b".") + data[start:]
        assert scan(forged).level is Level.MALICIOUS
        assert scan(forged.replace(b"system", b"siesta").replace(b"\x02os", b"\x02so")).level is Level.CLEAN


def test_joblibs_old_compressed_form_is_unpacked():
    for blank in (b"", b" "):
        data = b"ZF" + hex(len(PICKLE)).encode().ljust(19) + blank + zlib.compress(PICKLE)
        assert scan(data).level is Level.MALICIOUS
        assert scan(data[:-3]).level is not Level.CLEAN


# ----------------------------------------------------------------------------------------------------------------- torch


def legacy(thing):
    import torch

    file = io.BytesIO()
    torch.save(thing, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def test_torchs_old_stream_ends_with_its_storages():
    import torch

    tensors = {f"layer{i}.weight": torch.zeros(3, 5, dtype=kind) for i, kind in enumerate(
        [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool, torch.complex64] * 40
    )}  # fmt: skip
    found = scan(legacy(tensors))
    assert not {"pickle/trailing", "pickle/damaged"} & found.rules
    assert "pickle/called-object" not in scan(legacy(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()))).rules
    assert scan(legacy(tensors) + PICKLE).level is Level.MALICIOUS
    assert "pickle/damaged" in scan(legacy(tensors)[:-1]).rules


def test_a_stream_that_only_begins_as_torchs_is_not_trusted():
    head = pickle.dumps(TORCH_MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    assert scan(head + PICKLE).level is Level.MALICIOUS
    assert scan(head + pickle.dumps({}, 2) + pickle.dumps(["0"], 2) + struct.pack("<q", -5)).level is Level.UNREADABLE
    assert scan(head + pickle.dumps({}, 2) + pickle.dumps([1], 2)).level is Level.UNREADABLE
    assert scan(head + pickle.dumps({}, 2) + PICKLE).level is Level.MALICIOUS


# -------------------------------------------------------------------------------------------------- nested, hostile bytes


def test_pickles_in_byte_strings_are_looked_into():
    for inner in (PICKLE, pickle.dumps({"deep": PICKLE}, 4)):
        found = scan(pickle.dumps([1, inner], 4))
        assert found.level is Level.MALICIOUS
        assert any("bytes at" in sign.place.member for sign in found.signs)
    assert scan(pickle.dumps([b"\x80\x04 no pickle", b"\x80\x02\xff\xff"], 4)).level is Level.CLEAN


def test_bytes_given_to_a_loader_are_looked_into_wherever_they_lay():
    others = b"".join(bare(i) + b"0" + b"C\x05other0" for i in range(9))
    for payload in (EVIL, EVIL.replace(b"true", b"x" * 70_000)):
        stored = b"B" + struct.pack("<I", len(payload)) + payload + b"r\x00\x01\x00\x000" + others
        data = b"\x80\x04" + stored + b"cio\nBytesIO\n(j\x00\x01\x00\x00tR."
        assert scan(data).level is Level.MALICIOUS
    old = b"\x80\x02cio\nBytesIO\n(c_codecs\nencode\n(" + bare(EVIL.decode()) + bare("latin1") + b"tRtR."
    assert scan(old).level is Level.MALICIOUS


def test_base64_of_a_pickle_needs_a_loader_and_that_is_seen():
    inner = b"cbase64\nb64decode\n(" + bare(base64.b64encode(PICKLE).decode()) + b"tR"
    assert scan(called("pickle", "loads", inner)).level is Level.MALICIOUS


def test_every_truncation_and_every_byte_flipped_ends_in_signs():
    data = pickle.dumps([1, {"a": Colour.RED}, datetime.date(2020, 1, 1), b"\x80\x04N."], 4) + dumped(np.arange(9))
    for at in range(len(data)):
        held(data[:at], READERS)
        held(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :], READERS)


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x80\x04", b"\x80\x02(", EVIL, b"ZF0x10", PICKLE]))
@settings(max_examples=200, deadline=None)
def test_any_bytes_end_in_signs(noise, head):
    held(head + noise, READERS)
    if head in (EVIL, PICKLE):
        assert scan(head + noise).level is Level.MALICIOUS


def test_lies_about_sizes_cost_nothing():
    for data in (
        b"\x80\x04\x8e" + b"\xff" * 8,
        b"\x80\x04B\xff\xff\xff\x7f",
        b"\x80\x04\x96" + b"\xff" * 7 + b"\x7f",
        b"\x80\x02r" * 9,
    ):
        assert "pickle/damaged" in scan(data).rules


def test_copyreg_spellings_of_python_2_are_known():
    assert copyreg._reconstructor
    data = b"\x80\x02ccopy_reg\n_reconstructor\ncargparse\nNamespace\nc__builtin__\nobject\nN\x87R."
    assert scan(data).level is Level.CLEAN
