"""The branches of a conversation: its messages numbered, and drawn as a tree. Pure.

::

    1 user: Tell me a story
    ├─ 2 assistant: Once upon a time …   g1a2b3, interrupted
    └─ 3 assistant: There was …          g4c5d6
       4 user: Go on
       5 assistant: And so …             g7e8f9  ← here

A number stands for a message of one conversation: they are counted in the order in which
they were kept, and an unfinished reply comes last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from llmctl.images import in_short
from llmctl.records import Conversation
from llmctl.replies import said
from llmctl.store import StoredMessage

EXCERPT = 56
"""Characters of a message in the drawing."""

_HERE = "← here"


@dataclass(frozen=True, slots=True)
class Node:
    """One message of a conversation.

    Attributes:
        number: its number, from 1.
        parent: the number of the message before it; None for a first one.
        message: what was said.
        on_line: it is on the way that a new message goes on.
        reply: the reply's id; None if it is none.
    """

    number: int
    parent: int | None
    message: StoredMessage
    on_line: bool
    reply: str | None


def nodes(conversation: Conversation) -> list[Node]:
    """Return all messages of a conversation that `Records.whole` has read, numbered."""
    stored = sorted((*conversation.messages, *conversation.branches), key=lambda m: m.id or 0)
    numbers = {message.id: number for number, message in enumerate(stored, 1)}
    line = {message.id for message in conversation.messages}
    found = [
        Node(numbers[m.id], numbers.get(m.parent), m, m.id in line, m.generation) for m in stored
    ]
    last = numbers[conversation.messages[-1].id] if conversation.messages else None
    unfinished = conversation.unfinished
    for message in said(unfinished.recorded) if unfinished else ():
        reply = unfinished.generation if unfinished and message.role == "assistant" else None
        found.append(Node(len(found) + 1, last, message, on_line=True, reply=reply))
        last = len(found)
    return found


def drawn(conversation: Conversation) -> Iterator[str]:
    """Yield the lines of the drawing."""
    children: dict[int | None, list[Node]] = defaultdict(list)
    last = 0
    for node in nodes(conversation):
        children[node.parent].append(node)
        last = node.number if node.on_line else last
    waiting = _forked(children[None], "")
    while waiting:
        node, first, lead = waiting.pop()
        yield first + _line(node) + (f"  {_HERE}" if node.number == last else "")
        waiting += _forked(children[node.number], lead)


def _forked(nodes: list[Node], lead: str) -> list[tuple[Node, str, str]]:
    """Return messages with what leads their line and those below, the first one last."""
    if len(nodes) == 1:
        return [(nodes[0], lead, lead)]
    others = [(node, f"{lead}├─ ", f"{lead}│  ") for node in nodes[:-1]]
    last = [(node, f"{lead}└─ ", f"{lead}   ") for node in nodes[-1:]]
    return [*last, *reversed(others)]


def _line(node: Node) -> str:
    message = node.message
    words = " ".join(in_short(message.content).split())
    excerpt = words if len(words) <= EXCERPT else words[: EXCERPT - 1] + "…"
    return f"{node.number} {message.role}: {excerpt}{_note(node)}"


def _note(node: Node) -> str:
    if node.reply is None:
        return ""
    status = "unfinished" if node.message.reply is None else node.message.reply["status"]
    return f"  {node.reply}" + ("" if status == "complete" else f", {status}")
