"""Shields: what has begun to be saved is saved, but not for ever.

Run: python examples/02_advanced/02_shielded_operations.py [--demo]
"""

from __future__ import annotations

import anyio

from cancelable_core import Cancelable


async def save(rows: int) -> None:
    for _ in range(rows):
        await anyio.sleep(0.01)
    print("saved", rows, "rows")


async def main() -> None:
    async with Cancelable(name="import", when_cancelled="absorb") as cancel:
        cancel.cancel(message="stop")
        async with cancel.shield():
            await save(3)
        await anyio.sleep(60)
        print("never printed")
    print("the cancelation was delivered behind the shield:", cancel.context.status)

    async with Cancelable(when_cancelled="absorb") as cancel:
        cancel.cancel()
        async with cancel.shield(limit=0.05) as shield:
            await save(10_000)
    print("a bounded shield was lifted:", shield.lifted)


if __name__ == "__main__":
    anyio.run(main)
