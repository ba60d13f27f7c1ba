"""What a bill of materials lists beside the model's card: the files, and the packages of the environment."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from casemate.artifacts.licences import licence_of
from casemate.formats import digests

if TYPE_CHECKING:
    from casemate.formats.manifest import Manifest

__all__ = ["file_components", "package_components"]

_LONGEST = 1000  # characters of a package's own words


def file_components(listed: Manifest) -> list[dict[str, Any]]:
    """A CycloneDX component of type file for each file, with its SHA-256."""
    return [
        {
            "type": "file",
            "bom-ref": f"file/{entry.path}",
            "name": entry.path,
            "hashes": [{"alg": "SHA-256", "content": digests.hex_of(entry.digest)}],
            "properties": [{"name": "casemate:bytes", "value": str(entry.size)}],
        }
        for entry in listed.entries
    ]


def package_components(found: Iterable[metadata.Distribution] | None = None) -> list[dict[str, Any]]:
    """A CycloneDX component for each package that this Python would import, with its licence, sorted; and Python.

    Read from the packages' metadata; one without a name or a version, which an uninstallation left behind, is left
    out, and of two by one name the first on the path counts, as for an import.
    """
    made: dict[str, dict[str, Any]] = {}
    for item in metadata.distributions() if found is None else found:
        name, version = item.metadata["Name"], item.metadata["Version"]
        if name and version:
            made.setdefault(_normal(name), _package(item, name, version))
    version = platform.python_version()
    python = {"type": "platform", "bom-ref": "platform/python", "name": "python", "version": version}
    return [python, *(made[name] for name in sorted(made))]


def _package(item: metadata.Distribution, name: str, version: str) -> dict[str, Any]:
    told = item.metadata
    purl = f"pkg:pypi/{_normal(name)}@{quote(version, safe='.-_')}"
    made: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if summary := " ".join((told["Summary"] or "").split())[:_LONGEST]:
        made["description"] = summary
    if licences := licence_of(told["License-Expression"], told["License"], told.get_all("Classifier", [])):
        made["licenses"] = licences
    return made


def _normal(name: str) -> str:
    """The one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
