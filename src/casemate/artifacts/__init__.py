"""Artifacts: is this model file safe to load, whole, signed, and from where.

The attacker wrote or changed a file that others load: a pickle that runs code, an archive that writes outside its
folder, a template that escapes its sandbox, a model swapped for another on its way. What we measure is what
`formats.scanning` sees of a file without loading it, held against what its owner allows and what it was the last time,
and whether digests and signatures still hold.

What this room cannot see: what harmless weights have been trained to do (the rooms of the other threats do), and flaws
of the libraries that load a whole and plain file.

- `unsafe_files`: the probe. `scans`: many files, one verdict. `allowances`: names of one's own that are allowed.
  `locks`: what a file held when it was reviewed. `convert`: the same model in a format that runs nothing.
- `provenance`, `signing`, `policies`, `journals`: what is signed of files, audits and lineage, and what is asked of a
  signature. `bom`, `licences`: what a model and its environment are made of.
"""

from __future__ import annotations

from casemate.core.outcome import Threat

__all__ = ["THREAT"]

THREAT = Threat(
    name="artifacts",
    title="Unsafe or unproven model files",
    atlas=("AML.T0010", "AML.T0011.000"),
    owasp_ml=("ML06",),
)
