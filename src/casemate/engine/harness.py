"""The harness judges, the plug-in only tries: every claim of an attack or certificate is measured again here."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from itertools import count
from types import GeneratorType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal, Ledger
from casemate.core.case import Case
from casemate.core.data import digest_of_arrays, plain_bytes
from casemate.core.facets import DataKind, PluginKind
from casemate.core.lab import Lab
from casemate.core.metering import metered, observed, unmetered
from casemate.core.model import ABSTAIN, Model
from casemate.core.norms import Norm, Switch, distance
from casemate.core.plugin import Plugin
from casemate.core.schema import Schema
from casemate.core.spelling import words_changed
from casemate.engine.chance import drawn
from casemate.engine.masking import is_random
from casemate.errors import BudgetExhausted, LawBroken, ModelError

__all__ = [
    "VOTES",
    "answers_at_random",
    "batch_of",
    "how_far",
    "open_ledger",
    "permitted",
    "pursue",
    "steadied",
    "unanswered",
    "wrong",
]

Array = NDArray[Any]
_BALL_TOLERANCE = 1e-6
VOTES = 15
"""How often a model that answers at random is asked before a sample counts as broken."""
_ASKED_TWICE = 8  # rows that tell whether it does

_VOTING: ContextVar[bool] = ContextVar("voting", default=False)
_RANDOM: dict[int, tuple[weakref.ref[Any], bool, str | None]] = {}  # by the function that gives the labels


def wrong(model: Model, x: Array, y: Array, *, target: int | None = None) -> NDArray[np.bool_]:
    """Which samples get a wrong answer (or the target's), mask `(n,)`. A refusal is not wrong: the attack failed."""
    labels = _labels(model, x)
    if target is not None:
        return np.asarray((labels == target) & (y != target))
    return np.asarray((labels != y) & (labels != ABSTAIN))


def unanswered(model: Model, x: Array, y: Array) -> NDArray[np.bool_]:
    """Which samples do not get the right answer, mask `(n,)`: a wrong one, or a refusal."""
    return np.asarray(_labels(model, x) != y)


def steadied(case: Case) -> Model:
    """The case's model; one that answers at random with the most frequent label of 15 answers to each sample.

    One lucky answer is no success, and one unlucky answer no failure. The votes are drawn for each sample by itself
    from the same numbers, as far as the model uses the global generators, so that a witness is judged alike whenever
    and by whomever it is. Errs little either way: a sample whose labels are nearly as often right as wrong may fall on
    either side.
    """
    model = case.the_model()
    return replace(model, labels=partial(_voted, model)) if answers_at_random(case) else model


def answers_at_random(case: Case) -> bool:
    """Whether the case's model answers eight rows of the test data (or of any other) otherwise the second time.

    Looked at once in a process and on no meter, since which job asks first depends on the executor.
    """
    model, parts = unmetered(case.the_model()), case.splits.parts()
    data = parts.get("test") or next(iter(parts.values()), None)
    few = None if data is None else data.take(np.arange(min(_ASKED_TWICE, len(data))))
    asked = "" if few is None else digest_of_arrays({"x": few.x})
    known = _RANDOM.get(id(model.labels))
    if known is not None and known[0]() is model.labels and known[2] in (None, asked):
        return known[1]
    if few is None:
        return False
    with drawn(0, "twice"):
        found = is_random(model, few)
    _note(model, found, asked)
    return found


def how_far(norm: Norm, x: Array, x_adv: Array, schema: Schema | None) -> NDArray[np.float64]:
    """The distance of each changed sample from its original, `(n,)`, in float64 and in units of the schema's scale.

    Between texts it is the number of changed words, see `core.spelling`, whatever the norm.
    """
    if schema is not None and schema.kind is DataKind.TEXT:
        return words_changed(x, x_adv)
    scale = np.ones((1,) * (x.ndim - 1)) if schema is None else schema.scale
    return distance(norm, x, x_adv, scale, _switches(schema))


def permitted(schema: Schema, x: Array, x_adv: Array) -> NDArray[np.bool_]:
    """Which changed samples keep the schema, mask `(n,)`; a rule that the original breaks too is not asked of it.

    Else a sample that is out of bounds, or breaks a relation, could not be attacked, and would count as robust. Its
    values may stay where they are, but go no further out.
    """
    good = schema.allowed(x_adv)
    rows = np.flatnonzero(~good & ~schema.allowed(x))
    if len(rows):
        own, other = x[rows], x_adv[rows]
        broken = schema.problems(own)
        with np.errstate(invalid="ignore"):
            out = (other < np.minimum(schema.lo, own)) | (other > np.maximum(schema.hi, own))
        good[rows] = ~out.reshape(len(rows), -1).any(axis=1)
        for rule, mask in schema.problems(other).items():
            good[rows] &= ~mask | broken.get(rule, np.zeros(len(rows), dtype=bool))
    return good


def batch_of(x: Array, y: Array, sample_id: Array) -> Batch:
    """A read-only batch from arrays."""
    parts = [np.array(part, copy=True) for part in (x, y, sample_id)]
    for part in parts:
        part.setflags(write=False)
    return Batch(*parts)


def open_ledger(case: Case, batch: Batch, norm: Norm, *, target: int | None = None) -> Ledger:
    """A ledger for a batch, in which samples that are not answered rightly as they are count as broken at distance 0.

    A refusal is no right answer: who refuses everything is right about nothing, and robust nowhere. With the `target`
    of a goal, only samples that get this answer, and should not, have reached it as they are: any other wrong answer
    can still be as far from it as a right one.
    """
    ledger = Ledger(norm, batch.x)
    rows = np.flatnonzero(_lost(steadied(case), batch.x, batch.y, target=target))
    ledger.drop_upper(rows, np.zeros(len(rows)), batch.x[rows], "clean")
    return ledger


def pursue(plugin: Plugin, case: Case, batch: Batch, goal: Goal, lab: Lab, *, ledger: Ledger, rows: Array) -> bool:
    """Run one attack or certificate on `batch` (rows `rows (m,)` of the ledger's samples) and join what holds.

    A claimed sample counts only if the model as the user gave it answers it wrongly, it is inside the goal's ball, and
    it keeps the schema (see `permitted`); its distance is measured here in float64. A generator is sent which rows of
    its claim hold, so that it need not ask again. Returns whether the plug-in came to its end (`False`: the budget
    ended first). Raises `LawBroken` for a success claimed outside the ball, a changed
    input, or a plug-in that goes on after its budget ended; `Contradiction` from the ledger.
    """
    before = _bytes_of(batch)
    meter = lab.meter
    watched = replace(case, model=observed(case.the_model(), meter))
    judged = replace(watched, model=steadied(watched))
    refusals = meter.refusals
    whole, late = True, 0
    try:
        judge = _judge_radius if plugin.kind is PluginKind.CERTIFICATE else _judge_witness
        claims, held = iter(_claims(plugin.function, case, batch, goal, lab)), None
        while (claim := _next(claims, held)) is not None:
            _in_range(plugin, claim, len(batch))
            held = judge(plugin, judged, batch, goal, claim, ledger=ledger, rows=rows)
            asked = 0 if held is None else len(claim.rows)
            late = late + asked if not meter.affords(0) else 0
            if late > len(batch):  # claims are measured for free: they must not become the search
                raise LawBroken(
                    f"expected {plugin.id} to stop when its budget ended, got {late} more claims: search with the model"
                )
    except BudgetExhausted:
        whole = False
    if meter.refusals > refusals + 1:
        raise LawBroken(
            f"expected {plugin.id} to stop when its budget ended, got {meter.refusals - refusals} tries to go on"
        )
    if _bytes_of(batch) != before:
        raise LawBroken(f"expected {plugin.id} to leave its inputs untouched, got changed arrays: work on a copy")
    return whole


def _bytes_of(batch: Batch) -> tuple[bytes, ...]:
    return tuple(bytes(plain_bytes(part)) for part in (batch.x, batch.y))


def _next(claims: Iterator[Claim], held: Array | None) -> Claim | None:
    """The next claim, None at the end; a generator is sent the verdict on its last one: `held = yield Claim(...)`."""
    inner: Any = claims
    while isinstance(inner, GeneratorType):
        inner = inner.gi_yieldfrom
    listens = inner is None or hasattr(inner, "send")  # not while it says `yield from` a list
    try:
        return claims.send(held) if listens and isinstance(claims, Generator) else next(claims)
    except StopIteration:
        return None


def _claims(
    function: Callable[..., Iterable[Claim]], case: Case, batch: Batch, goal: Goal, lab: Lab
) -> Iterable[Claim]:
    model = case.the_model()
    own = _repeatable(model, lab) if answers_at_random(case) else model
    return function(replace(case, model=metered(own, lab.meter)), batch, goal, lab)


def _repeatable(model: Model, lab: Lab) -> Model:
    """A random model that answers a plug-in from its lab's seed: the same seed gives the same report."""
    turn = count()

    def again(answer: Callable[[Array], Array] | None) -> Callable[[Array], Array] | None:
        if answer is None:
            return None

        def ask(x: Array) -> Array:
            if _VOTING.get():  # an attack's votes are the harness's, draw by draw: it would believe in others
                return answer(x)
            with drawn(lab.seed, lab.plugin, next(turn)):
                return answer(x)

        return ask

    plain = unmetered(model)
    labels = again(plain.labels)
    assert labels is not None
    repeatable = replace(plain, labels=labels, scores=again(plain.scores), logits=again(plain.logits))
    _note(repeatable, True, None)  # looked at anew, it could pass for steady by luck, and the plug-in would not vote
    return repeatable


def _note(model: Model, found: bool, asked: str | None) -> None:
    """Keep in mind for this process whether a model answers at random, by what it was asked (None: whatever it is)."""
    try:
        own = id(model.labels)
        _RANDOM[own] = (weakref.ref(model.labels, lambda _: _RANDOM.pop(own, None)), found, asked)
    except TypeError:  # some callables cannot be referred to weakly, and are looked at again
        pass


def _voted(model: Model, x: Array) -> Array:
    """The most frequent of the labels that each sample gets, `(n,)`; the smallest of several."""
    labels = []
    before = _VOTING.set(True)
    try:
        for row in range(len(x)):
            with drawn(0, "votes"):
                votes = np.concatenate([_labels(model, x[row : row + 1]) for _ in range(VOTES)])
            names, counts = np.unique(votes, return_counts=True)
            labels.append(names[counts.argmax()])
    finally:
        _VOTING.reset(before)
    return np.array(labels) if labels else _labels(model, x)


def _in_range(plugin: Plugin, claim: Claim, n: int) -> None:
    rows = np.asarray(claim.rows)
    numbered = rows.ndim == 1 and (not len(rows) or rows.dtype.kind in "iu")  # a mask picks other rows than it counts
    if not numbered or (len(rows) and (rows.min() < 0 or rows.max() >= n)) or len(np.unique(rows)) != len(rows):
        raise LawBroken(
            f"expected {plugin.id} to claim distinct rows of its batch of {n}, got {rows[:5]}: mend the rows"
        )


def _judge_witness(
    plugin: Plugin, case: Case, batch: Batch, goal: Goal, claim: Claim, *, ledger: Ledger, rows: Array
) -> Array | None:
    """Which of the claimed rows hold, `(m,)`; None for a hint."""
    picked = np.asarray(claim.rows)
    if claim.x is None and claim.lead is not None and np.shape(claim.lead) == picked.shape:
        ledger.lead[rows[picked]] = np.fmin(ledger.lead[rows[picked]], claim.lead)
        return None
    if claim.x is None or claim.x.shape != (len(picked), *batch.x.shape[1:]):
        raise LawBroken(f"expected {plugin.id} to give one sample for each row it claims: mend the claim")
    x = np.asarray(claim.x, dtype=batch.x.dtype)
    far = how_far(goal.norm, batch.x[picked], x, case.schema)
    if (far > goal.eps * (1 + _BALL_TOLERANCE) + 1e-12).any():
        raise LawBroken(
            f"expected {plugin.id} to stay within {goal.norm} eps = {goal.eps}, got {far.max():.9g}: project"
        )
    good = wrong(case.the_model(), x, batch.y[picked], target=goal.target)
    if case.schema is not None:
        good &= permitted(case.schema, batch.x[picked], x)
    ledger.drop_upper(rows[picked[good]], far[good], x[good], plugin.id)
    return good


def _judge_radius(
    plugin: Plugin, case: Case, batch: Batch, goal: Goal, claim: Claim, *, ledger: Ledger, rows: Array
) -> Array | None:
    if claim.radius is None or claim.radius.shape != np.asarray(claim.rows).shape or np.isnan(claim.radius).any():
        raise LawBroken(f"expected {plugin.id} to give a radius for each row it claims: mend the claim")
    picked = batch.x[claim.rows], batch.y[claim.rows]
    right = ~_lost(case.the_model(), *picked, target=goal.target)
    switches = _switches(case.schema)
    # Certificates know of no switches. A change with one is at least as far as the cheapest of them.
    radius = np.minimum(claim.radius, min((1.0 if goal.norm is Norm.L0 else s.cost for s in switches), default=np.inf))
    ledger.raise_lower(rows[claim.rows[right]], radius[right], plugin.id)
    return right


def _lost(model: Model, x: Array, y: Array, *, target: int | None) -> NDArray[np.bool_]:
    """Which samples `(n,)` are broken as they are: not answered rightly, or answered with the target."""
    return unanswered(model, x, y) if target is None else wrong(model, x, y, target=target)


def _labels(model: Model, x: Array) -> Array:
    labels = np.asarray(model.labels(x))
    if labels.shape != (len(x),):
        raise ModelError(f"expected {len(x)} labels, got shape {labels.shape}: the model must answer each sample")
    return labels


def _switches(schema: Schema | None) -> tuple[Switch, ...]:
    return () if schema is None else schema.switches
