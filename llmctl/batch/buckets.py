"""Rates a minute as buckets that refill all the time. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Bucket:
    """Lets so much through a minute, evenly: what it holds at most is one second's worth.

    Something larger than that may go when the bucket is full, and leaves a debt behind that
    has to be refilled first. So no minute gets more than the rate and one item.

    Attributes:
        per_minute: how much.
    """

    per_minute: float
    _level: float = field(init=False)
    _at: float | None = None

    def __post_init__(self) -> None:
        """Begin full."""
        self._level = self._room

    @property
    def _room(self) -> float:
        return max(1.0, self.per_minute / 60)

    def delay(self, cost: float, now: float) -> float:
        """Return the seconds until something of that cost may go."""
        self._refill(now)
        missing = min(cost, self._room) - self._level
        return max(0.0, missing * 60 / self.per_minute)

    def take(self, cost: float, now: float) -> None:
        """Let it go."""
        self._refill(now)
        self._level -= cost

    def give_back(self, cost: float) -> None:
        """It cost less than was taken (or more, if negative)."""
        self._level = min(self._room, self._level + cost)

    def _refill(self, now: float) -> None:
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        self._level = min(self._room, self._level + passed * self.per_minute / 60)
