"""What the line under a reply says."""

from __future__ import annotations

from llmctl.chat.ending import ending
from llmctl.events import End, Finished, Position, Timing


def test_a_reply_that_was_paused_from_the_start_took_no_time_and_not_less() -> None:
    finished = Finished(
        generation="g1",
        end=End.PAUSED_BY_KEY,
        resumable=True,
        finish_reason=None,
        position=Position(4, 2),
        usage=None,
        timing=Timing(None, 1.0, 1.00001, None),
    )
    assert ending(finished, None) == ["· 2 tok · 0.0s · paused (key)"]
