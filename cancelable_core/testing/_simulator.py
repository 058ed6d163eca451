"""Streams that misbehave on purpose, the same way for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamScript:
    """How a simulated stream behaves.

    Attributes:
        seed: Same seed, same stream.
        delay: Range of seconds before each item.
        stall_chance: Probability that an item is preceded by a stall.
        stall: Seconds that a stall takes.
        burst_chance: Probability that an item follows the one before without any wait.
        fail_at: Position at which the stream raises, if any.
        error: What it raises there.
    """

    seed: int = 0
    delay: tuple[float, float] = (0.0, 0.1)
    stall_chance: float = 0.0
    stall: float = 5.0
    burst_chance: float = 0.0
    fail_at: int | None = None
    error: Exception | type[Exception] = ConnectionResetError


class SimulatedStream(Generic[T]):
    """Hands out ``items`` as a script says, and remembers what became of it.

    Attributes:
        produced: Number of items handed out.
        closed: Whether ``aclose()`` was called.
    """

    __slots__ = ("_items", "_random", "_script", "closed", "produced")

    def __init__(self, items: Sequence[T], script: StreamScript | None = None) -> None:
        """Hand out ``items`` by ``script``."""
        self._items = items
        self._script = script or StreamScript()
        self._random = random.Random(self._script.seed)  # noqa: S311  (a test's dice)
        self.produced = 0
        self.closed = False

    def __aiter__(self) -> Self:
        """Iterate, once."""
        return self

    async def __anext__(self) -> T:
        """The next item, after its wait."""
        if self.closed or self.produced >= len(self._items):
            raise StopAsyncIteration
        await self._wait()
        if self.produced == self._script.fail_at:
            raise self._script.error
        self.produced += 1
        return self._items[self.produced - 1]

    async def aclose(self) -> None:
        """Be closed."""
        self.closed = True
        await anyio.lowlevel.checkpoint()

    async def _wait(self) -> None:
        script, dice = self._script, self._random
        if self.produced and dice.random() < script.burst_chance:
            return
        stall = script.stall if dice.random() < script.stall_chance else 0.0
        await anyio.sleep(stall + dice.uniform(*script.delay))
