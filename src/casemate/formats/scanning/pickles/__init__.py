"""Pickles: a symbolic machine, and what it makes of each name and call.

The machine follows every opcode as CPython's own unpickler does, with stand-ins instead of objects: numbers and texts
are themselves, a name stays a name, a call stays "this was called with that". Nothing is imported.

- `values`: the stand-ins. `machine`, `opcodes`: one opcode after the other. `runs`, `batches`: plain values, many at a
  time.
- `judge`: a sign for each name and call that is not known to be harmless. `rulings`: which names are known, from the
  tables in `allowed/` and from `dangers`. `shapes`: how they may be called.
"""

from __future__ import annotations

__all__: list[str] = []
