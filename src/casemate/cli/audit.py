"""`casemate audit`: attack the model, write the report, exit with the verdict."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from casemate.cli._boundary import RunInterrupted
from casemate.core.facets import Profile

if TYPE_CHECKING:
    from casemate._audit import Order, Place
    from casemate.config import Settings
    from casemate.core.report import Report

__all__ = ["audit"]


def audit(
    config: Annotated[Path, typer.Argument(help="The configuration.")] = Path("casemate.toml"),
    profile: Annotated[Profile | None, typer.Option(help="How thorough: about a minute, minutes, or all.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Propagations (identical reports), or a time: 90s, 15m, 2h.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**53, help="Same seed, same report.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the report goes.")] = Path("casemate-report"),
    only: Annotated[list[str] | None, typer.Option(help="A plug-in or a room; may be repeated.")] = None,
    executor: Annotated[str | None, typer.Option(help="inline, pool, or pool:N for N processes.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each process.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="[RUN]", help="Go on with a run, the last by default.")] = None,
    store: Annotated[str, typer.Option(help="A folder or a database URL.")] = ".casemate",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="ID.OPTION=VALUE", help="An option of a plug-in; may be repeated."),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Load a model that may run code, whatever its scan says.")
    ] = False,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Load it in a process without network, files and children.")
    ] = False,
    i_am_authorised: Annotated[
        bool, typer.Option("--i-am-authorised", help="The endpoint in [model] url may be attacked; recorded.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List what is otherwise counted.")] = False,
) -> int:
    """Attack the model; the exit code is the verdict."""
    with _promising_nothing():
        from casemate import config as configuration
        from casemate._audit import Place
        from casemate.cli._show import again, show
        from casemate.report.terminal import verdict_table

        settings = configuration.load(config, trust=trust, authorised=i_am_authorised, isolate=isolate)
        order = _order(settings, profile=profile, budget=budget, seed=seed, only=only, threads=threads, setting=setting)
        report = _run(settings, order, Place(output, store, executor or settings.audit.executor, resume))
    lines = ["", f"  {output / 'report.html'}", f"  {output / 'report.json'}"]
    if finding := next((f for f in report.findings if f.id not in report.ruling.accepted), None):
        lines += ["", f"  {again('explain', finding.id, output)}"]
        if any(item.files for item in finding.evidence):
            said = ["--trust"] * trust + ["--isolate"] * isolate + ["--i-am-authorised"] * i_am_authorised
            lines += [f"  {again('replay', finding.id, output, config=str(config), said=said)}"]
    show(verdict_table(report, verbose=verbose), *lines)
    return report.ruling.exit_code


@contextmanager
def _promising_nothing() -> Iterator[None]:
    """An interruption while all is loaded, scanned and read leaves no run: it says so."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        print("interrupted before the audit had begun: give the same command again", file=sys.stderr)
        raise SystemExit(130) from interruption


def _run(settings: Settings, order: Order, place: Place) -> Report:
    """The audit with its progress shown; raises `RunInterrupted` for an interruption that leaves a run in the store."""
    from casemate import config
    from casemate._audit import run
    from casemate.cli._progress import progress

    told, since = 0, dt.datetime.now(dt.UTC)
    sent = _sent(place) if settings.model.url is not None else 0
    case = config.case_of(settings, queries=order.budget.propagations, sent_before=sent)
    try:
        with progress() as show_progress:

            def on_progress(name: str, done: int, total: int) -> None:
                nonlocal told
                told += 1
                show_progress(name, done, total)

            return run(case, order, place, on_progress=on_progress)
    except KeyboardInterrupt as interruption:
        # The plan is told before the run is noted and its first step after it; in between only the store knows.
        if told > 1 or (told == 1 and _noted(place, since)):
            raise RunInterrupted from interruption
        raise


def _noted(place: Place, since: dt.datetime) -> bool:
    from casemate.store.queries import begun_since

    return place.store is not None and begun_since(place.store, place.output, since)


def _sent(place: Place) -> int:
    from casemate.store.queries import sent_before

    return 0 if place.resume is None or place.store is None else sent_before(place.store, place.resume, place.output)


def _order(
    settings: Settings,
    *,
    profile: Profile | None,
    budget: str | None,
    seed: int | None,
    only: list[str] | None,
    threads: int | None,
    setting: list[str] | None,
) -> Order:
    """What is asked of the audit: the configuration, with what was given on the command line on top."""
    from casemate import config
    from casemate.cli._settings import given_options

    order = config.order_of(settings)
    options = {plugin: dict(values) for plugin, values in order.options.items()}
    for plugin, values in given_options(setting or ()).items():
        options.setdefault(plugin, {}).update(values)
    return replace(
        order,
        profile=profile or order.profile,
        seed=order.seed if seed is None else seed,
        budget=order.budget if budget is None else config.budget_of(settings, budget),
        options=options,
        only=tuple(only or ()),
        threads=threads or order.threads,
    )
