"""How long a lost connection is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.errors import (
    BelowRequire,
    ConnectTimedOut,
    Disconnected,
    LlmctlError,
    Overloaded,
    Refused,
    Unreachable,
)
from llmctl.retries import LONGEST_RETRY_AFTER_S, NO_PATIENCE, Patience, Retries

LOST, GONE, BUSY = Disconnected("lost"), Unreachable("gone", "wait"), Overloaded("busy")


def waits(*faults: LlmctlError, coming: bool = False) -> list[float]:
    """Return the delays before each further try, up to the giving up."""
    retries, found = Retries(Patience()), list[float]()
    for fault in faults:
        delay = retries.after(fault, coming=coming)
        if delay is None:
            break
        found.append(delay)
    return found


def asked(seconds: float) -> Overloaded:
    return Overloaded("busy", retry_after=seconds)


@pytest.mark.parametrize("fault", [LOST, GONE, BUSY])
def test_a_request_nothing_was_heard_of_is_given_up_soon(fault: LlmctlError) -> None:
    assert waits(*[fault] * 9) == [0.5, 1.0]


@pytest.mark.parametrize("fault", [LOST, GONE, BUSY, ConnectTimedOut("slow")])
def test_a_reply_that_was_coming_outlives_a_minute_without_network(fault: LlmctlError) -> None:
    found = waits(LOST, *[fault] * 99, coming=True)
    assert found == [0.5, 1.0, 2.0, 4.0, 8.0, *[15.0] * 4]
    assert 60 < sum(found) <= 90


@pytest.mark.parametrize("coming", [False, True])
@pytest.mark.parametrize("fault", [Refused("no", "ask otherwise"), BelowRequire("no")])
def test_what_another_try_cannot_mend(fault: LlmctlError, *, coming: bool) -> None:
    assert waits(fault, coming=coming) == []


def test_a_first_connection_that_takes_too_long_has_had_its_time() -> None:
    assert waits(ConnectTimedOut("slow")) == []


def test_a_server_is_taken_at_its_word() -> None:
    assert waits(asked(0.1), asked(3.0)) == [0.1, 3.0]
    assert waits(asked(LONGEST_RETRY_AFTER_S + 1), coming=True) == []
    assert waits(*[asked(7.0)] * 99) == [*[7.0] * 4, 8.0, *[15.0] * 3]
    assert sum(waits(*[asked(30.0)] * 99)) <= 90


def test_a_server_that_always_asks_for_nothing_is_not_asked_for_ever() -> None:
    assert waits(*[asked(0.0)] * 99) == [0.0, 0.0, 2.0, 4.0, 8.0, *[15.0] * 5]


def test_progress_makes_the_patience_whole_again() -> None:
    retries = Retries(Patience())
    for _ in range(50):
        assert retries.after(LOST, coming=True) == 0.5
        assert retries.after(GONE, coming=True) == 1.0
        assert retries.first is LOST
        retries.progress()
        assert retries.first is None


def test_who_decides_alone_gets_no_further_try() -> None:
    assert Retries(NO_PATIENCE).after(asked(0.0), coming=True) is None


FAULTS = st.sampled_from([LOST, GONE, BUSY, ConnectTimedOut("slow")]) | st.builds(
    asked, st.floats(0, 100)
)


@given(st.lists(FAULTS, max_size=60), st.booleans())
def test_no_wait_is_shorter_than_asked_and_all_end(faults: list[LlmctlError], coming: bool) -> None:
    found = waits(*faults, coming=coming)
    assert sum(found) <= Patience().in_reply_s
    assert len(found) < 20
    for fault, delay in zip(faults, found, strict=False):
        assert delay >= (getattr(fault, "retry_after", None) or 0.0)
