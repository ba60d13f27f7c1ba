"""What the attacks that climb in a ball share: preparation, claims, who refuses, and what has no gradient."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal
from casemate.core.case import Case
from casemate.core.lab import Lab
from casemate.core.norms import Norm
from casemate.core.rng import normals, uniforms
from casemate.engine.harness import steadied, wrong
from casemate.engine.prepared import Prepared, prepare
from casemate.engine.reach import Reach, reach_of
from casemate.errors import BudgetExhausted, UsageError
from casemate.evasion.climb import Climb, Stage
from casemate.evasion.losses import margin

__all__ = ["Ascent", "Search", "ascents", "climbed", "ranked_classes", "stages_of", "start_in_ball"]

Array = NDArray[Any]
_CELLS = 2**21  # features that climb at once: a climb keeps some twenty times their memory, for each of its lanes


@dataclass(frozen=True, slots=True)
class Ascent:
    """What all climbs of an attack share. `way` names their random streams.

    `steered (n,)` is where they note which rows of the batch had a gradient at the start of a climb.
    """

    case: Case
    batch: Batch
    goal: Goal
    lab: Lab
    reach: Reach
    way: str
    steered: NDArray[np.bool_]


Search = Callable[[Ascent, Prepared, Array], Generator[Claim, Array | None, Array]]
"""`(task, prepared, alive) -> claims`: one attack on the rows that stand; returns those that stand after it."""


def ascents(case: Case, batch: Batch, goal: Goal, lab: Lab, search: Search) -> Iterator[Claim]:
    """Run a search; then once more past operations without a gradient, on the samples where that is what stops it.

    The lab's options have `draws` (answers of a random model that are averaged, None: 8) and `straight` (True, False;
    None: on samples whose gradient is 0 without and not with it). Raises `UsageError` for eps = inf.
    """
    if not np.isfinite(goal.eps):
        raise UsageError(f"expected a finite eps for {lab.plugin}, got inf: ask a minimum-norm attack for the distance")
    alive = np.flatnonzero(batch.y != goal.target) if goal.target is not None else np.arange(len(batch))
    if not len(alive) or goal.eps == 0:
        return
    prepared = prepare(case.the_model(), batch.x, lab.meter, seed=lab.seed_for("draws"), draws=lab.options.draws)
    way = lab.plugin.rpartition("/")[2]
    reach = reach_of(goal.norm, goal.eps, batch.x, case.schema)
    task = Ascent(case, batch, goal, lab, reach, way, steered=np.zeros(len(batch), dtype=bool))
    alive = yield from _in_parts(search, task, prepared, alive)
    if len(alive) and lab.options.straight is not False:
        straight = prepared.straight()
        alive = alive if lab.options.straight else _blind(task, prepared, straight, alive)
        if len(alive):
            yield from _in_parts(search, replace(task, way=f"{way} straight"), straight, alive)


def _in_parts(search: Search, task: Ascent, prepared: Prepared, alive: Array) -> Generator[Claim, Array | None, Array]:
    """A search on so many rows at once as memory allows: no sample's fate depends on the others of its batch."""
    size, stand = max(1, _CELLS // max(1, task.batch.x[0].size)), alive[:0]
    for top in range(0, len(alive), size):
        stand = np.append(stand, (yield from search(task, prepared, alive[top : top + size])))
    return stand


def climbed(
    task: Ascent, climb: Climb, alive: Array, start: Array, target: Array | None
) -> Generator[Claim, Array | None, NDArray[np.bool_]]:
    """Climb with the rows `alive (m,)`, each in as many lanes as the climb has; which of them stand after it, `(m,)`.

    `start (m * lanes, ...)`; `target (m * lanes,)` or None. The model as the user gave it has the last word: where it
    answers otherwise than its logits (a guard or a threshold refuses, votes of a random model fall short), the row
    climbs once more from the same start, and the model is asked in each step until it gives way.
    """
    stands = yield from _run(task, climb, alive, start, target)
    again = np.flatnonzero(stands & climb.broken[:: climb.lanes])
    if len(again):
        rows = (again[:, None] * climb.lanes + np.arange(climb.lanes)).reshape(-1)
        judge = partial(_breaks, task, np.repeat(alive[again], climb.lanes))
        second = replace(climb, reach=climb.reach.take(rows), judge=judge)
        aim = None if target is None else target[rows]
        stands[again] = yield from _run(task, second, alive[again], start[rows], aim)
        climb.reached[rows] = second.reached
    return stands


def _run(
    task: Ascent, climb: Climb, alive: Array, start: Array, target: Array | None
) -> Generator[Claim, Array | None, NDArray[np.bool_]]:
    """One climb and one claim of all that it found, which is judged faster than many; which rows stand, `(m,)`."""
    rows, stands = np.repeat(alive, climb.lanes), np.ones(len(alive), dtype=bool)
    pile: list[tuple[Array, Array]] = []
    ended: BudgetExhausted | None = None
    try:
        pile.extend(climb.run(start, task.batch.y[rows], target))  # keeps what came before an error
    except BudgetExhausted as error:
        ended = error
    task.steered[rows[climb.steered]] = True
    if pile:
        found, points = (np.concatenate(part) for part in zip(*pile, strict=True))
        held = yield Claim(rows[found], x=task.reach.take(rows[found]).settle(points))
        if ended is None:  # nobody answers but the harness
            stands[found // climb.lanes] = ~(_breaks(task, rows, found, points) if held is None else held)
    if ended is not None:
        raise ended
    return stands


def _breaks(task: Ascent, own: Array, rows: Array, points: Array) -> NDArray[np.bool_]:
    """Which points `(j, ...)` of some `rows (j,)` of a climb break the user's model; `own (m,)` are its batch rows."""
    hit = own[rows]
    settled = task.reach.take(hit).settle(points)
    return wrong(steadied(task.case), settled, task.batch.y[hit], target=task.goal.target)


def ranked_classes(prepared: Prepared, batch: Batch, alive: Array) -> tuple[Array, Array]:
    """The wrong classes of each row, likeliest first, `(m, k - 1)`, and by how much the true one leads, `(m,)`."""
    logits = prepared.logits(prepared.tensor(batch.x[alive])).double().cpu().numpy()
    own = np.arange(len(alive)), batch.y[alive]
    true = logits[own].copy()
    logits[own] = -np.inf
    return np.argsort(-logits, axis=1, kind="stable")[:, :-1], true - logits.max(axis=1)


def stages_of(norm: Norm, steps: int) -> tuple[Stage, ...]:
    """One ball; in l1 first those of 3 and 2 eps, as the paper of that variant has it (section 3.3)."""
    if norm is not Norm.L1:
        return (Stage(steps),)
    wide = int(0.3 * steps)
    return Stage(wide, 3.0), Stage(wide, 2.0), Stage(steps - 2 * wide)


def start_in_ball(task: Ascent, rows: Array, number: int) -> Array:
    """A random point of each row's ball, `(m, ...)`: uniform for linf, else on the sphere (as the authors' code)."""
    reach, ids, name = task.reach.take(rows), task.batch.sample_id[rows], (task.way, number)
    shape = reach.x.shape[1:]
    if reach.norm is Norm.LINF:
        draw = 2 * uniforms(task.lab.seed, name, ids, shape) - 1
    else:
        draw = normals(task.lab.seed, name, ids, shape) * (reach.scale > 0)
        sizes = np.abs(draw) if reach.norm is Norm.L1 else draw**2
        size = sizes.reshape(len(draw), -1).sum(1).reshape(-1, *(1,) * len(shape))
        draw /= np.maximum(size if reach.norm is Norm.L1 else np.sqrt(size), np.finfo(np.float64).tiny)
    return np.asarray(reach.x + reach.eps * reach.scale * draw)


def _blind(task: Ascent, prepared: Prepared, straight: Prepared, alive: Array) -> Array:
    """The rows whose gradient at a random point of the ball is 0 and is not when it passes straight through.

    Row by row, so that none depends on the others of its batch. Of those that no climb has found to have one the margin
    is asked: that of cross-entropy is also 0 where a model is merely sure. Where the user has given a stand-in, all
    rows.
    """
    rows = alive
    if not straight.module.stands_in:
        rows = rows[~task.steered[rows]]
        rows = rows[~_moved(task, prepared, rows)]
    return rows[_moved(task, straight, rows)]


def _moved(task: Ascent, prepared: Prepared, rows: Array) -> NDArray[np.bool_]:
    """Which rows `(m,)` have a gradient other than 0 at a random point of their balls, `(m,)`."""
    import torch

    if not len(rows):
        return np.zeros(0, dtype=bool)
    points = task.reach.take(rows).settle(start_in_ball(task, rows, 0))
    y = torch.tensor(task.batch.y[rows].astype(np.int64), device=prepared.device)
    target = None if task.goal.target is None else torch.full_like(y, task.goal.target)
    _, _, slope = prepared.gradient(prepared.tensor(points), lambda z: margin(z, y, target))
    return np.asarray((slope != 0).flatten(1).any(dim=1).cpu().numpy())
