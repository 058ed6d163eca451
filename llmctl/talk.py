"""What a command says on stderr about a reply: one sentence, one hint."""

from __future__ import annotations

from collections.abc import Callable

from llmctl.conversation import Options
from llmctl.counts import counted
from llmctl.events import (
    BEHIND,
    End,
    Event,
    Finished,
    MarkerFound,
    Position,
    Resumed,
    Retrying,
    Status,
)


def at(position: Position) -> str:
    """Say where: in tokens where they are known, else in characters."""
    if position.tokens is None:
        return counted(position.chars, "char")
    return f"{position.tokens:,} tok"


def penalties_begin_anew(event: Event | None, options: Options) -> bool:
    """Say whether a resume asks behind the text, with penalties that look at what was generated.

    Servers count only the tokens of the request at hand, so what was written before the resume
    is not counted any more.
    """
    return isinstance(event, Resumed) and event.strategy in BEHIND and options.counts_written


class Talk:
    """Turns events into lines for a person.

    Args:
        write: takes one line without its newline.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._saved = True

    def say(self, line: str) -> None:
        """Say a line that is about no event."""
        self._write(line)

    def unsaved(self, reason: str) -> None:
        """Say that from here on a crash would lose text; less is promised at the end."""
        self._saved = False
        self._write(f"llmctl: The reply is no longer being saved: {reason}.")

    def tell(self, event: Event) -> None:
        """Say what is worth saying about an event."""
        match event:
            case Resumed(strategy, guarantee, position):
                self._write(f"resumed at {at(position)} ({strategy}, {guarantee})")
            case Retrying(reason, delay_s):
                self._write(f"trying again in {delay_s:g} s: {reason}")
            case MarkerFound(marker, action):
                self._write(f"the model wrote its marker {marker} ({action})")
            case Finished():
                self._finished(event)
            case _:
                pass

    def _finished(self, finished: Finished) -> None:
        sentence = _sentence(finished, saved=self._saved)
        if sentence is None:
            return
        self._write(f"llmctl: {sentence}")
        self._write(f"hint: {_hint(finished, saved=self._saved)}")


def _sentence(finished: Finished, *, saved: bool) -> str | None:
    where = at(finished.position)
    is_or_are = "is" if where.startswith("1 ") else "are"
    if finished.problem is not None:
        kept = f" {where} of the reply {is_or_are} kept." if finished.resumable and saved else ""
        return finished.problem.message + (kept if finished.position.chars else "")
    match finished.end:
        case End.TOKEN_LIMIT:
            return f"The reply reached its token limit at {where}."
        case End.CONTEXT_FULL:
            return f"The context is full; the reply ends at {where}."
        case End.PAUSED_BY_KEY | End.PAUSED_BY_LIMIT | End.PAUSED_BY_MARKER:
            return f"paused at {where}"
        case end if end.status is Status.INTERRUPTED and end is not End.CLOSED_PIPE:
            return f"interrupted ({end.cause}) at {where}"
        case _:
            return None


def _hint(finished: Finished, *, saved: bool) -> str:
    if finished.problem is not None and finished.problem.hint is not None:
        return finished.problem.hint
    if finished.resumable:
        what = "Go on" if saved else "What was saved of it goes on"
        return f"{what} with 'llmctl resume {finished.generation}'."
    if finished.end is End.CONTEXT_FULL:
        return "Begin a new conversation, or branch off earlier in this one."
    return "This reply can't be gone on with: ask again."
