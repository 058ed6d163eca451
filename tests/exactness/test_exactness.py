"""Interrupted anywhere, resumed, compared with the reply that nobody interrupted."""

from __future__ import annotations

import pytest

from tests.exactness.corpus import KINDS, TEMPERATURES, TURNS
from tests.exactness.laboratory import Laboratory
from tests.exactness.plan import Combination, Way, combinations, few_replies
from tests.exactness.trial import attempt

FEW = few_replies(40, seed=1)
MANY = combinations(600, seed=1)


def test_the_short_plan_has_every_kind_turn_temperature_and_way() -> None:
    cells = [combination.cell for combination in FEW]
    assert {cell.kind for cell in cells} == set(KINDS)
    assert {cell.turn for cell in cells} == set(range(1, TURNS + 1))
    assert {cell.temperature for cell in cells} == set(TEMPERATURES)
    assert {cell.way for cell in cells} == set(Way)


def test_the_long_plan_tries_every_cell_at_three_places() -> None:
    places: dict[object, set[float]] = {}
    for combination in MANY:
        places.setdefault(combination.cell, set()).add(combination.at)
    assert len(places) == len(KINDS) * TURNS * len(TEMPERATURES) * len(Way)
    assert min(map(len, places.values())) == 3


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("combination", FEW, ids=str)
def test_a_resumed_reply_is_the_uninterrupted_one(
    laboratory: Laboratory, combination: Combination
) -> None:
    assert attempt(combination, laboratory).problems == []
