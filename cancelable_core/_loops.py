# ruff: noqa: ANN401  (handlers and loops are whatever they are)
"""Reach an event loop from anywhere: its own tasks, other threads, signal handlers.

What is posted runs in the loop's thread, not inside a task step, and before the posting
task is resumed. asyncio keeps that promise by itself (its ready queue is first in, first
out, and ``call_soon_threadsafe`` may be called in a signal handler). trio's
``run_sync_soon`` wakes the loop but says nothing about order, so a task that posts to its
own trio loop runs the callback on the spot. A signal handler that interrupted this task
must not: it may have interrupted trio's own bookkeeping. Such handlers are recognised by
their code being on the stack.

And the other way round: a loop that sleeps has to wake up for a signal. Python runs handlers
in the main thread, once that executes Python again. A signal that comes after the loop's
last instruction and before its wait for events, or that the system hands to another thread,
stays unheard until something else ends the wait. ``signal.set_wakeup_fd`` is made for this
(https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd). The loops of trio and
uvloop use it whenever they run; asyncio's only while they handle a signal themselves.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import weakref
from types import CodeType, FrameType, MethodType
from typing import TYPE_CHECKING, Any, Protocol, cast

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable


class Loop(Protocol):
    """The two things needed of an event loop; asyncio's loops have them as they are."""

    def time(self) -> float:
        """Now, in seconds on the loop's own clock."""
        ...

    def call_soon_threadsafe(self, callback: Callable[[], object], /) -> object:
        """Run ``callback`` soon in the loop's thread."""
        ...


def running_loop() -> Loop:
    """The loop that runs the caller.

    Raises:
        anyio.NoEventLoopError: If none does.
    """
    native: Any = anyio.lowlevel.current_token().native_token
    if hasattr(native, "run_sync_soon"):
        return _TrioLoop(native)
    if _waking.wanted:
        _waking.wake(native)
    return cast("Loop", native)


def is_in_loop() -> bool:
    """Whether a loop runs the caller; none does for what is left of a loop that was closed."""
    try:
        anyio.lowlevel.current_token()
    except anyio.NoEventLoopError:
        return False
    return True


def wake_for_signals() -> None:
    """From now on, asyncio's loops in the main thread wake up for signals.

    The one that is running now does at once; others as soon as something of this library
    runs in them.
    """
    _waking.wanted = True
    with contextlib.suppress(RuntimeError):  # none runs here
        running_loop()


def post(loop: Loop, callback: Callable[[], object]) -> None:
    """Run ``callback`` soon in ``loop``; does nothing when that loop has ended."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:  # closed (asyncio) or finished (trio): nobody is left to wake
        return


class _TrioLoop:
    """A trio run, with the two methods that an asyncio loop has."""

    __slots__ = ("_clock", "_token")

    def __init__(self, token: Any) -> None:
        self._token = token
        self._clock = sys.modules["trio"].lowlevel.current_clock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _TrioLoop) and other._token is self._token

    def __hash__(self) -> int:
        return hash(self._token)

    def time(self) -> float:
        return cast("float", self._clock.current_time())

    def call_soon_threadsafe(self, callback: Callable[[], object], /) -> None:
        if self._runs_the_caller() and not inside_signal_handler():
            callback()
        else:
            self._token.run_sync_soon(callback)

    def _runs_the_caller(self) -> bool:
        lowlevel = sys.modules["trio"].lowlevel
        try:
            lowlevel.current_task()
        except RuntimeError:
            return False
        return lowlevel.current_trio_token() is self._token


class _Waking:
    """Has a loop of asyncio use the wakeup descriptor, by giving it a signal to handle.

    Nobody sends that signal, and the loop sets everything back when it is closed.
    """

    __slots__ = ("_last", "wanted")

    UNUSED = getattr(signal, "SIGURG", None)
    """Does nothing by default; the one that Go's runtime chose, for the same reason."""

    def __init__(self) -> None:
        self.wanted = False
        self._last: Callable[[], object] = object

    def wake(self, loop: Any) -> None:
        if self._last() is loop or self.UNUSED is None or not in_main_thread():
            return
        self._last = weakref.ref(loop)
        if _has_wakeup_fd() or signal.getsignal(self.UNUSED) is not signal.SIG_DFL:
            return
        loop.add_signal_handler(self.UNUSED, _nothing)


_waking = _Waking()


def _has_wakeup_fd() -> bool:
    fd = signal.set_wakeup_fd(-1)
    if fd != -1:
        signal.set_wakeup_fd(fd)
    return fd != -1


def _nothing() -> None:
    """Handle a signal that nobody sends."""


def in_main_thread() -> bool:
    """Whether the caller runs in the main thread, where signal handlers run."""
    import threading  # noqa: PLC0415  (start-up does not pay for it)

    return threading.current_thread() is threading.main_thread()


def inside_signal_handler() -> bool:
    """Whether the caller was called, directly or not, by a handler of a signal."""
    if not in_main_thread():
        return False
    found = map(signal.getsignal, _signal_numbers())
    handlers = {_code_of(handler) for handler in found if callable(handler)}
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  (no public way to see the stack)
    while frame is not None:
        if frame.f_code in handlers:
            return True
        frame = frame.f_back
    return False


@functools.cache
def _signal_numbers() -> tuple[int, ...]:
    return tuple(map(int, signal.valid_signals()))


def _code_of(handler: Any) -> CodeType | None:
    """The code that runs first when ``handler`` is called, if it is Python code."""
    while hasattr(handler, "func"):  # functools.partial
        handler = handler.func
    if isinstance(handler, MethodType):
        handler = handler.__func__
    elif not hasattr(handler, "__code__"):
        handler = getattr(type(handler).__call__, "__func__", type(handler).__call__)
    return getattr(handler, "__code__", None)
