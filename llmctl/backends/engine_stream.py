"""One reply as it comes out of the embedded engine."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio

from llmctl.backends.chat_reply import ErrorEvent
from llmctl.backends.engine import Engine
from llmctl.backends.engine_errors import refusal
from llmctl.backends.engine_reply import Reader
from llmctl.backends.sse import SseDecoder
from llmctl.errors import Disconnected
from llmctl.events import Chunk

if TYPE_CHECKING:
    import httpx2

STOP_WAIT_S = 2.0
"""Seconds a cut waits for the engine to stop computing before it is killed."""

_POLL_S = 0.005


class EngineStream:
    """A reply that is being generated; satisfies `llmctl.ports.Stream`.

    Attributes:
        conditions: on what an exact replay depends; known once it has begun.
        ended: whether the last chunk has been read.

    Args:
        engine: what generates.
        response: the open answer.
        reader: makes chunks of its events.
        keep: saves the slot for ``kv``; None where that would not be exact.
    """

    def __init__(
        self,
        engine: Engine,
        response: httpx2.Response,
        reader: Reader,
        keep: Callable[[], Awaitable[Mapping[str, Any] | None]] | None,
    ) -> None:
        self.conditions: Mapping[str, Any] = {}
        self.ended = False
        self._engine = engine
        self._response = response
        self._bytes = response.aiter_raw()
        self._decoder = SseDecoder()
        self._reader = reader
        self._keep = keep
        self._chunks: deque[Chunk] = deque()
        self._closed = False

    def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield the chunks."""
        return self

    async def __anext__(self) -> Chunk:
        """Return the next chunk.

        Raises:
            StopAsyncIteration: the reply has ended.
            Disconnected: the engine is gone.
        """
        while not self._chunks:
            if self.ended:
                raise StopAsyncIteration
            await self._read()
        return self._chunks.popleft()

    async def begin(self) -> int:
        """Wait for the first event; return how many prompt tokens were in the cache.

        Raises:
            Refused: the engine reports an error.
            Disconnected: it is gone.
        """
        while self._reader.cached is None:
            await self._read()
        return self._reader.cached

    def hold(self) -> bool:
        """Stop the engine where it is."""
        return self._engine.hold()

    def release(self) -> None:
        """Let it go on."""
        self._engine.release()

    async def save(self) -> Mapping[str, Any] | None:
        """End the generation and keep the slot's state for ``kv``."""
        await self.close()
        if self._keep is None or self._engine.pid is None:
            return None
        try:
            return await self._keep()
        except Disconnected:
            return None

    async def close(self) -> None:
        """End the generation: hang up, and see to it that the engine stops computing."""
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            await self._response.aclose()
            self._engine.release()
            if not self.ended:
                await self._stopped()

    async def _read(self) -> None:
        """Take the next bytes off the wire."""
        import httpx2  # noqa: PLC0415  (loaded by the engine; see there)

        try:
            data = await anext(self._bytes, None)
        except httpx2.TransportError as error:
            raise await self._engine.gone() from error
        if data is None:
            raise await self._engine.gone()
        for event in self._decoder.feed(data):
            if not self.ended:
                self._take(event.data)
                self.ended = self._reader.ended

    def _take(self, data: str) -> None:
        try:
            self._chunks.extend(self._reader.read(data))
        except ErrorEvent as error:
            raise refusal(error.body) from None

    async def _stopped(self) -> None:
        """Wait until the slot is idle, and not for long."""
        with anyio.move_on_after(STOP_WAIT_S):
            while await self._is_busy():  # noqa: ASYNC110  (another process's state)
                await anyio.sleep(_POLL_S)
            return
        await self._engine.kill()

    async def _is_busy(self) -> bool:
        try:
            slots = await self._engine.ask("/slots")
        except Disconnected:
            return False
        return bool(slots[0]["is_processing"])
