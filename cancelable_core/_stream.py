# ruff: noqa: SLF001  (the modules of this package are friends)
"""Streams: every item is handed over once, or was never taken.

An item counts when it is handed over, and nothing can happen between the two: no await
stands between counting and ``yield``. Cancelation is looked at before the next item is
pulled, so nothing is pulled and dropped. What is iterated is a plain async generator around
the source, because nothing else is as fast; its scope is the operation's (or, for limits
of the stream's own without a block, one around each pull), never one held open across a
``yield``.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

from ._context import Partial
from ._loops import running_loop
from ._sources import TimeoutSource
from ._types import OperationStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
    from types import TracebackType
    from typing import Self

    from ._operation import Cancelable

T = TypeVar("T")
CLOSE_SECONDS = 5.0
"""Seconds that closing a source may take while its reader is being cancelled."""


class CancelableStream(Generic[T]):
    """A stream that belongs to an operation. Iterate it, best inside ``async with``.

    The source is closed when it ends, when the stream's ``async with`` block ends, or when
    the operation's block ends, whichever comes first: ``aclose()`` if it has one, else
    ``close()``. Until then an iteration that was broken off can be taken up again.

    Example:
        >>> from cancelable_core import Cancelable, cancelable_stream
        >>> async def numbers():
        ...     for number in range(3):
        ...         yield number
        >>> async def main():
        ...     async with Cancelable() as cancel:
        ...         async with cancelable_stream(numbers(), cancel) as stream:
        ...             async for number in stream:
        ...                 break
        ...     return stream.position, stream.partial.completed
        >>> anyio.run(main)
        (1, False)
    """

    __slots__ = (
        "_closed",
        "_completed",
        "_generator",
        "_items",
        "_operation",
        "_owns",
        "_position",
        "_report_interval",
        "_source",
    )

    def __init__(
        self,
        source: AsyncIterable[T],
        operation: Cancelable,
        *,
        buffer_partial: bool | int = False,
        report_interval: int | None = None,
        owns: bool = False,
    ) -> None:
        """Read ``source`` under ``operation``; made by :func:`cancelable_stream`."""
        self._source: AsyncIterator[T] = aiter(source)
        self._operation = operation
        self._owns = owns
        self._report_interval = report_interval
        self._items: deque[T] | None = None
        if buffer_partial:
            self._items = deque(maxlen=None if buffer_partial is True else buffer_partial)
        self._generator: AsyncGenerator[T, None] | None = None
        self._position = 0
        self._completed = False
        self._closed = False
        operation._track(self)

    @property
    def position(self) -> int:
        """Number of items handed over so far."""
        return self._position

    @property
    def partial(self) -> Partial[T]:
        """What was handed over so far; valid after any kind of end."""
        return Partial(self._position, tuple(self._items or ()), self._completed)

    @property
    def operation(self) -> Cancelable:
        """The operation that stops it."""
        return self._operation

    def __aiter__(self) -> AsyncGenerator[T, None]:
        """Hand over the items, from where an earlier iteration was broken off.

        Raises:
            RuntimeError: If the operation is not running.
        """
        if self._generator is None:
            self._generator = self._start()
        return self._generator

    def _start(self) -> AsyncGenerator[T, None]:
        if self._operation.status is not OperationStatus.RUNNING:
            if self._owns:
                return self._alone(Limits(self._operation))
            label, status = self._operation.label, self._operation.status
            raise RuntimeError(f"operation {label} is {status}: a stream needs a running one")
        items = self._in_scope() if self._items is None else self._kept(self._items)
        return items if self._report_interval is None else self._reporting(items)

    async def _in_scope(self) -> AsyncGenerator[T, None]:
        # Everything in this loop is paid for by every item; hence its twin below.
        causes = self._operation._causes
        await self._until_stopped()
        async for item in self._source:
            self._position += 1
            yield item
            if causes:
                await self._until_stopped()
        await self._complete()

    async def _kept(self, items: deque[T]) -> AsyncGenerator[T, None]:
        causes, keep = self._operation._causes, items.append
        await self._until_stopped()
        async for item in self._source:
            self._position += 1
            keep(item)
            yield item
            if causes:
                await self._until_stopped()
        await self._complete()

    async def _reporting(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        interval = self._report_interval or 1
        async with aclosing(items):
            async for item in items:
                yield item
                if self._position % interval == 0:
                    await self._operation.report_progress(
                        f"{self._position} items", {"position": self._position}
                    )

    async def _alone(self, limits: Limits) -> AsyncGenerator[T, None]:
        """Without a block around the loop: limits hold while pulling, not in the loop's body."""
        keep = None if self._items is None else self._items.append
        async with aclosing(pull_by_pull(self._source, limits)) as items:
            async for item in items:
                self._position += 1
                if keep is not None:
                    keep(item)
                yield item
        await self._complete()

    async def _until_stopped(self) -> None:
        """Let the scope stop us rather than pull one more; in a shield it does not."""
        if self._operation.is_stopping:
            self._operation._rearm()  # runs before we are resumed
            await anyio.lowlevel.checkpoint()

    async def _complete(self) -> None:
        self._completed = True
        self._generator = None
        await self._close_source()

    async def aclose(self) -> None:
        """Close the source, for a bounded time also while being cancelled."""
        generator, self._generator = self._generator, None
        if generator is not None:
            await generator.aclose()
        await self._close_source()

    async def _close_source(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._operation._untrack(self)
        close = getattr(self._source, "aclose", None) or getattr(self._source, "close", None)
        if close is not None:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                result = close()
                if inspect.isawaitable(result):
                    await result

    async def __aenter__(self) -> Self:
        """Close at the end of the block; limits of the stream's own cover the whole block."""
        if self._owns:
            await self._operation.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        """Close."""
        if self._owns:
            return await self._operation.__aexit__(exc_type, exc, tb)
        await self.aclose()
        return False


class Limits:
    """What may stop a stream that is iterated without a block, applied pull by pull."""

    __slots__ = ("_deadline", "_operation", "_sources", "_timeout")

    def __init__(self, operation: Cancelable) -> None:
        """Take the limits from ``operation``, which is never entered itself."""
        timeouts = [each for each in operation._sources if isinstance(each, TimeoutSource)]
        self._operation = operation
        self._sources = tuple(each for each in operation._sources if each not in timeouts)
        self._timeout = min((each.seconds for each in timeouts), default=math.inf)
        self._deadline = math.inf

    def start(self) -> None:
        """Start the clock."""
        self._deadline = running_loop().time() + self._timeout

    def one_pull(self) -> Cancelable:
        """An operation under what is left of the limits."""
        whole, sources = self._operation, self._sources
        if self._timeout != math.inf:
            sources += (TimeoutSource(self._deadline - running_loop().time()),)
        name, ending = whole.label, whole.when_cancelled
        make = type(whole)  # an import would be a cycle: operations hand out streams
        return make(name=name, linked_to=(whole,), sources=sources, when_cancelled=ending)


async def pull_by_pull(source: AsyncIterator[T], limits: Limits) -> AsyncGenerator[T, None]:
    """Hand over the items of ``source``, with a scope around each pull.

    Raises:
        CancelationError: When the limits stop it, unless they say to absorb that.
    """
    limits.start()
    while True:
        pull = limits.one_pull()
        try:
            async with pull:
                item = await anext(source)
        except StopAsyncIteration:
            return
        if pull.status is not OperationStatus.COMPLETED:
            return  # stopped, and absorbed
        yield item


class ChunkedStream(CancelableStream[list[T]]):
    """A stream of lists; made by :func:`chunked_cancelable_stream`."""

    __slots__ = ("_chunks",)

    def __init__(self, chunks: _Chunks[T], operation: Cancelable) -> None:
        """Hand over ``chunks`` under ``operation``."""
        super().__init__(chunks, operation)
        self._chunks = chunks

    @property
    def pending(self) -> list[T]:
        """Items taken from the source for a chunk that was not handed over yet."""
        return self._chunks.pending


def chunked_cancelable_stream(
    stream: AsyncIterable[T], size: int, cancel: Cancelable
) -> ChunkedStream[T]:
    """Iterate ``stream`` in lists of ``size`` items; the last may be shorter.

    When the iteration is stopped, what was taken for the next list is in ``pending``.

    Raises:
        ValueError: If ``size`` is not positive.
    """
    if size < 1:
        raise ValueError("a chunk has at least one item")
    return ChunkedStream(_Chunks(aiter(stream), size), cancel)


class _Chunks(Generic[T]):
    __slots__ = ("_size", "_source", "aclose", "pending")

    def __init__(self, source: AsyncIterator[T], size: int) -> None:
        self._source = source
        self._size = size
        self.pending: list[T] = []
        self.aclose = getattr(source, "aclose", None) or getattr(source, "close", None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[T]:
        while len(self.pending) < self._size:
            try:
                self.pending.append(await anext(self._source))
            except StopAsyncIteration:
                if not self.pending:
                    raise
                break
        chunk, self.pending = self.pending, []
        return chunk
