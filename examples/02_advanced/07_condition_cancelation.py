"""Conditions: stop when something becomes true; here also when a file appears.

Run: python examples/02_advanced/07_condition_cancelation.py
and then, in another terminal: touch stop.flag
With --demo it does that itself, in a temporary directory.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import anyio

from cancelable_core import Cancelable, ConditionCancelation, Notifier


async def polled() -> None:
    ticks = 0

    def enough() -> bool:
        nonlocal ticks
        ticks += 1
        return ticks > 3

    async with Cancelable.with_condition(enough, 0.01, when_cancelled="absorb") as cancel:
        await anyio.sleep(60)
    print("polled:", cancel.cause)


async def pushed() -> None:
    changed, errors = Notifier(), []

    def too_many_errors() -> bool:
        return len(errors) >= 3

    try:
        async with Cancelable.with_condition(too_many_errors, notifier=changed):
            while True:
                errors.append("failed")
                changed.notify()
                await anyio.sleep(0.001)
    except ConditionCancelation as error:
        print("pushed, without polling:", error.cause)


async def watched(file: Path, *, demo: bool) -> None:
    async def appears() -> bool:
        return await anyio.Path(file).exists()

    async with anyio.create_task_group() as group:
        if demo:
            group.start_soon(create, file)
        condition = Cancelable.with_condition(
            appears, 0.02, condition_name=f"{file.name} appeared", when_cancelled="absorb"
        )
        async with condition as cancel:
            print("waiting for", file.name)
            await anyio.sleep_forever()
    print("watched:", cancel.cause)


async def create(file: Path) -> None:
    await anyio.sleep(0.05)
    await anyio.Path(file).touch()


async def main(*, demo: bool) -> None:
    await polled()
    await pushed()
    if demo:
        with tempfile.TemporaryDirectory() as directory:
            await watched(Path(directory, "stop.flag"), demo=True)
    else:
        await watched(Path("stop.flag"), demo=False)


if __name__ == "__main__":
    anyio.run(lambda: main(demo="--demo" in sys.argv))
