"""llama.cpp's two kinds of stream, made into chunks. Pure.

Models that only speak are asked through ``/completion``, which takes and gives token ids
and alters nothing. Models that also reason are asked through ``/v1/chat/completions``,
whose parser knows every model's way of marking its reasoning.

Counts are exact in both: ``timings.predicted_n`` counts every token, while the ids of a
token that ends inside a character are never sent. So a piece with a missing id has none that
are known (which makes those of the whole reply unknown), and its number of tokens is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, Protocol, TypeVar

from llmctl.backends.chat_reply import ErrorEvent, ReplyReader
from llmctl.backends.surrogates import well_formed
from llmctl.backends.token_counts import LONGEST_CHARACTER, TokenCounter, are_ids, is_count
from llmctl.events import Chunk, Usage


class Reader(Protocol):
    """Makes chunks of the data of a stream's events."""

    @property
    def cached(self) -> int | None:
        """How many prompt tokens the slot had already; None before the first event."""

    @property
    def ended(self) -> bool:
        """Whether the last chunk was yielded."""

    def read(self, data: str) -> Iterator[Chunk]:
        """Yield what one event adds; the last one carries the finish reason.

        Raises:
            ErrorEvent: the server reports an error.
            ValueError: the data is not of the protocol.
        """


R = TypeVar("R", bound=Reader)
_Read = Callable[[R, str], Iterator[Chunk]]


def _strictly(read: _Read[R]) -> _Read[R]:
    """Raise ValueError, and nothing else, where an event is not what its protocol says."""

    @wraps(read)
    def strict(reader: R, data: str) -> Iterator[Chunk]:
        try:
            yield from read(reader, data)
        except (AttributeError, LookupError, TypeError, RecursionError) as error:
            raise ValueError("JSON of another shape") from error

    return strict


class CompletionReader:
    """Reads the stream of ``/completion``.

    Args:
        limit: how many tokens were asked for at most; None for no bound.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.cached: int | None = None
        self.ended = False
        self._limit = limit
        self._told = 0

    @_strictly
    def read(self, data: str) -> Iterator[Chunk]:
        """Yield what one event adds."""
        event = _event(data)
        self.cached = event["timings"]["cache_n"]
        self.ended = event["stop"]
        if self.ended:
            yield self._last(event)
        elif event["content"]:
            yield self._piece(well_formed(event["content"]), event)

    def _piece(self, text: str, event: Mapping[str, Any]) -> Chunk:
        total = event["timings"]["predicted_n"]
        if not (is_count(total) and total >= self._told and are_ids(event["tokens"])):
            raise ValueError("no count, or no ids, of tokens")
        fresh, self._told = total - self._told, total
        ids = tuple(event["tokens"])
        known = len(ids) == fresh
        return Chunk(text, tokens=fresh, ends=_ends(text, fresh), ids=ids if known else None)

    def _last(self, event: Mapping[str, Any]) -> Chunk:
        """Return the end; text that comes with it was held back, its tokens are unknown."""
        text = well_formed(event["content"])
        return Chunk(
            text,
            tokens=None if text else 0,
            ids=None if text else (),
            finish_reason="length" if event["stop_type"] == "limit" else "stop",
            context_full=is_context_full(event["stop_type"] == "limit", event, self._limit),
            usage=_usage(event["timings"]),
        )


class ChatReader:
    """Reads the stream of ``/v1/chat/completions``.

    Args:
        limit: how many tokens were asked for at most; None for no bound.
        in_step: no text is held back for a stop text, so that totals fit their chunks.
    """

    def __init__(self, limit: int | None = None, *, in_step: bool = True) -> None:
        self.cached: int | None = None
        self.ended = False
        self._limit = limit
        self._reader = ReplyReader(TokenCounter(in_step=in_step))

    @_strictly
    def read(self, data: str) -> Iterator[Chunk]:
        """Yield what one event adds."""
        event = _event(data)
        if "timings" in event:  # the chunk that only names the role has none
            self.cached = event["timings"]["cache_n"]
        yield from self._reader.read(data)
        self.ended = self._reader.finish_reason is not None
        if not self.ended:
            return
        for chunk in self._reader.last():
            yield self._ended(chunk, event) if chunk.finish_reason else chunk

    def _ended(self, chunk: Chunk, event: Mapping[str, Any]) -> Chunk:
        at_limit = chunk.finish_reason == "length"
        return Chunk(
            chunk.text,
            tokens=0,
            finish_reason=chunk.finish_reason,
            context_full=is_context_full(at_limit, event, self._limit),
            usage=_usage(event["timings"]),
        )


def is_context_full(at_limit: bool, event: Mapping[str, Any], limit: int | None) -> bool:
    """Say whether a reply that ended at a limit did so before the bound that was asked for."""
    early = limit is None or event["timings"]["predicted_n"] < limit
    return at_limit and (early or event.get("truncated", False))


def _event(data: str) -> Mapping[str, Any]:
    event: Mapping[str, Any] = json.loads(data)
    if "error" in event:
        raise ErrorEvent(event["error"])
    return event


def _ends(text: str, tokens: int) -> tuple[int, ...] | None:
    """Say where each token ends, where that follows from their number."""
    if tokens == 1 or (len(text) == 1 and tokens <= LONGEST_CHARACTER):
        return (len(text),) * tokens
    return None


def _usage(timings: Mapping[str, Any]) -> Usage:
    prompt = timings["cache_n"] + timings["prompt_n"]
    return Usage(prompt, timings["predicted_n"], prompt + timings["predicted_n"])
