"""Callbacks that the author of an operation hangs on it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

from ._errors import raise_all
from ._loops import is_in_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._context import OperationContext

    ContextCallback: TypeAlias = Callable[[OperationContext], object]
    """Called with the context; what it returns is awaited if it can be."""
    ErrorCallback: TypeAlias = Callable[[OperationContext, BaseException], object]
    ProgressCallback: TypeAlias = Callable[[str, str, Mapping[str, Any]], object]
    """Called with the operation's id, the message, and the metadata of the report."""

FINAL_SECONDS = 5.0
"""Seconds that the callbacks of an ending operation may take while it is being cancelled."""


class Hooks:
    """The callbacks of one operation, run in the order in which they were added."""

    __slots__ = ("cancel", "complete", "error", "progress", "start")

    def __init__(self) -> None:
        self.start: list[ContextCallback] = []
        self.progress: list[ProgressCallback] = []
        self.complete: list[ContextCallback] = []
        self.cancel: list[ContextCallback] = []
        self.error: list[ErrorCallback] = []

    def absorb(self, other: Hooks) -> None:
        """Also call what ``other`` calls."""
        self.start += other.start
        self.progress += other.progress
        self.complete += other.complete
        self.cancel += other.cancel
        self.error += other.error


async def call_all(callbacks: list[Any], *args: object) -> None:
    """Call each, awaiting what can be awaited.

    Raises:
        Exception: What a callback raised, when all have run.
        ExceptionGroup: If several did.
    """
    errors: list[Exception] = []
    for callback in callbacks:
        try:
            result = callback(*args)
            if inspect.isawaitable(result):
                await result
        except Exception as error:  # noqa: BLE001  (raised when all have run)
            errors.append(error)
    raise_all(errors, "callbacks of an operation raised")


async def call_final(callbacks: list[Any], *args: object) -> None:
    """Call each, also when the task is being cancelled, for a bounded time."""
    if callbacks and not is_in_loop():
        await call_all(callbacks, *args)
    elif callbacks:
        with anyio.move_on_after(FINAL_SECONDS, shield=True):
            await call_all(callbacks, *args)
