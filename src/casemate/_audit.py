"""The audit: case and plan in, report out."""

from __future__ import annotations

import datetime as dt
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from casemate._workshop import (
    Progress,
    Workshop,
    alone_in,
    as_json,
    case_digest,
    code_digest,
    recalled,
    recorded,
    versions,
)
from casemate.core.budget import Budget, Meter, Spent, allocate
from casemate.core.case import Case
from casemate.core.data import plain_bytes
from casemate.core.evidence import Direction, Evidence, Metric, Quantity, check
from casemate.core.facets import PluginKind, Profile
from casemate.core.judgement import judge, rule
from casemate.core.lab import Lab
from casemate.core.metering import metered_case
from casemate.core.names import nearest
from casemate.core.outcome import Failed, Outcome, Skipped, SkipReason
from casemate.core.planner import Step, applicable, plan
from casemate.core.plugin import Plugin
from casemate.core.policy import Policy
from casemate.core.report import DataFacts, PluginFacts, Report, Timings
from casemate.core.stats import Interval
from casemate.errors import BudgetExhausted, ConfigError, Contradiction, LawBroken, Unavailable, UsageError
from casemate.executors import executor, fixed_threads
from casemate.formats import calibrations, canonical
from casemate.preflight._trial import try_out
from casemate.report.folder import refuse_unwritable, write_report
from casemate.report.notes import notes_of
from casemate.store import Store, open_store
from casemate.store.faults import fault_of
from casemate.store.queries import count_on

__all__ = ["Order", "Place", "lab_for", "run", "shop_for"]

_MOST_EVIDENCE = 100_000  # far beyond what anybody reads; without a bound a probe without end would hold the audit
_FALSE_ALARMS = Metric("guard.false_positive_rate", Quantity.NOTE, Direction.EITHER)


