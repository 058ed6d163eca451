"""What can be read about an operation, while it runs and after."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._state import OperationState
    from ._types import CancelationReason, Cause, OperationStatus

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Partial(Generic[T]):
    """What a stream has handed over.

    Attributes:
        position: Number of items handed over.
        items: The items that were kept, oldest first.
        completed: Whether the source came to its own end.
    """

    position: int
    items: tuple[T, ...]
    completed: bool

    @property
    def truncated(self) -> bool:
        """Whether items were handed over that were not kept."""
        return len(self.items) < self.position


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSnapshot:
    """An operation at one moment. Immutable, and free of references to what ran in it.

    Attributes:
        id: Unique id.
        name: Name given by the author, or empty.
        parent_id: Id of the operation around it, if any.
        status: Where it was in its life.
        cause: Why it was cancelled, if it was.
        started_at: Start, in seconds since the epoch; None before.
        ended_at: End, in seconds since the epoch; None before.
        duration: Seconds on the event loop's clock, so far or in all.
        progress: The last message given to ``report_progress``.
        error: Type and text of the exception that the body raised.
        metadata: What the author attached.
    """

    id: str
    name: str
    parent_id: str | None
    status: OperationStatus
    cause: Cause | None
    started_at: float | None
    ended_at: float | None
    duration: float
    progress: str | None
    error: str | None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name, or the id where there is none."""
        return self.name or self.id


class OperationContext:
    """A live, read-only view of an operation; stays readable after its block.

    Example:
        >>> from cancelable_core import Cancelable
        >>> Cancelable(name="import").context.status
        <OperationStatus.PENDING: 'pending'>
    """

    __slots__ = ("_operation",)

    def __init__(self, operation: OperationState) -> None:
        """View ``operation``."""
        self._operation = operation

    @property
    def id(self) -> str:
        """Unique id."""
        return self._operation.id

    @property
    def name(self) -> str:
        """Name given by the author, or empty."""
        return self._operation.name

    @property
    def parent_id(self) -> str | None:
        """Id of the operation around it, if any."""
        return self._operation.parent_id

    @property
    def status(self) -> OperationStatus:
        """Where the operation is in its life."""
        return self._operation.status

    @property
    def cause(self) -> Cause | None:
        """Why it was cancelled; None if it was not."""
        return self._operation.cause

    @property
    def reason(self) -> CancelationReason | None:
        """The kind of cause."""
        cause = self.cause
        return None if cause is None else cause.reason

    @property
    def message(self) -> str | None:
        """The canceller's sentence."""
        cause = self.cause
        return None if cause is None else cause.message

    @property
    def started_at(self) -> float | None:
        """Start, in seconds since the epoch."""
        return self.snapshot().started_at

    @property
    def ended_at(self) -> float | None:
        """End, in seconds since the epoch."""
        return self.snapshot().ended_at

    @property
    def duration(self) -> float:
        """Seconds on the event loop's clock, so far or in all."""
        return self.snapshot().duration

    @property
    def progress(self) -> str | None:
        """The last message given to ``report_progress``."""
        return self.snapshot().progress

    @property
    def error(self) -> str | None:
        """Type and text of the exception that the body raised."""
        return self.snapshot().error

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the author attached."""
        return self._operation.metadata

    @property
    def partial_result(self) -> Partial[Any] | None:
        """What the operation's last stream has handed over."""
        return self._operation.partial_result

    def snapshot(self) -> OperationSnapshot:
        """All of it at this moment."""
        return self._operation.snapshot()
