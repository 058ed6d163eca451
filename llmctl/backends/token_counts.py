"""Which tokens a piece of streamed text completes. Pure.

Servers tell it in four ways, and most tell nothing:

- log probabilities, one entry a token with its bytes: exact, and it proves itself, since
  the bytes must spell the text;
- the ids of the piece's tokens;
- a running total, in ``timings.predicted_n`` or in the ``usage`` of every chunk.

Tokens and text don't arrive in step: a server holds an unfinished character back and
sends an empty text for its first tokens. A token is therefore told with the text that
completes it. A number that can't be exact is not told at all: totals also count the
tokens between reasoning and content, and run ahead where a server holds text back
because it might be the beginning of a stop text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

LONGEST_CHARACTER = 64
"""Tokens that are believed to make up one character at most."""

_CONTINUATION = range(0x80, 0xC0)
_MOST_TOKENS, _MOST_IDS = 10**9, 2**31  # no reply has so many, no vocabulary


class Counted(NamedTuple):
    """The tokens a text completes; the fields mean what they mean in `Chunk`."""

    tokens: int | None = None
    ends: tuple[int, ...] | None = None
    ids: tuple[int, ...] | None = None


UNKNOWN = Counted()


@dataclass(slots=True)
class TokenCounter:
    """Counts the content tokens of one reply.

    Attributes:
        trusts_usage: a ``usage`` in every chunk is a running total.
        in_step: texts are not held back, so that totals belong to the text they come with.
    """

    trusts_usage: bool = False
    in_step: bool = True
    _told: int = 0
    _heard: int = 0
    _spelling: bytes = b""
    _ends: tuple[int, ...] = ()
    _ids: tuple[int, ...] = ()

    def reasoning(self) -> None:
        """Note that there was reasoning: totals say nothing about content from here on."""
        self.in_step = False

    def count(self, text: str, choice: Mapping[str, Any], chunk: Mapping[str, Any]) -> Counted:
        """Return what ``text`` completes, given the chunk it came in."""
        entries = (choice.get("logprobs") or {}).get("content")
        if entries or self._spelling:
            return self._from_spelling(text, entries or ())
        if not self.in_step:
            return UNKNOWN
        ids = choice.get("token_ids")
        if ids or self._ids:
            return self._from_ids(text, ids or ())
        return self._from_total(text, self._total(chunk))

    def _from_spelling(self, text: str, entries: Iterable[Mapping[str, Any]]) -> Counted:
        """Lay the tokens' bytes along the text's; a token with no bytes writes nothing."""
        for spelled in map(_spelled, entries):
            self._spelling += spelled
            self._ends += (len(self._spelling),) if spelled else ()
        raw = text.encode()
        if not self._spelling.startswith(raw):
            self._spelling, self._ends = b"", ()
            return UNKNOWN
        done = [end for end in self._ends if end <= len(raw)]
        self._ends = tuple(end - len(raw) for end in self._ends[len(done) :])
        self._spelling = self._spelling[len(raw) :]
        return Counted(len(done), tuple(_chars_begun(raw, end) for end in done))

    def _from_ids(self, text: str, ids: Sequence[int]) -> Counted:
        if not are_ids(ids):
            self._ids = ()
            return UNKNOWN
        self._ids += tuple(ids)
        if not text:
            return Counted(0)
        done, self._ids = self._ids, ()
        return Counted(len(done), _ends(text, len(done), last=len(ids)), done)

    def _from_total(self, text: str, total: int | None) -> Counted:
        if total is None or total < self._heard:
            return UNKNOWN
        last, self._heard = total - self._heard, total
        if not text:
            return Counted(0)
        fresh, self._told = total - self._told, total
        return Counted(fresh, _ends(text, fresh, last=last))

    def _total(self, chunk: Mapping[str, Any]) -> int | None:
        total = (chunk.get("timings") or {}).get("predicted_n")
        if total is None and self.trusts_usage:
            total = (chunk.get("usage") or {}).get("completion_tokens")
        return total if is_count(total) else None


def is_count(value: object) -> TypeGuard[int]:
    """Say whether this can be a number of tokens."""
    return isinstance(value, int) and 0 <= value < _MOST_TOKENS


def are_ids(values: object) -> bool:
    """Say whether these can be the ids of tokens."""
    return isinstance(values, Sequence) and all(
        isinstance(value, int) and 0 <= value < _MOST_IDS for value in values
    )


def _ends(text: str, tokens: int, *, last: int) -> tuple[int, ...] | None:
    """Return where tokens end of which all but the ``last`` ones came without a text.

    Those are parts of a character: it is whole where the next token ends. Where several come
    with the text, the last of them may be such a part: nobody knows.
    """
    return (len(text),) * tokens if last == 1 and tokens <= LONGEST_CHARACTER else None


def _spelled(entry: Mapping[str, Any]) -> bytes:
    spelled = entry.get("bytes")
    return str(entry.get("token", "")).encode() if spelled is None else bytes([*spelled])


def _chars_begun(raw: bytes, end: int) -> int:
    """Return how many characters begin before byte ``end`` of UTF-8 text."""
    head = raw[:end]
    return end if head.isascii() else sum(byte not in _CONTINUATION for byte in head)
