"""Records what operations do, for tests to ask about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from cancelable_core._registry import EventKind, OperationEvent, OperationRegistry

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from cancelable_core._context import OperationSnapshot
    from cancelable_core._types import CancelationReason, OperationStatus


@dataclass(slots=True)
class OperationRecorder:
    """A registry's life story. Use as a context manager around what is tested.

    Example:
        >>> import anyio
        >>> from cancelable_core import Cancelable
        >>> async def main():
        ...     with OperationRecorder() as recorder:
        ...         async with Cancelable(name="job", registry=recorder.registry):
        ...             pass
        ...     return recorder.story
        >>> anyio.run(main)
        ['job started', 'job completed']

    Attributes:
        registry: The registry that is listened to; give it to operations.
        events: What happened, in order.
    """

    registry: OperationRegistry = field(default_factory=OperationRegistry)
    events: list[OperationEvent] = field(default_factory=list)
    _observation: object = None

    def __enter__(self) -> Self:
        """Start to listen."""
        self._observation = self.registry.observe(self.events.append)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Stop."""
        self._observation.close()  # type: ignore[attr-defined]  # set on entry

    @property
    def story(self) -> list[str]:
        """One line an event: the operation's label and what happened to it."""
        return [_told(event) for event in self.events]

    def ended(self, label: str | None = None) -> list[OperationSnapshot]:
        """Operations that ended, all or those called ``label``."""
        return [
            event.operation
            for event in self.events
            if event.kind is EventKind.ENDED and label in (None, event.operation.label)
        ]

    def assert_ended(
        self, label: str, status: OperationStatus, reason: CancelationReason | None = None
    ) -> None:
        """Insist on how one operation ended.

        Raises:
            AssertionError: If none of that name ended, or one ended otherwise.
        """
        ended = self.ended(label)
        if not ended:
            raise AssertionError(f"{label} has not ended; what happened: {self.story}")
        for each in ended:
            found = each.cause.reason if each.cause is not None else None
            if (each.status, found) != (status, reason):
                raise AssertionError(f"{label} ended {each.status} ({found})")


def _told(event: OperationEvent) -> str:
    operation = event.operation
    match event.kind:
        case EventKind.STARTED:
            return f"{operation.label} started"
        case EventKind.PROGRESSED:
            return f"{operation.label}: {operation.progress}"
        case EventKind.ENDED:
            why = f" ({operation.cause})" if operation.cause is not None else ""
            return f"{operation.label} {operation.status}{why}"
        case _:  # pragma: no cover
            assert_never(event.kind)
