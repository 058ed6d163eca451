"""Rates, the server's word, and the number at a time that is found."""

from __future__ import annotations

import heapq

import pytest

from llmctl.batch.buckets import Bucket
from llmctl.batch.limiter import Auto, Fixed, Limiter
from llmctl.batch.rate_headers import blocked_s


def test_a_bucket_never_lets_more_through_than_its_rate() -> None:
    bucket, now, went = Bucket(120), 0.0, []
    while now < 180:
        now += bucket.delay(1, now)
        bucket.take(1, now)
        went.append(now)
    for begin in range(120):
        assert sum(begin <= at < begin + 60 for at in went) <= 122
    assert len(went) >= 355


def test_something_larger_than_the_bucket_leaves_a_debt() -> None:
    bucket = Bucket(60)
    assert bucket.delay(30, 0) == 0
    bucket.take(30, 0)
    assert bucket.delay(1, 0) == pytest.approx(30)
    bucket.give_back(20)
    assert bucket.delay(1, 0) == pytest.approx(10)


def test_retry_after_holds_everything_back() -> None:
    limiter = Limiter(Fixed(4))
    assert limiter.delay(1, 10.0) == 0
    limiter.refused(5.0, 10.0)
    assert 5.0 < (limiter.delay(1, 10.0) or 0) < 5.2
    assert limiter.delay(1, 15.2) == 0
    for _ in range(4):
        limiter.begin(1, 16.0)
    assert limiter.delay(1, 16.0) is None


@pytest.mark.parametrize(
    ("remaining", "reset", "seconds"),
    [("0", "1.5s", 1.5), ("0", "6m0s", 120.0), ("3", "9s", 0.0), ("0", "", 0.0), ("0", "7", 7.0)],
)
def test_headers(remaining: str, reset: str, seconds: float) -> None:
    headers = {"x-ratelimit-remaining-requests": remaining, "x-ratelimit-reset-requests": reset}
    assert blocked_s(headers) == seconds


class Queueing:
    """A server that queues without end: so many at a time, each ``service_s`` and 50 tokens.

    The time is made up; ``run`` returns how long so many requests took.
    """

    def __init__(self, places: int, service_s: float) -> None:
        self.places = places
        self.service_s = service_s

    def run(self, limiter: Limiter, requests: int) -> float:
        now, begun, free = 0.0, 0, [0.0] * self.places
        ends: list[float] = []
        while begun < requests or ends:
            while begun < requests and limiter.delay(1, now) == 0:
                limiter.begin(1, now)
                start = max(now, heapq.heappop(free))
                heapq.heappush(free, start + self.service_s)
                heapq.heappush(ends, start + self.service_s)
                begun += 1
            now = heapq.heappop(ends)
            limiter.units(50, now)
            limiter.end(1, 1, now)
        return now


@pytest.mark.parametrize("places", [4, 24, 50, 200, 700])
def test_auto_comes_close_to_the_best_fixed_number(places: int) -> None:
    server = Queueing(places, 0.3)
    requests = places * 100
    best = server.run(Limiter(Fixed(places)), requests)
    auto = Auto()
    assert server.run(Limiter(auto), requests) <= 1.1 * best
    assert auto.limit <= 6 * max(places, 16)


def through_a_rate_limit(limiter: Limiter, rate: float, seconds: float) -> tuple[int, int]:
    """Ask a server that lets ``rate`` a second through and tells others to wait a second.

    Returns:
        How many replies came, and how many requests came before their time.
    """
    allowed, now, done, early = rate, 0.0, 0, 0
    ends: list[float] = []
    not_before = 0.0
    while now < seconds:
        while limiter.delay(1, now) == 0:
            early += now < not_before
            limiter.begin(1, now)
            if allowed >= 1:
                allowed -= 1
                heapq.heappush(ends, now + 0.2)
            else:
                limiter.end(1, 1, now)
                limiter.refused(1.0, now)
                not_before = now + 1.0
        step = 0.01
        now, allowed = now + step, min(rate, allowed + rate * step)
        while ends and ends[0] <= now:
            heapq.heappop(ends)
            limiter.units(50, now)
            limiter.end(1, 1, now)
            done += 1
    return done, early


@pytest.mark.parametrize("rate", [5, 50, 400])
@pytest.mark.parametrize("fixed", [None, 64])
def test_a_rate_limited_server_is_used_well(rate: float, fixed: int | None) -> None:
    limiter = Limiter(Auto() if fixed is None else Fixed(fixed))
    done, early = through_a_rate_limit(limiter, rate, 60)
    allows = min(rate, fixed / 0.2 if fixed else rate) * 60
    assert done >= 0.7 * allows
    assert early == 0


def test_auto_shrinks_when_refused_and_recovers() -> None:
    auto = Auto(limit=64)
    for tick in range(20):
        auto.congested(float(tick), told=False)
    assert auto.limit == pytest.approx(1.0)
    now = 20.0
    for _ in range(4000):
        now += 0.01
        auto.units(int(auto.limit * 10), now)
        auto.sample(int(auto.limit), now)
    assert auto.limit > 3


def test_auto_does_not_grow_when_it_is_not_busy() -> None:
    auto, now = Auto(), 0.0
    for _ in range(1000):
        now += 0.01
        auto.units(10, now)
        auto.sample(3, now)
    assert auto.limit == 16
