"""The events of one reply of a batch: chunks for the session, and the object folded from them.

Three protocols are read here: chat completions, completions, and responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jiter

from llmctl.backends.chat_reply import ReplyReader
from llmctl.backends.fold import Fold
from llmctl.backends.responses_reader import ResponsesReader
from llmctl.backends.token_counts import TokenCounter
from llmctl.events import Channel, Chunk, Cursor

_TICK = Chunk(channel=Channel.REASONING, tokens=1)
"""Stands for a sign of life that is not text (part of a tool call)."""

_QUICK_EVENT = {"id", "object", "created", "model", "service_tier", "system_fingerprint",
                "provider", "choices", "usage", "obfuscation"}  # fmt: skip
_QUICK_CHOICE = {"index", "delta", "logprobs", "finish_reason", "native_finish_reason",
                 "stop_reason"}  # fmt: skip


class RowReader(ReplyReader):
    """Reads chat completions and completions.

    Attributes:
        fold: what the stream adds up to.

    Args:
        counter: counts the tokens of the first choice.
        choices: how many choices the reply has.
        ids: the row itself asks for token ids.
    """

    def __init__(self, counter: TokenCounter, *, choices: int = 1, ids: bool = False) -> None:
        super().__init__(counter)
        self.fold = Fold(ids=ids)
        self._expected = choices
        self._slow = choices > 1

    @property
    def ended(self) -> bool:
        """Whether the server said that every choice is at its end."""
        return self.done or (
            self.finish_reason is not None and self.fold.finished >= self._expected
        )

    def quick(self, data: str) -> str | None:
        """Return the text of an event that is nothing but that; None if it has to be `read`.

        Most events are: one choice, some content, nothing counted. What a look at them must
        not miss (halves of characters, ids, totals) sends the rest of the stream the long way.
        """
        if self._slow:
            return None
        try:
            event = jiter.from_json(data.encode())
            (choice,) = event["choices"]
            delta = choice["delta"]
            text = delta["content"]
        except (ValueError, KeyError, TypeError):
            return None
        plain = (
            _QUICK_EVENT.issuperset(event)
            and _QUICK_CHOICE.issuperset(choice)
            and len(delta) == 1
            and choice["index"] == 0
            and choice.get("finish_reason") is None
            and choice.get("logprobs") is None
            and event.get("usage") is None
        )
        return text if plain and isinstance(text, str) else None

    def read(self, data: str, kind: str = "message") -> list[Chunk]:
        """Return what one event adds; see `ReplyReader.read`."""
        chunks = super().read(data, kind)
        halved = any(joiner.waits for joiner in self._joiners.values())
        self._slow |= halved or any(chunk.tokens is not None for chunk in chunks)
        return chunks

    def _event(self, event: Mapping[str, Any], kind: str) -> list[Chunk]:
        chunks = super()._event(event, kind)
        self.fold.add(event)
        if not chunks and any(map(_is_elsewhere, event.get("choices") or ())):
            chunks.append(_TICK)
        return chunks

    def _choice(
        self, choice: Mapping[str, Any], event: Mapping[str, Any], chunks: list[Chunk]
    ) -> None:
        if "text" in choice:
            choice = {**choice, "delta": {"content": choice["text"]}}
        super()._choice(choice, event, chunks)


def _is_elsewhere(choice: Mapping[str, Any]) -> bool:
    """Say whether something was generated that is not the first choice's text."""
    return bool(choice.get("index") or (choice.get("delta") or {}).get("tool_calls"))


class ResponsesRowReader(ResponsesReader):
    """Reads responses.

    Attributes:
        fold: what the server itself sent at the end.

    Args:
        bound: how long the whole reply may get, in tokens.
        cursor: the event that a stored response is read on from.
    """

    def __init__(self, *, bound: int | None = None, cursor: Cursor | None = None) -> None:
        super().__init__(bound=bound, cursor=cursor, said=cursor is not None)
        self.fold = Fold()

    def quick(self, data: str) -> None:
        """Return None: every event has to be read."""

    def _event(self, event: Mapping[str, Any], kind: str) -> list[Chunk]:
        chunks = super()._event(event, kind)
        if chunks or self.done:
            return chunks
        half = any(joiner.waits for joiner in self._joiners.values())
        return [_TICK._replace(cursor=None if half else self.cursor)]

    def _end(self, response: Mapping[str, Any]) -> None:
        super()._end(response)
        self.fold.add_whole(response)