@dataclass(frozen=True, slots=True)
class Order:
    """Everything beside the case that decides a report."""

    policy: Policy = field(default_factory=Policy)
    seed: int = 0
    profile: Profile = Profile.STANDARD
    budget: Budget = field(default_factory=Budget)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    threads: int = 1
    sampling_seed: int | None = None

    def __post_init__(self) -> None:
        for seed in (self.seed, self.sampling_seed or 0):
            if not 0 <= seed <= canonical.MAX_INTEGER:
                raise ConfigError(f"expected a seed from 0 to 2**53, got {seed}: choose a smaller one")
        if not 1 <= self.threads <= 1024:
            raise ConfigError(f"expected threads from 1 to 1024, got {self.threads}: choose a number of cores")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an audit runs and what it leaves; nothing here changes the report but its timings.

    Without an `output` folder the evidence stays in memory, without a `store` nothing can be resumed. `resume` is the
    id of a run, or `last`.
    """

    output: Path | None = None
    store: str | None = None
    executor: str = "inline"
    resume: str | None = None


def run(
    case: Case,
    order: Order | None = None,
    place: Place | None = None,
    *,
    plugins: tuple[Plugin, ...] | None = None,
    on_progress: Progress | None = None,
    today: dt.date | None = None,
) -> Report:
    """Audit a case: plan, measure, judge, and (with an output folder) write report.json, report.html and the evidence.

    Raises `UsageError` where the order does not fit the case, or a run to be resumed was another audit.
    """
    from casemate import catalog

    order, place = order or Order(), place or Place()
    began = time.monotonic()
    known = catalog.plugins() if plugins is None else plugins
    steps = _planned(case, order, known)
    if place.output is not None:
        refuse_unwritable(place.output)
    request = canonical.digest(
        {
            "case": case_digest(case),
            "order": _settings(order),
            "steps": [[s.plugin.id, code_digest(s.plugin)] for s in steps],
            "versions": versions(),
        }
    )
    store = open_store(place.store) if place.store else None
    try:
        if on_progress is not None:
            on_progress("audit", 0, len(steps))
        with alone_in(place.output):
            run_id = _begin(store, case, request, place) if store else ""
            shop = shop_for(order, known, place.executor)
            shop.store, shop.run, shop.output, shop.on_progress = store, run_id, place.output, on_progress
            report = _measured(case, order, steps, shop, began=began, today=today)
            if place.output is not None:
                write_report(report, place.output)
        if store:
            from casemate.report.json import digest

            store.finish(run_id, str(report.ruling.status), digest(report), report.outcomes)
    except Exception as error:
        if (fault := fault_of(error)) is None or fault is error:
            raise
        raise fault from error
    finally:
        if store:
            store.close()
    return report


def shop_for(order: Order, plugins: tuple[Plugin, ...], spec: str = "inline") -> Workshop:
    """A workshop set up as an order says, without store and output."""
    return Workshop(
        seed=order.seed,
        profile=order.profile,
        plugins=plugins,
        executor=executor(spec, order.threads),
        options={key: dict(value) for key, value in order.options.items()},
        threads=order.threads,
        sampling_seed=order.sampling_seed,
        versions=versions(),
    )


def lab_for(plugin: Plugin, order: Order | None = None, *, meter: Meter | None = None) -> Lab:
    """A lab for running one plug-in by hand, as an audit with this order would set it up, keeping files in memory."""
    from casemate import catalog

    order = order or Order()
    shop = shop_for(order, catalog.plugins())
    return shop.lab(plugin, plugin.configured(order.profile, order.options.get(plugin.id)), meter or Meter())


def _planned(case: Case, order: Order, plugins: tuple[Plugin, ...]) -> list[Step]:
    metrics = {metric.name for plugin in plugins for metric in plugin.metrics} | {_FALSE_ALARMS.name}
    for gate in order.policy.gates:
        if gate.metric not in metrics:
            raise ConfigError(
                f"expected a metric that an installed plug-in measures in a gate, got {gate.metric!r}: "
                f"{nearest(gate.metric, sorted(metrics))}"
            )
    steps = plan(plugins, case, profile=order.profile, budget=order.budget, options=order.options, only=order.only)
    if not steps:
        raise UsageError("expected at least one probe in the plan, got none: mend `only`")
    try_out(case, steps)
    return steps


def _begin(store: Store, case: Case, request: str, place: Place) -> str:
    run_id = _new_or_resumed(store, case, request, place)
    count_on(case, store, run_id)
    return run_id


def _new_or_resumed(store: Store, case: Case, request: str, place: Place) -> str:
    if place.resume is None:
        where = str(place.output.resolve()) if place.output else ""
        return store.begin(case.name, request, where)
    rows = [row for row in store.runs() if place.resume in (row.id, "last")]
    if not rows:
        raise UsageError(f"expected a run to resume, got {place.resume!r}: `casemate list runs` shows them")
    row = next((r for r in reversed(rows) if r.request == request), rows[-1])
    if row.request != request:
        raise UsageError(
            f"expected the same model, data, settings, plug-ins and versions as run {row.id}, got others: "
            "start a new audit"
        )
    return row.id


def _measured(
    case: Case, order: Order, steps: list[Step], shop: Workshop, *, began: float, today: dt.date | None
) -> Report:
    deadline = None if order.budget.seconds is None else began + order.budget.seconds
    outcomes: list[Outcome] = []
    seconds: dict[str, float] = {}
    made: dict[str, str] = {}
    try:
        with fixed_threads(order.threads):
            left = order.budget.propagations
            for position, planned in enumerate(steps):
                start = time.monotonic()
                shop.tell("audit", position, len(steps))
                step = _shared(planned, steps[position:], left)
                outcomes += [step.skipped] if step.skipped else _stepped(case, step, shop, deadline)
                if left is not None and not step.skipped:
                    left = max(0, left - shop.spent[step.plugin.id].propagations)
                seconds[step.plugin.id] = round(time.monotonic() - start, 3)
            if not order.only:
                for plugin in shop.plugins:
                    outcomes += _calibrated(case, plugin, shop, deadline, made)
    finally:
        shop.executor.close()
    ruling = rule(outcomes, order.policy, today or dt.date.today())  # an expiry is a local date
    return Report(
        name=case.name,
        bundle=case.bundle.digest if case.bundle else "",
        model=case.model.digest if case.model else "",
        data={name: _facts(data) for name, data in case.splits.parts().items()},
        seed=order.seed,
        settings=_settings(order),
        versions=versions(),
        policy=order.policy,
        ruling=ruling,
        outcomes=tuple(outcomes),
        plugins=_plugin_facts(steps, shop),
        files=dict(sorted(shop.files.items())),
        calibrations=made,
        notes=notes_of(order.budget, steps, case),
        timings=Timings(
            run=shop.run,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - began, 3),
            executor=shop.executor.name,
            plugins=seconds,
        ),
    )


def _shared(step: Step, rest: list[Step], left: int | None) -> Step:
    """The step with its share of what is left of a count: what those before it did not use is not lost."""
    return replace(step, share=allocate(left, [s.plugin.cost for s in rest if not s.skipped] or [step.plugin.cost])[0])


def _stepped(case: Case, step: Step, shop: Workshop, deadline: float | None) -> list[Outcome]:
    """One probe: its evidence judged; what went wrong as an outcome beside it."""
    plugin = step.plugin
    key = ["probe", plugin.id, case_digest(case), as_json(step.options), step.share]
    if (blob := shop.finished(key)) is not None and (known := recalled(blob, plugin.id, shop)) is not None:
        evidence, trouble = known
    else:
        meter = Meter(limit=step.share, deadline=deadline)
        files_before, charged_before = set(shop.files), set(shop.charged)
        shop.tell(plugin.id, 0, 1)
        evidence, trouble = _probed(case, step, shop, meter)
        shop.spent[plugin.id] = meter.spent
        if not isinstance(trouble, Failed) and (deadline is None or trouble is None):  # what failed is tried again
            mine = {digest: path for digest, path in shop.files.items() if digest not in files_before}
            built = {k: v for k, v in shop.charged.items() if k not in charged_before}
            shop.finish(key, recorded(evidence, trouble, meter.spent, mine, built))
    outcomes = judge(plugin.id, evidence)
    return [*outcomes, trouble] if trouble is not None else outcomes


def _probed(case: Case, step: Step, shop: Workshop, meter: Meter) -> tuple[list[Evidence], Skipped | Failed | None]:
    plugin = step.plugin
    evidence: list[Evidence] = []
    why: list[object] = []
    before = _checksum(case)
    trouble: Skipped | Failed | None = None
    try:
        for item in _heard(plugin.function(metered_case(case, meter), shop.lab(plugin, step.options, meter)), why):
            _hold_to_law(plugin, item, shop, len(evidence))
            evidence.append(item)
    except BudgetExhausted as error:
        trouble = Skipped(plugin.id, SkipReason.BUDGET, str(error))
    except Unavailable as error:
        trouble = Skipped(plugin.id, SkipReason.UNAVAILABLE, str(error))
    except LawBroken as error:
        trouble = Failed(plugin.id, str(error), cause="contradiction" if isinstance(error, Contradiction) else "law")
    except Exception as error:  # a plug-in may raise anything; its failure is an outcome
        if fault_of(error):
            raise
        trouble = Failed(plugin.id, f"{type(error).__name__}: {error}")
    if _checksum(case) != before:
        raise LawBroken(f"expected {plugin.id} to leave the data untouched, got changed arrays: the audit cannot go on")
    trouble = _refused(plugin, meter, trouble)
    if isinstance(trouble, Failed) and trouble.cause == "law":
        evidence = []  # nothing that a law-breaker said is used
    return evidence, trouble or _nothing(plugin, evidence, why)


def _heard(items: Any, why: list[object]) -> Iterator[Evidence]:
    """The evidence that a probe yields; what it returns, if anything, is `why` there is none."""
    why.append((yield from items))


def _nothing(plugin: Plugin, evidence: list[Evidence], why: list[object]) -> Skipped | None:
    said = next((text for text in why if isinstance(text, str)), "found nothing to measure on this case")
    return None if evidence else Skipped(plugin.id, SkipReason.NOT_APPLICABLE, said)


def _refused(plugin: Plugin, meter: Meter, trouble: Skipped | Failed | None) -> Skipped | Failed | None:
    """What a probe's budget says of it, whatever it says itself: one that swallows the refusal is unfinished."""
    if meter.refusals > 1:
        return Failed(plugin.id, f"went on {meter.refusals - 1} times after its budget had ended", cause="law")
    if meter.refusals and trouble is None:
        return Skipped(plugin.id, SkipReason.BUDGET, "the budget ended, and it went on with what it had")
    return trouble


