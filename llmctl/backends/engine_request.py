"""What is asked of llama.cpp's server, and on what its answer depends. Pure."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmctl.backends.engine_reply import ChatReader, CompletionReader, Reader
from llmctl.backends.engine_slot import State
from llmctl.conversation import Options, Request
from llmctl.errors import StrategyUnavailable
from llmctl.images import text_alone

EMPTY = "empty"
"""The start of a turn that uses nothing of what the slot holds."""

_COMPLETION = "/completion"
_CHAT = "/v1/chat/completions"
_REASONS = re.compile(r"think|reason|<\|channel")
_CHAT_ONLY = {"tools", "tool_choice", "response_format", "reasoning_format", "reasoning_effort"}
_BOUNDS = ("n_predict", "max_tokens", "max_completion_tokens")
_NOT_CONDITIONS = {*_BOUNDS, "stream", "timings_per_token", "generation_prompt"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation as the model's template renders it."""

    text: str
    ids: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the form that conditions hold."""
        return {"sha256": hashlib.sha256(self.text.encode()).hexdigest(), "tokens": len(self.ids)}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to the engine.

    Attributes:
        path: where it goes.
        body: what goes there.
        ids: the prompt's tokens, as they will be in the slot.
        start: the state that the slot is in; None uses nothing of what it holds.
        cached: how many of them must come from the slot; None for any number.
        earned: what a continuation may claim, for its conditions.
        began: how the turn began, where this goes on from a later state of it.
    """

    path: str
    body: Mapping[str, Any]
    ids: tuple[int, ...]
    start: State | None = None
    cached: int | None = None
    earned: Mapping[str, Any] = field(default_factory=dict)
    began: Mapping[str, Any] | None = None

    def check(self, cached: int) -> None:
        """Compare what came from the slot with what had to.

        Raises:
            StrategyUnavailable: it is something else.
        """
        wanted = 0 if self.start is None else self.cached
        if wanted is not None and cached != wanted:
            raise StrategyUnavailable(f"{cached} tokens came from the cache, not {wanted}.")

    def proven(self, cached: int) -> dict[str, Any]:
        """Return the conditions that hold besides the engine's, prompt's and sampler's."""
        start = EMPTY if self.start is None else self.start.as_json()
        return {"start": start, "cached": cached, **self.earned}

    def origin(self, cached: int) -> Mapping[str, Any]:
        """Return how the turn began: from what state, with how much of it used."""
        if self.began is not None:
            return self.began
        return {name: self.proven(cached)[name] for name in ("start", "cached")}

    def reader(self) -> Reader:
        """Return what makes chunks of the answer."""
        bounds = [self.body[name] for name in _BOUNDS if name in self.body]
        limit = bounds[0] if bounds and isinstance(bounds[0], int) else None
        if self.path == _CHAT:
            return ChatReader(limit, in_step=not self.body.get("stop"))
        return CompletionReader(limit)


def must_be_parsed(template: str, options: Options) -> bool:
    """Say whether a reply needs the engine's parser to tell reasoning from content."""
    return bool(_REASONS.search(template)) or bool(_CHAT_ONLY & options.extra.keys())


def by_ids(
    options: Options,
    ids: tuple[int, ...],
    *,
    start: State | None = None,
    cached: int | None = None,
    earned: Mapping[str, Any] | None = None,
) -> Asked:
    """Ask for what follows these tokens."""
    body = {
        "n_predict": options.max_tokens,
        "json_schema": options.schema,
        **_chosen(options),
        **options.extra,
        "prompt": ids,
        "return_tokens": True,
        **_streamed(start),
    }
    return Asked(_COMPLETION, _given(body), ids, start, cached, earned or {})


def by_messages(request: Request, prompt: Prompt, *, start: State | None) -> Asked:
    """Ask for a reply that the engine's chat parser takes apart."""
    options = request.options
    body = {
        "max_tokens": options.max_tokens,
        "json_schema": options.schema,
        **_chosen(options),
        **options.extra,
        "messages": messages(request),
        **_streamed(start),
    }
    return Asked(_CHAT, _given(body), prompt.ids, start)


def messages(request: Request) -> list[dict[str, str]]:
    """Return the conversation as the engine takes it.

    Raises:
        Refused: an image is in it.
    """
    return [{"role": m.role, "content": text_alone(m, "This engine")} for m in request.messages]


def sampler(defaults: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """Return the sampler's options in force, apart from the bound on the reply's length."""
    chosen = {**_chosen(options), "json_schema": options.schema, **options.extra}
    in_force = {**defaults, **_given(chosen)}
    return {name: value for name, value in in_force.items() if name not in _NOT_CONDITIONS}


def seeded(request: Request, again: Mapping[str, Any] | None) -> Request:
    """Return the request with a seed, the recorded one if it is repeated."""
    if request.options.seed is not None:
        return request
    recorded = None if again is None else again.get("sampler", {}).get("seed")
    return request.with_options(seed=secrets.randbelow(2**31) if recorded is None else recorded)


def is_greedy(options: Options) -> bool:
    """Say whether the next token depends on the tokens before it and nothing else."""
    return options.temperature == 0 and not options.extra and options.schema is None


def _chosen(options: Options) -> dict[str, Any]:
    return {
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
        "stop": list(options.stop) or None,
    }


def _streamed(start: State | None) -> dict[str, Any]:
    """Return the fields that are ours; whoever sets them as an option is not heard."""
    return {
        "stream": True,
        "timings_per_token": True,
        "return_progress": True,
        "id_slot": 0,
        "cache_prompt": start is not None,
    }


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
