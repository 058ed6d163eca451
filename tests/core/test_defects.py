"""What is wrong with the library people use today, one test for each finding, D1 to D20.

Each of them is shown to fail on a broken build, in test_broken_builds.py.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import threading
import time
import weakref
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cancelable_core import (
    AllOfSource,
    AnyOfSource,
    Cancelable,
    CancelationToken,
    ConditionSource,
    ManualCancelation,
    OperationRegistry,
    OperationStatus,
    PauseToken,
    TimeoutCancelation,
    TimeoutSource,
    cancelable,
    cancelable_combine,
    cancelable_stream,
    check_cancelled,
    current_operation,
    run_in_thread,
)
from cancelable_core.testing import SimulatedStream, StreamScript

pytestmark = pytest.mark.anyio
STEADY = StreamScript(delay=(1, 1))


async def _cancelled_by_a_thread() -> None:
    token = CancelationToken()
    thread = threading.Thread(target=token.cancel)
    async with Cancelable.with_token(token, when_cancelled="absorb"):
        thread.start()
        await anyio.Event().wait()
    thread.join()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_d1_a_cancel_from_a_thread_wakes_an_idle_loop_and_the_next_loop_too(backend: str) -> None:
    for _ in range(2):
        loop = threading.Thread(
            target=anyio.run,
            args=[_cancelled_by_a_thread],
            kwargs={"backend": backend},
            daemon=True,
        )
        loop.start()
        loop.join(5)
        assert not loop.is_alive(), "the loop was never woken"


async def test_d2_a_cancelled_token_raises_typed_errors_on_every_loop() -> None:
    token = CancelationToken()
    token.cancel()
    with pytest.raises(ManualCancelation):
        token.check()
    with pytest.raises(ManualCancelation):
        async with cancelable_stream(SimulatedStream("abc"), token=token) as stream:
            async for _ in stream:
                pytest.fail("nothing may be pulled")
    with pytest.raises(ManualCancelation):
        async with Cancelable.with_token(token) as cancel:
            await cancel.wrap(checkpoint)()
    with pytest.raises(ManualCancelation):
        await run_in_thread(check_cancelled, token=token)


async def test_d3_finished_operations_leave_nothing_with_their_tokens_and_parents() -> None:
    token = CancelationToken()
    async with Cancelable() as parent:
        alive = []
        for _ in range(100):
            async with Cancelable(parent=parent, linked_to=(token,)) as cancel:
                pass
            alive.append(weakref.ref(cancel))
        del cancel
        gc.collect()
        assert not token._callbacks
        assert not parent._callbacks
        assert not parent._children
        assert [reference() for reference in alive] == [None] * 100


@pytest.mark.parametrize("order", [(0.1, 1.0), (1.0, 0.1)])
async def test_d4_the_shortest_limit_counts(order: tuple[float, float]) -> None:
    first, second = order
    async with Cancelable.with_timeout(first, when_cancelled="absorb").combine(
        Cancelable.with_timeout(second)
    ) as cancel:
        await anyio.sleep(5)
    assert cancel.context.duration == pytest.approx(0.1)


async def test_d4b_combined_decorators_have_all_their_sources() -> None:
    token = CancelationToken()

    @cancelable_combine(Cancelable.with_timeout(0.1), Cancelable.with_token(token))
    async def work() -> None:
        await anyio.sleep(5)

    with pytest.raises(TimeoutCancelation):
        await work()
    token.cancel()
    with pytest.raises(ManualCancelation):
        await work()


async def test_d5_composites_fire_when_they_should_and_leave_the_task_alone() -> None:
    async def seconds(*sources: Any) -> float:
        async with Cancelable(sources=sources, when_cancelled="absorb") as cancel:
            await anyio.sleep(1)
        await checkpoint()
        await anyio.sleep(1)
        return cancel.context.duration

    false, true = ConditionSource(lambda: False, 0.1), ConditionSource(lambda: True)
    assert await seconds(AnyOfSource(TimeoutSource(0.1))) == pytest.approx(0.1)
    assert await seconds(AllOfSource(TimeoutSource(0.1))) == pytest.approx(0.1)
    assert await seconds(AnyOfSource(false)) == pytest.approx(1)
    assert await seconds(AllOfSource(false, TimeoutSource(0.1))) == pytest.approx(1)
    assert await seconds(AllOfSource(true, TimeoutSource(0.1))) == pytest.approx(0.1)


async def test_d6_several_background_sources_end_without_a_sound() -> None:
    first = ConditionSource(lambda: False, 0.1)
    async with Cancelable(sources=(first, first, first)) as cancel:
        await anyio.sleep(1)
    await checkpoint()
    assert cancel.status is OperationStatus.COMPLETED


async def test_d7_an_outer_cancelation_leaves_nothing_registered() -> None:
    registry = OperationRegistry()
    heard: list[Any] = []

    async def slowly(context: Any) -> None:
        await anyio.sleep(1)
        heard.append(context.reason)

    async def work() -> None:
        async with Cancelable(registry=registry).on_cancel(slowly):
            await anyio.sleep_forever()

    with anyio.move_on_after(1):
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(work)
    assert len(registry) == 0
    assert len(registry.history()) == 10
    assert heard == ["external"] * 10
    assert current_operation() is None


async def test_d8_signals_reach_everybody_and_handlers_come_back() -> None:
    heard: list[int] = []

    def mine(number: int, _: object) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGUSR1, mine)
    try:
        async with Cancelable.with_signal(signal.SIGUSR1, when_cancelled="absorb") as first:  # noqa: SIM117  (nested)
            async with Cancelable.with_signal(signal.SIGUSR1, when_cancelled="absorb") as second:
                os.kill(os.getpid(), signal.SIGUSR1)  # right after entry
                await anyio.sleep_forever()
        assert first.is_cancelled
        assert second.is_cancelled
        async with Cancelable.with_signal(signal.SIGUSR1, when_cancelled="absorb") as first:
            async with Cancelable.with_signal(signal.SIGUSR1):
                pass
            os.kill(os.getpid(), signal.SIGUSR1)  # the inner one has left
            with anyio.fail_after(5):
                await anyio.sleep_forever()
        assert first.cause is not None
        assert first.cause.signum == signal.SIGUSR1
        assert heard == [signal.SIGUSR1] * 2
        assert signal.getsignal(signal.SIGUSR1) is mine
    finally:
        signal.signal(signal.SIGUSR1, before)


async def test_d9_conditions_are_awaited_when_they_can_be_and_their_errors_surface() -> None:
    async def no() -> bool:
        return False

    async with Cancelable.with_condition(lambda: no(), 0.1) as cancel:  # noqa: PLW0108  (it is tested)
        await anyio.sleep(1)
    assert cancel.cause is None
    with pytest.raises(ZeroDivisionError):
        async with Cancelable.with_condition(lambda: 1 / 0):
            await anyio.sleep(1)


async def test_d10_nothing_is_pulled_and_dropped() -> None:
    produced: list[int] = []

    async def at_once() -> Any:
        for number in range(9):
            produced.append(number)
            yield number

    seen = []
    async with Cancelable(when_cancelled="absorb") as cancel:
        async for item in cancelable_stream(at_once(), cancel):
            seen.append(item)
            if item == 2:
                cancel.cancel()
    assert produced == seen == [0, 1, 2]


async def five_thousand() -> Any:
    for number in range(5000):
        yield number


async def test_d10_streams_lose_nothing_close_everything_and_hold_no_scope() -> None:
    source, seen = SimulatedStream(range(9), STEADY), []
    async with Cancelable(when_cancelled="absorb") as cancel:
        async for item in cancelable_stream(source, cancel, buffer_partial=True):
            seen.append(item)
            if item == 2:
                cancel.cancel()
    partial = cancel.context.partial_result
    assert partial is not None
    assert source.produced == len(seen) == partial.position == 3
    assert list(partial.items) == seen
    assert source.closed

    source = SimulatedStream(range(9), STEADY)
    async with Cancelable.with_timeout(2.5, when_cancelled="absorb") as cancel:
        async for _ in cancelable_stream(source, cancel, buffer_partial=True):
            await anyio.sleep(60)
    assert cancel.context.partial_result is not None
    assert cancel.context.partial_result.items == (0,)
    assert source.closed

    stream = cancelable_stream(SimulatedStream(range(9), STEADY), timeout=2.5)
    async for _ in stream:
        break
    assert current_operation() is None
    await anyio.sleep(60)
    await stream.aclose()

    async with Cancelable() as cancel:
        async for _ in cancel.stream(five_thousand(), buffer_partial=True):
            pass
    assert cancel.context.partial_result is not None
    assert len(cancel.context.partial_result.items) == 5000


async def test_d11_cancelling_an_operation_does_not_cancel_the_users_token() -> None:
    token = CancelationToken()
    async with Cancelable.with_token(token) as sibling:
        async with Cancelable.with_token(token, when_cancelled="absorb") as one:
            one.cancel()
            await checkpoint()
        await checkpoint()
        assert not sibling.is_cancelled
    assert not token.is_cancelled


async def test_d12_no_time_is_no_time() -> None:
    @cancelable(timeout=0)
    async def work() -> None:
        await anyio.sleep(1)

    with pytest.raises(TimeoutCancelation):
        await work()
    with pytest.raises(TimeoutCancelation):
        async for _ in cancelable_stream(SimulatedStream("abc", STEADY), timeout=0):
            pytest.fail("there was no time")


async def test_d13_an_operation_is_entered_once_and_a_failed_start_leaves_nothing() -> None:
    registry = OperationRegistry()
    async with Cancelable(registry=registry) as cancel:
        with pytest.raises(RuntimeError):
            await cancel.__aenter__()
        assert current_operation() is cancel
    with pytest.raises(RuntimeError):
        await cancel.__aenter__()

    class Broken:
        def attach(self, host: object) -> None:
            raise OSError(host)

    with pytest.raises(OSError, match="Host"):
        await Cancelable(registry=registry, sources=(Broken(),)).__aenter__()
    assert current_operation() is None
    assert len(registry) == 0


async def test_d14_status_and_reason_are_true_at_once() -> None:
    async with Cancelable() as cancel:
        cancel.cancel()
        assert cancel.is_cancelled
    assert (cancel.status, cancel.context.reason) == (OperationStatus.COMPLETED, "manual")
    async with Cancelable.with_timeout(0) as cancel:
        pass
    assert cancel.context.reason == "timeout"
    with anyio.move_on_after(1):
        async with Cancelable() as cancel:
            await anyio.sleep_forever()
    assert (cancel.status, cancel.context.reason) == (OperationStatus.CANCELLED, "external")

    parent = Cancelable.with_timeout(1, when_cancelled="absorb")
    ends: list[Any] = []

    async def child() -> None:
        async with Cancelable(parent=parent, when_cancelled="absorb") as cancel:
            await anyio.sleep(5)
        ends.append((cancel.context.reason, cancel.context.duration))

    async with anyio.create_task_group() as group, parent:
        group.start_soon(child)
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3)
    assert ends == [("parent", pytest.approx(1))]


async def test_d15_threads_leak_no_context_and_are_told() -> None:
    seen: ContextVar[str] = ContextVar("seen", default="clean")

    def work() -> str:
        before = seen.get()
        seen.set("dirty")
        return before

    async with Cancelable():
        assert [await run_in_thread(work) for _ in range(3)] == ["clean"] * 3
    assert await anyio.to_thread.run_sync(current_operation) is None

    started, ended = threading.Event(), threading.Event()

    def until_told() -> None:
        started.set()
        try:
            for _ in range(5000):
                time.sleep(0.001)
                check_cancelled()
            pytest.fail("nobody told the thread")
        finally:
            ended.set()

    async with Cancelable(when_cancelled="absorb") as cancel:
        threading.Thread(target=lambda: started.wait(10) and cancel.cancel()).start()
        await run_in_thread(until_told)
    assert ended.is_set()


async def test_d16_the_web_pieces_take_no_body_and_add_no_parameter() -> None:
    pytest.importorskip("fastapi")
    from cancelable_core.integrations.fastapi import (  # noqa: PLC0415  (may not be installed)
        CancelationMiddleware,
        cancelable_dependency,
    )

    parts = [{"type": "http.request", "body": bytes([n]), "more_body": n < 3} for n in range(4)]
    put, get = anyio.create_memory_object_stream[Any](9)
    for part in parts:
        put.send_nowait(part)
    seen: list[Any] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, send
        while len(seen) < 4:
            seen.append(await receive())
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    with put, get:
        await CancelationMiddleware(app, timeout=1)(scope, get.receive, send)
    assert seen == parts
    assert sent[0]["status"] == 504
    for dependency in (cancelable_dependency, cancelable_dependency(timeout=5)):
        assert list(inspect.signature(dependency).parameters) == ["connection"]


async def test_d17_its_own_cancelation_stays_its_own(anyio_backend_name: str) -> None:
    ended: list[str] = []

    async def sibling() -> None:
        await anyio.sleep(2)
        ended.append("sibling")

    async with anyio.create_task_group() as group:
        group.start_soon(sibling)
        with pytest.raises(TimeoutError):
            async with Cancelable.with_timeout(1):
                await anyio.sleep_forever()
        await checkpoint()
        ended.append("host")
    assert ended == ["host", "sibling"]

    async def fails() -> None:
        async with Cancelable.with_timeout(1):
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            group.start_soon(fails)
    assert caught.group_contains(TimeoutCancelation)
    if anyio_backend_name == "asyncio":
        task = asyncio.create_task(fails())
        with pytest.raises(TimeoutError):
            await task
        assert not task.cancelled()
        assert task.cancelling() == 0


def test_d18_one_decides_nobody_waits_and_nothing_is_lost() -> None:
    token = CancelationToken()
    heard: list[Any] = []
    inside, go_on = threading.Event(), threading.Event()

    def slow(_: object) -> None:
        inside.set()
        go_on.wait(10)

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    token.register(slow)
    canceller = threading.Thread(target=token.cancel)
    canceller.start()
    assert inside.wait(10)
    # While a callback runs, others can still look, register and cancel.
    others = threading.Thread(target=lambda: token.cancel() or token.register(heard.append))
    others.start()
    others.join(5)
    assert not others.is_alive()
    assert heard == [token.cause]
    go_on.set()
    canceller.join()

    token = CancelationToken()
    heard = []
    token.register(interrupt)
    token.register(heard.append)
    with pytest.raises(KeyboardInterrupt):
        token.cancel()
    token.cancel()
    assert heard == [token.cause]


async def test_d19_what_was_entered_cannot_be_combined() -> None:
    async with Cancelable.with_timeout(9) as cancel:
        with pytest.raises(RuntimeError, match="cannot be combined"):
            cancel.combine(Cancelable())
        assert cancel.remaining() == 9


async def test_d20_a_reply_survives_every_cut_of_its_text_and_any_number_of_resumes() -> None:
    example: dict[str, Any] = {"__name__": "example"}
    path = Path(__file__).parents[2] / "examples" / "06_llm" / "01_llm_streaming.py"
    exec(compile(path.read_text(), str(path), "exec"), example)  # noqa: S102  (our own file)
    text = "one!!PAUSEtwo!!PAUthree!!PAUSE"
    for size in (1, 2, 3, 5, 8, len(text)):
        shown: list[str] = []
        reply = example["Reply"](PauseToken(), shown.append)

        async def source(position: int, size: int = size) -> Any:
            for start in range(position, len(text), size):
                await checkpoint()
                yield text[start : start + size]

        for _ in range(4):
            reply.gate.resume()
            async with Cancelable(when_cancelled="absorb") as cancel:
                leave = reply.gate.on_change(cancel.cancel)
                await reply.stream(cancel, source)
            leave()
        assert reply.text == "onetwo!!PAUthree", f"in pieces of {size}"
        assert reply.position == len(text)
