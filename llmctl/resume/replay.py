"""Replay: run the same request again and show what comes behind the known text.

The new run must repeat the reply so far, character by character, or it is given up before
anything is shown. That alone proves nothing about the rest (docs/engine.md has the
counter-examples), so `exact` also needs all recorded conditions to hold again: the
engine's identity, its options and its state at the start of the turn.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llmctl.conversation import Prefix
from llmctl.errors import StrategyUnavailable
from llmctl.events import Channel, Chunk, Guarantee, Strategy
from llmctl.ports import BackEnd, Opened
from llmctl.resume.rung import Standing, paid_again


class Replay:
    """Run the same request again."""

    strategy = Strategy.REPLAY

    def promise(self, standing: Standing, back_end: BackEnd) -> Guarantee | None:
        """Exact where the back end tells its conditions; nothing once the reply was mended.

        Where it costs the known part again, only who wants nothing less than `exact` gets it.
        """
        if standing.guarantee is not Guarantee.EXACT:
            return None
        if back_end.pays_twice and standing.require is not Guarantee.EXACT:
            return None
        return back_end.supports.get(self.strategy)

    @asynccontextmanager
    async def open(self, standing: Standing, back_end: BackEnd) -> AsyncIterator[Opened]:
        """Repeat the known text, then hand over."""
        if back_end.pays_twice:
            standing.tell(_cost(standing.prefix))
        opening = back_end.open(standing.request, again=standing.conditions, by=self.strategy)
        async with opening as stream:
            chunks = aiter(stream)
            follower = _Follower(standing)
            async for chunk in chunks:
                standing.alive()
                if follower.take(chunk):
                    break
            else:
                raise StrategyUnavailable("The replay ended before the reply's known part did.")
            same = bool(standing.conditions) and stream.conditions == standing.conditions
            yield Opened(
                stream=stream,
                chunks=_behind(follower.rest, chunks),
                strategy=self.strategy,
                guarantee=follower.earned(exact=same),
                paid_again=paid_again(stream, standing.prefix.spent),
            )


def _cost(known: Prefix) -> str:
    size = f"{len(known.text):,} chars" if known.tokens is None else f"{known.tokens:,} tok"
    return f"to go on exactly, the first {size} are generated and paid for once more"


class _Follower:
    """Compares a new run with the reply so far, then keeps what is beyond it."""

    def __init__(self, standing: Standing) -> None:
        self._expected = {
            Channel.REASONING: standing.prefix.reasoning,
            Channel.CONTENT: standing.prefix.text,
        }
        self._seen = dict.fromkeys(self._expected, 0)
        self._tokens: int | None = 0
        self._known_tokens = standing.prefix.tokens
        self.rest: list[Chunk] = []

    def take(self, chunk: Chunk) -> bool:
        """Compare one chunk; say whether all that is known has been repeated."""
        known, seen = self._expected[chunk.channel], self._seen[chunk.channel]
        part = known[seen : seen + len(chunk.text)]
        if not chunk.text.startswith(part):
            raise StrategyUnavailable("The replay did not repeat the reply's known part.")
        self._seen[chunk.channel] = seen + len(part)
        self._count(chunk)
        rest = chunk.without_head(len(part))
        if rest.text or rest.finish_reason:
            self.rest.append(rest)
        return self._caught_up()

    def earned(self, *, exact: bool) -> Guarantee:
        """Return what the comparison has earned, given that the conditions hold or not."""
        if exact:
            return Guarantee.EXACT
        counted = self._tokens is not None and self._tokens == self._known_tokens
        return Guarantee.TOKEN if counted and not self.rest else Guarantee.TEXT

    def _caught_up(self) -> bool:
        return all(self._seen[channel] == len(text) for channel, text in self._expected.items())

    def _count(self, chunk: Chunk) -> None:
        if chunk.channel is Channel.CONTENT and self._tokens is not None:
            self._tokens = None if chunk.tokens is None else self._tokens + chunk.tokens


async def _behind(first: list[Chunk], rest: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    for chunk in first:
        yield chunk
    async for chunk in rest:
        yield chunk
