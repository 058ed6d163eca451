"""``Cancelable``: how blocks end, on each loop, in every combination of who asked."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import weakref
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from cancelable_core import (
    Cancelable,
    CancelationError,
    CancelationReason,
    CancelationToken,
    ConditionCancelation,
    ManualCancelation,
    OperationStatus,
    ParentCancelation,
    TimeoutCancelation,
    TimeoutSource,
    current_operation,
)

pytestmark = pytest.mark.anyio
Status = OperationStatus


# -- ends ------------------------------------------------------------------------------


async def test_a_body_that_returns_is_completed() -> None:
    async with Cancelable(name="job") as cancel:
        assert cancel.status is Status.RUNNING
        await anyio.sleep(3)
    context = cancel.context
    assert (context.status, context.cause, context.duration) == (Status.COMPLETED, None, 3)
    assert context.started_at is not None
    assert context.ended_at == pytest.approx(context.started_at + 3)


async def test_its_own_limit_raises_a_typed_error_that_says_where_the_body_was() -> None:
    with pytest.raises(
        TimeoutCancelation, match=r"job was cancelled \(timeout: after 2 s\)"
    ) as caught:
        async with Cancelable.with_timeout(timedelta(seconds=2), name="job") as cancel:
            await anyio.sleep_forever()
    assert isinstance(caught.value.__cause__, anyio.get_cancelled_exc_class())
    assert cancel.status is Status.TIMEOUT
    assert cancel.context.duration == 2


@pytest.mark.parametrize("timeout", [0, -1, timedelta(0)])
async def test_no_time_at_all_means_now(timeout: float) -> None:  # noqa: ASYNC109  (a value)
    with pytest.raises(TimeoutCancelation):
        async with Cancelable.with_timeout(timeout):
            await checkpoint()
            pytest.fail("the limit has passed")


async def test_absorbing_goes_on_behind_the_block() -> None:
    async with Cancelable(when_cancelled="absorb") as cancel:
        cancel.cancel(message="enough")
        await checkpoint()
        pytest.fail("it was cancelled")
    assert cancel.context.message == "enough"
    await checkpoint()


async def test_propagating_passes_the_loops_own_exception_on() -> None:
    with pytest.raises(anyio.get_cancelled_exc_class()):
        async with Cancelable(when_cancelled="propagate") as cancel:
            cancel.cancel()
            await checkpoint()
    assert cancel.status is Status.CANCELLED
    await checkpoint()


async def test_an_unknown_ending_is_refused() -> None:
    with pytest.raises(ValueError, match="raise, absorb, propagate"):
        Cancelable(when_cancelled="ignore")  # type: ignore[arg-type]


async def test_the_bodys_exception_passes_unchanged_and_the_cause_stays_readable() -> None:
    error = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        async with Cancelable() as cancel:
            cancel.cancel()
            try:
                await checkpoint()
            finally:
                raise error
    assert caught.value is error
    assert cancel.status is Status.FAILED
    assert cancel.context.error == "LookupError: mine"
    assert cancel.context.reason is CancelationReason.MANUAL


async def test_a_body_that_finishes_although_it_was_cancelled_is_completed() -> None:
    async with Cancelable() as cancel:
        cancel.cancel()
    assert (cancel.status, cancel.context.reason) == (Status.COMPLETED, "manual")
    await checkpoint()


async def test_a_limit_that_passed_without_a_checkpoint_is_recorded() -> None:
    async with Cancelable.with_timeout(0) as cancel:
        pass
    assert (cancel.status, cancel.context.reason) == (Status.COMPLETED, "timeout")


async def test_a_check_that_raises_ends_the_block_like_the_cancelation() -> None:
    async with Cancelable(when_cancelled="absorb") as cancel:
        cancel.cancel()
        cancel.check()
    assert cancel.status is Status.CANCELLED
    with pytest.raises(ManualCancelation) as caught:
        async with Cancelable() as cancel:
            cancel.cancel()
            cancel.check()
    assert caught.value.cause is cancel.cause


async def test_the_error_of_an_inner_block_is_an_error_to_the_outer() -> None:
    with pytest.raises(TimeoutCancelation):
        async with Cancelable(name="outer") as outer:  # noqa: SIM117  (one inside the other is what is tested)
            async with Cancelable.with_timeout(1, name="inner"):
                await anyio.sleep_forever()
    assert outer.status is Status.FAILED
    assert outer.cause is None


async def test_an_outer_scope_passes_through_and_is_external() -> None:
    with anyio.move_on_after(1) as scope:
        async with Cancelable() as cancel:
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert (cancel.status, cancel.context.reason) == (Status.CANCELLED, "external")
    assert current_operation() is None


async def test_an_outer_operation_is_the_parent_of_the_cause() -> None:
    with pytest.raises(TimeoutCancelation):
        async with Cancelable.with_timeout(1, name="outer") as outer:  # noqa: SIM117  (one inside the other is what is tested)
            async with Cancelable(name="middle"):
                async with Cancelable(name="inner") as inner:
                    await anyio.sleep_forever()
    assert inner.cause is not None
    assert [cause.reason for cause in inner.cause.chain()] == ["parent", "timeout"]
    assert inner.cause.parent is outer.cause
    assert inner.parent_id is not None


async def test_outer_and_own_cancelation_together_the_outer_wins() -> None:
    with anyio.CancelScope() as scope:
        async with Cancelable(when_cancelled="absorb") as cancel:
            cancel.cancel()
            scope.cancel()
            await anyio.sleep_forever()
        pytest.fail("the outer scope was cancelled")
    assert cancel.context.reason is CancelationReason.MANUAL, "it was first"


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)  # trio has no such thing
async def test_a_native_cancelation_passes_and_leaves_the_count_alone() -> None:
    counts: list[int] = []

    async def work(own: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with Cancelable(when_cancelled="absorb") as cancel:
                if own:
                    cancel.cancel()
                await anyio.sleep_forever()
        finally:
            counts.append(task.cancelling())

    for own in (False, True):
        task = asyncio.create_task(work(own))
        await asyncio.sleep(0)
        task.cancel("by hand")
        with pytest.raises(asyncio.CancelledError):
            await task
    assert counts == [1, 1]
    await work(own=True)
    assert counts == [1, 1, 0]


async def test_a_group_of_cancelations_and_errors_gives_up_the_errors() -> None:
    async def fail() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise LookupError("mine")

    with pytest.raises(ExceptionGroup) as caught:
        async with Cancelable() as cancel, anyio.create_task_group() as group:
            group.start_soon(fail)
            await anyio.wait_all_tasks_blocked()
            cancel.cancel()
            await anyio.sleep_forever()
    assert caught.group_contains(LookupError, match="mine")
    assert not caught.group_contains(anyio.get_cancelled_exc_class())
    assert cancel.status is Status.FAILED


async def test_a_group_of_the_body_that_holds_no_cancelation_passes_as_it_is() -> None:
    class Group(ExceptionGroup[Exception]):
        """Has no ``derive``: what splits it makes a plain group."""

    group = Group("mine", [LookupError("one"), Group("inner", [ValueError("two")])])
    with pytest.raises(Group) as caught:
        async with Cancelable() as cancel:
            cancel.cancel()
            raise group
    assert caught.value is group
    assert cancel.status is Status.FAILED


async def test_swallowing_the_cancelation_completes() -> None:
    async with Cancelable() as cancel:
        cancel.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)
    assert cancel.status is Status.COMPLETED


# -- life ------------------------------------------------------------------------------


async def test_an_instance_is_entered_once_and_says_who_it_is() -> None:
    operation = Cancelable(name="job")
    async with operation:
        with pytest.raises(RuntimeError, match="operation job is running and cannot be entered"):
            await operation.__aenter__()
        assert current_operation() is operation
    with pytest.raises(RuntimeError, match="operation job is completed and cannot be entered"):
        await operation.__aenter__()
    with pytest.raises(RuntimeError, match="cannot be combined"):
        Cancelable().combine(operation)
    with pytest.raises(RuntimeError, match="cannot be given sources"):
        operation.add_source(TimeoutSource(1))


async def test_cancelled_before_entry_means_cancelled_at_the_first_checkpoint() -> None:
    operation = Cancelable()
    assert operation.cancel(message="early")
    with pytest.raises(ManualCancelation, match="early"):
        async with operation:
            await checkpoint()
            pytest.fail("it was cancelled")


async def test_cancelled_while_it_starts_it_cannot_run_and_so_cannot_be_absorbed() -> None:
    operation = Cancelable(when_cancelled="absorb")

    async def cancel(_: object) -> None:
        operation.cancel()
        await checkpoint()

    with pytest.raises(ManualCancelation):
        async with operation.on_start(cancel):
            pytest.fail("it was cancelled before")
    assert operation.status is Status.CANCELLED
    assert operation.status.is_final


async def test_a_source_that_cannot_start_leaves_nothing_behind() -> None:
    closed: list[str] = []

    class Good:
        def attach(self, _: object) -> Good:
            return self

        def close(self) -> None:
            closed.append("good")

    class Bad:
        def attach(self, _: object) -> None:
            raise LookupError("no such source")

    operation = Cancelable(parent=Cancelable()).add_source(Good()).add_source(Bad())
    with pytest.raises(LookupError):
        await operation.__aenter__()
    assert closed == ["good"]
    assert (operation.status, current_operation()) == (Status.FAILED, None)
    assert operation.context.error == "LookupError: no such source"


async def test_current_operation_is_the_innermost_that_still_runs() -> None:
    seen: list[Any] = []
    ended = anyio.Event()

    async def outlive() -> None:
        await ended.wait()
        seen.append(current_operation())

    async with anyio.create_task_group() as group, Cancelable(name="outer") as outer:
        async with Cancelable(name="inner") as inner:
            assert current_operation() is inner
            group.start_soon(outlive)
        assert current_operation() is outer
        ended.set()
        await anyio.wait_all_tasks_blocked()
    assert current_operation() is None
    assert seen == [outer]


async def test_the_context_can_be_read_at_any_time() -> None:
    operation = Cancelable("id-1", "job", metadata={"user": 7})
    context = operation.context
    assert (context.id, context.name, context.status) == ("id-1", "job", Status.PENDING)
    assert (context.started_at, context.ended_at, context.duration) == (None, None, 0)
    assert (context.message, context.reason, context.partial_result) == (None, None, None)
    async with operation:
        await anyio.sleep(1)
        assert context.duration == 1
        await operation.report_progress("half", {"done": 5})
    assert (context.progress, context.metadata, context.parent_id) == ("half", {"user": 7}, None)
    assert context.error is None
    assert context.snapshot().label == "job"
    assert Cancelable().label.startswith("op-")
    assert repr(operation) == "<Cancelable job completed>"
    assert operation.token is operation


async def test_nothing_is_left_of_ended_operations() -> None:
    token = CancelationToken()

    async def one() -> weakref.ref[Cancelable]:
        try:
            async with Cancelable.with_token(token, name="job") as cancel:
                cancel.cancel()
                await checkpoint()
        except ManualCancelation:
            pass
        return weakref.ref(cancel)

    gc.collect()
    gc.disable()
    try:
        references = [await one() for _ in range(20)]
        await checkpoint()
        assert [reference() for reference in references] == [None] * 20
    finally:
        gc.enable()
    assert not token._callbacks


# -- deadlines -------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(1, 5), (5, 1)])
async def test_the_shortest_limit_wins_in_any_order(order: tuple[float, float]) -> None:
    first, second = map(Cancelable.with_timeout, order)
    with pytest.raises(TimeoutCancelation, match="after 1 s"):
        async with first.combine(second) as cancel:
            assert cancel.remaining() == 1
            assert cancel.deadline == anyio.current_time() + 1
            await anyio.sleep_forever()
    assert cancel.context.duration == 1


async def test_a_limit_can_be_extended_and_set_anew() -> None:
    async with Cancelable.with_timeout(5, when_cancelled="absorb") as cancel:
        cancel.extend(5)
        await anyio.sleep(8)
        cancel.reschedule(4)
        await anyio.sleep_forever()
    assert cancel.context.duration == 12
    async with Cancelable(when_cancelled="absorb") as cancel:
        with pytest.raises(RuntimeError, match="no running time limit"):
            cancel.extend(1)
        assert cancel.remaining() == math.inf
        cancel.reschedule(2)
        await anyio.sleep_forever()
    assert cancel.context.duration == 2
    assert (cancel.deadline, cancel.remaining()) == (math.inf, math.inf)
    with pytest.raises(RuntimeError, match="not running"):
        cancel.reschedule(1)


async def test_a_thread_can_extend() -> None:
    async with Cancelable.with_timeout(5, when_cancelled="absorb") as cancel:
        thread = threading.Thread(target=cancel.extend, args=[5])
        thread.start()
        thread.join()
        await anyio.sleep_forever()
    assert cancel.context.duration == 10


async def test_a_limit_that_strikes_while_a_thread_extends_it_has_struck() -> None:
    async with Cancelable.with_timeout(5, when_cancelled="absorb") as cancel:
        cancel._timer.expires += 60  # type: ignore[union-attr]  # the scope does not know yet
        await anyio.sleep_forever()
    assert (cancel.status, cancel.context.duration) == (Status.TIMEOUT, 5)


def test_a_duration_is_a_number() -> None:
    with pytest.raises(ValueError, match="number of seconds"):
        Cancelable.with_timeout(math.nan)


async def test_the_cause_is_the_limit_when_the_limit_came_first() -> None:
    async with Cancelable.with_timeout(1, when_cancelled="absorb") as cancel:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
                assert cancel.cancel() is False
    assert cancel.status is Status.TIMEOUT


# -- parents ---------------------------------------------------------------------------


async def _child_elsewhere(
    parent: Cancelable, body: Callable[[], Awaitable[object]], **options: Any
) -> list[CancelationError]:
    """Run ``body`` and a child of ``parent`` in a task outside it."""
    errors: list[CancelationError] = []
    ready = anyio.Event()

    async def run_child() -> None:
        try:
            async with Cancelable(parent=parent, **options):
                ready.set()
                await anyio.sleep_forever()
        except CancelationError as error:
            errors.append(error)

    async with anyio.create_task_group() as group, parent:
        group.start_soon(run_child)
        await ready.wait()
        await body()
    return errors


async def test_cancelling_a_parent_stops_a_child_in_another_task() -> None:
    parent = Cancelable(name="parent", when_cancelled="absorb")

    async def body() -> None:
        parent.cancel(message="all of you")
        await anyio.sleep_forever()

    (error,) = await _child_elsewhere(parent, body)
    assert isinstance(error, ParentCancelation)
    assert error.cause.parent is parent.cause
    assert (error.cause.message, error.cause.origin) == ("all of you", "parent")
    assert not parent._children


async def test_a_parents_limit_stops_a_child_in_another_task_at_that_time() -> None:
    parent = Cancelable.with_timeout(2, when_cancelled="absorb")

    async def body() -> None:
        parent.extend(1)
        await anyio.sleep_forever()

    (error,) = await _child_elsewhere(parent, body)
    assert isinstance(error, ParentCancelation)
    assert [cause.reason for cause in error.cause.chain()] == ["parent", "timeout"]
    assert anyio.current_time() == pytest.approx(3)


async def test_a_child_cannot_cancel_its_parent() -> None:
    async with Cancelable() as parent:
        async with Cancelable(parent=parent, when_cancelled="absorb") as child:
            child.cancel()
            await checkpoint()
        assert not parent.is_cancelled


async def test_a_shared_token_is_not_cancelled_by_an_operation() -> None:
    token = CancelationToken()
    async with Cancelable.with_token(token) as other:
        async with Cancelable.with_token(token, when_cancelled="absorb") as one:
            one.cancel()
            await checkpoint()
        assert not token.is_cancelled
        assert not other.is_cancelled


# -- combining -------------------------------------------------------------------------


async def test_a_combination_follows_its_members_and_keeps_their_causes() -> None:
    token = CancelationToken(name="button")
    first = Cancelable.with_timeout(9, name="first", metadata={"a": 1})
    second = Cancelable.with_token(token, metadata={"b": 2})
    called: list[str] = []
    second.on_cancel(lambda context: called.append(context.name))
    combined = first.combine(second)
    token.cancel(message="pressed")
    with pytest.raises(ManualCancelation) as caught:
        async with combined:
            await checkpoint()
    assert caught.value.cause is token.cause
    assert (combined.name, dict(combined.metadata)) == ("first", {"a": 1, "b": 2})
    assert called == ["first"]
    assert first.status is Status.PENDING


async def test_cancelling_a_member_cancels_the_combination() -> None:
    member = Cancelable()
    async with Cancelable.with_timeout(9).combine(member) as combined:
        member.cancel()
        with pytest.raises(ManualCancelation):
            combined.check()


# -- two phases ------------------------------------------------------------------------


async def test_who_is_asked_may_finish_within_the_grace() -> None:
    async with Cancelable() as cancel:
        cancel.cancel(grace=5)
        assert cancel.is_cancelled
        assert await cancel.wait() is cancel.cause
        await anyio.sleep(4)
    assert (cancel.status, cancel.context.reason) == (Status.COMPLETED, "manual")


async def test_who_does_not_finish_is_stopped_at_the_end_of_the_grace() -> None:
    async with Cancelable(when_cancelled="absorb") as cancel:
        cancel.cancel(message="please", grace=5)
        await anyio.sleep_forever()
    assert (cancel.context.duration, cancel.context.message) == (5, "please")


@pytest.mark.parametrize("again", [Cancelable.cancel, Cancelable.force])
async def test_asking_twice_is_stopping(again: Callable[[Cancelable], object]) -> None:
    async with Cancelable(when_cancelled="absorb") as cancel:
        cancel.cancel(message="please", grace=5)
        await anyio.sleep(1)
        again(cancel)
        await anyio.sleep_forever()
    assert (cancel.context.duration, cancel.context.message) == (1, "please")


async def test_a_second_token_forces_what_the_first_one_asked_for() -> None:
    ask, force = CancelationToken(), CancelationToken()
    async with Cancelable(linked_to=(ask, force), when_cancelled="absorb") as cancel:
        ask.cancel(message="please", grace=60)
        await anyio.sleep(1)
        force.cancel()
        await anyio.sleep_forever()
    assert (cancel.context.duration, cancel.context.message) == (1, "please")
    assert not force._callbacks


async def test_a_limit_still_counts_during_the_grace() -> None:
    async with Cancelable.with_timeout(3, when_cancelled="absorb") as cancel:
        cancel.cancel(grace=60)
        await anyio.sleep_forever()
    assert (cancel.context.duration, cancel.context.reason) == (3, "manual")


# -- shields, wraps --------------------------------------------------------------------


async def test_a_shield_holds_until_its_block_ends() -> None:
    async with Cancelable(when_cancelled="absorb") as cancel:
        async with cancel.shield() as shield:
            cancel.cancel()
            await anyio.sleep(60)
        assert not shield.lifted
        await checkpoint()
        pytest.fail("the shield is down")
    assert cancel.context.duration == 60


async def test_a_bounded_shield_is_lifted_in_time() -> None:
    async with Cancelable(when_cancelled="absorb") as cancel:
        cancel.cancel()
        async with cancel.shield(limit=5) as shield:
            await anyio.sleep_forever()
    assert shield.lifted
    assert cancel.context.duration == 5


async def test_a_bounded_shield_that_is_lifted_harms_nobody_who_is_not_cancelled() -> None:
    async with Cancelable() as cancel:
        async with cancel.shield(limit=5):
            await anyio.sleep(10)
        with pytest.raises(LookupError):
            async with cancel.shield(limit=5):
                raise LookupError
    assert cancel.status is Status.COMPLETED


async def test_an_outer_scope_waits_for_a_bounded_shield() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with Cancelable().shield(limit=5):
            await anyio.sleep_forever()
    assert anyio.current_time() == 5


async def test_a_wrapped_function_is_checked_before_each_call() -> None:
    async def double(number: int) -> int:
        return 2 * number

    async with Cancelable(when_cancelled="absorb") as cancel:
        checked = cancel.wrap(double)
        assert await checked(4) == 8
        cancel.cancel()
        await checked(4)
        pytest.fail("it was cancelled")


# -- callbacks -------------------------------------------------------------------------


async def test_callbacks_hear_of_the_life_of_an_operation() -> None:
    heard: list[object] = []

    async def later(context: Any) -> None:
        await checkpoint()
        heard.append(("start", context.status))

    def observed(**options: Any) -> Cancelable:
        return (
            Cancelable("id", **options)
            .on_start(later)
            .on_progress(lambda id_, message, metadata: heard.append((id_, message, metadata)))
            .on_complete(lambda context: heard.append(("complete", context.status)))
            .on_cancel(lambda context: heard.append(("cancel", context.reason)))
            .on_error(lambda _, error: heard.append(("error", type(error))))
        )

    async with observed() as cancel:
        await cancel.report_progress("half")
    with pytest.raises(LookupError):
        async with observed():
            raise LookupError
    async with observed(when_cancelled="absorb") as cancel:
        cancel.cancel()
        await checkpoint()
    begun = ("start", Status.RUNNING)
    assert heard == [
        begun,
        ("id", "half", {}),
        ("complete", Status.COMPLETED),
        begun,
        ("error", LookupError),
        begun,
        ("cancel", CancelationReason.MANUAL),
    ]


async def test_a_slow_callback_runs_to_its_end_under_an_outer_cancelation_but_not_for_ever() -> (
    None
):
    heard: list[str] = []

    async def slow(seconds: float) -> None:
        await anyio.sleep(seconds)
        heard.append(f"after {seconds}")

    with anyio.CancelScope() as scope:
        async with Cancelable().on_cancel(lambda _: slow(1)).on_cancel(lambda _: slow(60)):
            scope.cancel()
            await anyio.sleep_forever()
    assert heard == ["after 1"]
    assert anyio.current_time() == 5


async def test_what_callbacks_raise_ends_the_block_when_all_have_run() -> None:
    heard: list[str] = []

    def fail(_: object) -> None:
        raise LookupError("callback")

    with pytest.raises(LookupError, match="callback"):
        async with Cancelable().on_complete(fail).on_complete(lambda _: heard.append("second")):
            pass
    with pytest.raises(ExceptionGroup):
        async with Cancelable().on_complete(fail).on_complete(fail):
            pass
    with pytest.raises(LookupError):
        async with Cancelable().on_start(fail).on_error(lambda *_: heard.append("error")):
            pytest.fail("it did not start")
    assert heard == ["second", "error"]
    assert current_operation() is None


# -- threads ---------------------------------------------------------------------------


async def test_a_thread_wakes_an_idle_loop() -> None:
    token = CancelationToken()
    async with Cancelable.with_token(token, when_cancelled="absorb"):
        thread = threading.Thread(target=token.cancel)
        thread.start()
        await anyio.Event().wait()
    thread.join()


async def test_a_loop_that_has_ended_is_no_obstacle() -> None:
    token = CancelationToken()
    left: list[Any] = []

    async def leave_open() -> None:
        left.append(await Cancelable.with_token(token).__aenter__())
        left.append(token.register(lambda _: left.append("heard")))
        left[0]._scope.__exit__(None, None, None)

    await anyio.to_thread.run_sync(anyio.run, leave_open)
    token.cancel()
    assert left[-1] == "heard"


async def test_one_token_stops_operations_in_several_loops() -> None:
    token, ended = CancelationToken(), []

    async def work() -> None:
        async with Cancelable.with_token(token, when_cancelled="absorb"):
            await anyio.sleep_forever()
        ended.append(threading.get_ident())

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, anyio.run, work)
        group.start_soon(lambda: anyio.to_thread.run_sync(lambda: anyio.run(work, backend="trio")))
        group.start_soon(work)
        while len(token._callbacks) < 3:
            await checkpoint()
        token.cancel()
    assert len(set(ended)) == 3


async def test_waiting_conditions() -> None:
    with pytest.raises(ConditionCancelation, match="flag is up"):
        async with Cancelable.with_condition(lambda: True, condition_name="flag is up"):
            await anyio.sleep_forever()
