"""The clocks of one reply: which seconds count, and when a limit is reached. Pure.

A second counts while the reply could have come: not before the request is sent, not while
it is paused in a chat, not while the reader of the output takes nothing, not while the
process itself stands still. The last needs no signal: two looks at the clock are never
more than `TICK_S` apart while the process runs, so a longer gap was not lived through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmctl.events import End, Timing

TICK_S = 0.25
"""Seconds between two looks at the clocks."""

_TOO_LONG_S = 2 * TICK_S


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits in seconds; None for none. The connection's own is the back end's.

    Attributes:
        first_token: from the request to the first token.
        idle: between two tokens.
        total: this process's share of the reply.
    """

    first_token: float | None = None
    idle: float | None = None
    total: float | None = None


class Clocks:
    """Counts the seconds of a reply's life.

    Args:
        now: a clock in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._clock = now
        self._looked_at = now()
        self._stood = 0.0
        self._began: float | None = None
        self._last = 0.0
        self._counted = 0.0
        self._first_token: float | None = None
        self._first_new: float | None = None
        self._streamed = 0.0
        self._spans = 0
        self._span_began: float | None = None
        self._heard = 0.0
        self._heard_at = 0.0
        self._still_since: float | None = None
        self._paused = 0.0

    def begin(self) -> None:
        """The request is sent."""
        self._began = self._last = self._heard_at = self._now()

    def token(self) -> None:
        """A token of the reply has arrived that was not there before."""
        self._heard_at, self._heard = self._now(), self._counted
        if self._span_began is None:
            self._begin_span()

    def reopen(self) -> None:
        """The reply is asked for again: what passes until its next token is no streaming."""
        self._end_span()

    def sign_of_life(self) -> None:
        """A token has arrived that is there already."""
        self._heard_at, self._heard = self._now(), self._counted
        self._note_first_token()

    def stand_still(self) -> None:
        """The reply is paused."""
        self.tick()
        self._end_span()
        self._still_since = self._now()

    def go_on(self) -> None:
        """The reply is not paused any more."""
        self._end_span()
        if self._still_since is not None:
            self._last = self._heard_at = self._now()
            self._paused += self._last - self._still_since
            self._still_since = None

    def tick(self, *, still: bool = False) -> None:
        """Count the time since the last look, unless the reply stood ``still``."""
        now = self._now()
        passed, self._last = now - self._last, now
        if self._began is not None and self._still_since is None and not still:
            self._counted += passed

    def next_look(self, limits: Limits) -> float:
        """Return the seconds after which a limit may have been reached, a tick at most."""
        left = [TICK_S]
        if limits.total is not None:
            left.append(limits.total - self._counted)
        if limits.idle is not None:
            left.append(limits.idle - (self._counted - self._heard))
        if limits.first_token is not None and self._first_token is None:
            left.append(limits.first_token - self._counted)
        return max(0.001, min(left))

    def expired(self, limits: Limits, *, receiving: bool) -> End | None:
        """Return the limit that has been reached, None if there is none.

        Args:
            limits: how long things may take.
            receiving: tokens are still expected.
        """
        if self._began is None or self._still_since is not None:
            return None
        if _reached(self._counted, limits.total):
            return End.TOTAL_TIMEOUT
        if not receiving:
            return None
        if self._first_token is None:
            return End.FIRST_TOKEN_TIMEOUT if _reached(self._counted, limits.first_token) else None
        idle = self._counted - self._heard
        return End.IDLE_TIMEOUT if _reached(idle, limits.idle) else None

    def silence(self) -> float:
        """Return the seconds since a token arrived, or since one could again after a pause."""
        if self._began is None or self._still_since is not None:
            return 0.0
        return self._now() - self._heard_at

    def _now(self) -> float:
        """Return the time, without that in which the process itself stood still."""
        now = self._clock()
        if now - self._looked_at > _TOO_LONG_S and self._began is not None:
            self._stood += now - self._looked_at
        self._looked_at = now
        return now - self._stood

    def _note_first_token(self) -> None:
        if self._first_token is None and self._began is not None:
            self._first_token = self._heard_at - self._began

    def _begin_span(self) -> None:
        """New tokens begin to come, or do so again."""
        self._note_first_token()
        self._span_began = self._heard_at
        self._spans += 1
        if self._first_new is None and self._began is not None:
            self._first_new = self._heard_at - self._began

    def _end_span(self) -> None:
        self._streamed += self._span
        self._span_began = None

    @property
    def _span(self) -> float:
        return 0.0 if self._span_began is None else self._heard_at - self._span_began

    def timing(self, tokens: int | None) -> Timing:
        """Return the figures so far; ``tokens`` is how many new ones came."""
        if self._began is None:
            return Timing(None, 0.0, 0.0, None)
        now = self._now()
        paused = self._paused + (0.0 if self._still_since is None else now - self._still_since)
        duration = now - self._began
        return Timing(self._first_new, duration, paused, self._rate(tokens or 0))

    def _rate(self, tokens: int) -> float | None:
        """Return tokens a second; of each span that streamed, the first one ends no wait."""
        timed, streamed = tokens - self._spans, self._streamed + self._span
        return timed / streamed if timed > 0 and streamed > 0 else None


def _reached(seconds: float, limit: float | None) -> bool:
    return limit is not None and seconds >= limit
