"""One streamed reply: bytes off the connection, chunks out.

::

    bytes ─▶ SseDecoder ─▶ ReplyReader ─▶ Seam ─▶ Chunk

The three stages are pure and live in files of their own; here is what must wait: for
bytes, for the end of the body after the end of the reply (so that the connection can
serve the next request), and for the close.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio

from llmctl.backends.chat_reply import ErrorEvent, ReplyReader
from llmctl.backends.seam import Seam
from llmctl.backends.sse import ServerSentEvent, SseDecoder
from llmctl.errors import LlmctlError, StrategyUnavailable
from llmctl.events import Chunk, Guarantee

if TYPE_CHECKING:
    import httpx2

    from llmctl.backends.openai_client import OpenAiClient

_EPILOGUE_S = 1.0
"""How long the usage may take to come after the end of the reply."""
_DRAIN_S = 0.1
"""How long the end of the body may take to come, for the sake of a connection."""
CLOSE_S = 2.0
"""How long closing may take."""
_NO_CONDITIONS: Mapping[str, Any] = MappingProxyType({})


class ChatStream:
    """The reply to one request, as it arrives; `ChatBackEnd.open` makes them.

    Attributes:
        conditions: what a resume may build on: the ids of the prompt's tokens where they are
            told, and what was earned. Nothing that a later `exact` could rest on.

    Args:
        response: the answer, its body still to be read.
        client: what it came through.
        reader: makes chunks of its events.
        seams: what to take off its beginning.
        expects_ids: the ids of the prompt are told before the reply begins.
        prompt: what these ids must be; None takes any.
    """

    def __init__(  # noqa: PLR0913  (what it reads, and what must hold before it does)
        self,
        response: httpx2.Response,
        client: OpenAiClient,
        reader: ReplyReader,
        seams: list[Seam],
        *,
        expects_ids: bool = False,
        prompt: tuple[int, ...] | None = None,
    ) -> None:
        self.conditions: Mapping[str, Any] = _NO_CONDITIONS
        self._expects_ids = expects_ids
        self._prompt = prompt
        self._response = response
        self._client = client
        self._explain = client.explain
        self._reader = reader
        self._seams = seams
        self._decoder = SseDecoder()
        self._content_type = response.headers.get("content-type", "").lower()
        self._reads = _reads(response, whole="json" in self._content_type)
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

    async def begin(self) -> None:
        """See that the answer is a reply, and that it begins where the last one stopped.

        Raises:
            Refused: it is a web page.
            StrategyUnavailable: it does not begin with what it had to.
            LlmctlError: it failed before that could be seen.
        """
        if "html" in self._content_type:
            raise self._explain.web_page()
        while not self._reader.moved or any(s.open and s.required for s in self._seams):
            if self._reader.gap:
                raise StrategyUnavailable("The server does not go on behind the last event.")
            if self._error is not None:
                raise self._error
            await self._read()
        await self._hear_ids()

    async def _hear_ids(self) -> None:
        """Wait for the ids of the prompt, which come before the first text if at all.

        Raises:
            StrategyUnavailable: they are not what they have to be.
        """
        while self._expects_ids and self._reader.prompt_ids is None:
            if self._ready or self._over:
                break
            await self._read()
        ids = self._reader.prompt_ids
        if self._prompt is not None and ids != self._prompt:
            raise StrategyUnavailable("The server does not say that it went on behind these ids.")
        if ids is not None:
            earned = {"earned": str(Guarantee.TOKEN)} if self._prompt is not None else {}
            self.conditions = {"prompt_ids": ids, **earned}

    def hold(self) -> bool:
        """Return False: a server can't be held in place."""
        return False

    def release(self) -> None:
        """Do nothing; the port has it."""

    async def save(self) -> None:
        """Return None: a server keeps no state for us."""

    async def aclose(self) -> None:
        """Close the connection, or leave it to the next request if the reply was read up."""
        with anyio.move_on_after(CLOSE_S, shield=True):
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
        try:
            if not self._reader.ended:
                return await anext(self._reads)
            with anyio.move_on_after(_EPILOGUE_S):
                return await anext(self._reads)
        except StopAsyncIteration:
            return None
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
            raise self._explain.garbage() from error

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


def _reads(response: httpx2.Response, *, whole: bool) -> AsyncGenerator[bytes]:
    """Return the body as it comes; a whole JSON answer as the only event of a stream."""
    if whole:
        return _as_one_event(response)
    packed = "content-encoding" in response.headers
    return response.aiter_bytes() if packed else response.aiter_raw()  # a layer less


async def _as_one_event(response: httpx2.Response) -> AsyncGenerator[bytes]:
    """Yield a JSON body as one event (between its tokens a blank is as good as a newline)."""
    body = await response.aread()
    yield b"data: " + b" ".join(body.splitlines()) + b"\n\n"
