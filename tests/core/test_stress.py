"""Properties and stress: random trees of operations, signals into locks, leaks, latencies."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import statistics
import threading
import time
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cancelable_core import (
    Cancelable,
    CancelationReason,
    CancelationToken,
    OperationStatus,
    current_operation,
    signal_hub,
)
from cancelable_core.testing import run_virtual

BACKENDS = ["asyncio", "trio"]
Reason = CancelationReason
RANDOM = settings(
    max_examples=int(os.environ.get("EXAMPLES_PER_PROPERTY", "25")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


# -- random trees --------------------------------------------------------------------------
#
# A node is an operation with a limit or none, that lasts a while, then runs its children one
# after the other or all at once. At random times somebody cancels one of them. The model
# below says, for every node, when it must end and why; the library has to agree.

durations = st.integers(1, 40).map(lambda tenths: tenths / 10 + 0.05)


def node(children: Any) -> Any:
    return st.fixed_dictionaries(
        {
            "limit": st.none() | st.integers(1, 40).map(lambda tenths: tenths / 10),
            "lasts": durations,
            "cancel_at": st.none() | st.integers(0, 40).map(lambda tenths: tenths / 10 + 0.02),
            "linked": st.booleans(),
            "children": children,
        }
    )


nodes = st.recursive(
    node(st.just([])), lambda inner: node(st.lists(inner, max_size=3)), max_leaves=6
)


class Node:
    """One operation of the tree, and what became of it."""

    def __init__(self, recipe: dict[str, Any], tokens: list[CancelationToken]) -> None:
        self.recipe = recipe
        self.token = CancelationToken(name="linked")
        tokens.append(self.token)
        options: dict[str, Any] = {"when_cancelled": "absorb", "linked_to": (self.token,)}
        limit = recipe["limit"]
        self.operation = (
            Cancelable(**options) if limit is None else Cancelable.with_timeout(limit, **options)
        )
        self.children = [Node(child, tokens) for child in recipe["children"]]
        self.started = self.ended = -1.0

    async def run(self) -> None:
        self.started = anyio.current_time()
        try:
            async with self.operation as cancel:
                assert current_operation() is cancel
                await anyio.sleep(self.recipe["lasts"])
                async with anyio.create_task_group() as group:
                    for child in self.children:
                        group.start_soon(child.run)
                assert current_operation() is cancel
        finally:
            self.ended = anyio.current_time()

    async def disturb(self) -> None:
        """Cancel it at its time, by itself or through its token."""
        at = self.recipe["cancel_at"]
        if at is not None:
            await anyio.sleep(at)
            (self.token if self.recipe["linked"] else self.operation).cancel(message="disturbed")

    def walk(self) -> Any:
        yield self
        for child in self.children:
            yield from child.walk()

    def expect(self, starts: float, outer: float, origin: float) -> float:
        """When it ends, given its start and the end of everything around it; checks it."""
        recipe = self.recipe
        limit = starts + recipe["limit"] if recipe["limit"] is not None else float("inf")
        cancel = (
            max(starts, origin + recipe["cancel_at"])
            if recipe["cancel_at"] is not None
            else float("inf")
        )
        own = min(limit, cancel)
        stop = min(own, outer)
        begins = starts + recipe["lasts"]
        if begins >= stop:
            ends, natural = stop, False
            for child in self.children:
                assert child.started < 0
        else:
            last = max(
                [child.expect(begins, stop, origin) for child in self.children], default=begins
            )
            natural, ends = last < stop, min(last, stop)
        assert self.ended == pytest.approx(ends, abs=1e-6)
        self._check(natural=natural, own=own, outer=outer, limit=limit, cancel=cancel)
        return ends

    def _check(
        self, *, natural: bool, own: float, outer: float, limit: float, cancel: float
    ) -> None:
        status, reason = self.operation.status, self.operation.context.reason
        if natural:
            assert status is OperationStatus.COMPLETED
        elif abs(own - outer) < 1e-6 or abs(limit - cancel) < 1e-6:
            assert status in (OperationStatus.CANCELLED, OperationStatus.TIMEOUT)
        elif own < outer:
            assert reason is (Reason.TIMEOUT if limit < cancel else Reason.MANUAL)
        else:
            assert status is OperationStatus.CANCELLED
            assert reason is Reason.PARENT


@pytest.mark.parametrize("backend", BACKENDS)
@RANDOM
@given(recipe=nodes)
def test_every_node_of_a_random_tree_ends_when_and_why_it_should(backend: Any, recipe: Any) -> None:
    tokens: list[CancelationToken] = []
    root = Node(recipe, tokens)

    async def main() -> float:
        origin = anyio.current_time()
        async with anyio.create_task_group() as group:
            for node in root.walk():
                group.start_soon(node.disturb)
            await root.run()
            group.cancel_scope.cancel()
        assert current_operation() is None
        await anyio.lowlevel.checkpoint()
        return origin

    origin = run_virtual(main, backend=backend)
    root.expect(origin, float("inf"), origin)
    assert not any(token._callbacks for token in tokens)
    assert not any(node.operation._callbacks or node.operation._children for node in root.walk())


# -- real threads and signals ----------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_trees_cancelled_by_tasks_threads_and_signals_lose_nothing(backend: str) -> None:
    dice = random.Random(11)  # noqa: S311  (a test's dice)
    ended: list[tuple[OperationStatus, str | None]] = []

    async def leaf(parent: Cancelable, token: CancelationToken) -> None:
        async with Cancelable(parent=parent, linked_to=(token,), when_cancelled="absorb") as cancel:
            await anyio.sleep_forever()
        ended.append((cancel.status, cancel.context.message))

    async def tree(number: int) -> None:
        token, message = CancelationToken(), f"tree {number}"
        parent = Cancelable.with_signal(signal.SIGUSR1, when_cancelled="absorb")
        async with anyio.create_task_group() as group, parent:
            for _ in range(5):
                group.start_soon(leaf, parent, token)
            await anyio.wait_all_tasks_blocked()
            how = dice.randrange(4)
            if how == 0:
                parent.cancel(message=message)
            elif how == 1:
                threading.Thread(target=parent.cancel, kwargs={"message": message}).start()
            elif how == 2:
                threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1)).start()
            else:
                threading.Thread(target=token.cancel, kwargs={"message": message}).start()
                await token.wait()
                parent.cancel(message=message)
            await anyio.sleep_forever()
        assert parent.status is OperationStatus.CANCELLED
        batch, ended[:] = list(ended), []
        expected = "SIGUSR1" if how == 2 else message
        assert batch == [(OperationStatus.CANCELLED, expected)] * 5
        assert not parent._callbacks
        assert not token._callbacks

    async def main() -> None:
        for number in range(60):
            await tree(number)

    anyio.run(main, backend=backend)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hundred_thousand_operations_leave_nothing_behind(backend: str) -> None:
    """5,000 by default; OPERATIONS=100000 for the long form."""
    number = int(os.environ.get("OPERATIONS", "5000"))
    token = CancelationToken()

    async def main() -> tuple[int, int]:
        async def batch(count: int) -> None:
            async with Cancelable() as parent:
                for index in range(count):
                    operation = Cancelable.with_timeout(60, parent=parent, linked_to=(token,))
                    with contextlib.suppress(Exception):
                        async with operation as cancel:
                            if index % 10 == 0:
                                cancel.cancel()
                                await anyio.lowlevel.checkpoint()

        await batch(100)
        before = _objects_of_ours()
        await batch(number)
        await anyio.lowlevel.checkpoint()
        return before, _objects_of_ours()

    before, after = anyio.run(main, backend=backend)
    assert after <= before
    assert not token._callbacks


def _objects_of_ours() -> int:
    gc.collect()
    return sum(
        str(type(each).__module__).startswith("cancelable_core") for each in gc.get_objects()
    )


@pytest.mark.parametrize("listeners", [0, 3])
def test_a_handler_that_cancels_never_deadlocks_who_cancels(listeners: int) -> None:
    """10,000 signals into a thread that registers, links and cancels all the time."""
    current = [CancelationToken()]
    handled = [0]

    def handle(_: int) -> None:
        handled[0] += 1
        current[0].cancel(message="signal")
        current[0].register(lambda _: None).close()

    heard = [0]

    def hear(_: object) -> None:
        heard[0] += 1

    signals, rounds = 10_000, 0
    deadline = time.monotonic() + 120
    with signal_hub.subscribe([signal.SIGALRM], handle):
        signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
        try:
            while handled[0] < signals:
                assert time.monotonic() < deadline, f"only {handled[0]} signals"
                parent = CancelationToken()
                token = current[0] = parent.child()
                before = heard[0]
                for _ in range(listeners):
                    token.register(hear)
                token.cancel(message="thread")
                assert token.cause is not None
                assert token.cause.message in ("signal", "thread")
                assert heard[0] - before == listeners
                assert not token._callbacks
                assert not parent._callbacks
                rounds += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            time.sleep(0.001)
    assert rounds > 100


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_thread_wakes_an_idle_loop_a_thousand_times_of_a_thousand(backend: str) -> None:
    async def main() -> list[float]:
        latencies = []
        for _ in range(1000):
            token, at = CancelationToken(), [0.0]

            def cancel(token: CancelationToken = token, at: list[float] = at) -> None:
                at[0] = time.perf_counter()
                token.cancel()

            async with Cancelable.with_token(token, when_cancelled="absorb"):
                thread = threading.Thread(target=cancel)
                thread.start()
                await anyio.Event().wait()
            latencies.append(time.perf_counter() - at[0])
            thread.join()
        return latencies

    latencies = anyio.run(main, backend=backend)
    assert len(latencies) == 1000
    medians = [statistics.median(latencies[begin : begin + 100]) for begin in range(0, 1000, 100)]
    assert min(medians) < 0.03  # once, the machine had the time for it


@pytest.mark.parametrize("backend", BACKENDS)
def test_signals_into_a_running_loop_cancel_one_operation_after_the_other(backend: str) -> None:
    """A handler of the user's own, hitting the loop in the middle of its bookkeeping."""
    current: list[Any] = [CancelationToken()]
    before = signal.signal(signal.SIGALRM, lambda *_: current[0].cancel(message="signal"))

    async def churn(event: anyio.Event) -> None:
        while not event.is_set():
            with anyio.move_on_after(0):
                await anyio.sleep(1)
            await anyio.lowlevel.checkpoint()

    async def main() -> int:
        cancelled, done = 0, anyio.Event()
        # the timer needs no turn of the interpreter; a thread may wait long for one
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(churn, done)
            for _ in range(500):
                cancel = current[0] = Cancelable(when_cancelled="absorb")
                async with cancel:
                    await anyio.sleep_forever()
                assert cancel.context.message == "signal"
                cancelled += 1
            done.set()
        signal.setitimer(signal.ITIMER_REAL, 0)  # none comes while the loop is closed
        return cancelled

    try:
        assert anyio.run(main, backend=backend) == 500
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
