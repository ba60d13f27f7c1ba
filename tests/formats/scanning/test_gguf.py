from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.chat_templates import CHATML
from tests.formats.scanning.desks import PICKLE, Looked, corpus, held, looked

from casemate.formats.scanning.readers import gguf
from casemate.formats.scanning.signs import Level

EVIL = "{{ ''.__class__ }}"
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def look(data: bytes) -> Looked:
    return looked(data, gguf.READERS, name="m.gguf")


class Made:
    """A writer of GGUF, by its specification."""

    def __init__(self, version: int = 3, order: str = "<") -> None:
        self.version, self.order, self.size = version, order, "I" if version == 1 else "Q"
        self.pairs: list[bytes] = []
        self.tensors: list[bytes] = []

    def pack(self, form: str, *values: object) -> bytes:
        return struct.pack(self.order + form, *values)

    def text(self, text: str) -> bytes:
        data = text.encode()
        return self.pack(self.size, len(data)) + data

    def pair(self, key: str, kind: int, value: bytes) -> Made:
        self.pairs.append(self.text(key) + self.pack("I", kind) + value)
        return self

    def string(self, key: str, text: str) -> Made:
        return self.pair(key, 8, self.text(text))

    def array(self, key: str, kind: int, items: list[bytes], count: int | None = None) -> Made:
        return self.pair(
            key, 9, self.pack("I" + self.size, kind, len(items) if count is None else count) + b"".join(items)
        )

    def tensor(self, name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> Made:
        dims = b"".join(self.pack(self.size, n) for n in shape)
        self.tensors.append(self.text(name) + self.pack("I", len(shape)) + dims + self.pack("IQ", kind, offset))
        return self

    def done(self, data: bytes = b"", pairs: int | None = None, alignment: int = 32) -> bytes:
        count = len(self.pairs) if pairs is None else pairs
        head = (
            b"GGUF"
            + self.pack("I" + 2 * self.size, self.version, len(self.tensors), count)
            + b"".join([*self.pairs, *self.tensors])
        )
        return head + b"\0" * (-len(head) % alignment) + data if data else head


@pytest.mark.parametrize(("version", "order"), [(1, "<"), (2, "<"), (3, "<"), (3, ">"), (2, ">")])
def test_models_of_every_version_and_byte_order_are_clean_and_their_templates_are_read(
    version: int, order: str
) -> None:
    made = Made(version, order)
    for kind, form in NUMBERS.items():
        made.pair(f"number.{kind}", kind, made.pack(form, 1))
        made.array(f"numbers.{kind}", kind, [made.pack(form, 1)] * 3)
    made.string("general.name", "llama").string("tokenizer.chat_template", CHATML)
    made.array(
        "tokenizer.ggml.tokens", 8, [made.text(word) for word in ("<s>", "__class__", "{{ ''.__class__ }}", "os")]
    )
    made.array("nested", 9, [made.pack("I" + made.size, 4, 2) + made.pack("II", 1, 2)] * 2)
    made.tensor("a", (32, 2), 2, 0).tensor("b", (4,), 0, 64)
    data = made.done(b"\0" * 80)
    found = look(data)
    assert not found.signs, [(sign.rule, sign.what) for sign in found.signs]
    assert not found.handed
    for key in ("tokenizer.chat_template", "tokenizer.chat_template.tool_use"):
        evil = Made(version, order).string("general.name", "x").string(key, EVIL).done()
        assert look(evil).rules == {"jinja/escape"}


def test_a_template_after_thousands_of_keys_and_behind_a_broken_one_is_seen() -> None:
    made = Made()
    for index in range(3000):
        made.string(f"note.{index}", "x" * 40)
    made.string("tokenizer.chat_template.a", "{% broken").string("tokenizer.chat_template", EVIL)
    found = look(made.done())
    assert {"jinja/escape", "jinja/damaged"} <= found.rules


@pytest.mark.parametrize("kind", [0, 4, 8, 9, 12])
def test_an_array_that_claims_more_than_the_file_is_malicious(kind: int) -> None:
    assert look(Made().array("tokenizer.ggml.tokens", kind, [], 1 << 61).done()).level is Level.MALICIOUS


def test_counts_that_lie_are_malicious() -> None:
    assert look(Made().done(pairs=1 << 60)).level is Level.MALICIOUS
    assert look(b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0)).level is Level.MALICIOUS


def test_other_damage_is_unreadable() -> None:
    assert look(Made(7).done()).level is Level.UNREADABLE
    assert look(Made().pair("a", 77, b"").done()).level is Level.UNREADABLE
    assert (
        look(Made().pair("general.alignment", 4, struct.pack("<I", 3)).tensor("a", (1,)).done(b"\0" * 4)).level
        is Level.UNREADABLE
    )
    assert look(Made().string("a", "b").done(pairs=2)).level is Level.UNREADABLE
    deep = struct.pack("<IQ", 9, 1) * 40 + struct.pack("<IQ", 4, 0)
    assert look(Made().pair("a", 9, deep).done()).level is Level.UNREADABLE


def test_tensors_beyond_the_file_and_bytes_behind_them_are_suspicious() -> None:
    assert look(Made().tensor("a", (1 << 40,)).done(b"\0" * 64)).rules == {"gguf/tensor"}
    assert look(Made().tensor("a", (1,), 0, 1 << 62).done(b"\0" * 64)).rules == {"gguf/tensor"}
    assert "gguf/length" in look(Made().tensor("a", (1,), 0, 1 << 63).done(b"\0" * 64)).rules
    found = look(Made().tensor("a", (8,)).done(b"\0" * 32 + PICKLE))
    assert found.rules == {"gguf/trailing"}
    assert list(found.handed.values()) == [PICKLE]
    assert look(Made().string("a", "1").string("a", "2").done()).rules == {"gguf/same-key"}
    assert look(Made().string("note", "hf_" + "QwRtYpSdGhJkLzXcVbNmqWrTyPsDgHjKlZ").done()).rules == {
        "secret/credential"
    }


@pytest.mark.parametrize(
    ("path", "level"),
    [
        ("benign/generated/gguf/chatml.gguf", Level.CLEAN), ("benign/generated/gguf/llama3.gguf", Level.CLEAN),
        ("gguf/array_overflow.gguf", Level.MALICIOUS), ("gguf/dos_range.gguf", Level.MALICIOUS),
        ("gguf/late_kv.gguf", Level.MALICIOUS), ("gguf/ssti_set_var.gguf", Level.MALICIOUS),
        ("gguf/prompt_poison.gguf", Level.SUSPICIOUS),
    ],
)  # fmt: skip
def test_files_of_the_corpus(path: str, level: Level) -> None:
    assert look(corpus(path)).level is level


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 400), st.integers(0, 255), st.booleans())
def test_damaged_files_end_without_failing(at: int, byte: int, cut: bool) -> None:
    made = (
        Made().string("tokenizer.chat_template", CHATML[:100]).array("tokenizer.ggml.tokens", 8, [Made().text("a")] * 3)
    )
    data = bytearray(made.tensor("a", (8,)).done(b"\0" * 32))
    data[at % len(data)] = byte
    held(bytes(data[:at] if cut else data), gguf.READERS)
