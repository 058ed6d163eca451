"""What is sent to each back end known by name, and what docs/backends.md says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llmctl.backends.chat import ChatBackEnd
from llmctl.backends.chat_body import chat_body
from llmctl.conversation import Message, Options, Request
from llmctl.events import Strategy
from llmctl.profiles import PRESETS

DOCS = Path(__file__).parents[2] / "docs" / "backends.md"
ASK = Request(
    "m",
    (Message("user", "Hello"),),
    Options(temperature=0.5, seed=7, max_tokens=9, stop=("END",)),
)
USER = {"role": "user", "content": "Hello"}
PLAIN = {"role": "assistant", "content": "Once"}
COMMON = {"model": "m", "stream": True, "temperature": 0.5, "seed": 7, "stop": ["END"]}
USAGE = {"stream_options": {"include_usage": True}}
BOUND = {"max_tokens": 9}

# What each maker documents: the fields besides the common ones, the message that is gone on
# with, and the fields that go with it.
GOLDEN: dict[str, tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]] = {
    "openai": ({**USAGE, "max_completion_tokens": 9}, None, {}),
    "anthropic": ({**USAGE, **BOUND}, None, {}),
    "gemini": ({**USAGE, **BOUND}, None, {}),
    "openrouter": ({**USAGE, **BOUND}, None, {}),
    "deepseek": ({**USAGE, **BOUND}, {**PLAIN, "prefix": True}, {}),
    "mistral": (BOUND, {**PLAIN, "prefix": True}, {}),
    "groq": ({**USAGE, **BOUND}, PLAIN, {}),
    "ollama": ({**USAGE, **BOUND}, None, {}),
    "llamacpp": ({**USAGE, **BOUND, "timings_per_token": True}, PLAIN, {}),
    "vllm": (
        {**USAGE, **BOUND, "return_token_ids": True},
        PLAIN,
        {"continue_final_message": True, "add_generation_prompt": False},
    ),
    "sglang": (
        {**USAGE, **BOUND},
        PLAIN,
        {"continue_final_message": True, "add_generation_prompt": False},
    ),
    "lmstudio": ({**USAGE, **BOUND}, None, {}),
}


def test_every_preset_has_its_bodies() -> None:
    assert GOLDEN.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", GOLDEN)
def test_bodies(name: str) -> None:
    profile = PRESETS[name]
    fields, message, flags = GOLDEN[name]
    fresh = chat_body(profile, ASK, usage=profile.usage_in_stream)
    assert fresh == {**COMMON, **fields, "messages": [USER]}
    assert (profile.prefix is None) is (message is None)
    if message is not None:
        behind = chat_body(profile, ASK, usage=profile.usage_in_stream, after="Once")
        assert behind == {**COMMON, **fields, **flags, "messages": [USER, message]}


def rows() -> dict[str, tuple[list[str], list[str]]]:
    found = re.findall(r"^\| (\w+) \| ([^|]*) \| ([^|]*) \|", DOCS.read_text(), re.MULTILINE)
    return {name: (_words(ways), _words(labels)) for name, ways, labels in found}


def _words(cell: str) -> list[str]:
    return re.findall("[a-z-]+", cell)


@pytest.mark.parametrize("name", PRESETS)
def test_the_table_in_the_docs_is_what_the_program_does(name: str) -> None:
    supports = dict(ChatBackEnd(PRESETS[name]).supports)
    del supports[Strategy.INSTRUCT]
    assert rows()[name] == ([str(way) for way in supports], [str(v) for v in supports.values()])


def test_the_table_lists_nothing_else() -> None:
    assert rows().keys() - PRESETS.keys() == {"local"}
