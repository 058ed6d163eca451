"""Going on behind a prefix that the back end is given: by state, by ids or by text.

``kv`` restores the engine's state, ``tokens`` sends the reply's own token ids, ``prefix``
sends its text as the beginning of the assistant's message. The back end does the work and
says in its stream's conditions what it could prove; here that becomes a guarantee.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from llmctl.events import Guarantee, Strategy
from llmctl.ports import BackEnd, Opened
from llmctl.resume.rung import Standing, paid_again


@dataclass(frozen=True, slots=True)
class Continuation:
    """Go on behind a prefix by one of the three ways."""

    strategy: Strategy

    def promise(self, standing: Standing, back_end: BackEnd) -> Guarantee | None:
        """Return what the back end is known to reach, unless something needed is missing."""
        if self.strategy is Strategy.TOKENS and standing.prefix.ids is None:
            return None
        if self.strategy is Strategy.KV and standing.saved is None:
            return None
        best = back_end.supports.get(self.strategy)
        return None if best is None else best.or_worse(standing.guarantee)

    @asynccontextmanager
    async def open(self, standing: Standing, back_end: BackEnd) -> AsyncIterator[Opened]:
        """Send the prefix; the stream brings only what follows it."""
        opening = back_end.open(
            standing.rest,
            again=standing.conditions,
            after=standing.prefix,
            by=self.strategy,
            saved=standing.saved,
        )
        async with opening as stream:
            earned = Guarantee(stream.conditions.get("earned", Guarantee.TEXT))
            yield Opened(
                stream=stream,
                chunks=aiter(stream),
                strategy=self.strategy,
                guarantee=earned.or_worse(standing.guarantee),
                paid_again=paid_again(stream),
            )
