"""Cancelling from a plain thread, and threads that can be cancelled.

Run: python examples/02_advanced/05_cancelable_cancel_from_thread.py [--demo]
"""

from __future__ import annotations

import threading
import time

import anyio

from cancelable_core import Cancelable, CancelationToken, check_cancelled, run_in_thread


def crunch() -> None:
    """Blocking work that looks, now and then, whether it should stop."""
    try:
        for _ in range(10_000):
            time.sleep(0.005)
            check_cancelled()
    finally:
        print("the thread cleaned up")


async def main() -> None:
    token = CancelationToken(name="watchdog")
    threading.Timer(0.05, token.cancel, kwargs={"message": "from a thread"}).start()
    async with Cancelable.with_token(token, when_cancelled="absorb") as cancel:
        await anyio.Event().wait()  # nothing else happens in this loop; it wakes at once
    print("an idle loop woke:", cancel.cause)

    async with Cancelable.with_timeout(0.05, when_cancelled="absorb") as cancel:
        await run_in_thread(crunch)
    print("blocking work was stopped:", cancel.context.status)


if __name__ == "__main__":
    anyio.run(main)
