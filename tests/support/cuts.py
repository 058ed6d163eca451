"""Cut a reply at every place, go on with it, and judge what came of it.

A judgement does not believe the client. What the model had before it when it went on is taken
from the request that the server recorded (`Witness`), and what it wrote then is worked out from
that without the server. `Trial.lie` says in what a label is better than this truth.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from llmctl.conversation import Prefix, Request
from llmctl.errors import LlmctlError
from llmctl.events import Chunk, Guarantee, Strategy
from llmctl.ports import BackEnd
from llmctl.received import Received
from llmctl.resume.ladder import Ladder, rungs

__all__ = ["Trial", "Witness", "climb", "gone_on", "ladder_of", "received", "whole"]


@dataclass(frozen=True, slots=True)
class Witness:
    """What a model did when a reply was gone on with.

    Attributes:
        had: the tokens of the reply that stood before it.
        had_text: their text.
        wrote: the text that it wrote behind them.
        reply: the tokens of the whole reply, had nobody cut it.
    """

    had: tuple[int, ...]
    had_text: str
    wrote: str
    reply: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """One reply that was cut and gone on with.

    Attributes:
        full: the uninterrupted reply.
        before: what there was at the cut.
        rest: what was added; None where nothing reached the floor.
        strategy: by which way.
        label: what was said of it.
    """

    full: Prefix
    before: Prefix
    rest: Prefix | None = None
    strategy: Strategy | None = None
    label: Guarantee | None = None

    def lie(self, witness: Witness | None = None) -> str:
        """Say in what the label is better than the truth; "" if it is not.

        Args:
            witness: what the model did; None where nothing was generated anew.
        """
        if self.rest is None or self.label is None:
            return ""
        joined = self.before.text + self.rest.text
        if self.label is Guarantee.EXACT:
            return "" if joined == self.full.text else f"exact, but {joined!r} is another reply"
        if witness is None:
            return f"{self.label}, but nothing was generated"
        return self._lie_about(witness, joined)

    def _lie_about(self, witness: Witness, joined: str) -> str:
        if joined != witness.had_text + witness.wrote:
            return f"{joined!r} is not what the model wrote: {witness}"
        if not _is_all_but_blanks(witness.had_text, self.before.text):
            return f"{self.label}, but the model went on behind {witness.had_text!r}"
        behind = witness.reply[: len(witness.had)]
        same = witness.had == behind and witness.had_text == self.before.text
        if self.label is Guarantee.TOKEN and not same:
            return f"token, but the model went on behind {witness.had} and not {behind}"
        return ""


def _is_all_but_blanks(part: str, text: str) -> bool:
    return text.startswith(part) and not text[len(part) :].strip()


def received(chunks: Sequence[Chunk]) -> Prefix:
    """Return what a session has of these."""
    all_ = Received()
    for chunk in chunks:
        all_.add(chunk)
    return all_.as_prefix()


@asynccontextmanager
async def ladder_of(
    made: BackEnd, request: Request, require: Guarantee = Guarantee.TEXT
) -> AsyncIterator[Ladder]:
    """Give the ladder of one request; its back end is closed behind it."""
    try:
        yield Ladder(made, request, rungs("Go on."), require)
    finally:
        await made.aclose()


async def whole(of: Ladder) -> list[Chunk]:
    """Return the uninterrupted reply."""
    async with of.start() as opened:
        return [chunk async for chunk in opened.chunks]


async def gone_on(of: Ladder, before: Prefix, full: Prefix) -> Trial:
    """Go on behind ``before`` as a first resume would."""
    of.guarantee = Guarantee.EXACT
    try:
        async with of.go_on(before, lambda: None) as opened:
            rest = received([chunk async for chunk in opened.chunks])
            return Trial(full, before, rest, opened.strategy, opened.guarantee)
    except LlmctlError:
        return Trial(full, before)


async def climb(of: Ladder, step: int = 1) -> AsyncIterator[Trial]:
    """Cut the reply behind every chunk of text (every ``step``-th), and go on each time."""
    chunks = await whole(of)
    full = received(chunks)
    for count in range(1, len(chunks), step):
        if chunks[count - 1].text:
            yield await gone_on(of, received(chunks[:count]), full)
