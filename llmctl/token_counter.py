"""How many tokens of a reply's content end at or before a place in its text. Pure.

A chunk of which only the number of tokens is known counts as a whole at its end; in its
middle the number is unknown (None), and once a marker cuts through it the count is lost for
the rest of the reply. Of several tokens whose text came in one piece the last may be half a
character that is not in it: the number at the piece's end is known only once a character of
one byte follows, or the reply's end.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import groupby

from llmctl.events import Chunk


@dataclass(slots=True)
class _Span:
    """Tokens that end in the model text behind ``start``, up to ``end``.

    Attributes:
        start: where the first of them begins, if that is ``sure``; else not behind it.
        end: where the last of them ends or, unless ``sharp``, the text they came in.
        tokens: how many; None for one delta of which that is not known.
        sharp: none of them ends before ``end``.
        sure: the tokens before them were told to the character.
        loose: the last of several may be the beginning of a character that is still to come.
    """

    start: int
    end: int
    tokens: int | None
    sharp: bool
    sure: bool
    loose: bool = False


class TokenCounter:
    """Counts content tokens (and, for limits, deltas) as model text is delivered."""

    def __init__(self, tokens: int | None) -> None:
        self.tokens = tokens
        self.units = 0
        self._start = 0  # of the token that comes next
        self._sure = True
        self._end = 0  # of the text so far
        self._carry = 0
        self._spans: deque[_Span] = deque()
        self._resumed = 0
        self._added: _Span | None = None
        self._passed: _Span | None = None

    def add(self, chunk: Chunk) -> None:
        """Take in where the tokens of one more chunk end."""
        if self._added is not None and _begins_anew(chunk):
            self._added.loose = False
        base, self._end = self._end, self._end + len(chunk.text)
        if not chunk.text or chunk.tokens == 0:
            self._carry += chunk.tokens or 0  # bytes of a character still to come
        elif chunk.tokens is None or chunk.ends is None:
            self._add_span(self._end, chunk.tokens, sharp=False, loose=chunk.loose)
        else:
            for end, group in groupby(chunk.ends):
                self._add_span(base + end, sum(1 for _ in group), sharp=True)

    def _add_span(self, end: int, tokens: int | None, *, sharp: bool, loose: bool = False) -> None:
        tokens = None if tokens is None else tokens + self._carry
        self._added = _Span(self._start, end, tokens, sharp, self._sure, loose)
        self._spans.append(self._added)
        self._start, self._sure, self._carry = end, sharp, 0

    def seam(self) -> None:
        """The reply goes on behind its text: a token that told no text yet is written again."""
        last = self._added
        if last is None or not last.loose:
            return
        last.loose, last.tokens = False, None
        if last is self._passed:
            self.tokens = None

    def whole(self) -> None:
        """No token so far is half a character."""
        if self._added is not None:
            self._added.loose = False

    def skip(self, counted: int, end: int) -> None:
        """Pass what an earlier process delivered; up to ``counted`` it counted itself."""
        self._resumed = counted
        while self._spans and self._spans[0].end <= counted:
            self._passed = self._spans.popleft()
            if self._passed.tokens is None:
                self.tokens = None
        self.pass_text(end)
        self.units = 0

    def room(self, end: int, units: int) -> int:
        """Return where, at or before ``end``, ``units`` more have been counted; else ``end``."""
        for span in self._spans:
            if span.end > end:
                break
            units -= 1 if span.tokens is None else span.tokens
            if units <= 0:
                return span.end
        return end

    def pass_text(self, end: int) -> None:
        """Count what ends at or before ``end``."""
        while self._spans and self._spans[0].end <= end:
            self._passed = self._spans.popleft()
            self._take(self._passed)

    def pass_marker(self, start: int, end: int) -> None:
        """Leave out what lies wholly in a marker; a token that began before it counts."""
        while self._spans and self._spans[0].end <= end:
            span = self._passed = self._spans.popleft()
            if span.start < start or not span.sure:
                self._take(span if self._one_token(span) else replace(span, tokens=None))
        if self._spans and self._spans[0].start < end:
            self._cut(self._spans[0], start, end)

    def _one_token(self, span: _Span) -> bool:
        """Say whether this is a single token that surely began before where we are.

        What an earlier process passed of it may have been a marker, too: then it is not sure.
        """
        return span.sharp and span.sure and span.tokens == 1 and span.start >= self._resumed

    def _cut(self, span: _Span, start: int, end: int) -> None:
        """Note that a marker lies in a span that goes on behind it."""
        if not span.sharp or span.tokens != 1:
            self.tokens = None  # some of its tokens may lie wholly in the marker
        elif span.start >= start:
            span.start = end

    def at(self, end: int) -> int | None:
        """Return the exact count at ``end`` of the model text, None if it is not known."""
        span = self._spans[0] if self._spans else None
        inside = span is not None and span.start < end and not span.sharp
        passed = self._passed
        loose = passed is not None and passed.loose and passed.end == end
        return None if inside or loose else self.tokens

    def _take(self, span: _Span) -> None:
        self.units += 1 if span.tokens is None else span.tokens
        lost = self.tokens is None or span.tokens is None
        self.tokens = None if lost else (self.tokens or 0) + (span.tokens or 0)


def _begins_anew(chunk: Chunk) -> bool:
    """Say whether a chunk shows that no character was left unfinished before it.

    A bound may end a reply within a character.
    """
    if chunk.text:
        return chunk.text[:1].isascii()
    return chunk.finish_reason not in {None, "length"}
