"""OpenAI-compatible chat completions, streamed.

The `openai` package keeps what it is good at: addresses, authentication, connections,
typed errors. What it is slow at, one validated object a token, is left out: the body is
read as bytes and goes through three pure stages, each in its own file:

    bytes ─▶ SseDecoder ─▶ ReplyReader ─▶ Seam ─▶ Chunk

Retries and time limits are the session's business, so the client has none. Nothing is
imported before the first request (``import openai`` takes half a second), and then in a
thread, so that keys keep working meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from llmctl.backends.chat_body import chat_body
from llmctl.backends.chat_reply import ErrorEvent, ReplyReader
from llmctl.backends.seam import Seam
from llmctl.backends.sse import ServerSentEvent, SseDecoder
from llmctl.backends.token_counts import TokenCounter
from llmctl.conversation import Prefix, Request
from llmctl.errors import LlmctlError, Refused, StrategyUnavailable
from llmctl.events import Chunk, Guarantee, Strategy
from llmctl.profiles import Profile, TokenCounts

if TYPE_CHECKING:
    import httpx2

    from llmctl.backends.openai_client import OpenAiClient

_EPILOGUE_S = 1.0
"""How long the usage may take to come after the end of the reply."""
_DRAIN_S = 0.1
"""How long the end of the body may take to come, for the sake of a connection."""
_CLOSE_S = 2.0
"""How long closing may take."""
_NO_CONDITIONS: Mapping[str, Any] = MappingProxyType({})


class ChatBackEnd:
    """A server that speaks chat completions.

    Attributes:
        name: the profile's name.
        api: "chat".
        supports: the strategies known to work there, with the best each can earn. A
            replay is never more than token-exact: a server tells nothing about itself
            that could prove more.
        accepts_seed: a seed is known not to be refused.

    Args:
        profile: what is known about the server.
        key: the API key; None sends none.
    """

    api = "chat"

    def __init__(self, profile: Profile, *, key: str | None = None) -> None:
        self.name = profile.name
        self.accepts_seed = profile.accepts_seed
        self.supports = _supported(profile)
        self._profile = profile
        self._key = key
        self._usage = profile.usage_in_stream
        self._client: OpenAiClient | None = None
        self._connecting = anyio.Lock()

    async def prepare(self) -> None:
        """Load and set up the client now, so that the first request need not wait for it.

        Raises:
            LlmctlError: the address, the key or the proxy settings can't be used.
        """
        await self._connected()

    @asynccontextmanager
    async def open(
        self,
        request: Request,
        *,
        again: Mapping[str, Any] | None = None,  # noqa: ARG002  (a server restores nothing)
        after: Prefix | None = None,
        by: Strategy | None = None,
        saved: Mapping[str, Any] | None = None,  # noqa: ARG002  (nor does it keep anything)
    ) -> AsyncGenerator[ChatStream]:
        """Send a request; leaving closes the connection, which ends the generation.

        Args:
            request: what to ask.
            again: not used; the port has it.
            after: what the reply has already.
            by: None for a fresh reply, `Strategy.REPLAY` for the same request once more,
                `Strategy.PREFIX` for what follows ``after``.
            saved: not used; the port has it.

        Raises:
            StrategyUnavailable: the server is not known to go on this way.
            LlmctlError: the request was not accepted; see `llmctl.errors`.
        """
        sent, blanks = self._split(after, by)
        client = await self._connected()
        response = await self._ask(client, request, sent)
        stream = ChatStream(response, client, self._reader(request), self._seams(sent, blanks))
        try:
            stream.check()
            yield stream
        finally:
            await stream.aclose()

    async def aclose(self) -> None:
        """Close what connections are still open."""
        if self._client is not None:
            with anyio.move_on_after(_CLOSE_S, shield=True):
                await self._client.aclose()

    async def _connected(self) -> OpenAiClient:
        async with self._connecting:
            if self._client is None:
                self._client = await to_thread.run_sync(_client, self._profile, self._key)
        return self._client

    def _split(self, after: Prefix | None, by: Strategy | None) -> tuple[str, str]:
        """Return the beginning of the reply to send, and the blanks that were cut off it."""
        if by is None or by is Strategy.REPLAY:
            return "", ""
        if by is not Strategy.PREFIX or self._profile.prefix is None:
            raise StrategyUnavailable(f"{self.name} is not known to go on by {by}.")
        if after is None or not after.text:
            raise StrategyUnavailable("There is no text yet to go on behind.")
        sent = after.text if self._profile.prefix_keeps_blanks else after.text.rstrip()
        return sent, after.text[len(sent) :]

    async def _ask(self, client: OpenAiClient, request: Request, sent: str) -> httpx2.Response:
        """Post the request; one that is refused for asking for the usage is sent without."""
        base_url = self._profile.prefix_base_url if sent else None
        usage = self._usage
        try:
            body = chat_body(self._profile, request, usage=usage, after=sent)
            return await client.post("chat/completions", body, base_url=base_url)
        except Refused as refusal:
            if not usage or not _names_usage(refusal):
                raise
        self._usage = False
        body = chat_body(self._profile, request, usage=False, after=sent)
        return await client.post("chat/completions", body, base_url=base_url)

    def _reader(self, request: Request) -> ReplyReader:
        return ReplyReader(
            TokenCounter(
                trusts_usage=self._profile.token_counts is TokenCounts.USAGE,
                in_step=not request.options.stop,
            )
        )

    def _seams(self, sent: str, blanks: str) -> list[Seam]:
        echo = [Seam(sent, required=False)] if sent and self._profile.prefix_echoed else []
        return echo + ([Seam(blanks, required=True)] if blanks else [])


class ChatStream:
    """The reply to one request, as it arrives; `ChatBackEnd.open` makes them.

    Attributes:
        conditions: nothing; a server tells nothing that a later `exact` could rest on.
    """

    conditions = _NO_CONDITIONS

    def __init__(
        self,
        response: httpx2.Response,
        client: OpenAiClient,
        reader: ReplyReader,
        seams: list[Seam],
    ) -> None:
        self._response = response
        self._client = client
        self._explain = client.explain
        self._reader = reader
        self._seams = seams
        self._decoder = SseDecoder()
        self._content_type = response.headers.get("content-type", "").lower()
        streams = "json" not in self._content_type
        self._reads = response.aiter_bytes() if streams else _as_one_event(response)
        self._ready: deque[Chunk] = deque()
        self._error: Exception | None = None
        self._over = False

    def __aiter__(self) -> AsyncIterator[Chunk]:
        """Return the chunks; the last one has the finish reason."""
        return self

    async def __anext__(self) -> Chunk:
        """Return the next chunk.

        Raises:
            Disconnected: the stream ended before the reply did.
            LlmctlError: the server ended the reply with an error.
        """
        while not self._ready:
            if self._error is not None:
                raise self._error
            if self._over:
                raise StopAsyncIteration
            await self._read()
        return self._ready.popleft()

    def check(self) -> None:
        """See that the answer is a reply at all.

        Raises:
            Refused: it is a web page.
        """
        if "html" in self._content_type:
            raise self._explain.garbage(self._content_type)

    def hold(self) -> bool:
        """Return False: a server can't be held in place."""
        return False

    def release(self) -> None:
        """Do nothing; the port has it."""

    async def save(self) -> None:
        """Return None: a server keeps no state for us."""

    async def aclose(self) -> None:
        """Close the connection, or leave it to the next request if the reply was read up."""
        with anyio.move_on_after(_CLOSE_S, shield=True):
            try:
                if self._reader.done:
                    await self._drain()
            finally:
                await self._reads.aclose()
                await self._response.aclose()

    async def _read(self) -> None:
        """Take what the next read brings."""
        data = await self._next_bytes()
        try:
            if data is None:
                self._end()
            else:
                self._take(data)
        except LlmctlError as error:
            self._error, self._over = error, True

    async def _next_bytes(self) -> bytes | None:
        """Return the next bytes; None when there are no more, or none worth waiting for."""
        limit_s = _EPILOGUE_S if self._reader.ended else float("inf")
        with anyio.move_on_after(limit_s):
            try:
                return await anext(self._reads, None)
            except self._client.broken_stream as error:
                if not self._reader.ended:
                    raise self._explain.error(error) from self._explain.cause(error)
        return None

    def _take(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            self._event(event)
            if self._reader.done:
                self._end()
                return

    def _event(self, event: ServerSentEvent) -> None:
        try:
            for chunk in self._reader.read(event.data, event.type):
                self._put(chunk)
        except ErrorEvent as error:
            raise self._explain.event(error.body) from None
        except ValueError as error:
            raise self._explain.garbage(self._content_type) from error

    def _end(self) -> None:
        """Say that the reply is over, or why it is not whole.

        Raises:
            LlmctlError: it is not whole.
        """
        if not self._reader.ended:
            raise self._explain.lost()
        if error := self._explain.finish(self._reader.finish_reason or ""):
            raise error
        for chunk in self._reader.last():
            self._put(chunk)
        self._over = True

    def _put(self, chunk: Chunk) -> None:
        chunks = [chunk]
        for seam in self._seams:
            chunks = [rest for held in chunks for rest in seam.feed(held)]
        self._ready.extend(chunks)

    async def _drain(self) -> None:
        with anyio.move_on_after(_DRAIN_S):
            try:
                async for _ in self._reads:
                    pass
            except self._client.broken_stream:
                return  # the reply is whole; only the connection is not kept


async def _as_one_event(response: httpx2.Response) -> AsyncGenerator[bytes]:
    """Yield a whole JSON answer as the only event of a stream (JSON has no need of newlines)."""
    body = await response.aread()
    yield b"data: " + b" ".join(body.splitlines()) + b"\n\n"


def _client(profile: Profile, key: str | None) -> OpenAiClient:
    from llmctl.backends.openai_client import OpenAiClient  # noqa: PLC0415  (takes 0.5 s)

    return OpenAiClient(profile, key)


def _supported(profile: Profile) -> Mapping[Strategy, Guarantee]:
    supported = {}
    if profile.accepts_seed:
        supported[Strategy.REPLAY] = Guarantee.TOKEN
    if profile.prefix is not None:
        supported[Strategy.PREFIX] = Guarantee.TEXT
    return supported | {Strategy.INSTRUCT: Guarantee.BEST_EFFORT}


def _names_usage(refusal: Refused) -> bool:
    return "stream_options" in refusal.message or "include_usage" in refusal.message
