"""An operation: a block that has a name, a life, and knows how it ended.

Run: python examples/01_basics/01_basic_cancelation.py [--demo]
"""

from __future__ import annotations

import anyio

from cancelable_core import Cancelable, ManualCancelation, current_operation


async def main() -> None:
    async with Cancelable(name="greeting") as cancel:
        print("running:", cancel.context.status)
        print("inside, it can be found:", current_operation() is cancel)
        await anyio.sleep(0.01)
    print("after:", cancel.context.status)

    try:
        async with Cancelable(name="too long") as cancel:
            cancel.cancel(message="changed my mind")
            await anyio.sleep(60)
            print("never printed")
    except ManualCancelation as error:
        print("stopped:", error)
    print("reason:", cancel.context.reason)

    async with Cancelable(name="optional", when_cancelled="absorb") as cancel:
        cancel.cancel()
        await anyio.sleep(60)
    print("absorbed, and the program goes on")


if __name__ == "__main__":
    anyio.run(main)
