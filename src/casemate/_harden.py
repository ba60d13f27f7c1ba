"""Hardening: apply the remedies, audit again on the same rows with fresh attack seeds, keep what made nothing worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from casemate._audit import Order, Place, run, shop_for
from casemate._compare import Difference, compare_reports
from casemate._workshop import Progress
from casemate.core.budget import Meter
from casemate.core.case import Candidate, Case
from casemate.core.evidence import Quantity
from casemate.core.facets import PluginKind
from casemate.core.judgement import TABLE, Status
from casemate.core.metering import metered_case
from casemate.core.model import Model, Task
from casemate.core.outcome import Clean, Failed, Finding, Inconclusive, Outcome, Severity, Skipped, SkipReason
from casemate.core.planner import applicable
from casemate.core.plugin import Plugin
from casemate.core.report import Report
from casemate.core.rng import derive_seed, stream
from casemate.engine.bundles import bundle_of
from casemate.engine.masking import signs_of_masking
from casemate.errors import CasemateError, LawBroken, UsageError
from casemate.executors import fixed_threads

__all__ = ["Hardened", "Trial", "assess", "harden"]

_MARGIN = 0.05  # a share may move by so much before an unclear change for the worse refuses a candidate


@dataclass(frozen=True)
class Trial:
    """One hardening that was tried: its candidate, the new report, and why it was accepted or refused."""

    plugin: str
    accepted: bool
    reasons: tuple[str, ...]
    summary: str = ""
    case: Case | None = None
    report: Report | None = None
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Hardened:
    """The best case there is after hardening (the original one when every trial was refused), and all trials."""

    case: Case
    report: Report
    trials: tuple[Trial, ...]
    original: Case

    @property
    def improved(self) -> bool:
        """Whether any candidate was accepted."""
        return any(trial.accepted for trial in self.trials)


def harden(
    case: Case,
    order: Order | None = None,
    place: Place | None = None,
    *,
    only: Sequence[str] = (),
    plugins: tuple[Plugin, ...] | None = None,
    on_progress: Progress | None = None,
) -> Hardened:
    """Audit, then try each applicable hardening on top of the last accepted one; every candidate is audited again.

    The new audit looks at the same held-out rows, draws its attacks afresh, and lets attackers borrow the gradients of
    the models before: a candidate that only hides its own gains nothing, and one that shows signs of hiding them is
    refused even where no borrowed gradient broke it. A hardening that raises is a refused trial. Raises `UsageError`
    when no hardening applies to the case.
    """
    from casemate import catalog

    order, place = order or Order(), place or Place()
    known = catalog.plugins() if plugins is None else plugins
    remedies = [p for p in known if p.kind is PluginKind.HARDENING and (not only or p.id in only)]
    fitting = [p for p in remedies if applicable(p, case.without_test()) is None]
    if not fitting:
        names = ", ".join(p.id for p in remedies) or "none"
        raise UsageError(
            f"expected a case that one of the hardenings ({names}) fits, got none: name a recipe and train data"
        )
    first = run(case, order, _beside(place, "before"), plugins=known, on_progress=on_progress)
    best = Hardened(case, first, (), case)
    folder = _folder(place, "before")
    for number, plugin in enumerate(fitting):
        label = plugin.id.replace("/", ".")
        trial = _tried(plugin, best, order, _beside(place, label), number=number, known=known, before=folder)
        if trial.accepted and trial.case is not None and trial.report is not None:
            best, folder = replace(best, case=trial.case, report=trial.report), _folder(place, label)
        best = replace(best, trials=(*best.trials, trial))
    return best


def _tried(
    plugin: Plugin,
    best: Hardened,
    order: Order,
    place: Place,
    *,
    number: int,
    known: tuple[Plugin, ...],
    before: Path | None,
) -> Trial:
    try:
        candidate = _candidate(plugin, best, order, place, known)
        case = _with(best.case, candidate)
        masked = _masked(best, case, order)
    except Exception as error:  # a plug-in, or the model it made, may raise anything
        return Trial(plugin.id, False, (f"it could not be applied: {_words(error)}",))
    fresh = replace(
        order,
        seed=derive_seed(order.seed, "harden", plugin.id, number) >> 11,  # a report holds integers up to 2**53
        sampling_seed=order.seed if order.sampling_seed is None else order.sampling_seed,
    )
    try:
        report = run(replace(case, surrogates=_lenders(best)), fresh, place, plugins=known)
    except LawBroken as error:  # the new audit could not go on
        return Trial(plugin.id, False, (f"it could not be audited: {error}",), candidate.summary, case)
    differences = tuple(compare_reports(best.report, report, before, place.output))
    reasons = (*masked, *assess(best.report, report, differences))
    accepted = not reasons
    kept = reasons or tuple(_gains(best.report, differences))
    return Trial(plugin.id, accepted, kept, candidate.summary, case, report, differences)


def _candidate(plugin: Plugin, best: Hardened, order: Order, place: Place, known: tuple[Plugin, ...]) -> Candidate:
    shop = shop_for(order, known, place.executor)
    meter = Meter()
    options = plugin.configured(order.profile, order.options.get(plugin.id))
    blind = metered_case(best.case.without_test(), meter)
    try:
        with fixed_threads(order.threads):
            candidate = plugin.function(blind, best.report.findings, shop.lab(plugin, options, meter))
    finally:
        shop.executor.close()
    if not isinstance(candidate, Candidate):
        raise LawBroken(f"expected a candidate from {plugin.id}, got {type(candidate).__name__}: return a Candidate")
    return candidate


def _with(case: Case, candidate: Candidate) -> Case:
    held = (*case.calibrations, *candidate.calibrations)
    return replace(
        case,
        model=candidate.model,
        recipe=candidate.recipe or case.recipe,
        calibrations=held,
        bundle=bundle_of(candidate.model, case.schema, held),
        declared={},
        files=case.files if case.model and candidate.model.digest == case.model.digest else (),  # new ones have no file
    )


def _lenders(best: Hardened) -> tuple[Model, ...]:
    """The models whose gradients an attacker may borrow: the user's own, and every one that was accepted so far."""
    cases = [best.original, *(trial.case for trial in best.trials if trial.accepted)]
    models = [case.model for case in cases if case is not None and case.model is not None]
    return (*best.original.surrogates, *(model for model in models if model.module is not None))


