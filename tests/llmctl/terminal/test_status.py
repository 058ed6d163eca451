"""What the rows below a reply say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.events import Position
from llmctl.terminal.screen import Look
from llmctl.terminal.status import Facts, State, footer, status
from llmctl.terminal.width import cells

FACTS = Facts(
    state=State.STREAMING,
    model="model",
    position=Position(1700, 412),
    waiting_tokens=37,
    waiting_chars=150,
    tokens_per_s=58.2,
    seconds=7.12,
)


def said(state: State, columns: int = 80, **changes: Any) -> str:
    return status(replace(FACTS, state=state, **changes), columns)


@pytest.mark.parametrize(
    ("state", "row"),
    [
        (State.WAITING, "waiting for the first token · model · 7.1s · Space pause · Ctrl-C stop"),
        (
            State.STREAMING,
            "streaming · model · 412 tok · 58 tok/s · 7.1s · Space pause · Ctrl-C stop",
        ),
        (
            State.PAUSED_HELD,
            "PAUSED at 412 tok · connection held · 37 tok buffered · Space resume",
        ),
        (
            State.PAUSED_CUT,
            "PAUSED · connection closed · resume goes on from token 412 · Space resume",
        ),
        (
            State.PAUSED_COMPLETE,
            "PAUSED · reply complete, 37 tok waiting · Space resume · Ctrl-C stop",
        ),
        (
            State.PAUSED_BY_MARKER,
            "PAUSED by the model's marker · at 412 tok · 37 tok buffered · Space resume",
        ),
        (State.PAGE, "PAGE at 412 tok · connection held · 37 tok buffered · Space next page"),
        (
            State.PAGE_COMPLETE,
            "PAGE at 412 tok · reply complete, 37 tok waiting · Space next page",
        ),
        (State.RESUMING, "resuming from token 412 · model · 7.1s · Space pause · Ctrl-C stop"),
        (State.RETRYING, "trying again · model · 7.1s · Space pause · Ctrl-C stop"),
        (State.STOPPING, "stopping"),
    ],
)
def test_in_eighty_columns(state: State, row: str) -> None:
    assert said(state) == row


@pytest.mark.parametrize(
    ("state", "row"),
    [
        (State.WAITING, "waiting · Space pause · Ctrl-C stop"),
        (State.THINKING, "thinking · Space pause · Ctrl-C stop"),
        (State.STREAMING, "streaming · Space pause · Ctrl-C stop"),
        (State.PAUSED_HELD, "PAUSED at 412 tok · Space resume"),
        (State.PAUSED_CUT, "PAUSED · Space resume"),
        (State.PAUSED_COMPLETE, "PAUSED · 37 tok waiting · Space resume"),
        (State.PAUSED_BY_MARKER, "PAUSED by model · Space resume"),
    ],
)
def test_in_forty_columns(state: State, row: str) -> None:
    assert said(state, 40) == row


def test_where_tokens_are_not_known_characters_are() -> None:
    unknown: dict[str, Any] = {"position": Position(1700, None), "waiting_tokens": None}
    assert said(State.STREAMING, **unknown).startswith("streaming · model · 1,700 chars")
    assert said(State.PAUSED_HELD, **unknown).startswith("PAUSED at 1,700 chars")
    assert "150 chars buffered" in said(State.PAUSED_HELD, **unknown)
    assert "from character 1,700" in said(State.PAUSED_CUT, **unknown)


def test_nothing_is_said_about_nothing() -> None:
    assert "buffered" not in said(State.PAUSED_HELD, waiting_chars=0, waiting_tokens=0)
    assert "tok/s" not in said(State.STREAMING, tokens_per_s=None)


def test_a_reply_that_stopped_coming_is_said_to_be_silent() -> None:
    row = "streaming · model · 412 tok · nothing for 12s · 7.1s · Space pause · Ctrl-C stop"
    assert said(State.STREAMING, 100, silent_s=12.3) == row
    assert "nothing for 12s" in said(State.THINKING, silent_s=12.3)
    assert "nothing for 12s" in said(State.STREAMING, 50, silent_s=12.3)
    assert "nothing" not in said(State.STREAMING, silent_s=4.9)
    assert "nothing" not in said(State.WAITING, silent_s=12.3)
    assert "nothing" not in said(State.PAUSED_HELD, silent_s=12.3)


def test_the_model_asks() -> None:
    assert said(State.ASKED).startswith("PAUSED · the model asks")
    assert "type the answer" in said(State.ASKED)


def test_with_a_draft_the_keys_are_others() -> None:
    assert "Enter queues · Esc sets it aside" in said(State.STREAMING, draft="a")
    assert "Space" not in said(State.STREAMING, draft="a")
    assert "Enter sends, ending the reply here" in said(State.PAUSED_HELD, draft="a")


def test_the_draft_is_above_the_status_and_the_queue_above_both() -> None:
    facts = replace(FACTS, hint="a hint", draft="why", queued=("first\nmore", "second"))
    rows = footer(facts, 80)
    assert [row.text for row in rows[:3]] == ["a hint", "queued: (+2 lines) first", "> why▏"]
    assert rows[3].text.startswith("streaming")


def test_of_a_draft_the_end_is_shown() -> None:
    (row, _) = footer(replace(FACTS, draft="one\ntwo\n" + "x" * 100), 40)
    assert row.text == "> (+2 lines) …" + "x" * 24 + "▏"
    (row, _) = footer(replace(FACTS, draft="one\n"), 40)
    assert row.text == "> (+1 line) ▏"


def test_a_pause_looks_different_too() -> None:
    assert footer(FACTS, 80)[-1].look is Look.QUIET
    assert footer(replace(FACTS, state=State.PAUSED_CUT), 80)[-1].look is Look.LOUD


@given(
    st.builds(
        Facts,
        state=st.sampled_from(State),
        model=st.text(max_size=40),
        position=st.builds(Position, st.integers(0, 10**7), st.none() | st.integers(0, 10**6)),
        waiting_tokens=st.none() | st.integers(0, 10**6),
        waiting_chars=st.integers(0, 10**7),
        tokens_per_s=st.none() | st.floats(0, 10**4),
        seconds=st.floats(0, 10**5),
        draft=st.text(max_size=60),
        queued=st.lists(st.text(max_size=30), max_size=2).map(tuple),
    ),
    st.integers(30, 120),
)
def test_every_row_fits_and_says_the_state_and_what_to_press(facts: Facts, columns: int) -> None:
    rows = footer(facts, columns)
    assert all(cells(row.text) < columns for row in rows)
    last = rows[-1].text
    assert last.startswith(("PAUSED", "PAGE")) == facts.state.paused
    if columns >= 40 and facts.state is not State.STOPPING:
        assert "Space" in last or "Enter" in last or "type the answer" in last
