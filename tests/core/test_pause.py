"""Pausing: a gate between pieces of work, that cancelation opens and time respects."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

from cancelable_core import Cancelable, OperationStatus, PauseToken

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pausing_and_resuming_are_idempotent_and_timed() -> None:
    clock = Clock()
    gate = PauseToken(clock=clock)
    assert gate.resume() is False
    assert gate.pause() is True
    assert gate.pause() is False
    clock.now = 5
    assert (gate.is_paused, gate.paused_seconds) == (True, 5)
    assert gate.resume() is True
    clock.now = 9
    gate.pause()
    clock.now = 10
    assert gate.paused_seconds == 6
    assert repr(gate) == "<PauseToken paused>"


def test_listeners_hear_changes_until_they_leave() -> None:
    gate = PauseToken()
    heard: list[Any] = []
    leave = gate.on_change(lambda: heard.append(gate.is_paused))
    gate.pause()
    gate.pause()
    gate.resume()
    leave()
    leave()
    gate.pause()
    assert heard == [True, False]


async def test_an_open_gate_is_a_checkpoint() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await PauseToken().wait_while_paused()
    assert scope.cancelled_caught


async def test_all_waiters_wake_on_resume() -> None:
    gate, passed = PauseToken(), []
    gate.pause()

    async def wait(number: int) -> None:
        await gate.wait_while_paused()
        passed.append(number)

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(wait, number)
        await anyio.wait_all_tasks_blocked()
        assert passed == []
        gate.resume()
    assert sorted(passed) == [0, 1, 2]


async def test_paused_again_before_it_woke_means_waiting_on() -> None:
    gate, passed = PauseToken(), []
    gate.pause()

    async def wait() -> None:
        await gate.wait_while_paused()
        passed.append(gate.is_paused)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        gate.resume()
        gate.pause()
        await anyio.wait_all_tasks_blocked()
        assert passed == []
        gate.resume()
    assert passed == [False]


async def test_a_thread_can_resume() -> None:
    gate = PauseToken()
    gate.pause()
    thread = threading.Thread(target=gate.resume)
    thread.start()
    await gate.wait_while_paused()
    thread.join()
    assert not gate.is_paused


async def test_cancelation_wakes_a_paused_waiter() -> None:
    gate = PauseToken()
    gate.pause()
    async with Cancelable(when_cancelled="absorb") as cancel:
        cancel.cancel()
        await gate.wait_while_paused()
        pytest.fail("the gate is shut")
    assert cancel.status is OperationStatus.CANCELLED
    assert not gate._waiters


async def test_paused_time_does_not_count_against_the_limit() -> None:
    gate, started = PauseToken(), anyio.current_time()
    async with Cancelable.with_timeout(10, pause_token=gate, when_cancelled="absorb") as cancel:
        await anyio.sleep(4)
        gate.pause()
        await anyio.sleep(100)
        assert cancel.remaining() == pytest.approx(6)
        cancel.extend(1)
        gate.resume()
        await anyio.sleep_forever()
    assert anyio.current_time() - started == pytest.approx(111)
    assert cancel.status is OperationStatus.TIMEOUT


async def test_an_operation_entered_while_paused_starts_with_its_whole_limit() -> None:
    gate, started = PauseToken(), anyio.current_time()
    gate.pause()
    async with Cancelable.with_timeout(10, pause_token=gate, when_cancelled="absorb") as cancel:
        await anyio.sleep(50)
        cancel.reschedule(3)
        gate.resume()
        await anyio.sleep_forever()
    assert anyio.current_time() - started == pytest.approx(53)


async def test_an_ended_operation_no_longer_listens() -> None:
    gate = PauseToken()
    async with Cancelable(pause_token=gate):
        pass
    assert not gate._listeners
