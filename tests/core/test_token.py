"""The token: one decision, heard by everybody who listens, held by nobody else."""

from __future__ import annotations

import gc
import pickle
import threading
import weakref
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cancelable_core import (
    CancelationError,
    CancelationReason,
    CancelationToken,
    Cause,
    ConditionCancelation,
    ManualCancelation,
    ParentCancelation,
    SignalCancelation,
    TimeoutCancelation,
)

pytestmark = pytest.mark.anyio


def test_the_first_cause_wins_and_stays() -> None:
    token = CancelationToken(name="shutdown")
    assert token.cancel(CancelationReason.SIGNAL, "SIGTERM") is True
    first = token.cause
    assert token.cancel(message="too late") is False
    assert token.cause is first
    assert first is not None
    assert (first.reason, first.message, first.origin) == ("signal", "SIGTERM", "shutdown")


def test_a_cause_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Cause(reason=CancelationReason.MANUAL).reason = CancelationReason.TIMEOUT  # type: ignore[misc]


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (CancelationReason.TIMEOUT, TimeoutCancelation),
        (CancelationReason.MANUAL, ManualCancelation),
        (CancelationReason.SIGNAL, SignalCancelation),
        (CancelationReason.CONDITION, ConditionCancelation),
        (CancelationReason.PARENT, ParentCancelation),
        (CancelationReason.EXTERNAL, CancelationError),
    ],
)
def test_check_raises_the_error_of_the_reason(
    reason: CancelationReason, error: type[CancelationError]
) -> None:
    token = CancelationToken(name="job")
    token.check()
    token.cancel(reason, "because")
    with pytest.raises(CancelationError) as caught:
        token.check()
    assert type(caught.value) is error
    assert caught.value.cause is token.cause
    assert caught.value.reason is reason
    assert str(caught.value) == f"job was cancelled ({reason}: because)"


def test_a_timeout_is_a_timeout_error() -> None:
    assert issubclass(TimeoutCancelation, TimeoutError)


def test_errors_survive_pickling() -> None:
    error = TimeoutCancelation(Cause(reason=CancelationReason.TIMEOUT, message="after 5 s"), "job")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  (our own bytes)
    assert (type(copy), str(copy), copy.cause) == (type(error), str(error), error.cause)


def test_the_chain_of_causes_leads_to_the_first() -> None:
    first = Cause(reason=CancelationReason.SIGNAL)
    second = Cause(reason=CancelationReason.PARENT, parent=first)
    assert list(second.chain()) == [second, first]
    assert second.root is first


def test_callbacks_run_once_in_order_with_the_cause() -> None:
    token = CancelationToken()
    heard: list[Any] = []
    for number in range(3):
        token.register(partial(_note, heard, number))
    token.cancel()
    token.cancel()
    assert heard == [(number, token.cause) for number in range(3)]


def _note(heard: list[Any], number: int, cause: Cause) -> None:
    heard.append((number, cause))


def test_a_callback_registered_late_runs_at_once() -> None:
    token = CancelationToken()
    heard: list[Any] = []
    token.cancel()
    token.register(heard.append)
    assert heard == [token.cause]


def test_a_closed_registration_is_forgotten() -> None:
    token = CancelationToken()
    heard: list[Any] = []
    registration = token.register(heard.append)
    registration.close()
    registration.close()
    with token.register(heard.append):
        pass
    token.cancel()
    assert heard == []


def test_all_callbacks_run_although_one_raises() -> None:
    token = CancelationToken()
    heard: list[Any] = []

    def fail(_: Cause) -> None:
        raise LookupError("broken")

    token.register(fail)
    token.register(heard.append)
    with pytest.raises(ExceptionGroup) as caught:
        token.cancel()
    assert caught.group_contains(LookupError, match="broken")
    assert heard == [token.cause]
    assert token.cancel() is False


def test_an_interrupted_cancel_is_finished_by_the_next_one() -> None:
    token = CancelationToken()
    heard: list[Any] = []

    def interrupt(_: Cause) -> None:
        raise KeyboardInterrupt

    token.register(interrupt)
    token.register(heard.append)
    with pytest.raises(KeyboardInterrupt):
        token.cancel()
    assert heard == []
    assert token.cancel() is False
    assert heard == [token.cause]


def test_a_callback_may_register_and_cancel() -> None:
    token = CancelationToken()
    heard: list[Any] = []

    def nest(_: Cause) -> None:
        token.register(heard.append)
        token.cancel()

    token.register(nest)
    token.cancel()
    assert heard == [token.cause]


def test_a_child_is_cancelled_with_its_parent_and_never_the_other_way_round() -> None:
    parent = CancelationToken(name="parent")
    child, sibling = parent.child(name="child"), parent.child()
    child.cancel()
    assert not parent.is_cancelled
    assert not sibling.is_cancelled
    parent.cancel(message="all of you")
    assert sibling.cause is parent.cause
    assert child.cause is not parent.cause


def test_a_listener_of_a_grandchild_hears_the_root_in_time() -> None:
    root = CancelationToken()
    heard: list[Any] = []
    root.child().child().register(heard.append)
    gc.collect()  # nobody holds the links but the listeners
    root.cancel()
    assert heard == [root.cause]


def test_linking_later_counts_too() -> None:
    first, second = CancelationToken(), CancelationToken()
    heard: list[Any] = []
    second.cancel()
    token = CancelationToken()
    token.register(heard.append)
    token.link(first)
    assert not token.is_cancelled
    token.link(second)
    assert heard == [second.cause]
    assert CancelationToken(first, second).cause is second.cause


def test_a_parent_holds_no_child_that_nobody_listens_to() -> None:
    parent = CancelationToken()
    children = [parent.child() for _ in range(3)]
    registrations = [child.register(print) for child in children]
    assert len(parent._callbacks) == 3
    for registration in registrations:
        registration.close()
    assert not parent._callbacks
    dead = [weakref.ref(child) for child in children]
    del children, registrations, registration
    assert [ref() for ref in dead] == [None] * 3


def test_the_decision_is_single_under_a_race_of_threads() -> None:
    for _ in range(200):
        token, barrier = CancelationToken(), threading.Barrier(4)
        wins: list[str] = []
        heard: list[Any] = []
        token.register(heard.append)

        def race(
            token: CancelationToken = token,
            barrier: threading.Barrier = barrier,
            wins: list[str] = wins,
        ) -> None:
            barrier.wait()
            if token.cancel(message=threading.current_thread().name):
                wins.append(threading.current_thread().name)

        threads = [threading.Thread(target=race) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [token.cause.message] == wins  # type: ignore[union-attr]
        assert heard == [token.cause]


async def test_wait_returns_the_cause_also_when_it_is_there_already() -> None:
    token = CancelationToken()
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_when_waited_for, token)
        assert await token.wait() is token.cause
    assert await token.wait() is token.cause
    assert not token._callbacks


async def _cancel_when_waited_for(token: CancelationToken) -> None:
    await anyio.wait_all_tasks_blocked()
    token.cancel()


async def test_a_cancelled_waiter_leaves_nothing_behind() -> None:
    token = CancelationToken()
    with anyio.move_on_after(1):
        await token.wait()
    await checkpoint()
    assert not token._callbacks


def test_it_says_what_it_is() -> None:
    token = CancelationToken(name="shutdown")
    assert repr(token) == "<CancelationToken 'shutdown' not cancelled>"
    token.cancel(message="enough")
    assert repr(token) == "<CancelationToken 'shutdown' manual: enough>"
