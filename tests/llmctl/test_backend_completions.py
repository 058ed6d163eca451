"""Completions for single replies: what is sent, and how replies are gone on with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.backends.completion_body import completion_body, prompt_of
from llmctl.backends.completions import CompletionsBackEnd
from llmctl.cli import main
from llmctl.conversation import Message, Options, Request
from llmctl.errors import Refused
from llmctl.events import Guarantee, Strategy
from llmctl.profiles import PRESETS, Profile, TokenCounts
from llmctl.resume.ladder import Ladder
from tests.support.cuts import climb, gone_on, ladder_of, received, whole
from tests.support.fake_environment import fake_environment
from tests.support.oracle_server import Fault, OracleServer, Script, Settings
from tests.support.oracle_wire import Feature

pytestmark = pytest.mark.anyio

PROMPT = "Once (length=70) upon a time"
ASK = Request("oracle", (Message("user", PROMPT),), Options(temperature=0.0))
PLAIN = Settings(features=(Feature.USAGE, Feature.COMPLETIONS))
VLLM = Settings(
    features=(Feature.USAGE, Feature.TOKEN_IDS, Feature.TOKEN_PROMPTS),
    canonical=False,  # a resume from text would drift
)
SGLANG = replace(VLLM, null_bound=False, spelled_as="text")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def at(server: OracleServer, preset: str = "") -> Profile:
    plain = Profile(name="test", base_url="")
    return replace(PRESETS.get(preset, plain), base_url=server.base_url)


@asynccontextmanager
async def ladder(
    server: OracleServer, preset: str = "", request: Request = ASK, **known: Any
) -> AsyncIterator[Ladder]:
    async with ladder_of(CompletionsBackEnd(at(server, preset)), request, **known) as of:
        yield of


def test_what_was_said_becomes_one_text() -> None:
    said = [("system", "S"), ("user", "one"), ("assistant", " two"), ("user", "three")]
    assert prompt_of(Message(*each) for each in said) == "S\n\none two\n\nthree"
    assert prompt_of([Message("user", " as it is\n")]) == " as it is\n"


def test_the_body() -> None:
    options = Options(0.5, 0.9, 7, None, ("END",), extra={"top_k": 3})
    request = Request("m", ASK.messages, options)
    chosen = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["END"], "top_k": 3}
    common = {"model": "m", "prompt": "Hi", "stream": True, **chosen}
    usage = {"stream_options": {"include_usage": True}}
    plain = Profile(name="x", base_url="http://x/v1", max_tokens_field="max_completion_tokens")
    body = completion_body(plain, request, "Hi", usage=True)
    assert body == {**common, **usage, "max_tokens": None}
    assert "max_tokens" not in completion_body(plain, request, "Hi", usage=True, unbounded=False)
    bounded = request.with_options(max_tokens=9)
    assert completion_body(plain, bounded, "Hi", usage=False) == {**common, "max_tokens": 9}
    ids = replace(plain, token_counts=TokenCounts.IDS)
    assert completion_body(ids, request, (1, 2), usage=False)["return_token_ids"] is True
    spelled = replace(plain, token_counts=TokenCounts.LOGPROBS)
    assert "logprobs" not in completion_body(spelled, request, "Hi", usage=False)


@pytest.mark.parametrize(
    ("preset", "settings", "label"),
    [("", PLAIN, "text"), ("vllm", VLLM, "token"), ("sglang", SGLANG, "token")],
)
async def test_every_cut(preset: str, settings: Settings, label: str) -> None:
    bounded = ASK.with_options(max_tokens=64)
    with OracleServer(settings) as server:
        async with ladder(server, preset, bounded) as of:
            trials = [trial async for trial in climb(of)]
        full = server.expected_completion(PROMPT)
    assert len(trials) > 40
    for trial in trials:
        assert trial.rest is not None
        assert trial.before.text + trial.rest.text == full
        assert trial.label == label


async def test_a_text_prompt_is_gone_on_behind_as_it_stands() -> None:
    with OracleServer(PLAIN) as server:
        async with ladder(server) as of:
            chunks = await whole(of)
            before = received(chunks[:9])
            trial = await gone_on(of, before, received(chunks))
            assert trial.strategy is Strategy.PREFIX
            assert server.requests[-1].body["prompt"] == PROMPT + before.text


@pytest.mark.parametrize(("null_bound", "asked"), [(True, 1), (False, 2)])
async def test_where_nobody_set_a_bound(asked: int, *, null_bound: bool) -> None:
    with OracleServer(replace(PLAIN, null_bound=null_bound)) as server:
        async with ladder(server) as of:
            count = len(await whole(of))
            assert server.counters.requests == asked
            await whole(of)
            assert server.counters.requests == asked + 1
    assert (count > 30) is null_bound  # else the server's own bound, 16


async def test_a_server_that_tells_no_ids_after_all() -> None:
    with OracleServer(replace(PLAIN, strict=False)) as server:
        async with ladder(server, "vllm") as of:
            chunks = await whole(of)
            assert of.conditions == {}
            trial = await gone_on(of, received(chunks[:9]), received(chunks))
            assert trial.label is Guarantee.TEXT


async def test_a_server_that_refuses_to_tell_ids() -> None:
    with OracleServer(PLAIN) as server:
        made = CompletionsBackEnd(at(server, "vllm"))
        assert Strategy.TOKENS in made.supports
        async with ladder_of(made, ASK) as of:
            assert await whole(of)
        assert made.supports == {Strategy.PREFIX: Guarantee.TEXT}


async def test_a_server_that_shortens_the_prompt_is_not_believed() -> None:
    with OracleServer(replace(VLLM, truncates=1)) as server:
        async with ladder(server, "vllm", require=Guarantee.TOKEN) as of:
            chunks = await whole(of)
            assert (await gone_on(of, received(chunks[:9]), received(chunks))).rest is None


async def test_a_server_without_completions() -> None:
    with OracleServer() as server:
        async with ladder(server) as of:
            with pytest.raises(Refused, match="Not Found"):
                await whole(of)


def test_from_the_command_line(tmp_path: Path) -> None:
    with OracleServer(replace(VLLM, delay_s=0.002)) as server, fake_environment(tmp_path) as fake:
        where = ("--base-url", server.base_url, "--api", "completions", "-m", "oracle")
        asked = ("run", "-n", *where, "--temperature", "0")
        assert main((*asked, "--pause-after", "9", PROMPT), fake.env) == 5
        assert main(("resume",), fake.env) == 0
        assert "(prefix, text)" in fake.err
        assert server.requests[-1].path == "/v1/completions"
        server.enqueue(Script(fault=Fault("cut", after_tokens=12)))
        assert main((*asked, "--json", PROMPT), fake.env) == 0
        assert '"api":"completions"' in fake.out.replace(" ", "")
