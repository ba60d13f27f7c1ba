"""Scanning: is this file safe to load? Static: nothing is imported, unpickled or executed.

The attacker wrote the file, knows this code, and wants it to pass and then to run in whoever loads it; or wants the
scan itself to crash, hang or swallow the machine. So formats are recognised by content, never by their names; what is
not known to be harmless is reported; what could not be read is reported; a reader that fails is reported.

- `walking`: the way in. `desk`: who reads what. `readers`: one file a format. `pickles`: the symbolic pickle machine.
- `signs`: what can be said. `limits`: what a file may cost. `source`: the bytes.

What this layer cannot see: what harmless weights have been trained to do, flaws of the libraries that load a file
which is whole and plain, and formats that no reader knows, which are `UNKNOWN` and never pass.
"""

from __future__ import annotations

__all__: list[str] = []
