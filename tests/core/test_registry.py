"""The registry, the monitor that watches it, and the recorder that remembers it."""

from __future__ import annotations

import math
import threading
from typing import Any

import anyio
import pytest

from cancelable_core import (
    Cancelable,
    CancelationReason,
    ManualCancelation,
    OperationEvent,
    OperationRegistry,
    OperationStatus,
    default_registry,
)
from cancelable_core.monitoring import Monitor, percentile, render
from cancelable_core.testing import OperationRecorder

pytestmark = pytest.mark.anyio


async def _stay(registry: OperationRegistry, name: str) -> None:
    async with Cancelable(name=name, registry=registry, when_cancelled="absorb"):
        await anyio.sleep_forever()


async def test_it_lists_what_runs_and_remembers_what_ended() -> None:
    registry = OperationRegistry(history=2)
    async with Cancelable("a", "outer", registry=registry):  # noqa: SIM117  (one inside the other is what is tested)
        async with Cancelable("b", "inner", registry=registry) as inner:
            assert registry.get("b") is inner
            assert [each.id for each in registry.list()] == ["a", "b"]
            assert [each.id for each in registry.list(name="inner")] == ["b"]
            assert [each.id for each in registry.list(parent_id="a")] == ["b"]
            assert len(registry) == 2
    for number in range(3):
        async with Cancelable(str(number), registry=registry):
            pass
    assert registry.get("a") is None
    assert [each.id for each in registry.history()] == ["1", "2"]
    assert [each.id for each in registry.history(1)] == ["2"]
    assert registry.history(0) == ()


async def test_it_cancels_one_or_all_from_any_thread() -> None:
    registry = OperationRegistry()
    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(_stay, registry, str(number))
        await anyio.wait_all_tasks_blocked()
        first = registry.list()[0].id
        assert await anyio.to_thread.run_sync(registry.cancel, first)
        await registry.wait_until_done(first)
        assert len(registry) == 2
        assert registry.cancel_all(message="enough") == 2
        assert registry.cancel_all() == 0
        await registry.wait_until_done()
    assert registry.cancel(first) is False
    statistics = registry.statistics()
    assert (statistics.running, statistics.started) == (0, 3)
    assert statistics.by_status == {OperationStatus.CANCELLED: 3}
    assert statistics.by_reason == {CancelationReason.MANUAL: 3}


async def test_statistics_of_nothing() -> None:
    registry = OperationRegistry()
    assert registry.statistics().mean_duration == 0
    await registry.wait_until_done()
    async with Cancelable(registry=registry):
        await anyio.sleep(4)
    assert registry.statistics().mean_duration == 4


async def test_the_processs_registry_is_only_for_those_who_ask() -> None:
    async with Cancelable(), Cancelable("mine", register_globally=True):
        assert [each.id for each in default_registry().list()] == ["mine"]
    assert len(default_registry()) == 0


async def test_ids_are_unique_among_those_that_run() -> None:
    registry = OperationRegistry()
    async with Cancelable("same", registry=registry) as first:
        second = Cancelable("same", registry=registry)
        with pytest.raises(ValueError, match="same is running already"):
            await second.__aenter__()
        assert second.status is OperationStatus.FAILED
        assert registry.get("same") is first
    assert len(registry) == 0


async def test_observers_hear_everything_until_they_leave() -> None:
    registry = OperationRegistry()
    heard: list[Any] = []

    def hear(event: OperationEvent) -> None:
        heard.append((str(event.kind), event.operation.status, event.operation.progress))

    with registry.observe(hear):
        async with Cancelable(registry=registry) as cancel:
            await cancel.report_progress("half")
    async with Cancelable(registry=registry):
        pass
    assert heard == [
        ("started", "running", None),
        ("progressed", "running", "half"),
        ("ended", "completed", "half"),
    ]


async def test_an_observer_that_raises_is_heard_and_harms_nothing_else() -> None:
    registry = OperationRegistry()

    def fail(_: OperationEvent) -> None:
        raise LookupError

    with registry.observe(fail), pytest.raises(LookupError):
        await Cancelable("a", registry=registry).__aenter__()
    operation = Cancelable.with_condition(lambda: False, registry=registry)
    with pytest.raises(LookupError):
        async with operation:
            registry.observe(fail)
    assert len(registry) == 0
    await anyio.sleep(1)


