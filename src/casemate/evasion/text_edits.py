"""Misspelled words: the fewest words of a text that have to be misspelled until the answer is another one."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.facets import Cost, DataKind, Facet, Profile
from casemate.core.lab import Lab
from casemate.core.model import Model
from casemate.core.norms import Norm
from casemate.core.options import Count
from casemate.core.plugin import attack
from casemate.engine.harness import wrong
from casemate.evasion import THREAT
from casemate.evasion._edited import misspellings, vocabulary
from casemate.evasion.search import margins

__all__ = ["TextEditOptions", "edit_words"]

Array = NDArray[Any]
Edits = Mapping[int, str]
"""Which words are replaced, by their place among the words, and by what."""
Answers = tuple[Array, Array]
"""How far each try is from a success `(m,)`, and whether it is one."""
Search = Generator[list[Edits], Answers, None]
Asking = Generator[list[Edits], Answers, Answers]

_CALL = 1024  # texts in one call of the model
_READ = 20_000  # texts from which the vocabulary is taken
_REFINED = 8  # words of which every misspelling is tried before pairs are looked at
_WIDTH = 12  # words that are tried on top of what is changed already
_FEW = 8  # words that are drawn at random
_PORTION = 16  # tries of one sample in one call, where the next ones depend on them
# With labels alone; set by trial on word and character filters (TF-IDF, counts, a forest), 40 to 150 queries a text.
_WHOLE = 2  # texts in which every word is misspelled
_LEAST = 8  # tries from one weighing of the words to the next
_TURNS = 64  # weighings at most, each of which costs as much as many tries
_RECALLED = 512  # tries that are weighed
_DOUBT = 0.7  # how far the weight of a word that was never tried may be off
_TIRED = 0.03  # what a misspelling that did nothing takes off the weight of its word


@dataclass(frozen=True, slots=True)
class TextEditOptions:
    """`queries` a sample: texts that the model is asked about."""

    queries: Count = 500


@attack(
    threat=THREAT,
    source="edits of characters in the words that matter most: DeepWordBug, Gao, Lanchantin, Soffa and Qi, 2018, "
    "section III; by labels, words weighed by the history of tries: TextHacker, Yu, Wang, Che and He, Findings of "
    "EMNLP 2022; the search for the fewest words is Casemate's",
    needs={Facet.LABELS},
    kinds={DataKind.TEXT},
    cost=Cost.EXPENSIVE,
    options=TextEditOptions,
    profiles={Profile.QUICK: {"queries": 150}, Profile.FULL: {"queries": 5000}},
    norms={Norm.L0},
    minimum_norm=True,
)
def edit_words(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
    """Misspell as few words as possible, each by one character, until the answer is another one.

    Looks for x' with at most eps words changed, each by one edit that a reader hardly sees (a letter swapped, left out,
    doubled, replaced by a key beside it or by a lookalike, an invisible space), the white space as it is, and a wrong
    answer (or the goal's target). All samples of the batch advance together, one model call a step.

    With scores: one edit of each word says what the word carries; the words that carry most are edited together,
    as many as it takes; every misspelling of one word after the other is tried, and combined anew; then sets of words
    are changed one by one, and drawn at random. Where there are fewer than two queries a word, saliency (gradients at
    the embeddings) says which words come first, if the model offers it. With labels alone: all words are misspelled,
    and as many as possible put right again; from all tries so far follows what each word weighs, and single
    misspellings and sets of the heaviest words take turns after that. A text that one misspelling turns is found for
    certain where `queries` pay for all of them (with labels alone, more than twice).

    The attacker sees scores or labels, and knows which words there are. Each success is asked about once more, for its
    label. Errs towards robust: words may be split, replaced by synonyms or misspelled twice. Raises `BudgetExhausted`
    when the budget ends.
    """
    rows = np.flatnonzero(batch.y != goal.target) if goal.target is not None else np.arange(len(batch))
    model = case.the_model()
    known = _known(case)
    lines = [_Line(str(batch.x[row]), known) for row in rows]
    scored = model.logits is not None or model.scores is not None
    order = _orders(model, batch, rows, lines, lab) if scored else []
    searches: dict[int, Search] = {}
    for place, (row, line) in enumerate(zip(rows.tolist(), lines, strict=True)):
        # Labels of sets that are too large to be claimed still tell which words weigh.
        hunt = _Hunt(line, lab.options.queries, goal.eps if scored else np.inf)
        rng = lab.rng("edits", int(batch.sample_id[row]))
        searches[place] = hunt.by_scores(order[place], rng) if scored else hunt.by_labels(rng)
    yield from _advance(_Asked(model, batch.take(rows), goal, scored), lines, searches, rows)


def _known(case: Case) -> frozenset[str]:
    """The words of the data, so that no misspelling is one of them."""
    parts = case.splits.parts().values()
    return vocabulary(str(text) for part in parts for text in part.x[:_READ])


def _orders(model: Model, batch: Batch, rows: Array, lines: Sequence[_Line], lab: Lab) -> list[list[int]]:
    """The order in which words are looked at: at random, or by saliency where queries do not pay for all of them."""
    orders = []
    for row, line in zip(rows, lines, strict=True):
        rng = lab.rng("order", int(batch.sample_id[row]))
        orders.append([int(word) for word in rng.permutation(len(line.words)) if line.choices[word]])
    long = [place for place, order in enumerate(orders) if len(order) > lab.options.queries // 2]
    if model.saliency is not None and long:
        found = model.saliency(batch.x[rows[long]], batch.y[rows[long]])
        for place, carried in zip(long, found, strict=True):
            orders[place].sort(key=lambda word, carried=carried: -carried[word])  # type: ignore[misc]
    return orders


def _advance(
    asked: _Asked, lines: Sequence[_Line], searches: dict[int, Search], rows: NDArray[np.int64]
) -> Iterator[Claim]:
    """Let every search ask at once, tell each its answers, claim what is nearer than before; until all have ended."""
    waiting = {place: tries for place, search in searches.items() if (tries := next(search, None)) is not None}
    fewest = dict.fromkeys(searches, float("inf"))
    while waiting:
        for part in _portions(waiting):
            places = np.repeat(part, [len(waiting[place]) for place in part])
            tries = [edits for place in part for edits in waiting[place]]
            texts = np.array(
                [lines[i].text(edits) for i, edits in zip(places, tries, strict=True)], asked.batch.x.dtype
            )
            value, hit = asked.answer(texts, places)
            best: dict[int, int] = {}
            for at in np.flatnonzero(hit).tolist():
                place, size = int(places[at]), len(tries[at])
                if size < fewest[place] and size <= asked.goal.eps:
                    fewest[place], best[place] = size, at
            if best:
                yield Claim(rows[list(best)], x=texts[list(best.values())])
            for place in part:
                own = places == place
                waiting[place] = _sent(searches[place], (value[own], hit[own]))
        waiting = {place: tries for place, tries in waiting.items() if tries}


def _sent(search: Search, answers: Answers) -> list[Edits]:
    try:
        return search.send(answers)
    except StopIteration:
        return []


def _portions(waiting: Mapping[int, Sequence[Edits]]) -> Iterator[list[int]]:
    """The samples in groups that together ask for about as much as one call takes."""
    part: list[int] = []
    size = 0
    for place, tries in waiting.items():
        if part and size + len(tries) > _CALL:
            yield part
            part, size = [], 0
        part.append(place)
        size += len(tries)
    if part:
        yield part


@dataclass(frozen=True, slots=True)
class _Asked:
    """The model, and what counts as a success for each sample."""

    model: Model
    batch: Batch
    goal: Goal
    scored: bool

    def answer(self, texts: Array, places: Array) -> Answers:
        y, target = self.batch.y[places], self.goal.target
        if not self.scored:
            hit = wrong(self.model, texts, y, target=target)
            return np.where(hit, -1.0, 1.0), hit
        value, hit = margins(self.model, texts, y, target)
        if hit.any():  # the label decides, not the scores: a guard may refuse this one, or a threshold keep the answer
            hit[hit] = wrong(self.model, texts[hit], y[hit], target=target)
        return value, hit


class _Line:
    """A text as words and the white space between them, and every misspelling of each word."""

    def __init__(self, text: str, known: frozenset[str]) -> None:
        self.parts = re.split(r"(\s+)", text)
        self.words = [at for at in range(0, len(self.parts), 2) if self.parts[at]]
        self.choices = [misspellings(self.parts[at], known) for at in self.words]

    def text(self, edits: Edits) -> str:
        parts = list(self.parts)
        for word, other in edits.items():
            parts[self.words[word]] = other
        return "".join(parts)


class _Hunt:
    """The search on one text: what it may still ask, and the fewest words that turned the answer."""

    def __init__(self, line: _Line, queries: int, most: float) -> None:
        self.line, self.left = line, queries
        self.most = min(most, sum(1 for choice in line.choices if choice))
        self.fewest = float("inf")
        self.best: dict[int, tuple[float, str]] = {}  # of each word the lowest margin, and the edit that gave it
        self.seen: list[tuple[list[int], bool]] = []  # which words were edited, and whether it was a success

    @property
    def done(self) -> bool:
        return self.left <= 0 or self.fewest <= 1

    @property
    def room(self) -> int:
        """How many words may be edited so that a success is a better one."""
        return int(min(self.most, self.fewest - 1))

    def ask(self, tries: Sequence[Edits]) -> Asking:
        """Ask for as many of the tries as the queries pay; keep what single words do."""
        paid = list(tries[: max(self.left, 0)])
        if not paid:
            return np.empty(0), np.empty(0, dtype=bool)
        self.left -= len(paid)
        value, hit = yield paid
        self.fewest = min([self.fewest, *(len(edits) for edits, found in zip(paid, hit, strict=True) if found)])
        self.seen += [(list(edits), found) for edits, found in zip(paid, hit.tolist(), strict=True)]
        for edits, margin in zip(paid, value.tolist(), strict=True):
            for word, other in edits.items() if len(edits) == 1 else ():
                self.best[word] = min(self.best.get(word, (margin, other)), (margin, other))
        return value, hit

    def by_scores(self, order: Sequence[int], rng: np.random.Generator) -> Search:
        yield from self.ask([{word: self.line.choices[word][0]} for word in order[: max(self.left // 2, 1)]])
        yield from self.together()
        looked = sorted(self.best, key=self.rank) + [word for word in order if word not in self.best]
        for count, word in enumerate(looked):
            if count == _REFINED:
                yield from self.upwards()
            before = self.best.get(word)
            yield from self.ask([{word: other} for other in self.line.choices[word][0 if before is None else 1 :]])
            if self.best.get(word) != before:
                yield from self.together()
            if self.done:
                return
        yield from self.upwards()
        yield from self.exchange()
        while not self.done and self.room >= 2:
            yield from self.scatter(rng)

    def by_labels(self, rng: np.random.Generator) -> Search:
        able = [word for word, choice in enumerate(self.line.choices) if choice]
        portion = max(_LEAST, self.left // _TURNS)
        for _ in range(_WHOLE):
            yield from self.fewest_of([self.drawn(rng, able)])
        single = {word: list(self.line.choices[word]) for word in able}
        while not self.done and (single or self.room >= 2):
            weight, doubt = self.weighed()
            tries = self.singles(single, weight, portion // 2 if self.room >= 2 else portion)
            while self.room >= 2 and len(tries) < portion:
                size = self.room if rng.random() < 0.5 else rng.integers(2, min(self.room, _FEW) + 1)
                believed = weight + doubt * rng.standard_normal(len(weight))
                tries.append(self.drawn(rng, sorted(able, key=lambda w, b=believed: -b[w])[:size]))  # type: ignore[misc]
            yield from self.fewest_of(tries)

    def weighed(self) -> tuple[Array, Array]:
        """How much a misspelling of each word speaks for a success, `(words,)`, and how little is known of it.

        Least squares with a ridge on what was tried and whether it was a success, as if the words of a text added up.
        """
        recalled = self.seen[-_RECALLED:]
        edited = np.zeros((len(recalled), len(self.line.choices) + 1))
        edited[:, -1] = 1  # what is there without any edit
        for row, (words, _) in zip(edited, recalled, strict=True):
            row[words] = 1
        turned = np.array([1.0 if hit else -1.0 for _, hit in recalled])
        tries, terms = edited.shape
        if tries < terms:  # the same solution, from the smaller system
            weight = edited.T @ np.linalg.solve(edited @ edited.T + np.eye(tries), turned)
        else:
            weight = np.linalg.solve(edited.T @ edited + np.eye(terms), edited.T @ turned)
        return weight[:-1], _DOUBT / np.sqrt(1 + edited[:, :-1].sum(axis=0) / 4)

    def singles(self, single: dict[int, list[str]], weight: Array, count: int) -> list[Edits]:
        """The next misspellings of single words, of those that weigh most; takes them out of `single`."""
        tries: list[Edits] = []
        while single and len(tries) < count:
            worth = {
                word: weight[word] + _TIRED * (len(o) - len(self.line.choices[word])) for word, o in single.items()
            }
            word = max(worth, key=worth.__getitem__)
            tries.append({word: single[word].pop(0)})
            if not single[word]:
                del single[word]
        return tries

    def rank(self, word: int) -> tuple[float, int]:
        return self.best[word][0], word

    def together(self) -> Search:
        """Edit the words with the lowest margins at once: the fewest of them, by doubling and halving."""
        ranked = sorted(self.best, key=self.rank)
        top = min(len(ranked), self.room)
        sizes = [2**power for power in range(1, 32) if 2**power < top] + ([top] if top > 1 else [])
        _, hit = yield from self.ask([self.first(ranked, size) for size in sizes])
        if not hit.any():
            return
        place = int(hit.argmax())
        low, high = sizes[place - 1] if place else 1, sizes[place]
        while high - low > 1 and self.left > 0:
            middle = (low + high) // 2
            _, hit = yield from self.ask([self.first(ranked, middle)])
            low, high = (low, middle) if hit.any() else (middle, high)

    def first(self, ranked: Sequence[int], size: int) -> Edits:
        return {word: self.best[word][1] for word in ranked[:size]}

    def upwards(self) -> Search:
        """One word after the other, always the one that lowers the margin most on top of what is edited already."""
        ranked = sorted(self.best, key=self.rank)
        edits: dict[int, str] = dict(self.first(ranked, 1))
        while not self.done and len(edits) < self.room:
            open_words = [word for word in ranked if word not in edits][:_WIDTH]
            tries = [{**edits, word: self.best[word][1]} for word in open_words]
            value, _ = yield from self.ask(tries)
            if not len(value):
                return
            edits = dict(tries[int(value.argmin())])

    def exchange(self) -> Search:
        """Go round a set of words, one too few so far: another misspelling, or another word, while that helps."""
        edits: dict[int, str] = {}
        lowest = np.inf
        while not self.done and (size := min(self.room, len(self.best))) >= 2:
            if len(edits) != size:
                edits, lowest = dict(self.first(sorted(self.best, key=self.rank), size)), np.inf
            before = lowest
            for word in list(edits):
                rest = {other: edit for other, edit in edits.items() if other != word}
                spare = [other for other in sorted(self.best, key=self.rank) if other not in edits][:_WIDTH]
                tries: list[Edits] = [{**rest, word: edit} for edit in self.line.choices[word]]
                tries += [{**rest, other: self.best[other][1]} for other in spare]
                value, hit = yield from self.ask(tries)
                if hit.any() or not len(value):
                    break
                edits, lowest = dict(tries[int(value.argmin())]), float(value.min())
            if lowest >= before and self.fewest > size:
                return

    def scatter(self, rng: np.random.Generator) -> Search:
        """Some sets of words at random, fewer than turned the answer so far."""
        able = [word for word, choice in enumerate(self.line.choices) if choice]
        if self.room < 2 or self.left <= 0:
            return
        sizes = rng.integers(2, min(self.room, _FEW) + 1, _PORTION)
        yield from self.fewest_of([self.drawn(rng, rng.choice(able, size, replace=False)) for size in sizes])

    def fewest_of(self, tries: Sequence[Edits]) -> Search:
        """Ask for all tries, and put right again what can be of the shortest success."""
        _, hit = yield from self.ask(tries)
        if hit.any():
            yield from self.fewer(min((t for t, h in zip(tries, hit, strict=False) if h), key=len))

    def drawn(self, rng: np.random.Generator, words: Sequence[int] | Array) -> Edits:
        """A misspelling at random for each of some words."""
        return {int(w): self.line.choices[w][rng.integers(len(self.line.choices[w]))] for w in words}

    def fewer(self, edits: Edits) -> Search:
        """Put words right again as long as the answer stays wrong: half of them at once, then fewer, then each."""
        kept = list(edits)
        size = (len(kept) + 1) // 2
        while size and len(kept) > 1 and self.left > 0:
            start = 0
            while start < len(kept) and self.left > 0:
                rest = kept[:start] + kept[start + size :]
                hit = (yield from self.ask([{word: edits[word] for word in rest}]))[1] if rest else np.zeros(1, bool)
                kept, start = (rest, start) if hit.any() else (kept, start + size)
            size //= 2
