"""Streams: exact positions, partial results after any end, sources always closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cancelable_core import (
    Cancelable,
    CancelationToken,
    ManualCancelation,
    OperationStatus,
    TimeoutCancelation,
    cancelable_stream,
    chunked_cancelable_stream,
)
from cancelable_core.testing import SimulatedStream, StreamScript

pytestmark = pytest.mark.anyio
STEADY = StreamScript(delay=(1, 1))


def steady(count: int = 5) -> SimulatedStream[int]:
    """Items 0, 1, …, one a second."""
    return SimulatedStream(range(count), STEADY)


async def test_a_whole_stream() -> None:
    source, seen = steady(), []
    async with Cancelable() as cancel:
        stream = cancel.stream(source, buffer_partial=True)
        async for item in stream:
            seen.append(item)  # noqa: PERF401  (the loop is what is tested)
        assert source.closed, "closed when it ended, not when the block did"
        await stream.aclose()
    assert seen == [0, 1, 2, 3, 4]
    assert stream.operation is cancel
    partial = cancel.context.partial_result
    assert partial is not None
    assert (partial.position, partial.items, partial.completed) == (5, (0, 1, 2, 3, 4), True)


async def test_stopped_while_it_waits_for_an_item() -> None:
    source, seen = steady(), []
    async with Cancelable.with_timeout(2.5, when_cancelled="absorb") as cancel:
        async for item in cancelable_stream(source, cancel, buffer_partial=True):
            seen.append(item)  # noqa: PERF401  (the loop is what is tested)
    partial = cancel.context.partial_result
    assert partial is not None
    assert seen == [0, 1] == list(partial.items)
    assert (partial.position, partial.completed, partial.truncated) == (2, False, False)
    assert (source.produced, source.closed) == (2, True)


async def test_stopped_in_the_body_of_the_loop() -> None:
    source = steady()
    async with Cancelable.with_timeout(2.5, when_cancelled="absorb") as cancel:
        async for _ in cancelable_stream(source, cancel, buffer_partial=True):
            await anyio.sleep(10)
    partial = cancel.context.partial_result
    assert partial is not None
    assert (partial.items, partial.position) == ((0,), 1)
    assert (source.produced, source.closed) == (1, True)


async def test_nothing_is_pulled_once_it_is_cancelled() -> None:
    source, seen = steady(), []
    async with Cancelable(when_cancelled="absorb") as cancel:
        async for item in cancelable_stream(source, cancel):
            seen.append(item)
            if item == 2:
                cancel.cancel()
    assert seen == [0, 1, 2]
    assert source.produced == 3


async def test_who_was_only_asked_may_read_on_to_the_end_of_the_grace() -> None:
    source, seen = steady(), []
    async with Cancelable(when_cancelled="absorb") as cancel:
        async for item in cancelable_stream(source, cancel):
            seen.append(item)
            cancel.cancel(grace=2.5) if item == 0 else None
    assert seen == [0, 1, 2]


async def test_broken_off_and_taken_up_again() -> None:
    source = steady()
    async with Cancelable() as cancel:
        stream = cancelable_stream(source, cancel)
        async for _ in stream:
            break
        assert not source.closed
        assert [item async for item in stream] == [1, 2, 3, 4]
    assert stream.position == 5


async def test_broken_off_and_closed_with_its_block_or_the_operations() -> None:
    inner, outer = steady(), steady()
    async with Cancelable() as cancel:
        async with cancelable_stream(inner, cancel) as stream:
            async for _ in stream:
                break
        assert inner.closed
        async for _ in cancelable_stream(outer, cancel):
            break
        assert not outer.closed
    assert outer.closed
    assert cancel.context.partial_result is not None


async def test_the_consumers_error_closes_the_source_and_passes() -> None:
    source = steady()
    with pytest.raises(LookupError):
        async with Cancelable() as cancel:
            async for _ in cancelable_stream(source, cancel, buffer_partial=True):
                raise LookupError
    assert source.closed
    assert cancel.context.partial_result is not None
    assert cancel.context.partial_result.items == (0,)


async def test_the_sources_error_passes_with_everything_before_it() -> None:
    source = SimulatedStream("abc", StreamScript(fail_at=2))
    with pytest.raises(ConnectionResetError):
        async with Cancelable() as cancel:
            async for _ in cancelable_stream(source, cancel, buffer_partial=True):
                pass
    assert cancel.context.partial_result is not None
    assert cancel.context.partial_result.items == ("a", "b")
    assert cancel.status is OperationStatus.FAILED


async def test_a_bounded_buffer_says_that_it_is_one() -> None:
    async with Cancelable() as cancel:
        stream = cancel.stream(steady(), buffer_partial=2)
        async for _ in stream:
            pass
    assert (stream.partial.items, stream.partial.truncated) == ((3, 4), True)


async def test_progress_is_reported_every_so_many_items() -> None:
    reports: list[Any] = []
    operation = Cancelable().on_progress(lambda _, message, data: reports.append((message, data)))
    async with operation as cancel:
        async for _ in cancel.stream(steady(), report_interval=2):
            pass
    assert reports == [("2 items", {"position": 2}), ("4 items", {"position": 4})]


async def test_an_operation_that_does_not_run_cannot_stop_anything() -> None:
    with pytest.raises(RuntimeError, match="is pending: a stream needs a running one"):
        async for _ in cancelable_stream(steady(), Cancelable()):
            pytest.fail("no item may come")
    with pytest.raises(ValueError, match="an operation, a timeout or a token"):
        cancelable_stream(steady())


async def test_limits_of_its_own_cover_its_block() -> None:
    source = steady()
    with pytest.raises(TimeoutCancelation):
        async with cancelable_stream(source, timeout=2.5) as stream:
            async for _ in stream:
                await anyio.sleep(10)
    assert source.closed
    assert stream.position == 1


async def test_without_a_block_they_only_stop_the_pulling() -> None:
    source, seen = steady(), []
    with pytest.raises(TimeoutCancelation):
        async for item in cancelable_stream(source, timeout=2.5, buffer_partial=True):
            seen.append(item)
            await anyio.sleep(0.4)
    assert seen == [0, 1], "the second was being worked on when the limit passed"
    await anyio.sleep(60)
    token = CancelationToken()
    with pytest.raises(ManualCancelation):
        async for _ in cancelable_stream(steady(), token=token):
            token.cancel()


async def test_without_a_block_after_a_break_nothing_is_cancelled() -> None:
    stream = cancelable_stream(steady(), timeout=2.5)
    async for _ in stream:
        break
    await anyio.sleep(60)
    await stream.aclose()
    whole = cancelable_stream(steady(2), timeout=60)
    assert [item async for item in whole] == [0, 1]
    assert whole.partial.completed


@pytest.mark.parametrize("awaitable", [True, False])
async def test_a_source_with_close_instead_of_aclose(awaitable: bool) -> None:
    closed: list[bool] = []

    class Source:
        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            await checkpoint()
            return 1

        def close(self) -> Any:
            closed.append(True)
            return checkpoint() if awaitable else None

    async with Cancelable() as cancel:
        async for _ in cancel.stream(Source()):
            break
    assert closed == [True]


async def test_a_source_that_cannot_be_closed() -> None:
    class Source:
        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            await checkpoint()
            raise StopAsyncIteration

    async with Cancelable() as cancel:
        assert [item async for item in cancel.stream(Source())] == []
    assert cancel.context.partial_result is not None
    assert cancel.context.partial_result.completed


async def test_the_simulator_stalls_and_bursts_the_same_way_for_the_same_seed() -> None:
    async def times(seed: int) -> list[float]:
        script = StreamScript(seed=seed, stall_chance=0.3, burst_chance=0.3)
        start = anyio.current_time()
        return [anyio.current_time() - start async for _ in SimulatedStream(range(20), script)]

    first = await times(1)
    assert first == pytest.approx(await times(1))
    assert first != pytest.approx(await times(2))
    assert first[-1] > StreamScript().stall


async def test_a_source_that_will_not_close_delays_the_end_by_a_bounded_time() -> None:
    class Stubborn(SimulatedStream[int]):
        async def aclose(self) -> None:
            await anyio.sleep_forever()

    async with Cancelable.with_timeout(1.5, when_cancelled="absorb") as cancel:
        async for _ in cancel.stream(Stubborn(range(3), STEADY)):
            pass
    assert cancel.context.duration == 6.5


async def test_an_error_while_closing_is_raised_unless_there_is_a_better_one() -> None:
    class Broken(SimulatedStream[int]):
        async def aclose(self) -> None:
            raise OSError("cannot close")

    with pytest.raises(OSError, match="cannot close"):
        async with Cancelable() as cancel:
            async for _ in cancel.stream(Broken(range(3))):
                break
    with pytest.raises(LookupError):
        async with Cancelable() as cancel:
            async for _ in cancel.stream(Broken(range(3))):
                raise LookupError


async def test_chunks() -> None:
    async with Cancelable() as cancel:
        chunks = chunked_cancelable_stream(steady(), 2, cancel)
        assert [chunk async for chunk in chunks] == [[0, 1], [2, 3], [4]]
    with pytest.raises(ValueError, match="at least one item"):
        chunked_cancelable_stream(steady(), 0, cancel)


async def test_what_was_taken_for_a_chunk_is_not_lost() -> None:
    source, seen = steady(), []
    async with Cancelable.with_timeout(3.5, when_cancelled="absorb") as cancel:
        chunks = chunked_cancelable_stream(source, 2, cancel)
        async for chunk in chunks:
            seen.append(chunk)  # noqa: PERF401  (the loop is what is tested)
    assert (seen, chunks.pending, chunks.position) == ([[0, 1]], [2], 1)
    assert source.closed


async def test_a_long_lived_operation_forgets_its_streams() -> None:
    async with Cancelable() as cancel:
        for _ in range(10):
            async with cancel.stream(steady(1)) as stream:
                async for _ in stream:
                    pass
        assert not cancel._streams