def _hold_to_law(plugin: Plugin, item: object, shop: Workshop, before: int) -> None:
    if before >= _MOST_EVIDENCE:
        raise LawBroken(f"expected {plugin.id} to come to an end, got over {_MOST_EVIDENCE:,} measurements: stop it")
    if type(item) is not Evidence:  # a subclass could answer otherwise when it is asked again
        raise LawBroken(f"expected evidence from {plugin.id}, got {type(item).__name__}: yield Evidence")
    check(item)
    declared = {metric.name: metric for metric in plugin.metrics}
    if item.metric not in declared or declared[item.metric].quantity is not item.quantity:
        raise LawBroken(f"expected a declared metric from {plugin.id}, got {item.metric} ({item.quantity}): declare it")
    if not set(item.files) <= set(shop.files):
        raise LawBroken(f"expected files that {plugin.id} kept, got {item.files}: keep them through the lab")


def _calibrated(
    case: Case, plugin: Plugin, shop: Workshop, deadline: float | None, made: dict[str, str]
) -> list[Outcome]:
    """The calibration of a guard or watch that fits the case, with its measured false-positive rate."""
    if plugin.calibrate is None or applicable(plugin, case) is not None:
        return []
    options = plugin.configured(shop.profile, shop.options.get(plugin.id))
    meter = Meter(deadline=deadline)
    try:
        calibration = plugin.calibrate(metered_case(case, meter), shop.lab(plugin, options, meter))
    except (BudgetExhausted, Unavailable) as error:
        return [Skipped(plugin.id, SkipReason.NOT_APPLICABLE, f"not calibrated: {error}")]
    except Exception as error:  # as for probes
        if fault_of(error):
            raise
        return [Failed(plugin.id, f"{type(error).__name__}: {error}")]
    shop.spent[plugin.id] = meter.spent
    stem = f"calibrations/{plugin.id.replace('/', '.')}"
    digest = made[plugin.id] = shop.keep_bytes(stem, calibrations.write(calibration))
    rate = Interval(calibration.fpr, calibration.low, calibration.high, calibration.n, 0.95, "Clopper-Pearson")
    note = _FALSE_ALARMS.measured(
        rate,
        method="on clean samples held out from calibration",
        at={"declared": calibration.declared_fpr},
        files=(digest,),
    )
    return judge(plugin.id, [note])


