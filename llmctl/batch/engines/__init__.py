"""Where attempts are made: in this process (`here`), or by workers in others (`crew`, `ray`).

The scheduler, the limits, the rates and the files of results stay in one process whatever the
engine is. An engine only makes attempts: it sends a row, reads the reply, and records what
arrives before anything is made of it.
"""

from __future__ import annotations

from typing import Any, Protocol

from llmctl.batch.attempt import Item
from llmctl.batch.endpoint import Endpoint
from llmctl.errors import LlmctlError
from llmctl.events import Finished


class Trial(Protocol):
    """One attempt at an item, wherever it is made; see `llmctl.batch.attempt.Attempt`."""

    @property
    def item(self) -> Item:
        """Whose it is."""

    @property
    def error(self) -> LlmctlError | None:
        """What the back end raised last."""

    @property
    def bug(self) -> Exception | None:
        """A fault of the program."""

    def cut(self) -> None:
        """End the generation; what was received is kept."""

    async def run(self) -> Finished:
        """Run to the end; the item's ``kept`` is up to date then."""

    def close(self) -> None:
        """Its outcome is on disk: its own records are not needed any more."""

    def forget(self) -> None:
        """The item is complete: what the back end keeps for a resume can go."""

    def body(self, finished: Finished) -> dict[str, Any]:
        """Return the object that the server would have sent unstreamed."""

    def facts(self) -> dict[str, Any]:
        """Return what else the row's ``llmctl`` object says."""


class Engine(Protocol):
    """Makes attempts."""

    def attempt(self, item: Item, endpoint: Endpoint) -> Trial:
        """Begin to record an attempt; its ``run`` makes it."""

    async def serve(self) -> None:
        """Do what has to be done while attempts are made, until cancelled."""

    def sync(self) -> None:
        """Make what was recorded here survive a power cut; blocks."""

    async def aclose(self) -> None:
        """The run is over."""
