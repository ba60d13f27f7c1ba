"""The schedule of the standard probe: which attack looks at which rows of a shard, and in what order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casemate.core.bracket import Batch, Claim, Goal, Ledger
from casemate.core.case import Case
from casemate.core.facets import Cost, DataKind, Facet, PluginKind, Profile
from casemate.core.lab import Lab
from casemate.core.metering import unmetered
from casemate.core.norms import Norm
from casemate.core.planner import applicable
from casemate.core.plugin import Plugin
from casemate.engine.chance import drawn
from casemate.engine.harness import pursue, wrong
from casemate.engine.reach import reach_between
from casemate.errors import BudgetExhausted, Unavailable
from casemate.evasion import THREAT
from casemate.evasion.search import margins

__all__ = ["Schedule", "stages_for"]

Array = NDArray[Any]

_HALVINGS = 6  # of the way from a sample to its witness, before the next smaller eps
_LAST_HALVINGS = 3  # and when all attacks are done
_DOUBTED = 4  # certified samples of each job
_ALARM = 4  # samples of each job that an attack tries first that sees less than another one before it
_MANY = 4  # eps: with more, most rows are near the edge of some ball, and are started again a third as often
_SECOND = 5  # an alarm that was silent in a larger ball has so many times fewer queries
_BRINK = 0.12  # of its lead: who has less left where the attacks came nearest is looked at for a closer point
_NEAR = 0.25  # and who has less than that, if one of the others has one
_LOST = 1  # samples of each job and eps that stood in a larger ball and are attacked all the same


def stages_for(case: Case, norm: Norm, lab: Lab) -> tuple[list[Plugin], list[Plugin]]:
    """The certificates and the attacks that apply, cheapest first, gradients before scores before labels.

    Raises `Unavailable` where there are none.
    """
    known = [p for p in lab.plugins if norm in p.norms and applicable(p, case) is None]
    certificates = sorted((p for p in known if p.kind is PluginKind.CERTIFICATE), key=_price)
    attacks = sorted((p for p in known if p.kind is PluginKind.ATTACK), key=_price)
    if not attacks and not certificates:
        offered = ", ".join(sorted(case.offers))
        raise Unavailable(
            f"expected a case that some attack in {norm} applies to, got one that offers {offered}: "
            "give a model with scores or gradients"
        )
    return certificates, attacks


def _sight(plugin: Plugin) -> int:
    """What an attack sees: 0 gradients or weights, its own or a surrogate's, 1 scores or trees, 2 labels alone."""
    if plugin.needs & {Facet.AFFINE, Facet.GRADIENTS, Facet.SURROGATES}:
        return 0
    return 1 if plugin.needs & {Facet.SCORES, Facet.TREES} else 2


def _price(plugin: Plugin) -> tuple[int, int, str]:
    return _sight(plugin), list(Cost).index(plugin.cost), plugin.id


