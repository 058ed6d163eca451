"""The events of a streamed response, made into chunks. Pure.

Each event carries a ``sequence_number``. Where the server says that it generates in the
background and stores what comes, these numbers are places to read on from, and they are
held to what they promise: an event that was had already is passed over, and a missing one
breaks the stream off before anything behind the gap is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmctl.backends.chat_reply import ErrorEvent, ReplyReader
from llmctl.backends.surrogates import well_formed
from llmctl.backends.token_counts import TokenCounter
from llmctl.events import Channel, Chunk, Cursor, Usage

_CHANNELS = {
    "response.output_text.delta": Channel.CONTENT,
    "response.refusal.delta": Channel.CONTENT,
    "response.reasoning_text.delta": Channel.REASONING,
    "response.reasoning_summary_text.delta": Channel.REASONING,
}
_BEGUN = {"response.created", "response.queued", "response.in_progress"}
_ENDED = {"response.completed", "response.incomplete"}


class ResponsesReader(ReplyReader):
    """Reads the events of one response.

    Attributes:
        cursor: the last event of a run that the server keeps; None where it keeps none.
        said: some text has come, now or before.

    Args:
        bound: how long the whole reply may get, in tokens.
        cursor: the event that is read on from; None reads from the beginning.
        said: some text had come before it.
    """

    def __init__(
        self, *, bound: int | None = None, cursor: Cursor | None = None, said: bool = False
    ) -> None:
        super().__init__(TokenCounter())
        self.cursor = cursor
        self.moved = cursor is None
        self.said = said
        self._bound = bound if cursor is None else cursor.bound

    @property
    def ended(self) -> bool:
        """Whether the server said that the response is at its end."""
        return self.done

    def read(self, data: str, kind: str = "message") -> list[Chunk]:
        """Return what one event adds; see `ReplyReader.read`."""
        return [] if data == "[DONE]" else super().read(data, kind)  # that is no end here

    def _event(self, event: Mapping[str, Any], kind: str) -> list[Chunk]:
        kind = event.get("type", kind)
        if kind in _BEGUN:
            self._begin(event)
        if not self._is_new(event.get("sequence_number")):
            return []
        self.moved = True
        if kind in _CHANNELS:
            return self._text(_CHANNELS[kind], event)
        if kind in _ENDED:
            self._end(event["response"])
        elif kind == "response.failed":
            self.usage = usage_of(event["response"])
            raise ErrorEvent(event["response"].get("error") or event)
        elif kind == "error" or event.get("error"):
            raise ErrorEvent(event.get("error") or event)
        elif event.get("object") == "response":  # in one piece, although a stream was asked for
            self._end(event)
            return [Chunk(text_of(event))]
        return []

    def _begin(self, event: Mapping[str, Any]) -> None:
        response = event["response"]
        kept = response.get("background") is True and response.get("store") is not False
        if kept and self.cursor is None and isinstance(event.get("sequence_number"), int):
            self.cursor = Cursor(str(response["id"]), event["sequence_number"] - 1, self._bound)

    def _is_new(self, number: object) -> bool:
        """Note an event's number; say whether the event was not had before.

        Raises:
            ValueError: one is missing before it.
        """
        if self.cursor is None:
            return True
        if not isinstance(number, int) or number > self.cursor.at + 1:
            self.gap = True
            raise ValueError("an event is missing")
        if number <= self.cursor.at:
            return False
        self.cursor = replace(self.cursor, at=number)
        return True

    def _text(self, channel: Channel, event: Mapping[str, Any]) -> list[Chunk]:
        joiner = self._joiners[channel]
        text = joiner.join(str(event["delta"]))
        self.said |= bool(text)
        cursor = None if joiner.waits else self.cursor  # half a character is behind it
        return [Chunk(text, channel, cursor=cursor)] if text else []

    def _end(self, response: Mapping[str, Any]) -> None:
        self.finish_reason = finish_of(response, self._bound)
        self.usage = usage_of(response)
        self.done = True


def text_of(response: Mapping[str, Any]) -> str:
    """Return the text that the model wrote in a whole response."""
    items = [item for item in response.get("output") or () if item.get("type") == "message"]
    parts = [part for item in items for part in item.get("content") or ()]
    said = (str(part.get("text") or part.get("refusal") or "") for part in parts)
    return well_formed("".join(said))


def finish_of(response: Mapping[str, Any], bound: int | None) -> str:
    """Return why a whole response ended, in the words of chat completions.

    llama-server says that a response is complete also where the bound cut it off.
    """
    why = (response.get("incomplete_details") or {}).get("reason")
    written = usage_of(response).completion_tokens
    full = bound is not None and written is not None and written >= bound
    return "length" if why == "max_output_tokens" or (full and not why) else str(why or "stop")


def usage_of(response: Mapping[str, Any]) -> Usage:
    """Return the accounting of a whole response."""
    usage = response.get("usage") or {}
    names = ("input_tokens", "output_tokens", "total_tokens")
    return Usage(*(usage.get(name) for name in names))
