from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import catalog
from casemate.core.evidence import Direction, Metric, Quantity
from casemate.core.facets import Profile
from casemate.core.norms import Norm
from casemate.core.options import Count, Natural, OpenShare, Positive, Share, Within, check_options
from casemate.core.outcome import Threat
from casemate.core.plugin import Plugin, probe
from casemate.errors import ConfigError

NOTE = Metric("toyroom.note", Quantity.NOTE, Direction.EXACT)
PLUGINS = catalog.plugins()


@dataclass(frozen=True)
class Declared:
    """What a newcomer writes, and no check beside it."""

    rows: Count = 20
    controls: Natural | None = None
    eps: Positive | tuple[Positive, ...] | None = None
    level: OpenShare = 0.05
    share: Share = 0.5
    decay: Annotated[float, Within(least=0, below=1)] = 0.9
    effort: Profile = Profile.STANDARD
    norm: Literal[Norm.LINF, Norm.L2] | tuple[Literal[Norm.LINF, Norm.L2], ...] = Norm.LINF
    names: tuple[str, ...] = ()
    plain: float = 1.0


PLUGIN = probe(threat=Threat("x", "x"), source="hand", metrics=(NOTE,), options=Declared)(lambda case, lab: iter(()))


def refused(plugin: Plugin, given: Mapping[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        check_options([plugin], given)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rows": 0}, "a whole number from 1 as rows"),
        ({"rows": True}, "a whole number from 1"),
        ({"controls": -1}, "a whole number from 0 as controls"),
        ({"eps": 0}, "a finite number above 0 or a list (a finite number above 0 each) as eps"),
        ({"eps": [0.1, float("nan")]}, "a finite number above 0"),
        ({"eps": []}, "expected something in eps"),
        ({"level": 1}, "a finite number above 0 below 1"),
        ({"share": 1.01}, "a finite number from 0 to 1"),
        ({"decay": 1.0}, "a finite number from 0 below 1"),
        ({"effort": "hard"}, "one of quick, standard, full as effort"),
        ({"norm": "l1"}, "one of linf, l2"),
        ({"norm": ["linf", "l0"]}, "one of linf, l2"),
        ({"norm": []}, "expected something in norm"),
        ({"plain": -0.5}, "from 0"),
        ({"row": 3}, "rows"),
    ],
)
def test_what_is_declared_is_all_that_is_taken(given: dict[str, Any], words: str) -> None:
    said = refused(PLUGIN, given)
    assert words in said
    assert "\n" not in said


def test_what_fits_is_taken_as_it_is() -> None:
    for value in ({"rows": 1}, {"controls": 0}, {"controls": None}, {"eps": [1, 0.5]}, {"decay": 0}, {"names": []}):
        check_options([PLUGIN], value)
    check_options([PLUGIN], {"effort": "full", "norm": ["l2", "linf"], "level": 0.999, "share": 1, "plain": 0})


@given(st.one_of(st.integers(), st.floats()))
def test_a_range_holds_exactly_what_its_words_say(number: float) -> None:
    assert Within(least=1, below=5).holds(number) == (1 <= number < 5)
    assert Within(above=0, most=1).holds(number) == (0 < number <= 1)


def test_the_types_of_all_options_can_be_read() -> None:
    # A name that is imported for type checkers only would switch every check of its plug-in off.
    for plugin in PLUGINS:
        assert set(get_type_hints(plugin.options)) >= {item.name for item in fields(plugin.options)}, plugin.id


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: f"{plugin.kind}-{plugin.id}")
def test_every_option_of_every_plug_in_refuses_what_makes_no_sense(plugin: Plugin) -> None:
    hints = get_type_hints(plugin.options, include_extras=True)
    for item in fields(plugin.options):
        kind = str(hints[item.name])
        if ("int" in kind or "float" in kind) and "Mapping" not in kind:
            assert "Within" in kind, f"{plugin.id} declares no range for {item.name}"
            refused(plugin, {item.name: -1})
        if "tuple" in kind and item.default != ():
            refused(plugin, {item.name: []})
    for profile, values in plugin.profiles.items():
        check_options([plugin], values)
        plugin.configured(profile)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *(("evasion/standard", {key: 0}) for key in ("samples", "steps", "restarts", "targets", "queries", "eps")),
        ("evasion/standard", {"restarts": -1}),
        ("evasion/standard", {"effort": "hard"}),
        ("evasion/standard", {"norm": []}),
        ("evasion/corruptions", {"severity": 6}),
        ("evasion/patch", {"samples": 19}),
        ("evasion/patch", {"shares": [0.1, 1.0]}),
        ("evasion/universal", {"norm": "l1"}),
        ("evasion/regression", {"norm": "l0"}),
        ("privacy/membership", {"form": "offlin"}),
        ("privacy/membership", {"fprs": [0.0]}),
        ("fairness/group_gaps", {"bins": 1}),
        ("preflight/determinism", {"calls": 1}),
        ("poisoning/strip", {"fpr": 0}),
    ],
)
def test_options_that_once_broke_a_probe_in_the_middle_of_an_audit_are_refused(name: str, given: dict) -> None:
    refused(next(plugin for plugin in PLUGINS if plugin.id == name), given)
