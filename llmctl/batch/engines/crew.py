"""Many workers for one batch: who gets which item, and what happens when a worker dies.

The crew is an engine. It gives an attempt to the worker with the least to do, hands on what
workers report to the one limiter of each endpoint, and tells all of them at once when a server
asks to wait. Orders to a worker are sent together, one message at a time; reports are asked for
without a break, and come when there is something to tell.

A worker that died left its records in the state folder. They are read, written down as ends
(so that the next run would find them there, too), and its items go on from their positions at
other workers; another worker is hired in its place. Only when `DEATHS` die without ever having
reported, one after the other, the run ends.

How workers are made is the business of a `Cluster`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import anyio

from llmctl.batch.attempt import Item
from llmctl.batch.endpoint import Endpoint, Fleet
from llmctl.batch.engines.worker import Begin, Block, Brief, Close, Cut, Done, Order, Report
from llmctl.batch.kept import Kept
from llmctl.batch.records import live_files, read_live
from llmctl.errors import LlmctlError
from llmctl.events import End, Finished, Position, Timing

DEATHS = 3
"""Workers that may die one after the other without having reported."""


class WorkerLost(Exception):
    """A worker does not answer any more, and never will."""


class Hand(Protocol):
    """A worker, as seen from here; its methods raise `WorkerLost`."""

    async def take(self, orders: list[Order]) -> None:
        """Give it orders."""

    async def report(self) -> Report:
        """Wait for its next report."""

    async def leave(self) -> None:
        """Let it close what is open."""

    def kill(self) -> None:
        """End its process."""


class Cluster(Protocol):
    """Makes workers.

    Attributes:
        size: how many it has room for.
    """

    size: int

    def hire(self, brief: Brief) -> Hand:
        """Start a worker."""

    def close(self) -> None:
        """Give back what was started here; blocks."""


@dataclass(slots=True, eq=False)
class RemoteAttempt:
    """An attempt that a worker makes; see `llmctl.batch.engines.Trial`."""

    item: Item
    number: int
    endpoint: int
    worker: _Member
    error: LlmctlError | None = None
    bug: Exception | None = None
    _body: dict[str, Any] = field(default_factory=dict)
    _facts: dict[str, Any] = field(default_factory=dict)
    _ended: asyncio.Future[Finished] = field(default_factory=asyncio.Future)

    def cut(self) -> None:
        """End the generation; what was received is kept."""
        self.worker.order(Cut(self.number))

    async def run(self) -> Finished:
        """Wait for the end."""
        return await self._ended

    def close(self) -> None:
        """Its outcome is on disk."""
        self.worker.order(Close(self.number))

    def forget(self) -> None:
        """Do nothing: a server keeps nothing for us."""

    def body(self, finished: Finished) -> dict[str, Any]:  # noqa: ARG002  (the worker had it)
        """Return the object that the server would have sent unstreamed."""
        return self._body

    def facts(self) -> dict[str, Any]:
        """Return what else the row's ``llmctl`` object says."""
        return self._facts

    def end(self, done: Done) -> None:
        """The worker says how it ended."""
        self.error = done.error
        self.bug = None if done.bug is None else RuntimeError(done.bug)
        self._body, self._facts = done.body or {}, done.facts
        self.item.kept = Kept.from_json(done.kept)
        self._finish(done.finished)

    def lose(self, kept: Kept | None) -> None:
        """The worker has died; ``kept`` is what its records had of the item."""
        if self._ended.done():
            return
        before = self.item.kept
        if kept is not None:
            self.item.kept = kept
        self.item.kept.attempts = before.attempts + 1
        position = Position(len(self.item.kept.text), self.item.kept.tokens)
        timing = Timing(None, 0.0, 0.0, None)
        self._finish(
            Finished(
                self.item.row.id,
                End.DISCONNECT,
                resumable=True,
                finish_reason=None,
                position=position,
                usage=None,
                timing=timing,
            )
        )

    def _finish(self, finished: Finished) -> None:
        self.item.spent_s += finished.timing.duration_s
        if not self._ended.done():
            self._ended.set_result(finished)


@dataclass(slots=True, eq=False)
class _Member:
    """A worker of the crew.

    Attributes:
        hand: the worker itself.
        tag: of its records.
        attempts: what it has been given and nobody has closed.
        running: how many of them run.
        is_lost: it has died.
        has_reported: it lives, or has lived.
    """

    hand: Hand
    tag: str
    attempts: dict[int, RemoteAttempt] = field(default_factory=dict)
    running: int = 0
    is_lost: bool = False
    has_reported: bool = False
    _orders: list[Order] = field(default_factory=list)
    _bell: asyncio.Event = field(default_factory=asyncio.Event)

    def order(self, order: Order) -> None:
        """Let an order go with the next message."""
        if isinstance(order, Close):
            self.attempts.pop(order.number, None)
        if not self.is_lost:
            self._orders.append(order)
            self._bell.set()

    async def send(self) -> None:
        """Send orders as they come, until the worker is lost."""
        while True:
            await self._bell.wait()
            self._bell.clear()
            await self.flush()

    async def flush(self) -> None:
        """Send what waits."""
        orders, self._orders = self._orders, []
        if orders:
            with anyio.CancelScope(shield=True):  # an order must not be lost on its way
                await self.hand.take(orders)


