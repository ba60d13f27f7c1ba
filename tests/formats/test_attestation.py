from __future__ import annotations

import base64
import copy
import dataclasses
import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import FormatError, IntegrityError, UsageError
from casemate.formats import attestation, canonical, digests, keys

GOLDEN = Path(__file__).parent / "golden"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
PREDICATE = attestation.Attestation(
    bundle_digest=digests.sha256_bytes(b"bundle"),
    report_digest=digests.sha256_bytes(b"report"),
    policy_digest=digests.sha256_bytes(b"policy"),
    verdict="pass",
    created=datetime.datetime(2027, 3, 31, 12, tzinfo=datetime.UTC),
    expires=datetime.datetime(2027, 9, 30, 12, tzinfo=datetime.UTC),
    casemate_version="0.1.0",
)
STATEMENT = attestation.statement({"bundle": PREDICATE.bundle_digest, "report": PREDICATE.report_digest}, PREDICATE)
ENVELOPE: Any = attestation.sign(STATEMENT, KEY)


def resigned(payload: bytes) -> dict[str, object]:
    """An envelope over any bytes, signed by the trusted key."""
    sig = KEY.sign(attestation.pae(attestation.PAYLOAD_TYPE, payload))
    named = {"keyid": keys.key_id(KEY.public_key()), "sig": base64.b64encode(sig).decode()}
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": attestation.PAYLOAD_TYPE,
        "signatures": [named],
    }


