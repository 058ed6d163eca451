"""The library on the event loops themselves, in real time: debug mode, uvloop, trio."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationToken,
    OperationStatus,
    PauseToken,
    TimeoutCancelation,
    cancelable_stream,
    check_cancelled,
    run_in_thread,
)

LOOPS = ["asyncio in debug mode", "uvloop", "trio"]
SHORT = 0.01


def run(loop: str, story: Callable[[], Any]) -> None:
    match loop:
        case "trio":
            anyio.run(story, backend="trio")
        case "uvloop":
            factory = pytest.importorskip("uvloop").new_event_loop
            anyio.run(story, backend_options={"loop_factory": factory})
        case _:
            anyio.run(story, backend_options={"debug": True})


async def own_limit() -> None:
    with pytest.raises(TimeoutCancelation):
        async with Cancelable.with_timeout(SHORT):
            await anyio.sleep_forever()


async def woken_by_a_thread() -> None:
    token = CancelationToken()
    async with Cancelable.with_token(token, when_cancelled="absorb") as cancel:
        threading.Timer(SHORT, token.cancel).start()
        await anyio.Event().wait()
    assert cancel.status is OperationStatus.CANCELLED


async def woken_by_a_signal() -> None:
    async with Cancelable.with_signal(signal.SIGUSR1, when_cancelled="absorb") as cancel:
        threading.Timer(SHORT, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        await anyio.Event().wait()
    assert cancel.context.message == "SIGUSR1"


async def woken_by_a_handler_of_ones_own() -> None:
    token = CancelationToken()
    before = signal.signal(signal.SIGUSR1, lambda *_: token.cancel())
    try:
        async with Cancelable.with_token(token, when_cancelled="absorb") as cancel:
            threading.Timer(SHORT, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            await anyio.Event().wait()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert cancel.is_cancelled


async def interrupted_like_by_control_c() -> None:
    async with Cancelable.with_signal(signal.SIGINT, when_cancelled="absorb") as cancel:
        threading.Timer(SHORT, os.kill, (os.getpid(), signal.SIGINT)).start()
        await anyio.Event().wait()
    assert cancel.context.message == "SIGINT"


async def cancelled_from_inside() -> None:
    async with Cancelable(when_cancelled="absorb") as cancel:
        cancel.cancel()
        await anyio.lowlevel.checkpoint()
        pytest.fail("the next checkpoint is the end")


async def shielded_and_paused() -> None:
    gate = PauseToken()
    async with Cancelable.with_timeout(5, pause_token=gate, when_cancelled="absorb") as cancel:
        cancel.cancel()
        async with cancel.shield(limit=SHORT):
            gate.pause()
            await gate.wait_while_paused()
    assert cancel.status is OperationStatus.CANCELLED


async def streamed() -> None:
    closed: list[bool] = []

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                await anyio.sleep(SHORT / 10)
                yield len(closed)
        finally:
            closed.append(True)

    async with Cancelable.with_timeout(SHORT, when_cancelled="absorb") as cancel:
        async for _ in cancelable_stream(source(), cancel):
            pass
    assert closed == [True]


async def threaded() -> None:
    def work() -> None:
        while True:
            check_cancelled()

    async with Cancelable.with_timeout(SHORT, when_cancelled="absorb") as cancel:
        await run_in_thread(work)
    assert cancel.status is OperationStatus.TIMEOUT


async def outer_wins() -> None:
    with anyio.move_on_after(SHORT) as scope:
        async with Cancelable.with_condition(lambda: False, SHORT / 3) as cancel:
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert cancel.context.reason == "external"


STORIES = [
    own_limit,
    woken_by_a_thread,
    woken_by_a_signal,
    woken_by_a_handler_of_ones_own,
    interrupted_like_by_control_c,
    cancelled_from_inside,
    shielded_and_paused,
    streamed,
    threaded,
    outer_wins,
]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_on_each_loop(loop: str, story: Callable[[], Any]) -> None:
    run(loop, story)


def test_a_loop_run_by_asyncio_alone() -> None:
    async def main() -> int:
        with pytest.raises(TimeoutError):
            async with Cancelable.with_timeout(SHORT):
                await asyncio.sleep(60)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert asyncio.run(main()) == 0


def test_it_works_without_trio() -> None:
    assert importlib.import_module("cancelable_core._loops").__name__
    code = """
import sys
sys.modules["trio"] = None
import anyio
from cancelable_core import Cancelable
async def main():
    async with Cancelable.with_timeout(0, when_cancelled="absorb") as cancel:
        await anyio.sleep(1)
    print(cancel.status)
anyio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "timeout\n"
