"""A batch that is killed and interrupted again and again ends as if it never had been."""

from __future__ import annotations

import random
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.support.batches import Batch, vllm
from tests.support.oracle_server import Counters, OracleProcess

pytestmark = pytest.mark.slow


def has_come_to(tokens: float, counters: Counters) -> bool:
    """Say whether the server has generated so many."""
    return counters.tokens >= tokens


def is_whole(batch: Batch) -> bool:
    """Say whether nothing was left when the signal came."""
    return len(batch.rows()) == batch.items


def go_through(batch: Batch, kills: int, seed: int) -> None:
    """Run a batch with so many interruptions at random tokens, then to its end."""
    chance = random.Random(seed)  # noqa: S311
    whole = batch.items * batch.length
    for _ in range(kills):
        sign = chance.choice([signal.SIGKILL, signal.SIGINT])
        moment = batch.server.counters.tokens + chance.uniform(0.01, 0.9 / kills) * whole
        with batch.start("--concurrency", "16", "--canary", "0") as process:
            batch.server.wait_until(partial(has_come_to, moment), timeout_s=60)
            process.send_signal(sign)
            if sign is signal.SIGINT and process.stderr.wait_for(b"stopping", 30):
                process.send_signal(sign)  # two that wait to be heard are one
            done = process.wait(60)
            assert done.returncode in {-signal.SIGKILL, 130} or is_whole(batch), done.errors
    done = batch.run("--concurrency", "16", timeout_s=300)
    assert done.returncode == 0, done.errors


def assert_paid_once(batch: Batch, most: float) -> None:
    """See that the server generated hardly more than one pass."""
    whole = batch.items * batch.length
    assert batch.server.counters.tokens <= most * whole


def test_kills(tmp_path: Path) -> None:
    with OracleProcess(vllm(delay_s=0.02)) as server:
        batch = Batch(tmp_path, server, items=40, length=60)
        go_through(batch, 4, seed=1)
        batch.assert_complete()
        assert_paid_once(batch, 1.1)
        assert batch.errors() == []
        batch.cli.assert_no_leftovers()


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(100))
def test_kills_exhaustively(tmp_path: Path, seed: int) -> None:
    with OracleProcess(vllm(delay_s=0.005)) as server:
        batch = Batch(tmp_path, server, items=200, length=100)
        go_through(batch, 3, seed)
        batch.assert_complete()
        assert_paid_once(batch, 1.05)
