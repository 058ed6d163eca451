"""Tokens: one decision that many operations hear, made from anywhere.

Run: python examples/01_basics/03_manual_cancelation.py [--demo]
"""

from __future__ import annotations

import anyio

from cancelable_core import Cancelable, CancelationToken, ManualCancelation


async def worker(number: int, token: CancelationToken) -> None:
    try:
        async with Cancelable.with_token(token, name=f"worker {number}"):
            await anyio.sleep(60)
    except ManualCancelation as error:
        print(error)


async def main() -> None:
    token = CancelationToken(name="stop button")
    token.register(lambda cause: print("a callback heard of it:", cause.message))

    async with anyio.create_task_group() as group:
        for number in range(1, 4):
            group.start_soon(worker, number, token)
        await anyio.sleep(0.05)
        print("this call decided:", token.cancel(message="pressed"))
        print("a second one does not:", token.cancel(message="pressed again"))

    child = token.child(name="child")
    print("a child is cancelled with it:", child.is_cancelled)


if __name__ == "__main__":
    anyio.run(main)
