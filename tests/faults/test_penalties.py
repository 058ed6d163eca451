"""A penalty that counts generated tokens begins anew behind a cut: the program says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmctl.config import Config
from llmctl.conversation import Options
from llmctl.foreground import Manner
from llmctl.profiles import PrefixDialect, Profile, Selection
from llmctl.run import Ask, run
from tests.support.fake_environment import fake_environment
from tests.support.oracle_server import Fault, OracleServer, Script, Settings

SAID = "penalties count only what is written from here on"


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({}, False),
        ({"frequency_penalty": 0.5}, True),
        ({"frequency_penalty": 0}, False),
        ({"presence_penalty": -1.0}, True),
    ],
)
def test_it_is_said_at_the_resume(tmp_path: Path, chosen: dict[str, Any], said: bool) -> None:
    with OracleServer(Settings(length=30)) as server, fake_environment(tmp_path) as captured:
        server.enqueue(Script(fault=Fault("cut", after_tokens=12)))
        profile = Profile(
            name="here",
            base_url=server.base_url,
            prefix=PrefixDialect.TRAILING_ASSISTANT,
            prefix_keeps_blanks=True,
        )
        ask = Ask(
            prompt="hi",
            selection=Selection("oracle", profile),
            options=Options(temperature=0.0, extra=chosen),
        )
        config = Config(profiles={"here": profile})
        assert run(ask, Manner(key_for=lambda _profile: None), config, captured.env) == 0
        assert captured.out == server.expected("hi")
        lines = captured.err.splitlines()
    assert "(prefix, text)" in lines[1]
    assert (SAID in lines) is said
