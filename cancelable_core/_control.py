# ruff: noqa: SLF001  (the modules of this package are friends)
"""How an operation is stopped: by its deadline, by its tokens, by whoever cancels it.

Everything that touches the scope runs in the loop's thread, in ``_arm``; everything that
other threads and signal handlers may do goes through the token and posts ``_arm``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ._deadline import Timer
from ._loops import post
from ._state import OperationState
from ._types import CancelationReason, Cause, OperationStatus, Seconds, to_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._operation import Cancelable
    from ._pause import PauseToken
    from ._token import CancelationToken


class ControlledOperation(OperationState):
    """An operation to stop: the part of :class:`Cancelable` that cancellers use."""

    __slots__ = ("_children", "_forced", "_is_open", "_pause_token", "_timer")

    def __init__(  # noqa: PLR0913, PLR0917  (options, handed on)
        self,
        operation_id: str | None,
        name: str | None,
        parent: Cancelable | None,
        linked_to: tuple[CancelationToken, ...],
        metadata: Mapping[str, Any] | None,
        pause_token: PauseToken | None,
    ) -> None:
        """Describe an operation that nothing has stopped yet."""
        super().__init__(operation_id, name, parent, linked_to, metadata)
        self._pause_token = pause_token
        self._timer: Timer | None = None
        self._children: dict[Cancelable, None] | None = None
        self._forced = False
        self._is_open = False

    @property
    def is_stopping(self) -> bool:
        """Whether the body is being stopped, and not only asked to end."""
        cause = self.cause
        if cause is None or self._status is not OperationStatus.RUNNING:
            return False
        return self._forced or not cause.grace or (self._is_open and self._scope.cancel_called)

    # -- deadline ----------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When it stops, on its loop's clock; infinite without a limit and before entry."""
        if self._status is not OperationStatus.RUNNING:
            return math.inf
        own = math.inf if self._timer is None else self._timer.effective
        parent = self._parent
        if parent is None or parent._status is not OperationStatus.RUNNING:
            return own
        return min(own, parent.deadline) if parent._loop == self._loop else own

    def remaining(self) -> float:
        """Seconds until the deadline, at least 0; the frozen rest while paused."""
        if self._status is not OperationStatus.RUNNING:
            return math.inf
        now = self._loop.time()
        own = math.inf if self._timer is None else self._timer.remaining(now)
        return max(0.0, min(own, self.deadline - now))

    def extend(self, seconds: Seconds) -> None:
        """Move the own time limit by ``seconds``, earlier if negative.

        A limit that comes from a parent stays where it is.

        Raises:
            RuntimeError: If it is not running, or has no limit to move.
        """
        if self._status is not OperationStatus.RUNNING or self._timer is None:
            msg = f"{self.label} has no running time limit to extend"
            raise RuntimeError(msg)
        self._timer.extend(to_seconds(seconds))
        self._rearm()

    def reschedule(self, timeout: Seconds) -> None:
        """Set the own time limit to ``timeout`` seconds from now.

        Raises:
            RuntimeError: If it is not running.
        """
        if self._status is not OperationStatus.RUNNING:
            msg = f"{self.label} is not running"
            raise RuntimeError(msg)
        self._timer = self._timer or Timer()
        self._timer.restart(self._loop.time(), to_seconds(timeout))
        self._rearm()

    # -- cancelling --------------------------------------------------------------------

    def cancel(
        self,
        reason: CancelationReason = CancelationReason.MANUAL,
        message: str | None = None,
        *,
        grace: Seconds = 0.0,
    ) -> bool:
        """Cancel, in one or two phases; the first cause wins.

        With ``grace`` the operation is asked first: ``is_cancelled`` turns true and
        ``wait()`` returns, and only after that many seconds the body is stopped. Cancelling
        again without grace stops it now; the cause stays the first.

        Args:
            reason: The kind of event.
            message: A sentence for people.
            grace: Seconds between asking and stopping.

        Returns:
            Whether this call decided; False once the operation has ended.
        """
        seconds = to_seconds(grace)
        cause = Cause(reason=reason, message=message, origin=self.label, grace=seconds)
        return self.cancel_with(cause)

    def cancel_with(self, cause: Cause) -> bool:
        """Cancel for a cause made elsewhere. Same promises as :meth:`cancel`."""
        won = self._decide(cause)
        self._force_if(cause, won=won)
        self._raise_failures()
        return won

    def force(self) -> None:
        """Stop now what was only asked to stop. Does nothing before it was asked."""
        self._forced = True
        self._rearm()

    # -- the token's side --------------------------------------------------------------

    def _ask_upstream(self) -> None:
        if self._status is OperationStatus.RUNNING:
            self._settle()
        if not self._causes and not self._has_ended():
            super()._ask_upstream()

    def _decide(self, cause: Cause) -> bool:
        return not self._has_ended() and super()._decide(cause)

    def _settle(self) -> None:
        """Decide for a time limit that has passed, before anybody else decides."""
        now, parent = self._loop.time(), self._parent
        if self._timer is not None and now >= self._timer.expires:
            self._time_out()
        elif parent is not None and parent.cause is not None:
            self._latch(self._inherit(parent.cause))

    def _time_out(self) -> Cause:
        message = f"after {self._timer.limit:g} s" if self._timer is not None else None
        reason = CancelationReason.TIMEOUT
        self._latch(Cause(reason=reason, message=message, origin=self.label))
        return self._causes[0]

    def _inherit(self, cause: Cause) -> Cause:
        parent = self._parent
        if parent is not None and parent._causes and parent._causes[0] is cause:
            return inherited(cause, parent)
        return cause

    def _outer_cause(self) -> Cause:
        """Why somebody else's cancelation came through here."""
        operation = self._enclosing
        while operation is not None:
            if (cause := operation.cause) is not None:
                return inherited(cause, operation)
            operation = operation._enclosing
        return Cause(reason=CancelationReason.EXTERNAL, message="cancelled from outside")

    def _hear(self, cause: Cause) -> None:
        self.cancel_with(self._inherit(cause))

    def _announce(self) -> None:
        self._rearm()
        super()._announce()

    def _is_heard(self) -> bool:
        if self._status is not OperationStatus.RUNNING:
            return bool(self._callbacks) and not self._has_ended()
        stopped = bool(self._causes) and not self._causes[0].grace
        return not stopped or bool(self._callbacks)

    def _force_if(self, cause: Cause, *, won: bool) -> None:
        if not won and not cause.grace:
            self.force()

    def _limit(self, seconds: float) -> None:
        self._timer = self._timer or Timer()
        self._timer.shorten(self._loop.time(), seconds)

    # -- in the loop's thread ------------------------------------------------------------

    def _rearm(self) -> None:
        if self._status is OperationStatus.RUNNING:
            post(self._loop, self._arm)

    def _arm(self) -> None:
        """Bring the scope in line with the cause, the pause and the deadlines."""
        if self._status is not OperationStatus.RUNNING or not self._is_open:
            return
        now = self._loop.time()
        if self._timer is not None and self._pause_token is not None:
            (self._timer.freeze if self._pause_token.is_paused else self._timer.thaw)(now)
        if self._causes and self._stops(self._causes[0], now):
            self._scope.cancel(str(self._causes[0]))
            return
        self._scope.deadline = self.deadline
        for child in list(self._children or ()):
            child._arm()

    def _stops(self, cause: Cause, now: float) -> bool:
        if self._forced or not cause.grace:
            return True
        self._timer = self._timer or Timer()
        self._timer.force_by(now + cause.grace)
        return False

    def _adopt(self, child: Cancelable) -> None:
        if self._children is None:
            self._children = {}
        self._children[child] = None

    def _disown(self, child: Cancelable) -> None:
        if self._children is not None:
            self._children.pop(child, None)


def inherited(cause: Cause, parent: OperationState) -> Cause:
    """``cause`` as a child of ``parent`` sees it."""
    return Cause(
        reason=CancelationReason.PARENT,
        message=cause.message,
        origin=parent.label,
        grace=cause.grace,
        signum=cause.signum,
        parent=cause,
    )
