"""What can cancel an operation, besides its own ``cancel()``.

A source is a recipe: immutable, reusable, shared between operations at will. ``attach``
turns it into something live that belongs to one operation and ends with it.
"""

from __future__ import annotations

import inspect
import math
import signal
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import anyio

from ._loops import Loop, post, running_loop
from ._signals import SignalHub, signal_hub
from ._types import CancelationReason, Cause, Closable, Seconds, to_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ._token import CancelationToken

    Predicate: TypeAlias = Callable[[], object]
    """Says whether to cancel; may return an awaitable of the answer."""


class SourceHost(Protocol):
    """What an operation offers to its sources."""

    def fire(self, cause: Cause) -> None:
        """Cancel the operation; from any thread or signal handler."""
        ...

    def limit(self, seconds: float) -> None:
        """Cancel the operation ``seconds`` from now, unless something comes first."""
        ...

    def follow(self, token: CancelationToken) -> Closable:
        """Cancel the operation when ``token`` is cancelled."""
        ...

    def run(self, watcher: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``watcher`` beside the body, for as long as the body runs."""
        ...


@runtime_checkable
class CancelationSource(Protocol):
    """Something that can cancel operations."""

    def attach(self, host: SourceHost) -> Closable | None:
        """Start watching for ``host``; the result is closed when the operation ends."""
        ...


class TimeoutSource:
    """Cancels after a duration; 0 or less cancels at once."""

    __slots__ = ("seconds",)

    def __init__(self, timeout: Seconds) -> None:
        """Take the duration in seconds, or as a ``timedelta``."""
        self.seconds = to_seconds(timeout)

    def attach(self, host: SourceHost) -> None:
        """Start the clock."""
        host.limit(self.seconds)


class TokenSource:
    """Cancels when a token is cancelled."""

    __slots__ = ("token",)

    def __init__(self, token: CancelationToken) -> None:
        """Follow ``token``, without power over it."""
        self.token = token

    def attach(self, host: SourceHost) -> Closable:
        """Follow the token."""
        return host.follow(self.token)


class SignalSource:
    """Cancels when the process receives one of some signals."""

    __slots__ = ("_hub", "_keep_ignored", "signals")

    def __init__(
        self, *signals: int, keep_ignored: bool = False, hub: SignalHub = signal_hub
    ) -> None:
        """Listen for ``signals``; see :meth:`SignalHub.subscribe` for the rest."""
        self.signals = signals
        self._keep_ignored = keep_ignored
        self._hub = hub

    def attach(self, host: SourceHost) -> Closable:
        """Subscribe to the hub.

        Raises:
            RuntimeError: If a handler has to be installed and this is not the main thread.
        """

        def fire(signum: int) -> None:
            host.fire(_signal_cause(signum))

        return self._hub.subscribe(self.signals, fire, keep_ignored=self._keep_ignored)


def _signal_cause(signum: int) -> Cause:
    name = signal.Signals(signum).name
    return Cause(reason=CancelationReason.SIGNAL, message=name, origin=name, signum=signum)


class Notifier:
    """Tells conditions to look again, from any thread or signal handler.

    Example:
        >>> changed = Notifier()
        >>> changed.notify()
    """

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        """Start with nobody listening."""
        self._listeners: dict[object, Callable[[], None]] = {}

    def notify(self) -> None:
        """Have every condition that waits for this evaluate its predicate."""
        for listener in list(self._listeners.values()):
            listener()

    def listen(self, listener: Callable[[], None]) -> _Listening:
        """Call ``listener()`` at each notification until the result is closed."""
        key = _Listening(self._listeners)
        self._listeners[key] = listener
        return key


class _Listening:
    __slots__ = ("_table",)

    def __init__(self, table: dict[object, Callable[[], None]]) -> None:
        self._table = table

    def close(self) -> None:
        self._table.pop(self, None)


class ConditionSource:
    """Cancels when a predicate becomes true.

    The predicate is asked on entry, then every ``check_interval`` seconds, and whenever
    ``notifier`` says so. An exception it raises ends the operation and is raised from it.
    """

    __slots__ = ("_interval", "_notifier", "_predicate", "_threaded", "name")

    def __init__(
        self,
        predicate: Predicate,
        check_interval: Seconds | None = None,
        *,
        name: str | None = None,
        notifier: Notifier | None = None,
        in_thread: bool = False,
    ) -> None:
        """Watch ``predicate``.

        Args:
            predicate: Called without arguments in the event loop, where it must not block.
                What it returns is awaited if it can be, and then taken as true or false.
            check_interval: Seconds between looks; 0.1, or with a notifier never, by default.
            name: What it is called in messages.
            notifier: Says when to look, at once and without polling.
            in_thread: Call the predicate in a worker thread, where it may block.

        Raises:
            ValueError: If the interval is not positive.
        """
        default = math.inf if notifier is not None else 0.1
        self._interval = default if check_interval is None else to_seconds(check_interval)
        if self._interval <= 0:
            msg = "check_interval must be positive"
            raise ValueError(msg)
        self._predicate = predicate
        self._notifier = notifier
        self._threaded = in_thread
        self.name: str = name or str(getattr(predicate, "__name__", type(predicate).__name__))

    def attach(self, host: SourceHost) -> Closable | None:
        """Start watching."""
        bell = _Bell()
        host.run(lambda: self._watch(host, bell))
        return None if self._notifier is None else self._notifier.listen(bell.ring)

    async def _watch(self, host: SourceHost, bell: _Bell) -> None:
        try:
            while not await self._holds():
                await bell.wait(self._interval)
        except Exception as error:  # noqa: BLE001  (carried to the operation, raised there)
            host.fire(_condition_cause(f"{self.name} raised {error!r}", self.name, error))
        else:
            host.fire(_condition_cause(self.name, self.name))

    async def _holds(self) -> bool:
        if self._threaded:
            answer = await anyio.to_thread.run_sync(self._predicate, abandon_on_cancel=True)
        else:
            answer = self._predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        return bool(answer)


def _condition_cause(message: str, name: str, error: Exception | None = None) -> Cause:
    return Cause(reason=CancelationReason.CONDITION, message=message, origin=name, error=error)


class _Bell:
    """An event that is rung from anywhere and answered by one waiter, again and again."""

    __slots__ = ("_event", "_loop", "_rung")

    def __init__(self) -> None:
        self._loop: Loop = running_loop()
        self._event = anyio.Event()
        self._rung = False

    def ring(self) -> None:
        self._rung = True
        post(self._loop, self._wake)

    def _wake(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        if not self._rung:
            with anyio.move_on_after(seconds):
                await self._event.wait()
        self._rung = False
        self._event = anyio.Event()
        await anyio.lowlevel.checkpoint()
