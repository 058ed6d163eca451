"""The embedded engine, for real: what it says, counts, keeps, and what it may claim."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmctl.backends.embedded import Embedded
from llmctl.backends.engine import EngineSettings
from llmctl.conversation import Message, Prefix, Request
from llmctl.errors import ContextFull, Disconnected, Refused, StrategyUnavailable
from llmctl.events import Guarantee, Strategy
from tests.support.engine import EMOJI, STORY, ask, cut, go_on, weights_or_skip, whole

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Embedded]:
    """One engine for all tests of this file, with a context small enough to fill."""
    home = tmp_path_factory.mktemp("engine")
    embedded = Embedded(weights_or_skip(), home=home, settings=EngineSettings(context=256))
    embedded.start()
    yield embedded
    await embedded.aclose()


async def test_who_waits_while_it_is_made_ready_does_not_make_it_ready_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the second to come through forgets what a reply has left in the slot meanwhile."""
    embedded = Embedded(weights_or_skip(), home=tmp_path, settings=EngineSettings(context=256))
    asked: list[str] = []
    ask_engine = embedded.engine.ask

    async def noted(path: str, body: Any = None) -> Any:
        asked.append(path)
        return await ask_engine(path, body)

    monkeypatch.setattr(embedded.engine, "ask", noted)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(embedded.ready)
        tasks.start_soon(embedded.ready)
    await embedded.aclose()
    assert asked == ["/props"]


# -- what it says and counts


async def test_every_token_of_an_ascii_reply_is_known(engine: Embedded) -> None:
    reply = await whole(engine, ask(STORY, max_tokens=30))
    ids = reply.prefix.ids
    assert ids is not None
    assert len(ids) == reply.tokens == 30
    assert (await engine.engine.ask("/detokenize", {"tokens": ids}))["content"] == reply.text
    assert all(c.ends == (len(c.text),) for c in reply.chunks[:-1])
    assert reply.chunks[-1].finish_reason == "length"
    assert not reply.chunks[-1].context_full


async def test_ids_lost_inside_characters_are_none_and_the_count_stays_exact(
    engine: Embedded,
) -> None:
    reply = await whole(engine, ask(EMOJI, max_tokens=30))
    assert reply.prefix.ids is None
    assert reply.chunks[0].text == "🦊"
    assert reply.chunks[0].tokens == 3
    assert reply.chunks[0].ends == (1, 1, 1)
    usage = reply.chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 30
    assert reply.tokens <= 30


async def test_the_end_is_told_from_a_limit_and_its_token_is_not_counted(engine: Embedded) -> None:
    reply = await whole(engine, ask("Say hi.", max_tokens=100))
    last = reply.chunks[-1]
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.completion_tokens == reply.tokens + 1


async def test_a_stop_text_ends_the_reply_before_it(engine: Embedded) -> None:
    full = await whole(engine, ask(STORY, max_tokens=30))
    word = full.text.split()[8]
    reply = await whole(engine, ask(STORY, max_tokens=30, stop=(word,)))
    assert reply.text == full.text[: full.text.index(word)]
    assert reply.chunks[-1].finish_reason == "stop"


async def test_a_schema_shapes_the_reply(engine: Embedded) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    }
    reply = await whole(engine, ask("The capital of France?", max_tokens=60, schema=schema))
    assert set(json.loads(reply.text)) == {"city"}


async def test_a_full_context_is_not_a_token_limit(engine: Embedded) -> None:
    reply = await whole(engine, ask("count " * 190, extra={"ignore_eos": True}))
    assert reply.chunks[-1].finish_reason == "length"
    assert reply.chunks[-1].context_full


async def test_a_prompt_that_does_not_fit_says_both_numbers(engine: Embedded) -> None:
    with pytest.raises(ContextFull, match=r"has \d{3,} tokens.* holds 256"):
        await whole(engine, ask("count " * 300))


@pytest.mark.parametrize(
    ("extra", "says"),
    [({"temperature": "hot"}, "temperature"), ({"grammar": "root ::= ("}, "grammar")],
)
async def test_a_wrong_field_is_refused_in_the_engines_words(
    engine: Embedded, extra: dict[str, Any], says: str
) -> None:
    with pytest.raises(Refused, match=says):
        await whole(engine, ask("hi", extra=extra))


async def test_a_request_without_a_seed_gets_one_and_is_repeated_with_it(engine: Embedded) -> None:
    request = ask(STORY, seed=None, temperature=0.9, max_tokens=12)
    first = await whole(engine, request)
    again = await whole(engine, request, again=first.conditions, by=Strategy.REPLAY)
    assert again.text == first.text
    assert again.conditions == first.conditions
    assert (await whole(engine, request)).conditions != first.conditions


# -- replay


