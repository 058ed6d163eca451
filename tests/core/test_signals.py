"""The signal hub: everybody hears, the user's handler too, and it comes back."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationToken,
    OperationStatus,
    SignalCancelation,
    SignalHub,
    SignalSource,
    signal_hub,
)
from cancelable_core._loops import inside_signal_handler

pytestmark = pytest.mark.anyio
USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture(autouse=True)
def _handlers_are_put_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (USR1, USR2, signal.SIGINT)}
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) == handler, "a test left a handler behind"


@pytest.fixture
def user_handler() -> Iterator[list[int]]:
    heard: list[int] = []
    before = signal.signal(USR1, lambda number, _frame: heard.append(number))
    yield heard
    signal.signal(USR1, before)


def test_every_subscriber_hears_and_the_users_handler_after_them(user_handler: list[int]) -> None:
    hub = SignalHub()
    heard: list[Any] = []
    installed = signal.getsignal(USR1)
    with hub.subscribe([USR1], heard.append), hub.subscribe([USR1, USR2], heard.append):
        assert hub.subscriber_count(USR1) == 2
        signal.raise_signal(USR1)
        signal.raise_signal(USR2)
    assert heard == [USR1, USR1, USR2]
    assert user_handler == [USR1]
    assert signal.getsignal(USR1) is installed
    assert hub.subscriber_count(USR1) == 0


def test_one_leaving_does_not_deafen_the_others() -> None:
    hub = SignalHub()
    heard: list[Any] = []
    first, second = hub.subscribe([USR1], heard.append), hub.subscribe([USR1], heard.append)
    first.close()
    first.close()
    signal.raise_signal(USR1)
    assert heard == [USR1]
    second.close()
    assert signal.getsignal(USR1) is signal.SIG_DFL


def test_an_ignored_signal_stays_ignored_when_asked() -> None:
    hub = SignalHub()
    heard: list[Any] = []
    before = signal.signal(USR1, signal.SIG_IGN)
    try:
        with hub.subscribe([USR1, USR2], heard.append, keep_ignored=True) as subscription:
            assert subscription.signals == (USR2,)
            signal.raise_signal(USR1)
        with hub.subscribe([USR1], heard.append):
            signal.raise_signal(USR1)
        assert heard == [USR1]
        assert signal.getsignal(USR1) is signal.SIG_IGN
    finally:
        signal.signal(USR1, before)


def test_a_subscriber_that_raises_does_not_silence_the_rest(user_handler: list[int]) -> None:
    hub = SignalHub()
    heard: list[Any] = []

    def fail(_: int) -> None:
        raise LookupError("broken")

    with hub.subscribe([USR1], fail), hub.subscribe([USR1], heard.append):  # noqa: SIM117  (one inside the other is what is tested)
        with pytest.raises(ExceptionGroup) as caught:
            signal.raise_signal(USR1)
    assert caught.group_contains(LookupError, match="broken")
    assert heard == user_handler == [USR1]


def test_a_handler_installed_over_ours_is_left_alone() -> None:
    hub = SignalHub()
    heard: list[Any] = []
    subscription = hub.subscribe([USR1], heard.append)
    ours = signal.getsignal(USR1)

    def theirs(number: int, frame: object) -> None:
        heard.append(-number)
        ours(number, frame)  # type: ignore[operator, misc, arg-type]

    signal.signal(USR1, theirs)
    second = hub.subscribe([USR1], heard.append)
    signal.raise_signal(USR1)
    assert heard.count(-USR1) == 1, "handlers that call each other must not go round for ever"
    second.close()
    subscription.close()
    assert signal.getsignal(USR1) is not theirs or signal.signal(USR1, signal.SIG_DFL)
    signal.signal(USR1, signal.SIG_DFL)


def test_a_handler_that_replaced_ours_stays() -> None:
    subscription = SignalHub().subscribe([USR1], print)
    theirs = lambda *_: None  # noqa: E731  (a handler)
    signal.signal(USR1, theirs)
    subscription.close()
    assert signal.getsignal(USR1) is theirs
    signal.signal(USR1, signal.SIG_DFL)


def test_handlers_are_recognised_whatever_they_are() -> None:
    seen: list[bool] = []

    def plain(*_: object) -> None:
        seen.append(inside_signal_handler())

    class Handler:
        def __call__(self, *_: object) -> None:
            seen.append(inside_signal_handler())

        def method(self, *_: object) -> None:
            seen.append(inside_signal_handler())

    handlers: list[Any] = [plain, functools.partial(plain), Handler(), Handler().method]
    for handler in handlers:
        before = signal.signal(USR1, handler)
        try:
            signal.raise_signal(USR1)
        finally:
            signal.signal(USR1, before)
    assert seen == [True] * 4
    plain()
    assert seen[-1] is False
    _in_thread(plain)
    assert seen[-1] is False


def test_python_s_own_interrupt_handler_is_replaced_not_chained_to() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with SignalHub().subscribe([signal.SIGINT], heard.append):
            signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_only_the_main_thread_can_install() -> None:
    errors: list[BaseException] = []
    hub = SignalHub()

    def subscribe() -> None:
        try:
            hub.subscribe([USR1], print)
        except RuntimeError as error:
            errors.append(error)

    _in_thread(subscribe)
    assert "SIGUSR1 can only be installed from the main thread" in str(errors[0])
    assert hub.subscriber_count(USR1) == 0


def test_another_thread_may_join_and_leave(user_handler: list[int]) -> None:
    hub = SignalHub()
    heard: list[Any] = []
    installed = signal.getsignal(USR1)
    first = hub.subscribe([USR1], heard.append)
    _in_thread(lambda: hub.subscribe([USR1], heard.append).close())
    signal.raise_signal(USR1)
    assert heard == [USR1]
    _in_thread(first.close)
    assert signal.getsignal(USR1) is not installed, "only the main thread can put it back"
    signal.raise_signal(USR1)
    assert heard == [USR1]
    assert user_handler == [USR1, USR1]
    assert signal.getsignal(USR1) is installed


def test_a_signal_that_nobody_hears_any_more_does_what_it_did_before() -> None:
    program = """
