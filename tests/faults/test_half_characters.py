"""A bound within a character: nothing of it is shown, and granting it again comes further."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.config import Config
from llmctl.conversation import Options
from llmctl.foreground import Manner
from llmctl.profiles import PRESETS, Selection
from llmctl.run import Ask, run
from llmctl.unfinished import resume
from tests.support.batches import vllm
from tests.support.fake_environment import fake_environment
from tests.support.oracle_server import OracleServer, Script

TEXT = "a🦊b👩‍💻c日本語é"
MOST = 40
"""Grants that are enough for any text here."""


def pieces(folder: Path, bound: int) -> Iterator[str]:
    """Yield what each process shows of a reply that may have so many tokens more each time."""
    with (
        OracleServer(vllm(), otherwise=Script(text=TEXT)) as server,
        fake_environment(folder) as captured,
    ):
        profile = replace(PRESETS["vllm"], name="here", base_url=server.base_url)
        config = Config(profiles={"here": profile})
        manner = Manner(key_for=lambda _profile: None)
        options = Options(temperature=0.0, max_tokens=bound)
        ask = Ask(prompt="hi", selection=Selection("oracle", profile), options=options)
        status, shown = run(ask, manner, config, captured.env), captured.out
        yield shown
        while status == 6:
            status = resume(None, manner, config, captured.env)
            yield captured.out.removeprefix(shown)
            shown = captured.out
        assert status == 0


@pytest.mark.parametrize("bound", [1, 2, 3, 5])
def test_a_reply_comes_to_its_end_with_any_bound(tmp_path: Path, bound: int) -> None:
    found = []
    for piece in pieces(tmp_path, bound):
        found.append(piece)
        assert len(found) < MOST
    assert "".join(found) == TEXT
