"""Which item goes where, and when.

One loop starts attempts. What waits for another try comes before what is new; nothing starts
before an endpoint may be asked. Every attempt is a task; an item that waits has none, and
its place is free. What an attempt's end means is decided in `llmctl.batch.outcome`.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from itertools import count

import anyio

from cancelable_core import Cancelable
from llmctl.batch.attempt import Item
from llmctl.batch.endpoint import Endpoint, Fleet
from llmctl.batch.engines import Engine, Trial
from llmctl.batch.feed import Feed
from llmctl.batch.outcome import Outcomes
from llmctl.batch.rules import Rules
from llmctl.batch.stops import Stage, Stops
from llmctl.batch.tally import Tally
from llmctl.environment import ExitStatus

_LOOK_S = 0.2
_AHEAD = 1.5


class Scheduler:
    """Runs all items to their ends, or as far as the stops allow.

    Args:
        feed: the items, in order.
        fleet: where they are asked.
        engine: makes the attempts.
        rules: what the run may do.
        stops: why it may have to stop.
        tally: counts what happens.
        outcomes: decides what an attempt's end means.
        clock: seconds that only grow.
    """

    def __init__(  # noqa: PLR0913  (its parts, put together in one place)
        self,
        feed: Feed,
        fleet: Fleet,
        engine: Engine,
        rules: Rules,
        *,
        stops: Stops,
        tally: Tally,
        outcomes: Outcomes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feed = feed
        self._fleet = fleet
        self._engine = engine
        self._rules = rules
        self._stops = stops
        self._tally = tally
        self._outcomes = outcomes
        self._clock = clock
        self._running: set[Trial] = set()
        self._again: list[tuple[float, int, Item]] = []
        self._order = count()
        self._fresh = 0
        self._exhausted = False
        self._bell = anyio.Event()

    async def run(self) -> None:
        """Run until nothing is left to do."""
        loop = asyncio.get_running_loop()
        self._stops.on_change = lambda: _soon(loop, self._stopping)
        cut = self._stops.token.register(lambda _cause: _soon(loop, self._cut))
        async with anyio.create_task_group() as watchers:
            watchers.start_soon(self._watch)
            watchers.start_soon(self._deadline)
            async with anyio.create_task_group() as attempts:
                while (item := await self._next()) is not None:
                    endpoint = await self._place(item)
                    if endpoint is None:
                        break
                    self._begin(item, endpoint)
                    attempts.start_soon(self._work, item, endpoint)
            watchers.cancel_scope.cancel()
        cut.close()
        self._leave_rest()

    # -- choosing

    async def _next(self) -> Item | None:
        """Return the item to start next, None when no more will be started."""
        while self._stops.stage is Stage.WORK:
            now = self._clock()
            if self._again and self._again[0][0] <= now:
                again = heapq.heappop(self._again)[2]
                self._tally.waiting = len(self._again)
                return again
            if self._may_begin_fresh():
                item = await self._feed.next()
                if item is not None:
                    self._fresh += 1
                    return item
                self._exhausted = True
                continue
            if self._exhausted and not self._tally.running and not self._again:
                return None
            await self._wait(self._again[0][0] - now if self._again else None)
        return None

    def _may_begin_fresh(self) -> bool:
        """Say whether a new item may begin: canaries first, and not ahead of all retries."""
        if self._exhausted or len(self._again) >= _AHEAD * self._fleet.limit:
            return False
        return self._tally.ended >= self._rules.canary or self._fresh < self._rules.canary

    async def _place(self, item: Item) -> Endpoint | None:
        """Wait until an endpoint may be asked; None if the run stops before."""
        while self._stops.stage is Stage.WORK:
            now = self._clock()
            endpoint, wait_s = self._fleet.choose(item.cost, now)
            if endpoint is not None and self._is_affordable(now):
                return endpoint
            if endpoint is None:
                await self._wait(wait_s)
        self._put_back(item, 0.0)
        return None

    def _is_affordable(self, now: float) -> bool:
        """Say whether one more may begin; where not, the run stops."""
        most = self._rules.max_requests
        if most is not None and self._tally.requests >= most:
            self._give_up("max-requests", Stage.DRAIN)
        elif self._rules.deadline_s is not None and self._tally.usual_s > self._left(now):
            self._give_up("deadline", Stage.DRAIN)
        return self._stops.stage is Stage.WORK

    def _left(self, now: float) -> float:
        return (self._rules.deadline_s or 0.0) - (now - self._tally.began)

    # -- working

    def _begin(self, item: Item, endpoint: Endpoint) -> None:
        endpoint.limiter.begin(item.cost, self._clock())
        self._tally.requests += 1
        self._tally.running += 1

    async def _work(self, item: Item, endpoint: Endpoint) -> None:
        """Make one attempt and do what its end asks for."""
        attempt = self._engine.attempt(item, endpoint)
        self._close(item)
        self._running.add(attempt)
        if self._stops.stage >= Stage.CUT:
            attempt.cut()
        finished = await attempt.run()
        self._running.discard(attempt)
        self._tally.running -= 1
        now = self._clock()
        endpoint.limiter.end(item.cost, self._outcomes.used(attempt, finished), now)
        self._check_budgets()
        item.last = attempt
        delay_s = self._outcomes.settle(attempt, endpoint, finished, now)
        if delay_s is None:
            self._close(item)
        else:
            self._put_back(item, delay_s)
        self._wake()

    def _close(self, item: Item) -> None:
        """Close the last attempt: what came of it is on disk elsewhere by now."""
        if item.last is not None:
            item.last.close()
            item.last = None

    def arrived(self, units: int) -> None:
        """Count tokens; fewer than none where more were counted than the server says."""
        self._tally.units += units
        self._check_budgets()

    def _check_budgets(self) -> None:
        """Cut what runs where a budget is spent."""
        tally, rules = self._tally, self._rules
        if rules.max_output_tokens is not None and tally.units >= rules.max_output_tokens:
            self._give_up("max-output-tokens", Stage.CUT)
        if rules.max_cost is not None and (tally.cost or 0.0) >= rules.max_cost:
            self._give_up("max-cost", Stage.CUT)

    def _put_back(self, item: Item, delay_s: float) -> None:
        heapq.heappush(self._again, (self._clock() + delay_s, next(self._order), item))
        self._tally.waiting = len(self._again)

    def _leave_rest(self) -> None:
        """What waited for another try when the run stopped is kept for the next run."""
        for _, _, item in self._again:
            if item.kept.attempts:
                self._outcomes.stopped(item)
            self._close(item)
        self._again.clear()

    # -- watching

    async def _watch(self) -> None:
        """Look at what no event tells: an endpoint that stays away, the grace after SIGTERM."""
        drain_since: float | None = None
        while True:
            await anyio.sleep(_LOOK_S)
            now = self._clock()
            self._outcomes.look(self._fleet, now)
            if self._stops.terminated and drain_since is None:
                drain_since = now
            if drain_since is not None and now - drain_since >= self._rules.grace_s:
                self._stops.move(Stage.CUT, "SIGTERM", ExitStatus.SIGTERM)

    async def _deadline(self) -> None:
        """Cut what runs when the run's time is up."""
        if self._rules.deadline_s is None:
            return
        left = max(0.001, self._left(self._clock()))
        async with Cancelable.with_timeout(left, name="deadline", when_cancelled="absorb"):
            await anyio.sleep_forever()
        self._give_up("deadline", Stage.CUT)

    def _give_up(self, cause: str, stage: Stage) -> None:
        self._stops.move(stage, cause, ExitStatus.GIVEN_UP)

    def _stopping(self) -> None:
        self._outcomes.announce()
        self._wake()

    def _cut(self) -> None:
        for attempt in list(self._running):
            attempt.cut()

    # -- waking the loop

    async def _wait(self, seconds: float | None) -> None:
        """Wait for a change, so many seconds at the most."""
        with anyio.move_on_after(seconds):
            await self._bell.wait()

    def _wake(self) -> None:
        self._bell.set()
        self._bell = anyio.Event()


def _soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Call something in the loop, from a signal handler or wherever; not after its end."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)
