"""How a batch stops: the stages, and which cause the exit status tells."""

from __future__ import annotations

import signal

import pytest

from llmctl.batch.stops import Stage, Stops
from llmctl.environment import ExitStatus


def test_each_interrupt_goes_one_stage_further() -> None:
    stops = Stops()
    stages = []
    for _ in range(2):
        stops.signal(signal.SIGINT)
        stages.append(stops.stage)
    assert stages == [Stage.DRAIN, Stage.CUT]
    assert stops.token.is_cancelled
    assert (stops.cause, stops.status) == ("SIGINT", ExitStatus.SIGINT)


@pytest.mark.parametrize("first_heavy", [True, False])
def test_the_weightiest_cause_decides_whenever_it_comes(*, first_heavy: bool) -> None:
    causes = [
        ("denied", ExitStatus.REFUSED),
        ("unreachable", ExitStatus.UNREACHABLE),
        ("deadline", ExitStatus.GIVEN_UP),
    ]
    stops = Stops()
    for cause, status in causes if first_heavy else causes[::-1]:
        stops.move(Stage.DRAIN, cause, status)
    assert (stops.cause, stops.status) == causes[0]
    stops.signal(signal.SIGTERM)
    stops.signal(signal.SIGINT)
    assert (stops.cause, stops.status) == ("SIGTERM", ExitStatus.SIGTERM)
