"""In a chat: interrupted at the keyboard or from outside, gone on with, compared."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.exactness.chats import Chats, ask, attempt_chat, leave, sitting
from tests.exactness.corpus import KINDS, TEMPERATURES, TURNS
from tests.exactness.laboratory import PATIENCE_S, Laboratory
from tests.exactness.plan import ChatCombination, ChatWay, chat_combinations, few_chats

FEW = few_chats(seed=1)
MANY = chat_combinations(60, seed=1)


@pytest.fixture(scope="module")
def chats(laboratory: Laboratory) -> Chats:
    return Chats(laboratory)


def test_the_short_plan_has_every_way_and_turn_and_both_temperatures() -> None:
    assert {each.way for each in FEW} == set(ChatWay)
    assert {each.turn for each in FEW} == set(range(1, TURNS + 1))
    assert {each.temperature for each in FEW} == set(TEMPERATURES)


def test_the_long_plan_has_every_kind_temperature_and_way_once() -> None:
    cells = Counter((each.kind, each.temperature, each.way) for each in MANY)
    assert set(cells.values()) == {1}
    assert len(cells) == len(KINDS) * len(TEMPERATURES) * len(ChatWay)
    assert Counter(each.turn for each in MANY) == dict.fromkeys(range(1, TURNS + 1), 20)


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("combination", FEW, ids=str)
def test_a_reply_that_was_interrupted_in_a_chat_is_the_uninterrupted_one(
    chats: Chats, combination: ChatCombination
) -> None:
    assert attempt_chat(combination, chats).problems == []


@pytest.mark.engine
@pytest.mark.slow
def test_engine_state_goes_with_its_reply(laboratory: Laboratory) -> None:
    """A second turn begins from a saved state; it is kept while the reply may yet go on."""
    cli = laboratory.home()
    states = cli.data / "engine" / "slots"
    with sitting(cli, "--model", "local", "--seed", "7", "--max-tokens", "12") as chat:
        ask(chat, "Tell me about rivers.")
        ask(chat, "And about lakes?")
        assert list(states.iterdir())
        ask(chat, "/keep\rAnd about seas?")
        since = len(chat.output)
        chat.send("/keep\r")
        chat.wait_for("kept", since=since, timeout_s=PATIENCE_S)
        leave(chat, 0)
    assert not list(states.iterdir())
    laboratory.remove(cli)
