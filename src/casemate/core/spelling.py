"""What a small change of a text is: some words, each with one slip, between the same white space."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["one_slip", "word_spans", "words_changed"]

_SPACE = re.compile(r"(\s+)")
_WORD = re.compile(r"\S+")


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where each word of a text begins and ends; words are told apart at white space, as `str.split` does.

    >>> word_spans("free  money ")
    [(0, 4), (6, 11)]
    """
    return [match.span() for match in _WORD.finditer(text)]


def words_changed(x: NDArray[Any], x_adv: NDArray[Any]) -> NDArray[np.float64]:
    """How many words of each text `(n,)` were changed, `(n,)`; this is the distance of texts, and l0 its norm.

    `inf` where a text is another one altogether: white space or the number of words differ, or a word differs by more
    than one slip (see `one_slip`).
    """
    pairs = zip(x.tolist(), x_adv.tolist(), strict=True)
    return np.array([_changed(str(text), str(other)) for text, other in pairs], dtype=np.float64)


def one_slip(word: str, other: str) -> bool:
    """Whether the words differ by one character put in, left out or replaced, or by two neighbours swapped (or not).

    Characters are code points. Source: the four slips of Damerau, "A technique for computer detection and correction of
    spelling errors", CACM 1964.

    >>> one_slip("money", "mnoey"), one_slip("money", "m0ney"), one_slip("money", "m0n3y")
    (True, True, False)
    """
    shorter = min(len(word), len(other))
    front = next((i for i in range(shorter) if word[i] != other[i]), shorter)
    word, other = word[front:], other[front:]
    shorter -= front
    back = next((i for i in range(shorter) if word[-1 - i] != other[-1 - i]), shorter)
    left, right = word[: len(word) - back], other[: len(other) - back]
    return max(len(left), len(right)) <= 1 or (len(left) == 2 and left == right[::-1])


def _changed(text: str, other: str) -> float:
    if text == other:
        return 0.0
    # The parts alternate: word, white space, word; the first and the last word may be empty.
    parts, changed = _SPACE.split(text), _SPACE.split(other)
    if parts[1::2] != changed[1::2]:
        return float("inf")
    pairs = [(a, b) for a, b in zip(parts[::2], changed[::2], strict=True) if a != b]
    if not all(a and b and one_slip(a, b) for a, b in pairs):
        return float("inf")
    return float(len(pairs))
