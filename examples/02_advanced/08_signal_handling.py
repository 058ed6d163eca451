"""Signals: several operations hear one signal; the first Ctrl-C asks, the second forces.

Run: python examples/02_advanced/08_signal_handling.py   and press Ctrl-C, once or twice.
With --demo it sends the signals to itself.
"""

from __future__ import annotations

import os
import signal
import sys

import anyio

from cancelable_core import Cancelable, CancelationReason, CancelationToken, signal_hub


async def worker(number: int) -> None:
    async with Cancelable.with_signal(signal.SIGUSR1, when_cancelled="absorb") as cancel:
        await anyio.sleep_forever()
    print(f"worker {number} heard {cancel.context.message}")


async def fan_out() -> None:
    async with anyio.create_task_group() as group:
        for number in (1, 2, 3):
            group.start_soon(worker, number)
        await anyio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)


async def ask_then_force(*, demo: bool) -> None:
    ask, force = CancelationToken(name="first Ctrl-C"), CancelationToken(name="second Ctrl-C")

    def pressed(signum: int) -> None:
        if not ask.cancel(CancelationReason.SIGNAL, signal.Signals(signum).name, grace=30):
            force.cancel(CancelationReason.SIGNAL, "again")

    with signal_hub.subscribe([signal.SIGINT], pressed):
        async with anyio.create_task_group() as group:
            if demo:
                group.start_soon(press_twice)
            async with Cancelable(linked_to=(ask, force), when_cancelled="absorb") as cancel:
                print("working; press Ctrl-C")
                await cancel.wait()
                print("asked to end; I shall be done in half a minute (Ctrl-C again to force)")
                await anyio.sleep(29)
                print("done")
    print("ended:", cancel.context.status, "because of", cancel.cause)


async def press_twice() -> None:
    for _ in range(2):
        await anyio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)


async def main(*, demo: bool) -> None:
    if demo:
        await fan_out()
    await ask_then_force(demo=demo)


if __name__ == "__main__":
    anyio.run(lambda: main(demo="--demo" in sys.argv))
