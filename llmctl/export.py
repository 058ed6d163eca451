"""A conversation as text: Markdown for people, JSON and JSON lines for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from llmctl.events import Position
from llmctl.records import Conversation, content_of
from llmctl.talk import at

FORMS = ("markdown", "json", "jsonl")


def exported(conversation: Conversation, form: str) -> str:
    """Return a conversation in one of `FORMS`; text ends with a newline."""
    messages = list(_messages(conversation))
    match form:
        case "json":
            whole = {"id": conversation.id, "messages": messages}
            return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
        case "jsonl":
            return "".join(json.dumps(m, ensure_ascii=False) + "\n" for m in messages)
        case _:
            return "\n".join(_section(message) for message in messages)


def _messages(conversation: Conversation) -> Iterator[dict[str, Any]]:
    for stored in conversation.messages:
        message: dict[str, Any] = {"role": stored.role, "content": stored.content}
        if stored.reply is not None:
            message |= {"generation": stored.generation, **stored.reply}
        yield message
    if conversation.unfinished is not None:
        yield from _unfinished(conversation)


def _unfinished(conversation: Conversation) -> Iterator[dict[str, Any]]:
    assert conversation.unfinished is not None  # noqa: S101  (its caller looked)
    recorded = conversation.unfinished.recorded
    header, end = recorded.header, recorded.end
    for message in header.request.messages[header.history :]:
        yield {"role": message.role, "content": message.content}
    content, reasoning = content_of(recorded)
    yield {
        "role": "assistant",
        "content": content,
        "generation": header.generation,
        "model": header.request.model,
        "status": str(end.status) if end else "interrupted",
        "cause": end.cause if end else "killed",
        "chars": len(content),
        "tokens": recorded.mark.position.tokens,
        "reasoning": reasoning,
        "resumable": True,
    }


def _section(message: dict[str, Any]) -> str:
    heading = f"## {message['role']}"
    status = message.get("status", "complete")
    if status != "complete":
        where = at(Position(message["chars"], message["tokens"]))
        heading += f" ({status}: {message['cause']}, at {where})"
    return f"{heading}\n\n{message['content']}\n"
