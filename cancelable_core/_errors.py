"""The errors that a cancelled block raises.

::

    CancelationError
    ├── TimeoutCancelation      also a TimeoutError
    ├── ManualCancelation
    ├── SignalCancelation
    ├── ConditionCancelation
    └── ParentCancelation

A cancelation that came from outside the library stays what the event loop made of it
(``asyncio.CancelledError``, ``trio.Cancelled``): these errors never stand in for it.
"""

from __future__ import annotations

import anyio

from ._types import CancelationReason, Cause


class CancelationError(Exception):
    """A block was stopped by its own cancelation.

    Attributes:
        cause: Why.
        operation: Name of the operation or token that raised it.
    """

    cause: Cause
    operation: str

    def __init__(self, cause: Cause, operation: str = "") -> None:
        """Describe ``cause`` as it stopped ``operation``."""
        super().__init__(_describe(cause, operation))
        self.cause = cause
        self.operation = operation

    def __reduce__(self) -> tuple[type[CancelationError], tuple[Cause, str]]:
        """Make errors cross process boundaries whole."""
        return type(self), (self.cause, self.operation)

    @property
    def reason(self) -> CancelationReason:
        """The kind of event that asked for the cancelation."""
        return self.cause.reason


class TimeoutCancelation(CancelationError, TimeoutError):
    """A deadline passed."""


class ManualCancelation(CancelationError):
    """Somebody called ``cancel()``."""


class SignalCancelation(CancelationError):
    """The process received a signal."""


class ConditionCancelation(CancelationError):
    """A watched condition became true."""


class ParentCancelation(CancelationError):
    """The parent operation was cancelled."""


_BY_REASON: dict[CancelationReason, type[CancelationError]] = {
    CancelationReason.TIMEOUT: TimeoutCancelation,
    CancelationReason.MANUAL: ManualCancelation,
    CancelationReason.SIGNAL: SignalCancelation,
    CancelationReason.CONDITION: ConditionCancelation,
    CancelationReason.PARENT: ParentCancelation,
    CancelationReason.EXTERNAL: CancelationError,
}


def error_for(cause: Cause, operation: str = "") -> CancelationError:
    """The typed error of a cause."""
    return _BY_REASON[cause.reason](cause, operation)


def _describe(cause: Cause, operation: str) -> str:
    what = f"{operation} was cancelled" if operation else "cancelled"
    return f"{what} ({cause})"


def is_cancelation(error: BaseException) -> bool:
    """Whether ``error`` is the event loop's own cancelled exception, or only groups of it."""
    if isinstance(error, GeneratorExit):  # perhaps of a task whose loop is gone
        return False
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        return error.split(cancelled)[1] is None
    return isinstance(error, cancelled)


def is_remade(group: BaseException | None, other: BaseException) -> bool:
    """Whether ``other`` is ``group`` made anew: trio does so where no cancelation was in it."""
    if not (isinstance(group, BaseExceptionGroup) and isinstance(other, BaseExceptionGroup)):
        return False
    return group.split(anyio.get_cancelled_exc_class())[0] is None


def raise_all(errors: list[Exception], message: str) -> None:
    """Raise what was collected: one error as it is, several as a group; none is no error."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup(message, errors)


def described(error: BaseException) -> str:
    """Type and text of an exception, on one line."""
    return f"{type(error).__name__}: {error}"
