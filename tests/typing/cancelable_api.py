"""Never run: mypy and pyright read it, so that the public types stay what users rely on."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import timedelta
from typing import Any, assert_type

from cancelable_core import (
    AllOfSource,
    AnyOfSource,
    Cancelable,
    CancelableStream,
    CancelationError,
    CancelationReason,
    CancelationSource,
    CancelationToken,
    Cause,
    ChunkedStream,
    ConditionSource,
    OperationContext,
    OperationRegistry,
    OperationSnapshot,
    OperationStatus,
    Partial,
    PauseToken,
    Registration,
    Shield,
    SignalSource,
    Subscription,
    TimeoutCancelation,
    TimeoutSource,
    TokenSource,
    cancelable,
    cancelable_stream,
    chunked_cancelable_stream,
    current_operation,
    run_in_thread,
    signal_hub,
    with_timeout,
)
from cancelable_core.monitoring import Figures, Monitor
from cancelable_core.testing import SimulatedStream


async def operations() -> int:
    async with Cancelable.with_timeout(timedelta(seconds=5), name="job") as cancel:
        assert_type(cancel, Cancelable)
        assert_type(cancel.cancel(message="enough", grace=5), bool)
        assert_type(cancel.cause, Cause | None)
        assert_type(cancel.context, OperationContext)
        assert_type(cancel.context.status, OperationStatus)
        assert_type(cancel.context.reason, CancelationReason | None)
        assert_type(cancel.context.snapshot(), OperationSnapshot)
        assert_type(cancel.context.partial_result, Partial[Any] | None)
        assert_type(cancel.remaining(), float)
        async with cancel.shield(limit=5) as shield:
            assert_type(shield, Shield)
        return 1


def recipes(token: CancelationToken) -> Cancelable:
    assert_type(Cancelable.with_token(token, when_cancelled="absorb"), Cancelable)
    assert_type(Cancelable.with_condition(lambda: True, 0.5), Cancelable)
    assert_type(Cancelable().on_complete(print).add_source(TimeoutSource(5)), Cancelable)
    return Cancelable.with_signal(signal.SIGINT).combine(Cancelable.with_timeout(5))


def sources(token: CancelationToken) -> CancelationSource:
    condition: CancelationSource = ConditionSource(lambda: True)
    return AnyOfSource(AllOfSource(TokenSource(token), condition), SignalSource(signal.SIGINT))


async def tokens(token: CancelationToken) -> None:
    assert_type(token.register(print), Registration)
    assert_type(await token.wait(), Cause)
    assert_type(token.child(name="child"), CancelationToken)
    assert_type(current_operation(), Cancelable | None)
    with signal_hub.subscribe([signal.SIGINT], print) as subscription:
        assert_type(subscription, Subscription)
    gate = PauseToken()
    assert_type(gate.pause(), bool)


async def numbers() -> AsyncIterator[int]:
    yield 1


async def streams(cancel: Cancelable) -> None:
    stream = cancelable_stream(numbers(), cancel, buffer_partial=True)
    assert_type(stream, CancelableStream[int])
    async for number in stream:
        assert_type(number, int)
    assert_type(stream.partial.items, tuple[int, ...])
    chunks = chunked_cancelable_stream(numbers(), 3, cancel)
    assert_type(chunks, ChunkedStream[int])
    async for chunk in chunks:
        assert_type(chunk, list[int])
    async for text in SimulatedStream(["a"]):
        assert_type(text, str)


@cancelable(timeout=5)
async def injected_first(cancel: Cancelable, url: str) -> int:
    return len(cancel.name + url)


@cancelable()
async def plain(url: str, *, retries: int = 3) -> str:
    return url * retries


@cancelable(timeout=5)
async def generator(cancel: Cancelable, upto: int) -> AsyncIterator[int]:
    cancel.check()
    for number in range(upto):
        yield number


async def decorated() -> None:
    assert_type(await injected_first("/a"), int)
    assert_type(await plain("/a", retries=1), str)
    assert_type(generator(5), AsyncGenerator[int, None])


def double(number: int) -> int:
    return 2 * number


async def helpers() -> None:
    assert_type(await run_in_thread(double, 4), int)
    assert_type(await with_timeout(5, injected_first("/a")), int)


def registries(registry: OperationRegistry) -> None:
    assert_type(registry.get("id"), Cancelable | None)
    assert_type(registry.list(), tuple[OperationSnapshot, ...])
    with Monitor(registry) as monitor:
        assert_type(monitor.figures(), Figures)


def errors(error: TimeoutCancelation) -> tuple[CancelationError, TimeoutError]:
    assert_type(error.cause, Cause)
    handler: Callable[[Cause], object] = print
    handler(error.cause)
    return error, error