@pytest.mark.parametrize("temperature", [0.0, 0.8])
async def test_a_later_turn_is_replayed_from_the_state_it_started_in(
    engine: Embedded, temperature: float
) -> None:
    options: dict[str, Any] = {"temperature": temperature, "max_tokens": 40}
    first = await whole(engine, ask(STORY, **options))
    request = ask(STORY, first.text, "Go on, with " + EMOJI, **options)
    second = await whole(engine, request)
    assert second.conditions["cached"] > 64
    await whole(engine, ask("Something else entirely.", max_tokens=5))
    again = await whole(engine, request, again=second.conditions, by=Strategy.REPLAY)
    assert again.conditions == second.conditions
    assert again.chunks == second.chunks
    assert json.loads(json.dumps(second.conditions)) == second.conditions
    engine.discard(second.conditions)
    assert (
        not engine.engine.slots
        or not (engine.engine.slots / second.conditions["start"]["file"]).exists()
    )


async def test_without_the_state_a_replay_says_that_it_started_elsewhere(engine: Embedded) -> None:
    first = await whole(engine, ask(STORY, max_tokens=40))
    request = ask(STORY, first.text, "Go on.", max_tokens=10)
    second = await whole(engine, request)
    engine.discard(second.conditions)
    again = await whole(engine, request, again=second.conditions, by=Strategy.REPLAY)
    assert again.conditions["start"] == "empty"
    assert again.conditions != second.conditions


async def test_another_seed_prompt_or_option_is_another_condition(engine: Embedded) -> None:
    first = await whole(engine, ask(STORY, max_tokens=2))
    base = first.conditions
    more = await whole(engine, ask(STORY, max_tokens=3), again=base, by=Strategy.REPLAY)
    assert more.conditions == base  # a bound on the length changes no token
    assert more.text.startswith(first.text)
    others = (ask(STORY, seed=8), ask(STORY + "!"), ask(STORY, top_p=0.5), ask(STORY, stop=("x",)))
    for other in others:
        reply = await cut(engine, other, 1, again=base, by=Strategy.REPLAY)
        assert reply.conditions != base


async def test_discarding_a_state_does_not_take_an_equal_one(engine: Embedded) -> None:
    request = ask(STORY, max_tokens=4)
    first = await cut(engine, request, 4)
    later = await whole(engine, ask(STORY, first.text, "Go on.", max_tokens=2))
    assert first.saved is not None
    engine.discard(first.saved)
    request = ask(STORY, first.text, "Go on.", max_tokens=2)
    again = await whole(engine, request, again=later.conditions, by=Strategy.REPLAY)
    assert again.conditions == later.conditions


async def test_an_unrelated_prompt_starts_empty_and_saves_nothing(engine: Embedded) -> None:
    assert engine.engine.slots is not None
    await whole(engine, ask(STORY, max_tokens=2))
    before = set(engine.engine.slots.iterdir())
    other = await whole(engine, ask("What is 2 + 2?", max_tokens=2))
    assert other.conditions["start"] == "empty"
    assert other.conditions["cached"] == 0
    assert set(engine.engine.slots.iterdir()) == before


# -- going on from the engine's state


@pytest.mark.parametrize("prompt", [STORY, EMOJI])
@pytest.mark.parametrize("chunks", [1, 2, 5, 9])
async def test_kv_goes_on_exactly_also_where_ids_were_lost(
    engine: Embedded, prompt: str, chunks: int
) -> None:
    request = ask(prompt, max_tokens=30)
    full = await whole(engine, request)
    first = await cut(engine, request, chunks)
    await whole(engine, ask("Something else.", max_tokens=3))
    left = request.with_options(max_tokens=30 - first.tokens)
    rest = await go_on(engine, left, first, Strategy.KV)
    assert first.text + rest.text == full.text
    assert rest.conditions["earned"] == Guarantee.EXACT


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.8}, {"temperature": None}, {"extra": {"repeat_penalty": 1.1}}],
)
async def test_no_state_is_saved_where_going_on_from_it_would_not_be_exact(
    engine: Embedded, options: dict[str, Any]
) -> None:
    assert (await cut(engine, ask(STORY, **options), 3)).saved is None


async def test_a_state_of_other_conditions_or_another_text_is_not_used(engine: Embedded) -> None:
    request = ask(STORY, max_tokens=20)
    first = await cut(engine, request, 5)
    with pytest.raises(StrategyUnavailable):
        await go_on(engine, request.with_options(seed=8), first, Strategy.KV)
    wrong = Prefix(first.text[:-1] + "#", tokens=first.tokens)
    with pytest.raises(StrategyUnavailable):
        await whole(engine, request, after=wrong, by=Strategy.KV, saved=first.saved)


async def test_a_changed_or_lost_state_is_not_restored(engine: Embedded) -> None:
    request = ask(STORY, max_tokens=20)
    first = await cut(engine, request, 5)
    assert engine.engine.slots is not None
    assert first.saved is not None
    file = engine.engine.slots / first.saved["start"]["file"]
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)
    with pytest.raises(StrategyUnavailable):
        await go_on(engine, request, first, Strategy.KV)
    engine.discard(first.saved)
    assert not file.exists()
    with pytest.raises(StrategyUnavailable):
        await go_on(engine, request, first, Strategy.KV)


# -- going on from ids or text


async def test_tokens_go_on_behind_the_same_ids(engine: Embedded) -> None:
    request = ask(STORY, max_tokens=20)
    first = await cut(engine, request, 6)
    rest = await go_on(engine, request, first, Strategy.TOKENS)
    assert rest.conditions["earned"] == Guarantee.TOKEN
    assert rest.text
    with pytest.raises(StrategyUnavailable):
        await whole(engine, request, after=Prefix("x"), by=Strategy.TOKENS)


