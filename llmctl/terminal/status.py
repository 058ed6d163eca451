"""What the rows below a reply say: how it stands, in words, and what a person types. Pure.

The status row is made of fields. When the terminal is too narrow for all of them, they go in
the order in which a person can do without them: model, speed, time, counts, how to stop (which
everybody tries anyway). What never goes is the state itself and which key changes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from llmctl.counts import counted
from llmctl.events import Position
from llmctl.talk import at
from llmctl.terminal.surface import Look, Row
from llmctl.terminal.width import cells, fit, fit_end

CARET = "▏"
MODEL_CELLS = 28
"""Cells of the model's name at the most."""

SILENCE_S = 5.0
"""Seconds without a token after which a reply that had begun is said to be silent."""

SEPARATOR = " · "


class State(StrEnum):
    """How a reply stands, as far as a person sees it."""

    WAITING = "waiting"
    THINKING = "thinking"
    STREAMING = "streaming"
    RESUMING = "resuming"
    RETRYING = "retrying"
    STOPPING = "stopping"
    PAUSED_HELD = "paused, the generation held"
    PAUSED_CUT = "paused, the generation ended"
    PAUSED_COMPLETE = "paused, the reply complete"
    PAUSED_BY_MARKER = "paused by the model"
    ASKED = "paused, the model asks"
    PAGE = "at the end of a page"
    PAGE_COMPLETE = "at the end of a page, the reply complete"

    @property
    def paused(self) -> bool:
        """Whether Space resumes."""
        return self in _PAUSED


