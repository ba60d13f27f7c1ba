"""Formats: bytes that other people, other machines and later years can read, and that nobody can change unnoticed.

This layer turns plain values into bytes and untrusted bytes back into plain values. It knows nothing of models,
attacks or reports, and it never executes what it reads.

- `canonical`: one JSON text per value (RFC 8785), hence one digest per value.
- `digests`: `sha256:<hex>` of bytes, files, arrays and lists of fields.
- `arrays`: a sealed container of named arrays and small values, equal input giving equal bytes.
- `manifest`: which files belong together, and what is wrong with a folder that claims to be them.
- `keys`, `attestation`: Ed25519 keys; in-toto statements in signed DSSE envelopes.
- `atomic`: a file or a folder is written whole or not at all.

The attacker here writes the bytes we read: a file cut short, a header that claims more than the file holds, nested a
million deep, a path that climbs out of its folder, a name spelled in two ways, a signature moved to another text.
What every reader promises: the value that was written, or one `FormatError` (`IntegrityError` for signatures), after
work and memory in proportion to the bytes it was given.

What this layer cannot see: whether a signed statement is true, whether its date has passed (the caller's clock and
policy decide), and an attacker who holds the private key or who changes a folder after it has been verified.
"""

from __future__ import annotations

__all__: list[str] = []
