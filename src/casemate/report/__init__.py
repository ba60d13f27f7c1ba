"""What is made of a report, one file a format: `json` (the record), `html` (for people), `terminal` (for a shell).

Every format says the same: the verdict is read from `Report.ruling`, never computed again, and the words for a number,
its interval and the way it errs come from one place, `words`.
"""

from __future__ import annotations

__all__: list[str] = []
