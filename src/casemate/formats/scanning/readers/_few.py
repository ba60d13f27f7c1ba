"""Signs in a number that can be read and kept: a hostile file holds millions of one kind."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Final

from casemate.formats.scanning.signs import Sign

__all__ = ["few"]

_MOST: Final = 100  # of each rule


def few(signs: Iterator[Sign]) -> Iterator[Sign]:
    """The first hundred of each rule and level; of the rest one, without a subject, as no policy can allow them all."""
    told: Counter[tuple[str, str]] = Counter()
    rest: dict[tuple[str, str], Sign] = {}
    for sign in signs:
        kind = sign.rule, str(sign.level)
        told[kind] += 1
        if told[kind] <= _MOST:
            yield sign
        else:
            rest.setdefault(kind, sign)
    for kind, sign in rest.items():
        yield dataclasses.replace(sign, what=f"{sign.what}, and {told[kind] - _MOST - 1} more like it", subject="")
