"""The same program on asyncio and on trio: what it prints must be the same.

Run: python examples/backend_validation/both_loops.py [--demo]
"""

from __future__ import annotations

import threading

import anyio

from cancelable_core import Cancelable, CancelationToken, current_operation, run_in_thread


async def story() -> list[str]:
    lines = []
    async with Cancelable.with_timeout(0.02, when_cancelled="absorb") as cancel:
        await anyio.sleep_forever()
    lines.append(f"timeout: {cancel.context.status}")

    token = CancelationToken()
    threading.Timer(0.02, token.cancel).start()
    async with Cancelable.with_token(token, when_cancelled="absorb") as cancel:
        await anyio.sleep_forever()
    lines.append(f"from a thread: {cancel.context.reason}")

    with anyio.move_on_after(0.02):
        async with Cancelable() as cancel:
            await anyio.sleep_forever()
    lines.append(f"from outside: {cancel.context.reason}")

    async with Cancelable(name="thread") as cancel:
        found = await run_in_thread(current_operation)
    lines.append(f"seen in a thread: {found is cancel}")
    return lines


def main() -> None:
    stories = {backend: anyio.run(story, backend=backend) for backend in ("asyncio", "trio")}
    print(*stories["asyncio"], sep="\n")
    print("the same on trio:", stories["asyncio"] == stories["trio"])


if __name__ == "__main__":
    main()
