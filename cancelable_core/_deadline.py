"""Deadline algebra: the earliest wins, extending moves it, pausing stops it.

Pure: every method is told the time.
"""

from __future__ import annotations

import math


class Timer:
    """One operation's own time limit, on its loop's clock.

    Attributes:
        expires: When the limit passes; infinite without a limit and while paused.
        forced: When an operation that was asked to stop is stopped.
        limit: The duration that was asked for, in seconds, for messages.
    """

    __slots__ = ("_left", "expires", "forced", "limit")

    def __init__(self) -> None:
        self.expires = math.inf
        self.forced = math.inf
        self.limit = math.inf
        self._left: float | None = None

    @property
    def effective(self) -> float:
        """When to stop, whatever the reason."""
        return min(self.expires, self.forced)

    def shorten(self, now: float, seconds: float) -> None:
        """Expire ``seconds`` from now at the latest."""
        if now + seconds < self.expires:
            self.expires = now + seconds
            self.limit = seconds

    def restart(self, now: float, seconds: float) -> None:
        """Expire ``seconds`` from now, whatever was said before."""
        if self._left is None:
            self.expires = now + seconds
        else:
            self._left = seconds
        self.limit = seconds

    def extend(self, seconds: float) -> None:
        """Expire ``seconds`` later (earlier, if negative)."""
        if self._left is None:
            self.expires += seconds
        else:
            self._left += seconds
        self.limit += seconds

    def force_by(self, at: float) -> None:
        """Stop at ``at`` at the latest."""
        self.forced = min(self.forced, at)

    def remaining(self, now: float) -> float:
        """Seconds left of the limit; negative once it has passed."""
        return self.expires - now if self._left is None else self._left

    def freeze(self, now: float) -> None:
        """Stop the limit's clock."""
        if self._left is None:
            self._left, self.expires = self.expires - now, math.inf

    def thaw(self, now: float) -> None:
        """Start it again."""
        if self._left is not None:
            self.expires, self._left = now + self._left, None
