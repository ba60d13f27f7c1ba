"""Ways to misspell a word that a person still reads as the same word; nothing here looks at a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest

__all__ = ["keys_beside", "misspellings", "vocabulary"]

_LEAST = 4  # letters; in shorter words a slip of the hand makes another word
_HIDDEN = "\u200b"  # a space without width: there for the model, not for a reader
_CYRILLIC = dict(
    zip(
        "aceijopsxyABCEHIKMOPSTX",
        "\u0430\u0441\u0435\u0456\u0458\u043e\u0440\u0455\u0445\u0443"
        "\u0410\u0412\u0421\u0415\u041d\u0406\u041a\u041c\u041e\u0420\u0405\u0422\u0425",
        strict=True,
    )
)
_DIGITS = {"a": "4", "e": "3", "i": "1", "l": "1", "o": "0", "s": "5", "t": "7", "O": "0", "I": "1", "S": "5"}
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {key: row[max(at - 1, 0) : at] + row[at + 1 : at + 2] for row in _KEYS for at, key in enumerate(row)}


def misspellings(word: str, known: frozenset[str]) -> list[str]:
    """All misspellings of a word by one edit; the kinds take turns, each from the middle of the word outwards.

    Anywhere a letter becomes its lookalike (Cyrillic, or a digit), or an invisible space comes between two characters;
    inside words of four letters and more two letters are swapped, one is left out, doubled, or replaced by the key
    beside it. What is another word of `known` (see `vocabulary`) is no misspelling: a reader would read that one.
    """
    kinds = (_lookalikes(word, _CYRILLIC), *_slips(word), _lookalikes(word, _DIGITS), _parted(word))
    found = dict.fromkeys(other for turn in zip_longest(*kinds) for other in turn if other is not None)
    own = _bare(word)
    return [other for other in found if other != word and ((plain := _bare(other)) == own or plain not in known)]


def vocabulary(texts: Iterable[str]) -> frozenset[str]:
    """The words of some texts, each as its letters and digits in lower case."""
    different = {word for text in texts for word in text.split()}
    return frozenset(_bare(word) for word in different)


def keys_beside(letter: str) -> str:
    """The letters on the keys left and right of a letter (QWERTY), in its case; none for any other character."""
    keys = _NEIGHBOURS.get(letter.lower(), "")
    return keys.upper() if letter.isupper() else keys


def _bare(word: str) -> str:
    return "".join(letter for letter in word if letter.isalnum()).lower()


def _lookalikes(word: str, table: dict[str, str]) -> Iterator[str]:
    for at in _from_the_middle(range(len(word))):
        if word[at] in table:
            yield word[:at] + table[word[at]] + word[at + 1 :]


def _parted(word: str) -> Iterator[str]:
    for at in _from_the_middle(range(1, len(word))):
        yield word[:at] + _HIDDEN + word[at:]


def _slips(word: str) -> tuple[Iterator[str], ...]:
    """Slips of the hand at inner letters: readers hold on to the first and the last one."""
    letters = [at for at, letter in enumerate(word) if letter.isalpha()]
    inner = letters[1:-1] if len(letters) >= _LEAST else []
    pairs = [at for at in inner if at + 1 in inner]
    return (
        (word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in _from_the_middle(pairs)),
        (word[:at] + word[at + 1 :] for at in _from_the_middle(inner)),
        (word[:at] + key + word[at + 1 :] for at in _from_the_middle(inner) for key in keys_beside(word[at])),
        (word[:at] + word[at] + word[at:] for at in _from_the_middle(inner)),
    )


def _from_the_middle(places: Iterable[int]) -> list[int]:
    found = list(places)
    return sorted(found, key=lambda at: (abs(2 * at - found[0] - found[-1]), at))
