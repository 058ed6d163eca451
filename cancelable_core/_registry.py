"""A list of running operations, and a short memory of those that ended.

A registry belongs to whoever makes it and is handed to operations; the process has one by
default, for those who say ``register_globally=True``. Reading and cancelling works from any
thread: tables are changed in single steps and copied before they are walked.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import anyio

from ._closing import Closing
from ._loops import post, running_loop
from ._types import CancelationReason, OperationStatus, Seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._context import OperationSnapshot
    from ._operation import Cancelable


class EventKind(StrEnum):
    """What happened to an operation."""

    STARTED = "started"
    PROGRESSED = "progressed"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class OperationEvent:
    """Something that happened to an operation.

    Attributes:
        kind: What.
        operation: The operation as it was right after.
    """

    kind: EventKind
    operation: OperationSnapshot


@dataclass(frozen=True, slots=True)
class RegistryStatistics:
    """Counts since the registry was made.

    Attributes:
        running: Operations that run now.
        started: Operations that were ever entered.
        by_status: How many ended in each final status.
        by_reason: How many were cancelled for each reason.
        mean_duration: Mean seconds of those that ended; 0 before the first.
    """

    running: int
    started: int
    by_status: Mapping[OperationStatus, int]
    by_reason: Mapping[CancelationReason, int]
    mean_duration: float


class OperationRegistry:
    """Running operations by id, and the last ended ones.

    Example:
        >>> from cancelable_core import Cancelable
        >>> registry = OperationRegistry(history=10)
        >>> async def main():
        ...     async with Cancelable("import-1", registry=registry):
        ...         return [each.id for each in registry.list()]
        >>> anyio.run(main)
        ['import-1']
    """

    def __init__(self, *, history: int = 1000) -> None:
        """Remember the last ``history`` operations that ended."""
        self._running: dict[str, Cancelable] = {}
        self._history: deque[OperationSnapshot] = deque(maxlen=history)
        self._observers: dict[Observation, None] = {}
        self._started = 0
        self._seconds = 0.0
        self._by_status: Counter[OperationStatus] = Counter()
        self._by_reason: Counter[CancelationReason] = Counter()

    # -- reading -------------------------------------------------------------------------

    def get(self, operation_id: str) -> Cancelable | None:
        """The running operation with this id."""
        return self._running.get(operation_id)

    def list(
        self, *, name: str | None = None, parent_id: str | None = None
    ) -> tuple[OperationSnapshot, ...]:
        """Snapshots of the running operations, oldest first, optionally of one name or parent."""
        snapshots = (operation.snapshot() for operation in self._copy())
        return tuple(
            each
            for each in snapshots
            if (name is None or each.name == name)
            and (parent_id is None or each.parent_id == parent_id)
        )

    def history(self, limit: int | None = None) -> tuple[OperationSnapshot, ...]:
        """The operations that ended, oldest first; the last ``limit`` of them."""
        ended = tuple(self._history.copy())
        return ended if limit is None else ended[max(0, len(ended) - limit) :]

    def statistics(self) -> RegistryStatistics:
        """Counts since the registry was made."""
        ended = sum(self._by_status.values())
        return RegistryStatistics(
            running=len(self._running),
            started=self._started,
            by_status=dict(self._by_status),
            by_reason=dict(self._by_reason),
            mean_duration=self._seconds / ended if ended else 0.0,
        )

    def __len__(self) -> int:
        """How many operations run."""
        return len(self._running)

    # -- acting --------------------------------------------------------------------------

    def cancel(
        self,
        operation_id: str,
        reason: CancelationReason = CancelationReason.MANUAL,
        message: str | None = None,
        *,
        grace: Seconds = 0.0,
    ) -> bool:
        """Cancel one operation. Returns whether this call decided."""
        operation = self._running.get(operation_id)
        return operation is not None and operation.cancel(reason, message, grace=grace)

    def cancel_all(
        self,
        reason: CancelationReason = CancelationReason.MANUAL,
        message: str | None = None,
        *,
        grace: Seconds = 0.0,
    ) -> int:
        """Cancel every running operation. Returns for how many this call decided."""
        return sum(each.cancel(reason, message, grace=grace) for each in self._copy())

    async def wait_until_done(self, operation_id: str | None = None) -> None:
        """Return when the operation, or every operation, has ended."""
        loop, event = running_loop(), anyio.Event()

        def is_done() -> bool:
            return operation_id not in self._running if operation_id else not self._running

        def look(_: OperationEvent) -> None:
            if is_done():
                post(loop, event.set)

        with self.observe(look):
            if not is_done():
                await event.wait()
        await anyio.lowlevel.checkpoint()

    def observe(self, observer: Callable[[OperationEvent], object]) -> Observation:
        """Call ``observer(event)`` for everything that happens, in the operation's thread.

        An exception it raises is raised in the operation that caused the event.

        Returns:
            A handle that ends it when closed; also a context manager.
        """
        observation = Observation(self._observers, observer)
        self._observers[observation] = None
        return observation

    # -- heard from operations -------------------------------------------------------------

    def started(self, operation: Cancelable) -> None:
        """List a running operation.

        Raises:
            ValueError: If another one of that id runs.
        """
        if self._running.setdefault(operation.id, operation) is not operation:
            raise ValueError(f"an operation with the id {operation.id} is running already")
        self._started += 1
        self._tell(EventKind.STARTED, operation)

    def progressed(self, operation: Cancelable) -> None:
        """Tell observers."""
        self._tell(EventKind.PROGRESSED, operation)

    def ended(self, operation: Cancelable) -> None:
        """Move an operation from the running to the ended."""
        if self._running.get(operation.id) is not operation:
            return
        del self._running[operation.id]
        snapshot = operation.snapshot()
        self._history.append(snapshot)
        self._seconds += snapshot.duration
        self._by_status[snapshot.status] += 1
        if snapshot.cause is not None and snapshot.status is not OperationStatus.COMPLETED:
            self._by_reason[snapshot.cause.reason] += 1
        self._tell(EventKind.ENDED, operation)

    def _tell(self, kind: EventKind, operation: Cancelable) -> None:
        if self._observers:
            event = OperationEvent(kind, operation.snapshot())
            for observation in tuple(self._observers.copy()):
                observation.observer(event)

    def _copy(self) -> tuple[Cancelable, ...]:
        return tuple(self._running.copy().values())


class Observation(Closing):
    """An observer that hears of operations. Close it, or use it as a context manager."""

    __slots__ = ("_table", "observer")

    def __init__(
        self, table: dict[Observation, None], observer: Callable[[OperationEvent], object]
    ) -> None:
        """Belong to a registry; made by :meth:`OperationRegistry.observe`."""
        self._table = table
        self.observer = observer

    def close(self) -> None:
        """Stop observing."""
        self._table.pop(self, None)


_default = OperationRegistry()


def default_registry() -> OperationRegistry:
    """The process's registry, that of ``register_globally=True``."""
    return _default
