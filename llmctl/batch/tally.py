"""What a run has done so far, for budgets, progress and the exit status. Pure."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from llmctl.prices import Prices

RATE_S = 10.0
"""Seconds over which tokens a second are averaged."""

_DURATIONS = 200
_ENOUGH = 5
_TICKS = 2


@dataclass(slots=True)
class Tally:
    """Counts of one run.

    Attributes:
        total: items in the input.
        before: items that were complete when the run began.
        complete: items that this run completed.
        failed: items that ended as failed or timed out in this run.
        refused: items that the back end refused in this run.
        standing_failures: items that failed in an earlier run and are left alone.
        running: attempts under way.
        waiting: items that wait for another try.
        requests: requests sent.
        units: tokens that arrived: as the servers told, or a piece for one.
        prompt_tokens: as the servers told, or estimated.
        prices: what tokens cost; None if that is not known.
        began: when the run began, on ``clock``.
        clock: seconds that only grow.
    """

    total: int = 0
    before: int = 0
    complete: int = 0
    failed: int = 0
    refused: int = 0
    standing_failures: int = 0
    running: int = 0
    waiting: int = 0
    requests: int = 0
    units: int = 0
    prompt_tokens: int = 0
    prices: Prices | None = None
    began: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _durations: deque[float] = field(default_factory=lambda: deque(maxlen=_DURATIONS))
    _ticks: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def done(self) -> int:
        """Items that need no more work: complete ones, of this run and before."""
        return self.before + self.complete

    @property
    def ended(self) -> int:
        """Items that this run is through with."""
        return self.complete + self.failed + self.refused

    @property
    def cost(self) -> float | None:
        """Dollars so far; None without prices."""
        return None if self.prices is None else self.prices.of(self.prompt_tokens, self.units)

    def took(self, seconds: float) -> None:
        """An item was completed in so many seconds."""
        self._durations.append(seconds)

    @property
    def usual_s(self) -> float:
        """Seconds in which nine of ten items are complete; 0 while too few are."""
        if len(self._durations) < _ENOUGH:
            return 0.0
        return sorted(self._durations)[int(0.9 * len(self._durations))]

    def rate(self) -> float:
        """Return tokens a second of late; call it now and then."""
        now = self.clock()
        if not self._ticks:
            self._ticks.append((self.began, 0))
        self._ticks.append((now, self.units))
        while self._ticks[0][0] < now - RATE_S and len(self._ticks) > _TICKS:
            self._ticks.popleft()
        then, units = self._ticks[0]
        return max(0.0, (self.units - units) / (now - then)) if now > then else 0.0

    def as_json(self) -> dict[str, object]:
        """Return the published form."""
        return {
            "total": self.total,
            "complete": self.done,
            "failed": self.failed + self.refused + self.standing_failures,
            "running": self.running,
            "waiting": self.waiting,
            "requests": self.requests,
            "output_tokens": self.units,
            "cost": None if self.cost is None else round(self.cost, 6),
        }
