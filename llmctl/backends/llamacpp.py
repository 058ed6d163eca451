"""llama-server by its own endpoints: what is asked, and what may be claimed about it.

The chat endpoint takes text and gives text; ``/completion`` takes and gives token ids. So a
prompt is rendered (``/apply-template``) and cut into tokens (``/tokenize``) first, and a
reply is gone on with

========== ==================================================================================
cursor     the same run, read on from where its connection was lost (``/v1/stream``)
kv         behind the slot's state, saved at the cut (``/slots``, with ``--slot-save-path``)
replay     the same request once more; it pays for the known part again
tokens     behind the reply's own ids
prefix     behind its text, cut into tokens anew
========== ==================================================================================

What can be known of somebody else's server bounds the claims. Its arithmetic repeats only if
the one slot it has is ours alone, so with more slots nothing but the cursor is `exact`. A
replay also needs the run to have begun with nothing in the cache, and ``kv`` a reply that
depends on the tokens before it and nothing else. Both need the very process of then:
``/props`` has a word that every process makes up for itself.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from llmctl.backends.engine_reply import ChatReader, CompletionReader, Reader
from llmctl.backends.engine_request import (
    EMPTY,
    Asked,
    Prompt,
    by_ids,
    by_messages,
    is_greedy,
    must_be_parsed,
    sampler,
    seeded,
)
from llmctl.backends.late import openai_client
from llmctl.backends.llamacpp_stream import LlamaStream
from llmctl.backends.server import CONNECT_TIMEOUT_S
from llmctl.backends.speller import Speller
from llmctl.conversation import Prefix, Request
from llmctl.errors import (
    Denied,
    Disconnected,
    LlmctlError,
    Overloaded,
    Refused,
    StrategyUnavailable,
)
from llmctl.events import Cursor, Guarantee, Strategy
from llmctl.profiles import Profile

if TYPE_CHECKING:
    import httpx2

    from llmctl.backends.openai_client import OpenAiClient

T = TypeVar("T")

END_WAIT_S = 1.0
"""Seconds a cut waits for the server to hear of it."""

_PLAIN_SAMPLER = {
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "dry_multiplier": 0.0,
    "mirostat": 0,
}
"""What a sampler that looks at nothing but the last token's logits has."""

_SAME_EVERYWHERE = "<__media__>"
"""What older builds have in place of the word that every process makes up."""

_SUPPORTS = {
    Strategy.CURSOR: Guarantee.EXACT,
    Strategy.KV: Guarantee.EXACT,
    Strategy.REPLAY: Guarantee.EXACT,
    Strategy.TOKENS: Guarantee.TOKEN,
    Strategy.PREFIX: Guarantee.TEXT,
    Strategy.INSTRUCT: Guarantee.BEST_EFFORT,
}


