"""Which seconds count."""

from __future__ import annotations

import pytest

from llmctl.clocks import TICK_S, Clocks, Limits


class Life:
    """A process's time, in which its clocks are looked at as often as they must be."""

    def __init__(self) -> None:
        self.time = 100.0
        self.clocks = Clocks(lambda: self.time)

    def live(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.time += TICK_S
            self.clocks.tick()

    def hear(self, tokens: int, apart_s: float) -> None:
        for _ in range(tokens):
            self.live(apart_s)
            self.clocks.token()


def test_silence_is_since_the_last_token_or_since_one_could_come_again() -> None:
    life = Life()
    clocks = life.clocks
    assert clocks.silence() == 0  # nothing was asked for
    clocks.begin()
    life.live(3)
    assert clocks.silence() == 3
    clocks.token()
    life.live(2)
    assert clocks.silence() == 2
    clocks.stand_still()
    life.live(60)
    assert clocks.silence() == 0
    clocks.go_on()
    life.live(1)
    assert clocks.silence() == 1
    timing = clocks.timing(1)
    assert (timing.first_token_s, timing.duration_s, timing.paused_s) == (3, 66, 60)


def test_the_rate_is_that_of_new_tokens_while_they_came() -> None:
    life = Life()
    clocks = life.clocks
    clocks.begin()
    life.live(7)
    life.hear(11, 0.5)
    assert clocks.timing(11).tokens_per_s == 2
    clocks.stand_still()
    life.live(60)
    life.hear(3, 0.5)  # it reads on
    clocks.go_on()
    life.live(5)
    clocks.reopen()
    for _ in range(14):  # the same once more
        life.live(0.25)
        clocks.sign_of_life()
    life.hear(5, 0.5)
    assert clocks.timing(19).tokens_per_s == 2
    assert clocks.timing(None).tokens_per_s is None
    assert clocks.timing(19).first_token_s == 7.5


def test_there_is_no_rate_of_what_came_at_once() -> None:
    life = Life()
    life.clocks.begin()
    life.hear(3, 0)
    assert life.clocks.timing(3).tokens_per_s is None


def test_the_first_token_of_a_reply_that_is_repeated_is_the_first_new_one() -> None:
    life = Life()
    clocks = life.clocks
    clocks.begin()
    life.live(1)
    clocks.sign_of_life()
    assert clocks.timing(0).first_token_s is None
    assert clocks.expired(Limits(first_token=0.5), receiving=True) is None
    life.live(8)
    clocks.token()
    assert clocks.timing(1).first_token_s == 9


@pytest.mark.parametrize("first", ["tick", "token"])
def test_time_in_which_the_process_stood_still_is_in_no_figure(first: str) -> None:
    life = Life()
    clocks = life.clocks
    clocks.begin()
    life.hear(5, 0.5)
    life.time += 3600
    getattr(clocks, first)()
    life.hear(4 if first == "token" else 5, 0.5)
    timing = clocks.timing(10)
    assert timing.duration_s == (4.5 if first == "token" else 5)
    assert timing.tokens_per_s == pytest.approx(9 / (4 if first == "token" else 4.5))
    assert clocks.expired(Limits(total=6), receiving=True) is None
    clocks.stand_still()
    life.live(1)
    life.time += 3600
    clocks.go_on()
    assert clocks.timing(10).paused_s == 1
