"""Blocks close whole: whatever fails while they end, nothing of them stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from typing import Any

import anyio
import pytest

from cancelable_core import (
    AllOfSource,
    AnyOfSource,
    Cancelable,
    CancelationReason,
    CancelationToken,
    Closable,
    ConditionSource,
    OperationRegistry,
    OperationStatus,
    SourceHost,
    TimeoutCancelation,
    TimeoutSource,
    current_operation,
)

pytestmark = pytest.mark.anyio
Status = OperationStatus


def _fail(_: object) -> None:
    raise ZeroDivisionError("a callback")


class _Closes:
    """A source of nothing that does something else while it is closed."""

    def __init__(self, close: Callable[[], object]) -> None:
        self._close = close

    def __aiter__(self) -> _Closes:
        return self

    async def __anext__(self) -> int:
        return 1

    async def aclose(self) -> None:
        self._close()


class _Slow:
    """A stream that takes long to close, and that anybody may interrupt."""

    partial: Any = None

    async def aclose(self) -> None:
        await anyio.sleep(5)


async def _assert_nothing_is_left(cancel: Cancelable, registry: OperationRegistry) -> None:
    assert current_operation() is None
    assert len(registry) == 0
    cancel.cancel()
    await anyio.sleep(1)  # a scope that was left open would stop this


# -- callbacks that raise ----------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 1])
async def test_a_callback_that_raises_leaves_a_block_stopped_by_a_limit_closed(
    seconds: int,
) -> None:
    registry = OperationRegistry()
    heard: list[object] = []
    cancel = Cancelable.with_timeout(seconds, registry=registry).on_cancel(heard.append)
    cancel.register(_fail)
    with pytest.raises(ExceptionGroup) as caught:
        async with cancel:
            await anyio.sleep(5)
    assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]
    assert isinstance(caught.value.__context__, TimeoutCancelation)
    assert len(heard) == 1
    assert cancel.status is Status.TIMEOUT
    assert registry.history()[-1].error == "ZeroDivisionError: a callback"
    await _assert_nothing_is_left(cancel, registry)


async def test_a_callback_that_raises_does_not_replace_a_cancelation_from_outside() -> None:
    registry = OperationRegistry()
    cancel = Cancelable(registry=registry)
    cancel.register(_fail)
    with anyio.move_on_after(1) as outer:
        async with cancel:
            await anyio.sleep(5)
    assert outer.cancelled_caught
    assert cancel.status is Status.CANCELLED
    assert cancel.context.reason is CancelationReason.EXTERNAL
    assert registry.history()[-1].error == "ZeroDivisionError: a callback"
    await _assert_nothing_is_left(cancel, registry)


async def test_who_reads_a_cause_does_not_get_what_callbacks_raise() -> None:
    registry = OperationRegistry()
    cancel = Cancelable.with_timeout(1, registry=registry)
    cancel.register(_fail)
    with pytest.raises(ExceptionGroup):
        async with cancel:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)
            (listed,) = registry.list()
            assert listed.cause is not None
            assert cancel.is_cancelled
            await anyio.sleep(5)
    await _assert_nothing_is_left(cancel, registry)


async def test_a_block_that_cannot_open_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = OperationRegistry()
    cancel = Cancelable(registry=registry)

    def fail(_: Cancelable) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Cancelable, "_listen", fail)
    with pytest.raises(ZeroDivisionError):
        await cancel.__aenter__()
    monkeypatch.undo()
    assert cancel.status is Status.FAILED
    await _assert_nothing_is_left(cancel, registry)


# -- streams that are interrupted while they close -----------------------------------------


def _interrupt() -> None:
    raise KeyboardInterrupt


async def test_an_interrupt_while_a_stream_closes_leaves_the_block_closed() -> None:
    registry = OperationRegistry()
    heard: list[BaseException] = []
    closed: list[int] = []
    cancel = Cancelable(registry=registry).on_error(lambda _, error: heard.append(error))
    with pytest.raises(KeyboardInterrupt):
        async with cancel:
            cancel.stream(_Closes(lambda: closed.append(1)))
            cancel.stream(_Closes(_interrupt))
    assert closed == [1]
    assert [type(error) for error in heard] == [KeyboardInterrupt]
    assert cancel.status is Status.FAILED
    await _assert_nothing_is_left(cancel, registry)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelation_from_outside_while_a_stream_closes(fails: bool) -> None:
    registry = OperationRegistry()
    heard: list[object] = []
    cancel = Cancelable(registry=registry).on_cancel(heard.append)
    with anyio.move_on_after(1) as outer:
        async with cancel:
            cancel._track(_Slow())
            if fails:
                raise KeyError
    assert outer.cancelled_caught
    assert len(heard) == 1
    assert cancel.status is Status.CANCELLED
    assert cancel.context.reason is CancelationReason.EXTERNAL
    await _assert_nothing_is_left(cancel, registry)


@pytest.mark.parametrize("ending", ["raise", "absorb", "propagate"])
async def test_its_own_limit_while_a_stream_closes(ending: Any) -> None:
    registry = OperationRegistry()
    cancel = Cancelable.with_timeout(1, registry=registry, when_cancelled=ending)
    expected: dict[str, type[BaseException]] = {
        "raise": TimeoutCancelation,
        "propagate": anyio.get_cancelled_exc_class(),
    }
    with pytest.raises(expected[ending]) if ending in expected else nullcontext():
        async with cancel:
            cancel._track(_Slow())
    assert cancel.status is Status.TIMEOUT
    await _assert_nothing_is_left(cancel, registry)


# -- loops that are gone -------------------------------------------------------------------


def test_a_task_that_is_dropped_with_its_loop_leaves_nothing_behind() -> None:
    registry, token = OperationRegistry(), CancelationToken()
    heard: list[BaseException] = []
    condition = ConditionSource(lambda: False)
    cancel = Cancelable(registry=registry, linked_to=(token,), sources=(condition,))
    cancel.on_error(lambda _, error: heard.append(error))

    async def work() -> None:
        async with cancel:
            cancel.stream(_Closes(lambda: None))
            await asyncio.Event().wait()

    loop, body = asyncio.new_event_loop(), work()

    async def begin() -> None:
        loop.create_task(body)
        await asyncio.sleep(0.01)

    loop.run_until_complete(begin())
    assert len(registry) == 1
    assert token._callbacks
    loop.close()
    body.close()
    assert cancel.status is Status.FAILED
    assert [type(error) for error in heard] == [GeneratorExit]
    assert (len(registry), token._callbacks) == (0, {})


# -- sources that cannot be closed ---------------------------------------------------------


class _Source:
    """A source that never cancels, and does ``close()`` at the end."""

    def __init__(self, close: Callable[[], object]) -> None:
        self._close = close

    def close(self) -> None:
        self._close()

    def attach(self, host: SourceHost) -> Closable:
        del host
        return self


@pytest.mark.parametrize("as_one", [False, True])
async def test_a_source_that_fails_to_close_keeps_nothing_else_open(as_one: bool) -> None:
    registry, token = OperationRegistry(), CancelationToken()
    closed: list[int] = []
    parts = (_Source(lambda: closed.append(1)), _Source(lambda: _fail(None)))
    sources = (AnyOfSource(*parts),) if as_one else parts
    cancel = Cancelable(registry=registry, linked_to=(token,), sources=sources)
    with pytest.raises(ZeroDivisionError):
        async with cancel:
            await anyio.sleep(1)
    assert closed == [1]
    assert cancel.status is Status.COMPLETED
    assert not token._callbacks
    await _assert_nothing_is_left(cancel, registry)


async def test_what_several_sources_raise_is_raised_together() -> None:
    cancel = Cancelable(sources=(_Source(lambda: _fail(None)), _Source(lambda: _fail(None))))
    with pytest.raises(ExceptionGroup) as caught:
        async with cancel:
            await anyio.sleep(1)
    assert len(caught.value.exceptions) == 2


# -- after the end -------------------------------------------------------------------------


async def test_what_ended_has_its_cause_for_good() -> None:
    token, parent = CancelationToken(), Cancelable()
    heard: list[object] = []
    cancel = Cancelable.with_token(token, parent=parent)
    cancel.register(heard.append)
    async with parent:
        async with cancel:
            await anyio.sleep(1)
        token.cancel()
        parent.cancel()
        assert not cancel.cancel()
        assert not cancel.is_cancelled
        assert (cancel.status, cancel.context.cause) == (Status.COMPLETED, None)
        assert heard == []
        assert not token._callbacks
        cancel.register(heard.append)
        assert not token._callbacks


async def test_what_was_stopped_is_not_stopped_again() -> None:
    async with Cancelable(when_cancelled="absorb") as cancel:
        cancel.cancel(message="first")
        await anyio.sleep(1)
    assert not cancel.cancel(message="second")
    assert cancel.context.message == "first"


# -- shields -------------------------------------------------------------------------------


async def _three() -> AsyncIterator[int]:
    for number in range(3):
        await anyio.sleep(1)
        yield number


@pytest.mark.parametrize("keep", [False, True])
async def test_a_stream_in_a_shield_of_a_stopped_operation_runs_to_its_end(keep: bool) -> None:
    async with Cancelable(when_cancelled="absorb") as cancel:
        cancel.cancel()
        async with cancel.shield():
            stream = cancel.stream(_three(), buffer_partial=keep)
            assert [item async for item in stream] == [0, 1, 2]
        assert stream.partial.completed
        await anyio.sleep(5)
    assert cancel.context.duration == 3


async def test_a_stream_that_another_task_reads_does_not_wait_for_a_scope_that_is_not_its() -> None:
    got: list[int] = []

    async def read(cancel: Cancelable) -> None:
        got.extend([item async for item in cancel.stream(_three())])

    stopped = Cancelable(when_cancelled="absorb")
    async with anyio.create_task_group() as group, stopped as cancel:
        cancel.cancel()
        group.start_soon(read, cancel)
        async with cancel.shield():
            await anyio.sleep(9)
    assert got == [0, 1, 2]


async def test_a_limit_that_passes_after_a_cancelation_from_outside_is_not_the_cause() -> None:
    cancel = Cancelable.with_timeout(3)
    with anyio.move_on_after(1):
        async with cancel:
            try:
                await anyio.sleep(9)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(5)
    assert cancel.status is Status.CANCELLED
    assert cancel.context.reason is CancelationReason.EXTERNAL


async def test_negative_limits_have_passed_already() -> None:
    with pytest.raises(TimeoutCancelation):
        async with Cancelable(sources=(AllOfSource(TimeoutSource(-1)),)):
            await anyio.sleep(1)
    async with Cancelable(when_cancelled="absorb") as cancel:
        cancel.cancel()
        async with cancel.shield(limit=-1) as shield:
            await anyio.sleep(1)
    assert shield.lifted
