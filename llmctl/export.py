"""A conversation as text: Markdown for people, JSON and JSON lines for programs.

Each message has a number (``id``) and that of the message before it (``parent``), so that
nothing of its branches is lost: those that are not on the way to the last message follow
behind it, in JSON as ``branches``, in JSON lines with ``branch`` true, in Markdown under a
heading that says where they begin.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from llmctl.events import Position
from llmctl.records import Conversation, InFlight
from llmctl.replies import content_of
from llmctl.talk import at
from llmctl.tree import Node, nodes

FORMS = ("markdown", "json", "jsonl")


def exported(conversation: Conversation, form: str) -> str:
    """Return a conversation in one of `FORMS`; text ends with a newline."""
    everything = nodes(conversation)
    line = [_message(node, conversation) for node in everything if node.on_line]
    branches = [_message(node, conversation) for node in everything if not node.on_line]
    match form:
        case "json":
            whole = {"id": conversation.id, "messages": line, "branches": branches}
            return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
        case "jsonl":
            rows = [*line, *({**message, "branch": True} for message in branches)]
            return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        case _:
            return "\n".join([*map(_section, line), *_branch_sections(branches)])


def _message(node: Node, conversation: Conversation) -> dict[str, Any]:
    stored = node.message
    message: dict[str, Any] = {"id": node.number, "parent": node.parent}
    message |= {"role": stored.role, "content": stored.content}
    if stored.reply is not None:
        message |= {"generation": stored.generation, **stored.reply}
    elif node.reply is not None and conversation.unfinished is not None:
        message |= _unfinished(conversation.unfinished)
    return message


def _unfinished(reply: InFlight) -> dict[str, Any]:
    """Return what there is to say of a reply in flight."""
    recorded = reply.recorded
    header, end = recorded.header, recorded.end
    content, reasoning = content_of(recorded)
    status, cause = (end.status, end.cause) if end else ("interrupted", "killed")
    if reply.pid is not None:
        status, cause = "live", f"pid {reply.pid}"
    return {
        "generation": header.generation,
        "model": header.request.model,
        "status": str(status),
        "cause": cause,
        "chars": len(content),
        "tokens": recorded.mark.position.tokens,
        "reasoning": reasoning,
        "resumable": reply.pid is None,
    }


def _section(message: dict[str, Any]) -> str:
    heading = f"## {message['role']}"
    status = message.get("status", "complete")
    if status != "complete":
        where = at(Position(message["chars"], message["tokens"]))
        heading += f" ({status}: {message['cause']}, at {where})"
    return f"{heading}\n\n{message['content']}\n"


def _branch_sections(branches: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the messages of branches, each branch under a heading of its own."""
    before = None
    for message in branches:
        if message["parent"] != before or before is None:
            place = "the beginning" if message["parent"] is None else f"message {message['parent']}"
            yield f"# Branch behind {place}\n"
        yield _section(message)
        before = message["id"]