async def test_a_text_prefix_is_as_good_as_its_tokens_only_where_that_is_proven(
    engine: Embedded,
) -> None:
    request = ask(STORY, max_tokens=20)
    first = await cut(engine, request, 6)
    proven = await go_on(engine, request, first, Strategy.PREFIX)
    assert proven.conditions["prefix_ids_proven"]
    assert proven.conditions["earned"] == Guarantee.TOKEN
    text = Prefix(first.text)
    unproven = await whole(engine, request, after=text, by=Strategy.PREFIX)
    assert not unproven.conditions["prefix_ids_proven"]
    assert unproven.conditions["earned"] == Guarantee.TEXT
    assert unproven.text == proven.text


# -- holding, cutting, crashing


def stats(pid: int | None) -> list[list[str]]:
    """Return what the system says of each thread of a process, from its state on."""
    files = Path(f"/proc/{pid}/task").glob("*/stat")
    return [file.read_text().rpartition(")")[2].split() for file in files]


def ticks(pid: int | None) -> int:
    """Return the processor time a process has used, in ticks."""
    return sum(int(fields[11]) + int(fields[12]) for fields in stats(pid))


def wait_until_stopped(pid: int | None) -> None:
    """Wait until each thread of a process is stopped; the system takes its time for that."""
    deadline = time.monotonic() + 10
    while {fields[0] for fields in stats(pid)} != {"T"}:
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_held_engine_computes_nothing_and_goes_on_as_if_never_held(
    engine: Embedded,
) -> None:
    request = ask(STORY, temperature=0.8, max_tokens=30)
    full = await whole(engine, request)
    async with engine.open(request) as stream:
        chunks = [await anext(aiter(stream)) for _ in range(4)]
        assert stream.hold()
        assert stream.hold()
        wait_until_stopped(engine.engine.pid)
        before = ticks(engine.engine.pid)
        await anyio.sleep(0.2)
        assert ticks(engine.engine.pid) == before
        stream.release()
        stream.release()
        chunks += [chunk async for chunk in stream]
    assert chunks == full.chunks


async def test_a_cut_ends_the_generation_at_once(engine: Embedded) -> None:
    took = [await seconds_of_a_cut(engine) for _ in range(5)]
    assert min(took) < 0.5  # 30 ms on an idle machine; see docs/engine.md


async def seconds_of_a_cut(engine: Embedded) -> float:
    request = ask(STORY, extra={"ignore_eos": True})
    async with engine.open(request) as stream:
        await anext(aiter(stream))
        began = time.monotonic()
    took = time.monotonic() - began
    slots = await engine.engine.ask("/slots")
    assert not slots[0]["is_processing"]
    return took


async def test_leaving_while_held_ends_the_generation_and_the_engine_lives(
    engine: Embedded,
) -> None:
    pid = engine.engine.pid
    async with engine.open(ask(STORY)) as stream:
        await anext(aiter(stream))
        stream.hold()
    assert (await whole(engine, ask("hi", max_tokens=2))).text
    assert engine.engine.pid == pid


async def test_cancelling_in_the_middle_of_the_prompt_leaves_a_usable_engine(
    engine: Embedded,
) -> None:
    with anyio.move_on_after(0.15) as scope:
        await whole(engine, ask("count " * 190))
    assert scope.cancelled_caught
    assert (await whole(engine, ask("hi", max_tokens=2))).text


async def crashing(engine: Embedded, request: Request) -> None:
    """Read a reply of an engine that is killed behind its first token."""
    async with engine.open(request) as stream:
        async for _ in stream:
            if engine.engine.pid is not None:
                os.kill(engine.engine.pid, signal.SIGKILL)


async def test_a_crash_is_a_lost_connection_and_the_next_reply_has_a_new_engine(
    engine: Embedded,
) -> None:
    request = ask(STORY, temperature=0.8, max_tokens=25)
    full = await whole(engine, request)
    with pytest.raises(Disconnected, match="SIGKILL"):
        await crashing(engine, request)
    again = await whole(engine, request, again=full.conditions, by=Strategy.REPLAY)
    assert again.chunks == full.chunks
    assert again.conditions == full.conditions


async def test_one_reply_at_a_time(engine: Embedded) -> None:
    texts = []

    async def one(question: str) -> None:
        texts.append((await whole(engine, ask(question, max_tokens=8))).text)

    alone = [(await whole(engine, ask(q, max_tokens=8))).text for q in (STORY, EMOJI)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, STORY)
        tasks.start_soon(one, EMOJI)
    assert sorted(texts) == sorted(alone)


async def test_a_system_message_is_the_persons_own(engine: Embedded) -> None:
    request = ask("hi", max_tokens=2)
    with_system = Message("system", "Be brief."), *request.messages
    other = type(request)(request.model, with_system, request.options)
    one, two = await whole(engine, request), await whole(engine, other)
    assert one.conditions["prompt"] != two.conditions["prompt"]
