"""Where a run's results are written, and their durability looked after."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread

from llmctl.batch.appended import AppendFile
from llmctl.batch.attempt import Item
from llmctl.batch.engines import Engine
from llmctl.batch.index import Index, Standing
from llmctl.batch.kept import Kept
from llmctl.batch.lease import HEARTBEAT_S, BatchBusy
from llmctl.batch.results import complete_row
from llmctl.batch.rules import Sinks
from llmctl.batch.state import Ended, State
from llmctl.batch.watchers import Progress
from llmctl.environment import ExitStatus
from llmctl.events import Problem

SYNC_S = 1.0
"""Seconds between two flushes to the disk."""


@dataclass(slots=True)
class Desk:
    """Where a run's results are written, and its durability looked after.

    Attributes:
        state: the state folder.
        index: how every item stands.
        output: OUTPUT.
        progress: is told what happens.
    """

    state: State
    index: Index
    output: AppendFile
    progress: Progress
    _beat_at: float = 0.0

    def sinks(self) -> Sinks:
        """Return where items go."""
        return Sinks(self.complete, self.incomplete, self.progress.note)

    def complete(self, item: Item, body: dict[str, Any], facts: dict[str, Any]) -> None:
        """Write an output line."""
        self._still_ours()
        self.output.append(complete_row(item.row, body, item.kept, **facts))
        self.index.stand(item.row.id, Standing.COMPLETE)
        self.progress.ended(item, "complete", None)

    def incomplete(
        self, item: Item, standing: Standing, cause: str, problem: Problem | None
    ) -> None:
        """Write an item's end into the state."""
        self._still_ours()
        row = item.row
        error = problem.as_json() if problem else None
        ended = Ended(row.id, row.digest, standing, cause, item.kept, error, row.metadata)
        try:
            at: int | None = self.state.end(ended)
        except OSError as failure:
            at = None
            self.on_broken(failure)
        self.index.stand(row.id, standing, at)
        self.progress.ended(item, standing.name.lower(), cause)

    def on_broken(self, error: OSError) -> None:
        """Say that from here on a crash would lose text."""
        self.progress.note(f"what arrives is no longer being saved: {error.strerror}")

    def lost(self, found: list[tuple[str, bytes, Kept]]) -> None:
        """Write down what a dead worker's records had of items that go on elsewhere."""
        for id_, digest, kept in found:
            self.state.end(Ended(id_, digest, Standing.STOPPED, "killed", kept))
        self.state.sync()

    async def keep(self, engine: Engine) -> None:
        """Flush to the disk and say that we are alive, as long as the run goes on."""
        while True:
            await anyio.sleep(SYNC_S)
            await anyio.to_thread.run_sync(self._flush, engine)
            if time.monotonic() - self._beat_at >= HEARTBEAT_S:
                self._beat()

    def _flush(self, engine: Engine) -> None:
        for sync in (engine.sync, self.state.sync, self.output.sync):
            try:
                sync()
            except OSError as error:
                self.on_broken(error)

    def _still_ours(self) -> None:
        """After standing still for long (SIGSTOP), see that nobody has taken over."""
        if self._beat_at and time.monotonic() - self._beat_at > 4 * HEARTBEAT_S:
            self._beat()

    def _beat(self) -> None:
        self._beat_at = time.monotonic()
        try:
            self.state.lease.beat()
        except BatchBusy as busy:
            self.progress.note(busy.message)
            os._exit(ExitStatus.USAGE)  # another process writes now: not one byte more
        except OSError as error:
            self.on_broken(error)
