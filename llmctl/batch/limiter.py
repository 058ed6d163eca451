"""How much may be asked of one endpoint at a time. Pure: it is told the time.

Three things hold a request back:

- the *rate* (``--rpm``, ``--tpm``), see `llmctl.batch.buckets`;
- the *server's word*: after Retry-After, or when its headers say that nothing remains, no
  request goes to it before that time, whoever's turn it is;
- the *concurrency*: fixed, or found by `Auto`.

`Auto` looks at windows of about a second. While its requests keep it busy and the server
is well, it doubles as long as doubling brings clearly more tokens a second: a server that
queues instead of refusing shows its limit only there. Then it stays, and now and then
tries a quarter more. A refusal without a time to come back, or a first token that does not
come, takes a third away, once in a while; refusals with a time only when most requests
meet them: that server has said what it wants, and is given it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from llmctl.batch.buckets import Bucket
from llmctl.batch.rate_headers import blocked_s

FIRST = 16
"""Requests at a time that `Auto` begins with."""
HIGHEST = 2048
"""Requests at a time that `Auto` never exceeds."""
WINDOW_S = 0.5
"""Seconds that one look takes at least."""
LONGEST_WINDOW_S = 5.0
"""Seconds that it takes at most."""

_LOOKS_A_PLACE = 4  # a beginning and an end, twice
_WORTH_DOUBLING = 1.2
_WORTH_MORE = 1.05
_WORSE = 0.9
_SHRINK = 2 / 3
_PATIENCE = 10
_NEVER = float("-inf")


class Fixed:
    """Always the same number at a time."""

    def __init__(self, limit: int) -> None:
        self.limit = float(limit)

    def sample(self, running: int, now: float) -> None:
        """Nothing to learn."""

    def units(self, units: int, now: float) -> None:
        """Nothing to learn."""

    def congested(self, now: float, *, told: bool) -> None:
        """Nothing to change."""


@dataclass(slots=True)
class Auto:
    """Finds how many at a time bring the most.

    Attributes:
        limit: requests at a time, now.
    """

    limit: float = FIRST
    highest: float = HIGHEST
    _since: float | None = None
    _units: int = 0
    _peak: int = 0
    _looks: int = 0
    _refused: int = 0
    _steady: int = 0
    _doubling: bool = True
    _before: float | None = None  # the limit that is being compared with
    _rate_before: float = 0.0
    _settled_at: float = _NEVER

    def sample(self, running: int, now: float) -> None:
        """Look at how many run, whenever one begins or ends."""
        self._looks += 1
        self._peak = max(self._peak, running)
        self._turn(now)

    def units(self, units: int, now: float) -> None:
        """Count what has come."""
        self._units += units
        self._turn(now)

    def congested(self, now: float, *, told: bool) -> None:
        """A request was refused (``told``: with the time to come back), or not begun with."""
        self._refused += 1
        if told and self._refused <= max(4, self._looks / 4):
            return
        if now - self._settled_at >= 2 * WINDOW_S:
            self.limit = max(1.0, self.limit * _SHRINK)
            self._doubling, self._before, self._settled_at = False, None, now
            self._begin(now)

    def _turn(self, now: float) -> None:
        if self._since is None:
            self._begin(now)
        elif self._has_seen_enough(now - self._since):
            self._judge(self._units / (now - self._since))
            self._begin(now)

    def _has_seen_enough(self, seconds: float) -> bool:
        """Say whether a window may be judged: short replies come in waves, long ones flow."""
        waves = self._looks >= _LOOKS_A_PLACE * self.limit
        return seconds >= WINDOW_S and (waves or seconds >= LONGEST_WINDOW_S)

    def _begin(self, now: float) -> None:
        self._since, self._units, self._peak, self._looks, self._refused = now, 0, 0, 0, 0

    def _judge(self, rate: float) -> None:
        """Decide what the window that is over means for the next."""
        if self._refused or not self._units or self._peak < int(self.limit):
            self._steady = 0
            return
        if self._before is None:
            self._grow(rate)
            return
        worth = _WORTH_DOUBLING if self._doubling else _WORTH_MORE
        if rate >= worth * self._rate_before:
            self._grow(rate)
            return
        if rate < _WORSE * self._rate_before or not self._doubling:
            self.limit = self._before
        self._doubling, self._before, self._steady = False, None, -_PATIENCE

    def _grow(self, rate: float) -> None:
        self._steady += 1
        if self._steady <= 0:
            return
        self._before, self._rate_before = self.limit, rate
        step = self.limit if self._doubling else max(1.0, self.limit / 4)
        self.limit = min(self.highest, self.limit + step)


@dataclass(slots=True)
class Limiter:
    """Says when the next request may go to an endpoint.

    Attributes:
        concurrency: how many at a time.
        requests: requests a minute; None for no limit.
        tokens: tokens a minute; None for no limit.
        running: requests under way.
    """

    concurrency: Fixed | Auto
    requests: Bucket | None = None
    tokens: Bucket | None = None
    running: int = 0
    _blocked_until: float = _NEVER

    @property
    def free(self) -> int:
        """How many more may run at a time."""
        return max(1, int(self.concurrency.limit)) - self.running

    def delay(self, cost: float, now: float) -> float | None:
        """Return the seconds until a request may go; None until one that runs has ended.

        Args:
            cost: the tokens it may take.
            now: the time in seconds.
        """
        if self.free <= 0:
            return None
        waits = [self._blocked_until - now, 0.0]
        if self.requests is not None:
            waits.append(self.requests.delay(1, now))
        if self.tokens is not None:
            waits.append(self.tokens.delay(cost, now))
        return max(waits)

    def begin(self, cost: float, now: float) -> None:
        """A request goes."""
        self.running += 1
        self.concurrency.sample(self.running, now)
        if self.requests is not None:
            self.requests.take(1, now)
        if self.tokens is not None:
            self.tokens.take(cost, now)

    def end(self, cost: float, used: float, now: float) -> None:
        """It is over and took so many tokens."""
        self.concurrency.sample(self.running, now)
        self.running -= 1
        if self.tokens is not None:
            self.tokens.give_back(cost - used)

    def refused(self, retry_after_s: float | None, now: float) -> None:
        """The server is too busy; it may have said when to come back."""
        if retry_after_s is not None:
            self.block(retry_after_s, now)
        self.concurrency.congested(now, told=retry_after_s is not None)

    def slow(self, now: float) -> None:
        """A first token did not come in time."""
        self.concurrency.congested(now, told=False)

    def block(self, seconds: float, now: float) -> None:
        """Let nothing go for so long (and a moment longer: clocks differ)."""
        late = seconds * (1 + 0.02 * random.random()) + 0.005  # noqa: S311  (jitter)
        self._blocked_until = max(self._blocked_until, now + late)

    def blocked_s(self, now: float) -> float:
        """Return for how many seconds nothing goes."""
        return max(0.0, self._blocked_until - now)

    def headers(self, headers: Mapping[str, str], now: float) -> None:
        """Read what an answer's headers say about what remains."""
        seconds = blocked_s(headers)
        if seconds:
            self.block(seconds, now)

    def units(self, units: int, now: float) -> None:
        """So much has arrived."""
        self.concurrency.units(units, now)

    def corrected(self, units: int) -> None:
        """Do nothing: how fast it came is not told by what is said of it at the end."""
