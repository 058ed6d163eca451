"""The nouns of the library: why something was cancelled, and how it ended.

A leaf: imports nothing of ours.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

Seconds: TypeAlias = "float | timedelta"
"""A duration: a number of seconds, or a ``timedelta``."""

WhenCancelled: TypeAlias = Literal["raise", "absorb", "propagate"]
"""How a block ends that was stopped by its own cancelation."""


class CancelationReason(StrEnum):
    """What kind of event asked for the cancelation."""

    TIMEOUT = "timeout"
    MANUAL = "manual"
    SIGNAL = "signal"
    CONDITION = "condition"
    PARENT = "parent"
    EXTERNAL = "external"
    """Somebody outside the library: an enclosing scope, ``task.cancel()``, a lost client."""


class OperationStatus(StrEnum):
    """Where an operation is in its life."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether the operation has ended."""
        return self not in (OperationStatus.PENDING, OperationStatus.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why something was cancelled. Immutable; the first one wins and stays.

    Attributes:
        reason: The kind of event.
        message: A sentence for people, if the canceller gave one.
        origin: Name or id of the token or operation that was cancelled first.
        at: When it was decided, in seconds since the epoch.
        grace: Seconds that operations may go on after they were asked; 0 stops them at once.
        signum: The number of the signal, for ``CancelationReason.SIGNAL``.
        error: The exception that made a source give up, if one did.
        parent: The cause one level up, when this one was inherited.
    """

    reason: CancelationReason
    message: str | None = None
    origin: str = ""
    at: float = field(default_factory=time.time)
    grace: float = 0.0
    signum: int | None = None
    error: BaseException | None = None
    parent: Cause | None = None

    def chain(self) -> Iterator[Cause]:
        """This cause, then the one that led to it, up to the first."""
        cause: Cause | None = self
        while cause is not None:
            yield cause
            cause = cause.parent

    @property
    def root(self) -> Cause:
        """The first cause of the chain."""
        *_, first = self.chain()
        return first

    def __str__(self) -> str:
        """Name the reason and, where there is one, the message."""
        return f"{self.reason}: {self.message}" if self.message else str(self.reason)


class Closable(Protocol):
    """Something attached that can be detached again."""

    def close(self) -> None:
        """Detach. Calling it twice does nothing."""
        ...


def to_seconds(duration: Seconds) -> float:
    """Turn a duration into seconds.

    Raises:
        ValueError: If it is not a number.
    """
    seconds = float(duration) if isinstance(duration, int | float) else duration.total_seconds()
    if math.isnan(seconds):
        msg = "a duration must be a number of seconds"
        raise ValueError(msg)
    return seconds
