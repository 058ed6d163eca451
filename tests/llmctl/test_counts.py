"""One of something is said as one, wherever things are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.batch.check import Census
from llmctl.batch.job import Job
from llmctl.batch.merge import Merged
from llmctl.cli.batch_parts import estimate, merge_words
from llmctl.events import End, Finished, Position, Problem, Timing
from llmctl.talk import Talk


def test_an_estimate() -> None:
    job = Job(input=Path("in"), output=Path("out"))
    one = estimate(Census(1, 1, 0, 1), 0, job, as_json=False)
    assert one.splitlines() == [
        "1 item, 0 complete already",
        "about 1 prompt token",
        "no bound on the replies of 1 item (--max-tokens)",
    ]
    two = estimate(Census(2, 1200, 20, 0), 0, job, as_json=False)
    assert two.splitlines() == [
        "2 items, 0 complete already",
        "about 1,200 prompt tokens",
        "at most 20 tokens of replies",
    ]


@pytest.mark.parametrize(
    ("merged", "said"),
    [
        (Merged(1, 0, 1, 1), "1 line for an item that was there already, 1 item has no line"),
        (Merged(1, 0, 2, 2), "2 lines for items that were there already, 2 items have no line"),
    ],
)
def test_a_merge(merged: Merged, said: str) -> None:
    assert merge_words(merged) == f"merge: 1 complete, 0 failed, {said}"


@pytest.mark.parametrize(
    ("position", "said"),
    [
        (Position(4, 1), "1 tok of the reply is kept."),
        (Position(4, 11), "11 tok of the reply are kept."),
        (Position(1, None), "1 char of the reply is kept."),
        (Position(1200, None), "1,200 chars of the reply are kept."),
    ],
)
def test_what_is_kept_of_a_reply(position: Position, said: str) -> None:
    lines: list[str] = []
    lost = Problem("disconnected", "The connection was lost.", "Go on.")
    timing = Timing(None, 1.0, 0.0, None)
    finished = Finished(
        "g", End.DISCONNECT, resumable=True, finish_reason=None, position=position, usage=None,
        timing=timing, problem=lost,
    )  # fmt: skip
    Talk(lines.append).tell(finished)
    assert lines[0] == f"llmctl: The connection was lost. {said}"
