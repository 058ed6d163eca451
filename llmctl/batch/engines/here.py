"""The engine of one process: attempts are tasks of the scheduler's own loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio

from llmctl.batch.attempt import Attempt, Item, Manner
from llmctl.batch.endpoint import Endpoint
from llmctl.batch.journal import LiveJournal


@dataclass(frozen=True, slots=True)
class Here:
    """Makes attempts in this process.

    Attributes:
        live: where what arrives is recorded.
        manner: how items are run.
        arrived: told how many tokens arrive, where the endpoint does not tell.
    """

    live: LiveJournal
    manner: Manner
    arrived: Callable[[int], None]

    def attempt(self, item: Item, endpoint: Endpoint) -> Attempt:
        """Begin to record an attempt."""
        return Attempt(
            item,
            endpoint.backs.back_end(item.row),
            self.manner,
            self.live,
            on_units=self.arrived if endpoint.counts_chunks else None,
        )

    async def serve(self) -> None:
        """Do nothing."""
        await anyio.sleep_forever()

    def sync(self) -> None:
        """Make what was recorded survive a power cut; blocks."""
        self.live.sync()

    async def aclose(self) -> None:
        """Close the record; it is removed if nothing is in flight."""
        self.live.close()