@dataclass(frozen=True, slots=True)
class _Here:
    """A request as this server would answer it now.

    Attributes:
        server: what it says of itself.
        prompt: the conversation as its template renders it.
        sampler: the options in force.
        parsed: it is asked through the chat endpoint, whose parser finds the reasoning.
    """

    server: Mapping[str, Any]
    prompt: Prompt
    sampler: Mapping[str, Any]
    parsed: bool

    @property
    def conditions(self) -> dict[str, Any]:
        """On what a reply depends, apart from where it starts."""
        return {
            "server": dict(self.server),
            "prompt": self.prompt.as_json(),
            "sampler": dict(self.sampler),
        }

    @property
    def repeats(self) -> bool:
        """Whether the arithmetic is known to repeat: one slot, in one and the same process."""
        return self.server["slots"] == 1 and self.server["process"] is not None

    @property
    def is_plain(self) -> bool:
        """Whether the next token depends on the tokens before it and nothing else."""
        return all(self.sampler.get(name) == value for name, value in _PLAIN_SAMPLER.items())

    def keeps(self, request: Request) -> bool:
        """Whether going on from a saved state would be exact."""
        extra = {k: v for k, v in request.options.extra.items() if k != "cache_prompt"}
        greedy = is_greedy(replace(request.options, extra=extra))
        return self.repeats and self.is_plain and not self.parsed and greedy

    def is_of(self, recorded: Mapping[str, Any]) -> bool:
        """Say whether a reply began with this model and this prompt."""
        server = recorded.get("server") or {}
        same = all(server.get(name) == self.server[name] for name in ("model", "meta"))
        return same and recorded.get("prompt") == self.prompt.as_json()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How a reply, or the rest of one, is asked for.

    Attributes:
        asked: the request.
        cache: what the slot holds may be used.
        cached: how many of the prompt's tokens must come from there; None for any number.
        start: how the turn began, where this goes on from a state of it.
        earned: what a continuation may claim.
    """

    asked: Asked
    cache: bool = True
    cached: int | None = None
    start: object = None
    earned: Guarantee | None = None

    def body(self, model: str) -> dict[str, Any]:
        """Return what is sent."""
        body = {**self.asked.body, "model": model, "cache_prompt": self.cache}
        del body["id_slot"]
        return body

    def proven(self, here: _Here, cached: int) -> dict[str, Any]:
        """Return what is known besides the conditions: its start, its cost, what is earned.

        A start that nobody can bring about again has a name that no other has.
        """
        known = EMPTY if here.repeats and not cached else f"unknown-{secrets.token_hex(8)}"
        earned = {} if self.earned is None else {"earned": str(self.earned)}
        evaluated = len(self.asked.ids) - cached
        return {"start": self.start or known, "evaluated": evaluated, **earned}


class LlamaServer:
    """A llama-server, asked natively; satisfies `llmctl.ports.BackEnd`.

    Attributes:
        name: the profile's name.
        api: "llamacpp".
        supports: the ways to go on, and the best that each can earn.
        accepts_seed: a seed is not refused.
        pays_twice: a replay has what is known of the reply generated again.

    Args:
        profile: where it is.
        key: the API key; None sends none.
        connect_timeout_s: how long a connection may take to come about, in seconds; None
            for ever.
    """

    api = "llamacpp"
    accepts_seed = True
    pays_twice = True
    supports: Mapping[Strategy, Guarantee] = MappingProxyType(_SUPPORTS)

    def __init__(
        self,
        profile: Profile,
        *,
        key: str | None = None,
        connect_timeout_s: float | None = CONNECT_TIMEOUT_S,
    ) -> None:
        self.name = profile.name
        self._profile = profile
        self._root = profile.base_url.rstrip("/").removesuffix("/v1")
        self._client = openai_client(profile, key, connect_timeout_s)
        self._meta: tuple[Any, Any] | None = None
        self._left: set[str] = set()
        self._free: list[str] = []

    async def ready(self) -> None:
        """Load and set up the client, so that the first request need not wait for it.

        Raises:
            LlmctlError: the address, the key or the proxy settings can't be used.
        """
        await self._client.get()

    @asynccontextmanager
    async def open(
        self,
        request: Request,
        *,
        again: Mapping[str, Any] | None = None,
        after: Prefix | None = None,
        by: Strategy | None = None,
        saved: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[LlamaStream]:
        """Ask for a reply, or for the rest of one; see `llmctl.ports.BackEnd.open`.

        Leaving ends the run at the server, unless its connection was lost: then the server
        goes on with it, and the cursor of the last chunk finds it again.

        Raises:
            StrategyUnavailable: this way to go on does not hold here.
            LlmctlError: the request was not accepted; see `llmctl.errors`.
        """
        client = await self._client.get()
        request = seeded(request, again)
        here = await self._here(request)
        if by is Strategy.CURSOR:
            stream = await self._read_on(client, request, here, again or {}, after)
        else:
            way = await self._way(request, here, again or {}, after, by, saved or {})
            await self._end_others(client, after)
            stream = await self._ask_for(client, request, here, way, after)
        try:
            yield stream
        except (Disconnected, Overloaded):
            self._left.add(stream.run)
            await stream.aclose(lost=True)
            raise
        finally:
            await stream.aclose()

    def discard(self, conditions: Mapping[str, Any]) -> None:
        """Note that a saved state's name may be used again: no request removes its file."""
        if isinstance(name := conditions.get("file"), str):
            self._free.append(name)

    async def aclose(self) -> None:
        """Close what connections are still open; lost runs go on, for a later resume."""
        await self._client.aclose()

    # -- what is asked

    async def _here(self, request: Request) -> _Here:
        """Ask the server what it is and what it makes of a request.

        Raises:
            Denied: it is no llama-server.
            LlmctlError: it can't be asked.
        """
        client = await self._client.get()
        try:
            props = await _twice(lambda: client.get(f"{self._root}/props"))
        except Refused as refusal:
            if isinstance(refusal, Denied) and refusal.always:
                raise
            raise self._stranger(client) from refusal
        if not isinstance(props, Mapping) or "default_generation_settings" not in props:
            raise self._stranger(client)
        defaults = props["default_generation_settings"]
        word = props.get("media_marker")
        process = None if word == _SAME_EVERYWHERE else word
        server = {
            "build": props.get("build_info"),
            "model": props.get("model_path"),
            "meta": await self._about(client, process),
            "context": defaults.get("n_ctx"),
            "slots": props.get("total_slots"),
            "process": process,
        }
        return _Here(
            server,
            await self._speller(request.model).prompt(request),
            sampler(defaults.get("params") or {}, request.options),
            must_be_parsed(props.get("chat_template") or "", request.options),
        )

    async def _about(self, client: OpenAiClient, process: str | None) -> object:
        """Return what the server tells about its model; it stays as it is in one process."""
        if self._meta is None or process is None or self._meta[0] != process:
            listed = await _twice(lambda: client.get(f"{self._root}/v1/models"))
            models = listed.get("data") or [{}] if isinstance(listed, Mapping) else [{}]
            self._meta = process, models[0].get("meta")
        return self._meta[1]

    def _stranger(self, client: OpenAiClient) -> Denied:
        return Denied(
            f"{client.explain.server} is no llama-server.",
            "Leave out --api llamacpp, and most servers are understood.",
        )

    async def _way(  # noqa: PLR0913, PLR0917  (what `open` takes)
        self,
        request: Request,
        here: _Here,
        again: Mapping[str, Any],
        after: Prefix | None,
        by: Strategy | None,
        saved: Mapping[str, Any],
    ) -> _Way:
        """Return how the reply, or what follows ``after``, is asked for.

        Raises:
            StrategyUnavailable: this way does not hold here.
        """
        if after is None or by is None or by is Strategy.REPLAY:
            cache = by is None and bool(request.options.extra.get("cache_prompt", True))
            ids = here.prompt.ids
            fresh = by_ids(request.options, ids)
            if here.parsed:
                fresh = by_messages(request, here.prompt, start=None)
            return _Way(asked=fresh, cache=cache)
        if here.parsed:
            if by is not Strategy.PREFIX:
                raise StrategyUnavailable("The tokens of a reply with reasoning are not all known.")
            return _Way(asked=_behind_said(request, here.prompt, after), earned=Guarantee.TEXT)
        if by is Strategy.PREFIX:
            ids = await self._speller(request.model).ids(after.text)
            asked = by_ids(request.options, here.prompt.ids + ids)
            return _Way(asked=asked, earned=Guarantee.TEXT)
        ids = here.prompt.ids + await self._known_ids(request, here, again, after)
        if by is Strategy.TOKENS:
            return _Way(asked=by_ids(request.options, ids), earned=Guarantee.TOKEN)
        await self._restore(request, here, again, saved)
        return _Way(
            asked=by_ids(request.options, ids),
            cached=len(ids) - 1,
            start=saved["start"],
            earned=Guarantee.EXACT,
        )

    async def _known_ids(
        self, request: Request, here: _Here, again: Mapping[str, Any], after: Prefix
    ) -> tuple[int, ...]:
        """Return the reply's own ids, seen to be of this model and to spell its text."""
        if not here.is_of(again):
            raise StrategyUnavailable("The reply began with another model or prompt.")
        if not after.ids:
            raise StrategyUnavailable("The ids of the reply's tokens are not all known.")
        if await self._speller(request.model).text(after.ids) != after.text:
            raise StrategyUnavailable("The reply's text is not that of its tokens.")
        return after.ids

    async def _restore(
        self,
        request: Request,
        here: _Here,
        again: Mapping[str, Any],
        saved: Mapping[str, Any],
    ) -> None:
        """Put the slot into its state at the cut.

        Raises:
            StrategyUnavailable: going on from it would prove nothing, or it is gone.
        """
        if not here.keeps(request):
            raise StrategyUnavailable("The next token depends on more than the tokens before it.")
        began = {**here.conditions, "start": saved.get("start")}
        if saved.get("conditions") != here.conditions or not began.items() <= dict(again).items():
            raise StrategyUnavailable("The saved state belongs to other conditions.")
        try:
            body = {"filename": saved["file"]}
            answer = await self._ask(request.model, "/slots/0?action=restore", body)
        except Refused as refusal:
            raise StrategyUnavailable("The saved state is gone.") from refusal
        if answer.get("n_restored") != saved["tokens"]:
            raise StrategyUnavailable("The saved state is another one by now.")

    def _speller(self, model: str) -> Speller:
        return Speller(partial(self._ask, model))

    async def _ask(self, model: str, path: str, body: Mapping[str, Any]) -> Any:  # noqa: ANN401  (JSON)
        client = await self._client.get()
        asked = {"model": model, **body}
        return await _twice(lambda: client.ask(f"{self._root}{path}", asked))

    # -- what comes

    async def _ask_for(
        self,
        client: OpenAiClient,
        request: Request,
        here: _Here,
        way: _Way,
        after: Prefix | None,
    ) -> LlamaStream:
        spent = 0 if after is None else after.spent
        bound = request.options.max_tokens
        cursor = Cursor(secrets.token_hex(8), 0, None if bound is None else bound + spent)
        url, body = f"{self._root}{way.asked.path}", way.body(request.model)
        header = {"X-Conversation-Id": cursor.run}
        response = await _twice(lambda: client.post(url, body, headers=header))
        stream = self._made_of(client, response, way.asked.reader(), cursor)
        async with _closing(stream):
            cached = await stream.begin()
            if way.cached is not None and cached != way.cached:
                raise StrategyUnavailable(f"{cached} tokens came from the cache, not {way.cached}.")
            self._tell(stream, request, here, way.proven(here, cached))
        return stream

    async def _read_on(
        self,
        client: OpenAiClient,
        request: Request,
        here: _Here,
        again: Mapping[str, Any],
        after: Prefix | None,
    ) -> LlamaStream:
        """Find a run again, and see that it goes on behind what is known.

        Raises:
            StrategyUnavailable: the server has let go of it, or it reads otherwise.
        """
        if after is None or after.cursor is None:
            raise StrategyUnavailable("Nothing says where the run is to be read on.")
        cursor = after.cursor
        url = f"{self._run(cursor.run)}&from={cursor.at}"
        try:
            response = await _twice(lambda: client.read(url))
        except Refused as refusal:
            raise StrategyUnavailable("The server has let go of the run.") from refusal
        limit = None if cursor.bound is None else 0
        reader = ChatReader(limit) if here.parsed else CompletionReader(limit)
        stream = self._made_of(client, response, reader, cursor)
        async with _closing(stream):
            await stream.rejoin(after)
            told = {"start": again.get("start"), "earned": str(Guarantee.EXACT)}
            self._tell(stream, request, here, told)
        self._left.discard(cursor.run)
        return stream

    def _made_of(
        self, client: OpenAiClient, response: httpx2.Response, reader: Reader, cursor: Cursor
    ) -> LlamaStream:
        end = partial(self._end, client, cursor.run)
        return LlamaStream(response, client, reader, cursor, end=end)

    def _tell(
        self, stream: LlamaStream, request: Request, here: _Here, told: Mapping[str, Any]
    ) -> None:
        """Say on what a resume of this stream may build."""
        stream.conditions = {**here.conditions, **told}
        if here.keeps(request):
            stream.keep = partial(self._save, request.model, here.conditions, told["start"])

    async def _save(
        self, model: str, conditions: Mapping[str, Any], start: object
    ) -> Mapping[str, Any] | None:
        """Save the slot's state on the server's disk; None where it has no place for that."""
        name = self._free.pop() if self._free else f"llmctl-{secrets.token_hex(8)}"
        try:
            answer = await self._ask(model, "/slots/0?action=save", {"filename": name})
        except LlmctlError:
            return None
        return {
            "conditions": conditions,
            "start": start,
            "file": name,
            "tokens": answer.get("n_saved"),
        }

    # -- runs that nobody reads any more

    def _run(self, run: str) -> str:
        return f"{self._root}/v1/stream?conv_id={run}"

    async def _end(self, client: OpenAiClient, run: str) -> None:
        """Tell the server to end a run, if it still knows it; not for long.

        An older server knows nothing of runs: there closing the connection ends them.
        """
        with anyio.move_on_after(END_WAIT_S), suppress(LlmctlError):
            await _twice(lambda: client.delete(self._run(run)))

    async def _end_others(self, client: OpenAiClient, after: Prefix | None) -> None:
        """End the runs whose connections were lost: another takes their place."""
        runs, self._left = self._left, set()
        if after is not None and after.cursor is not None:
            runs.add(after.cursor.run)
        for run in runs:
            await self._end(client, run)


def _behind_said(request: Request, prompt: Prompt, after: Prefix) -> Asked:
    """Ask for what follows a reply's beginning by giving it back as a message.

    ``continue_final_message`` names the part that the model goes on with.
    """
    asked = by_messages(request, prompt, start=None)
    said = {"role": "assistant", "content": after.text}
    if after.reasoning:
        said["reasoning_content"] = after.reasoning
    body = {
        **asked.body,
        "messages": [*asked.body["messages"], said],
        "continue_final_message": "content" if after.text else "reasoning_content",
        "add_generation_prompt": False,
    }
    return replace(asked, body=body)


@asynccontextmanager
async def _closing(stream: LlamaStream) -> AsyncIterator[None]:
    """Close a stream that does not become one; leave it open where it does."""
    try:
        yield
    except BaseException:
        await stream.aclose()
        raise


async def _twice(send: Callable[[], Awaitable[T]]) -> T:
    """Send; once more if the server hangs up without a word.

    On a connection that had a stream, llama.cpp's server now and then does.
    """
    try:
        return await send()
    except Disconnected:
        return await send()
