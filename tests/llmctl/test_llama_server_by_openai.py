"""The real llama-server by OpenAI's protocols: what docs/backends.md says was run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from llmctl.backends.completions import CompletionsBackEnd
from llmctl.backends.embedded import Embedded
from llmctl.backends.probe import probe
from llmctl.backends.responses import ResponsesBackEnd
from llmctl.capabilities import Keeping
from llmctl.conversation import Message, Options, Prefix, Request
from llmctl.events import Guarantee
from llmctl.profiles import PRESETS, Api, Profile, TokenCounts
from llmctl.resume.ladder import Ladder
from llmctl.weights import given
from tests.support.cuts import Trial, gone_on, ladder_of, received, whole
from tests.support.engine import STORY, weights_or_skip

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

ASK = Request(
    "local",
    (Message("user", "The three longest rivers are"),),
    Options(temperature=0.0, max_tokens=24),
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def llama_server() -> AsyncIterator[tuple[Profile, str]]:
    """Give the address of the embedded engine's own server, and its secret."""
    made = Embedded(given(weights_or_skip()), home=None)
    try:
        await made.ready()
        url = str(made.engine.facts["url"]).rstrip("/") + "/v1"
        yield replace(PRESETS["llamacpp"], base_url=url), made.engine._secret
    finally:
        await made.aclose()


async def tried(of: Ladder, before: Prefix, full: Prefix) -> Trial:
    """Go on; once more, as a session does, where the server hangs up behind a stream."""
    trial = await gone_on(of, before, full)
    return trial if trial.label is not None else await gone_on(of, before, full)


async def test_what_the_probes_find_and_what_comes_of_it() -> None:
    async with llama_server() as (profile, key):
        found = await probe(replace(profile, api=Api.COMPLETIONS), "local", key=key)
        assert (found.goes_on_by_text, found.token_prompts) == (True, False)
        assert found.token_counts is TokenCounts.TIMINGS
        found = await probe(replace(profile, api=Api.RESPONSES), "local", key=key)
        assert found.background is Keeping.IGNORES
        async with ladder_of(CompletionsBackEnd(profile, key=key), ASK) as of:
            chunks = await whole(of)
            full = received(chunks)
            for count in range(1, len(chunks), 4):
                trial = await tried(of, received(chunks[:count]), full)
                assert trial.label is Guarantee.TEXT
        story = replace(ASK, messages=(Message("user", STORY),))
        stored = story.with_options(extra={"background": True})
        async with ladder_of(ResponsesBackEnd(profile, key=key), stored) as of:
            chunks = await whole(of)
            assert received(chunks).text
            assert received(chunks[:5]).cursor is None
            assert chunks[-1].finish_reason == "length"
