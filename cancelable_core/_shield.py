"""A block that cancelations wait for, for a bounded time if asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

from ._background import Background


class Shield:
    """An async context manager; made by :meth:`Cancelable.shield`."""

    __slots__ = ("_background", "_limit", "_scope", "lifted")

    def __init__(self, limit: float | None = None) -> None:
        """Hold for ``limit`` seconds, or as long as the block takes."""
        self._limit = limit
        self._background: Background | None = None
        self._scope: anyio.CancelScope | None = None
        self.lifted = False
        """Whether the limit passed while the block ran."""

    async def __aenter__(self) -> Self:
        """Raise the shield."""
        if self._limit is None:
            self._scope = anyio.CancelScope(shield=True)
            self._scope.__enter__()
        else:
            self._background = await Background(shield=True).__aenter__()
            self._background.start_soon(self._lift_after, self._background, self._limit)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Lower it. A cancelation that came meanwhile is delivered at the next checkpoint."""
        if self._background is not None:
            await self._background.__aexit__(exc_type, exc, tb)
        if self._scope is not None:
            self._scope.__exit__(exc_type, exc, tb)

    async def _lift_after(self, background: Background, seconds: float) -> None:
        await anyio.sleep(max(0, seconds))
        self.lifted = True
        background.lift_shield()
