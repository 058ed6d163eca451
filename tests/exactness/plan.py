"""Which combinations are tried, and in which order. Pure."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.exactness.corpus import KINDS, TEMPERATURES, TURNS, Kind

PLAIN_PART = 0.25
"""The part of the chats that are had in append-only output."""


class Way(StrEnum):
    """How a reply is interrupted."""

    HOLD = "hold"
    CUT = "cut"
    TIMEOUT = "timeout"
    SIGTERM = "sigterm"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Cell:
    """A reply and how it is interrupted, but not where."""

    kind: Kind
    turn: int
    temperature: float
    way: Way


@dataclass(frozen=True, slots=True)
class Combination:
    """One reply, interrupted at one place.

    Attributes:
        number: its place in the plan.
        cell: the reply, and how it is interrupted.
        at: where: the part of the reply that has come by then.
        json: read events (``--json``) or plain text.
        again: where the resumed reply is paused once more (part of the rest); None: it isn't.
    """

    number: int
    cell: Cell
    at: float
    json: bool
    again: float | None

    def __str__(self) -> str:
        """Name it for a report."""
        cell, form = self.cell, "json" if self.json else "text"
        twice = "" if self.again is None else "-twice"
        return (
            f"{self.number}-{cell.kind.name}-turn{cell.turn}-t{cell.temperature:g}"
            f"-{cell.way}-{self.at:.3f}-{form}{twice}"
        )


class ChatWay(StrEnum):
    """How a reply in a chat is interrupted, and gone on with."""

    PAUSE = "pause"
    """Space, and Space again."""
    STOP = "stop"
    """Ctrl-C, then ``/resume``."""
    QUIT = "quit"
    """Space and Ctrl-D; then, as with the two below, ``chat -c`` and Space."""
    SIGTERM = "sigterm"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class ChatCombination:
    """One reply in a chat, interrupted at one place.

    Attributes:
        number: its place in the plan.
        turn: which of the chat's questions, from 1.
        at: the part of the reply that has been shown by then.
        plain: append-only output (``--plain``).
    """

    number: int
    kind: Kind
    turn: int
    temperature: float
    way: ChatWay
    at: float
    plain: bool

    def __str__(self) -> str:
        """Name it for a report."""
        form = "plain" if self.plain else "screen"
        return (
            f"{self.number}-{self.kind.name}-turn{self.turn}-t{self.temperature:g}"
            f"-{self.way}-{self.at:.3f}-{form}"
        )


def chat_combinations(count: int, seed: int) -> list[ChatCombination]:
    """Return so many combinations: every kind, temperature and way, with turns in rotation."""
    chance = random.Random(seed)  # noqa: S311  (repeatable on purpose)
    cells = list(itertools.product(KINDS, TEMPERATURES, ChatWay))
    order: list[tuple[Kind, float, ChatWay]] = []
    while len(order) < count:
        order += chance.sample(cells, len(cells))
    return [
        ChatCombination(
            number,
            kind,
            turn=1 + number % TURNS,
            temperature=temperature,
            way=way,
            at=chance.random(),
            plain=chance.random() < PLAIN_PART,
        )
        for number, (kind, temperature, way) in enumerate(order[:count])
    ]


def few_chats(seed: int) -> list[ChatCombination]:
    """Return combinations of two chats only: every way, turn and temperature is there."""
    chance = random.Random(seed)  # noqa: S311  (as above)
    return [
        ChatCombination(
            number,
            KINDS[number % 2],
            turn=1 + number % TURNS,
            temperature=TEMPERATURES[number % 2],
            way=way,
            at=chance.random(),
            plain=number == 0,
        )
        for number, way in enumerate([*ChatWay, ChatWay.QUIT])
    ]


def combinations(count: int, seed: int) -> list[Combination]:
    """Return so many combinations: all cells in random order, then all of them again."""
    cells = list(itertools.starmap(Cell, _product()))
    return _placed(cells, count, random.Random(seed))  # noqa: S311  (repeatable on purpose)


def few_replies(count: int, seed: int) -> list[Combination]:
    """Return combinations of few replies: every kind, turn, temperature and way is there."""
    cells = [
        Cell(kind, turn, TEMPERATURES[place % 2], way)
        for place, kind in enumerate(KINDS)
        for turn in range(1, TURNS + 1 - place % TURNS)
        for way in Way
    ]
    return _placed(cells, count, random.Random(seed))  # noqa: S311  (as above)


def _product() -> Iterator[tuple[Kind, int, float, Way]]:
    return itertools.product(KINDS, range(1, TURNS + 1), TEMPERATURES, Way)


def _placed(cells: list[Cell], count: int, chance: random.Random) -> list[Combination]:
    order: list[Cell] = []
    while len(order) < count:
        order += chance.sample(cells, len(cells))
    return [
        Combination(
            number,
            cell,
            at=chance.random(),
            json=chance.random() < 0.5,
            again=chance.random() if chance.random() < 0.2 else None,
        )
        for number, cell in enumerate(order[:count])
    ]
