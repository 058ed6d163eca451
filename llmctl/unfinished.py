"""Going on with an unfinished reply: what ``llmctl resume`` does."""

from __future__ import annotations

from collections.abc import Mapping

from llmctl.backends.choose import Unavailable
from llmctl.config import Config
from llmctl.conversation import Request
from llmctl.environment import Environment
from llmctl.errors import UsageError
from llmctl.events import Action, End, Mode
from llmctl.foreground import Foreground, Manner
from llmctl.journal import Journal, JournalBusy, Recorded
from llmctl.records import InFlight, Records
from llmctl.store import StoredMessage
from llmctl.targets import selection_of
from llmctl.turn import Phase, Turn

HALF_A_CHARACTER = 3
"""Tokens that it has at most: a character has four bytes in UTF-8."""


def resume(
    id_: str | None,
    manner: Manner,
    config: Config,
    env: Environment,
    *,
    max_tokens: int | None = None,
) -> int:
    """Go on with an unfinished reply and return the exit status.

    Args:
        id_: a generation's or conversation's id or unique prefix; None means the newest.
        manner: how it is run.
        config: the settings in force.
        env: the process.
        max_tokens: a new bound on the whole reply, or for one that reached the old, on what
            it gets on top.

    Raises:
        UsageError: there is no such reply, or it can't be gone on with.
        JournalBusy: it is live in another process.
    """
    with Records(env.data) as records:
        reply = _newest(records) if id_ is None else _named(id_, records)
        if reply is None:
            return _complete(str(id_), manner, config, env, records)
        with Foreground(env, manner, config) as foreground:
            journal, recorded = records.take(reply.generation, foreground.on_broken_journal)
            try:
                return _go_on(journal, recorded, foreground, max_tokens)
            finally:
                foreground.settle(records, journal)


def _go_on(
    journal: Journal, recorded: Recorded, foreground: Foreground, max_tokens: int | None
) -> int:
    header, manner = recorded.header, foreground.manner
    request = request_to_go_on_with(recorded, journal, max_tokens)
    turn = turn_to_go_on_with(
        recorded,
        header.markers if manner.markers is None else manner.markers,
        mode=foreground.mode,
        pause_after=manner.pause_after,
        bound=request.options.max_tokens,
    )
    selection = selection_of(header.target, foreground.config, foreground.env)
    is_here = turn.received.finished or turn.phase is Phase.ENDED
    back_end = Unavailable() if is_here else foreground.back_end(selection, stored=True)
    ladder = foreground.ladder(request, back_end)
    ladder.conditions, ladder.saved = recorded.conditions, recorded.saved
    ladder.guarantee = recorded.guarantee
    foreground.warn_about(recorded)
    return foreground.play(header, turn, journal, ladder, recorded).end.exit_code


def request_to_go_on_with(
    recorded: Recorded, journal: Journal, max_tokens: int | None = None
) -> Request:
    """Return the request with the bound that holds from now on.

    Args:
        recorded: the reply; one that reached its bound is made ready to go on behind it.
        journal: where a new bound is written down.
        max_tokens: the bound on the whole reply; for one that reached its bound, what it
            is granted on top of what there is. None: what there is, or as much once more.
    """
    request = recorded.header.request
    first = request.options.max_tokens
    bound = recorded.bound or first
    if recorded.end is End.TOKEN_LIMIT:
        grant = max_tokens or first
        bound = None if grant is None else _reached(recorded.spent, bound) + grant
    elif max_tokens is not None:
        bound = max_tokens
    if max_tokens is not None or recorded.end is End.TOKEN_LIMIT:
        journal.bound(bound)
        recorded.raise_bound(bound)
    return request.with_options(max_tokens=bound)


def turn_to_go_on_with(
    recorded: Recorded,
    markers: Mapping[str, Action],
    *,
    mode: Mode,
    bound: int | None,
    pause_after: int | None = None,
) -> Turn:
    """Return a reply as it stands; where a marker ended it and nobody noted that, it has ended.

    Args:
        recorded: the reply.
        markers: what to listen for from here on.
        mode: what a pause by marker or limit does to the generation.
        bound: on the whole reply, in tokens.
        pause_after: how many more tokens may be delivered.
    """
    turn = Turn(markers, mode=mode, pause_after=pause_after, bound=bound, mark=recorded.mark)
    for chunk in recorded.chunks:
        turn.receive(chunk)
    if recorded.stopped:
        turn.stop(End.STOPPED_BY_MARKER)
    return turn


def _reached(spent: int, bound: int | None) -> int:
    """Return where a reply reached its bound; the half of a character there is in no text.

    Counted, it gives each grant more room than the last, until the character fits.
    """
    if bound is not None and spent < bound <= spent + HALF_A_CHARACTER:
        return bound
    return spent


def _newest(records: Records) -> InFlight:
    for reply in records.in_flight():
        if reply.pid is None and reply.recorded.header.command in {"run", "chat"}:
            return reply
    raise UsageError("No reply is unfinished.", "'llmctl run' begins one.")


def _named(id_: str, records: Records) -> InFlight | None:
    """Return the unfinished reply an id stands for; None if that reply is complete.

    Raises:
        UsageError: it is neither, or not the last of its conversation any more.
        JournalBusy: it is live in another process.
    """
    conversation, generation = records.find_reply(id_)
    here = records.conversation(conversation)
    if here.unfinished is not None and generation in {None, here.unfinished.generation}:
        if here.unfinished.pid is not None:
            raise JournalBusy(here.unfinished.generation, here.unfinished.pid)
        return here.unfinished
    asked = _asked(records, conversation, generation)
    if asked is None or asked.reply is None:
        raise UsageError(f"'{id_}' has no reply.", "'llmctl resume --list' shows the unfinished.")
    if asked.reply["status"] == "complete":
        return None
    if here.unfinished is not None or asked.id != here.messages[-1].id:
        raise UsageError(
            f"Reply {asked.generation} is no longer the last of its conversation.",
            f"Branch off with 'llmctl conversations fork {asked.generation}'.",
        )
    raise UsageError(
        f"Reply {asked.generation} can't be gone on with: {asked.reply['cause']}.",
        "Ask again: 'llmctl conversations show' has the question.",
    )


def _complete(id_: str, manner: Manner, config: Config, env: Environment, records: Records) -> int:
    """The reply is complete: print nothing, or all of it; with ``--json`` say that it is."""
    conversation, generation = records.find_reply(id_)
    asked = _asked(records, conversation, generation)
    assert asked is not None  # noqa: S101  (`_named` saw it)
    with Foreground(env, manner, config) as foreground:
        return foreground.show_ended(conversation, asked).exit_code


def _asked(records: Records, conversation: str, generation: str | None) -> StoredMessage | None:
    """Return the reply that is meant, of any branch; without an id the last one."""
    whole = records.whole(conversation)
    if generation is None:
        return whole.messages[-1] if whole.messages else None
    both = (*whole.messages, *whole.branches)
    return next((message for message in both if message.generation == generation), None)
