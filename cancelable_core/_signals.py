# ruff: noqa: ANN401  (handlers and loops are whatever they are)
"""The signal hub: one handler a signal a process, any number of subscribers.

Python keeps one handler for each signal, and the loops' own helpers take it away from each
other. The hub installs one, in the calling thread and before ``subscribe`` returns, tells
every subscriber, then the handler that was there before. With the last subscriber it puts
that one back. Only handlers that somebody wrote are chained to: the defaults (die, raise
``KeyboardInterrupt``, cancel the main task) are what a subscriber wants to replace.

The hub's state is per process because signals are.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from ._closing import Closing
from ._loops import in_main_thread, wake_for_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

_LOOP_MODULES = ("asyncio", "trio", "uvloop")


class Subscription(Closing):
    """A callback that hears signals. Close it, or use it as a context manager."""

    __slots__ = ("_callback", "_hub", "signals")

    def __init__(
        self, hub: SignalHub, signals: tuple[int, ...], callback: Callable[[int], object]
    ) -> None:
        """Belong to ``hub``; made by :meth:`SignalHub.subscribe`."""
        self._hub = hub
        self._callback = callback
        self.signals = signals
        """The numbers it hears; ignored signals are not among them when that was asked."""

    def close(self) -> None:
        """Stop hearing. Safe twice; from another thread, the old handler comes back later."""
        self._hub._unsubscribe(self)  # noqa: SLF001


class SignalHub:
    """Fan signals out to any number of callbacks.

    Example:
        >>> import signal
        >>> heard = []
        >>> with SignalHub().subscribe([signal.SIGUSR1], heard.append):
        ...     signal.raise_signal(signal.SIGUSR1)
        >>> heard == [signal.SIGUSR1]
        True
    """

    def __init__(self) -> None:
        """Start with no handler installed."""
        self._subscribers: dict[int, dict[Subscription, None]] = {}
        self._previous: dict[int, Any] = {}
        self._chaining: set[int] = set()

    def subscribe(
        self,
        signals: Iterable[int],
        callback: Callable[[int], object],
        *,
        keep_ignored: bool = False,
    ) -> Subscription:
        """Call ``callback(signum)`` in the handler, whenever one of ``signals`` arrives.

        The handler is in place when this returns. The callback runs in the main thread
        between any two instructions: it may set tokens and flags, and must not block.

        Args:
            signals: Numbers of the signals.
            callback: Called with the number that arrived.
            keep_ignored: Leave alone the signals that are ignored now, as under ``nohup``.

        Raises:
            RuntimeError: If a handler has to be installed and this is not the main thread.
        """
        wanted = tuple(int(number) for number in signals)
        if keep_ignored:
            wanted = tuple(number for number in wanted if not self._is_ignored(number))
        subscription = Subscription(self, wanted, callback)
        try:
            for number in wanted:
                self._subscribers.setdefault(number, {})[subscription] = None
                self._install(number)
        except BaseException:
            subscription.close()
            raise
        if wanted:
            wake_for_signals()
        return subscription

    def subscriber_count(self, signum: int) -> int:
        """How many callbacks hear ``signum``."""
        return len(self._subscribers.get(signum, ()))

    def _is_ignored(self, number: int) -> bool:
        return signal.getsignal(number) is signal.SIG_IGN

    def _install(self, number: int) -> None:
        current = signal.getsignal(number)
        if self._is_ours(current):
            return
        if not in_main_thread():
            name = signal.Signals(number).name
            msg = f"a handler for {name} can only be installed from the main thread"
            raise RuntimeError(msg)
        self._previous[number] = current
        signal.signal(number, self._handle)

    def _unsubscribe(self, subscription: Subscription) -> None:
        for number in subscription.signals:
            remaining = self._subscribers.get(number, {})
            remaining.pop(subscription, None)
            if not remaining:
                self._restore(number)

    def _restore(self, number: int) -> None:
        if not in_main_thread():
            return  # the handler stays, passes on what arrives, and leaves on the next signal
        if self._is_ours(signal.getsignal(number)):
            signal.signal(number, self._previous.pop(number, signal.SIG_DFL) or signal.SIG_DFL)

    def _is_ours(self, handler: Any) -> bool:
        return getattr(handler, "__func__", None) is SignalHub._handle and (
            handler.__self__ is self
        )

    def _handle(self, number: int, frame: FrameType | None) -> None:
        subscriptions = list(self._subscribers.get(number, ()))
        previous = self._previous.get(number)
        if not subscriptions:
            self._give_back(number, previous, frame)
            return
        errors = [error for each in subscriptions if (error := _tell(each, number))]
        self._chain(number, previous, frame)
        if errors:
            msg = f"subscribers of {signal.Signals(number).name} raised"
            raise ExceptionGroup(msg, errors)

    def _chain(self, number: int, previous: Any, frame: FrameType | None) -> None:
        # A handler installed over ours may call ours, and we call it: go round only once.
        if not _is_chainable(previous) or number in self._chaining:
            return
        self._chaining.add(number)
        try:
            previous(number, frame)
        finally:
            self._chaining.discard(number)

    def _give_back(self, number: int, previous: Any, frame: FrameType | None) -> None:
        """Nobody hears this signal any more: do what would have happened without us."""
        self._restore(number)
        if callable(previous):
            previous(number, frame)
        elif previous is signal.SIG_DFL:  # pragma: no cover  (mostly the end of the process)
            os.kill(os.getpid(), number)


def _tell(subscription: Subscription, number: int) -> Exception | None:
    try:
        subscription._callback(number)  # noqa: SLF001
    except Exception as error:  # noqa: BLE001  (raised, together, when all were told)
        return error
    return None


def _is_chainable(handler: Any) -> bool:
    """Whether somebody wrote this handler, rather than Python or an event loop."""
    if not callable(handler) or handler is signal.default_int_handler:
        return False
    function = getattr(handler, "func", handler)
    module: str = getattr(function, "__module__", None) or ""
    return module.partition(".")[0] not in _LOOP_MODULES


signal_hub = SignalHub()
"""The process's hub."""
