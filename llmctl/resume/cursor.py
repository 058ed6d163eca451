"""Cursor: read the same run on, from where the connection to it was lost.

Some servers keep what a run has generated under a name, whether anybody reads it or not:
llama-server for a request with ``X-Conversation-Id``, the Responses API for a response in
the background. Nothing is generated twice and nothing is sampled anew, so the rest is
`exact` if the reply was until then.

Every chunk says where its run can be read on (`llmctl.events.Cursor`). The back end finds
that place again and sees, before anything is shown, that the run goes on behind what is
known; if the server has let go of it, the next way is tried. A run that was *cut* has been
ended at the server: nothing is left of it to read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llmctl.events import Guarantee, Strategy
from llmctl.ports import BackEnd, Opened
from llmctl.resume.rung import Standing


class ReadOn:
    """Read the same run on."""

    strategy = Strategy.CURSOR

    def promise(self, standing: Standing, back_end: BackEnd) -> Guarantee | None:
        """Nothing without a cursor, nor where the run ends at another bound than is wanted."""
        cursor = standing.prefix.cursor
        if cursor is None or cursor.bound != standing.request.options.max_tokens:
            return None
        best = back_end.supports.get(self.strategy)
        return None if best is None else best.or_worse(standing.guarantee)

    @asynccontextmanager
    async def open(self, standing: Standing, back_end: BackEnd) -> AsyncIterator[Opened]:
        """Find the run; the stream brings only what follows the prefix."""
        opening = back_end.open(
            standing.request,
            again=standing.conditions,
            after=standing.prefix,
            by=self.strategy,
        )
        async with opening as stream:
            yield Opened(
                stream=stream,
                chunks=aiter(stream),
                strategy=self.strategy,
                guarantee=standing.guarantee,
            )
