"""A connection is lost: the session waits, goes on, says where, or gives up with all kept.

The clock is virtual: a minute without network takes no time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import pytest
import trio
import trio.testing

from llmctl.clocks import Limits
from llmctl.errors import ConnectTimedOut, LlmctlError, Overloaded
from llmctl.events import (
    Channel,
    Chunk,
    Delta,
    End,
    Event,
    Finished,
    Mode,
    PauseReason,
    Position,
    Resumed,
    Retrying,
    Started,
)
from llmctl.journal import NoJournal
from llmctl.session import Policy, Session
from llmctl.turn import Mark, Phase, Turn
from tests.support.network import END, GONE, LOST, Network, say
from tests.support.screen import Screen

T = TypeVar("T")
STARTED = Started("g", "c", "m", "fake", "fake")


def session(network: Network, screen: Screen, **policy: Any) -> Session:
    return Session(
        Turn({}, mode=Mode.HOLD),
        network,
        journal=NoJournal(),
        view=screen,
        started=STARTED,
        policy=Policy(syncs=False, **policy),
        now=trio.current_time,
    )


def run(program: Callable[[], Awaitable[T]]) -> T:
    """Run in virtual time."""
    return trio.run(program, clock=trio.testing.MockClock(autojump_threshold=0))


def played(network: Network, **policy: Any) -> tuple[Finished, Screen]:
    async def program() -> tuple[Finished, Screen]:
        screen = Screen()
        started = trio.current_time()
        network.back_at += started
        finished = await session(network, screen, **policy).run()
        network.at = [round(at - started, 3) for at in network.at]
        return finished, screen

    return run(program)


@pytest.mark.parametrize("gone", [GONE, LOST, Overloaded("502"), ConnectTimedOut("slow")])
@pytest.mark.parametrize("minutes", [0.2, 0.5, 1.0])
def test_a_reply_outlives_an_outage(gone: LlmctlError, minutes: float) -> None:
    network = Network(
        [[*say("one", " two"), LOST], [*say(" three"), *END]], back_at=60 * minutes, gone=gone
    )
    finished, screen = played(network)
    assert finished.end is End.COMPLETE
    assert screen.text == "one two three"
    assert network.behind == ["one two"]
    (resumed,) = screen.of(Resumed)
    assert resumed.position == Position(7, 2)
    assert len(screen.of(Retrying)) == len(network.at) - 1
    assert network.at[-1] < 60 * minutes + 15.1


def test_an_outage_in_which_connections_hang() -> None:
    network = Network(
        [[*say("one"), LOST], [*say(" two"), *END]],
        back_at=60.0,
        gone=ConnectTimedOut("slow"),
        slow_s=10.0,
    )
    finished, screen = played(network)
    assert (finished.end, screen.text) == (End.COMPLETE, "one two")


def test_it_is_given_up_with_everything_kept() -> None:
    network = Network([[*say("one", " two"), LOST]], back_at=1e9)
    finished, screen = played(network)
    assert (finished.end, finished.resumable) == (End.DISCONNECT, True)
    assert (screen.text, finished.position) == ("one two", Position(7, 2))
    assert finished.problem is not None
    assert finished.problem.message == "lost"
    assert 60 < network.at[-1] < 100


def test_a_first_request_is_given_up_soon() -> None:
    network = Network([[GONE]], back_at=1e9)
    finished, screen = played(network)
    assert finished.end is End.UNREACHABLE
    assert network.at == [0.0, 0.5, 1.5]
    assert [e.delay_s for e in screen.of(Retrying)] == [0.5, 1.0]


def test_a_first_connection_that_hangs_is_a_timeout() -> None:
    finished, _ = played(Network([[ConnectTimedOut("slow")]]))
    assert finished.end is End.CONNECT_TIMEOUT


def test_a_time_is_obeyed() -> None:
    busy = Overloaded("429", retry_after=7.5)
    network = Network([[*say("one"), busy], [busy], [*say(" two"), *END]])
    finished, screen = played(network)
    assert (finished.end, screen.text) == (End.COMPLETE, "one two")
    assert network.at == [0.0, 7.5, 15.0]


def test_a_time_that_is_too_long_is_no_time() -> None:
    finished, screen = played(Network([[*say("one"), Overloaded("429", retry_after=3600.0)]]))
    assert (finished.end, screen.text) == (End.UNREACHABLE, "one")
    assert finished.resumable


def test_a_server_that_cuts_after_every_token_does_not_win() -> None:
    words = [f" {n}" for n in range(30)]
    network = Network([*[[*say(word), LOST] for word in words], END])
    finished, screen = played(network)
    assert (finished.end, screen.text) == (End.COMPLETE, "".join(words))


def test_thoughts_are_progress_too() -> None:
    thoughts = [[*say(f" {n}", channel=Channel.REASONING), LOST] for n in range(30)]
    finished, screen = played(Network([*thoughts, [*say("so"), *END]]))
    assert (finished.end, screen.text) == (End.COMPLETE, "so")


def test_an_answer_is_enough_to_be_patient_with_a_reply_that_is_gone_on_with() -> None:
    """It had said something before, it was reached once more, and lost before it went on."""
    network = Network([[LOST], [*say(" two"), *END]], back_at=60.0)

    async def program() -> tuple[Finished, Screen]:
        screen = Screen()
        network.back_at += trio.current_time()
        reply = session(network, screen, continues=True)
        for chunk in say("one"):
            assert isinstance(chunk, Chunk)
            reply.turn.receive(chunk)
        return await reply.run(), screen

    finished, screen = run(program)
    assert (finished.end, screen.text) == (End.COMPLETE, "one two")


def test_an_idle_limit_goes_on_counting() -> None:
    network = Network([[*say("one"), LOST]], back_at=1e9)
    finished, screen = played(network, limits=Limits(idle=20.0))
    assert (finished.end, screen.text) == (End.IDLE_TIMEOUT, "one")
    assert 19 < finished.timing.duration_s < 21


def test_where_nothing_goes_on_nothing_is_waited_for() -> None:
    network = Network([[*say("one"), LOST]], back_at=1e9, hopeful=False)
    finished, _ = played(network)
    assert finished.end is End.DISCONNECT
    assert network.at == [0.0]


@pytest.mark.parametrize(
    ("hopeful", "end", "text"),
    [(True, End.COMPLETE, "one two three"), (False, End.DISCONNECT, "one two")],
)
def test_a_chat_that_is_paused_meanwhile_stays_paused(hopeful: bool, end: End, text: str) -> None:
    """Nobody waits for the text: the reply is there, and tried again when somebody does."""
    tries = [[*say("one", " two"), LOST], [*say(" three"), *END]]
    network = Network(tries, back_at=1000.0, hopeful=hopeful)

    class PausesAtFirst(Screen):
        """A key is pressed the moment the first text is there."""

        def show(self, event: Event, mark: Mark) -> None:
            super().show(event, mark)
            if len(self.of(Delta)) == 1 and isinstance(event, Delta):
                reply.pause(PauseReason.KEY)

    reply: Session

    async def program() -> tuple[Finished, Screen]:
        nonlocal reply
        screen = PausesAtFirst()
        network.back_at += trio.current_time()
        reply = session(network, screen, ends_on_pause=False)
        results = []

        async def go() -> None:
            results.append(await reply.run())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(go)
            await anyio.sleep(900)
            assert reply.turn.phase is Phase.PAUSED
            assert not results
            await anyio.sleep(200)
            reply.resume()
        return results[0], screen

    finished, screen = run(program)
    assert (finished.end, screen.text) == (end, text)
