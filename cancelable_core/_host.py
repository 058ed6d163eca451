"""The side of an operation that its sources see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._closing import close_all
from ._loops import is_in_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from ._background import Background
    from ._operation import Cancelable
    from ._sources import CancelationSource
    from ._token import CancelationToken
    from ._types import Cause, Closable


class Host:
    """Implements :class:`SourceHost` for one run of an operation."""

    __slots__ = ("_attached", "_background", "_operation", "_watchers")

    def __init__(self, operation: Cancelable) -> None:
        self._operation = operation
        self._attached: list[Closable] = []
        self._watchers: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._background: Background | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing has to be undone."""
        return not (self._attached or self._watchers)

    def attach(self, sources: Iterable[CancelationSource]) -> None:
        """Start the sources; on failure, those already started are stopped."""
        try:
            for source in sources:
                if (handle := source.attach(self)) is not None:
                    self._attached.append(handle)
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Stop the sources, last to first."""
        close_all(self._attached)

    async def start_watchers(self) -> None:
        """Run what sources asked to be run."""
        if self._watchers:
            from ._background import Background  # noqa: PLC0415  (start-up does not pay for it)

            self._background = await Background().__aenter__()
            for watcher in self._watchers:
                self._background.start_soon(watcher)

    async def stop_watchers(self) -> None:
        """End it, and wait until it has ended."""
        if self._background is not None and is_in_loop():
            await self._background.__aexit__(None, None, None)

    # -- SourceHost --------------------------------------------------------------------

    def fire(self, cause: Cause) -> None:
        """Cancel the operation."""
        self._operation.cancel_with(cause)

    def limit(self, seconds: float) -> None:
        """Shorten the operation's deadline."""
        self._operation._limit(seconds)  # noqa: SLF001

    def follow(self, token: CancelationToken) -> Closable:
        """Cancel the operation with ``token``."""
        return token.register(self._operation.cancel_with)

    def run(self, watcher: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``watcher`` beside the body."""
        self._watchers.append(watcher)
