"""Virtual time: a second costs nothing, and nobody waits for it.

On trio this is trio's own ``MockClock``. On asyncio it is an event loop whose selector,
when nothing is ready and the next thing is a timer, moves the clock instead of waiting.
A loop that waits without a timer really waits, so worker threads can still wake it.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

T = TypeVar("T")
Args = TypeVarTuple("Args")
Backend = Literal["asyncio", "trio"]


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop that never waits for a timer.

    Args:
        patience: Real seconds to wait for a thread or a socket before the clock moves.
    """

    def __init__(self, patience: float = 0.0) -> None:
        """Start at time 0."""
        self._virtual_now = 0.0
        self._patience = patience
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual_now

    def advance(self, seconds: float) -> None:
        """Move the clock, by the smallest step there is at least."""
        now = self._virtual_now
        self._virtual_now = max(now + seconds, math.nextafter(now, math.inf))

    def call_at(
        self,
        when: float,
        callback: Callable[[*Args], object],
        *args: *Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule a call; one at infinity keeps nobody waiting and moves no clock."""
        if math.isinf(when):
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for files as ever, and for time never."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._owner = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(self._owner._patience)  # noqa: SLF001  (two halves of one thing)
        if not ready:
            self._owner.advance(timeout)
        return ready


def virtual_backend(backend: Backend, *, debug: bool = True) -> tuple[str, dict[str, Any]]:
    """What an ``anyio_backend`` fixture returns for tests in virtual time.

    Example:
        >>> virtual_backend("asyncio", debug=False)[0]
        'asyncio'
    """
    if backend == "asyncio":
        return "asyncio", {"loop_factory": VirtualTimeLoop, "debug": debug}
    from trio.testing import MockClock  # noqa: PLC0415  (trio need not be installed)

    return "trio", {"clock": MockClock(autojump_threshold=0)}


def run_virtual(
    function: Callable[[*Args], Awaitable[T]], *args: *Args, backend: Backend = "asyncio"
) -> T:
    """Run ``await function(*args)`` in an event loop with virtual time.

    Example:
        >>> async def nap():
        ...     await anyio.sleep(3600)
        ...     return "rested"
        >>> run_virtual(nap)
        'rested'
    """
    name, options = virtual_backend(backend)
    if backend == "trio":  # the oldest anyio that is allowed does not hand options on to it
        import trio  # noqa: PLC0415  (trio need not be installed)

        return trio.run(function, *args, **options)
    return anyio.run(function, *args, backend=name, backend_options=options)
