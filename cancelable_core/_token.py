"""``CancelationToken``: one decision, made once, heard everywhere.

Nothing here takes a lock, because a signal handler may interrupt ``cancel()`` on the very
thread that would hold it. Three operations of CPython that no other thread and no signal
handler can cut in two carry the whole file:

* ``list.append`` decides: the cause that became element 0 won;
* ``dict.pop`` hands out: whoever pops a callback runs it, so it runs once;
* every writer looks again after it wrote: ``register`` adds, *then* looks for a cause;
  ``cancel`` decides, *then* looks for callbacks. One of the two sees the other.

A child pulls: it asks its parents whenever it is asked. It listens to them (and is held by
them) only while somebody listens to it, so that a long-lived parent holds no finished child.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from ._closing import Closing
from ._errors import error_for
from ._loops import post, running_loop
from ._types import CancelationReason, Cause, Seconds, to_seconds

if TYPE_CHECKING:
    from collections.abc import Callable


_GONE = object()


class Registration(Closing):
    """A callback that waits for a cancelation. Close it, or use it as a context manager."""

    __slots__ = ("_callback", "_token")

    def __init__(self, token: CancelationToken, callback: Callable[[Cause], object]) -> None:
        """Belong to ``token``; made by :meth:`CancelationToken.register`."""
        self._token = token
        self._callback = callback

    def close(self) -> None:
        """Forget the callback. Safe from any thread, and twice."""
        self._token._forget(self)  # noqa: SLF001


class CancelationToken:
    """A cancelation that can be asked for from anywhere, once.

    ``cancel()``, ``check()``, ``is_cancelled`` and ``register()`` never wait and may be
    called from any thread and from a signal handler.

    Example:
        >>> token = CancelationToken(name="shutdown")
        >>> token.cancel(message="enough")
        True
        >>> str(token.cause)
        'manual: enough'
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_causes",
        "_failures",
        "_links",
        "_name",
        "_upstream",
    )

    def __init__(self, *linked_to: CancelationToken, name: str | None = None) -> None:
        """Make a token, cancelled when one of ``linked_to`` is (never the other way round)."""
        self._causes: list[Cause] = []
        self._callbacks: dict[Registration, object] = {}
        self._failures: list[Exception] = []
        self._links: list[Registration] = []
        self._upstream: tuple[CancelationToken, ...] = linked_to
        self._name = name

    @property
    def name(self) -> str:
        """What people call it; empty when it was not named."""
        return self._name or ""

    @property
    def cause(self) -> Cause | None:
        """Why it was cancelled, or None. Reading it never raises what callbacks raise."""
        if not self._causes:
            self._ask_upstream()
        return self._causes[0] if self._causes else None

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.cause is not None

    def cancel(
        self,
        reason: CancelationReason = CancelationReason.MANUAL,
        message: str | None = None,
        *,
        grace: Seconds = 0.0,
    ) -> bool:
        """Cancel, once: the first cause wins, and later calls change nothing.

        Callbacks run in the calling thread before this returns.

        Args:
            reason: The kind of event.
            message: A sentence for people.
            grace: Seconds that operations may go on after they were asked.

        Returns:
            Whether this call decided.

        Raises:
            ExceptionGroup: If callbacks raised; all of them have run.
        """
        cause = Cause(reason=reason, message=message, origin=self.name, grace=to_seconds(grace))
        return self.cancel_with(cause)

    def cancel_with(self, cause: Cause) -> bool:
        """Cancel for a cause made elsewhere. Same promises as :meth:`cancel`."""
        won = self._decide(cause)
        self._raise_failures()
        return won

    def check(self) -> None:
        """Raise if cancelled.

        Raises:
            CancelationError: The typed error of the cause.
        """
        if (cause := self.cause) is not None:
            raise error_for(cause, self.name)

    async def wait(self) -> Cause:
        """Wait for the cancelation, in any event loop.

        Returns:
            The cause.
        """
        if self.cause is None:
            loop, event = running_loop(), anyio.Event()
            with self.register(lambda _: post(loop, event.set)):
                await event.wait()
        else:
            await anyio.lowlevel.checkpoint()
        assert self.cause is not None  # noqa: S101  (for type checkers; the event says so)
        return self.cause

    def register(self, callback: Callable[[Cause], object]) -> Registration:
        """Call ``callback(cause)`` on cancelation, at once if that was already.

        It runs in the thread, or the signal handler, that cancels: it must be quick and
        must not block.

        Returns:
            A handle that forgets the callback when closed.
        """
        registration = Registration(self, callback)
        self._callbacks[registration] = None
        self._listen()
        if self.cause is not None:
            self._announce()
            self._raise_failures()
        return registration

    def child(self, *, name: str | None = None) -> CancelationToken:
        """A token that is cancelled with this one and cannot cancel it."""
        return CancelationToken(self, name=name)

    def link(self, *others: CancelationToken) -> None:
        """Also be cancelled, with the same cause, when one of ``others`` is."""
        self._upstream += others
        self._unlisten()
        self._listen()
        if self.cause is not None:
            self._announce()
            self._raise_failures()

    def __repr__(self) -> str:
        """Say whether it was cancelled, and why."""
        label = f" {self.name!r}" if self.name else ""
        return f"<{type(self).__name__}{label} {self.cause or 'not cancelled'}>"

    # -- deciding --------------------------------------------------------------------

    def _decide(self, cause: Cause) -> bool:
        if not self._causes:
            self._ask_upstream()
        return self._latch(cause)

    def _latch(self, cause: Cause) -> bool:
        if not self._causes:
            self._causes.append(cause)
        # Announced by losers too: the winner may have been interrupted half-way.
        self._announce()
        return self._causes[0] is cause

    def _ask_upstream(self) -> None:
        for token in self._upstream:
            if (cause := token.cause) is not None:
                self._latch(self._inherit(cause))
                return

    def _inherit(self, cause: Cause) -> Cause:
        return cause

    def _hear(self, cause: Cause) -> None:
        self._latch(self._inherit(cause))
        self._raise_failures()

    # -- telling ---------------------------------------------------------------------

    def _announce(self) -> None:
        """Run the callbacks; what they raise is kept until somebody can raise it."""
        try:
            while self._callbacks:
                for registration in _snapshot(self._callbacks):
                    self._run(registration)
        finally:
            if not self._is_heard():
                self._unlisten()

    def _raise_failures(self) -> None:
        if not self._failures:
            return
        errors: list[Exception] = []
        with suppress(IndexError):  # empty now, perhaps by another thread
            while True:
                errors.append(self._failures.pop(0))
        if errors:
            msg = "callbacks of a cancelation raised"
            raise ExceptionGroup(msg, errors)

    def _run(self, registration: Registration) -> None:
        if self._callbacks.pop(registration, _GONE) is _GONE:  # pragma: no cover  (a race)
            return  # closed, or run by somebody else
        try:
            registration._callback(self._causes[0])  # noqa: SLF001
        except Exception as error:  # noqa: BLE001  (raised, together, when all have run)
            self._failures.append(error)

    def _forget(self, registration: Registration) -> None:
        self._callbacks.pop(registration, None)
        if not self._is_heard():
            self._unlisten()
            if self._is_heard():  # pragma: no cover  (somebody registered meanwhile)
                self._listen()

    # -- listening to parents, only while somebody listens here ------------------------

    def _is_heard(self) -> bool:
        return bool(self._callbacks)

    def _listen(self) -> None:
        if self._upstream and not self._links and self._is_heard():
            self._links.extend([token.register(self._hear) for token in self._upstream])

    def _unlisten(self) -> None:
        while self._links:
            try:
                link = self._links.pop()
            except IndexError:  # pragma: no cover  (another thread took the last one)
                return
            link.close()


def _snapshot(table: dict[Any, object]) -> list[Any]:
    while True:
        try:
            return list(table)
        except RuntimeError:  # pragma: no cover  (another thread changed it meanwhile)
            continue
