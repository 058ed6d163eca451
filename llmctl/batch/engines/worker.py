"""A worker: a process of its own that makes attempts for a crew (`llmctl.batch.engines.crew`).

It takes orders and reports. What arrives it records in a file of its own in the state folder,
exactly as a batch in one process does; so whoever finds that file after a kill, the crew or the
next run, goes on from there. It writes nothing else: outcomes are decided, and written, by the
one process that has the lease. A worker that nobody asks for a report any more ends by itself.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio.to_thread

from llmctl.batch.attempt import Attempt, Item
from llmctl.batch.endpoint import Fleet
from llmctl.batch.job import Job
from llmctl.batch.journal import LiveJournal
from llmctl.batch.kept import Kept
from llmctl.batch.limiter import Fixed, Limiter
from llmctl.batch.row import Row
from llmctl.batch.setup import fleet_of, rules_of, selections_of
from llmctl.config import Config
from llmctl.environment import Environment
from llmctl.errors import LlmctlError
from llmctl.events import Finished, Status
from llmctl.keys import find_key
from llmctl.profiles import Profile
from llmctl.tracing import Tracing

REPORT_S = 0.05
"""Seconds that what arrives is gathered before it is reported; ends and refusals don't wait."""

SILENCE_S = 60.0
"""Seconds without being asked after which a worker believes its crew to be gone."""

_SYNC_S = 1.0


@dataclass(frozen=True, slots=True)
class Brief:
    """What a worker is told when it begins. No key is in it: a worker finds its own.

    Attributes:
        job: what is run.
        config: the configuration, with what the command line says.
        data: the data directory.
        settings: the configuration's directory.
        cwd: what relative paths start from.
        folder: the state folder.
        tag: sets its records apart from those of others.
    """

    job: Job
    config: Config
    data: Path
    settings: Path
    cwd: Path
    folder: Path
    tag: str


@dataclass(frozen=True, slots=True)
class Begin:
    """An order: make an attempt.

    Attributes:
        number: the attempt's.
        endpoint: where to ask, as a place in the fleet.
        row: what.
        kept: what there is of the reply.
        spent_s: seconds that this run's attempts at the item have taken.
    """

    number: int
    endpoint: int
    row: Row
    kept: Mapping[str, Any]
    spent_s: float


@dataclass(frozen=True, slots=True)
class Cut:
    """An order: end an attempt, keep what there is."""

    number: int


@dataclass(frozen=True, slots=True)
class Close:
    """An order: the attempt's outcome is on disk."""

    number: int


@dataclass(frozen=True, slots=True)
class Block:
    """An order: let nothing go to an endpoint for so many seconds."""

    endpoint: int
    seconds: float


Order = Begin | Cut | Close | Block


@dataclass(frozen=True, slots=True)
class Done:
    """How an attempt ended.

    Attributes:
        number: the attempt's.
        finished: its end.
        kept: what is kept of the item.
        error: what the back end raised last.
        bug: a fault of the program, as text.
        body: the object of a reply that is whole.
        facts: what else is said of it.
    """

    number: int
    finished: Finished
    kept: Mapping[str, Any]
    error: LlmctlError | None
    bug: str | None
    body: dict[str, Any] | None
    facts: dict[str, Any]