def _checksum(case: Case) -> int:
    total = 0
    for data in case.splits.parts().values():
        for array in (data.x, data.y, data.sample_id, data.source, data.collected_at, *data.groups.values()):
            if array is not None:
                total = zlib.crc32(plain_bytes(array), total)
    return total


def _facts(data: Any) -> DataFacts:
    return DataFacts(data.digest, len(data), tuple(data.x.shape[1:]), str(data.schema.kind))


def _settings(order: Order) -> dict[str, Any]:
    return {
        "profile": str(order.profile),
        "budget": {"propagations": order.budget.propagations, "seconds": order.budget.seconds},
        "options": {key: as_json(dict(value)) for key, value in sorted(order.options.items())},
        "only": list(order.only),
        "threads": order.threads,
        "sampling_seed": order.seed if order.sampling_seed is None else order.sampling_seed,
    }


def _plugin_facts(steps: Iterable[Step], shop: Workshop) -> dict[str, PluginFacts]:
    options = {step.plugin.id: step.options for step in steps}
    shop.spent.update(dict(shop.charged.values()))
    facts = {}
    for plugin in shop.plugins:
        if plugin.id in shop.spent or (plugin.kind is PluginKind.PROBE and plugin.id in options):
            chosen = options.get(plugin.id) or plugin.configured(shop.profile, shop.options.get(plugin.id))
            used = shop.spent.get(plugin.id, Spent())
            facts[plugin.id] = PluginFacts(plugin.summary, plugin.threat, plugin.source, as_json(chosen), used)
    return facts
