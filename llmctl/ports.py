"""What a session needs of the world: who generates a reply, remembers it and shows it.

The adapters (`backends`, `resume`, `journal`, `output`, the chat's screen) fit these protocols
without naming them; the programs put them together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from llmctl.conversation import Prefix, Request
from llmctl.events import (
    Chunk,
    End,
    Event,
    Guarantee,
    MarkerFound,
    Paused,
    Resumed,
    Strategy,
    Timing,
    Usage,
)
from llmctl.turn import Mark


class Stream(Protocol):
    """A reply that is being generated."""

    @property
    def conditions(self) -> Mapping[str, Any]:
        """On what an exact replay depends; empty if the back end can't tell."""

    def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield chunks; end after the one that carries the finish reason."""

    def hold(self) -> bool:
        """Stop the generation where it is, at once; False if that can't be done here."""

    def release(self) -> None:
        """Let it go on."""

    async def save(self) -> Mapping[str, Any] | None:
        """Keep the engine's state for the ``kv`` strategy; None if that can't be done."""


class BackEnd(Protocol):
    """What generates replies. One file per wire protocol in `llmctl.backends`."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def api(self) -> str:
        """The protocol it speaks."""

    @property
    def supports(self) -> Mapping[Strategy, Guarantee]:
        """The strategies that are known to work here, and the best each can earn."""

    @property
    def accepts_seed(self) -> bool:
        """Whether it is known to accept a seed."""

    @property
    def pays_twice(self) -> bool:
        """Whether a replay costs what is known of the reply again."""

    async def ready(self) -> None:
        """Wait until a request can be sent (weights loaded, engine up)."""

    def open(
        self,
        request: Request,
        *,
        again: Mapping[str, Any] | None = None,
        after: Prefix | None = None,
        by: Strategy | None = None,
        saved: Mapping[str, Any] | None = None,
    ) -> AbstractAsyncContextManager[Stream]:
        """Ask for a reply: entering sends the request, leaving ends the generation.

        Args:
            request: what is asked.
            again: the recorded conditions, to repeat the reply (``REPLAY``) or to see whether
                a saved state is of it (``KV``).
            after: what of the reply exists, to go on behind it; for ``CURSOR`` it says from
                where to read on.
            by: how to go on; None for a fresh reply.
            saved: what `Stream.save` returned, for ``KV``.
        """

    def discard(self, conditions: Mapping[str, Any]) -> None:
        """The reply with these conditions has ended for good: forget its saved state."""

    async def aclose(self) -> None:
        """Give up connections and processes."""


class Journal(Protocol):
    """What remembers a reply while it is in flight."""

    def conditions(self, conditions: Mapping[str, Any]) -> None:
        """Record on what an exact replay depends."""

    def received(self, chunk: Chunk) -> None:
        """Record a chunk before it is output."""

    def delivered(self, mark: Mark) -> None:
        """Record how far the reply went out."""

    def marker(self, event: MarkerFound, mark: Mark) -> None:
        """Record a marker that acted, and where the reply stands behind it."""

    def paused(self, event: Paused) -> None:
        """Record a pause."""

    def resumed(self, event: Resumed) -> None:
        """Record how the reply goes on."""

    def saved(self, state: Mapping[str, Any]) -> None:
        """Record where the engine's state was kept."""

    def ended(self, end: End, timing: Timing, *, resumable: bool) -> None:
        """Record how this process's share ended, and whether a later one may go on."""

    def sync(self) -> None:
        """Make what was written survive a power cut; blocks."""


class View(Protocol):
    """What shows a reply, to a person or a program."""

    def show(self, event: Event, mark: Mark) -> None:
        """Take an event; never wait. ``mark`` is where the reply stands behind it."""

    @property
    def delivered(self) -> Mark:
        """How far the reply has really gone out."""

    @property
    def full(self) -> bool:
        """Whether so much is queued that the session should wait."""

    @property
    def blocked_for(self) -> float:
        """For how many seconds the reader has now taken nothing."""

    def drain(self, timeout: float | None) -> bool:
        """Block until all is out (or ``timeout`` seconds have passed); say whether it is."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream that goes on with a reply, and what was earned by finding it.

    Attributes:
        stream: where to hold, release and save; its chunks are not to be read from it.
        chunks: what follows the text that exists.
        strategy: None for a fresh reply.
        guarantee: None for a fresh reply.
        paid_again: what was read or generated once more for it; None where nobody tells.
    """

    stream: Stream
    chunks: AsyncIterator[Chunk]
    strategy: Strategy | None = None
    guarantee: Guarantee | None = None
    paid_again: Usage | None = None


class Source(Protocol):
    """Where the chunks of one reply come from, first and after every interruption."""

    @property
    def guarantee(self) -> Guarantee:
        """The worst guarantee of all resumes so far."""

    async def ready(self) -> None:
        """Wait until a request can be sent."""

    def start(self) -> AbstractAsyncContextManager[Opened]:
        """Ask for the reply."""

    def keep(self, state: Mapping[str, Any]) -> None:
        """Remember the engine state that was saved at a cut."""

    def forget(self) -> None:
        """Let go of everything that was kept for a resume."""

    def spent(self, prefix: Prefix) -> bool:
        """Say whether a reply that stands at ``prefix`` has reached its token limit."""

    def may_go_on(self, prefix: Prefix) -> bool:
        """Say whether any way to go on behind ``prefix`` may be exact enough."""

    def go_on(
        self, prefix: Prefix, alive: Callable[[], None]
    ) -> AbstractAsyncContextManager[Opened]:
        """Find a way to go on behind ``prefix``; ``alive`` is called while tokens arrive.

        Raises:
            BelowRequire: there is none that is exact enough.
        """