_PAUSED = frozenset(
    {
        State.PAUSED_HELD,
        State.PAUSED_CUT,
        State.PAUSED_COMPLETE,
        State.PAUSED_BY_MARKER,
        State.ASKED,
        State.PAGE,
        State.PAGE_COMPLETE,
    }
)
_PAGES = frozenset({State.PAGE, State.PAGE_COMPLETE})
_BEGUN = frozenset({State.THINKING, State.STREAMING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known about a reply now.

    Attributes:
        state: how it stands.
        model: the model's name.
        position: where delivery stands.
        waiting_tokens: tokens that have come and are not shown; None if that is not known.
        waiting_chars: characters of them.
        tokens_per_s: how fast it comes; None if that is not known.
        seconds: how long it has taken, pauses not counted.
        silent_s: for how long nothing has come.
        draft: what the person types.
        queued: what will be sent when the reply has ended.
        held: what is held by a held pause.
        hint: what a person should be told for a moment.
    """

    state: State
    model: str = ""
    position: Position = field(default_factory=Position)
    waiting_tokens: int | None = 0
    waiting_chars: int = 0
    tokens_per_s: float | None = None
    seconds: float = 0.0
    silent_s: float = 0.0
    draft: str = ""
    queued: tuple[str, ...] = ()
    held: str = "connection held"
    hint: str = ""


def footer(facts: Facts, columns: int) -> list[Row]:
    """Return the rows for a terminal of so many columns: hint, queue, draft and status."""
    width = columns - 1
    rows = [Row(fit(facts.hint, width), Look.QUIET)] if facts.hint else []
    if facts.queued:
        rows.append(Row(_queued(facts.queued, width), Look.QUIET))
    if facts.draft:
        rows.append(Row(_draft(facts.draft, width)))
    look = Look.LOUD if facts.state.paused else Look.QUIET
    return [*rows, Row(status(facts, columns), look)]


def status(facts: Facts, columns: int) -> str:
    """Return the status row for a terminal of so many columns."""
    if facts.state is State.STOPPING:
        return fit(facts.state, columns - 1)
    words = _Words.of(facts)
    fields = [_lead(facts.state, words), *_figures(facts, words), *_keys(facts)]
    fields = [each for each in fields if each.text]
    while cells(_joined(fields)) >= columns and any(each.rank for each in fields):
        place = fields.index(max(fields, key=lambda each: each.rank))
        short = fields.pop(place).short
        if short:
            fields.insert(place, _Field(short))
    return fit(_joined(fields), columns - 1)


@dataclass(frozen=True, slots=True)
class _Field:
    """A part of the status row.

    The higher its rank, the sooner it gives way to ``short``; one of rank 0 never does.
    """

    text: str
    rank: int = 0
    short: str = ""


@dataclass(frozen=True, slots=True)
class _Words:
    """The facts as they are said."""

    at: str
    place: str
    waiting: str

    @classmethod
    def of(cls, facts: Facts) -> _Words:
        chars, tokens = facts.position.chars, facts.position.tokens
        if facts.waiting_tokens is None:
            waiting = counted(facts.waiting_chars, "char")
        else:
            waiting = f"{facts.waiting_tokens:,} tok"
        place = f"character {chars:,}" if tokens is None else f"token {tokens:,}"
        return cls(at(facts.position), place, waiting)


def _joined(fields: list[_Field]) -> str:
    return SEPARATOR.join(each.text for each in fields)


def _lead(state: State, words: _Words) -> _Field:
    """Return the state's own word, which is always there."""
    match state:
        case State.WAITING:
            return _Field("waiting for the first token", 5, "waiting")
        case State.RESUMING:
            return _Field(f"resuming from {words.place}", 2, "resuming")
        case State.RETRYING:
            return _Field("trying again")
        case State.PAUSED_HELD | State.PAGE | State.PAGE_COMPLETE:
            word = "PAGE" if state in _PAGES else "PAUSED"
            return _Field(f"{word} at {words.at}", 1, word)
        case State.PAUSED_BY_MARKER:
            return _Field("PAUSED by the model's marker", 1, "PAUSED by model")
        case _:
            return _Field("PAUSED" if state.paused else str(state))


def _figures(facts: Facts, words: _Words) -> list[_Field]:
    """Return the fields between the state and the keys."""
    buffered = _Field(f"{words.waiting} buffered" if facts.waiting_chars else "", 4)
    match facts.state:
        case State.PAUSED_HELD | State.PAGE:
            return [_Field(facts.held, 5), buffered]
        case State.PAUSED_CUT:
            goes_on = _Field(f"resume goes on from {words.place}", 3)
            return [_Field("connection closed", 5), goes_on, replace(buffered, rank=6)]
        case State.PAUSED_COMPLETE | State.PAGE_COMPLETE:
            waiting = f"{words.waiting} waiting"
            return [_Field(f"reply complete, {waiting}", 3, waiting)]
        case State.PAUSED_BY_MARKER:
            return [_Field(f"at {words.at}", 5), buffered]
        case State.ASKED:
            return [_Field("the model asks"), _Field(f"at {words.at}", 5), buffered]
        case _:
            return _progress(facts, words)


def _progress(facts: Facts, words: _Words) -> list[_Field]:
    streams = facts.state is State.STREAMING
    silent = facts.state in _BEGUN and facts.silent_s >= SILENCE_S
    rate = None if facts.tokens_per_s is None else f"{facts.tokens_per_s:.0f} tok/s"
    return [
        _Field(fit(facts.model, MODEL_CELLS), 8),
        _Field(words.at if streams else "", 4),
        _Field(f"nothing for {facts.silent_s:.0f}s" if silent else "", 2),
        _Field(rate if streams and rate and not silent else "", 7),
        _Field(f"{facts.seconds:.1f}s", 6),
    ]


def _keys(facts: Facts) -> list[_Field]:
    """Return what keys do now; with a draft, Space is text and Enter does something else."""
    if facts.draft:
        enter = _Field("Enter queues")
        if facts.state.paused:
            enter = _Field("Enter sends, ending the reply here", 2, "Enter sends")
        return [enter, _Field("Esc sets it aside", 3)]
    if facts.state is State.ASKED:
        return [_Field("type the answer"), _Field("Space resume", 3)]
    space = _Field("Space resume" if facts.state.paused else "Space pause")
    if facts.state in _PAGES:
        space = _Field("Space next page", 1, "Space next")
    return [space, _Field("Ctrl-C stop", 6 if facts.state.paused else 3)]


def _draft(text: str, width: int) -> str:
    """Return the draft's last line, as far as its end fits."""
    *above, last = text.split("\n")
    lead = f"> {_more(len(above), 'line')}"
    return lead + fit_end(last, max(1, width - cells(lead) - 1)) + CARET


def _queued(texts: tuple[str, ...], width: int) -> str:
    """Return the beginning of what is sent next."""
    first, *rest = "\n".join(texts).split("\n")
    lead = f"queued: {_more(len(rest), 'line')}"
    return lead + fit(first, max(1, width - cells(lead)))


def _more(number: int, noun: str) -> str:
    return f"(+{number} {noun}{'s' if number > 1 else ''}) " if number else ""
