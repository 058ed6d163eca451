"""One reply out of a llama-server: bytes off the connection, chunks out, and their places.

The server keeps what a request with ``X-Conversation-Id`` generates in a ring of 4 MiB, and
goes on whether anybody reads or not. A place in it is a number of *bytes of the stream*. So
the stream is cut into its events here, byte for byte, and a chunk's cursor is where the event
begins that it came with: read on from there, that event comes once more, and is compared
with what is known before anything new is shown.

Because the run goes on by itself, a cut has to say that it shall end (``DELETE``); only a
connection that was *lost* leaves it running.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from llmctl.backends.chat_reply import ErrorEvent
from llmctl.backends.chat_stream import CLOSE_S
from llmctl.backends.engine_reply import Reader
from llmctl.backends.sse import SseDecoder
from llmctl.conversation import Prefix
from llmctl.errors import StrategyUnavailable
from llmctl.events import Channel, Chunk, Cursor

if TYPE_CHECKING:
    import httpx2

    from llmctl.backends.openai_client import OpenAiClient

DRAIN_S = 0.1
"""Seconds the end of the body may take to come, for the sake of a connection."""

_EVENT_END = re.compile(rb"\r?\n\r?\n")

Keep = Callable[[], Awaitable[Mapping[str, Any] | None]]


class LlamaStream:
    """A reply that is being generated; satisfies `llmctl.ports.Stream`.

    Attributes:
        conditions: on what a resume may build; known once it has begun.
        keep: saves the slot for ``kv``; None where that would prove nothing.

    Args:
        response: the answer, its body still to be read.
        client: what it came through.
        reader: makes chunks of its events.
        cursor: the run, and where in it the body begins.
        end: tells the server to end the run.
    """

    def __init__(
        self,
        response: httpx2.Response,
        client: OpenAiClient,
        reader: Reader,
        cursor: Cursor,
        *,
        end: Callable[[], Awaitable[None]],
    ) -> None:
        self.conditions: Mapping[str, Any] = {}
        self.keep: Keep | None = None
        self._response = response
        self._client = client
        self._reader = reader
        self._cursor = cursor
        self._end = end
        packed = "content-encoding" in response.headers
        self._reads: AsyncGenerator[bytes] = (
            response.aiter_bytes() if packed else response.aiter_raw()
        )
        self._buffer = b""
        self._decoder = SseDecoder()
        self._chunks: deque[Chunk] = deque()
        self._closed = False

    @property
    def run(self) -> str:
        """The server's name for what is generated."""
        return self._cursor.run

    def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield the chunks; the last one has the finish reason."""
        return self

    async def __anext__(self) -> Chunk:
        """Return the next chunk.

        Raises:
            Disconnected: the stream ended before the reply did.
            LlmctlError: the server ended the reply with an error.
        """
        while not self._chunks:
            if self._reader.ended:
                raise StopAsyncIteration
            await self._read()
        return self._chunks.popleft()

    async def begin(self) -> int:
        """Wait for the first event; return how many prompt tokens were in the cache.

        Raises:
            LlmctlError: the server reports an error, or the stream ended.
        """
        while self._reader.cached is None:
            await self._read()
        return self._reader.cached

    async def rejoin(self, known: Prefix) -> None:
        """See that the run goes on behind what is known, and pass the event that was read.

        Raises:
            StrategyUnavailable: it does not, or nothing of it is left.
            LlmctlError: the connection was lost.
        """
        while not self._chunks:
            if not await self._more():
                raise StrategyUnavailable("The server keeps nothing of this run any more.")
        here: Cursor | None = None
        said = dict.fromkeys(Channel, "")
        while here is None and self._chunks:
            chunk = self._chunks.popleft()
            said[chunk.channel] += chunk.text
            here = chunk.cursor
        again = known.text.endswith(said[Channel.CONTENT]) and known.reasoning.endswith(
            said[Channel.REASONING]
        )
        if here != known.cursor or not again:
            raise StrategyUnavailable("The server's copy of the run reads otherwise.")

    def hold(self) -> bool:
        """Return False: a server can't be held in place."""
        return False

    def release(self) -> None:
        """Do nothing; the port has it."""

    async def save(self) -> Mapping[str, Any] | None:
        """End the generation and keep the slot's state for ``kv``."""
        await self.aclose()
        if self.keep is None or self._reader.ended:
            return None
        return await self.keep()

    async def aclose(self, *, lost: bool = False) -> None:
        """End the run, unless the connection to it was ``lost``: then it may be read on."""
        if self._closed:
            return
        self._closed = True
        with anyio.move_on_after(CLOSE_S, shield=True):
            try:
                if self._reader.ended:
                    await self._drain()
                elif not lost:
                    await self._end()
            finally:
                await self._reads.aclose()
                await self._response.aclose()

    async def _read(self) -> None:
        """Take what the next read brings."""
        if not await self._more():
            raise self._client.explain.lost()

    async def _more(self) -> bool:
        """Take what the next read brings; say whether there was any."""
        explain = self._client.explain
        try:
            data = await anext(self._reads, None)
        except self._client.broken_stream as error:
            raise explain.error(error) from explain.cause(error)
        if data is None:
            return False
        self._buffer += data
        try:
            self._take()
        except ErrorEvent as error:
            raise explain.event(error.body) from None
        except ValueError as error:
            raise explain.garbage() from error
        return True

    def _take(self) -> None:
        """Make chunks of the events that are whole."""
        start = 0
        for end in _EVENT_END.finditer(self._buffer):
            at, start = start, end.end()
            for event in self._decoder.feed(self._buffer[at:start]):
                if not self._reader.ended:
                    self._put(list(self._reader.read(event.data)))
            self._cursor = replace(self._cursor, at=self._cursor.at + start - at)
        self._buffer = self._buffer[start:]

    def _put(self, chunks: list[Chunk]) -> None:
        """Queue an event's chunks; the last of them knows where the event begins."""
        if chunks and not self._reader.ended:
            chunks[-1] = chunks[-1]._replace(cursor=self._cursor)
        self._chunks.extend(chunks)

    async def _drain(self) -> None:
        with anyio.move_on_after(DRAIN_S), suppress(*self._client.broken_stream):
            async for _ in self._reads:
                pass
