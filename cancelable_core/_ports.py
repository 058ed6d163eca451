"""What an operation needs of the parts above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ._context import Partial
    from ._operation import Cancelable


class Registry(Protocol):
    """Hears of every operation that was given to it. Called in the operation's task."""

    def started(self, operation: Cancelable) -> None:
        """The operation was entered."""
        ...

    def progressed(self, operation: Cancelable) -> None:
        """It reported progress."""
        ...

    def ended(self, operation: Cancelable) -> None:
        """It has ended, and is detached from everything else."""
        ...


class OpenStream(Protocol):
    """A stream that an operation closes when it ends."""

    @property
    def partial(self) -> Partial[Any]:
        """What it has handed over."""
        ...

    async def aclose(self) -> None:
        """Close the source."""
        ...
