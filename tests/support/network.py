"""A network for tests: a source whose every try is written down beforehand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from llmctl.conversation import Prefix
from llmctl.errors import Disconnected, LlmctlError, Unreachable
from llmctl.events import Channel, Chunk, Guarantee, Strategy
from llmctl.ports import Opened

LOST, GONE = Disconnected("lost"), Unreachable("gone", "wait")


def say(*words: str, channel: Channel = Channel.CONTENT) -> list[Chunk | LlmctlError]:
    return [Chunk(word, channel, tokens=1, ends=(len(word),)) for word in words]


END: list[Chunk | LlmctlError] = [Chunk(finish_reason="stop")]


class Streamed:
    """A stream of which only the chunks matter."""

    conditions: Mapping[str, Any] = {}

    def __aiter__(self) -> AsyncIterator[Chunk]:
        """Never come here: see `Opened.chunks`."""
        raise NotImplementedError

    def hold(self) -> bool:
        return False

    def release(self) -> None:
        pass

    async def save(self) -> None:
        return None


@dataclass
class Network:
    """A source whose every try is written down beforehand, and when each was made.

    Attributes:
        tries: what each brings: its chunks, and perhaps the fault that ends it.
        back_at: when the network is there again; a try before that finds nobody.
        at: when the tries were made, in seconds.
        behind: what each was to go on behind.
        at_once: what a try brings is there already.
    """

    tries: list[list[Chunk | LlmctlError]]
    back_at: float = 0.0
    gone: LlmctlError = GONE
    slow_s: float = 0.0
    hopeful: bool = True
    at: list[float] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)
    at_once: bool = False
    guarantee: Guarantee = Guarantee.EXACT

    async def ready(self) -> None:
        pass

    @asynccontextmanager
    async def start(self) -> AsyncIterator[Opened]:
        async with aclosing(await self._open()) as chunks:
            yield Opened(Streamed(), chunks)

    @asynccontextmanager
    async def go_on(self, prefix: Prefix, alive: Callable[[], None]) -> AsyncIterator[Opened]:
        async with aclosing(await self._open()) as chunks:
            alive()
            self.behind.append(prefix.reasoning + prefix.text)
            yield Opened(Streamed(), chunks, Strategy.PREFIX, Guarantee.TEXT)

    async def _open(self) -> AsyncGenerator[Chunk]:
        self.at.append(round(anyio.current_time(), 3))
        if len(self.at) > 1 and anyio.current_time() < self.back_at:
            await anyio.sleep(self.slow_s)
            raise self.gone
        return self._play(self.tries.pop(0))

    async def _play(self, steps: list[Chunk | LlmctlError]) -> AsyncGenerator[Chunk]:
        for step in steps:
            if not self.at_once:
                await anyio.lowlevel.checkpoint()
            if isinstance(step, LlmctlError):
                raise step
            yield step

    def keep(self, state: Mapping[str, Any]) -> None:
        raise AssertionError(state)

    def forget(self) -> None:
        pass

    def spent(self, prefix: Prefix) -> bool:
        return prefix.tokens is not None and prefix.tokens > 1000

    def may_go_on(self, prefix: Prefix) -> bool:
        return self.hopeful and bool(prefix.text or prefix.reasoning)
