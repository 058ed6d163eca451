"""Whatever goes wrong between the program and a server, no token is lost and none comes twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.playing import Tally, play, quick_patience
from tests.faults.scenario import draw

WAYS = {"replay exact", "held exact", "held text", "prefix text", "tokens token"}


@pytest.mark.slow
@pytest.mark.parametrize("block", range(3))
def test_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    tally = Tally()
    with quick_patience(monkeypatch):
        for seed in range(block * 20, block * 20 + 20):
            play(draw(seed), tmp_path / str(seed), tally)
    assert tally.retries > 10  # much went wrong
    assert {0, 5, 124} <= set(tally.codes)
    assert tally.ways.keys() & WAYS
    assert tally.altered <= 3


@pytest.fixture(scope="module")
def thousand() -> Tally:
    """What was seen in all blocks: a single one may miss a way."""
    return Tally()


@pytest.mark.exhaustive
@pytest.mark.parametrize("block", range(20))
def test_a_thousand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thousand: Tally, block: int
) -> None:
    altered = thousand.altered
    with quick_patience(monkeypatch):
        for seed in range(block * 50, block * 50 + 50):
            play(draw(seed), tmp_path / str(seed), thousand)
    assert thousand.altered - altered <= 8


@pytest.mark.exhaustive
def test_the_thousand_went_on_in_every_way(thousand: Tally) -> None:
    if thousand.shares < 2000:
        pytest.skip("they were not all played")
    assert thousand.ways.keys() >= WAYS