def _masked(best: Hardened, case: Case, order: Order) -> tuple[str, ...]:
    before, after, test = best.case.model, case.model, case.splits.test
    if before is None or after is None or test is None or before.task is not Task.CLASSIFICATION:
        return ()
    with fixed_threads(order.threads):
        return signs_of_masking(before, after, test, stream(order.seed, "harden", "masking"))


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, CasemateError) else f"{type(error).__name__}: {error}"


def assess(before: Report, after: Report, differences: Sequence[Difference]) -> tuple[str, ...]:
    """Why a candidate is refused: every room that got worse or can no longer be measured, or that nothing got better.

    A change for the worse counts when its interval excludes zero, or when it is larger than five points; clean accuracy
    may fall clearly, by at most five points; no gate may come out worse than before. Empty: accepted.
    """
    reasons = [
        *_lost(before, after),
        *_more_severe(before, after),
        *_gates(before, after),
        *_worse(before, differences),
    ]
    if not reasons and not _gains(before, differences):
        reasons.append("nothing became clearly better")
    return tuple(reasons)


def _lost(before: Report, after: Report) -> list[str]:
    had = {o.plugin for o in before.outcomes if isinstance(o, Finding | Clean | Inconclusive)}
    lost = []
    for outcome in after.outcomes:
        budget = isinstance(outcome, Skipped) and outcome.reason is not SkipReason.NOT_APPLICABLE
        if outcome.plugin in had and (isinstance(outcome, Failed) or budget):
            lost.append(f"{outcome.plugin} can no longer be measured ({outcome.outcome})")
    gone = sorted(_judged(before) - {(e.metric, e.about) for o in after.outcomes for e in o.evidence})
    return [*lost, *(f"{metric} {about}".strip() + " is no longer measured" for metric, about in gone)]


