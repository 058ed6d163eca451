"""Helper tasks that run beside a body, in its own task tree, and end with it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskGroup


class Background:
    """A task group for helpers that leaves the body's exceptions as they are.

    An ordinary task group wraps what the body raised into a group, and a cancelled one
    raises anew. Helpers are not the body's business: they are cancelled and waited for, and
    what the body raised goes on unchanged.
    """

    __slots__ = ("_group", "_shield")

    _group: TaskGroup

    def __init__(self, *, shield: bool = False) -> None:
        self._shield = shield

    async def __aenter__(self) -> Self:
        self._group = await anyio.create_task_group().__aenter__()
        self._group.cancel_scope.shield = self._shield
        return self

    def lift_shield(self) -> None:
        """Let enclosing cancelations through from now on."""
        self._group.cancel_scope.shield = False

    def start_soon(self, helper: Callable[..., Coroutine[Any, Any, Any]], *args: object) -> None:
        """Run ``helper(*args)`` until it ends or the body does."""
        self._group.start_soon(partial(helper, *args))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        # The shield keeps an enclosing cancelation from being raised a second time here.
        self._group.cancel_scope.shield = True
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
