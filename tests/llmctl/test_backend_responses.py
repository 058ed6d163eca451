"""The Responses API for single replies: what is sent, and how a stored run is read on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from llmctl.backends.responses import ResponsesBackEnd
from llmctl.backends.responses_body import responses_body
from llmctl.backends.responses_reader import ResponsesReader
from llmctl.cli import main
from llmctl.conversation import Message, Options, Prefix, Request
from llmctl.errors import BelowRequire, Disconnected, Refused
from llmctl.events import Channel, Chunk, Cursor, Guarantee, Strategy
from llmctl.profiles import Profile
from llmctl.resume.ladder import Ladder
from tests.support.cuts import climb, gone_on, ladder_of, received, whole
from tests.support.fake_environment import fake_environment
from tests.support.oracle_responses import Keeping
from tests.support.oracle_server import Fault, OracleServer, Script, Settings
from tests.support.oracle_wire import Feature
from tests.support.processes import Cli

pytestmark = pytest.mark.anyio

QUESTION = "hello length=64"
ASK = Request("oracle", (Message("user", QUESTION),), Options(temperature=0.0))
STORED = ASK.with_options(extra={"background": True})
SERVER = Settings(features=(Feature.RESPONSES,), canonical=False)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def back_end(server: OracleServer, **known: Any) -> ResponsesBackEnd:
    profile = Profile(name="test", base_url=server.base_url)
    return ResponsesBackEnd(profile, poll_s=0.002, **known)


@asynccontextmanager
async def ladder(
    server: OracleServer, request: Request = STORED, **known: Any
) -> AsyncIterator[Ladder]:
    async with ladder_of(back_end(server, **known), request) as of:
        yield of


# What is sent.


def body(**options: Any) -> dict[str, Any]:
    request = Request("m", (Message("system", "S"), Message("user", "Hi")), Options(**options))
    return responses_body(Profile(name="x", base_url="http://x/v1"), request)


def test_the_body() -> None:
    heard = [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]
    common = {"model": "m", "input": heard, "stream": True}
    assert body() == common
    chosen = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 64, "extra": {"truncation": "auto"}}
    sent = {"temperature": 0.5, "top_p": 0.9, "max_output_tokens": 64, "truncation": "auto"}
    assert body(**chosen) == {**common, **sent}
    form = {"type": "json_schema", "name": "reply", "schema": {"type": "object"}, "strict": True}
    assert body(schema={"type": "object"}) == {**common, "text": {"format": form}}


def test_who_chooses_the_background_chooses_that_it_is_stored() -> None:
    both = {"background": True, "store": True}
    assert both.items() <= body(extra={"background": True}).items()
    assert "store" not in body()
    assert "store" not in body(extra={"background": False})
    assert body(extra={"background": True, "store": False})["store"] is False
    profile = Profile(name="x", base_url="http://x/v1", background=True)
    assert both.items() <= responses_body(profile, ASK).items()


@pytest.mark.parametrize("options", [{"stop": ("END",)}, {"seed": 7}])
def test_what_the_protocol_has_no_place_for(options: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="knows no"):
        body(**options)


# What comes.


@pytest.mark.parametrize("size", [1, 3, (1, 5)])
@pytest.mark.parametrize("background", [False, True])
async def test_a_reply(size: int | tuple[int, int], *, background: bool) -> None:
    with OracleServer(replace(SERVER, tokens_per_chunk=size, reasoning=3)) as server:
        async with ladder(server, STORED if background else ASK) as of:
            chunks = await whole(of)
        full = received(chunks)
        assert full.text == server.expected(QUESTION)
        assert full.reasoning
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 64 + 3 + 2
    assert all((chunk.cursor is not None) is background for chunk in chunks[:-1])


async def test_a_bound_and_an_answer_in_one_piece() -> None:
    with OracleServer(SERVER) as server:
        async with ladder(server, ASK.with_options(max_tokens=20)) as of:
            assert (await whole(of))[-1].finish_reason == "length"
        async with ladder(server, ASK.with_options(extra={"stream": False})) as of:
            assert received(await whole(of)).text == server.expected(QUESTION)


async def test_wrong_fields_are_refused_in_the_server_s_words() -> None:
    with OracleServer(SERVER) as server:
        for extra, said in (({"n": 1}, "Unknown parameter: 'n'"), ({"store": 1}, "store")):
            async with ladder(server, ASK.with_options(extra=extra)) as of:
                with pytest.raises(Refused, match=said):
                    await whole(of)


def events(*numbers: int, cursor: Cursor | None = None) -> list[Chunk]:
    reader = ResponsesReader(cursor=cursor)
    stored = {"id": "r", "background": True, "store": True}
    chunks: list[Chunk] = []
    if cursor is None:
        begun = {"type": "response.created", "sequence_number": 0, "response": stored}
        chunks += reader.read(json.dumps(begun))
    for number in numbers:
        event = {"type": "response.output_text.delta", "sequence_number": number, "delta": "x"}
        chunks += reader.read(json.dumps(event))
    return chunks


def test_events_that_were_had_are_passed_over() -> None:
    assert [chunk.cursor for chunk in events(1, 2)] == [Cursor("r", 1), Cursor("r", 2)]
    assert len(events(1, 1, 2, 0, 2)) == 2
    assert len(events(3, 4, 5, cursor=Cursor("r", 4))) == 1


@pytest.mark.parametrize("numbers", [(2,), (1, 3), (1, 2, 9)])
def test_nothing_is_shown_behind_a_gap(numbers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="missing"):
        events(*numbers)


@pytest.mark.parametrize(
    ("written", "why", "reason"),
    [(16, {}, "length"), (15, {}, "stop"), (16, {"reason": "content_filter"}, "content_filter")],
)
def test_a_bound_is_a_bound_also_where_the_server_calls_it_an_end(
    written: int, why: dict[str, str], reason: str
) -> None:
    """llama-server says that such a response is complete."""
    reader = ResponsesReader(bound=16)
    whole = {"usage": {"output_tokens": written}, "incomplete_details": why or None}
    reader.read(json.dumps({"type": "response.completed", "response": whole}))
    assert (reader.done, reader.finish_reason) == (True, reason)


def test_half_a_character_is_not_read_on_behind() -> None:
    reader = ResponsesReader(cursor=Cursor("r", 0))
    kind = "response.output_text.delta"
    one = reader.read(json.dumps({"type": kind, "sequence_number": 1, "delta": "a\ud83d"}))
    two = reader.read(json.dumps({"type": kind, "sequence_number": 2, "delta": "\ude00b"}))
    assert [(chunk.text, chunk.cursor) for chunk in (*one, *two)] == [
        ("a", None),
        ("😀b", Cursor("r", 2)),
    ]


# Reading on.


@pytest.mark.parametrize("keeping", [Keeping.KEPT, Keeping.TOO_OLD, Keeping.WHOLE])
@pytest.mark.parametrize("size", [1, (1, 5)])
async def test_every_cut_is_exact(keeping: Keeping, size: int | tuple[int, int]) -> None:
    with OracleServer(replace(SERVER, keeping=keeping, tokens_per_chunk=size)) as server:
        async with ladder(server) as of:
            trials = [trial async for trial in climb(of)]
        full, asked = server.expected(QUESTION), server.requests
    assert len(trials) > 15
    for trial in trials:
        assert trial.rest is not None
        assert trial.before.text + trial.rest.text == full
        assert (trial.strategy, trial.label) == (Strategy.CURSOR, Guarantee.EXACT)
    assert [record.path for record in asked if record.method == "POST"] == ["/v1/responses"]
    at = trials[4].before.cursor
    assert at is not None
    assert f"/v1/responses/{at.run}?stream=true&starting_after={at.at}" in {r.path for r in asked}


async def test_a_server_that_starts_over_repeats_nothing() -> None:
    with OracleServer(replace(SERVER, keeping=Keeping.FROM_START)) as server:
        async with ladder(server) as of:
            for trial in [trial async for trial in climb(of, 5)]:
                assert trial.rest is not None
                assert trial.before.text + trial.rest.text == server.expected(QUESTION)


@pytest.mark.parametrize(
    "keeping", [Keeping.IGNORED, Keeping.LOST, Keeping.WITH_GAP, Keeping.ALTERED]
)
async def test_what_does_not_hold_is_not_claimed(keeping: Keeping) -> None:
    with OracleServer(replace(SERVER, keeping=keeping)) as server:
        async with ladder(server) as of:
            chunks = await whole(of)
            before = received(chunks[:9])
            assert (before.cursor is None) is (keeping is Keeping.IGNORED)
            with pytest.raises(BelowRequire):
                async with of.go_on(before, lambda: None):
                    pass


async def test_a_response_that_nobody_keeps_has_no_cursor() -> None:
    with OracleServer(SERVER) as server:
        async with ladder(server, ASK) as of:
            chunks = await whole(of)
            before = received(chunks[:9])
            assert not of.may_go_on(before)
            with pytest.raises(BelowRequire) as told:
                async with of.go_on(before, lambda: None):
                    pass
            assert "--option background=true" in (told.value.hint or "")


async def test_the_run_goes_on_without_a_reader() -> None:
    with OracleServer(SERVER) as server:
        server.enqueue(Script(fault=Fault("cut", after_tokens=20)))
        async with ladder(server) as of:
            chunks: list[Chunk] = []
            with pytest.raises(Disconnected):
                async with of.start() as opened:
                    async for chunk in opened.chunks:
                        chunks.append(chunk)  # noqa: PERF401  (kept when it breaks off)
            before = received(chunks)
            assert 0 < len(before.text) < len(server.expected(QUESTION))
            trial = await gone_on(of, before, before)
            assert trial.rest is not None
            assert before.text + trial.rest.text == server.expected(QUESTION)
        assert server.counters.tokens == 64


async def test_a_connection_lost_while_reading_on_is_lost_not_given_up() -> None:
    with OracleServer(SERVER) as server:
        async with ladder(server) as of:
            before = received((await whole(of))[:9])
            server.enqueue(Script(fault=Fault("cut", after_tokens=40)))
            with pytest.raises(Disconnected):
                async with of.go_on(before, lambda: None) as opened:
                    [chunk async for chunk in opened.chunks]


async def left(server: OracleServer, *, ends_runs: bool) -> Prefix:
    """Leave a reply in its middle, with all read that was sent; return it."""
    server.enqueue(Script(hold_at=10, tokens_per_chunk=10))
    async with ladder(server, ends_runs=ends_runs) as of:
        chunks: list[Chunk] = []
        with anyio.CancelScope() as scope:
            async with of.start() as opened:
                async for chunk in opened.chunks:
                    chunks.append(chunk)
                    if len(received(chunks).text) > 5:
                        scope.cancel()
    return received(chunks)


async def test_a_cut_cancels_where_that_is_wanted() -> None:
    with OracleServer(SERVER) as server:
        before = await left(server, ends_runs=True)
        assert before.cursor is not None
        assert server.requests[-1].path == f"/v1/responses/{before.cursor.run}/cancel"
        server.release()
        async with ladder(server) as of:
            with pytest.raises(BelowRequire, match="cancelled"):
                async with of.go_on(before, lambda: None):
                    pass
        assert server.counters.tokens <= 11


async def test_elsewhere_it_is_left_running() -> None:
    with OracleServer(SERVER) as server:
        before = await left(server, ends_runs=False)
        server.release()
        async with ladder(server) as of:
            trial = await gone_on(of, before, before)
            assert trial.rest is not None
            assert before.text + trial.rest.text == server.expected(QUESTION)
        assert server.counters.tokens == 64


async def test_what_was_left_for_another_request_is_cancelled() -> None:
    with OracleServer(SERVER) as server:
        server.enqueue(Script(hold_at=10))
        made = back_end(server)
        async with ladder_of(made, STORED) as of:
            async with of.start() as opened:
                await anext(opened.chunks)
            other = Ladder(made, STORED.with_options(temperature=0.5), of.rungs)
            await whole(other)
            asked = [(record.method, record.path) for record in server.requests]
        run = ("POST", "/v1/responses")
        assert asked == [run, ("POST", "/v1/responses/resp_0/cancel"), run]


async def test_what_was_left_before_its_first_text_is_taken_up_again() -> None:
    with OracleServer(SERVER) as server:
        async with ladder(server) as of:
            server.enqueue(Script(fault=Fault("cut", after_tokens=0)))
            with pytest.raises(Disconnected):
                await whole(of)
            assert received(await whole(of)).text == server.expected(QUESTION)
        assert [record.method for record in server.requests] == ["POST", "GET"]
        assert server.counters.tokens == 64


async def test_a_reply_that_has_ended_for_good_is_cancelled_when_all_is_closed() -> None:
    with OracleServer(SERVER) as server:
        server.enqueue(Script(hold_at=10))
        async with ladder(server) as of:
            async with of.start() as opened:
                await anext(opened.chunks)
            of.forget()
        assert server.requests[-1].path == "/v1/responses/resp_0/cancel"


async def test_a_reply_that_was_read_to_its_end_is_not_cancelled() -> None:
    with OracleServer(SERVER) as server:
        async with ladder(server, ends_runs=True) as of:
            await whole(of)
        assert server.counters.requests == 1


async def test_reasoning_is_read_on_too() -> None:
    with OracleServer(replace(SERVER, reasoning=9)) as server:
        async with ladder(server) as of:
            chunks = await whole(of)
            full = received(chunks)
            trial = await gone_on(of, received(chunks[:4]), full)
            assert trial.rest is not None
            assert trial.before.reasoning + trial.rest.reasoning == full.reasoning
            assert trial.rest.text == full.text
    assert chunks[0].channel is Channel.REASONING


async def test_a_response_too_old_to_be_streamed_is_waited_for() -> None:
    with OracleServer(replace(SERVER, keeping=Keeping.TOO_OLD)) as server:
        before = await left(server, ends_runs=False)
        async with ladder(server) as of, anyio.create_task_group() as tasks:

            async def finish_later() -> None:
                await of.ready()
                await to_thread.run_sync(server.wait_until, lambda seen: seen.requests >= 4)
                server.release()

            tasks.start_soon(finish_later)
            trial = await gone_on(of, before, before)
            assert trial.rest is not None
            assert before.text + trial.rest.text == server.expected(QUESTION)
            assert trial.label is Guarantee.EXACT


# The program, in this process.

BACKGROUND = ("--option", "background=true")


def where(server: OracleServer) -> tuple[str, ...]:
    return ("--base-url", server.base_url, "--api", "responses", "-m", "oracle")


def run(folder: Path, server: OracleServer, *words: str) -> tuple[int, str, str]:
    command = ("run", "-n", *where(server), "--temperature", "0", *words)
    with fake_environment(folder) as fake:
        return main(command, fake.env), fake.out, fake.err


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cut", after_tokens=1),
        Fault("no_finish", after_tokens=40),
        Fault("error_event", after_tokens=30),
    ],
    ids=lambda fault: f"{fault.kind} after {fault.after_tokens}",
)
def test_a_broken_stream_is_read_on_exactly(fault: Fault, tmp_path: Path) -> None:
    with OracleServer(SERVER) as server:
        server.enqueue(Script(fault=fault))
        status, text, errors = run(tmp_path, server, *BACKGROUND, QUESTION)
        assert (status, text) == (0, server.expected(QUESTION))
        assert errors.count("(cursor, exact)") == 1
        assert server.counters.tokens == 64  # nothing was generated twice


def test_a_pause_leaves_it_running_unless_it_is_to_be_cut(tmp_path: Path) -> None:
    with OracleServer(replace(SERVER, delay_s=0.002)) as server:
        asked = ("--pause-after", "9", *BACKGROUND, QUESTION)
        status, first, _ = run(tmp_path, server, *asked)
        with fake_environment(tmp_path) as fake:
            assert main(("resume", "--require", "exact"), fake.env) == 0
            assert first + fake.out == server.expected(QUESTION)
            assert "(cursor, exact)" in fake.err
        assert status == 5
        assert run(tmp_path, server, "--on-pause", "cut", *asked)[0] == 5
        assert server.requests[-1].path.endswith("/cancel")


def test_a_marker_that_ends_the_reply_ends_its_run(tmp_path: Path) -> None:
    with OracleServer(replace(SERVER, delay_s=0.005)) as server:
        server.enqueue(Script(inserts={9: "!!STOP"}))
        marker = ("--marker", "!!STOP=stop")
        status, text, _ = run(tmp_path, server, *marker, *BACKGROUND, QUESTION)
        assert (status, bool(text)) == (0, True)
        assert server.requests[-1].path.endswith("/cancel")
        assert server.counters.tokens < 64


def test_without_the_background_a_broken_stream_is_the_end(tmp_path: Path) -> None:
    with OracleServer(SERVER) as server:
        server.enqueue(Script(fault=Fault("cut", after_tokens=20)))
        status, text, _ = run(tmp_path, server, QUESTION)
        assert status == 4
        assert text
        assert server.expected(QUESTION).startswith(text)
        assert server.counters.requests == 1


# From outside.


def test_a_reply_that_was_killed_is_read_on(tmp_path: Path) -> None:
    with OracleServer(replace(SERVER, delay_s=0.01)) as server:
        cli = Cli(tmp_path)
        killed = cli.start("run", *where(server), "--temperature", "0", *BACKGROUND, QUESTION)
        killed.kill_after_bytes(40)
        before = killed.wait().text
        rest = cli.run("resume", "--full", "--require", "exact")
        assert rest.text == server.expected(QUESTION)
        assert rest.text.startswith(before)
        assert "(cursor, exact)" in rest.errors
        assert server.counters.tokens == 64
