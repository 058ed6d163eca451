"""Keys are heard while a reply comes faster than it is shown."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from llmctl.events import Mode, PauseReason, Started
from llmctl.journal import NoJournal
from llmctl.session import Policy, Session
from llmctl.turn import Turn
from tests.support.network import END, Network, say
from tests.support.screen import Screen

WORDS = [f"w{number} " for number in range(1000)]


async def shown_before_a_key(breath_s: float | None = None) -> int:
    """Press a key as soon as the first words are shown; return how many words were, then."""
    screen, network = Screen(), Network([[*say(*WORDS), *END]], at_once=True)
    started = Started("g", "c", "m", "fake", "fake")
    policy = Policy(syncs=False, ends_on_pause=False, breath_s=breath_s)
    session = Session(
        Turn({}), network, journal=NoJournal(), view=screen, started=started, policy=policy
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.run)
        while not screen.text:
            await anyio.lowlevel.checkpoint()
        session.pause(PauseReason.KEY, Mode.HOLD)
        shown = len(screen.text.split())
        session.resume()
    assert screen.text == "".join(WORDS)
    return shown


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_key_is_heard_between_words_that_are_there_at_once(backend: str) -> None:
    at_once = partial(shown_before_a_key, 0.0)
    assert anyio.run(at_once, backend=backend) < 10
    # Where nobody presses any, nothing waits for them.
    assert anyio.run(shown_before_a_key, backend=backend) == len(WORDS)
