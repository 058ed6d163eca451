"""Decorators: every call is an operation, and the signature stays what callers need.

Run: python examples/01_basics/04_decorated_functions.py [--demo]
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator

import anyio

from cancelable_core import Cancelable, CancelationToken, cancelable, cancelable_with_token

maintenance = CancelationToken(name="maintenance")


@cancelable(timeout=0.6)
async def fetch(cancel: Cancelable, url: str) -> str:
    await cancel.report_progress(f"asking for {url}")
    await anyio.sleep(0.01 if url == "/fast" else 60)
    return f"the page {url}"


@cancelable_with_token(maintenance)
async def nightly_job() -> None:
    await anyio.sleep(60)


@cancelable(timeout=0.6)
async def numbers() -> AsyncIterator[int]:
    number = 0
    while True:
        yield number
        number += 1
        await anyio.sleep(0.03)


async def main() -> None:
    print("what callers see:", inspect.signature(fetch))
    print(await fetch("/fast"))
    try:
        await fetch("/slow")
    except TimeoutError as error:
        print(error)

    maintenance.cancel(message="going down at night")
    try:
        await nightly_job()
    except Exception as error:  # noqa: BLE001  (to show what it is)
        print(type(error).__name__, error)

    seen = []
    try:
        async for number in numbers():
            seen.append(number)
    except TimeoutError:
        print("a generator was stopped after", "some" if len(seen) > 1 else "no", "items")


if __name__ == "__main__":
    anyio.run(main)
