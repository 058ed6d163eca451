"""Decorators: a fresh operation for each call, an untouched signature for everybody else."""

from __future__ import annotations

import inspect
import signal
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationToken,
    ConditionCancelation,
    ManualCancelation,
    SignalCancelation,
    TimeoutCancelation,
    cancelable,
    cancelable_combine,
    cancelable_with_condition,
    cancelable_with_signal,
    cancelable_with_token,
    current_operation,
    with_cancelable,
    with_timeout,
)

pytestmark = pytest.mark.anyio


@cancelable(timeout=5)
async def fetch(url: str, cancel: Cancelable, *, retries: int = 3) -> tuple[str, str, int]:
    """Fetch a page."""
    assert current_operation() is cancel
    return url, cancel.name, retries


async def test_the_operation_is_handed_in_and_hidden() -> None:
    assert (
        str(inspect.signature(fetch))
        == "(url: 'str', *, retries: 'int' = 3) -> 'tuple[str, str, int]'"
    )
    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch a page.")
    assert inspect.iscoroutinefunction(fetch)
    call: Any = fetch
    assert await call("/a") == ("/a", "fetch", 3)
    assert await call(url="/a", retries=1) == ("/a", "fetch", 1)


async def test_an_operation_that_is_passed_is_used() -> None:
    async with Cancelable(name="mine") as mine:
        assert await fetch("/a", cancel=mine) == ("/a", "mine", 3)


async def test_first_last_positional_only_and_not_at_all() -> None:
    @cancelable(name="named")
    async def first(cancel: Cancelable, /, number: int) -> tuple[str, int]:
        return cancel.name, number

    @cancelable()
    async def none(number: int) -> int:
        assert current_operation() is not None
        return number

    @cancelable()
    async def annotated(number: int, *, operation: Cancelable) -> tuple[str, int]:
        return operation.name, number

    call: Any = annotated
    assert await first(4) == ("named", 4)
    assert await none(4) == 4
    assert await call(4) == ("annotated", 4)


async def test_methods() -> None:
    class Client:
        @cancelable(timeout=1)
        async def fetch(self, cancel: Cancelable, url: str) -> str:
            assert cancel.name == "fetch"
            await anyio.sleep(0.5 if url == "/fast" else 9)
            return url

    client: Any = Client()
    assert str(inspect.signature(client.fetch)) == "(url: 'str') -> 'str'"
    assert await client.fetch("/fast") == "/fast"
    with pytest.raises(TimeoutCancelation):
        await client.fetch(url="/slow")


async def test_no_time_is_no_time() -> None:
    @cancelable(timeout=0)
    async def work() -> None:
        await anyio.sleep(1)
        pytest.fail("there was no time")

    with pytest.raises(TimeoutCancelation):
        await work()


async def test_a_token_a_signal_and_a_condition() -> None:
    token = CancelationToken()
    token.cancel()

    @cancelable_with_token(token)
    async def by_token() -> None:
        await anyio.sleep_forever()

    @cancelable_with_signal(signal.SIGUSR1)
    async def by_signal() -> None:
        signal.raise_signal(signal.SIGUSR1)
        await anyio.sleep_forever()

    @cancelable_with_condition(lambda: True)
    async def by_condition() -> None:
        await anyio.sleep_forever()

    with pytest.raises(ManualCancelation):
        await by_token()
    with pytest.raises(SignalCancelation):
        await by_signal()
    with pytest.raises(ConditionCancelation):
        await by_condition()


async def test_combined_members_all_count_call_after_call() -> None:
    token = CancelationToken()

    @cancelable_combine(Cancelable.with_timeout(1), Cancelable.with_token(token))
    async def work(cancel: Cancelable) -> str:
        await anyio.sleep_forever()
        return cancel.name

    for _ in range(2):
        with pytest.raises(TimeoutCancelation, match="work was cancelled"):
            await work()
    token.cancel()
    with pytest.raises(ManualCancelation):
        await work()


async def test_a_given_operation_is_entered_and_only_once() -> None:
    operation = Cancelable.with_timeout(1, name="mine")

    @with_cancelable(operation)
    async def work(cancel: Cancelable) -> bool:
        return cancel is operation

    assert await work()
    with pytest.raises(RuntimeError, match="mine is completed"):
        await work()


async def test_async_generators_are_limited_while_they_are_pulled() -> None:
    closed: list[str] = []

    @cancelable(timeout=3.5)
    async def count(cancel: Cancelable, upto: int) -> AsyncIterator[int]:
        try:
            for number in range(upto):
                await anyio.sleep(1)
                cancel.check()
                yield number
        finally:
            closed.append("closed")

    assert inspect.isasyncgenfunction(count)
    assert [number async for number in count(2)] == [0, 1]
    seen = []
    with pytest.raises(TimeoutCancelation):
        async for number in count(9):
            seen.append(number)
            await anyio.sleep(0.5)
    assert seen == [0, 1]
    assert closed == ["closed"] * 2
    async with Cancelable() as own:
        call: Any = count
        assert [number async for number in call(cancel=own, upto=5)] == [0, 1, 2, 3, 4]


async def test_an_absorbed_limit_ends_a_generator_quietly() -> None:
    @cancelable(timeout=2.5, when_cancelled="absorb")
    async def count() -> AsyncIterator[int]:
        for number in range(9):
            await anyio.sleep(1)
            yield number

    assert [number async for number in count()] == [0, 1]


def test_only_async_functions_can_be_stopped() -> None:
    with pytest.raises(TypeError, match="neither an async function nor"):

        @cancelable()
        def work() -> None: ...


# -- with_timeout ----------------------------------------------------------------------


async def test_awaiting_with_a_limit() -> None:
    async def answer(after: float) -> int:
        await anyio.sleep(after)
        return 42

    assert await with_timeout(5, answer(1)) == 42
    with pytest.raises(TimeoutError, match="slow answer was cancelled"):
        await with_timeout(1, answer(5), name="slow answer")
    with pytest.raises(ValueError, match="number of seconds"):
        await with_timeout(float("nan"), answer(1))
    with pytest.raises(ValueError, match="number of seconds"):
        await with_timeout(float("nan"), anyio.Event())  # type: ignore[arg-type]
