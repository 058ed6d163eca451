"""What a server sees of a cut: an end at once, connections kept or closed, tokens paid twice."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llmctl.backends.chat import ChatBackEnd
from llmctl.clocks import Limits
from llmctl.conversation import Message, Options, Request
from llmctl.events import Action, End, Finished, Mode, PauseReason, Resumed, Started
from llmctl.journal import NoJournal
from llmctl.profiles import PrefixDialect, Profile, TokenCounts
from llmctl.resume.ladder import Ladder, rungs
from llmctl.retries import Patience
from llmctl.session import Policy, Session
from llmctl.turn import Turn
from tests.support.oracle_server import Fault, OracleServer, Record, Script, Settings
from tests.support.oracle_wire import Feature, Prefill
from tests.support.screen import Screen

pytestmark = pytest.mark.anyio

ASK = Request("oracle", (Message("user", "hi"),), Options(temperature=0.0))
SOON_NS = 100_000_000
TRIES = 5
"""The machine may be busy: one try in so many has to be in time."""
PACE_S = 0.002


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def vllm(**more: Any) -> Settings:
    features = (Feature.USAGE, Feature.TOKEN_IDS, Feature.TOKEN_PROMPTS)
    return Settings(prefill=Prefill.CONTINUE_FINAL_MESSAGE, features=features, **more)


@asynccontextmanager
async def back_end(server: OracleServer, **known: Any) -> AsyncIterator[ChatBackEnd]:
    known = {
        "prefix": PrefixDialect.CONTINUE_FINAL_MESSAGE,
        "token_counts": TokenCounts.IDS,
        "token_prompts": True,
        **known,
    }
    made = ChatBackEnd(Profile(name="test", base_url=server.base_url, **known))
    try:
        yield made
    finally:
        await made.aclose()


def session(made: ChatBackEnd, turn: Turn, screen: Screen, **policy: Any) -> Session:
    patience = Patience(delays_s=(0.001,))
    return Session(
        turn,
        Ladder(made, ASK, rungs("Go on.")),
        journal=NoJournal(),
        view=screen,
        started=Started("g", "c", "m", "test", "chat"),
        policy=Policy(syncs=False, patience=patience, **policy),
    )


async def gone(server: OracleServer) -> Record:
    """Wait until the server has seen that its client left."""
    with anyio.fail_after(5):
        while server.requests[-1].disconnected_ns is None:  # noqa: ASYNC110  (another thread)
            await anyio.sleep(0.002)
    return server.requests[-1]


# Stopping.


async def pause(reply: Session, screen: Screen) -> None:
    while len(screen.text) < 30:
        await anyio.lowlevel.checkpoint()
    reply.pause(PauseReason.KEY, Mode.CUT)


async def stop(reply: Session, screen: Screen) -> None:
    while len(screen.text) < 30:
        await anyio.lowlevel.checkpoint()
    reply.stop(End.SIGINT)


async def hold_and_cut(reply: Session, screen: Screen) -> None:
    while len(screen.text) < 30:
        await anyio.lowlevel.checkpoint()
    reply.pause(PauseReason.KEY, Mode.HOLD)
    await anyio.sleep(0.02)
    reply.cut()


@pytest.mark.parametrize("act", [pause, stop, hold_and_cut])
async def test_the_generation_stops_at_once(act: Any) -> None:
    waits = []
    for _ in range(TRIES):
        with OracleServer(vllm(length=5000, delay_s=PACE_S)) as server:
            async with back_end(server) as made, anyio.create_task_group() as tasks:
                screen = Screen()
                reply = session(made, Turn({}), screen, ends_on_pause=False)
                tasks.start_soon(reply.run)
                await act(reply, screen)
                acted_ns = time.monotonic_ns()
                record = await gone(server)
                assert record.last_token_ns is not None
                waits.append(record.last_token_ns - acted_ns)
                assert record.tokens < 4000
                tasks.cancel_scope.cancel()
        if waits[-1] < SOON_NS:
            return
    pytest.fail(f"it went on for {waits} ns")


@pytest.mark.parametrize("ends", [(End.SIGINT, End.SIGTERM), (End.SIGTERM, End.SIGINT)])
async def test_the_first_of_two_signals_decides(ends: tuple[End, End]) -> None:
    with OracleServer(vllm(length=5000, delay_s=PACE_S)) as server:
        async with back_end(server) as made, anyio.create_task_group() as tasks:
            screen = Screen()
            reply = session(made, Turn({}), screen)

            async def stop_twice() -> None:
                while len(screen.text) < 30:
                    await anyio.lowlevel.checkpoint()
                for end in ends:
                    reply.stop(end)

            tasks.start_soon(stop_twice)
            finished = await reply.run()
    assert finished.end is ends[0]


@pytest.mark.parametrize("how", ["limit", "marker", "total", "first pause"])
async def test_it_stops_at_once_where_the_program_ends(how: str) -> None:
    markers = {"!!S": Action.STOP} if how == "marker" else {}
    pause_after = {"limit": 9, "first pause": 1}.get(how)
    limits = Limits(total=0.5) if how == "total" else Limits()
    for _ in range(TRIES):
        with OracleServer(vllm(length=5000, delay_s=PACE_S)) as server:
            server.enqueue(Script(inserts={9: "!!S"}))
            async with back_end(server) as made:
                turn = Turn(markers, mode=Mode.CUT, pause_after=pause_after)
                await session(made, turn, Screen(), limits=limits).run()
                ended_ns = time.monotonic_ns()
                record = await gone(server)
        assert record.last_token_ns is not None
        if record.last_token_ns - ended_ns < SOON_NS:
            return
    pytest.fail("it went on")


# Connections.


async def test_a_reply_that_was_read_up_leaves_its_connection_to_the_next() -> None:
    with OracleServer(vllm(length=20)) as server:
        async with back_end(server) as made:
            for _ in range(4):
                await session(made, Turn({}), Screen()).run()
            assert (server.counters.connections, server.counters.disconnects) == (1, 0)


async def test_a_cut_reply_closes_its_connection_and_no_other() -> None:
    with OracleServer(vllm(length=300, send_each=True)) as server:
        server.enqueue(Script(hold_at=20))
        async with back_end(server) as made:
            cut = Turn({}, mode=Mode.CUT, pause_after=9)
            await session(made, cut, Screen()).run()
            await gone(server)
            for _ in range(3):
                await session(made, Turn({}), Screen()).run()
            assert (server.counters.connections, server.counters.disconnects) == (2, 1)


# Paying twice.


@pytest.mark.parametrize("by_ids", [False, True])
async def test_what_is_paid_for_twice_is_counted(by_ids: bool) -> None:
    known = {"token_prompts": by_ids, "prefix_keeps_blanks": True}
    with OracleServer(vllm(length=60)) as server:
        for after in (12, 20, 9):
            server.enqueue(Script(fault=Fault("cut", after_tokens=after)))
        async with back_end(server, **known) as made:
            screen = Screen()
            finished: Finished = await session(made, Turn({}), screen).run()
        asked = [record.prompt_tokens for record in server.requests]
        assert finished.end is End.COMPLETE
        assert screen.text == server.expected("hi")
        assert len(screen.of(Resumed)) == 3
        assert finished.repaid_tokens == sum(asked) - len(asked) * asked[0] > 0
        assert finished.as_json()["repaid_tokens"] == finished.repaid_tokens


async def test_what_was_never_lost_is_paid_for_once() -> None:
    with OracleServer(vllm(length=60)) as server:
        async with back_end(server) as made:
            finished = await session(made, Turn({}), Screen()).run()
            assert finished.repaid_tokens == 0