def test_the_pre_authentication_encoding_is_that_of_the_dsse_specification() -> None:
    # protocol.md of secure-systems-lab/dsse, worked example
    assert (
        attestation.pae("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert attestation.pae("é", b"") == "DSSEv1 2 é 0 ".encode()  # lengths count bytes


def test_what_was_signed_comes_back_and_names_the_audit() -> None:
    back = attestation.verify(ENVELOPE, [OTHER.public_key(), KEY.public_key()])
    assert back == STATEMENT
    assert attestation.audit_predicate(back) == PREDICATE
    assert attestation.subject_digests(back) == {"bundle": PREDICATE.bundle_digest, "report": PREDICATE.report_digest}
    assert attestation.verify(canonical.loads(canonical.dumps_pretty(ENVELOPE)), [KEY.public_key()]) == STATEMENT  # type: ignore[arg-type]


def test_the_same_statement_and_key_give_the_same_envelope_in_any_order() -> None:
    turned = attestation.statement(
        {"report": PREDICATE.report_digest, "bundle": PREDICATE.bundle_digest}, PREDICATE.to_json()
    )
    assert attestation.sign(dict(reversed(turned.items())), KEY) == ENVELOPE


def test_the_statement_has_the_shape_of_in_toto_v1() -> None:
    assert STATEMENT["_type"] == "https://in-toto.io/Statement/v1"
    assert STATEMENT["predicateType"] == "urn:casemate:audit:1"
    assert STATEMENT["subject"] == [
        {"name": "bundle", "digest": {"sha256": digests.hex_of(PREDICATE.bundle_digest)}},
        {"name": "report", "digest": {"sha256": digests.hex_of(PREDICATE.report_digest)}},
    ]


def test_the_first_released_attestation_verifies_for_ever() -> None:
    envelope: Any = canonical.loads((GOLDEN / "attestation-1.json").read_bytes())
    statement = attestation.verify(envelope, [keys.load_public(GOLDEN / "attestation-1.pub")])
    assert statement == STATEMENT
    assert attestation.audit_predicate(statement) == PREDICATE


@given(st.data())
def test_flipping_any_byte_of_payload_or_signature_is_found(data: st.DataObject) -> None:
    envelope = copy.deepcopy(ENVELOPE)
    holder, name = data.draw(st.sampled_from([(envelope, "payload"), (envelope["signatures"][0], "sig")]))
    raw = bytearray(base64.b64decode(holder[name]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    holder[name] = base64.b64encode(raw).decode()
    with pytest.raises(IntegrityError, match=r"bad signature .* changed after signing"):
        attestation.verify(envelope, [KEY.public_key()])


@given(st.data())
def test_changing_any_character_of_any_field_is_found(data: st.DataObject) -> None:
    envelope = copy.deepcopy(ENVELOPE)
    holder, name = data.draw(
        st.sampled_from(
            [(envelope, "payload"), (envelope, "payloadType")]
            + [(envelope["signatures"][0], name) for name in ("sig", "keyid")]
        )
    )
    text = holder[name]
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters().filter(lambda letter: letter != text[place]) | st.just(""))
    holder[name] = text[:place] + letter + text[place + 1 :]
    with pytest.raises(IntegrityError):
        attestation.verify(envelope, [KEY.public_key()])


def test_each_fault_has_its_own_message() -> None:
    signature = ENVELOPE["signatures"][0]
    moved = attestation.sign(attestation.statement({"x": PREDICATE.bundle_digest}, {}, predicate_type="urn:x"), KEY)
    base64_url = base64.urlsafe_b64encode(b"\xff" * 64).decode()
    cases: list[tuple[dict[str, object], str]] = [
        ({"payloadType": "application/json"}, "wrong payload type"),
        ({"payload": moved["payload"]}, "bad signature .* payload or signature was changed"),
        ({"payload": ENVELOPE["payload"] + "\n"}, "non-canonical base64"),
        ({"payload": 5}, "non-canonical base64"),
        ({"signatures": []}, "empty signatures"),
        ({"signatures": None}, "empty signatures"),
        ({"signatures": ["x"]}, "with keyid and sig"),
        ({"signatures": [{"sig": signature["sig"]}]}, "with keyid and sig"),
        (
            {"signatures": [signature | {"sig": signature["sig"].rstrip("=")}]},
            "non-canonical base64: expected the signature",
        ),
        ({"signatures": [signature | {"sig": base64_url}]}, "non-canonical base64"),
        (
            {"signatures": [signature | {"sig": base64.b64encode(b"short").decode()}]},
            "bad signature .* expected 64 bytes, got 5",
        ),
        ({"signatures": [signature | {"keyid": "ed25519:0000000000000000"}]}, "unknown key"),
        ({"signatures": [signature] * 101}, "at most 100 signatures"),
    ]
    for change, message in cases:
        with pytest.raises(IntegrityError, match=message):
            attestation.verify(ENVELOPE | change, [KEY.public_key()])
    with pytest.raises(IntegrityError, match="unknown key"):
        attestation.verify(ENVELOPE, [OTHER.public_key()])
    with pytest.raises(IntegrityError, match="expected a DSSE envelope"):
        attestation.verify([], [KEY.public_key()])  # type: ignore[arg-type]  # what is tested
    with pytest.raises(UsageError, match="at least one public key"):
        attestation.verify(ENVELOPE, [])


def test_base64_with_set_padding_bits_is_refused() -> None:
    # a signature is 64 bytes: the letter before "==" carries four bits that decoders ignore
    sig = ENVELOPE["signatures"][0]["sig"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = sig[:-3] + alphabet[alphabet.index(sig[-3]) + 1] + "=="
    assert base64.b64decode(other, validate=True) == base64.b64decode(sig)
    envelope = ENVELOPE | {"signatures": [ENVELOPE["signatures"][0] | {"sig": other}]}
    with pytest.raises(IntegrityError, match="non-canonical base64"):
        attestation.verify(envelope, [KEY.public_key()])


def test_a_second_signature_by_a_stranger_is_passed_over_but_a_bad_one_by_a_trusted_key_is_not() -> None:
    stranger = attestation.sign(STATEMENT, OTHER)["signatures"]
    both = ENVELOPE | {"signatures": [*stranger, *ENVELOPE["signatures"]]}  # type: ignore[misc]
    assert attestation.verify(both, [KEY.public_key()]) == STATEMENT
    assert attestation.verify(both, [KEY.public_key(), OTHER.public_key()]) == STATEMENT
    bad = {"keyid": keys.key_id(OTHER.public_key()), "sig": ENVELOPE["signatures"][0]["sig"]}
    with pytest.raises(IntegrityError, match="bad signature"):
        attestation.verify(
            ENVELOPE | {"signatures": [*ENVELOPE["signatures"], bad]}, [KEY.public_key(), OTHER.public_key()]
        )


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        b"[]",
        b"{}",
        canonical.dumps(STATEMENT | {"_type": "x"}),
        canonical.dumps(STATEMENT | {"subject": []}),
        canonical.dumps(STATEMENT | {"more": 1}),
        canonical.dumps(STATEMENT | {"predicate": 1}),
        canonical.dumps(STATEMENT | {"subject": STATEMENT["subject"] * 2}),  # type: ignore[operator]
        canonical.dumps(STATEMENT | {"subject": [{"name": "x", "digest": {"md5": "0"}}]}),
        canonical.dumps(STATEMENT | {"subject": ["x"]}),
    ],
)
def test_a_well_signed_payload_that_is_no_statement_is_refused(payload: bytes) -> None:
    with pytest.raises(IntegrityError, match="signed, but not an in-toto statement"):
        attestation.verify(resigned(payload), [KEY.public_key()])


def test_a_statement_needs_subjects_with_digests() -> None:
    with pytest.raises(UsageError, match="at least one subject"):
        attestation.statement({}, PREDICATE)
    with pytest.raises(FormatError, match="64 hex digits"):
        attestation.statement({"x": "md5:0"}, PREDICATE)
    with pytest.raises(FormatError, match="in-toto statement"):
        attestation.sign({"a": 1}, KEY)


def test_a_predicate_round_trips_and_equal_instants_are_equal_records() -> None:
    assert attestation.Attestation.from_json(canonical.loads(canonical.dumps(PREDICATE.to_json()))) == PREDICATE
    there = PREDICATE.created.astimezone(datetime.timezone(datetime.timedelta(hours=5)))
    moved = dataclasses.replace(PREDICATE, created=there)
    assert moved == PREDICATE
    assert moved.to_json() == PREDICATE.to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"bundle_digest": "x"},
        {"report_digest": 1},
        {"verdict": ""},
        {"verdict": "x" * 101},
        {"created": "2027-03-31"},
        {"casemate_version": None},
        {"expires": "2027-03-31T12:00:00Z"},
        {"created": "2028-03-31T12:00:00Z"},
        {"more": "x"},
    ],
)
def test_a_predicate_is_read_strictly(change: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        attestation.Attestation.from_json(PREDICATE.to_json() | change)


def test_a_predicate_of_another_kind_or_with_a_key_missing_is_refused() -> None:
    with pytest.raises(FormatError, match="predicate type"):
        attestation.audit_predicate(STATEMENT | {"predicateType": "urn:x"})
    short = {key: value for key, value in PREDICATE.to_json().items() if key != "verdict"}
    for value in (short, None, [], "x"):
        with pytest.raises(FormatError, match="exactly bundle_digest"):
            attestation.Attestation.from_json(value)
    with pytest.raises(FormatError, match="aware datetime"):
        dataclasses.replace(PREDICATE, created=datetime.datetime(2027, 1, 1))
