"""One attempt at an item: a session, as in chat, whose view is a row of results."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmctl.backends.fold import Fold
from llmctl.backends.meter import Meter
from llmctl.batch.endpoint import fold_of
from llmctl.batch.journal import ItemJournal, LiveJournal
from llmctl.batch.kept import Kept
from llmctl.batch.row import Row
from llmctl.batch.row_view import RowView
from llmctl.clocks import Limits
from llmctl.conversation import Prefix
from llmctl.errors import LlmctlError
from llmctl.events import (
    Action,
    End,
    Finished,
    Guarantee,
    Mode,
    Started,
)
from llmctl.ports import BackEnd, Opened
from llmctl.resume.ladder import Ladder
from llmctl.resume.rung import Rung
from llmctl.retries import NO_PATIENCE
from llmctl.session import Policy, Session
from llmctl.tracing import Tracing
from llmctl.turn import Turn
from llmctl.watched import watched

if TYPE_CHECKING:
    from llmctl.batch.engines import Trial

CREATED = {"responses": "created_at"}
"""What an API calls the time at which a reply was made, if not ``created``."""


@dataclass(slots=True)
class Item:
    """A row that is being worked on.

    Attributes:
        row: what is asked.
        kept: what there is of the reply.
        faults: attempts of this run that failed for reasons of the item, since one came further.
        furthest: how far attempts of this run came, in characters.
        pushed_back: attempts of this run that a busy server refused.
        spent_s: seconds that this run's attempts have taken.
        cost: tokens that it is expected to take.
        last: the attempt whose records still speak for it while it waits for another.
    """

    row: Row
    kept: Kept = field(default_factory=Kept)
    faults: int = 0
    furthest: int = 0
    pushed_back: int = 0
    spent_s: float = 0.0
    cost: float = 0.0
    last: Trial | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How items are run.

    Attributes:
        rungs: the ways to go on, strongest first.
        require: the weakest guarantee that will do.
        limits: how long things may take; ``total`` is the item's, in this run.
        markers: texts that act.
        tracing: makes spans of attempts.
    """

    rungs: Sequence[Rung]
    require: Guarantee = Guarantee.TEXT
    limits: Limits = field(default_factory=Limits)
    markers: Mapping[str, Action] = field(default_factory=dict)
    tracing: Tracing = field(default_factory=Tracing)

    def limits_of(self, item: Item) -> Limits:
        """Return what is left of an item's limits."""
        total = self.limits.total
        left = None if total is None else max(0.001, total - item.spent_s)
        return Limits(self.limits.first_token, self.limits.idle, left)


@dataclass(slots=True)
class Watched(Ladder):
    """A ladder that remembers what the back end last raised."""

    error: LlmctlError | None = None

    @asynccontextmanager
    async def start(self) -> AsyncIterator[Opened]:
        """Ask for the reply."""
        try:
            async with Ladder.start(self) as opened:
                yield opened
        except LlmctlError as error:
            self.error = error
            raise

    @asynccontextmanager
    async def go_on(self, prefix: Prefix, alive: Callable[[], None]) -> AsyncIterator[Opened]:
        """Go on behind ``prefix``."""
        try:
            async with Ladder.go_on(self, prefix, alive) as opened:
                yield opened
        except LlmctlError as error:
            self.error = error
            raise


