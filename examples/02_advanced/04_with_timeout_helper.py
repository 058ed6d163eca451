"""One awaitable with a limit, without a block.

Run: python examples/02_advanced/04_with_timeout_helper.py [--demo]
"""

from __future__ import annotations

import anyio

from cancelable_core import TimeoutCancelation, with_timeout


async def compute(seconds: float) -> int:
    await anyio.sleep(seconds)
    return 42


async def main() -> None:
    print("in time:", await with_timeout(5, compute(0.01)))
    try:
        await with_timeout(0.05, compute(60), name="compute")
    except TimeoutCancelation as error:
        print("too late:", error)


if __name__ == "__main__":
    anyio.run(main)
