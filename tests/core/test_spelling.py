"""One slip of the hand, and words told apart at white space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.core.data import texts
from casemate.core.spelling import one_slip, word_spans, words_changed

INF = float("inf")
SHORT = st.text(alphabet="ab\u200bé", max_size=5)
SPACED = st.text(alphabet="ab \t\n\u00a0\u200b", max_size=8)


def distance(a: str, b: str) -> int:
    """The textbook's table: insertions, deletions, substitutions and swaps of neighbours."""
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    table[:, 0], table[0] = np.arange(len(a) + 1), np.arange(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            ways = [table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a[i - 1] != b[j - 1])]
            if min(i, j) > 1 and a[i - 2 : i] == b[j - 2 : j][::-1]:
                ways.append(table[i - 2, j - 2] + 1)
            table[i, j] = min(ways)
    return int(table[-1, -1])


@given(SHORT, SHORT)
def test_one_slip_is_a_distance_of_at_most_one(a: str, b: str) -> None:
    assert one_slip(a, b) == (distance(a, b) <= 1)


@given(SPACED)
def test_spans_are_where_split_cuts(text: str) -> None:
    assert [text[a:b] for a, b in word_spans(text)] == text.split()


@given(SPACED, SPACED)
def test_changed_words_are_counted_one_by_one(a: str, b: str) -> None:
    words, others = a.split(), b.split()
    spaces = ["".join(c if c.isspace() else "x" for c in text) for text in (a, b)]
    shape = [[part for part in text.replace("x", " x ").split("x") if part.strip(" ") or part] for text in spaces]
    (found,) = words_changed(texts([a]), texts([b]))
    if a == b:
        assert found == 0
    elif len(words) != len(others) or not all(one_slip(u, v) for u, v in zip(words, others, strict=True)):
        assert found == INF
    elif np.isfinite(found):
        assert found == sum(u != v for u, v in zip(words, others, strict=True))
    else:
        assert shape[0] != shape[1] or spaces[0] != spaces[1]


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("free money now", "free money now", 0),
        ("free money now", "fr3e mnoey now", 2),
        ("free money", "free m0n3y", INF),  # two slips in one word
        ("free money", "free  money", INF),
        ("free money", "free mon ey", INF),
        ("a b", " b", INF),
        ("free money", "freemoney", INF),
        ("free money", "free mo\u200bney", 1),
        ("free money", "money free", INF),
        ("", "a", INF),
    ],
)
def test_what_counts_as_a_changed_word(text: str, other: str, expected: float) -> None:
    assert words_changed(texts([text]), texts([other])).tolist() == [expected]
