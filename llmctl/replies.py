"""A reply that a journal or the store has, in the forms in which others need it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from llmctl.conversation import Options, Request
from llmctl.events import Action, Channel, Chunk, End, Timing
from llmctl.journal import Header, Journal, Recorded
from llmctl.store import Reply, StoredMessage
from llmctl.turn import Mark


def content_of(recorded: Recorded) -> tuple[str, str]:
    """Return the delivered content and reasoning, markers removed."""
    text = "".join(c.text for c in recorded.chunks if c.channel == "content")
    reasoning = "".join(c.text for c in recorded.chunks if c.channel == "reasoning")
    text = text[: recorded.mark.model]
    markers = [(found["end"], len(found["marker"])) for found in recorded.markers_found]
    for end, length in reversed(markers):
        text = text[: end - length] + text[end:]
    return text, reasoning[: recorded.mark.reasoning]


def said(recorded: Recorded) -> list[StoredMessage]:
    """Return the messages of a reply in flight as if it had ended."""
    header = recorded.header
    new = header.request.messages[header.history :]
    asked = [StoredMessage(None, m.role, m.content, header.created, None, None) for m in new]
    answer = content_of(recorded)[0]
    return [*asked, StoredMessage(None, "assistant", answer, recorded.updated, None, None)]


def as_reply(recorded: Recorded, ended: float) -> Reply:
    """Return what the store keeps of a reply that has ended for good."""
    header, end = recorded.header, recorded.end or End.SIGTERM
    content, reasoning = content_of(recorded)
    usage = next((c.usage for c in reversed(recorded.chunks) if c.usage), None)
    return Reply(
        generation=header.generation,
        conversation=header.conversation,
        created=header.created,
        ended=ended,
        history=header.history,
        messages=header.request.messages,
        content=content,
        reasoning=reasoning,
        model=header.request.model,
        status=str(end.status),
        cause=end.cause,
        guarantee=str(recorded.guarantee) if recorded.resumes else None,
        tokens=recorded.mark.position.tokens,
        details={
            "finish_reason": next((c.finish_reason for c in recorded.chunks[-1:]), None),
            "usage": usage.as_json() if usage else None,
            "timings": recorded.timings,
            "resumes": recorded.resumes,
            "markers": recorded.markers_found,
            "options": header.request.as_json()["options"],
            "target": dict(header.target),
            "listens": {text: str(action) for text, action in header.markers.items()},
        },
        parent=header.parent,
    )


@dataclass(frozen=True, slots=True)
class Partial:
    """A reply that is not complete, to be gone on with in another conversation.

    Attributes:
        model: the model's name.
        asked: the messages of its own turn, its question the last of them.
        text: what there is of it, without markers.
        reasoning: the reasoning before it.
        end: how it ended.
        options: the generation options.
        target: how to reach the back end again.
        markers: the texts that act.
    """

    model: str
    asked: tuple[StoredMessage, ...]
    text: str
    reasoning: str
    end: End
    options: Options
    target: Mapping[str, Any]
    markers: Mapping[str, Action]

    @classmethod
    def stored(cls, question: StoredMessage, answer: StoredMessage) -> Self | None:
        """Return what the store has of one; None if it can't be gone on with."""
        reply = answer.reply or {}
        ends = (end for end in End if (end.status, end.cause) == (reply["status"], reply["cause"]))
        end = next(ends, End.COMPLETE)
        if not end.resumable:
            return None
        return cls(
            model=reply["model"],
            asked=(question,),
            text=answer.content,
            reasoning=reply["reasoning"],
            end=end,
            options=Options.from_json(reply["options"]),
            target=reply["target"],
            markers={text: Action(name) for text, name in reply.get("listens", {}).items()},
        )

    def header(
        self, conversation: str, generation: str, now: float, before: Sequence[StoredMessage]
    ) -> Header:
        """Return what its reply is in another conversation, behind the messages there."""
        messages = tuple(message.as_message() for message in (*before, *self.asked))
        return Header(
            generation=generation,
            conversation=conversation,
            created=now,
            request=Request(self.model, messages, self.options),
            history=len(before),
            target=self.target,
            markers=self.markers,
            command="chat",
        )

    def write(self, journal: Journal) -> None:
        """Write down what there is of it."""
        if self.reasoning:
            journal.received(Chunk(self.reasoning, Channel.REASONING))
            journal.delivered(Mark(reasoning=len(self.reasoning)))
        journal.rewritten(self.text)
        journal.ended(self.end, Timing(None, 0.0, 0.0, None), resumable=True)


def partial_of(recorded: Recorded) -> Partial:
    """Return what a journal has of an unfinished reply."""
    header = recorded.header
    text, reasoning = content_of(recorded)
    return Partial(
        model=header.request.model,
        asked=tuple(said(recorded)[:-1]),
        text=text,
        reasoning=reasoning,
        end=recorded.end or End.SIGTERM,
        options=header.request.options,
        target=header.target,
        markers=header.markers,
    )


def without_partial(
    line: Sequence[StoredMessage],
) -> tuple[Sequence[StoredMessage], Partial | None]:
    """Split messages into those before a last reply that is not complete, and that reply."""
    match line:
        case [*before, question, answer] if answer.reply is not None:
            partial = Partial.stored(question, answer)
            return (line, None) if partial is None else (before, partial)
        case _:
            return line, None
