"""A new reply in the foreground: what ``llmctl run`` does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from llmctl.config import Config
from llmctl.conversation import Options
from llmctl.environment import Environment
from llmctl.errors import UsageError
from llmctl.events import Action
from llmctl.foreground import Foreground, Manner
from llmctl.images import Images
from llmctl.journal import Header, Journal, JournalBusy, NoJournal
from llmctl.ports import BackEnd
from llmctl.profiles import Selection
from llmctl.records import Conversation, Records, new_id
from llmctl.requests import request_of, seeded
from llmctl.targets import target_of
from llmctl.turn import Turn


class Unfinished(StrEnum):
    """What to do with the unfinished last reply of a conversation that is gone on with."""

    REFUSE = "refuse"
    KEEP = "keep"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What ``run`` was asked.

    Attributes:
        prompt: the user's words.
        selection: the model.
        options: the generation options.
        markers: texts of the model that act.
        system: the system message, for a new conversation.
        conversation: the conversation to go on with; None begins one.
        unfinished: what to do with that conversation's unfinished last reply.
        stored: remember the reply.
        images: those that the prompt names; None are those of the home.
    """

    prompt: str
    selection: Selection
    options: Options = field(default_factory=Options)
    markers: Mapping[str, Action] = field(default_factory=dict)
    system: str | None = None
    conversation: str | None = None
    unfinished: Unfinished = Unfinished.REFUSE
    stored: bool = True
    images: Images | None = None


def run(ask: Ask, manner: Manner, config: Config, env: Environment) -> int:
    """Run one new reply and return the exit status.

    Raises:
        UsageError: its conversation can't be gone on with.
        JournalBusy: a reply of it is live in another process.
    """
    if ask.stored:
        with Records(env.data) as records:
            return _run(ask, manner, config, env, records)
    if manner.pause_after is not None:
        raise UsageError("--pause-after needs the store.", "Leave out --no-store.")
    return _run(ask, manner, config, env, None)


def _run(
    ask: Ask, manner: Manner, config: Config, env: Environment, records: Records | None
) -> int:
    before = _before(ask, records)
    with Foreground(env, manner, config) as foreground:
        back_end = foreground.back_end(ask.selection, stored=ask.stored, images=ask.images)
        header = _header(ask, before, back_end, config)
        journal = _journal(header, records, foreground, new=ask.conversation is None)
        turn = Turn(ask.markers, mode=foreground.mode, pause_after=manner.pause_after)
        ladder = foreground.ladder(header.request, back_end)
        finished = foreground.play(header, turn, journal, ladder)
        if records is not None:
            foreground.settle(records, journal)
        return finished.end.exit_code


def _journal(
    header: Header, records: Records | None, foreground: Foreground, *, new: bool
) -> Journal:
    """Return the new reply's journal; the reply goes on without one where none can be made."""
    if records is None:
        return NoJournal()
    try:
        return records.begin(header, foreground.on_broken_journal, new=new)
    except OSError as error:
        foreground.on_broken_journal(error)
        return NoJournal()


def _before(ask: Ask, records: Records | None) -> Conversation:
    """Return the conversation so far, its unfinished reply kept or dropped as asked."""
    if ask.conversation is None:
        return Conversation(new_id("c"), ())
    if records is None:
        raise UsageError("A conversation is in the store.", "Leave out --no-store.")
    before = records.conversation(ask.conversation)
    if before.unfinished is None or ask.unfinished is Unfinished.REFUSE:
        return before
    if before.unfinished.pid is not None:
        raise JournalBusy(before.unfinished.generation, before.unfinished.pid)
    if ask.unfinished is Unfinished.KEEP:
        records.keep(before.unfinished.generation)
    else:
        records.drop(before.unfinished.generation)
    return records.conversation(ask.conversation)


def _header(ask: Ask, before: Conversation, back_end: BackEnd, config: Config) -> Header:
    model = ask.selection.model
    request = request_of(ask.prompt, before.messages, ask.system, model, ask.options)
    return Header(
        generation=new_id("g"),
        conversation=before.id,
        created=time.time(),
        request=seeded(request, back_end),
        history=len(before.messages),
        target=target_of(ask.selection, config),
        markers=ask.markers,
        command="run",
    )
