"""What one request has brought, by pieces and by the server's word."""

from __future__ import annotations

import pytest

from llmctl.backends.meter import Meter
from llmctl.events import Usage


@pytest.mark.parametrize(
    ("before", "pieces", "told", "ended", "total"),
    [
        (0, 3, 24, True, 24),
        (0, 3, 2, True, 2),  # pieces may be less than a token
        (0, 3, None, True, 3),
        (0, 3, 0, True, 3),  # a server that does not count says 0
        (0, 3, -5, True, 3),
        (0, 3, 24, False, 24),
        (0, 3, 1, False, 3),  # a total from the beginning of the stream
        (10, 3, 24, True, 14),  # the same run, read on: 10 were told before
    ],
)
def test_the_servers_count_takes_the_place_of_pieces(
    before: int, pieces: int, told: int | None, *, ended: bool, total: int
) -> None:
    heard: list[int] = []
    meter = Meter(heard.append, heard.append, before)
    for _ in range(pieces):
        meter.count(1)
    for _ in range(2):  # told twice is told once
        meter.settle(Usage(completion_tokens=told), ended=ended)
    assert sum(heard) == total
