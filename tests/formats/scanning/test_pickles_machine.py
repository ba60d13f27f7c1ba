# ruff: noqa: E501 (hand-made pickles)
"""The symbolic machine against CPython's own: same end, same names, same containers, on anything that can be pickled."""

from __future__ import annotations

import collections
import contextlib
import datetime
import decimal
import fractions
import io
import pickle
import pickletools
import random
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import CORPUS

from casemate.formats.scanning.desk import Damaged
from casemate.formats.scanning.limits import LimitReached
from casemate.formats.scanning.pickles import batches, runs
from casemate.formats.scanning.pickles import machine as machines
from casemate.formats.scanning.pickles.opcodes import begun
from casemate.formats.scanning.pickles.values import DATA, Held, Made, plain


class Ear:
    """A judge that writes down what it hears."""

    def __init__(self):
        self.names, self.calls, self.odds, self.codes = [], 0, [], {}

    def imported(self, what):
        self.names.append((what.module, what.name))

    def called(self, what):
        self.calls += 1

    def built(self, target, state, machine):
        return 0

    def filled(self, target, kind, at, opcode):
        self.odds += [] if type(target) is Made else ["items"]

    def odd(self, rule, what, at, opcode):
        self.odds.append(rule)

    def vast(self, what, at, opcode):
        self.odds.append("vast")

    def nested(self, at, size):
        pass

    def extension(self, code, at, opcode):
        return DATA

    def persistent(self, key, at, opcode):
        return None

    def tick(self):
        pass


class Recorder(pickle._Unpickler):
    """CPython's own machine that imports nothing: each name becomes an inert stand-in."""

    def __init__(self, data):
        super().__init__(io.BytesIO(data))
        self.names = []
        self.stand_in = type("StandIn", (Inert,), {})  # its own, since a pickle may set attributes of it

    def find_class(self, module, name):
        self.names.append((module, name))
        return self.stand_in

    def persistent_load(self, pid):
        return self.stand_in()

    def get_extension(self, code):
        self.append(self.stand_in)


class Inert(dict):
    """Stands for any class, function or object, and takes whatever is done to it."""

    def __new__(cls, *args, **named):
        return dict.__new__(cls)

    def __init__(self, *args, **named):
        super().__init__()

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def __hash__(self):
        return id(self)

    def __eq__(self, other):
        return self is other

    def append(self, item):
        pass

    def extend(self, items):
        pass

    def add(self, item):
        pass


def follow(data, at=0):
    ear = Ear()
    machine = begun(data, ear, at)
    machine.run()
    return machine, ear


def heard(data):
    """Names that the machine saw before it ended, in whatever way."""
    ear = Ear()
    with contextlib.suppress(Damaged, LimitReached):
        begun(data, ear).run()
    return set(ear.names)


def recorded(data):
    recorder = Recorder(data)
    with contextlib.suppress(Exception):
        recorder.load()
    return set(recorder.names)


ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=300), st.complex_numbers(),
    st.datetimes(), st.uuids(), st.fractions(), st.decimals(),
    st.sampled_from([len, dict, collections.OrderedDict, datetime.date, "x" * 300, 1 << 3000, range(3), slice(1, 2)]),
)  # fmt: skip
KEYS = st.one_of(st.text(), st.integers(), st.booleans(), st.tuples(st.integers(), st.text()))
THINGS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner), st.tuples(inner, inner), st.tuples(inner, inner, inner, inner),
        st.dictionaries(KEYS, inner), st.frozensets(KEYS), st.sets(KEYS),
        st.builds(lambda item: [item, item, [item]], inner),
        st.builds(lambda items: collections.deque(items), st.lists(inner)),
    ),
    max_leaves=30,
)  # fmt: skip