@dataclass(frozen=True)
class Schedule:
    """The stages on the rows of one shard, whose brackets are in the ledger; every stage stops at the lab's budget."""

    case: Case
    batch: Batch
    lab: Lab
    ledger: Ledger
    certificates: Sequence[Plugin]
    attacks: Sequence[Plugin]
    balls: int = 1

    def opened(self, radii: Sequence[float]) -> NDArray[np.bool_]:
        """Certificates, and the attacks by gradients that are not expensive: on most models these break most rows.

        Returns which rows were not fully attacked for which eps, `(n, len(radii))`: the budget ended first.
        """
        whole = all(
            self._pursued(plugin, Goal(self.ledger.norm, float("inf")), np.flatnonzero(self.ledger.upper > 0))
            for plugin in self.certificates
        )
        for eps in radii:  # some certified rows are attacked: a false certificate meets its contradiction
            doubted = np.flatnonzero(~self.ledger.broken(eps) & (self.ledger.lower > eps))[:_DOUBTED]
            whole = whole and all(self._pursued(p, Goal(self.ledger.norm, eps), doubted) for p in self._in_a_ball[:1])
        return self._in_balls([p for p in self._in_a_ball if self._opens(p)], radii, whole=whole)

    def pressed(self, radii: Sequence[float]) -> NDArray[np.bool_]:
        """All other attacks: in each ball from the largest down, then those that look for the nearest point.

        Returns what `opened` does.
        """
        unfinished = self._in_balls([p for p in self._in_a_ball if not self._opens(p)], radii, whole=True)
        if unfinished.any() or not self._closest(radii):
            for column, eps in enumerate(radii):
                unfinished[self._open(eps), column] = True
        return unfinished

    def _in_balls(self, plugins: Sequence[Plugin], radii: Sequence[float], *, whole: bool) -> NDArray[np.bool_]:
        """Some attacks in each ball, the largest first; who stood in one is spared those within."""
        unfinished = np.zeros((len(self.batch), len(radii)), dtype=bool)
        stood, calm = np.zeros(len(self.batch), dtype=bool), set[int]()
        for column, eps in reversed(list(enumerate(radii))):
            whole = whole and self._within(plugins, eps, stood, calm)
            open_ = self._open(eps)
            if whole:
                stood[open_] = True
            else:
                unfinished[open_[~stood[open_]], column] = True
        if whole:
            self._come_closer(halvings=_LAST_HALVINGS)
        return unfinished

    @property
    def _in_a_ball(self) -> list[Plugin]:
        return [plugin for plugin in self.attacks if not plugin.minimum_norm]

    @staticmethod
    def _opens(plugin: Plugin) -> bool:
        return _sight(plugin) == 0 and plugin.cost is not Cost.EXPENSIVE

    @cached_property
    def _lead(self) -> Array:
        """How sure the model is of each sample, `(n,)`: the lead of the true class; 0 where it gives labels alone."""
        if not self.case.offers & {Facet.LOGITS, Facet.SCORES} or self.case.kind is DataKind.TEXT:
            return np.zeros(len(self.batch))
        self.lab.meter.observe(len(self.batch))
        with drawn(self.lab.seed, "lead"):
            return margins(unmetered(self.case.the_model()), self.batch.x, self.batch.y, None)[0]

    def _open(self, eps: float) -> Array:
        """The rows that nobody has broken at eps and nobody has certified for it; a bound of eps itself is none yet."""
        return np.flatnonzero(~self.ledger.broken(eps) & (self.ledger.lower <= eps))

    def _within(self, plugins: Sequence[Plugin], eps: float, stood: Array, calm: set[int]) -> bool:
        """Some attacks in a ball on the rows that it can still change; whether they came to their ends.

        The largest eps comes first: what `stood (n,)` against all of them there stands within every smaller one, so
        that a row pays for one failing run. The likeliest of these are attacked all the same: where one breaks, the
        attacks get lost in large balls (a model that hides its gradients), and all are. Who broke in a larger ball is
        first drawn closer. Alarms that were `calm` in a larger ball are asked briefly.
        """
        self._come_closer(within=eps)
        again = self._likeliest(np.flatnonzero(stood & ~self.ledger.broken(eps)), _LOST)
        silent: set[int] = set()
        for plugin in plugins:
            rows = self._open(eps)
            rows = np.union1d(rows[~stood[rows]], again)
            goal, brief = Goal(self.ledger.norm, eps), _sight(plugin) in calm
            if self._sees_less(plugin):
                whole = self._alarm(plugin, goal, rows, within=[eps], silent=silent, brief=brief)
            else:
                whole = self._pursued(plugin, goal, rows)
            if not whole:
                return False
            if self.ledger.broken(eps)[again].any():
                stood[:] = False
                return self._within(plugins, eps, stood, calm)
        calm |= silent
        return True

    def _closest(self, radii: Sequence[float]) -> bool:
        """The minimum-norm attacks, once for all eps, on what they can still change; whether they came to their ends.

        One that sees gradients seldom breaks what gradients have not broken in balls: there it is an alarm, and looks
        no further than at those that came `near`. With `distances` those with gradients or scores look at every sample.
        """
        goal, silent = Goal(self.ledger.norm, float("inf")), set[int]()
        in_balls = any(_sight(plugin) == 0 for plugin in self._in_a_ball)
        for plugin in (p for p in self.attacks if p.minimum_norm):
            if self.lab.options.distances and (_sight(plugin) < 2 or self.case.kind is DataKind.TEXT):
                whole = self._pursued(plugin, goal, np.flatnonzero(self.ledger.upper > 0))
            elif self._sees_less(plugin):
                whole = self._alarm(plugin, goal, self._open(radii[-1]), within=radii, silent=silent)
            elif in_balls:
                whole = self._alarm(plugin, goal, self._near(radii[0]), within=radii, silent=silent)
            else:
                whole = self._pursued(plugin, goal, np.flatnonzero(self.ledger.upper > radii[0]))
            if not whole:
                return False
        return True

    def _sees_less(self, plugin: Plugin) -> bool:
        """Whether an attack sees less than one of the others: it is weaker, unless what those see leads astray.

        What sees only another model's gradients makes nobody weaker who asks the model itself.
        """
        return any(_sight(other) < _sight(plugin) and Facet.SURROGATES not in other.needs for other in self.attacks)

    def _alarm(
        self,
        plugin: Plugin,
        goal: Goal,
        rows: Array,
        *,
        within: Sequence[float],
        silent: set[int],
        brief: bool = False,
    ) -> bool:
        """An attack on a few of the rows, and on the others only if it breaks one of these `within` a new eps.

        One that sees gradients, and is not expensive, looks at all that came near. If it breaks none, other attacks
        that see as much are not tried: `silent` has what they see.
        """
        if _sight(plugin) in silent or not len(rows):
            return True
        few = self._likeliest(rows, _ALARM)
        if self._opens(plugin):
            few = np.union1d(few, rows[self._left[rows] <= _BRINK])
        before = [self.ledger.broken(eps)[few].sum() for eps in within]
        if not self._pursued(plugin, goal, few, brief=brief):
            return False
        if any(self.ledger.broken(eps)[few].sum() > known for eps, known in zip(within, before, strict=True)):
            return self._pursued(plugin, goal, np.setdiff1d(rows, few))
        silent.add(_sight(plugin))
        return True

    @property
    def _left(self) -> Array:
        """What share of its lead each sample had left where an attack came nearest, `(n,)`; NaN: none has said."""
        if Facet.LOGITS not in self.case.offers:  # scores are no measure of a lead in logits
            return np.full(len(self.batch), np.nan)
        return self.ledger.lead / np.maximum(np.abs(self._lead), np.finfo(np.float64).tiny)

    def _near(self, eps: float) -> Array:
        """The rows not broken at eps that are likely to be broken somewhere: of the others an attack has said so."""
        return np.flatnonzero((self.ledger.upper > eps) & ~(self._left > _NEAR))

    def _likeliest(self, rows: Array, most: int) -> Array:
        """Those of the rows that an attack came nearest to breaking, then those that the model is least sure of."""
        order = np.lexsort((self._lead[rows], self._left[rows]))  # NaN is last
        return np.sort(rows[order[:most]])

    def _pursued(self, plugin: Plugin, goal: Goal, rows: Array, *, brief: bool = False) -> bool:
        """One stage under the harness, with a lab in the plug-in's name and options; `brief`: with fewer queries."""
        if not len(rows):
            return True
        lab = self.lab
        known = {item.name for item in fields(plugin.options)}
        asked = {name: getattr(lab.options, name) for name in ("steps", "restarts", "targets", "queries")}
        given = {name: value for name, value in asked.items() if name in known and value is not None}
        options = plugin.configured(Profile(lab.options.effort), given)
        if self.balls > _MANY and "restarts" in known and lab.options.restarts is None:
            options = replace(options, restarts=-(-options.restarts // 3))
        if brief and "queries" in known:
            options = replace(options, queries=-(-options.queries // _SECOND))
        own = replace(lab, plugin=plugin.id, options=options)
        return pursue(plugin, self.case, self.batch.take(rows), goal, own, ledger=self.ledger, rows=rows)

    def _come_closer(self, *, within: float = 0.0, halvings: int = _HALVINGS) -> None:
        """Halve the way from each sample to its witness a few times: the curve between the given eps, nearly for free.

        Only of those whose witness is not `within` so much yet. Between two texts there is no way to go.
        """
        ledger = self.ledger
        wide = np.isfinite(ledger.upper) & (ledger.upper > ledger.lower * (1 + 1e-3))
        rows = np.flatnonzero(wide & (ledger.upper > 0) & ~ledger.broken(within))
        if not len(rows) or self.case.kind is DataKind.TEXT:
            return
        witnesses = ledger.witness[rows].copy()

        def closer(case: Case, batch: Batch, goal: Goal, lab: Lab) -> Iterator[Claim]:
            del lab
            yield from _bisected(case, batch, witnesses, goal.norm, halvings)

        step = Plugin(PluginKind.ATTACK, "evasion/standard", closer, THREAT, "bisection along a segment")
        found_by, goal = ledger.upper_by[rows].copy(), Goal(ledger.norm, float("inf"))
        pursue(step, self.case, self.batch.take(rows), goal, self.lab, ledger=ledger, rows=rows)
        ledger.upper_by[rows] = found_by  # a witness drawn closer is still the finder's


def _bisected(case: Case, batch: Batch, witnesses: Array, norm: Norm, halvings: int) -> Iterator[Claim]:
    best = witnesses.astype(batch.x.dtype)
    reach = reach_between(norm, batch.x, best, case.schema)
    near, far = np.zeros(len(batch)), np.ones(len(batch))
    way, found = best - batch.x.astype(np.float64), np.zeros(len(batch), dtype=bool)
    try:
        for _ in range(halvings):
            middle = (near + far) / 2
            points = middle.reshape(-1, *(1,) * (way.ndim - 1)) * way
            points = reach.settle(np.add(points, batch.x, out=points))
            hit = wrong(case.the_model(), points, batch.y)
            found |= hit
            best[hit] = points[hit]
            far, near = np.where(hit, middle, far), np.where(hit, near, middle)
    except BudgetExhausted:
        yield Claim(np.flatnonzero(found), x=best[found])
        raise
    yield Claim(np.flatnonzero(found), x=best[found])