def _judged(report: Report) -> set[tuple[str, str]]:
    return {(e.metric, e.about) for o in report.outcomes for e in o.evidence if e.quantity in TABLE}


def _gates(before: Report, after: Report) -> list[str]:
    rank = {Status.PASSED: 0, Status.UNDECIDED: 1, Status.FAILED: 2}
    was = {gate.gate: gate.status for gate in before.ruling.gates}
    return [
        f"the gate '{gate.gate}' was {was.get(gate.gate, Status.PASSED)} and is now {gate.status}: {gate.reason}"
        for gate in after.ruling.gates
        if rank[gate.status] > rank[was.get(gate.gate, Status.PASSED)]
    ]


def _worst(outcomes: Sequence[Outcome]) -> dict[str, Severity]:
    rooms: dict[str, Severity] = {}
    for outcome in outcomes:
        if isinstance(outcome, Finding):
            room = outcome.plugin.partition("/")[0]
            rooms[room] = max(rooms.get(room, Severity.NONE), outcome.severity, key=lambda s: s.rank)
    return rooms


def _more_severe(before: Report, after: Report) -> list[str]:
    was, now = _worst(before.outcomes), _worst(after.outcomes)
    return [
        f"{room} got worse: its worst finding went from {was.get(room, Severity.NONE)} to {severity}"
        for room, severity in now.items()
        if severity.rank > was.get(room, Severity.NONE).rank
    ]


def _harm(difference: Difference, worse: int) -> tuple[float, float]:
    """The change in the bad direction: its value and its favourable end."""
    if worse > 0:
        return difference.value, difference.low
    return -difference.value, -difference.high


def _directions(report: Report) -> dict[str, tuple[int, bool]]:
    known = {e.metric: e.quantity for o in report.outcomes for e in o.evidence}
    found = {
        m: (TABLE[q].worse, q is not Quantity.LIFT and q is not Quantity.P_VALUE)
        for m, q in known.items()
        if q in TABLE
    }
    return found | {m: (-1, True) for m in known if _is_accuracy(m)}


_FITTED = ("evasion.universal_kept", "evasion.patch_kept")


def _worse(before: Report, differences: Sequence[Difference]) -> list[str]:
    directions = _directions(before)
    found = []
    for difference in differences:
        if difference.metric not in directions:
            continue
        worse, share = directions[difference.metric]
        harm, least = _harm(difference, worse)
        clear = least > 0 and not _is_accuracy(difference.metric)  # robustness and privacy cost some accuracy
        # One perturbation fitted for all samples is another one with another seed, by more than sampling explains.
        fitted = difference.metric in _FITTED
        if clear or (share and harm > _MARGIN + 1e-9 and not fitted):
            name = f"{difference.metric} {difference.about} {difference.at}".strip()
            found.append(f"{name} got worse: {difference.a:.4g} to {difference.b:.4g}")
    return found


def _gains(before: Report, differences: Sequence[Difference]) -> list[str]:
    directions = _directions(before)
    gains = []
    for difference in differences:
        if difference.metric in directions and not _is_accuracy(difference.metric):
            worse, _ = directions[difference.metric]
            gain, least = _harm(difference, -worse)
            if least > 0 and gain > 0:
                name = f"{difference.metric} {difference.about} {difference.at}".strip()
                gains.append(f"{name} got better: {difference.a:.4g} to {difference.b:.4g}")
    return gains


def _is_accuracy(metric: str) -> bool:
    return metric.endswith(".clean_accuracy")


def _folder(place: Place, name: str) -> Path | None:
    return place.output / name if place.output else None


def _beside(place: Place, name: str) -> Place:
    return replace(place, output=_folder(place, name), resume=None)
