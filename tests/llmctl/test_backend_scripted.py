"""The back end that plays scripts, and the scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llmctl.backends.script import Script, script_from_json, script_from_text
from llmctl.backends.scripted import ScriptedBackEnd, load_script
from llmctl.backends.scripts import BUILT_IN
from llmctl.conversation import Message, Options, Prefix, Request
from llmctl.errors import (
    Disconnected,
    LlmctlError,
    Overloaded,
    Refused,
    StrategyUnavailable,
    Unreachable,
    UsageError,
)
from llmctl.events import Channel, Chunk, Guarantee, Strategy

pytestmark = pytest.mark.anyio

ASK = Request("scripted", (Message("user", "hello"),))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def script(**fields: Any) -> Script:
    return script_from_json("test", fields)


async def play(back_end: ScriptedBackEnd, request: Request = ASK, **how: Any) -> list[Chunk]:
    async with back_end.open(request, **how) as stream:
        return [chunk async for chunk in stream]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


# Scripts.


@pytest.mark.parametrize("text", ["one two  three\n", " lead", "a\n\n  b", "", "  ", "語 🎉"])
async def test_plain_text_is_words_and_nothing_is_lost(text: str) -> None:
    chunks = await play(ScriptedBackEnd(script_from_text("t", text)))
    assert text_of(chunks) == text
    assert chunks[-1] == Chunk(finish_reason="stop")
    assert all(c.tokens == 1 and c.ends == (len(c.text),) for c in chunks[:-1])


async def test_chunks_as_written() -> None:
    made = script(
        chunks=[
            {"text": "hm", "channel": "reasoning"},
            "two words",
            {"text": "one token", "tokens": 1},
            {"text": "untold", "tokens": None},
            {"text": "three", "tokens": 3},
        ],
        finish_reason="length",
    )
    assert await play(ScriptedBackEnd(made)) == [
        Chunk("hm", Channel.REASONING, 1, (2,)),
        Chunk("two words", tokens=2, ends=(3, 9)),
        Chunk("one token", tokens=1, ends=(9,)),
        Chunk("untold"),
        Chunk("three", tokens=3),
        Chunk(finish_reason="length"),
    ]


async def test_files(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("from a file")
    (tmp_path / "script.json").write_text(json.dumps({"text": "half \ud83d"}))
    plain = load_script("plain.txt", folder=tmp_path)
    assert text_of(await play(ScriptedBackEnd(plain))) == "from a file"
    made = load_script(str(tmp_path / "script.json"))
    assert text_of(await play(ScriptedBackEnd(made))) == "half \ufffd"


@pytest.mark.parametrize(
    "source",
    [
        '{"chunks": [',
        "{}",
        '{"text": "a", "speed": 1}',
        '{"text": 7}',
        '{"chunks": [{}]}',
        '{"chunks": [{"text": "a", "channel": "loud"}]}',
        '{"text": "a", "delay_s": "slow"}',
        '{"text": "a", "supports": ["kv"]}',
        '{"text": "a", "faults": [{"kind": "fire"}]}',
        '{"text": "a", "faults": [{"kind": "stall", "when": 1}]}',
    ],
)
def test_what_is_no_script_is_said_so(tmp_path: Path, source: str) -> None:
    file = tmp_path / "script.json"
    file.write_text(source)
    with pytest.raises(UsageError, match=r"script\.json"):
        load_script(str(file))


def test_no_such_script() -> None:
    with pytest.raises(UsageError, match="nowhere"):
        load_script("nowhere")


def test_the_digest_is_of_what_is_said() -> None:
    one = script(text="a b")
    assert one.digest == script(text="a b", delay_s=9, supports=[]).digest
    others = [script(text="a c"), script(chunks=["a b"]), script(text="a b", finish_reason="x")]
    assert one.digest not in {other.digest for other in others}


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_scripts(name: str) -> None:
    made = load_script(name)
    assert made.name == name
    assert len(made.steps) > 20


def test_the_marker_script_has_markers() -> None:
    text = "".join(step.chunk.text for step in load_script("markers").steps)
    assert [text.count(marker) for marker in ("!!PAUSE", "!!ASK", "!!STOP")] == [1, 1, 1]


# Playing.


async def test_twenty_thousand_tokens_and_the_loop_breathes() -> None:
    turns = 0

    async def breathe() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(breathe)
        chunks = await play(ScriptedBackEnd(load_script("long")))
        tasks.cancel_scope.cancel()
    assert sum(chunk.tokens or 0 for chunk in chunks) == 20_000
    assert turns > 200


async def test_a_replay_says_the_same_under_the_same_conditions() -> None:
    back_end = ScriptedBackEnd(script(text="a b c"))
    async with back_end.open(ASK) as stream:
        conditions = stream.conditions
        first = [chunk async for chunk in stream]
    async with back_end.open(ASK, again=conditions, by=Strategy.REPLAY) as stream:
        assert stream.conditions == conditions
        assert [chunk async for chunk in stream] == first
    async with ScriptedBackEnd(script(text="a b d")).open(ASK) as stream:
        assert stream.conditions != conditions


async def test_going_on_at_every_character() -> None:
    thought = {"text": "hm", "channel": "reasoning"}
    back_end = ScriptedBackEnd(script(chunks=[thought, "one two", " three", "語"]))
    whole = "one two three語"
    for cut in range(1, len(whole) + 1):
        chunks = await play(back_end, after=Prefix(whole[:cut]), by=Strategy.PREFIX)
        assert whole[:cut] + text_of(chunks) == whole
        assert chunks[-1].finish_reason == "stop"
        assert {chunk.channel for chunk in chunks} == {Channel.CONTENT}
    with pytest.raises(StrategyUnavailable):
        await play(back_end, after=Prefix("one three"), by=Strategy.PREFIX)


async def test_it_supports_what_the_script_says() -> None:
    asking = {Strategy.INSTRUCT: Guarantee.BEST_EFFORT}
    assert ScriptedBackEnd(script(text="a", supports=[])).supports == asking
    only = ScriptedBackEnd(script(text="a", supports=["prefix"]))
    assert only.supports == {Strategy.PREFIX: Guarantee.TEXT, **asking}
    with pytest.raises(StrategyUnavailable):
        await play(only, again={}, by=Strategy.REPLAY)
    async with only.open(ASK) as stream:
        assert not stream.hold()


@pytest.mark.parametrize(("bound", "reason"), [(1, "length"), (3, "length"), (5, "stop")])
async def test_the_token_limit(bound: int, reason: str) -> None:
    back_end = ScriptedBackEnd(script(chunks=["a b", " c d"]))
    chunks = await play(back_end, Request("x", (), Options(max_tokens=bound)))
    assert text_of(chunks) == "a b c d"[: 2 * bound - 1]
    assert chunks[-1].finish_reason == reason


async def test_hold_stops_in_place_and_release_goes_on() -> None:
    back_end = ScriptedBackEnd(script(text="a b c d"))
    got: list[str] = []

    async def read() -> None:
        got.extend([chunk.text async for chunk in stream])

    async with back_end.open(ASK) as stream, anyio.create_task_group() as tasks:
        got.append((await anext(stream)).text)
        assert stream.hold()
        assert stream.hold()  # twice is once
        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        assert got == ["a"]
        stream.release()
        stream.release()
    assert "".join(got) == "a b c d"


async def test_delays_are_slept() -> None:
    back_end = ScriptedBackEnd(
        script(chunks=["a", {"text": "b", "delay_s": 0.0}, "c"], delay_s=0.01)
    )
    began = anyio.current_time()
    await play(back_end)
    assert 0.02 <= anyio.current_time() - began < 1


# Faults.


async def test_a_disconnect_strikes_once_and_where_it_should() -> None:
    faults = [{"kind": "disconnect", "after": 2}]
    back_end = ScriptedBackEnd(script(text="a b c", faults=faults))
    got = []
    async with back_end.open(ASK) as stream:
        with pytest.raises(Disconnected):
            async for chunk in stream:
                got.append(chunk.text)  # noqa: PERF401  (what came before counts)
    assert got == ["a", " b"]
    assert text_of(await play(back_end)) == "a b c"


@pytest.mark.parametrize("after", [0, 3])
async def test_a_disconnect_at_either_end(after: int) -> None:
    faults = [{"kind": "disconnect", "after": after}]
    with pytest.raises(Disconnected):
        await play(ScriptedBackEnd(script(text="a b c", faults=faults)))


async def test_going_on_is_never_struck() -> None:
    faults = [{"kind": "disconnect", "after": 1, "times": 9}]
    back_end = ScriptedBackEnd(script(text="a b", faults=faults))
    assert text_of(await play(back_end, again={}, by=Strategy.REPLAY)) == "a b"
    assert text_of(await play(back_end, after=Prefix("a"), by=Strategy.PREFIX)) == " b"


async def test_a_stall() -> None:
    back_end = ScriptedBackEnd(script(text="a b", faults=[{"kind": "stall", "after": 1}]))
    got = []
    with anyio.move_on_after(0.02) as scope:
        async with back_end.open(ASK) as stream:
            async for chunk in stream:
                got += [chunk.text]
    assert scope.cancelled_caught
    assert got == ["a"]


@pytest.mark.parametrize(
    ("kind", "error"),
    [("refuse", Refused), ("unreachable", Unreachable), ("overloaded", Overloaded)],
)
async def test_errors_in_place_of_a_reply(kind: str, error: type[LlmctlError]) -> None:
    faults = [{"kind": kind, "times": 2, "retry_after_s": 1.5}]
    back_end = ScriptedBackEnd(script(text="a", faults=faults))
    for _ in range(2):
        with pytest.raises(error) as caught:
            await play(back_end)
    assert getattr(caught.value, "retry_after", 1.5) == 1.5
    assert text_of(await play(back_end)) == "a"


async def test_faults_one_after_the_other() -> None:
    faults = [{"kind": "overloaded"}, {"kind": "disconnect", "after": 1}]
    back_end = ScriptedBackEnd(script(text="a b", faults=faults))
    for error in (Overloaded, Disconnected):
        with pytest.raises(error):
            await play(back_end)
    assert text_of(await play(back_end)) == "a b"