@given(THINGS, st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_it_ends_where_pickle_ends_and_imports_what_pickle_imports(thing, protocol):
    data = pickle.dumps(thing, protocol)
    machine, ear = follow(data + b"more")
    recorder = Recorder(data)
    recorder.find_class = lambda module, name: (
        recorder.names.append((module, name)) or pickle._Unpickler.find_class(recorder, module, name)
    )
    recorder.load()
    assert machine.at == len(data)
    assert ear.names == recorder.names
    assert not ear.odds
    assert machine.calls == sum(op.name in CALLS for op, _, _ in pickletools.genops(data))


CALLS = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ"}


def shape_of(value):
    """A value as the machine shows it: containers with their parts, numbers and short texts as they are."""
    if type(value) is Held:
        parts = [shape_of(part) for part in value.values()]
        return (value.kind, parts)
    return plain(value)


@given(
    st.lists(
        st.one_of(
            st.integers(-(2**63), 2**63), st.booleans(), st.none(), st.floats(allow_nan=False), st.text(max_size=80)
        )
    ),
    st.integers(2, 5),
)
@settings(max_examples=100, deadline=None)
def test_plain_values_are_read_as_they_are(items, protocol):
    machine, _ = follow(pickle.dumps(items, protocol))
    assert shape_of(machine.value) == ("list", items)


def dense(seed):
    """Large plain data of the kinds that are followed many opcodes at a time, with names before, between and behind."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(0, 90 if rng.random() < 0.05 else 9))) for _ in range(400)]
    word = lambda: rng.choice(words)  # noqa: E731
    makers = [
        lambda: rng.randint(-(2**40), 2**40), rng.random, word, lambda: None, lambda: rng.choice([True, {}, [], ()]),
        lambda: [word(), rng.random()], lambda: {"id": rng.randint(0, 9), word(): [word(), {word(): 1}]},
        lambda: (word(), 1), lambda: (1, 2.0, word()), lambda: {word()}, lambda: (1, 2, 3, word(), 5),
        lambda: [[[[word()]]]], lambda: b"\x80bytes", lambda: {word(): word()},
    ]  # fmt: skip
    chosen = rng.sample(makers, rng.randint(1, 4))
    items = [rng.choice(chosen)() for _ in range(rng.randint(900, 4000))]
    rare = rng.choice([[], [decimal.Decimal(1)], [uuid.UUID(int=1)] * 3, [fractions.Fraction(1, 3)]])
    for thing in rare:
        items.insert(rng.randint(0, len(items)), thing)
    return rng.choice([items, {i: item for i, item in enumerate(items)}, tuple(items), [items, items, rare]])


@pytest.mark.parametrize("seed", range(40))
def test_runs_and_batches_give_what_single_opcodes_give(seed, monkeypatch):
    data = pickle.dumps([dense(seed), len, datetime.date(2020, 1, 1), dense(seed)], random.Random(seed).randint(2, 5))
    fast, ear = follow(data)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "_LEAST", 1 << 60)
        patch.setattr(batches, "_LEAST", 1 << 60)
        slow, other = follow(data)
    assert fast.at == slow.at == len(data)
    assert (ear.names, ear.calls, ear.odds) == (other.names, other.calls, other.odds)
    assert fast.memo.size == slow.memo.size
    for index in range(slow.memo.size):
        quick, sure = fast.memo.get(index), slow.memo.get(index)
        if type(sure) is Held:
            assert quick.kind == sure.kind
            assert quick.cut or same_parts(quick, sure)
        elif type(sure) is bytes:
            assert plain(quick) == plain(sure)


def same_parts(quick, sure):
    parts = [[part.kind if type(part) is Held else repr(part) for part in held.values()] for held in (quick, sure)]
    return [text for text in parts[0] if " object at " not in text] == [
        text for text in parts[1] if " object at " not in text
    ]


def test_batches_are_really_taken():
    rows = [{"id": i, "name": f"n{i}", "tags": ["a", f"t{i}"]} for i in range(3000)]
    machine, _ = follow(pickle.dumps(rows, 4))
    assert machine.value.cut
    assert machine.value.weight >= 3000
    assert machine.crowd < 500


def test_a_set_in_an_old_protocol_is_followed_in_a_run(monkeypatch):
    monkeypatch.setattr(runs, "_LEAST", 0)  # was a KeyError: protocol 2 with an opcode of protocol 4
    machine, _ = follow(b"\x80\x02(NNN\x8fq\x00(NN\x90t.")
    assert shape_of(machine.value) == ("tuple", [None, None, None, ("set", [None, None])])


def test_a_name_hidden_in_a_batch_is_still_a_name():
    filler = [f"w{i}" for i in range(3000)]
    head = pickle.dumps([*filler, "os", "system"], 4)[:-1]
    memo = begun(head + b".", Ear())
    memo.run()
    where = {plain(memo.memo.get(i)): i for i in range(memo.memo.size) if type(memo.memo.get(i)) is bytes}
    get = lambda text: b"j" + where[text].to_bytes(4, "little")  # noqa: E731
    _, ear = follow(head + b"0" + get("os") + get("system") + b"\x93)R.")
    assert ear.names == [("os", "system")]


def test_names_hidden_by_overwriting_the_memo_are_seen():
    data = b"\x80\x04\x8c\x05printq\x000\x8c\x02osq\x000h\x00\x8c\x06system\x93."
    assert heard(data) == recorded(data) == {("os", "system")}


def test_a_memo_from_one_and_with_gaps_is_kept_as_python_keeps_it():
    for put in (b"q\x01", b"r\x07\x00\x00\x00", b"r\xff\xff\xff\x7f"):
        get = put.replace(b"q", b"h").replace(b"r", b"j")
        data = b"\x80\x04\x8c\x02os" + put + b"0\x8c\x06system\x940" + get + b"\x8c\x04stat\x93."
        assert heard(data) == recorded(data) == {("system" if put == b"q\x01" else "os", "stat")}


DENSE = [
    [1, 2.5, "os", None], {"os": [1, {"system": 2}], "b": ("os", 3)}, ["os", "system", "os", ("os",), ["system"] * 3],
    {"a": "b", "c": "d", "e": {"os"}}, [["os", ["system", ["os", ["print"]]]]] * 2, tuple("abcdefgh"),
]  # fmt: skip


def malicious():
    import tarfile

    if not CORPUS.exists():
        pytest.skip("the corpus is not beside this checkout")
    with tarfile.open(CORPUS) as archive:
        for member in archive:
            if member.isfile() and "malicious" in member.name and member.name.endswith((".pkl", ".p", ".bin", ".dill")):
                data = archive.extractfile(member).read()
                if len(data) < 500:
                    yield data


@pytest.mark.parametrize("least", [2048, 0])
def test_what_pickle_would_import_of_mutated_malicious_files_is_seen(least, monkeypatch):
    monkeypatch.setattr(runs, "_LEAST", least)  # with 0 the smallest runs and batches are followed as large ones are
    monkeypatch.setattr(batches, "_LEAST", least)
    monkeypatch.setattr(batches, "_WORTH", least)
    rng = random.Random(5 + least)
    seeds = sorted(set(malicious()))
    assert len(seeds) > 80
    if not least:
        seeds += [pickle.dumps([item, len, item, ("os", 1), "system"], p) for item in DENSE for p in (2, 4)] * 10
    opcodes = [op.code.encode("latin-1") for op in pickletools.opcodes]
    imports = 0
    for _ in range(12_000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            way = rng.random()
            if way < 0.3:
                data[at] = rng.randrange(256)
            elif way < 0.7:
                data[at:at] = rng.choice(opcodes)
            elif way < 0.85:
                del data[at : at + rng.randint(1, 3)]
            else:
                data[at:at] = rng.choice(seeds)[:40]
            data = data or bytearray(b".")
        found = recorded(bytes(data))
        imports += bool(found)
        assert found <= heard(bytes(data)), bytes(data)
    assert imports > 2_000


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x80\x04", b"(", b"]\x94("]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_end_and_show_what_pickle_would_import(noise, head):
    assert recorded(head + noise) <= heard(head + noise)


def test_every_truncation_is_damaged_and_never_another_error():
    data = pickle.dumps([{"a": (1, 2.5, b"x", "y" * 300)}, datetime.date(2020, 1, 1), 1 << 70], 4)
    for end in range(len(data)):
        with pytest.raises(Damaged):
            follow(data[:end])


def test_containers_that_hold_each_other_weigh_what_a_copy_would():
    data = b"\x80\x02]q\x00" + b"".join(
        b"](" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(40)
    )
    machine, _ = follow(data + b".")
    assert machine.heaviest > 2**40


def test_too_many_objects_end_the_scan_and_not_the_memory(monkeypatch):
    monkeypatch.setattr(machines, "MOST", 1 << 14)
    for many in (b"]\x940", b"]0", b")\x85", b"]\x94", b"cos\nfoo\n", b"clist\nlist\n)R0"):
        with pytest.raises(LimitReached, match="objects"):
            follow(b"\x80\x04" + many * 80_000 + b"N.")


def test_too_high_a_stack_ends_the_scan_and_not_the_memory(monkeypatch):
    monkeypatch.setattr(machines, "DEEPEST", 1 << 16)
    for many in (b"N", b"(", b"K\x01", b"\x8c\x00"):
        with pytest.raises(LimitReached, match="piles up"):
            follow(b"\x80\x04" + many * 140_000 + b".")
