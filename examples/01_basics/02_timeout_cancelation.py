"""Time limits: they raise, they can be absorbed, moved, and looked at.

Run: python examples/01_basics/02_timeout_cancelation.py [--demo]
"""

from __future__ import annotations

from datetime import timedelta

import anyio

from cancelable_core import Cancelable, TimeoutCancelation


async def main() -> None:
    try:
        async with Cancelable.with_timeout(0.05, name="download"):
            await anyio.sleep(60)
    except TimeoutCancelation as error:
        print("raised:", error)
        print("also a TimeoutError:", isinstance(error, TimeoutError))

    async with Cancelable.with_timeout(
        timedelta(milliseconds=50), when_cancelled="absorb"
    ) as cancel:
        await anyio.sleep(60)
    print("absorbed:", cancel.context.status)

    async with Cancelable.with_timeout(0.05) as cancel:
        cancel.extend(60)
        await anyio.sleep(0.1)
        print("extended, more than 50 s left:", cancel.remaining() > 50)

    short, long = Cancelable.with_timeout(0.05), Cancelable.with_timeout(60)
    async with long.combine(short) as cancel:
        print("the shortest counts:", cancel.remaining() < 1)


if __name__ == "__main__":
    anyio.run(main)
