"""Combining: any of several sources, or all of them.

Run: python examples/02_advanced/01_combined_cancelation.py [--demo]
"""

from __future__ import annotations

import signal

import anyio

from cancelable_core import (
    AllOfSource,
    AnyOfSource,
    Cancelable,
    CancelationError,
    CancelationToken,
    ConditionSource,
    TimeoutSource,
    TokenSource,
)


async def main() -> None:
    token = CancelationToken(name="button")
    combined = (
        Cancelable.with_timeout(60, name="export")
        .combine(Cancelable.with_signal(signal.SIGINT))
        .combine(Cancelable.with_token(token))
    )
    try:
        async with combined, anyio.create_task_group() as group:
            group.start_soon(press, token)
            await anyio.sleep(60)
    except CancelationError as error:
        print("whichever comes first:", error.cause, "from", error.cause.origin)

    # Give up when five files have failed, but not in the first moments.
    failures = 5
    patience = AllOfSource(TimeoutSource(0.05), ConditionSource(lambda: failures >= 5, 0.01))
    async with Cancelable(sources=(patience,), when_cancelled="absorb") as cancel:
        await anyio.sleep(60)
    print(
        "both had to be true:",
        cancel.context.reason,
        "after at least 0.05 s:",
        cancel.context.duration > 0.04,
    )

    either = AnyOfSource(TimeoutSource(0.05), TokenSource(CancelationToken()))
    async with Cancelable(sources=(either,), when_cancelled="absorb") as cancel:
        await anyio.sleep(60)
    print("one was enough:", cancel.context.reason)


async def press(token: CancelationToken) -> None:
    await anyio.sleep(0.02)
    token.cancel(message="pressed")


if __name__ == "__main__":
    anyio.run(main)
