"""Conditions and composites."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cancelable_core import (
    AllOfSource,
    AnyOfSource,
    Cancelable,
    CancelationReason,
    CancelationSource,
    CancelationToken,
    ConditionCancelation,
    ConditionSource,
    Notifier,
    OperationStatus,
    TimeoutSource,
    TokenSource,
)

pytestmark = pytest.mark.anyio
Reason = CancelationReason


async def stopped_by(*sources: CancelationSource) -> tuple[float, Reason | None]:
    """Sleep for a minute under ``sources``: after how many seconds it ended, and why."""
    async with Cancelable(sources=sources, when_cancelled="absorb") as cancel:
        await anyio.sleep(60)
    await checkpoint()
    reason = cancel.context.reason if cancel.status is not OperationStatus.COMPLETED else None
    return cancel.context.duration, reason


def at(seconds: float) -> Callable[[], bool]:
    """A predicate that becomes true ``seconds`` after it is first asked."""
    start: list[float] = []

    def holds() -> bool:
        if not start:
            start.append(anyio.current_time())
        return anyio.current_time() - start[0] >= seconds

    return holds


async def test_a_condition_is_looked_at_every_interval() -> None:
    assert await stopped_by(ConditionSource(at(1), 0.25)) == (1, Reason.CONDITION)
    assert await stopped_by(ConditionSource(lambda: True)) == (0, Reason.CONDITION)
    assert await stopped_by(ConditionSource(lambda: False, timedelta(seconds=1))) == (60, None)


async def test_whatever_can_be_awaited_is_awaited() -> None:
    async def no() -> bool:
        await checkpoint()
        return False

    class Object:
        async def __call__(self) -> bool:
            return False

    predicates: list[Callable[[], Awaitable[bool]]] = [no, lambda: no(), Object()]  # noqa: PLW0108  (what is tested)
    for predicate in predicates:
        assert await stopped_by(ConditionSource(predicate, 7)) == (60, None)


async def test_what_the_predicate_raises_is_raised() -> None:
    for ending in ("raise", "absorb"):
        with pytest.raises(ZeroDivisionError):
            async with Cancelable.with_condition(lambda: 1 / 0, when_cancelled=ending) as cancel:
                await anyio.sleep_forever()
        assert cancel.status is OperationStatus.FAILED
        assert cancel.context.error == "ZeroDivisionError: division by zero"
        assert cancel.cause is not None
        assert isinstance(cancel.cause.error, ZeroDivisionError)


async def test_a_notifier_makes_polling_needless() -> None:
    asked: list[float] = []
    notifier = Notifier()

    def enough() -> bool:
        asked.append(anyio.current_time())
        return len(asked) == 3

    async def notify() -> None:
        for _ in range(2):
            await anyio.sleep(10)
            thread = threading.Thread(target=notifier.notify)
            thread.start()
            thread.join()

    async with anyio.create_task_group() as group:
        group.start_soon(notify)
        with pytest.raises(ConditionCancelation, match="enough"):
            async with Cancelable.with_condition(enough, notifier=notifier):
                await anyio.sleep_forever()
    assert asked == [0, 10, 20]
    assert not notifier._listeners
    notifier.notify()


async def test_a_notification_while_the_predicate_runs_is_not_lost() -> None:
    notifier, asked = Notifier(), []

    async def notified_meanwhile() -> bool:
        asked.append(True)
        if len(asked) == 1:
            notifier.notify()
            await anyio.sleep(1)
        return len(asked) == 2

    source = ConditionSource(notified_meanwhile, notifier=notifier)
    assert await stopped_by(source) == (1, Reason.CONDITION)


async def test_a_blocking_predicate_in_a_thread_of_its_own() -> None:
    threads: list[int] = []

    def holds() -> bool:
        threads.append(threading.get_ident())
        return True

    source = ConditionSource(holds, in_thread=True, name="disk full")
    with pytest.raises(ConditionCancelation, match="disk full"):
        async with Cancelable(sources=(source,)):
            await anyio.sleep_forever()
    assert threads[0] != threading.get_ident()


def test_an_interval_is_positive() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ConditionSource(lambda: True, 0)
    assert ConditionSource(Notifier()).name == "Notifier"  # type: ignore[arg-type]


# -- composites ------------------------------------------------------------------------


def cancelled() -> CancelationToken:
    token = CancelationToken(name="button")
    token.cancel()
    return token


T, TOKEN, CONDITION = TimeoutSource, TokenSource, ConditionSource
NEVER: Any = CancelationToken


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: AnyOfSource(T(1)), (1, "timeout")),
        (lambda: AnyOfSource(T(3), T(1)), (1, "timeout")),
        (lambda: AnyOfSource(T(3), CONDITION(at(1), 0.5)), (1, "condition")),
        (lambda: AnyOfSource(CONDITION(at(3), 0.5), T(1)), (1, "timeout")),
        (lambda: AnyOfSource(TOKEN(cancelled()), T(1)), (0, "manual")),
        (lambda: AnyOfSource(CONDITION(lambda: False, 5)), (60, None)),
        (lambda: AllOfSource(T(1)), (1, "timeout")),
        (lambda: AllOfSource(T(1), T(3)), (3, "timeout")),
        (lambda: AllOfSource(T(1), CONDITION(at(3), 0.5)), (3, "condition")),
        (lambda: AllOfSource(T(3), CONDITION(at(1), 0.5)), (3, "timeout")),
        (lambda: AllOfSource(T(1), CONDITION(lambda: False, 5)), (60, None)),
        (lambda: AllOfSource(T(1), TOKEN(NEVER())), (60, None)),
        (lambda: AllOfSource(TOKEN(cancelled()), T(2)), (2, "timeout")),
        (lambda: AnyOfSource(AllOfSource(T(1), T(5)), T(3)), (3, "timeout")),
        (lambda: AllOfSource(AnyOfSource(T(1), T(9)), T(2)), (2, "timeout")),
        (lambda: AllOfSource(AllOfSource(T(1), T(2)), T(1)), (2, "timeout")),
    ],
)
async def test_composites(
    make: Callable[[], CancelationSource], expected: tuple[float, str | None]
) -> None:
    assert await stopped_by(make()) == expected
    assert isinstance(make(), CancelationSource)


async def test_a_composite_is_a_recipe_for_any_number_of_operations() -> None:
    source = AllOfSource(TimeoutSource(1), TimeoutSource(2))
    assert [await stopped_by(source) for _ in range(2)] == [(2, Reason.TIMEOUT)] * 2


async def test_two_that_run_in_the_background_end_in_order() -> None:
    first, second = Cancelable.with_condition(at(5), 1), Cancelable.with_condition(at(2), 1)
    async with first.combine(second) as cancel:
        pass
    await checkpoint()
    assert cancel.status is OperationStatus.COMPLETED


async def test_a_member_that_cannot_start_stops_the_others() -> None:
    token = CancelationToken()

    class Bad:
        def attach(self, host: object) -> None:
            del host
            raise LookupError

    for composite in (AnyOfSource, AllOfSource):
        with pytest.raises(LookupError):
            await stopped_by(composite(TokenSource(token), Bad()))
    assert not token._callbacks


def test_a_composite_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one member"):
        AnyOfSource()
    with pytest.raises(ValueError, match="at least one member"):
        AllOfSource()
