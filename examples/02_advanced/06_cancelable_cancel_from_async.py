"""Cancelling from another task: at once, or by asking first.

Run: python examples/02_advanced/06_cancelable_cancel_from_async.py [--demo]
"""

from __future__ import annotations

import anyio

from cancelable_core import Cancelable


async def polite(cancel: Cancelable) -> None:
    """Ends at the next good place after it was asked."""
    async with cancel:
        page = 0
        while not cancel.is_cancelled:
            page += 1
            await anyio.sleep(0.01)
        print("asked to end; finishing the page")
        await anyio.sleep(0.01)


async def stubborn(cancel: Cancelable) -> None:
    async with cancel:
        await anyio.sleep(60)


async def main() -> None:
    for body in (polite, stubborn):
        cancel = Cancelable(name=body.__name__, when_cancelled="absorb")
        async with anyio.create_task_group() as group:
            group.start_soon(body, cancel)
            await anyio.sleep(0.05)
            cancel.cancel(message="please", grace=0.1)
        print(f"{cancel.name}: {cancel.context.status}, because of {cancel.cause}")


if __name__ == "__main__":
    anyio.run(main)
