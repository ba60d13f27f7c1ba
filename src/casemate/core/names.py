"""Wrong names: what was meant, for the mend of an error."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

__all__ = ["nearest"]

_LIKE = 0.6  # difflib's own bar for a close match
_AS_GOOD = 0.05


def nearest(name: str, known: Iterable[str]) -> str:
    """The mend for a wrong name: the nearest known ones, or what there is.

    >>> nearest("lable", ["label", "age"])
    'did you mean label?'
    """
    names = [str(item) for item in known]
    scores = {item: SequenceMatcher(None, name.lower(), item.lower()).ratio() for item in names}
    best = max(scores.values(), default=0.0)
    if best >= _LIKE:
        near = sorted((item for item in scores if scores[item] > best - _AS_GOOD), key=lambda item: -scores[item])
        return f"did you mean {' or '.join(near[:3])}?"
    return f"it has {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
