"""The events of a streamed completion, of a chat or of tokens, made into chunks. Pure.

`ReplyReader` takes the decoded events in order and says what the model wrote (choice 0
only), how the reply ended, and what the server counted. It is lenient about what servers
leave out and strict about the one thing that matters: a reply has ended when the server
said so (a ``finish_reason``, or ``[DONE]``), and not otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jiter

from llmctl.backends.surrogates import SurrogateJoiner
from llmctl.backends.token_counts import TokenCounter
from llmctl.events import Channel, Chunk, Usage

_DONE = "[DONE]"
_CONTEXT_FULL = {"model_length", "model_context_window_exceeded"}


class ErrorEvent(Exception):
    """The server sent an error inside the stream.

    Args:
        body: the error as it sent it.
    """

    def __init__(self, body: object) -> None:
        super().__init__("error event")
        self.body = body


class ReplyReader:
    """Reads the events of one reply.

    Attributes:
        finish_reason: the server's word for the end, as soon as it was said.
        usage: the server's accounting, as soon as it was sent.
        prompt_ids: the tokens of the prompt, as soon as they were sent.
        done: nothing more will come.
        moved: it is read from its beginning, or has gone on behind what was read before.
        gap: what came does not follow what was read before.
    """

    def __init__(self, counter: TokenCounter) -> None:
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.prompt_ids: tuple[int, ...] | None = None
        self.done = False
        self.moved = True
        self.gap = False
        self._counter = counter
        self._joiners = {channel: SurrogateJoiner() for channel in Channel}

    @property
    def ended(self) -> bool:
        """Whether the server said that the reply is at its end."""
        return self.done or self.finish_reason is not None

    def read(self, data: str, kind: str = "message") -> list[Chunk]:
        """Return what one event adds to the reply.

        Args:
            data: the event's data.
            kind: the event's type; some servers call an error one.

        Raises:
            ErrorEvent: the event is an error.
            ValueError: the data is not a JSON object of the protocol.
        """
        if data == _DONE:
            self.done = True
            return []
        try:
            return self._event(_parsed(data), kind)
        except (AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ValueError("JSON of another shape") from error

    def last(self) -> Iterator[Chunk]:
        """Yield what ends the reply: half a character left over, and the end itself."""
        for channel, joiner in self._joiners.items():
            if text := joiner.flush():
                yield Chunk(text, channel)
        yield Chunk(
            finish_reason=self.finish_reason or "stop",
            context_full=self.finish_reason in _CONTEXT_FULL,
            usage=self.usage,
        )

    def _event(self, event: Mapping[str, Any], kind: str) -> list[Chunk]:
        if usage := event.get("usage"):
            self.usage = _usage(usage)
        if kind == "error" or event.get("error"):
            raise ErrorEvent(event.get("error") or event)
        self._note_prompt(event)
        chunks: list[Chunk] = []
        for choice in event.get("choices") or ():
            if not choice.get("index"):
                self._choice(choice, event, chunks)
        return chunks

    def _note_prompt(self, told: Mapping[str, Any]) -> None:
        if (ids := told.get("prompt_token_ids")) is not None:
            self.prompt_ids = tuple(ids)

    def _choice(
        self, choice: Mapping[str, Any], event: Mapping[str, Any], chunks: list[Chunk]
    ) -> None:
        self._note_prompt(choice)
        delta = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        content: Any = delta.get("content") or delta.get("refusal") or ""
        reasoning: Any = delta.get("reasoning_content") or delta.get("reasoning") or ""
        if not isinstance(content, str):
            content, reasoning = _parts(content, "text"), _parts(content, "thinking")
        if reasoning:
            self._counter.reasoning()
            if text := self._joiners[Channel.REASONING].join(reasoning):
                chunks.append(Chunk(text, Channel.REASONING))
        text = self._joiners[Channel.CONTENT].join(content)
        counted = self._counter.count(text, choice, event)
        if text:
            chunks.append(Chunk(text, Channel.CONTENT, *counted))


def _parsed(data: str) -> Any:  # noqa: ANN401  (any JSON)
    """Return what JSON says; what the quick parser refuses may be half of a surrogate pair.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return jiter.from_json(data.encode("utf-8", "surrogatepass"))
    except ValueError:
        return json.loads(data)


def _parts(parts: Iterable[Mapping[str, Any]], kind: str) -> str:
    """Return the text of one kind of parts, which may have parts themselves (Mistral)."""
    values = [part[kind] for part in parts if part["type"] == kind]
    return "".join(v if isinstance(v, str) else _parts(v, "text") for v in values)


def _usage(usage: Mapping[str, Any]) -> Usage:
    return Usage(
        usage.get("prompt_tokens"), usage.get("completion_tokens"), usage.get("total_tokens")
    )
