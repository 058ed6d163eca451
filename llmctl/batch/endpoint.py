"""Where rows are asked: a server with its connections, or one engine for one row at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from llmctl.backends.fold import Fold
from llmctl.backends.rows import RowServer, RowTarget
from llmctl.batch.limiter import Limiter
from llmctl.batch.row import Row
from llmctl.ports import BackEnd


class Backs(Protocol):
    """Gives the back end of a row."""

    def back_end(self, row: Row) -> BackEnd:
        """Return it; it is used for one attempt."""

    async def ready(self) -> None:
        """Load what requests would wait for."""

    async def aclose(self) -> None:
        """Give up connections and processes."""


@dataclass(frozen=True, slots=True)
class OnServer:
    """Rows on a server."""

    server: RowServer

    def back_end(self, row: Row) -> BackEnd:
        """Return the row's own back end over the server's connections."""
        exact_only = row.is_exact_only or not row.is_plain
        return self.server.back_end(RowTarget(row.path, row.body, exact_only, row.bound_field))

    async def ready(self) -> None:
        """Load and set up the client: requests that waited for it would all go at once.

        Raises:
            LlmctlError: the address, the key or the proxy settings can't be used.
        """
        await self.server.client()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.server.aclose()


@dataclass(frozen=True, slots=True)
class OnEngine:
    """Rows on a back end that all of them share (the embedded engine, a script)."""

    shared: BackEnd

    def back_end(self, row: Row) -> BackEnd:  # noqa: ARG002  (it is the same for all)
        """Return the back end."""
        return self.shared

    async def ready(self) -> None:
        """Do nothing: it loads for its first row."""

    async def aclose(self) -> None:
        """End the engine."""
        await self.shared.aclose()


@dataclass(slots=True)
class Endpoint:
    """One place to ask, and how it fares.

    Attributes:
        name: what people call it.
        backs: gives the back ends.
        limiter: says when the next request may go.
        accepts_seed: a seed is known not to be refused.
        counts_chunks: its tokens are counted as chunks reach the session.
        reached: it has answered in this run.
        down_since: since when nothing answers there, in seconds; None if it does.
    """

    name: str
    backs: Backs
    limiter: Limiter
    accepts_seed: bool = False
    counts_chunks: bool = False
    reached: bool = False
    down_since: float | None = None
    _tries: int = 0

    def answered(self) -> None:
        """It has answered."""
        self.reached, self.down_since, self._tries = True, None, 0

    def vanished(self, now: float) -> None:
        """Nothing answers there: it is asked again after a while, once at a time."""
        self.down_since = now if self.down_since is None else self.down_since
        self.limiter.block(min(5.0, 0.25 * 2**self._tries), now)
        self._tries += 1

    def delay(self, cost: float, now: float) -> float | None:
        """Return the seconds until a request may go there; None until another has ended."""
        if self.down_since is not None and self.limiter.running:
            return None
        return self.limiter.delay(cost, now)


@dataclass(slots=True)
class Fleet:
    """All endpoints; a row goes to the one that is least busy.

    Attributes:
        endpoints: at least one.
    """

    endpoints: list[Endpoint] = field(default_factory=list)

    def choose(self, cost: float, now: float) -> tuple[Endpoint | None, float | None]:
        """Return where a request may go at once, or None and the seconds to wait.

        The seconds are None where only the end of another request can help.
        """
        waits = [(e.delay(cost, now), e) for e in self.endpoints]
        ready = [e for wait, e in waits if wait is not None and wait <= 0]
        if ready:
            return min(ready, key=lambda e: e.limiter.running / e.limiter.concurrency.limit), None
        return None, min((wait for wait, _ in waits if wait is not None), default=None)

    def gone_s(self, now: float) -> float | None:
        """Return for how many seconds nothing has answered anywhere; None if something does."""
        since = [e.down_since for e in self.endpoints]
        return None if None in since else now - max(s for s in since if s is not None)

    @property
    def limit(self) -> int:
        """How many requests may be under way now."""
        return sum(max(1, int(e.limiter.concurrency.limit)) for e in self.endpoints)

    def blocked_s(self, now: float) -> float:
        """Return for how many seconds no endpoint may be asked."""
        return min(e.limiter.blocked_s(now) for e in self.endpoints)

    async def ready(self) -> None:
        """Load what requests would wait for.

        Raises:
            LlmctlError: an address, a key or the proxy settings can't be used.
        """
        for endpoint in self.endpoints:
            await endpoint.backs.ready()

    async def aclose(self) -> None:
        """Close everything."""
        for endpoint in self.endpoints:
            await endpoint.backs.aclose()


def fold_of(back_end: BackEnd) -> Fold | None:
    """Return what a back end's last stream added up to; None where there is no such thing."""
    fold = getattr(back_end, "fold", None)
    return fold if isinstance(fold, Fold) else None
