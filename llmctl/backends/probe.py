"""Find out what a server and its model really do, with a few tiny replies.

Servers accept fields that they ignore, and what they do with the beginning of a message
depends on the model's template. So they are asked, and believed only where the replies show
it (`llmctl.backends.probe_answers`). By chat completions, in order:

1. a first reply, with every field that may tell tokens; what is refused by name is left out;
2. the second half of that reply, behind the ids of its first half where ids were told;
3. the same behind its text, in one dialect after the other;
4. the same with blanks behind the first half: are they counted, is the prefix repeated?

That is at most seven replies of at most eight tokens at temperature 0; refusals cost none.
What program answers is asked before, at the addresses where the known ones tell it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from llmctl.backends.chat_body import Beginning, chat_body
from llmctl.backends.chat_stream import CLOSE_S
from llmctl.backends.completion_body import completion_body
from llmctl.backends.late import new_client
from llmctl.backends.probe_answers import (
    BLANKS,
    QUESTION,
    Answer,
    best_count,
    cut,
    is_echo,
    keeps_blanks,
    outcome,
)
from llmctl.backends.probe_completions import CompletionsProbe
from llmctl.backends.probe_reading import read_answer
from llmctl.backends.probe_responses import ResponsesProbe
from llmctl.backends.token_prompt import spelling
from llmctl.capabilities import LLAMA_SERVER, Capabilities, Outcome, Server
from llmctl.conversation import Message, Options, Request
from llmctl.errors import Denied, Overloaded, Refused, StrategyUnavailable
from llmctl.profiles import Api, PrefixDialect, Profile, TokenCounts

if TYPE_CHECKING:
    import httpx2

    from llmctl.backends.openai_client import OpenAiClient

MOST_REPLIES = 7
"""Replies that one probe may ask for."""

_TOKENS = 8
_HALF = 4
_SEED = 7
_NEWER_BOUND = "max_completion_tokens"

_OWN_FIELDS = ("timings_per_token", "return_token_ids", "continuous_usage_stats")
_SHARED_FIELDS = ("logprobs", "seed", "stream_options")
_PLAIN_FIELDS = {"timings_per_token", "return_token_ids", "logprobs"}
"""What is asked of every server, those first that only one kind of server knows."""

_DIALECTS = (
    PrefixDialect.TRAILING_ASSISTANT,
    PrefixDialect.CONTINUE_FINAL_MESSAGE,
    PrefixDialect.PREFIX_FLAG,
    PrefixDialect.PARTIAL_FLAG,
)

_PROGRAMS = (
    (LLAMA_SERVER, "/props", "build_info"),
    ("vLLM", "/version", "version"),
    ("SGLang", "/get_server_info", "version"),
    ("Ollama", "/api/version", "version"),
)
"""Where the known programs tell their version, and under what name."""
_OWNERS = {"llamacpp": 0, "vllm": 1, "sglang": 2, "library": 3}
"""Whom their lists of models name as the owner."""


async def probe(
    profile: Profile,
    model: str,
    *,
    key: str | None = None,
    connect_timeout_s: float | None = None,
    now: Callable[[], float] = time.time,
) -> Capabilities:
    """Ask a server what it can do with a model.

    Args:
        profile: where it is; its dialect, if one is known, is tried first.
        model: its name there.
        key: the API key; None sends none.
        connect_timeout_s: how long a connection may take to come about, in seconds.
        now: seconds since the epoch.

    Raises:
        LlmctlError: it can't be reached, or it refuses even the plainest request.
    """
    async with connected(profile, key, connect_timeout_s) as client:
        server = await identify(client)
        found = await _probe_of(profile, model, client).run()
        return replace(found, server=server, probed=now())


def _probe_of(
    profile: Profile, model: str, client: OpenAiClient
) -> _Probe | CompletionsProbe | ResponsesProbe:
    match profile.api:
        case Api.COMPLETIONS:
            return CompletionsProbe(client, model)
        case Api.RESPONSES:
            return ResponsesProbe(client, model)
    return _Probe(client, profile, model)


@asynccontextmanager
async def connected(
    profile: Profile, key: str | None, connect_timeout_s: float | None
) -> AsyncIterator[OpenAiClient]:
    """Give a client to a few requests.

    Raises:
        LlmctlError: the address, the key or the proxy settings can't be used.
    """
    make = partial(new_client, keeps_connections=False)
    client = await to_thread.run_sync(make, profile, key, connect_timeout_s)
    try:
        yield client
    finally:
        with anyio.move_on_after(CLOSE_S, shield=True):
            await client.aclose()


async def identify(client: OpenAiClient) -> Server:
    """Return what program answers, as far as it tells.

    Raises:
        LlmctlError: nothing answers at all.
    """
    listed = await _fact(client, "models")
    owners = {model.get("owned_by") for model in listed.get("data") or () if "owned_by" in model}
    named = [_PROGRAMS[_OWNERS[owner]] for owner in owners if owner in _OWNERS]
    for kind, path, name in named or _PROGRAMS:
        version = (await _fact(client, path)).get(name)
        if isinstance(version, str):
            return Server(kind, version)
    return Server(named[0][0]) if named else Server()


async def _fact(client: OpenAiClient, path: str) -> Mapping[str, Any]:
    try:
        fact = await client.get(path)
    except (Refused, Overloaded):  # it has no such address, as most have not
        return {}
    return fact if isinstance(fact, Mapping) else {}


@dataclass(slots=True)
class _Probe:
    """The replies asked of one server."""

    client: OpenAiClient
    profile: Profile
    model: str
    replies: int = 0
    asked: list[str] = field(default_factory=lambda: [*_OWN_FIELDS, *_SHARED_FIELDS])
    outcomes: dict[PrefixDialect, Outcome] = field(default_factory=dict)

    async def run(self) -> Capabilities:
        """Ask, and say what the replies show."""
        first = await self._first()
        found = Capabilities(
            server=Server(),
            token_counts=best_count(first.told),
            accepts_seed="seed" in self.asked,
            usage_in_stream=first.prompt_tokens is not None,
            max_tokens_field=self.profile.max_tokens_field,
        )
        parts = cut(first.deltas)
        if parts is not None:
            by_ids = await self._goes_on_by_ids(first, *parts)
            found = await self._going_on(replace(found, token_prompts=by_ids), *parts)
        return replace(found, outcomes=self.outcomes, replies=self.replies)

    async def _first(self) -> Answer:
        """Return a first reply; what the server refuses is not asked for again."""
        while True:
            try:
                return await self._ask(_TOKENS)
            except Denied:
                raise
            except Refused as refusal:
                if not self._give_in(refusal):
                    raise

    def _give_in(self, refusal: Refused) -> bool:
        """Leave out what a refusal is about; say whether anything is left to leave out."""
        if _NEWER_BOUND in refusal.message and self.profile.max_tokens_field != _NEWER_BOUND:
            self.profile = replace(self.profile, max_tokens_field=_NEWER_BOUND)
            return True
        named = next((name for name in self.asked if name in refusal.message), None)
        if named is not None:
            left = [name for name in self.asked if name != named]
        else:
            own = any(name in _OWN_FIELDS for name in self.asked)
            left = [name for name in self.asked if own and name not in _OWN_FIELDS]
        changed, self.asked = left != self.asked, left
        return changed

    async def _going_on(self, found: Capabilities, prefix: str, rest: str) -> Capabilities:
        """Try one dialect after the other until one goes on."""
        for way in dict.fromkeys((self.profile.prefix or _DIALECTS[0], *_DIALECTS)):
            if self.replies + 1 + len(BLANKS) > MOST_REPLIES:
                break
            answer = await self._behind(way, prefix, _HALF)
            if answer is None:
                self.outcomes[way] = Outcome.REFUSES
                continue
            self.outcomes[way] = outcome(prefix, rest, answer.text)
            if self.outcomes[way] is Outcome.ANEW:
                continue
            padded = [await self._behind(way, prefix + blank, 1) for blank in BLANKS]
            if self._holds(way, prefix, padded):
                return replace(
                    found,
                    prefix=way,
                    prefix_echoed=self.outcomes[way] is Outcome.ECHOES,
                    prefix_keeps_blanks=keeps_blanks(answer, padded),
                )
        return found

    def _holds(self, way: PrefixDialect, prefix: str, padded: Sequence[Answer | None]) -> bool:
        """Say whether what looked like a repeated prefix is one, not the same message again."""
        if self.outcomes[way] is Outcome.ECHOES and not any(
            answer is not None and is_echo(prefix, answer.text) for answer in padded
        ):
            self.outcomes[way] = Outcome.ANEW
        return self.outcomes[way] is not Outcome.ANEW

    async def _goes_on_by_ids(self, first: Answer, prefix: str, rest: str) -> bool:
        """Say whether the first half's ids are gone on behind, and seen to be the prompt."""
        if first.prompt_ids is None:
            return False
        options = Options(temperature=0.0, max_tokens=_HALF)
        request = Request(self.model, (), options)
        try:
            half = await spelling(self.client, self.model, first.beginning(prefix))
            prompt = (*first.prompt_ids, *half)
            tells = replace(self.profile, token_counts=TokenCounts.IDS)
            body = completion_body(tells, request, prompt, usage=False)
            answer = await self._read(await self.client.post("completions", body), prompt)
        except (Refused, StrategyUnavailable):
            return False
        return outcome(prefix, rest, answer.text) is Outcome.CONTINUES

    async def _behind(self, way: PrefixDialect, prefix: str, tokens: int) -> Answer | None:
        """Return what is written behind a prefix; None if that is refused."""
        try:
            return await self._ask(tokens, way, prefix)
        except Refused:
            return None

    async def _ask(self, tokens: int, way: PrefixDialect | None = None, after: str = "") -> Answer:
        base_url = self.profile.prefix_base_url if after else None
        body = self._body(tokens, way, after)
        return await self._read(await self.client.post("chat/completions", body, base_url=base_url))

    async def _read(
        self, response: httpx2.Response, prompt: tuple[int, ...] | None = None
    ) -> Answer:
        answer = await read_answer(self.client, response, prompt)
        self.replies += 1
        return answer

    def _body(self, tokens: int, way: PrefixDialect | None, after: str) -> dict[str, Any]:
        """Return what a resume would send, and the fields that are being asked about."""
        extra: dict[str, Any] = {name: True for name in self.asked if name in _PLAIN_FIELDS}
        if "stream_options" in self.asked:
            more = {"continuous_usage_stats"} & set(self.asked)
            extra["stream_options"] = dict.fromkeys(("include_usage", *more), True)
        seed = _SEED if "seed" in self.asked else None
        options = Options(temperature=0.0, seed=seed, max_tokens=tokens, extra=extra)
        request = Request(self.model, (Message("user", QUESTION),), options)
        profile = replace(self.profile, prefix=way, token_counts=None)
        return chat_body(profile, request, usage=False, after=Beginning(after))
