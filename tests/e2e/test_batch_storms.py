"""Storms: a server that refuses, breaks, cuts and stalls loses no item and is asked politely."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.batches import Batch, vllm
from tests.support.oracle_server import Fault, OracleServer, Record, Script

pytestmark = pytest.mark.slow

RETRY_AFTER_S = 0.5
STORM = (
    (0.30, Fault("http", status=429, retry_after=str(RETRY_AFTER_S))),
    (0.10, Fault("http", status=500)),
    (0.05, Fault("cut", after_tokens=7)),
    (0.05, Fault("stall", after_tokens=7)),
)


def weather(requests: int, seed: int) -> list[Script]:
    """Return what happens to so many requests."""
    chance = random.Random(seed)  # noqa: S311
    shares, faults = [share for share, _ in STORM], [fault for _, fault in STORM]
    drawn = chance.choices([*faults, None], [*shares, 1 - sum(shares)], k=requests)
    return [Script(fault=fault) for fault in drawn]


def early(requests: list[Record]) -> int:
    """Count the requests that came before a refusal's time, having been sent after it."""
    refusals = [r.ended_ns for r in requests if r.status == 429 and r.ended_ns is not None]
    on_their_way_ns = 200_000_000  # written before the refusal arrived, read by the server after
    return sum(
        any(end + on_their_way_ns < r.arrived_ns < end + RETRY_AFTER_S * 1e9 for end in refusals)
        for r in requests
    )


def go_through(folder: Path, items: int, seed: int) -> None:
    with OracleServer(vllm()) as server:
        batch = Batch(folder, server, items=items, length=20)
        server.enqueue(*weather(items, seed))
        poison = Script(fault=Fault("garbage", after_tokens=3), match="question 0 ")
        server.enqueue(*[poison] * 10)
        done = batch.run("--concurrency", "16", "--idle-timeout", "1", "--canary", "0",
                         timeout_s=500)  # fmt: skip
        assert done.returncode in {0, 8}, done.errors
        rows, errors = batch.rows(), batch.errors()
        assert len(rows) + len(errors) == items
        assert {row["custom_id"] for row in errors} <= {"row-0"}
        expected = batch.expected()
        assert all(expected[name] == text for name, text in batch.contents().items())
        assert early(server.requests) == 0


def test_a_storm(tmp_path: Path) -> None:
    go_through(tmp_path, 80, seed=1)


@pytest.mark.exhaustive
def test_a_long_storm(tmp_path: Path) -> None:
    go_through(tmp_path, 1000, seed=2)
