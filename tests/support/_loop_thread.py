"""An asyncio loop in a thread of its own, so that synchronous tests can hold servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["LoopThread"]

T = TypeVar("T")
_PATIENCE_S = 10.0


class LoopThread:
    """Runs an event loop in a daemon thread between ``__enter__`` and ``__exit__``."""

    def __init__(self, name: str) -> None:
        """Name the thread; nothing runs yet."""
        self._name = name
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def __enter__(self) -> Self:
        """Start the loop."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cancel what is left, stop the loop and join the thread."""
        self.call(_cancel_rest)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_PATIENCE_S)
        if self._thread.is_alive():
            raise RuntimeError(f"the loop of {self._name} did not stop")
        self.loop.close()

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        """Run ``function(*args)`` in the loop and wait for its result."""
        future = asyncio.run_coroutine_threadsafe(function(*args), self.loop)
        return future.result(_PATIENCE_S)

    def spawn(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Let the loop run ``work`` until it ends; ``__exit__`` cancels it if it has not."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)


async def _cancel_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await asyncio.sleep(0)  # what was closed just now is let go of in the loop's next round
