"""Small conveniences on top of operations."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, TypeVar

from ._operation import Cancelable

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ._types import Seconds

T = TypeVar("T")


async def with_timeout(
    timeout: Seconds,  # noqa: ASYNC109  (it makes the scope that the rule asks for)
    awaitable: Awaitable[T],
    *,
    name: str | None = None,
) -> T:
    """Await something for at most ``timeout`` seconds.

    Raises:
        TimeoutCancelation: If it took longer.
        ValueError: If ``timeout`` is not a number; a coroutine is closed then.

    Example:
        >>> import anyio
        >>> async def answer():
        ...     return 42
        >>> async def main():
        ...     return await with_timeout(5, answer())
        >>> anyio.run(main)
        42
    """
    try:
        operation = Cancelable.with_timeout(timeout, name=name)
    except ValueError:
        if inspect.iscoroutine(awaitable):
            awaitable.close()
        raise
    async with operation:
        return await awaitable
