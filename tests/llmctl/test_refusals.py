"""What servers say when they refuse, and what a person is told: one sentence, one hint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmctl.backends.chat import ChatBackEnd
from llmctl.backends.error_bodies import refused_field, refuses_prefix
from llmctl.backends.openai_errors import Explainer
from llmctl.conversation import Message, Options, Request
from llmctl.errors import BelowRequire, PrefixRefused, Refused
from llmctl.profiles import PRESETS, PrefixDialect
from tests.support.cuts import ladder_of, received, whole
from tests.support.oracle_server import Fault, OracleServer, Script, Settings
from tests.support.oracle_wire import ANTHROPIC_REJECTION, GEMINI_REJECTION, Prefill

NO_PREFIX = {
    "anthropic": ANTHROPIC_REJECTION,
    "anthropic, in other words": "Prefilling assistant messages is not supported for this model.",
    "anthropic, thinking": "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, "
    "but found `text`.",
    "gemini": GEMINI_REJECTION,
    "mistral": "Expected last role User or Tool (or Assistant with prefix True) for serving but "
    "got assistant",
    "llama-server": "Assistant response prefill is incompatible with enable_thinking.",
    "llama-server, twice": "Cannot have 2 or more assistant messages at the end of the list.",
    "vllm": "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
    "vllm, a template that trims": "substring not found",
    "vllm, another": "continue_final_message is set but the final message does not appear in the "
    "chat after applying the chat template!",
}
EXTRA = "Extra inputs are not permitted"
FIELDS: dict[str, tuple[Any, str]] = {
    "openai": ("Unsupported parameter: 'stop' is not supported with this model.", "stop"),
    "openai, a value": (
        "Unsupported value: 'temperature' does not support 0.2 with this model.",
        "temperature",
    ),
    "openai, responses": ("Unknown parameter: 'seed'.", "seed"),
    "older": ("Unrecognized request argument supplied: top_p", "top_p"),
    "by param": ({"message": "No.", "param": "response_format"}, "response_format"),
    "by path": ({"message": "No.", "param": "text.format"}, "text"),
    "fastapi": (
        {"detail": [{"loc": ["body", "seed"], "msg": EXTRA}]},
        "seed",
    ),
    "mistral": (
        {"message": {"detail": [{"loc": ["body", "stop"], "msg": EXTRA}]}},
        "stop",
    ),
    "groq": ("'logit_bias' is not supported with this model", "logit_bias"),
    "sglang": ("background=true requires store=true.", ""),
}  # fmt: skip


OPTIONS = {"stop": "--marker", "top_p": "--top-p", "response_format": "--schema",
           "text": "--schema", "logit_bias": None, "": None}  # fmt: skip


@pytest.mark.parametrize("server", NO_PREFIX)
def test_no_prefix(server: str) -> None:
    body = {"message": NO_PREFIX[server], "type": "invalid_request_error"}
    assert refuses_prefix(body)
    told = Explainer("http://x/v1", None).status(400, body, {})
    assert isinstance(told, PrefixRefused)
    assert told.message.startswith("x does not go on behind the beginning of a message: ")
    assert "best-effort" in (told.hint or "")


@pytest.mark.parametrize("server", FIELDS)
def test_a_field_that_is_not_taken(server: str) -> None:
    body, field = FIELDS[server]
    assert (refused_field(body) or "") == field
    assert not refuses_prefix(body)
    told = Explainer("http://x/v1", None).status(400, body, {})
    assert type(told) is Refused
    option = OPTIONS.get(field, f"--{field}")
    hint = told.hint or ""
    assert "--" not in hint if option is None else option in hint


@pytest.mark.parametrize("said", ["No.", "The prompt is empty.", "Invalid value.", "", "<html>"])
def test_other_refusals_are_left_as_they_are(said: str) -> None:
    assert refused_field(said) is None
    assert not refuses_prefix(said)


ASK = Request("oracle", (Message("user", "hello length=20"),), Options(temperature=0.0))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize("said", [ANTHROPIC_REJECTION, GEMINI_REJECTION])
async def test_a_model_that_refuses_a_prefix_leaves_the_reply_below_what_is_required(
    said: str,
) -> None:
    settings = Settings(prefill=Prefill.REJECTED, rejection=said)
    with OracleServer(settings) as server:
        known = replace(
            PRESETS["anthropic"],
            base_url=server.base_url,
            prefix=PrefixDialect.TRAILING_ASSISTANT,
        )
        async with ladder_of(ChatBackEnd(known), ASK) as of:
            chunks = await whole(of)
            with pytest.raises(BelowRequire, match="does not go on behind") as told:
                async with of.go_on(received(chunks[:9]), lambda: None):
                    pass
    assert said[:40] in told.value.message


@pytest.mark.anyio
async def test_a_newer_name_of_the_bound_is_learnt() -> None:
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    with OracleServer() as server:
        server.enqueue(Script(fault=Fault("http", status=400, message=message)))
        known = replace(PRESETS["openrouter"], base_url=server.base_url)
        async with ladder_of(ChatBackEnd(known), ASK.with_options(max_tokens=9)) as of:
            assert (await whole(of))[-1].finish_reason == "length"
        assert server.requests[-1].body["max_completion_tokens"] == 9