class Attempt:
    """One session for one item.

    Attributes:
        item: whose.

    Args:
        item: what is asked, and what there is of it.
        back_end: where it is asked.
        manner: how.
        live: where what arrives is recorded.
        on_units: told how many tokens chunks bring; None where somebody else tells.
    """

    def __init__(
        self,
        item: Item,
        back_end: BackEnd,
        manner: Manner,
        live: LiveJournal,
        *,
        on_units: Callable[[int], None] | None = None,
    ) -> None:
        self.item = item
        self._back_end = back_end
        self._turn = Turn(manner.markers, mode=Mode.HOLD)
        for chunk in item.kept.chunks():
            self._turn.receive(chunk)
        self._fold = Fold.from_json(item.kept.shape)
        self._opened = fold_of(back_end)
        self._view = RowView()
        self._live = live
        self._journal = self._record(live, on_units)
        self._source = self._ladder(manner)
        self._session = Session(
            self._turn,
            self._source,
            journal=self._journal,
            view=watched(self._view, manner.tracing.watchers()),
            started=self._started(),
            policy=_policy(manner.limits_of(item)),
        )
        self._view.go_on = self._session.resume

    @property
    def error(self) -> LlmctlError | None:
        """What the back end raised last."""
        return self._source.error

    @property
    def bug(self) -> Exception | None:
        """A fault of the program."""
        return self._session.bug

    def cut(self) -> None:
        """End the generation; what was received is kept. Safe from signal handlers.

        A reply that was received whole is at its end: there is nothing to be cut.
        """
        if not self._turn.received.finished:
            self._session.stop(End.SIGTERM)

    async def run(self) -> Finished:
        """Run to the end; the item's ``kept`` is up to date then."""
        self.item.kept.attempts += 1
        finished = await self._session.run()
        timing, kept = finished.timing, self.item.kept
        self._journal.settle()
        kept.guarantee, kept.conditions = str(self._source.guarantee), self._source.conditions
        if kept.first_token_s is None:
            kept.first_token_s = timing.first_token_s
        kept.duration_s += timing.duration_s
        self.item.spent_s += timing.duration_s
        return finished

    def close(self) -> None:
        """The attempt's outcome is on disk."""
        self._live.end(self._journal)

    def forget(self) -> None:
        """The item is complete: what the back end keeps for a resume can go."""
        self._session.forget()

    def body(self, finished: Finished) -> dict[str, Any]:
        """Return the object that the server would have sent unstreamed."""
        reason = finished.finish_reason or "stop"
        api = self.item.row.path.partition("/")[0]
        body = self._shape().body(
            "".join(self._view.content),
            "".join(self._view.reasoning),
            reason,
            self._usage(finished),
            api=api,
        )
        model = self.item.row.body.get("model")
        id_, now = f"llmctl-{self.item.row.digest.hex()}", int(time.time())
        return {"id": id_, CREATED.get(api, "created"): now, "model": model, **body}

    def facts(self) -> dict[str, Any]:
        """Return what else the row's ``llmctl`` object says."""
        seed = self.item.row.body.get("seed")
        facts = {"seed": seed, "markers": self._view.markers}
        return {name: value for name, value in facts.items() if value not in (None, [])}

    def _shape(self) -> Fold:
        """Return what is not text: of the newest stream, else of what was kept."""
        fold = fold_of(self._back_end)
        return self._fold if fold is None or fold is self._opened else fold

    def _usage(self, finished: Finished) -> Any:  # noqa: ANN401  (as the server sent it)
        """Return the accounting of the whole reply; null where a part of it is not known."""
        told = finished.usage.as_json() if finished.usage else None
        usage: Mapping[str, Any] | None = self._shape().usage or told
        if not usage or not self.item.kept.resumes:
            return usage
        strategy = self.item.kept.resumes[-1]["strategy"]
        if strategy in {"held", "replay", "cursor"}:
            return usage
        total, before = self._turn.received.tokens, usage.get("completion_tokens")
        asked = usage.get("prompt_tokens")
        if total is None or before is None or asked is None:
            return None
        prompt = asked if strategy == "instruct" else asked - (total - before)
        return {"prompt_tokens": prompt, "completion_tokens": total, "total_tokens": prompt + total}

    def _record(self, live: LiveJournal, on_units: Callable[[int], None] | None) -> ItemJournal:
        row, so_far = self.item.row, self._turn.received
        journal = live.item(
            row.id, row.digest, self.item.kept, so_far, lambda: self._shape().as_json()
        )
        journal.meter = None if on_units is None else Meter(on_units, on_units)
        return journal

    def _ladder(self, manner: Manner) -> Watched:
        kept = self.item.kept
        return Watched(
            self._back_end,
            self.item.row.as_request(),
            manner.rungs,
            manner.require,
            conditions=kept.conditions,
            guarantee=Guarantee(kept.guarantee),
            saved=kept.saved,
        )

    def _started(self) -> Started:
        row, back_end = self.item.row, self._back_end
        return Started(row.id, row.id, str(row.body.get("model")), back_end.name, back_end.api)


def _policy(limits: Limits) -> Policy:
    return Policy(ends_on_pause=False, limits=limits, patience=NO_PATIENCE, syncs=False)