async def test_reading_while_others_write() -> None:
    registry, done = OperationRegistry(), threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                registry.list(), registry.history(), registry.statistics()
        except BaseException as error:  # noqa: BLE001  (whatever it is)
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(300):
        async with Cancelable(registry=registry):
            pass
    done.set()
    thread.join()
    assert errors == []


# -- monitor ---------------------------------------------------------------------------


async def test_the_monitor_counts_without_asking() -> None:
    registry, changes, clock = OperationRegistry(), [], [0.0]
    async with Cancelable("early", registry=registry):
        with Monitor(
            registry, window=10, on_change=lambda: changes.append(1), clock=lambda: clock[0]
        ) as monitor:
            assert math.isnan(monitor.figures().p50)
            assert monitor.figures().per_second == 0
            for seconds in (1, 2, 3):
                async with Cancelable(registry=registry):
                    await anyio.sleep(seconds)
                clock[0] += 1
            with pytest.raises(ManualCancelation):
                async with Cancelable(registry=registry) as cancel:
                    cancel.cancel()
                    await anyio.sleep(1)
            clock[0] = 5
            figures = monitor.figures()
            assert [each.id for each in figures.running] == ["early"]
            assert (figures.p50, figures.p95, figures.p99) == (1, 3, 3)
            assert figures.per_second == 4 / 5
            assert figures.by_status == {"completed": 3, "cancelled": 1}
            assert figures.by_reason == {"manual": 1}
            assert len(changes) == 8
            clock[0] = 100
            assert monitor.figures().per_second == 0
    assert len(changes) == 8


def test_percentiles_by_nearest_rank() -> None:
    values = [15, 20, 35, 40, 50]
    assert [percentile(values, percent) for percent in (0, 5, 30, 40, 50, 100)] == [
        15,
        15,
        20,
        20,
        35,
        50,
    ]
    assert math.isnan(percentile([], 50))


async def test_the_figures_say_what_stopped_operations() -> None:
    registry = OperationRegistry()
    with Monitor(registry) as monitor:
        async with Cancelable(registry=registry, when_cancelled="absorb") as cancel:
            cancel.cancel()
            await anyio.sleep(1)
    assert "stopped by: manual 1" in render(monitor.figures())


async def test_the_figures_as_text() -> None:
    registry = OperationRegistry()
    with Monitor(registry, clock=lambda: 0.0) as monitor:
        assert "durations: none yet" in render(monitor.figures())
        async with Cancelable(name="done", registry=registry):
            await anyio.sleep(2)
        async with Cancelable(name="import", registry=registry) as cancel:
            await cancel.report_progress("row 7 of 9")
            cancel.cancel(grace=5)
            await cancel.report_progress("row 8 of 9")
            started = cancel.context.started_at
            assert started is not None
            text = render(monitor.figures(), width=60, now=started + 3)
    assert text.splitlines() == [
        "1 running · 1 ended · 0.0/s",
        "durations: p50 2.00 s · p95 2.00 s · p99 2.00 s",
        "ended: completed 1",
        "",
        "OPERATION                STATUS          FOR  PROGRESS",
        "import                   stopping      3.0 s  row 8 of 9",
    ]


# -- recorder --------------------------------------------------------------------------


async def test_the_recorder_tells_the_story() -> None:
    with OperationRecorder() as recorder:
        async with Cancelable.with_timeout(
            1, name="job", registry=recorder.registry, when_cancelled="absorb"
        ) as cancel:
            await cancel.report_progress("half")
            await anyio.sleep_forever()
    assert recorder.story == ["job started", "job: half", "job timeout (timeout: after 1 s)"]
    with recorder:
        async with Cancelable(name="other job", registry=recorder.registry):
            pass
    assert recorder.story[-1] == "other job completed"
    recorder.assert_ended("job", OperationStatus.TIMEOUT, CancelationReason.TIMEOUT)
    with pytest.raises(AssertionError, match=r"job ended timeout \(timeout\)"):
        recorder.assert_ended("job", OperationStatus.COMPLETED)
    with pytest.raises(
        AssertionError, match=r"other has not ended; what happened: \['job started'"
    ):
        recorder.assert_ended("other", OperationStatus.COMPLETED)
