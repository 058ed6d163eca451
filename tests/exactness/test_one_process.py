"""Turns in one process, as in a chat: the prompt cache makes a turn start from a saved state.

Such a turn is repeated exactly only from that very state. Its replies are cut at many places
and gone on with by another engine process, as a later process would: with the state it is
`exact` and the text is identical; without it the label is lost, because the tail may differ
although the prefix agrees.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.backends.embedded import Embedded
from llmctl.conversation import Prefix, Request
from llmctl.events import Guarantee, Strategy
from llmctl.resume.ladder import Ladder, rungs
from tests.exactness.corpus import KINDS, TEMPERATURES, Kind
from tests.support.engine import Reply, ask, whole

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.slow]

TOKENS = 48
CHATS = [(kind, temperature) for kind in KINDS for temperature in TEMPERATURES]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a chat.

    Attributes:
        request: what was asked.
        reply: what came, uninterrupted.
        saved: what a cut at its end kept; None where that would not be exact.
    """

    request: Request
    reply: Reply

    def until(self, chunks: int) -> Prefix:
        """Return its beginning."""
        return replace(self.reply, chunks=self.reply.chunks[:chunks]).prefix

    @property
    def starts_from_a_state(self) -> bool:
        """Whether it used what was in the slot."""
        return bool(self.reply.conditions["start"] != "empty")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def engine(weights: Path, home: Path) -> AsyncIterator[Embedded]:
    """Run an engine process on a home."""
    embedded = Embedded(weights, home=home)
    try:
        yield embedded
    finally:
        await embedded.aclose()


async def chat(weights: Path, home: Path, kind: Kind, temperature: float) -> list[Turn]:
    """Have three turns in one process."""
    turns: list[Turn] = []
    said: list[str] = []
    async with engine(weights, home) as embedded:
        for prompt in kind.prompts:
            said.append(prompt)
            request = ask(*said, temperature=temperature, seed=kind.seed, max_tokens=TOKENS)
            turns.append(Turn(request, await whole(embedded, request)))
            said.append(turns[-1].reply.text)
    return turns


async def gone_on(
    embedded: Embedded, turn: Turn, prefix: Prefix, conditions: Mapping[str, Any]
) -> tuple[str, Strategy | None, Guarantee | None]:
    """Go on behind a prefix; return all of the text, and how."""
    ladder = Ladder(embedded, turn.request, rungs(""), conditions=conditions)
    async with ladder.go_on(prefix, lambda: None) as opened:
        rest = "".join([chunk.text async for chunk in opened.chunks])
    return prefix.text + rest, opened.strategy, opened.guarantee


async def check_chat(weights: Path, home: Path, kind: Kind, temperature: float, every: int) -> None:
    """Cut a chat's later turns at every so-manieth token, with their state and without."""
    turns = await chat(weights, home, kind, temperature)
    assert any(turn.starts_from_a_state for turn in turns)
    figures = {"cuts": 0, "exact": 0, "positions": 0, "another_tail": 0}
    for turn in turns[1:]:
        await check_with_state(weights, home, turn, every, figures)
        if turn.starts_from_a_state:
            await check_without_state(weights, home, turn, figures)
    note(kind, temperature, figures)
    assert figures["cuts"] == figures["exact"] > 0


async def check_with_state(
    weights: Path, home: Path, turn: Turn, every: int, figures: dict[str, int]
) -> None:
    """From the recorded state every cut is gone on with exactly."""
    async with engine(weights, home) as embedded:
        for chunks in range(1, len(turn.reply.chunks), every):
            prefix = turn.until(chunks)
            text, strategy, guarantee = await gone_on(embedded, turn, prefix, turn.reply.conditions)
            figures["cuts"] += 1
            figures["exact"] += (text, guarantee) == (turn.reply.text, Guarantee.EXACT)
            assert (text, strategy, guarantee) == (
                turn.reply.text, Strategy.REPLAY, Guarantee.EXACT,
            )  # fmt: skip


async def check_without_state(
    weights: Path, home: Path, turn: Turn, figures: dict[str, int]
) -> None:
    """Where the state is gone the label is lost, whether the text differs or not."""
    lost = {**turn.reply.conditions, "start": {**turn.reply.conditions["start"], "tokens": 1}}
    async with engine(weights, home) as embedded:
        other = await whole(embedded, turn.request, again={"start": "empty"})
        for conditions in (lost, {**turn.reply.conditions, "start": "empty"}):
            prefix = turn.until(len(turn.reply.chunks) // 2)
            _, _, guarantee = await gone_on(embedded, turn, prefix, conditions)
            assert guarantee is not Guarantee.EXACT
    ends = [len(turn.until(n).text) for n in range(1, len(turn.reply.chunks))]
    agree = [end for end in ends if other.text[:end] == turn.reply.text[:end]]
    figures["positions"] += len(ends)
    figures["another_tail"] += len(agree) if other.text != turn.reply.text else 0


def note(kind: Kind, temperature: float, figures: Mapping[str, int]) -> None:
    """Append the figures to the file that LLMCTL_EXACTNESS_FIGURES names, if it is set."""
    file = os.environ.get("LLMCTL_EXACTNESS_FIGURES")
    if file is not None:
        line = {"kind": kind.name, "temperature": temperature, **figures}
        with Path(file).open("a") as stream:
            stream.write(json.dumps(line) + "\n")


async def test_later_turns_are_exact_from_their_state(weights: Path, tmp_path: Path) -> None:
    await check_chat(weights, tmp_path, KINDS[0], 0.8, every=16)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("kind", "temperature"), CHATS)
async def test_later_turns_of_every_kind_are_exact_from_their_state(
    weights: Path, tmp_path: Path, kind: Kind, temperature: float
) -> None:
    await check_chat(weights, tmp_path, kind, temperature, every=6)
