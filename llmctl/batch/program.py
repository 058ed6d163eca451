"""A batch from its first look at the input to its exit status."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from cancelable_core import signal_hub
from llmctl.batch.appended import AppendFile
from llmctl.batch.asked import asked_by, difference
from llmctl.batch.attempt import Manner
from llmctl.batch.check import Census, check
from llmctl.batch.desk import Desk
from llmctl.batch.endpoint import Fleet
from llmctl.batch.engines import Engine
from llmctl.batch.engines.crew import Cluster, Crew
from llmctl.batch.engines.here import Here
from llmctl.batch.engines.ray import RayCluster
from llmctl.batch.engines.worker import Brief
from llmctl.batch.feed import Feed
from llmctl.batch.index import Index, Standing
from llmctl.batch.job import LOCAL, RAY, Job
from llmctl.batch.lines import InputLines
from llmctl.batch.notices import noticed
from llmctl.batch.outcome import TOO_MANY, Outcomes
from llmctl.batch.results import (
    Failures,
    drop_changed,
    open_output,
    recall_complete,
    state_path,
    write_errors,
)
from llmctl.batch.scheduler import Scheduler
from llmctl.batch.setup import KeyFor, fleet_of, recipe_of, rules_of, selections_of
from llmctl.batch.state import Changes, State
from llmctl.batch.stops import SIGNALS, Stage, Stops
from llmctl.batch.tally import Tally
from llmctl.batch.watchers import Progress, Quiet, WhileRead
from llmctl.config import Config
from llmctl.counts import counted
from llmctl.environment import Environment, ExitStatus
from llmctl.errors import LlmctlError, UsageError
from llmctl.requests import SEEDS
from llmctl.tracing import Tracing

NO_READER = "closed pipe"
"""The cause when nobody reads the events any more; it counts also where nothing is left."""

NAMED = 5
"""Ids that a message names."""


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended.

    Attributes:
        status: the exit status.
        tally: what it did.
        cause: why it stopped before all was done; None if it did not.
        error: the fault that stopped it, if it was one.
        left: items that still have work to be done.
        failures: what is to be said of the items that failed; None if there are none.
    """

    status: int
    tally: Tally
    cause: str | None = None
    error: LlmctlError | None = None
    left: int = 0
    failures: Failures | None = None


class Arrived:
    """Hands tokens on to a scheduler that is made after what brings them."""

    to: Callable[[int], None] = staticmethod(lambda _units: None)

    def __call__(self, units: int) -> None:
        """Hand them on."""
        self.to(units)


