"""The licence of an installed package in CycloneDX's words, from what its metadata says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["SPDX", "licence_of"]

SPDX: Mapping[str, str] = {
    "0bsd": "0BSD",
    "3-clause bsd": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license v2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "apache v2": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "boost software license 1.0 (bsl-1.0)": "BSL-1.0",
    "bsd 2-clause": "BSD-2-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "cc0 1.0 universal (cc0 1.0) public domain dedication": "CC0-1.0",
    "gnu affero general public license v3": "AGPL-3.0-only",
    "gnu affero general public license v3 or later (agplv3+)": "AGPL-3.0-or-later",
    "gnu general public license v2 (gplv2)": "GPL-2.0-only",
    "gnu general public license v2 or later (gplv2+)": "GPL-2.0-or-later",
    "gnu general public license v3 (gplv3)": "GPL-3.0-only",
    "gnu general public license v3 or later (gplv3+)": "GPL-3.0-or-later",
    "gnu lesser general public license v2 (lgplv2)": "LGPL-2.0-only",
    "gnu lesser general public license v2 or later (lgplv2+)": "LGPL-2.0-or-later",
    "gnu lesser general public license v3 (lgplv3)": "LGPL-3.0-only",
    "gnu lesser general public license v3 or later (lgplv3+)": "LGPL-3.0-or-later",
    "isc": "ISC",
    "isc license (iscl)": "ISC",
    "mit": "MIT",
    "mit no attribution license (mit-0)": "MIT-0",
    "mit-0": "MIT-0",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "mpl 2.0": "MPL-2.0",
    "mpl-2.0": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "psf-2.0": "PSF-2.0",
    "simplified bsd": "BSD-2-Clause",
    "the unlicense (unlicense)": "Unlicense",
    "unlicense": "Unlicense",
    "zlib": "Zlib",
    "zlib/libpng license": "Zlib",
}
"""What packages write, in small letters and without "the" and a last "license", -> the id in the SPDX list.

Words that could mean several licences ("BSD", "GPL", "Python Software Foundation") are not here: they stay words.
"""

_IDS = {spdx.lower(): spdx for spdx in SPDX.values()}
_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+(?: +(?:AND|OR|WITH) +\(*[A-Za-z0-9.+-]+\)*)+|\([A-Za-z0-9.+ ()-]+\)")
_LONGEST = 200  # characters; beyond it is the text of a licence and no name
_ENDS = re.compile(r"^the +| +licen[sc]e$")


def licence_of(expression: str | None, words: str | None, classifiers: Sequence[str]) -> list[dict[str, Any]]:
    """CycloneDX `licenses` of one package, at most one entry; empty where nothing is said.

    An SPDX expression (PEP 639, or the same in the older field) stands as it is; a name that means one licence becomes
    its id; several classifiers, of which nobody says how they combine, and other names stay names.
    """
    if expression:
        return [_expressed(expression.strip())]
    name = " ".join((words or "").split())
    if name.lower() == "unknown" or len(name) > _LONGEST:
        name = ""
    if name and (known := _spdx(name)):
        return [{"license": {"id": known}}]
    if _EXPRESSION.fullmatch(name):
        return [{"expression": name}]
    told = [item.rpartition(" :: ")[2] for item in classifiers if item.startswith("License :: ")]
    ids = {spdx for item in told if (spdx := _spdx(item))}
    if len(ids) == 1 and len(told) == 1:
        return [{"license": {"id": ids.pop()}}]
    rest = name or ", ".join(item for item in told if item != "OSI Approved")
    return [{"license": {"name": rest}}] if rest else []


def _expressed(text: str) -> dict[str, Any]:
    known = _IDS.get(text.lower())
    return {"license": {"id": known}} if known else {"expression": text}


def _spdx(name: str) -> str | None:
    low = name.lower()
    return SPDX.get(low) or SPDX.get(_ENDS.sub("", low)) or _IDS.get(low)
