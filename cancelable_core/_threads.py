"""Threads that can be told to stop.

A thread cannot be interrupted; it can only look. So it gets a token to look at, told also
of cancelations that the library did not make, and the caller waits until it has looked.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from ._background import Background
from ._errors import CancelationError
from ._operation import current_operation
from ._token import CancelationToken
from ._types import CancelationReason

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar, TypeVarTuple

    R = TypeVar("R")
    Args = TypeVarTuple("Args")

_thread_token: ContextVar[CancelationToken | None] = ContextVar("cancelable_thread", default=None)


def current_token() -> CancelationToken | None:
    """What the caller should look at: its thread's token, else the operation around it."""
    return _thread_token.get() or current_operation()


def check_cancelled() -> None:
    """Raise if the caller was cancelled; for functions that run in a thread.

    Raises:
        CancelationError: The typed error of the cause.
    """
    if (token := current_token()) is not None:
        token.check()


async def run_in_thread(
    function: Callable[[*Args], R],
    *args: *Args,
    token: CancelationToken | None = None,
    limiter: anyio.CapacityLimiter | None = None,
    abandon_on_cancel: bool = False,
) -> R:
    """Run ``function(*args)`` in a worker thread that can see it is cancelled.

    Inside it, :func:`current_token` and :func:`check_cancelled` know of the operation around
    this call, of ``token``, and of any cancelation of the calling task. ContextVars are
    those of the caller; what the thread sets in them is gone with it.

    Args:
        function: What to run.
        args: Its arguments.
        token: Another token that the thread obeys.
        limiter: Bounds the number of threads; anyio's default when None.
        abandon_on_cancel: Do not wait for the thread when the caller is cancelled.

    Raises:
        CancelationError: What ``check()`` raised in the thread.
    """
    upstream = tuple(each for each in (token, current_operation()) if each is not None)
    told = CancelationToken(*upstream, name="thread")
    async with Background() as background:
        background.start_soon(_tell_when_cancelled, told)
        call = partial(_run, told, function, *args)
        try:
            return await anyio.to_thread.run_sync(
                call, abandon_on_cancel=abandon_on_cancel, limiter=limiter
            )
        except CancelationError as error:
            if error.reason is CancelationReason.EXTERNAL and error.cause is told.cause:
                # The event loop's own exception is due instead, and raised here.
                await anyio.lowlevel.checkpoint()
            raise


def _run(told: CancelationToken, function: Callable[[*Args], R], *args: *Args) -> R:
    _thread_token.set(told)  # in the copy of the context that anyio gives each call
    return function(*args)


async def _tell_when_cancelled(told: CancelationToken) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        told.cancel(CancelationReason.EXTERNAL, "cancelled from outside")
