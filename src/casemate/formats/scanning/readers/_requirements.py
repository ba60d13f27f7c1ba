"""Lists of packages: what they install from where else than the package index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from casemate.formats.scanning.desk import Damaged
from casemate.formats.scanning.readers._plain import words
from casemate.formats.scanning.readers._signs import SUSPICIOUS, noted, shown
from casemate.formats.scanning.signs import Sign
from casemate.formats.scanning.source import Source

__all__ = ["requirement_signs"]

_OFFICIAL: Final = re.compile(
    r"https://(?:pypi\.org|files\.pythonhosted\.org|download\.pytorch\.org|pypi\.nvidia\.com|pypi\.ngc\.nvidia\.com)(?:/|$)"
)
_FORMS: Final = (
    (
        "index",
        r"(?:^|\s)(?:(?:--(?:extra-)?index(?:-url?)?|--find-links?)(?:\s*=\s*|\s+)|-[if]\s*=?\s*(?=[\w./~]))(\S+)",
        "packages come from another index",
    ),
    ("list", r"^(?:-[rc]\s*|--(?:requirement|constraint)[\s=]+)(\w+://\S+)", "another list is fetched and followed"),
    ("host", r"(?:^|\s)--trusted-host[\s=]+(\S+)", "packages are taken without checking who sent them"),
    ("source", r"(?:^|\s|@\s*|-e\s+)((?:git|hg|svn|bzr)\+\S+)", "installing runs its build script"),
    ("address", r"(?:^|@\s*)((?:https?|ftp|file)://\S+)", "installing runs its build script"),
    ("shell", r"([;|&`]\s*(?:curl|wget|sh|bash|python\d?|powershell)\b.*|\$\([^)]{0,200}\))", "a shell would run it"),
)  # fmt: skip
_CONTINUED: Final = re.compile(r"\\\r?\n[ \t]*")
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.\-]*")
_POPULAR: Final = words(
    "tensorflow transformers scikit-learn requests pandas numpy scipy matplotlib huggingface-hub safetensors torch "
    "accelerate sentencepiece xgboost lightgbm catboost onnxruntime pytorch-lightning sentence-transformers keras "
    "torchvision torchaudio opencv-python bitsandbytes protobuf tokenizers diffusers datasets urllib3 cryptography "
    "setuptools"
)
_REAL: Final = words("dataset tokenizer transformer diffuser kera torchs scikits-learn panda")  # others of such names
_BAD: Final = words("torchtriton")  # "Compromised PyTorch-nightly dependency chain", PyTorch, 2022-12-31
_MOST: Final = 1 << 20  # characters
_LONGEST: Final = 20_000  # characters of a line; one with a hundred hashes has 8,000
_COMPILED: Final = tuple((rule, re.compile(form), why) for rule, form, why in _FORMS)


def requirement_signs(source: Source, text: str) -> Iterator[Sign]:
    """Signs of the lines of a `requirements.txt`.

    Raises `Damaged` where it is longer than any.
    """
    if len(text) > _MOST:
        raise Damaged(f"expected a list of packages of at most {_MOST} characters, got {len(text)}", 0)
    at = 0
    for raw in _CONTINUED.sub(" ", text).splitlines(keepends=True):
        line = re.sub(r"(?:^|\s)#.*", "", raw).strip()
        if len(line) > _LONGEST:
            why, mend = "nobody reads so long a line, and what it installs is not told", "list one package a line"
            what = f"a line of {len(line)} characters"
            yield noted(source, SUSPICIOUS, "requirements/long-line", what, why=why, mend=mend, at=at)
            line = line[:_LONGEST]
        for rule, form, why in _COMPILED:
            found = form.search(line)
            if found and not _OFFICIAL.match(found[1]):
                mend = "install from the package index, with versions and hashes"
                yield noted(
                    source, SUSPICIOUS, f"requirements/{rule}", f"the line {shown(line)}", why=why, mend=mend, at=at
                )
                break
        else:
            yield from _name(source, line, at)
        at += len(raw)


def _name(source: Source, line: str, at: int) -> Iterator[Sign]:
    """A name that is a known one but for a slip of the finger, which is what impostors are called."""
    found = _NAME.match(line)
    name = re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""
    near = next((item for item in _POPULAR if name != item and _slipped(name, item)), "")
    if name in _BAD or (near and name not in _POPULAR | _REAL):
        what = f"the package {shown(name)}" + (f", which is nearly {near}" if near else "")
        why = "a package of that name was made to harm" if name in _BAD else "impostors take such names"
        mend = "check the name on the package index"
        yield noted(source, SUSPICIOUS, "requirements/name", what, why=why, mend=mend, at=at)


def _slipped(name: str, real: str) -> bool:
    """Whether one letter is missing, doubled or changed, or two are swapped; in short names only the last."""
    if abs(len(name) - len(real)) > 1 or name[:1] != real[:1]:
        return False
    same = next((i for i, (a, b) in enumerate(zip(name, real, strict=False)) if a != b), min(len(name), len(real)))
    swapped = name[same:] == real[same + 1 : same + 2] + real[same : same + 1] + real[same + 2 :]
    if len(real) < 6:
        return swapped
    return swapped or real[same + 1 :] in (name[same:], name[same + 1 :]) or real[same:] == name[same + 1 :]
