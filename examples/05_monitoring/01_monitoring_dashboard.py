"""A live dashboard of operations, fed by events and not by asking.

Run: python examples/05_monitoring/01_monitoring_dashboard.py    (Ctrl-C ends it)
With --demo it runs a fixed load and prints the figures once; --plain appends lines instead
of repainting, for pipes and screen readers.
"""

from __future__ import annotations

import random
import signal
import sys

import anyio

from cancelable_core import Cancelable, OperationRegistry
from cancelable_core.monitoring import Monitor, render

CLEAR = "\x1b[H\x1b[2J"


async def job(registry: OperationRegistry, number: int, dice: random.Random) -> None:
    limit, steps = dice.uniform(0.05, 0.3), dice.randint(1, 8)
    operation = Cancelable.with_timeout(
        limit, name=f"job {number}", registry=registry, when_cancelled="absorb"
    )
    async with operation as cancel:
        for step in range(steps):
            await cancel.report_progress(f"step {step + 1} of {steps}")
            await anyio.sleep(0.04)


async def load(registry: OperationRegistry, jobs: int | None) -> None:
    dice, number = random.Random(7), 0  # noqa: S311  (a show, no secret)
    async with anyio.create_task_group() as group:
        while jobs is None or number < jobs:
            number += 1
            group.start_soon(job, registry, number, dice)
            await anyio.sleep(0.02)


async def repaint(monitor: Monitor, changed: anyio.Event, *, plain: bool) -> None:
    """Paint when something has changed, at most four times a second."""
    await changed.wait()
    text = render(monitor.figures())
    print(text.splitlines()[0] if plain else CLEAR + text, flush=True)
    await anyio.sleep(0.25)


async def live(*, plain: bool) -> None:
    registry, changed = OperationRegistry(), anyio.Event()

    def wake() -> None:
        changed.set()

    with Monitor(registry, on_change=wake) as monitor:
        async with (
            Cancelable.with_signal(signal.SIGINT, when_cancelled="absorb"),
            anyio.create_task_group() as group,
        ):
            group.start_soon(load, registry, None)
            while True:
                await repaint(monitor, changed, plain=plain)
                changed = anyio.Event()


async def demo() -> None:
    registry = OperationRegistry()
    with Monitor(registry) as monitor:
        async with anyio.create_task_group() as group:
            group.start_soon(load, registry, 20)
            await anyio.sleep(0.2)
            print(render(monitor.figures(), width=60))
        print(render(monitor.figures(), width=60))


if __name__ == "__main__":
    if "--demo" in sys.argv:
        anyio.run(demo)
    else:
        anyio.run(lambda: live(plain="--plain" in sys.argv))
