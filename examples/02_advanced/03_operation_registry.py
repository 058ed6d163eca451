"""The registry: what runs, what ran, and a way to stop it.

Run: python examples/02_advanced/03_operation_registry.py [--demo]
"""

from __future__ import annotations

import anyio

from cancelable_core import Cancelable, OperationRegistry


async def job(registry: OperationRegistry, name: str, seconds: float) -> None:
    async with Cancelable(name=name, registry=registry, when_cancelled="absorb") as cancel:
        await cancel.report_progress("started")
        await anyio.sleep(seconds)


async def main() -> None:
    registry = OperationRegistry(history=100)
    with registry.observe(lambda event: print(f"  {event.operation.name} {event.kind}")):
        async with anyio.create_task_group() as group:
            group.start_soon(job, registry, "quick", 0.01)
            await anyio.sleep(0.05)
            group.start_soon(job, registry, "slow", 60)
            await anyio.sleep(0.05)
            print("running:", [each.name for each in registry.list()])
            stopped = await anyio.to_thread.run_sync(registry.cancel_all)
            print("stopped from a thread:", stopped)
            await registry.wait_until_done()

    statistics = registry.statistics()
    print("ended:", {str(status): count for status, count in statistics.by_status.items()})
    print("history:", [(each.name, str(each.status)) for each in registry.history()])


if __name__ == "__main__":
    anyio.run(main)
