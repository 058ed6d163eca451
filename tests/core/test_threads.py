"""Threads that look whether they should stop."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationError,
    CancelationToken,
    ManualCancelation,
    OperationStatus,
    check_cancelled,
    current_operation,
    current_token,
    run_in_thread,
)

pytestmark = pytest.mark.anyio
colour: ContextVar[str] = ContextVar("colour", default="none")


def work_until_told(started: threading.Event | None = None) -> str:
    """Work until cancelled, and come back within a real second at worst."""
    token = current_token()
    assert token is not None
    told = threading.Event()
    with token.register(lambda _: told.set()):
        if started is not None:
            started.set()
        assert told.wait(10)
    check_cancelled()
    return "never said"


async def test_a_thread_gives_back_its_result_and_sees_the_callers_context() -> None:
    def work(number: int) -> tuple[int, str, object]:
        check_cancelled()
        seen = colour.get()
        colour.set("red")
        return 2 * number, seen, current_operation()

    colour.set("blue")
    async with Cancelable() as cancel:
        assert await run_in_thread(work, 4) == (8, "blue", cancel)
    assert colour.get() == "blue"
    assert await run_in_thread(work, 4) == (8, "blue", None)
    check_cancelled()
    assert current_token() is None


async def test_a_thread_is_told_that_its_operation_was_cancelled() -> None:
    started = threading.Event()
    async with Cancelable(when_cancelled="absorb") as cancel:
        threading.Thread(target=lambda: started.wait() and cancel.cancel(message="stop")).start()
        await run_in_thread(work_until_told, started)
    assert (cancel.status, cancel.context.message) == (OperationStatus.CANCELLED, "stop")


async def test_a_thread_is_told_of_a_token_and_of_cancelations_from_outside() -> None:
    token = CancelationToken()
    token.cancel()
    with pytest.raises(ManualCancelation):
        await run_in_thread(work_until_told, token=token)

    ended: list[CancelationError] = []

    def work() -> None:
        try:
            work_until_told()
        except CancelationError as error:
            ended.append(error)
            raise

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(run_in_thread, work)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught or ended
    assert [error.reason for error in ended] == ["external"]


async def test_a_thread_can_be_left_behind() -> None:
    release = threading.Event()
    async with Cancelable(when_cancelled="absorb") as cancel:
        cancel.cancel()
        await run_in_thread(release.wait, abandon_on_cancel=True)
    release.set()
    assert cancel.status is OperationStatus.CANCELLED


async def test_the_number_of_threads_is_bounded_by_a_limiter() -> None:
    limiter = anyio.CapacityLimiter(1)
    seen = await run_in_thread(lambda: limiter.borrowed_tokens, limiter=limiter)
    assert seen == 1
