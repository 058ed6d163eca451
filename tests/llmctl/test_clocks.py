"""Which seconds count."""

from __future__ import annotations

from llmctl.clocks import Clocks


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
