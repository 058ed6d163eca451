"""``llmctl conversations``: what is remembered."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.invocation import here, new_app, show_text
from llmctl.errors import UsageError

if TYPE_CHECKING:
    from llmctl.environment import Environment
    from llmctl.records import Conversation, InFlight
    from llmctl.run import Unfinished

app = new_app(no_args_is_help=True, help="List, show, export and delete conversations.")

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="A conversation, or a unique prefix.")]


@app.command("list")
def list_(
    context: typer.Context,
    *,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Only those without activity for this long."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the conversations, the newest activity first."""
    from llmctl.records import Records  # noqa: PLC0415  (start-up)

    env = here(context).env
    with Records(env.data) as records:
        rows = records.conversations()
    if older_than is not None:
        rows = _older(rows, older_than)
    if as_json:
        env.say(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        mark = "  (unfinished)" if row["unfinished"] else ""
        _say(env, f"{row['id']}  {_when(row['updated'])}  {row['title']}{mark}")


@app.command()
def show(
    context: typer.Context,
    id_: Id,
    *,
    tree: Annotated[
        bool, typer.Option("--tree", help="Draw its branches instead, a line a message.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a conversation's messages."""
    env = here(context).env
    if as_json or not tree:
        _export(env, id_, "json" if as_json else "markdown")
    else:
        _draw(env, id_)


@app.command()
def export(
    context: typer.Context,
    id_: Id,
    form: Annotated[
        str, typer.Option("--format", metavar="FORM", help="markdown, json or jsonl.")
    ] = "markdown",
) -> None:
    """Write a conversation to stdout as Markdown, JSON or JSON lines."""
    _export(here(context).env, id_, form)


@app.command()
def search(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="WORD", help="All must occur, in any case.")
    ],
    *,
    as_json: AsJson = False,
) -> int:
    """Find messages by their words, or parts of words; exit 1 if there are none."""
    from llmctl.records import Records  # noqa: PLC0415  (start-up)

    env = here(context).env
    with Records(env.data) as records:
        found = records.search(words)
    if as_json:
        env.say(json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False))
    else:
        for one in found:
            excerpt = " ".join(one.excerpt.split())
            _say(env, f"{one.conversation}  {_when(one.created)}  {one.role}: {excerpt}")
    return 0 if found else 1


@app.command()
def fork(
    context: typer.Context,
    id_: Id,
    *,
    at: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="End with message N of 'show --tree', a reply."),
    ] = None,
) -> None:
    """Begin a new conversation with what was said in another; print its id.

    ID may be a reply's, of any branch: the new conversation then ends with it. 'llmctl resume'
    goes on with a last reply that is not complete.
    """
    from llmctl.records import Records  # noqa: PLC0415  (start-up)

    env = here(context).env
    with Records(env.data) as records:
        conversation, generation = records.find_reply(id_)
        if at is not None:
            generation = _reply_at(records.whole(conversation), at)
        env.say(records.fork(conversation, generation))


@app.command()
def delete(
    context: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID")] = None,
    *,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Delete all without activity for this long."),
    ] = None,
) -> None:
    """Delete conversations for good, their unfinished replies too."""
    from llmctl.records import Records  # noqa: PLC0415  (start-up)

    env = here(context).env
    if ids and older_than is not None:
        raise UsageError("Conversations are named, or --older-than.", "Leave one of them out.")
    if not ids and older_than is None:
        hint = "'llmctl conversations list' shows their ids."
        raise UsageError("Name conversations, or give --older-than.", hint)
    with Records(env.data) as records:
        doomed = [records.find(id_) for id_ in ids or ()]
        if older_than is not None:
            doomed = [str(row["id"]) for row in _older(records.conversations(), older_than)]
        for conversation in doomed:
            records.delete(conversation)
            env.note(f"deleted {conversation}")