class Crew:
    """An engine of several workers.

    Args:
        cluster: makes the workers.
        brief: what they are told.
        fleet: the endpoints with their limiters, which hear what the workers hear.
        arrived: told how many tokens arrive.
        lost: takes id, digest and what is kept of each item of a worker that died, and writes
            it down.
        give_up: told why nothing more can be done.
        note: takes something worth a line.
    """

    def __init__(  # noqa: PLR0913  (its parts, put together in one place)
        self,
        cluster: Cluster,
        brief: Brief,
        fleet: Fleet,
        *,
        arrived: Callable[[int], None],
        lost: Callable[[list[tuple[str, bytes, Kept]]], None],
        give_up: Callable[[LlmctlError], None],
        note: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._brief = brief
        self._fleet = fleet
        self._arrived = arrived
        self._lost = lost
        self._give_up = give_up
        self._note = note
        self._numbers = 0
        self._deaths = 0
        self._members = [self._hire() for _ in range(cluster.size)]

    def attempt(self, item: Item, endpoint: Endpoint) -> RemoteAttempt:
        """Give an attempt to a worker: to the last one's, where its records are, if it lives."""
        last = item.last.worker if isinstance(item.last, RemoteAttempt) else None
        worker = last if last is not None and not last.is_lost else self._idlest()
        self._numbers += 1
        place = self._fleet.endpoints.index(endpoint)
        attempt = RemoteAttempt(item, self._numbers, place, worker)
        worker.attempts[attempt.number] = attempt
        worker.running += 1
        worker.order(Begin(attempt.number, place, item.row, item.kept.as_json(), item.spent_s))
        if worker.is_lost:
            attempt.lose(None)
        return attempt

    async def serve(self) -> None:
        """Talk with the workers, and hire others for those that die."""
        async with anyio.create_task_group() as tasks:
            for place in range(len(self._members)):
                tasks.start_soon(self._employ, place)

    def sync(self) -> None:
        """Do nothing: workers flush their records themselves."""

    async def aclose(self) -> None:
        """Let the workers close what is open, and end them."""
        for member in self._members:
            if not member.is_lost:
                try:
                    with anyio.move_on_after(5, shield=True):
                        await member.flush()
                        await member.hand.leave()
                except WorkerLost:
                    pass  # its records are found by the next run
                member.hand.kill()

    def _hire(self) -> _Member:
        tag = f"{secrets.token_hex(4)}-"
        return _Member(self._cluster.hire(replace(self._brief, tag=tag)), tag)

    def _idlest(self) -> _Member:
        living = [member for member in self._members if not member.is_lost]
        ready = [member for member in living if member.has_reported]
        return min(ready or living or self._members, key=lambda member: member.running)

    async def _employ(self, place: int) -> None:
        """Talk with the worker at a place; when it dies, with the one that comes after it."""
        while not (member := self._members[place]).is_lost:
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(member.send)
                    await self._listen(member)
            except* WorkerLost:
                pass
            self._bury(place)

    async def _listen(self, member: _Member) -> None:
        while True:
            report = await member.hand.report()
            member.has_reported, self._deaths = True, 0
            self._hear(member, report)

    def _hear(self, member: _Member, report: Report) -> None:
        now = time.monotonic()
        endpoints = self._fleet.endpoints
        for place, units in report.units.items():
            self._arrived(units)
            endpoints[place].limiter.units(units, now)
        if report.corrected:
            self._arrived(report.corrected)
        for place, retry_after_s in report.refused:
            endpoints[place].limiter.refused(retry_after_s, now)
            self._warn(place, retry_after_s, member)
        for place, seconds in report.blocked:
            endpoints[place].limiter.block(seconds, now)
            self._warn(place, seconds, member)
        for text in report.notes:
            self._note(text)
        for done in report.done:
            member.running -= 1
            member.attempts[done.number].end(done)

    def _warn(self, place: int, seconds: float | None, source: _Member) -> None:
        """Tell the other workers that a server asks to wait."""
        for member in self._members:
            if seconds and member is not source:
                member.order(Block(place, seconds))

    def _bury(self, place: int) -> None:
        """Take over what a dead worker had, and hire another one."""
        dead = self._members[place]
        dead.is_lost = True
        dead.hand.kill()
        self._deaths += not dead.has_reported
        if self._deaths >= DEATHS:
            self._give_up(
                LlmctlError(
                    "The workers die as soon as they are started.",
                    "Is llmctl installed where they run, and the state folder there, too?",
                )
            )
        else:
            self._note(f"a worker died with {dead.running} running; they go on at another")
            self._members[place] = self._hire()
        attempts = list(dead.attempts.values())
        kept = self._recover(dead.tag, {attempt.item.row.id for attempt in attempts})
        for attempt in attempts:
            attempt.lose(kept.get(attempt.item.row.id))

    def _recover(self, tag: str, wanted: set[str]) -> dict[str, Kept]:
        """Write down what a dead worker's records have of items that are not closed."""
        files = live_files(self._brief.folder, tag)
        found = [each for path in files for each in read_live(path) if each[0] in wanted]
        self._lost(found)
        for path in files:
            path.unlink()
        return {id_: kept for id_, _, kept in found}
