"""Bundles: what is audited, signed and served is the model with schema, guards and calibrations under one digest."""

from __future__ import annotations

from collections.abc import Iterable

from casemate.core.case import Bundle
from casemate.core.model import Model
from casemate.core.records import Calibration
from casemate.core.schema import Schema
from casemate.formats import calibrations as calibration_files
from casemate.formats import canonical
from casemate.formats.digests import sha256_bytes

__all__ = ["bundle_of"]


def bundle_of(model: Model, schema: Schema | None, calibrations: Iterable[Calibration] = ()) -> Bundle:
    """The bundle of a model (the one inside, for a guarded model) and the guards that stand in front of it."""
    held = sorted(calibrations, key=lambda c: c.plugin)
    files = {f"calibrations/{c.plugin.replace('/', '.')}.cma": sha256_bytes(calibration_files.write(c)) for c in held}
    parts = {"model": model.digest, "schema.json": canonical.digest(repr(schema)), **files}
    return Bundle(
        digest=canonical.digest(parts),
        parts=parts,
        loader=model.framework,
        guards=tuple(c.plugin for c in held),
        calibrations=tuple(sorted(files)),
    )
