"""The strict servers that stand for the back ends known by name, one for each protocol.

What each does is what its maker documents or its source shows; see docs/backends.md for what
was only read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmctl.backends.chat import ChatBackEnd
from llmctl.backends.completions import CompletionsBackEnd
from llmctl.backends.responses import ResponsesBackEnd
from llmctl.ports import BackEnd
from llmctl.profiles import PRESETS, Api, Profile
from tests.support.oracle_responses import Keeping
from tests.support.oracle_server import OracleServer, Settings
from tests.support.oracle_wire import GEMINI_REJECTION, Feature, Prefill

__all__ = ["DIALECTS", "Dialect", "back_end", "profile_at"]

_USAGE = (Feature.USAGE,)
_IDS = (Feature.USAGE, Feature.TOKEN_IDS, Feature.TOKEN_PROMPTS)
_TEXTS = (Feature.USAGE, Feature.COMPLETIONS)
_FLAGS = Prefill.CONTINUE_FINAL_MESSAGE


@dataclass(frozen=True, slots=True)
class Dialect:
    """A back end known by name, as it speaks one protocol.

    Attributes:
        name: of the preset.
        api: the protocol.
        server: what stands for it.
    """

    name: str
    api: Api
    server: Settings


def _chat(**does: object) -> Settings:
    return Settings(**{"features": _USAGE, **does})  # type: ignore[arg-type]


_CHAT: dict[str, Settings] = {
    "openai": _chat(prefill=Prefill.IGNORED, features=(*_USAGE, Feature.LOGPROBS)),
    "anthropic": _chat(prefill=Prefill.REJECTED),
    "gemini": _chat(prefill=Prefill.REJECTED, rejection=GEMINI_REJECTION),
    "openrouter": _chat(prefill=Prefill.IGNORED),
    "deepseek": _chat(prefill=Prefill.PREFIX),
    "mistral": _chat(prefill=Prefill.PREFIX, echo=True, seed_field="random_seed"),
    "groq": _chat(),
    "ollama": _chat(prefill=Prefill.IGNORED),
    "llamacpp": _chat(features=(*_USAGE, Feature.TIMINGS)),
    "vllm": _chat(prefill=_FLAGS, features=_IDS),
    "sglang": _chat(prefill=_FLAGS),
    "lmstudio": _chat(prefill=Prefill.IGNORED),
}
_COMPLETIONS: dict[str, Settings] = {
    "openai": Settings(features=_TEXTS),
    "ollama": Settings(features=_TEXTS),
    "llamacpp": Settings(features=(*_TEXTS, Feature.TIMINGS)),
    "vllm": Settings(features=_IDS),
    "sglang": Settings(features=_IDS, null_bound=False, spelled_as="text"),
    "lmstudio": Settings(features=_TEXTS),
}
_RESPONSES: dict[str, Keeping] = {
    "openai": Keeping.KEPT,
    "llamacpp": Keeping.IGNORED,
    "vllm": Keeping.KEPT,  # with VLLM_ENABLE_RESPONSES_API_STORE=1
}

DIALECTS: dict[tuple[str, Api], Dialect] = {
    **{(name, Api.CHAT): Dialect(name, Api.CHAT, does) for name, does in _CHAT.items()},
    **{
        (name, Api.COMPLETIONS): Dialect(name, Api.COMPLETIONS, does)
        for name, does in _COMPLETIONS.items()
    },
    **{
        (name, Api.RESPONSES): Dialect(
            name, Api.RESPONSES, Settings(features=(Feature.RESPONSES,), keeping=does)
        )
        for name, does in _RESPONSES.items()
    },
}


def profile_at(dialect: Dialect, server: OracleServer) -> Profile:
    """Return the preset with a server of ours in place of its maker's."""
    known = PRESETS[dialect.name]
    beta = None if known.prefix_base_url is None else server.base_url
    return replace(known, base_url=server.base_url, prefix_base_url=beta, api=dialect.api)


def back_end(dialect: Dialect, server: OracleServer) -> BackEnd:
    """Return the back end that speaks with it."""
    profile = profile_at(dialect, server)
    match dialect.api:
        case Api.COMPLETIONS:
            return CompletionsBackEnd(profile)
        case Api.RESPONSES:
            return ResponsesBackEnd(profile, poll_s=0.002)
    return ChatBackEnd(profile)
