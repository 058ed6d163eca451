"""What the ladder of resumes keeps and lets go of."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmctl.conversation import Message, Prefix, Request
from llmctl.events import Guarantee, Strategy
from llmctl.ports import BackEnd
from llmctl.resume.ladder import Ladder, rungs

REQUEST = Request("local", (Message("user", "Hi"),))


class Keeper:
    """A back end that remembers what it was told to forget."""

    def __init__(self) -> None:
        self.discarded: list[Mapping[str, Any]] = []

    def discard(self, conditions: Mapping[str, Any]) -> None:
        self.discarded.append(conditions)


def ladder(keeper: Keeper, **known: Any) -> Ladder:
    return Ladder(cast("BackEnd", keeper), REQUEST, (), **known)


def test_a_newer_state_takes_the_place_of_the_one_before() -> None:
    keeper = Keeper()
    states: list[dict[str, Any]] = [{"start": n} for n in range(3)]
    steps = ladder(keeper, saved=states[0])
    steps.keep(states[1])
    steps.keep(states[2])
    assert steps.saved == states[2]
    assert keeper.discarded == states[:2]


def test_a_first_state_takes_nobodys_place() -> None:
    keeper = Keeper()
    ladder(keeper).keep({"start": 1})
    assert keeper.discarded == []


def test_when_the_reply_has_ended_its_beginning_and_its_last_state_are_forgotten() -> None:
    keeper = Keeper()
    conditions = {"start": {"file": "a"}}
    ladder(keeper, conditions=conditions, saved={"start": {"file": "b"}}).forget()
    assert keeper.discarded == [conditions, {"start": {"file": "b"}}]


@pytest.mark.parametrize(
    "options",
    [{"schema": {"type": "object"}}, {"extra": {"tools": [{}]}}, {"extra": {"n": 2}}],
    ids=["schema", "tools", "several"],
)
def test_a_shaped_reply_goes_on_as_the_same_run_only(options: dict[str, Any]) -> None:
    supports = dict.fromkeys(Strategy, Guarantee.EXACT)
    back_end = cast("BackEnd", SimpleNamespace(name="x", pays_twice=False, supports=supports))
    shaped = REQUEST.with_options(**options)
    ways = Ladder(back_end, shaped, rungs("Go on."), Guarantee.BEST_EFFORT)
    known = Prefix("{", ids=(1,), tokens=1)
    assert ways.may_go_on(known)
    del supports[Strategy.REPLAY]
    assert not ways.may_go_on(known)
    assert Ladder(back_end, REQUEST, rungs("Go on."), Guarantee.BEST_EFFORT).may_go_on(known)
