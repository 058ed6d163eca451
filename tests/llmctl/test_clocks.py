"""Which seconds count."""

from __future__ import annotations

from llmctl.clocks import Clocks, Limits


def test_silence_is_since_the_last_token_or_since_one_could_come_again() -> None:
    time = 100.0
    clocks = Clocks(lambda: time)
    assert clocks.silence() == 0  # nothing was asked for
    clocks.begin()
    time += 3
    assert clocks.silence() == 3
    clocks.token()
    time += 2
    assert clocks.silence() == 2
    clocks.stand_still()
    time += 60
    assert clocks.silence() == 0
    clocks.go_on()
    time += 1
    assert clocks.silence() == 1
    timing = clocks.timing(1)
    assert (timing.first_token_s, timing.duration_s, timing.paused_s) == (3, 66, 60)


def test_the_rate_is_that_of_new_tokens_while_they_came() -> None:
    time = 100.0
    clocks = Clocks(lambda: time)

    def come(tokens: int, apart_s: float) -> None:
        nonlocal time
        for _ in range(tokens):
            time += apart_s
            clocks.token()

    clocks.begin()
    time += 7
    come(11, 0.5)
    assert clocks.timing(11).tokens_per_s == 2
    clocks.stand_still()
    time += 60
    come(3, 0.5)  # it reads on
    clocks.go_on()
    time += 5
    clocks.reopen()
    for _ in range(14):  # the same once more
        time += 0.1
        clocks.sign_of_life()
    come(5, 0.5)
    assert clocks.timing(19).tokens_per_s == 2
    assert clocks.timing(None).tokens_per_s is None
    assert clocks.timing(19).first_token_s == 7.5


def test_there_is_no_rate_of_what_came_at_once() -> None:
    clocks = Clocks(lambda: 1.0)
    clocks.begin()
    for _ in range(3):
        clocks.token()
    assert clocks.timing(3).tokens_per_s is None


def test_the_first_token_of_a_reply_that_is_repeated_is_the_first_new_one() -> None:
    time = 0.0
    clocks = Clocks(lambda: time)
    clocks.begin()
    time = 1.0
    clocks.sign_of_life()
    assert clocks.timing(0).first_token_s is None
    assert clocks.expired(Limits(first_token=0.5), receiving=True) is None
    time = 9.0
    clocks.token()
    assert clocks.timing(1).first_token_s == 9