class Program:
    """Runs one job.

    Args:
        job: what to run.
        config: the configuration, with what the command line says.
        env: the process to run in.
        key_for: finds a server's key.
        progress: is told what happens.
    """

    def __init__(
        self,
        job: Job,
        config: Config,
        env: Environment,
        *,
        key_for: KeyFor,
        progress: Progress | None = None,
    ) -> None:
        job.check()
        self.job = job
        self.stops = Stops()
        self.bugs: list[Exception] = []
        self._config = config
        self._env = env
        self._key_for = key_for
        self._progress = WhileRead(progress or Quiet(), self._no_reader)
        self._tracing = Tracing.of(env)
        self._selections = selections_of(job, config, env)
        if job.engine == RAY and any(each.profile is None for each in self._selections):
            raise UsageError(
                "--engine ray asks servers; the embedded engine works in this process alone.",
                "Leave --engine out, or name a server with -m or --base-url.",
            )
        self._recipe = recipe_of(job, self._selections[0], config, env)
        self._lines = InputLines(job.input, job.shard)

    def look(self) -> tuple[Census, int]:
        """Check the input; return what it holds, and how many items are complete already.

        Raises:
            UsageError: the input can't be used.
        """
        with Index() as index:
            census = check(self._lines, self._recipe, index, alive=self._alive)
            recall_complete(self.job.results, index)
            return census, index.count(Standing.COMPLETE)

    def run(self) -> Report:
        """Run the job until all is done or it has to stop.

        Raises:
            UsageError: the input, the output or the state can't be used.
            LlmctlError: a key, a file or the engine is missing.
        """
        with signal_hub.subscribe(SIGNALS, self.stops.signal, keep_ignored=True), Index() as index:
            check(self._lines, self._recipe, index, alive=self._alive)
            with _opened(self.job) as state, self._noticed(state):
                _put_changes_right(self.job, state, index, asked_by(self._recipe))
                output = open_output(self.job.results)
                try:
                    return self._work(state, index, output)
                finally:
                    output.close()

    def _noticed(self, state: State) -> AbstractContextManager[None]:
        return noticed(self._env.data, self.job.results, state.folder)

    def _work(self, state: State, index: Index, output: AppendFile) -> Report:
        state.file_new(index)
        state.recall(index)
        tally = self._tally(index)
        self._progress.begin(tally)
        if state.damaged:
            records = counted(state.damaged, "damaged record")
            do = "does" if state.damaged == 1 else "do"
            self._progress.note(f"{records} in {state.folder} {do} not count")
        desk = Desk(state, index, output, self._progress)
        cluster = self._cluster()
        try:
            anyio.run(self._schedule, desk, tally, cluster)
        finally:
            if cluster is not None:
                cluster.close()
            self._tracing.close()
            failures = write_errors(self.job.results, index, state.ended)
            output.sync()
        self._progress.end(self._report(index, tally, failures))
        return self._report(index, tally, failures)  # its reader may have left before the last word

    def _tally(self, index: Index) -> Tally:
        return Tally(
            total=index.count(),
            before=index.count(Standing.COMPLETE),
            standing_failures=0 if self.job.retry_failed else index.count(Standing.REFUSED),
            prices=self.job.prices,
        )

    def _cluster(self) -> Cluster | None:
        """Return where workers are, None if this process makes all attempts itself.

        Raises:
            UsageError: Ray can't be used.
        """
        if self.job.engine == LOCAL:
            return None
        return RayCluster(self._env.variable("RAY_ADDRESS"))

    async def _schedule(self, desk: Desk, tally: Tally, cluster: Cluster | None) -> None:
        job, stops = self.job, self.stops
        rules = rules_of(job, self._config, self._env, self._tracing)
        outcomes = Outcomes(rules, stops, tally, desk.sinks(), self.bugs)
        arrived = Arrived()
        fleet = await fleet_of(
            job,
            self._selections,
            config=self._config,
            env=self._env,
            key_for=self._key_for,
            arrived=arrived,
            clock=time.monotonic,
        )
        if cluster is None:
            await fleet.ready()
        tally.began = time.monotonic()
        feed = self._feed(desk, seeded=all(e.accepts_seed for e in fleet.endpoints))
        engine = self._engine(cluster, desk, fleet, arrived, rules.manner)
        scheduler = Scheduler(
            feed, fleet, engine, rules, stops=stops, tally=tally, outcomes=outcomes
        )
        arrived.to = scheduler.arrived
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(engine.serve)
                tasks.start_soon(desk.keep, engine)
                tasks.start_soon(self._progress.watch, tally, fleet)
                await scheduler.run()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await engine.aclose()
                await fleet.aclose()

    def _engine(
        self, cluster: Cluster | None, desk: Desk, fleet: Fleet, arrived: Arrived, manner: Manner
    ) -> Engine:
        if cluster is None:
            return Here(desk.state.journal(desk.on_broken), manner, arrived)
        env = self._env
        brief = Brief(
            self.job, self._config, env.data, env.config, env.cwd, desk.state.folder, tag=""
        )
        return Crew(
            cluster,
            brief,
            fleet,
            arrived=arrived,
            lost=desk.lost,
            give_up=self._no_workers,
            note=self._progress.note,
        )

    def _no_workers(self, error: LlmctlError) -> None:
        self.stops.move(Stage.CUT, "workers", ExitStatus.INTERNAL_ERROR, error)

    def _no_reader(self) -> None:
        self.stops.move(Stage.CUT, NO_READER, ExitStatus.CLOSED_PIPE)

    def _feed(self, desk: Desk, *, seeded: bool) -> Feed:
        return Feed(
            self._lines,
            self._recipe,
            desk.index,
            desk.state.ended,
            seed=desk.state.base_seed(lambda: secrets.randbelow(SEEDS)) if seeded else None,
            retry_failed=self.job.retry_failed,
        )

    def _report(self, index: Index, tally: Tally, failures: Failures | None) -> Report:
        stops = self.stops
        left = index.count(Standing.NEW, Standing.STOPPED)
        failed = index.count(Standing.FAILED, Standing.REFUSED)
        if stops.status is not None and (left or stops.cause in {TOO_MANY, NO_READER}):
            return Report(stops.status, tally, stops.cause, stops.error, left, failures)
        if left:  # nothing said so: a fault of the program, which must not look like success
            return Report(
                ExitStatus.INTERNAL_ERROR, tally, "an internal error", None, left, failures
            )
        status = ExitStatus.SOME_FAILED if failed else ExitStatus.OK
        return Report(status, tally, failures=failures)

    def _alive(self) -> None:
        """End the reading of the input when a signal has come."""
        if self.stops.stage is not Stage.WORK:
            raise KeyboardInterrupt


def _opened(job: Job) -> State:
    folder = job.state or state_path(job.results)
    try:
        return State(folder)
    except OSError as error:
        raise UsageError(
            f"The state folder {folder} can't be used: {error.strerror}.",
            "--state DIR puts it elsewhere.",
        ) from error


def _put_changes_right(job: Job, state: State, index: Index, asked: dict[str, str]) -> None:
    """Find what is complete; changed and removed lines are accepted, or refused.

    Raises:
        UsageError: there are some, and nobody said that they are meant.
    """
    is_new = state.is_new
    changes = state.compare(index)
    strange = recall_complete(job.results, index)
    if is_new:
        changes.removed.extend(strange)
    if changes:
        if not job.accept_changed and (_has_results(job) or state.has_begun()):
            raise _changed(job.input, changes, difference(state.asked() or asked, asked))
        state.accept(index)
        if changes.changed:
            drop_changed(job.results, index)
    state.ask(asked)


def _has_results(job: Job) -> bool:
    return job.results.exists() and job.results.stat().st_size > 0


def _changed(path: Path, changes: Changes, options: str) -> UsageError:
    if changes.changed and options:
        return UsageError(
            f"The command asks for something else than it did: {options}.",
            "Give it as it was, or --accept-changed to ask anew what was asked the other way.",
        )
    said = []
    for what, ids in (("changed", changes.changed), ("gone", changes.removed)):
        if ids:
            said.append(f"{what}: {', '.join(ids[:NAMED])}" + (" …" if len(ids) > NAMED else ""))
    return UsageError(
        f"{path.name} is not what it was ({'; '.join(said)}).",
        "--accept-changed asks changed lines anew and forgets those that are gone.",
    )
