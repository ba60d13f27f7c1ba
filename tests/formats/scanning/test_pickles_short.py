"""The quick ways of short pickles against the slow ones: the same signs and names, whatever the bytes."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest

from casemate.formats.scanning.desk import Damaged
from casemate.formats.scanning.pickles import judge, machine, states
from casemate.formats.scanning.pickles.opcodes import begun
from casemate.formats.scanning.pickles.values import Global, Held, Made, means, told_apart
from casemate.formats.scanning.readers import _protobuf
from casemate.formats.scanning.readers.pickles import _Trial
from casemate.formats.scanning.signs import Level
from casemate.formats.scanning.source import Source
from casemate.formats.scanning.walking import scan_bytes

OPCODES = b"(.012JKMNRbcehioqrst}]\x81\x85\x86\x87\x88\x8c\x93\x94"


class Harmful:
    def __reduce__(self):
        return print, ("inert",)


def said(data):
    found = scan_bytes(data, "m.pkl")
    return found.level, found.signs, found.used, found.members


def mutated(data, rng):
    out = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(out))
        change = rng.randrange(4)
        if change == 0:
            out[at] = rng.choice(OPCODES)
        elif change == 1:
            del out[at : at + rng.randrange(1, 6)]
        elif change == 2:
            out[at:at] = out[max(0, at - 9) : at]
        else:
            out[at] ^= 1 << rng.randrange(8)
        out = out or bytearray(data)
    return bytes(out)


def seeds():
    array = np.arange(6.0).reshape(2, 3)
    things = [
        array,
        {"a": [1, (2, "b"), (None,)], "c": b"bytes"},
        [np.float64(1), array.dtype],
        Harmful(),
        [(1, 2, 3)] * 4,
    ]
    return [pickle.dumps(thing, protocol) for thing in things for protocol in range(6)]


def test_quick_and_slow_ways_say_the_same_of_mutations(monkeypatch):
    rng, whole = random.Random(4), seeds()
    files = whole + [mutated(rng.choice(whole), rng) for _ in range(2500)]
    quick = [said(data) for data in files]
    monkeypatch.setattr(machine.Machine, "_begin", lambda self: None)
    monkeypatch.setattr(judge, "told_apart", lambda *_: None)
    monkeypatch.setattr(states, "_mean_nothing", lambda keys: False)
    monkeypatch.setattr(_protobuf, "_is_none", lambda data, end: False)
    for data, one in zip(files, quick, strict=True):
        assert said(data) == one, data
    levels = {one[0] for one in quick}
    assert {Level.CLEAN, Level.MALICIOUS, Level.SUSPICIOUS, Level.UNREADABLE} <= levels


def test_a_harmless_call_says_nothing_of_one_with_other_arguments():
    def attribute(name):
        text = bytes([len(name)]) + name
        return b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93\x8c\x05numpy\x8c\x07ndarray\x93\x8c" + text + b"\x86R."

    quiet = b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02f8\x89\x88\x87R."
    assert said(quiet)[0] is Level.CLEAN
    assert said(quiet)[0] is Level.CLEAN  # from memory
    assert said(attribute(b"__class__"))[0] is Level.MALICIOUS
    assert said(quiet.replace(b"\x8c\x02f8", b"\x8c\x02os\x8c\x06system\x93"))[0] is Level.MALICIOUS


def test_keys_of_calls_are_equal_for_equal_arguments_only():
    name = Global("numpy", "dtype", 0, "GLOBAL")

    def key(*args, by=name, opcode="REDUCE"):
        return told_apart(Made(by, list(args), 0, opcode))

    one, two = b"\x8c\x01a", b"\x8c\x01b"
    keys = [
        key(), key(one), key(one, two), key(two, one), key(Held("tuple", [one, two])), key(Held("list", [one, two])),
        key(one, Held("tuple")), key(Held("tuple"), one), key(name), key(one, opcode="NEWOBJ"),
        key(one, by=Global("numpy", "array", 0, "GLOBAL")),
    ]  # fmt: skip
    assert None not in keys
    assert len(set(keys)) == len(keys)
    deep = Held("tuple", [name])
    for _ in range(5000):
        deep = Held("tuple", [deep])
    assert key(deep) is None
    assert key(Made(name, [], 0, "REDUCE")) is None  # its state may still change
    assert key(b"\x8c\xff" + b"a" * 255) is None


def test_every_key_that_a_class_runs_is_one_that_is_never_dropped():
    assert all(means(key.encode()) for key in states._RUN)
    assert means(b"_parse_arg_template")
    assert means(b"__class__")


def test_what_is_seen_at_once_to_be_no_message_is_none():
    rng, none = random.Random(2), 0
    for _ in range(20_000):
        data = bytes(rng.choice((rng.randrange(256), 0, 8, 10, 0x80, 0xFF)) for _ in range(rng.randrange(1, 40)))
        if _protobuf._is_none(data, len(data)):
            none += 1
            with pytest.raises(Damaged):
                list(_protobuf.fields_of(data, 0, len(data), _protobuf.Peek(Source("x", data))))
    assert none > 2000


def test_an_array_of_joblib_without_a_dtype_is_damaged_at_a_byte():
    wrapper = b"\x80\x04\x8c\x13joblib.numpy_pickle\x8c\x11NumpyArrayWrapper\x93)\x81}(\x8c\x05dtype]\x8c\x05shape)ub."
    (sign,) = (sign for sign in said(wrapper)[1] if sign.level is Level.UNREADABLE)
    assert sign.place.offset is None  # a list has no place


def test_rows_of_nested_containers_are_followed_in_batches_and_are_no_bomb():
    rows = [{f"k{i}-{n}": [n, n / 7, f"text {n}", (n % 7, None)] for n in range(500)} for i in range(60)]
    data = pickle.dumps(rows, 4)
    assert said(data)[0] is Level.CLEAN
    follower = begun(data, _Trial())
    follower.run()
    assert follower.at == len(data)
    assert follower.crowd < 3000  # of 60,000 lists and tuples: those of the first row, and what comes before a batch