@dataclass(slots=True)
class Report:
    """What has happened since the last one.

    Attributes:
        done: attempts that ended.
        units: tokens that arrived, by endpoint.
        corrected: by how many tokens servers say that such counts were wrong.
        refused: seconds to wait that busy servers named (None: they did not), by endpoint.
        blocked: seconds for which a server's headers say that nothing remains, by endpoint.
        notes: what is worth a line.
    """

    done: list[Done] = field(default_factory=list)
    units: dict[int, int] = field(default_factory=dict)
    corrected: int = 0
    refused: list[tuple[int, float | None]] = field(default_factory=list)
    blocked: list[tuple[int, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_urgent(self) -> bool:
        """Whether it should not wait for more."""
        return bool(self.done or self.refused or self.blocked or self.notes)


class Ledger(Limiter):
    """A limiter that limits nothing but a server's word, and reports what it hears."""

    def __init__(self, worker: Worker, endpoint: int) -> None:
        super().__init__(Fixed(1))
        self._worker = worker
        self._endpoint = endpoint

    def refused(self, retry_after_s: float | None, now: float) -> None:
        """The server is too busy."""
        super().refused(retry_after_s, now)
        self._worker.gathered.refused.append((self._endpoint, retry_after_s))
        self._worker.hurry()

    def headers(self, headers: Mapping[str, str], now: float) -> None:
        """Read what remains."""
        before = self.blocked_s(now)
        super().headers(headers, now)
        if (seconds := self.blocked_s(now)) > before:
            self._worker.gathered.blocked.append((self._endpoint, seconds))
            self._worker.hurry()

    def units(self, units: int, now: float) -> None:  # noqa: ARG002  (as its base)
        """So much has arrived."""
        counts = self._worker.gathered.units
        counts[self._endpoint] = counts.get(self._endpoint, 0) + units

    def corrected(self, units: int) -> None:
        """So much more had arrived."""
        self._worker.gathered.corrected += units


class Worker:
    """Makes attempts in its own process; all methods are called in one asyncio loop.

    Attributes:
        gathered: the next report.

    Args:
        brief: what to do.
    """

    def __init__(self, brief: Brief) -> None:
        self.gathered = Report()
        self._brief = brief
        here = replace(Environment.of_process(), cwd=brief.cwd)
        self._env = replace(here, data=brief.data, config=brief.settings)
        self._tracing = Tracing.of(self._env)
        rules = rules_of(brief.job, brief.config, self._env, self._tracing)
        self._manner = rules.manner
        self._live = LiveJournal(brief.folder, self._broken, tag=brief.tag)
        self._fleet: Fleet | None = None
        self._attempts: dict[int, Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._bell = asyncio.Event()
        self._asked_at = time.monotonic()

    async def take(self, orders: list[Order]) -> None:
        """Carry out orders, in their order."""
        if self._fleet is None:
            self._fleet = await self._made_fleet()
            self._start(self._keep())
        for order in orders:
            match order:
                case Begin():
                    self._begin(order, self._fleet)
                case Cut():
                    self._attempts[order.number].cut()
                case Close():
                    self._attempts.pop(order.number).close()
                case Block():
                    limiter = self._fleet.endpoints[order.endpoint].limiter
                    limiter.block(order.seconds, time.monotonic())

    async def report(self) -> Report:
        """Return what has happened, as soon as something has."""
        self._asked_at = time.monotonic()
        if not self.gathered.is_urgent:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), REPORT_S)
        self._bell.clear()
        told, self.gathered = self.gathered, Report()
        return told

    async def leave(self) -> None:
        """Close what is open; nothing more will come."""
        self._live.close()
        self._tracing.close()
        if self._fleet is not None:
            await self._fleet.aclose()

    def hurry(self) -> None:
        """Let the next report not wait."""
        self._bell.set()

    def _begin(self, order: Begin, fleet: Fleet) -> None:
        item = Item(order.row, Kept.from_json(order.kept), spent_s=order.spent_s)
        back_end = fleet.endpoints[order.endpoint].backs.back_end(order.row)
        attempt = Attempt(item, back_end, self._manner, self._live)
        self._attempts[order.number] = attempt
        self._start(self._run(order.number, attempt))

    async def _run(self, number: int, attempt: Attempt) -> None:
        finished = await attempt.run()
        whole = finished.end.status in {Status.COMPLETE, Status.TRUNCATED}
        done = Done(
            number,
            finished,
            attempt.item.kept.as_json(),
            attempt.error,
            None if attempt.bug is None else repr(attempt.bug),
            attempt.body(finished) if whole else None,
            attempt.facts(),
        )
        self.gathered.done.append(done)
        self.hurry()

    def _start(self, work: Any) -> None:  # noqa: ANN401  (a coroutine)
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self) -> None:
        """Flush to the disk, and leave when nobody asks any more."""
        while True:
            await asyncio.sleep(_SYNC_S)
            try:
                await anyio.to_thread.run_sync(self._live.sync)
            except OSError as error:
                self._broken(error)
            if time.monotonic() - self._asked_at > SILENCE_S:
                os._exit(1)

    def _broken(self, error: OSError) -> None:
        self.gathered.notes.append(f"what arrives is no longer being saved: {error.strerror}")
        self.hurry()

    async def _made_fleet(self) -> Fleet:
        job, config = self._brief.job, self._brief.config

        def key_for(profile: Profile) -> str | None:
            found = find_key(profile, self._env)
            return None if found is None else found.key

        return await fleet_of(
            job,
            selections_of(job, config, self._env),
            config=config,
            env=self._env,
            key_for=key_for,
            arrived=lambda _units: None,
            clock=time.monotonic,
            limiter_for=lambda number: Ledger(self, number),
        )