import signal, threading
from cancelable_core import signal_hub
subscription = signal_hub.subscribe([signal.SIGTERM], print)
thread = threading.Thread(target=subscription.close)
thread.start(); thread.join()
signal.raise_signal(signal.SIGTERM)
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, b"", b"")


def _in_thread(function: object) -> None:
    thread = threading.Thread(target=function)  # type: ignore[arg-type]
    thread.start()
    thread.join()


# -- operations ------------------------------------------------------------------------


async def test_a_signal_right_after_entry_stops_every_operation(user_handler: list[int]) -> None:
    ended: list[SignalCancelation] = []

    async def work() -> None:
        try:
            async with Cancelable.with_signal(USR1):
                await anyio.sleep_forever()
        except SignalCancelation as error:
            ended.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        signal.raise_signal(USR1)
    assert [error.cause.signum for error in ended] == [USR1] * 3
    assert [error.cause.message for error in ended] == ["SIGUSR1"] * 3
    assert user_handler == [USR1]

    async with Cancelable.with_signal(USR1, when_cancelled="absorb") as cancel:
        signal.raise_signal(USR1)
        await anyio.sleep_forever()
    assert cancel.status is OperationStatus.CANCELLED


async def test_a_signal_wakes_an_idle_loop() -> None:
    timer = threading.Timer(0.005, os.kill, (os.getpid(), USR1))
    with pytest.raises(SignalCancelation):
        async with Cancelable.with_signal(USR1):
            timer.start()
            await anyio.Event().wait()
    timer.join()


@pytest.fixture
def _threads_wait_until_others_sleep() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(60)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_threads_wait_until_others_sleep")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("early", [True, False], ids=["before the loop", "in the loop"])
def test_a_signal_that_another_thread_gets_wakes_the_loop(backend: str, *, early: bool) -> None:
    """As does one that comes right before the loop falls asleep: neither ends its wait."""
    token, asleep = CancelationToken(), threading.Event()

    def send() -> None:
        asleep.wait()
        signal.pthread_kill(threading.get_ident(), USR1)

    async def work() -> bool:
        with signal_hub.subscribe([] if early else [USR1], lambda _: token.cancel()):
            async with Cancelable.with_token(token, when_cancelled="absorb"):
                asleep.set()
                with anyio.move_on_after(2) as patience:
                    await anyio.sleep_forever()
            return not patience.cancel_called

    sender = threading.Thread(target=send)
    sender.start()
    with signal_hub.subscribe([USR1] if early else [], lambda _: token.cancel()):
        heard_at_once = anyio.run(work, backend=backend)
    sender.join()
    assert heard_at_once


def test_a_handler_for_the_signal_that_wakes_loops_is_left_alone() -> None:
    def theirs(_number: int, _frame: object) -> None: ...

    async def enter() -> None:
        async with Cancelable.with_signal(USR1):
            assert signal.getsignal(signal.SIGURG) is theirs

    before = signal.signal(signal.SIGURG, theirs)
    try:
        anyio.run(enter)
        assert signal.getsignal(signal.SIGURG) is theirs
    finally:
        signal.signal(signal.SIGURG, before)


async def test_a_handler_of_ones_own_may_cancel_while_a_task_runs() -> None:
    token = CancelationToken()
    before = signal.signal(USR1, lambda *_: token.cancel())
    try:
        async with Cancelable.with_token(token, when_cancelled="absorb"):
            signal.raise_signal(USR1)
            assert token.is_cancelled
            await anyio.sleep_forever()
    finally:
        signal.signal(USR1, before)


async def test_interrupts_that_the_loop_handles_are_replaced() -> None:
    async with Cancelable.with_signal(signal.SIGINT, when_cancelled="absorb") as cancel:
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()
    assert cancel.cause is not None
    assert cancel.cause.message == "SIGINT"


async def test_entering_outside_the_main_thread_says_why_it_cannot() -> None:
    async def enter() -> None:
        async with Cancelable(sources=(SignalSource(USR2),)):
            pytest.fail("the handler is missing")

    def run() -> None:
        with pytest.raises(RuntimeError, match="SIGUSR2 can only be installed"):
            anyio.run(enter)

    await anyio.to_thread.run_sync(run)
    assert signal_hub.subscriber_count(USR2) == 0
