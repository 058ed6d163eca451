"""What the line under a reply says."""

from __future__ import annotations

from typing import Any

import pytest

from llmctl.chat.ending import ending
from llmctl.conversation import Options
from llmctl.events import End, Finished, Guarantee, Position, Resumed, Strategy, Timing

FINISHED = Finished(
    generation="g1",
    end=End.COMPLETE,
    resumable=False,
    finish_reason="stop",
    position=Position(4, 2),
    usage=None,
    timing=Timing(None, 1.0, 0.0, None),
)


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("extra", [{}, {"frequency_penalty": 0.5}])
def test_penalties_that_begin_anew_are_said(strategy: Strategy, extra: dict[str, Any]) -> None:
    resumed = Resumed(strategy, Guarantee.TEXT, Position(2, 1))
    [line] = ending(FINISHED, resumed, options=Options(extra=extra))
    behind = strategy in {Strategy.TOKENS, Strategy.PREFIX, Strategy.INSTRUCT}
    assert ("penalties begun anew" in line) is (behind and bool(extra))


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
