"""`run` shows a model's words, never its tool calls; a cut within one makes nothing up."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from llmctl.config import Config
from llmctl.conversation import Options
from llmctl.foreground import Manner
from llmctl.profiles import Profile, Selection
from llmctl.run import Ask, run
from llmctl.unfinished import resume
from tests.support.fake_environment import fake_environment
from tests.support.oracle import Message, Oracle, Plan, Sampling, render, text_of
from tests.support.oracle_server import Fault, OracleServer, Script, Settings

LENGTH, CALL_AT = 10, 4
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


class Asked(NamedTuple):
    """How a reply with a tool on offer ended, and what a resume made of it."""

    status: int
    shown: str
    resumed: int
    added: str


def asked(folder: Path, call_at: int, cut: int | None) -> Asked:
    """Ask a server that calls the tool from that token on, and is cut behind so many."""
    with OracleServer(Settings(length=LENGTH)) as server, fake_environment(folder) as captured:
        fault = None if cut is None else Fault("cut", after_tokens=cut)
        server.enqueue(Script(call_at=call_at, fault=fault))
        server.enqueue(Script(call_at=call_at))
        profile = Profile(name="here", base_url=server.base_url)
        options = Options(temperature=0.0, extra={"tools": [TOOL]})
        ask = Ask(prompt="hi", selection=Selection("oracle", profile), options=options)
        config = Config(profiles={"here": profile})
        manner = Manner(key_for=lambda _profile: None)
        status, shown = run(ask, manner, config, captured.env), captured.out
        if status == 0:
            return Asked(status, shown, 0, "")
        requests = len(server.requests)
        resumed = resume(None, manner, config, captured.env)
        assert len(server.requests) == requests  # what can't be gone on with is not asked for
        return Asked(status, shown, resumed, captured.out.removeprefix(shown))


def words(number: int) -> str:
    """Return the oracle's first words."""
    prompt = render((Message("user", "hi"),))
    greedy = Sampling(temperature=0)
    return text_of(Oracle().reply(prompt, sampling=greedy, plan=Plan(LENGTH), max_tokens=number))


@pytest.mark.parametrize("cut", range(1, LENGTH + 1))
def test_what_was_shown_before_a_call_is_kept_and_the_call_not_made_up(
    tmp_path: Path, cut: int
) -> None:
    kept = words(min(cut, CALL_AT))
    assert kept
    assert asked(tmp_path, CALL_AT, cut) == (4, kept, 7, "")


@pytest.mark.parametrize("cut", [None, 0])
def test_a_call_stands_behind_the_words_before_it(tmp_path: Path, cut: int | None) -> None:
    """A server cut before its first token is asked again: nothing had been shown."""
    assert asked(tmp_path, CALL_AT, cut) == (0, words(CALL_AT), 0, "")


@pytest.mark.parametrize("cut", [None, *range(LENGTH + 1)])
def test_a_call_without_words_is_asked_for_again(tmp_path: Path, cut: int | None) -> None:
    assert asked(tmp_path, 0, cut) == (0, "", 0, "")