def chosen_conversation(
    env: Environment, *, last: bool, id_: str | None, may_be_new: bool = False
) -> str | None:
    """Return the conversation that ``-c`` or ``--conversation`` means; None for a new one.

    Args:
        env: the process.
        last: ``-c`` was given.
        id_: what ``--conversation`` was given.
        may_be_new: ``-c`` begins a conversation where there is none.

    Raises:
        UsageError: there is none, or both are given.
    """
    from llmctl.records import Records  # noqa: PLC0415  (start-up)

    if not last and id_ is None:
        return None
    if last and id_ is not None:
        hint = "-c takes the newest, --conversation the one you name."
        raise UsageError("-c and --conversation exclude each other.", hint)
    with Records(env.data) as records:
        found = records.find(id_) if id_ is not None else records.newest_conversation()
    if found is None and not may_be_new:
        raise UsageError("There is no conversation yet.", "Leave out -c to begin one.")
    return found


def unfinished_choice(*, keep: bool, drop: bool) -> Unfinished:
    """Return what ``--keep`` and ``--drop`` say about an unfinished last reply.

    Raises:
        UsageError: both are given.
    """
    from llmctl.run import Unfinished  # noqa: PLC0415  (start-up)

    if keep and drop:
        hint = "--keep leaves the unfinished reply as it is, --drop forgets it."
        raise UsageError("--keep and --drop exclude each other.", hint)
    if keep:
        return Unfinished.KEEP
    return Unfinished.DROP if drop else Unfinished.REFUSE


def list_unfinished(env: Environment, *, as_json: bool) -> int:
    """List the unfinished replies, the newest activity first."""
    from llmctl.events import Position  # noqa: PLC0415  (start-up)
    from llmctl.records import Records  # noqa: PLC0415
    from llmctl.talk import at  # noqa: PLC0415

    with Records(env.data) as records:
        rows = [_unfinished_row(reply) for reply in records.in_flight()]
    if as_json:
        env.say(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    for row in rows:
        place = at(Position(**row["position"]))
        state = f"live (pid {row['pid']})" if row["pid"] else row["cause"]
        _say(env, f"{row['generation']}  {_when(row['updated'])}  {place}, {state}  {row['title']}")
    return 0


def _unfinished_row(reply: InFlight) -> dict[str, Any]:
    from llmctl.store import title_of  # noqa: PLC0415  (start-up)

    end = reply.recorded.end
    return {
        "generation": reply.generation,
        "conversation": reply.conversation,
        "title": title_of(reply.recorded.header.request.messages),
        "updated": reply.recorded.updated,
        "position": reply.position.as_json(),
        "cause": end.cause if end else "killed",
        "pid": reply.pid,
    }


def _export(env: Environment, id_: str, form: str) -> None:
    from llmctl.export import FORMS, exported  # noqa: PLC0415  (start-up)
    from llmctl.records import Records  # noqa: PLC0415

    if form not in FORMS:
        hint = f"Without --format it is {FORMS[0]}."
        raise UsageError(f"--format is one of {', '.join(FORMS)}, not '{form}'.", hint)
    with Records(env.data) as records:
        conversation = records.whole(records.find(id_))
    show_text(env, exported(conversation, form))


def _draw(env: Environment, id_: str) -> None:
    from llmctl.records import Records  # noqa: PLC0415  (start-up)
    from llmctl.tree import drawn  # noqa: PLC0415

    with Records(env.data) as records:
        conversation = records.whole(records.find(id_))
    for line in drawn(conversation):
        _say(env, line)


def _reply_at(conversation: Conversation, number: int) -> str:
    """Return the id of the reply that is message ``number``.

    Raises:
        UsageError: there is no such message, or it is no reply.
    """
    from llmctl.tree import nodes  # noqa: PLC0415  (start-up)

    found = next((node for node in nodes(conversation) if node.number == number), None)
    draw = f"See 'llmctl conversations show --tree {conversation.id}'."
    if found is None:
        raise UsageError(f"Conversation {conversation.id} has no message {number}.", draw)
    if found.reply is None:
        before = f"The message before it is {found.parent}." if found.parent else draw
        raise UsageError(f"Message {number} is no reply.", before)
    return found.reply


def _older(rows: list[dict[str, object]], duration: str) -> list[dict[str, object]]:
    from llmctl.durations import parse_duration  # noqa: PLC0415  (start-up)

    limit = time.time() - parse_duration(duration)
    return [row for row in rows if float(str(row["updated"])) < limit]


def _say(env: Environment, line: str) -> None:
    show_text(env, line + "\n")


def _when(seconds: object) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(float(str(seconds))))
