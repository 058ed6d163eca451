"""`run` shows a model's words, never its tool calls; a cut within one makes nothing up."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.config import Config
from llmctl.conversation import Options
from llmctl.foreground import Manner
from llmctl.profiles import Profile, Selection
from llmctl.run import Ask, run
from tests.support.fake_environment import fake_environment
from tests.support.oracle_server import Fault, OracleServer, Script, Settings

LENGTH, CALL_AT = 10, 4
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def asked(folder: Path, call_at: int, cut: int | None) -> tuple[int, str, str]:
    """Ask with a tool on offer; return the exit status, stdout and the words before the call."""
    with OracleServer(Settings(length=LENGTH)) as server, fake_environment(folder) as captured:
        fault = None if cut is None else Fault("cut", after_tokens=cut)
        server.enqueue(Script(call_at=call_at, fault=fault))
        server.enqueue(Script(call_at=call_at))
        profile = Profile(name="here", base_url=server.base_url)
        options = Options(temperature=0.0, extra={"tools": [TOOL]})
        ask = Ask(prompt="hi", selection=Selection("oracle", profile), options=options)
        config = Config(profiles={"here": profile})
        status = run(ask, Manner(key_for=lambda _profile: None), config, captured.env)
        return status, captured.out, server.expected("hi")


@pytest.mark.parametrize("cut", range(LENGTH + 1))
def test_what_was_shown_before_a_call_is_kept_and_the_call_not_made_up(
    tmp_path: Path, cut: int
) -> None:
    whole = asked(tmp_path / "whole", CALL_AT, None)
    assert (whole[0], whole[2][: len(whole[1])]) == (0, whole[1])
    status, shown, _ = asked(tmp_path / "cut", CALL_AT, cut)
    if shown and cut:
        assert (status, whole[1][: len(shown)]) == (4, shown)
    else:
        assert (status, shown) == (0, whole[1])  # nothing had been shown: asked for again


@pytest.mark.parametrize("cut", range(LENGTH + 1))
def test_a_call_without_words_is_asked_for_again(tmp_path: Path, cut: int) -> None:
    assert asked(tmp_path, 0, cut)[:2] == (0, "")
