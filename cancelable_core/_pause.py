"""``PauseToken``: hold work without abandoning it.

Lock-free for the reason given in ``_token.py``. The state is one flag, and whoever is told
of a change reads the flag again, so that notifications may come late or twice.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import anyio

from ._loops import Loop, post, running_loop

if TYPE_CHECKING:
    from collections.abc import Callable


class PauseToken:
    """A gate that can be shut and opened from any thread or signal handler.

    A paused waiter sits in an ordinary wait, so cancelling its scope wakes it. Given to a
    :class:`Cancelable` as ``pause_token``, it also stops that operation's own deadline while
    it is paused.

    Example:
        >>> gate = PauseToken()
        >>> gate.pause(), gate.pause(), gate.is_paused
        (True, False, True)
    """

    __slots__ = ("_clock", "_listeners", "_paused_at", "_paused_before", "_waiters")

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start open. ``clock`` gives the seconds that :attr:`paused_seconds` counts."""
        self._clock = clock
        self._paused_at: float | None = None
        self._paused_before = 0.0
        self._waiters: dict[object, Callable[[], None]] = {}
        self._listeners: dict[object, Callable[[], None]] = {}

    @property
    def is_paused(self) -> bool:
        """Whether the gate is shut."""
        return self._paused_at is not None

    @property
    def paused_seconds(self) -> float:
        """Seconds spent paused so far, the running pause included."""
        started = self._paused_at
        return self._paused_before + (0.0 if started is None else self._clock() - started)

    def pause(self) -> bool:
        """Shut the gate. Returns whether that changed anything."""
        if self._paused_at is not None:
            return False
        self._paused_at = self._clock()
        self._tell()
        return True

    def resume(self) -> bool:
        """Open the gate and wake all who wait. Returns whether that changed anything."""
        started, self._paused_at = self._paused_at, None
        if started is None:
            return False
        self._paused_before += self._clock() - started
        while self._waiters:
            for key in list(self._waiters):
                wake = self._waiters.pop(key, None)
                if wake is not None:  # pragma: no branch  (else another thread has it)
                    wake()
        self._tell()
        return True

    async def wait_while_paused(self) -> None:
        """Return when the gate is open; a checkpoint also when it was open all along."""
        if not self.is_paused:
            await anyio.lowlevel.checkpoint()
        loop = running_loop()
        while self.is_paused:
            await self._wait_once(loop)

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback()`` after each change, in the thread that made it.

        Returns:
            A function that ends it.
        """
        key = object()
        self._listeners[key] = callback
        return partial(self._forget_listener, key)

    async def _wait_once(self, loop: Loop) -> None:
        event, key = anyio.Event(), object()
        self._waiters[key] = partial(post, loop, event.set)
        try:
            if self.is_paused:  # pragma: no branch  (else it was opened before we were on it)
                await event.wait()
        finally:
            self._waiters.pop(key, None)

    def _forget_listener(self, key: object) -> None:
        self._listeners.pop(key, None)

    def _tell(self) -> None:
        for listener in list(self._listeners.values()):
            listener()

    def __repr__(self) -> str:
        """Say whether it is paused."""
        return f"<PauseToken {'paused' if self.is_paused else 'open'}>"
