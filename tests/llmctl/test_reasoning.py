"""A reply that thinks first: cut within its thoughts, at their border, or behind them, it goes on.

The server is strict: it refuses what its dialect does not know, and its next token depends on
every token before it, the thoughts included.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from llmctl.backends.chat import ChatBackEnd
from llmctl.backends.chat_body import Beginning, beginning, chat_body
from llmctl.conversation import Message, Options, Prefix, Request
from llmctl.errors import StrategyUnavailable
from llmctl.events import Channel, Chunk, Strategy
from llmctl.profiles import PRESETS, PrefixDialect, Profile, ReasoningDialect, TokenCounts
from tests.support.oracle_server import OracleServer, Settings
from tests.support.oracle_wire import Feature, Prefill

pytestmark = pytest.mark.anyio

THOUGHTS = 12
ASK = Request("oracle", (Message("user", "hello length=20"),), Options(temperature=0.0))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(frozen=True, slots=True)
class Dialect:
    """A way to give thoughts back, and a server that takes them so and no other way."""

    prefix: PrefixDialect
    reasoning: ReasoningDialect | None
    prefill: Prefill
    feature: Feature = Feature.REASONING

    def settings(self, **more: Any) -> Settings:
        features = tuple({Feature.USAGE, Feature.REASONING, self.feature})
        return Settings(reasoning=THOUGHTS, prefill=self.prefill, features=features, **more)


DEEPSEEK = Dialect(PrefixDialect.PREFIX_FLAG, ReasoningDialect.FIELD, Prefill.PREFIX)
LLAMACPP = Dialect(
    PrefixDialect.TRAILING_ASSISTANT,
    ReasoningDialect.NAMED,
    Prefill.CONTINUE,
    Feature.NAMED_REASONING,
)
VLLM = Dialect(
    PrefixDialect.CONTINUE_FINAL_MESSAGE, ReasoningDialect.BEHIND, Prefill.CONTINUE_FINAL_MESSAGE
)
DIALECTS = {"deepseek": DEEPSEEK, "llamacpp": LLAMACPP, "vllm": VLLM}


@asynccontextmanager
async def back_end(server: OracleServer, dialect: Dialect, **known: Any) -> AsyncIterator[Any]:
    known = {"prefix_keeps_blanks": True, "reasoning": dialect.reasoning, **known}
    profile = Profile(name="test", base_url=server.base_url, prefix=dialect.prefix, **known)
    made = ChatBackEnd(profile)
    try:
        yield made
    finally:
        await made.aclose()


async def reply(made: ChatBackEnd, **how: Any) -> list[Chunk]:
    async with made.open(ASK, **how) as stream:
        return [chunk async for chunk in stream]


def said(chunks: Sequence[Chunk]) -> tuple[str, str]:
    """Return the thoughts and the content."""
    texts = dict.fromkeys(Channel, "")
    for chunk in chunks:
        texts[chunk.channel] += chunk.text
    return texts[Channel.REASONING], texts[Channel.CONTENT]


def cuts(whole: Sequence[Chunk]) -> Iterator[tuple[Prefix, str]]:
    """Yield every beginning of a reply, with the name of the place it ends in."""
    for count in range(1, len(whole)):
        thoughts, text = said(whole[:count])
        if not thoughts:
            continue
        border = (thoughts, text) == (said(whole)[0], "")
        yield Prefix(text, thoughts), "behind" if text else "border" if border else "within"


@pytest.mark.parametrize("size", [1, (1, 4)])
@pytest.mark.parametrize("name", DIALECTS)
async def test_a_cut_anywhere(name: str, size: int | tuple[int, int]) -> None:
    dialect = DIALECTS[name]
    within = dialect.reasoning is not ReasoningDialect.BEHIND
    with OracleServer(dialect.settings(tokens_per_chunk=size)) as server:
        async with back_end(server, dialect) as made:
            whole = await reply(made)
            thoughts, text = said(whole)
            assert thoughts
            seen = set()
            for prefix, place in cuts(whole):
                asked = server.counters.requests
                if place != "behind" and not within:
                    with pytest.raises(StrategyUnavailable, match="within"):
                        await reply(made, after=prefix, by=Strategy.PREFIX)
                    assert server.counters.requests == asked  # nothing was paid for
                    continue
                more, rest = said(await reply(made, after=prefix, by=Strategy.PREFIX))
                assert (prefix.reasoning + more, prefix.text + rest) == (thoughts, text)
                seen.add(place)
    assert seen == ({"within", "border", "behind"} if within else {"behind"})


@pytest.mark.parametrize("name", DIALECTS)
async def test_thoughts_left_out_are_another_reply(name: str) -> None:
    """The negative control: without them the server writes something else."""
    dialect = DIALECTS[name]
    with OracleServer(dialect.settings()) as server:
        async with back_end(server, dialect) as made:
            whole = await reply(made)
            thoughts, text = said(whole)
            half = Prefix(said(whole[: THOUGHTS + 8])[1])
            assert half.text
            _, rest = said(await reply(made, after=half, by=Strategy.PREFIX))
            assert half.text + rest != text
            right = Prefix(half.text, thoughts)
            _, rest = said(await reply(made, after=right, by=Strategy.PREFIX))
            assert half.text + rest == text


async def test_a_running_total_says_nothing_behind_thoughts() -> None:
    """The token that ends them is in it, too, and comes alone where they were complete."""
    told = TokenCounts.USAGE
    settings = replace(DEEPSEEK.settings(), features=(Feature.CONTINUOUS_USAGE, Feature.USAGE,
                                                      Feature.REASONING))  # fmt: skip
    with OracleServer(settings) as server:
        async with back_end(server, DEEPSEEK, token_counts=told) as made:
            whole = await reply(made)
            thoughts, text = said(whole)
            rest = await reply(made, after=Prefix("", thoughts), by=Strategy.PREFIX)
    assert said(rest) == ("", text)
    assert {chunk.tokens for chunk in rest if chunk.text} == {None}


async def test_a_server_that_is_not_known_to_take_them_is_not_asked() -> None:
    dialect = Dialect(PrefixDialect.TRAILING_ASSISTANT, None, Prefill.CONTINUE)
    with OracleServer(dialect.settings()) as server:
        async with back_end(server, dialect) as made:
            with pytest.raises(StrategyUnavailable, match="reasoning back"):
                await reply(made, after=Prefix("a", "hm"), by=Strategy.PREFIX)
        assert server.counters.requests == 0


async def test_blanks_at_the_end_of_thoughts_are_not_sent_and_not_doubled() -> None:
    """The template trims them; the server writes them again, or has not gone on with this reply."""
    with OracleServer(DEEPSEEK.settings()) as server:
        async with back_end(server, DEEPSEEK, prefix_keeps_blanks=False) as made:
            whole = await reply(made)
            thoughts, text = said(whole)
            outcomes = set()
            for prefix, place in cuts(whole):
                if place == "behind" or prefix.reasoning == prefix.reasoning.rstrip():
                    continue
                try:
                    more, rest = said(await reply(made, after=prefix, by=Strategy.PREFIX))
                except StrategyUnavailable:
                    outcomes.add("told")
                else:
                    assert (prefix.reasoning + more, rest) == (thoughts, text)
                    outcomes.add("gone on")
                sent = server.requests[-1].body["messages"][-1]
                assert sent["reasoning_content"] == prefix.reasoning.rstrip()
    assert outcomes <= {"told", "gone on"}


def body(name: str, prefix: Prefix) -> dict[str, Any]:
    profile = PRESETS[name]
    return chat_body(profile, ASK, usage=False, after=beginning(profile, prefix))


def test_what_presets_send() -> None:
    for name, flag in (("deepseek", True), ("vllm", None), ("llamacpp", None)):
        last = body(name, Prefix("so", "hm"))["messages"][-1]
        assert last == {
            "role": "assistant",
            "content": "so",
            "reasoning_content": "hm",
            **({"prefix": flag} if flag else {}),
        }
    named = {"continue_final_message": "reasoning_content", "add_generation_prompt": False}
    assert named.items() <= body("llamacpp", Prefix("", "hm")).items()
    named["continue_final_message"] = "content"
    assert named.items() <= body("llamacpp", Prefix("so", "hm")).items()
    assert "continue_final_message" not in body("llamacpp", Prefix("so"))
    with pytest.raises(StrategyUnavailable):
        body("vllm", Prefix("", "hm"))


def test_blanks_belong_to_where_the_reply_goes_on() -> None:
    profile = PRESETS["deepseek"]
    assert beginning(profile, Prefix("so \n", "hm ")) == Beginning("so", "hm ", " \n")
    assert beginning(profile, Prefix("", "hm ")) == Beginning("", "hm", " ")
