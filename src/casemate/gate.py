"""The pytest plug-in: a model that does not hold its gates fails a test.

In a test, the fixture `casemate_gate` audits a model and fails with the gates that do not hold::

    def test_the_model_can_be_shipped(casemate_gate):
        casemate_gate(model, test=(x, y), gates=[casemate.Gate("preflight.clean_accuracy", min=0.9)])

`pytest --casemate casemate.toml` collects a configuration, one item for each of its gates. Undecided is a failure with
words of its own: it is no pass. Nothing but pytest is imported until one of the two is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from casemate.core.judgement import GateResult
    from casemate.core.policy import Gate, Policy
    from casemate.core.report import Report

__all__ = ["GateItem", "Gates", "casemate_gate", "pytest_addoption", "pytest_collect_file"]

_PROFILES = ("quick", "standard", "full")
_SHOWN = 5  # findings in a failure


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--casemate`, `--casemate-profile`, `--casemate-isolate` and `--i-am-authorised`."""
    group = parser.getgroup("casemate", "audits of machine-learning models")
    group.addoption("--casemate", action="store_true", help="collect casemate.toml files, an item for each gate")
    group.addoption(
        "--casemate-profile",
        choices=_PROFILES,
        help="how thorough audits are (default: what the test or the casemate.toml says, else quick)",
    )
    group.addoption(
        "--casemate-isolate", action="store_true", help="load model files in a process without network and files"
    )
    group.addoption(
        "--i-am-authorised", action="store_true", help="an endpoint in a casemate.toml may be attacked; recorded"
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a configuration, where `--casemate` asks for it: casemate.toml, or any TOML file that is named."""
    if file_path.suffix != ".toml" or not parent.config.getoption("--casemate"):
        return None
    named = parent.session.isinitpath(file_path)
    return Gates.from_parent(parent, path=file_path) if named or file_path.name == "casemate.toml" else None


@pytest.fixture
def casemate_gate(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """A function that audits a model and fails the test where the verdict is not passed; it returns the report.

    `casemate_gate(model, test=(x, y), gates=[...], fail_on="high", **more)`: the model and `more` are as for
    `casemate.audit`, or the model is the path of a casemate.toml. `gates` hold beside `fail_on`, the least severity
    that fails (`"none"` for gates alone); who needs more of a policy gives `policy` instead of both.
    """

    def gate(model: Any, *, gates: Sequence[Gate] = (), fail_on: str | None = None, **more: Any) -> Report:
        __tracebackhide__ = True
        if isinstance(model, str | Path):
            _refuse(more, gates, fail_on)
            report = _audited(Path(model), request.config)
        else:
            asked = request.config.getoption("--casemate-profile")
            report = _measured(model, asked, gates=gates, fail_on=fail_on, more=more)
        if report.ruling.exit_code:
            pytest.fail(_told(report), pytrace=False)
        return report

    return gate


class Gates(pytest.File):
    """A casemate.toml as a file of tests: it is audited once, when its first item runs."""

    _report: Report | None = None

    def collect(self) -> Iterator[GateItem]:
        """An item for each gate of the policy; nothing is loaded or measured yet."""
        import datetime as dt

        from casemate import config
        from casemate.core.judgement import rule
        from casemate.errors import CasemateError

        try:
            ruling = rule((), config.policy_of(config.load(self.path)), dt.date.today())
        except CasemateError as error:
            raise self.CollectError(str(error)) from error
        for name in dict.fromkeys(gate.gate for gate in ruling.gates):
            yield GateItem.from_parent(self, name=name)

    def results(self, name: str) -> list[GateResult]:
        """How the gate of that name came out; the first item speaks for gates that only the audit brought up."""
        if self._report is None:
            self._report = _audited(self.path, self.config)
        gates = self._report.ruling.gates
        known = [item.name for item in self.session.items if item.parent is self]
        strays = [gate for gate in gates if gate.gate not in known] if known[:1] == [name] else []
        return [*(gate for gate in gates if gate.gate == name), *strays]


class GateItem(pytest.Item):
    """One gate as a test."""

    def runtest(self) -> None:
        """Fail where the gate does not hold or could not be decided."""
        from casemate.errors import CasemateError

        assert isinstance(self.parent, Gates)
        try:
            bad = [gate for gate in self.parent.results(self.name) if str(gate.status) != "passed"]
        except CasemateError as error:
            pytest.fail(str(error), pytrace=False)
        if bad:
            again = f"casemate audit {self.path.name} shows the whole"
            pytest.fail("\n".join([*map(_line, bad), *_undecided(bad), again]), pytrace=False)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it stands, for pytest's report."""
        return self.path, None, f"{self.path.name}: {self.name}"


def _audited(path: Path, options: pytest.Config) -> Report:
    """The report of a configuration, with its evidence in memory."""
    from dataclasses import replace

    from casemate import config
    from casemate._audit import Place, run
    from casemate.core.facets import Profile

    isolate = bool(options.getoption("--casemate-isolate"))
    settings = config.load(path, authorised=bool(options.getoption("--i-am-authorised")), isolate=isolate)
    order = config.order_of(settings)
    if (profile := options.getoption("--casemate-profile")) is not None:
        order = replace(order, profile=Profile(profile))
    return run(config.case_of(settings), order, Place(executor=settings.audit.executor))


def _measured(
    model: Any, profile: str | None, *, gates: Sequence[Gate], fail_on: str | None, more: dict[str, Any]
) -> Report:
    import casemate

    given = dict(more)
    given["profile"] = profile or given.get("profile", "quick")
    if gates or fail_on is not None:
        if "policy" in given:
            raise casemate.UsageError("expected policy alone, got it beside gates or fail_on: put them into the policy")
        given["policy"] = _policy(gates, fail_on)
    return casemate.audit(model, **given)


def _policy(gates: Sequence[Gate], fail_on: str | None) -> Policy:
    from casemate.core.outcome import Severity
    from casemate.core.policy import Policy as Asked
    from casemate.errors import UsageError

    if fail_on is not None and fail_on not in list(Severity):
        raise UsageError(f"expected a severity ({', '.join(Severity)}) as fail_on, got {fail_on!r}: choose one")
    return Asked(fail_on=Severity(fail_on or "high"), gates=tuple(gates))


def _refuse(more: dict[str, Any], gates: Sequence[Gate], fail_on: str | None) -> None:
    """A configuration says everything itself: what a test would say beside it must not be lost."""
    from casemate.errors import UsageError

    given = [*more, *(["gates"] if gates else []), *(["fail_on"] if fail_on is not None else [])]
    if given:
        raise UsageError(f"expected nothing beside a casemate.toml, got {', '.join(given)}: write it into the file")


def _told(report: Report) -> str:
    """The verdict, its gates (what does not hold first) and what was found."""
    from casemate.report import acceptance, words

    gates = sorted(report.ruling.gates, key=lambda gate: ("failed", "undecided", "passed").index(str(gate.status)))
    lines = [f"casemate: {words.VERDICT[report.ruling.status]}", *map(_line, gates), *_undecided(gates)]
    found = [finding for finding in report.findings if acceptance(report, finding) is None]
    for finding in found[:_SHOWN]:
        lines.append(f"  {finding.severity}: {words.sentence(finding.title)} ({finding.about})")
        if finding.mend:
            lines.append(f"    mend: {finding.mend}")
    if len(found) > _SHOWN:
        lines.append(f"  and {words.counted(len(found) - _SHOWN, 'more finding')}")
    return "\n".join(lines)


def _line(gate: GateResult) -> str:
    status = str(gate.status)
    return f"  {status.upper() if status != 'passed' else status}  {gate.gate}: {gate.reason}"


def _undecided(gates: Sequence[GateResult]) -> list[str]:
    """A word on undecided gates where no gate failed: nothing was found wrong, and nothing was shown to be right."""
    statuses = {str(gate.status) for gate in gates}
    if "undecided" not in statuses or "failed" in statuses:
        return []
    return ["  Nothing failed, but undecided is no pass: give more samples, a longer profile, or what is missing."]
