"""One table for all plug-ins: whatever the catalogue finds is held to the laws of its kind."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from casemate import catalog
from casemate.core.plugin import Plugin
from casemate.errors import LawBroken
from casemate.testing import check_attack, check_plugin, check_probe, toy_case
from toyroom import rate, table_of_answers
from toyroom.cheats import CHEATS, far_away


@pytest.mark.parametrize("plugin", catalog.plugins(), ids=lambda p: f"{p.id}-{p.kind}")
def test_every_plug_in_of_the_house_keeps_the_laws_of_its_kind(plugin: Plugin) -> None:
    check_plugin(plugin)


@pytest.mark.parametrize("plugin", [rate.rate, table_of_answers.table_of_answers], ids=lambda p: str(p.kind))
def test_a_third_party_can_hold_its_own_plug_ins_to_the_same_laws(plugin: Plugin) -> None:
    check_plugin(plugin)


@pytest.mark.parametrize("name", sorted(set(CHEATS) - {"raises"}))
def test_the_public_check_catches_a_cheating_probe(name: str) -> None:
    case = toy_case("table")
    splits = {key: dataclasses.replace(part, x=np.array(part.x)) for key, part in case.splits.parts().items()}
    copy = dataclasses.replace(case, splits=dataclasses.replace(case.splits, **splits))
    with pytest.raises(LawBroken, match="expected"):
        check_probe(CHEATS[name], copy)


def test_the_public_check_catches_an_attack_that_leaves_the_ball() -> None:
    with pytest.raises(LawBroken, match="stay within"):
        check_attack(far_away)


def test_a_probe_whose_evidence_depends_on_the_time_of_day_is_caught() -> None:
    import time

    def restless(case, lab):  # type: ignore[no-untyped-def]
        """Measures the clock."""
        yield rate.RATE.measured(time.perf_counter() % 1, method="clock", n=1)

    with pytest.raises(LawBroken, match="same seed"):
        check_probe(dataclasses.replace(rate.rate, function=restless, replay=None))
