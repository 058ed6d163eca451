"""Streams: where they were stopped, what was handed over, and that the source is closed.

Run: python examples/04_streams/01_stream_processing.py [--demo]
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

from cancelable_core import (
    Cancelable,
    PauseToken,
    cancelable_stream,
    chunked_cancelable_stream,
)


async def rows(start: int = 0) -> AsyncIterator[int]:
    try:
        for number in range(start, 20):
            await anyio.sleep(0.02)
            yield number
    finally:
        print("  (the source was closed)")


async def stopped_and_resumed() -> None:
    seen: list[int] = []
    async with Cancelable.with_timeout(0.2, when_cancelled="absorb") as cancel:
        async for row in cancelable_stream(rows(), cancel, buffer_partial=True):
            seen.append(row)
    partial = cancel.context.partial_result
    assert partial is not None
    print("stopped in the middle:", 0 < partial.position < 20)
    print("nothing was lost or invented:", list(partial.items) == seen)

    async with Cancelable() as cancel:
        async for row in cancelable_stream(rows(start=partial.position), cancel):
            seen.append(row)
    print("resumed from there, all in order:", seen == list(range(20)))


async def chunks() -> None:
    async with Cancelable() as cancel:
        sizes = [len(chunk) async for chunk in chunked_cancelable_stream(rows(), 8, cancel)]
    print("chunks of", sizes)


async def with_a_slow_consumer() -> None:
    gate = PauseToken()

    async def pause_for_a_moment() -> None:
        await anyio.sleep(0.05)
        gate.pause()
        await anyio.sleep(1.6)
        gate.resume()

    async with anyio.create_task_group() as group:
        group.start_soon(pause_for_a_moment)
        async with Cancelable.with_timeout(1.5, pause_token=gate) as cancel:
            async for _ in cancelable_stream(rows(), cancel):
                await gate.wait_while_paused()
    print("paused, and the pause did not count:", cancel.context.status)


async def main() -> None:
    await stopped_and_resumed()
    await chunks()
    await with_a_slow_consumer()


if __name__ == "__main__":
    anyio.run(main)
