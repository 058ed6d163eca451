"""kill -9 at random moments, from the first instant on: nothing is lost, nothing is left."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from llmctl.journal import read
from tests.exactness.corpus import KINDS
from tests.exactness.laboratory import ENDS, PATIENCE_S, Laboratory, Reply
from tests.exactness.shown import shown
from tests.support.processes import HAS_PROC, Cli, Found, descendants

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_PROC, reason="needs /proc to see who is left"),
]

START_S = 1.5
"""What a process may need before its request is sent, on a machine with nothing else to do."""


def moments(count: int) -> list[float]:
    """Return so many parts of a process's life."""
    return [random.Random(place).random() for place in range(count)]  # noqa: S311


@pytest.mark.parametrize("part", moments(4))
def test_after_a_hard_kill_nothing_runs_and_nothing_is_lost(
    laboratory: Laboratory, part: float
) -> None:
    reply = laboratory.reply(KINDS[0], 0.8, 1)
    cli = laboratory.home()
    with cli.start(*reply.arguments) as process:
        process.kill_after(part * (START_S + reply.seconds))
        first = shown(process.wait(PATIENCE_S), as_json=False)
    cli.assert_no_leftovers()
    assert reply.text.startswith(first.text)
    check_resumed(laboratory, cli, reply, first.text)


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", moments(24)[4:])
def test_the_same_at_more_moments(laboratory: Laboratory, part: float) -> None:
    test_after_a_hard_kill_nothing_runs_and_nothing_is_lost(laboratory, part)


def test_a_held_engine_dies_with_its_parent(laboratory: Laboratory) -> None:
    reply = laboratory.reply(KINDS[0], 0.8, 1)
    cli = laboratory.home()
    with cli.start(*reply.arguments) as process:
        assert process.stdout is not None
        assert process.stdout.wait_for_bytes(20, PATIENCE_S)
        engine = engine_of(process.pid)
        process_stops(engine)
        process.send_signal(signal.SIGKILL)
        first = shown(process.wait(PATIENCE_S), as_json=False)
    cli.assert_no_leftovers()
    check_resumed(laboratory, cli, reply, first.text)


def check_resumed(laboratory: Laboratory, cli: Cli, reply: Reply, printed: str) -> None:
    """Everything printed is in the journal, and the whole reply is had all the same."""
    journals = list(cli.data.glob("journals/*.jsonl"))
    if not journals:
        assert printed == ""
        return
    recorded = read(journals[0])[1]
    assert "".join(chunk.text for chunk in recorded.chunks).startswith(printed)
    if recorded.end is not None:  # the reply had ended before the kill
        return
    whole = laboratory.run(cli, "resume", "--full", as_json=False)
    assert whole.status in ENDS
    assert whole.text == reply.text
    assert {guarantee for _, guarantee in whole.resumes} == {"exact"}
    cli.assert_no_leftovers()


def engine_of(pid: int) -> Found:
    """Return the one child that computes."""
    (engine,) = (found for found in descendants(pid) if "engine_child" in found.command)
    return engine


def process_stops(found: Found) -> None:
    """Stop a process and wait until it stands still."""
    os.kill(found.pid, signal.SIGSTOP)
    deadline = time.monotonic() + 5
    while next(f.state for f in descendants(found.parent) if f.pid == found.pid) != "T":
        assert time.monotonic() < deadline
        time.sleep(0.01)
