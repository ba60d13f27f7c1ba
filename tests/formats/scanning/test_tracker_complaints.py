"""Benign files of which users of other scanners complain: each has the verdict that it deserves.

The cases are shared with `benchmarks/evidence_complaints.py`, which asks the other scanners too.
"""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.complaint_files import Call, Case, Name, cases, module, pickled, saved, tensor

from casemate.formats.scanning.signs import Level, Place, Sign, beyond_chance
from casemate.formats.scanning.walking import scan_bytes

CASES = [pytest.param(case, id=f"{case.thread}: {case.what}") for case in cases()]


def level(data: bytes, name: str = "m.pt") -> Level:
    return scan_bytes(data, name).level


@pytest.mark.parametrize("case", CASES)
def test_what_users_complain_of_is_judged_as_it_deserves(case: Case) -> None:
    scanned = scan_bytes(case.make(), case.name)
    assert scanned.level == case.right, [f"{sign.rule}: {sign.what}" for sign in scanned.signs[:5]]


# ------------------------------------------------------------------- what is let through for them lets nothing else in


def test_the_twins_that_do_harm_are_alarms() -> None:
    evil = pickled(Call("os system", "true"))
    for body in (evil, b"\x80\x04" + evil[2:], b"cos\nsystem\n(S'true'\ntR."):
        hidden = saved({"w": tensor()}, {"7": body + bytes(40)})
        assert level(hidden) is Level.MALICIOUS, body
    assert level(
        saved({"x": Call("__builtin__ getattr", Name("ultralytics.nn.modules.head Detect"), "__globals__")})
    ) is (Level.MALICIOUS)
    assert level(b"\xff" * 8 + b"{}", "m.safetensors") is Level.MALICIOUS
    assert level(b"\xff" * 8 + b'{"a": {}}', "m.bin") is Level.MALICIOUS


def test_settings_with_an_optimizer_are_clean_unless_it_calls_what_it_is_given() -> None:
    def bound(name: str) -> bytes:
        return saved({"optimizer": Call("functools partial", Name(name), state=(Name(name), (), {"lr": 0.1}, None))})

    assert level(bound("torch.optim.adamw AdamW")) is Level.CLEAN
    assert level(bound("torch.optim.lr_scheduler ReduceLROnPlateau")) is Level.CLEAN
    assert level(bound("torch.optim.lr_scheduler LambdaLR")) is Level.SUSPICIOUS


@pytest.mark.parametrize(
    "value",
    [
        Call("pytorch_lightning.callbacks.model_checkpoint ModelCheckpoint"),  # kept as a key, never called
        Call("ultralytics.nn.modules.head Detect.forward", 1),
        Call("__builtin__ getattr", Name("ultralytics.nn.modules.head Detect"), "fuse"),
        Call("flair.data Dictionary.load_from_file", "x"),
        module("trl.trainer.sft_trainer SFTTrainer"),
    ],
)
def test_what_their_names_are_not_for_is_told(value: Call) -> None:
    assert level(saved({"x": value})) in (Level.SUSPICIOUS, Level.MALICIOUS)


@pytest.mark.parametrize("kind", ["u1", "i1", "f2", "f4", "f8", "i8"])
def test_files_of_mere_numbers_are_no_alarm(kind: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        data = (
            rng.normal(size=512).astype(kind).tobytes() if kind[0] == "f" else rng.integers(0, 100, 512, kind).tobytes()
        )
        assert level(data, "model_data.bin") in (Level.UNKNOWN, Level.UNREADABLE)


def test_a_sign_by_chance_is_dropped_and_one_with_a_name_keeps_them_all() -> None:
    def sign(rule: str, subject: str = "") -> Sign:
        return Sign(Level.SUSPICIOUS, rule, "", Place(""), "", "", subject=subject)

    odd, noise = sign("pickle/extension-code"), sign("pickle/unknown-name", "\x11.b\x02")
    named, other = sign("pickle/unknown-name", "mymodel.Model"), sign("zip/path")
    assert not list(beyond_chance([odd, noise]))
    assert list(beyond_chance([odd, named])) == [odd, named]
    assert list(beyond_chance([odd, other])) == [odd, other]


def test_event_files_of_tensorboard_are_data() -> None:
    begins = bytes.fromhex("1800000000000000a37f4b22")  # so begins every one of them
    first = begins + b"\x09" + bytes(8) + b"\x1a\x0dbrain.Event:2" + bytes(4)
    assert scan_bytes(first * 9, "events.out.tfevents.1.host").formats == ("tfrecord",)
    assert level(first * 9) is Level.CLEAN
    for broken in (first[:-1], first + b"x", first + begins[:-1] + b"\0" + first[12:]):
        assert level(broken, "events.out.tfevents.1.host") is Level.UNREADABLE
    assert level(bytes(8) + first[8:], "m.bin") is Level.UNKNOWN


def piece(text: bytes, field: bytes = b"\x0a") -> bytes:
    """One entry of a SentencePiece vocabulary: its text and score."""
    body = b"\x0a" + bytes([len(text)]) + text + b"\x15" + bytes(4)
    return field + bytes([len(body)]) + body


def test_vocabularies_of_sentencepiece_are_data() -> None:
    pieces = piece(b"<unk>") + piece(b"os.system") + piece(b"\xe2\x96\x81eval")
    whole = pieces + b"\x12\x05\x0a\x03x.t" + b"\x1a\x02\x0a\x00"  # how it was trained, how texts are normalised
    assert scan_bytes(whole, "tokenizer.model").formats == ("sentencepiece",)
    assert level(whole, "spiece.model") is Level.CLEAN
    for broken in (pieces, whole[:-1], whole + piece(b"x", b"\x3a"), pieces + b"\x12\x00" + b"\x0a\x02\x80\x02"):
        assert level(broken, "spiece.model") is Level.UNREADABLE
