"""Golden transcripts: what each back end known by name is sent, as its maker documents it.

The bodies are those that a strict server of that dialect received, not those that we meant to
send.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmctl.conversation import Message, Options, Request
from llmctl.events import Strategy
from llmctl.ports import BackEnd
from llmctl.profiles import PRESETS, Api
from tests.support.cuts import gone_on, ladder_of, received, whole
from tests.support.dialects import DIALECTS, Dialect, back_end
from tests.support.oracle_server import OracleServer

pytestmark = pytest.mark.anyio

CHOSEN = Options(temperature=0.5, seed=7, max_tokens=99, stop=("zz",))
QUESTION = "Hello length=40 there"
USER = {"role": "user", "content": QUESTION}
COMMON = {"model": "oracle", "stream": True, "temperature": 0.5, "stop": ["zz"]}
USAGE = {"stream_options": {"include_usage": True}}
BOUND = {"max_tokens": 99}
SEED = {"seed": 7}
TRAILING: dict[str, Any] = {}
PREFIX = {"prefix": True}
FLAGS = {"continue_final_message": True, "add_generation_prompt": False}

# The fields besides the common ones; what marks the message that is gone on with; the fields
# that go with it. None where nothing is known to go on.
CHAT: dict[str, tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]] = {
    "openai": ({**USAGE, **SEED, "max_completion_tokens": 99}, None, {}),
    "anthropic": ({**USAGE, **SEED, **BOUND}, None, {}),
    "gemini": ({**USAGE, **SEED, **BOUND}, None, {}),
    "openrouter": ({**USAGE, **SEED, **BOUND}, None, {}),
    "deepseek": ({**USAGE, **SEED, **BOUND}, PREFIX, {}),
    "mistral": ({**BOUND, "random_seed": 7}, PREFIX, {}),
    "groq": ({**USAGE, **SEED, **BOUND}, TRAILING, {}),
    "ollama": ({**USAGE, **SEED, **BOUND}, None, {}),
    "llamacpp": ({**USAGE, **SEED, **BOUND, "timings_per_token": True}, TRAILING, {}),
    "vllm": ({**USAGE, **SEED, **BOUND, "return_token_ids": True}, TRAILING, FLAGS),
    "sglang": ({**USAGE, **SEED, **BOUND}, TRAILING, FLAGS),
    "lmstudio": ({**USAGE, **SEED, **BOUND}, None, {}),
}
COMPLETIONS: dict[str, dict[str, Any]] = {
    "openai": {},
    "ollama": {},
    "llamacpp": {"timings_per_token": True},
    "vllm": {"return_token_ids": True},
    "sglang": {"return_token_ids": True},
    "lmstudio": {},
}
RESPONSES = {"openai": True, "llamacpp": False, "vllm": True}  # kept in the background


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_every_preset_has_its_bodies() -> None:
    assert CHAT.keys() == PRESETS.keys()
    spoken = {(name, api) for name, api in DIALECTS if name in PRESETS}
    assert spoken == (
        {(name, Api.CHAT) for name in CHAT}
        | {(name, Api.COMPLETIONS) for name in COMPLETIONS}
        | {(name, Api.RESPONSES) for name in RESPONSES}
    )


async def sent(dialect: Dialect, request: Request, *, more: Strategy | None = None) -> list[Any]:
    """Ask, go on behind the ninth chunk, and return what the server received."""
    with OracleServer(dialect.server) as server:
        made = back_end(dialect, server)
        if more is not None:
            made = _only(made, more)
        async with ladder_of(made, request) as of:
            chunks = await whole(of)
            await gone_on(of, received(chunks[:9]), received(chunks))
        return [(record.method, record.path, record.body) for record in server.requests]


def _only(made: BackEnd, way: Strategy) -> BackEnd:
    setattr(made, "supports", {way: made.supports[way]})  # noqa: B010  (nothing else is tried)
    return made


def asking(**changes: Any) -> Request:
    return Request("oracle", (Message("user", QUESTION),), replace(CHOSEN, **changes))


@pytest.mark.parametrize("name", CHAT)
async def test_chat(name: str) -> None:
    fields, mark, flags = CHAT[name]
    way = None if mark is None else Strategy.PREFIX
    fresh, *behind = await sent(DIALECTS[name, Api.CHAT], asking(), more=way)
    assert fresh == ("POST", "/v1/chat/completions", {**COMMON, **fields, "messages": [USER]})
    assert len(behind) == (mark is not None)
    for _, path, body in behind:
        begun = {"role": "assistant", "content": body["messages"][1]["content"], **(mark or {})}
        left = {"max_tokens": body["max_tokens"]}
        assert path == "/v1/chat/completions"
        assert body == {**COMMON, **fields, **flags, **left, "messages": [USER, begun]}
        assert begun["content"]
        assert 0 < body["max_tokens"] < 99


async def test_chat_behind_ids() -> None:
    request = asking(stop=())
    fresh, (method, path, body) = await sent(
        DIALECTS["vllm", Api.CHAT], request, more=Strategy.TOKENS
    )
    assert fresh[1] == "/v1/chat/completions"
    assert (method, path) == ("POST", "/v1/completions")
    assert all(type(token) is int for token in body["prompt"])
    common = {name: value for name, value in COMMON.items() if name != "stop"}
    rest = {"prompt": body["prompt"], "max_tokens": body["max_tokens"], "return_token_ids": True}
    assert 0 < body["max_tokens"] <= 90
    assert body == {**common, **SEED, **USAGE, **rest}


@pytest.mark.parametrize("name", COMPLETIONS)
async def test_completions(name: str) -> None:
    common = {**COMMON, **USAGE, **SEED, **COMPLETIONS[name]}
    dialect = DIALECTS[name, Api.COMPLETIONS]
    fresh, (_, path, body) = await sent(dialect, asking(), more=Strategy.PREFIX)
    assert fresh == ("POST", "/v1/completions", {**common, **BOUND, "prompt": QUESTION})
    assert path == "/v1/completions"
    left = {"prompt": body["prompt"], "max_tokens": body["max_tokens"]}
    assert body == {**common, **left}
    assert body["prompt"].startswith(QUESTION)
    assert len(body["prompt"]) > len(QUESTION)


@pytest.mark.parametrize("name", ["vllm", "sglang"])
async def test_completions_behind_ids(name: str) -> None:
    dialect = DIALECTS[name, Api.COMPLETIONS]
    _, (_, path, body) = await sent(dialect, asking(stop=()), more=Strategy.TOKENS)
    assert path == "/v1/completions"
    assert all(type(token) is int for token in body["prompt"])


@pytest.mark.parametrize("name", RESPONSES)
async def test_responses(name: str) -> None:
    dialect = DIALECTS[name, Api.RESPONSES]
    request = asking(seed=None, stop=())
    body = {
        "model": "oracle",
        "input": [USER],
        "stream": True,
        "temperature": 0.5,
        "max_output_tokens": 99,
    }
    assert await sent(dialect, request) == [("POST", "/v1/responses", body)]
    stored = request.with_options(extra={"background": True})
    fresh, *more = await sent(dialect, stored)
    assert fresh == ("POST", "/v1/responses", {**body, "background": True, "store": True})
    assert bool(more) is RESPONSES[name]
    if more:
        method, path, read = more[0]
        at = path.partition("starting_after=")
        assert (method, read) == ("GET", None)
        assert at[0] == "/v1/responses/resp_0?stream=true&"
        assert int(at[2]) > 4
