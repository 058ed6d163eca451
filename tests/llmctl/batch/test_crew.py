"""Many workers for one batch: a death loses nothing, a refusal is heard by all.

The workers here are real and share the test's process; only that they are made and die is
played. `tests/e2e/test_batch_ray.py` does the same with processes under Ray.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from llmctl.batch import Job, Report
from llmctl.batch.engines.crew import Hand, WorkerLost
from llmctl.batch.engines.worker import Brief, Order, Worker
from llmctl.batch.engines.worker import Report as Told
from llmctl.batch.program import Program
from llmctl.config import load
from llmctl.environment import Environment
from tests.support.batches import Batch, prompt, vllm
from tests.support.oracle_server import Fault, OracleServer, Script, Settings
from tests.support.oracle_wire import Feature

RETRY_AFTER_S = 1.0


class Colleague:
    """A worker in this process; ``dies_with`` tokens reported, it does as if it were killed."""

    def __init__(self, brief: Brief, dies_with: int | None) -> None:
        self._worker = Worker(brief)
        self._left = dies_with
        self._dead = False

    async def take(self, orders: list[Order]) -> None:
        self._check()
        await self._worker.take(orders)

    async def report(self) -> Told:
        self._check()
        told = await self._worker.report()
        if self._left is not None:
            self._left -= sum(told.units.values())
            if self._left <= 0:
                self.kill()
        self._check()
        return told

    async def leave(self) -> None:
        self._check()
        await self._worker.leave()

    def kill(self) -> None:
        if self._dead:
            return
        self._dead = True
        live, self._worker._live._fd = self._worker._live._fd, None  # a kill is the last word
        if live is not None:
            os.close(live)
        for task in self._worker._tasks:
            task.cancel()
        if self._worker._fleet is not None:
            self._closing = asyncio.ensure_future(self._worker._fleet.aclose())

    def _check(self) -> None:
        if self._dead:
            raise WorkerLost("killed")


class Office:
    """A cluster of colleagues; the first ones die."""

    def __init__(self, *dying: int, size: int = 2) -> None:
        self.size = size
        self.hired = 0
        self._dying = list(dying)

    def hire(self, brief: Brief) -> Hand:
        self.hired += 1
        return Colleague(brief, self._dying.pop(0) if self._dying else None)

    def close(self) -> None:
        """Nothing was started."""


def run(batch: Batch, office: Office, monkeypatch: pytest.MonkeyPatch, **job: int) -> Report:
    monkeypatch.setattr(Program, "_cluster", lambda _: office)
    env = Environment.of_process().at_home(batch.cli.env["LLMCTL_HOME"])
    what = Job(input=batch.input, output=batch.output, engine="ray", **job)  # type: ignore[arg-type]
    config = load(env, flags={"model": "oracle/oracle"})
    return Program(what, config, env, key_for=lambda _: None).run()


def test_what_a_dead_worker_had_goes_on_at_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OracleServer(vllm(delay_s=0.005)) as server:
        batch = Batch(tmp_path, server, items=24, length=60)
        office = Office(120, 200)
        report = run(batch, office, monkeypatch, concurrency=8, canary=0)
        assert (report.status, office.hired) == (0, 4)
        batch.assert_complete()
        gone_on = [row["llmctl"] for row in batch.rows() if row["llmctl"]["resumes"]]
        assert len(gone_on) >= 4
        assert sum(facts["wasted_tokens"] for facts in gone_on) == 0
        assert {facts["resumes"][0]["strategy"] for facts in gone_on} == {"tokens"}
        assert list(batch.state.glob("live-*")) == []


def test_workers_that_only_die_end_the_run_and_keep_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OracleServer(vllm()) as server:
        batch = Batch(tmp_path, server, items=4)
        report = run(batch, Office(0, 0, 0, 0, size=1), monkeypatch)
        assert (report.status, report.left) == (1, 4)
        assert report.error is not None
        assert "workers die" in report.error.message
        assert run(batch, Office(), monkeypatch).status == 0
        batch.assert_complete()


def test_a_refusal_that_one_worker_hears_holds_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OracleServer(vllm(delay_s=0.002)) as server:
        batch = Batch(tmp_path, server, items=40)
        fault = Fault("http", status=429, retry_after=str(RETRY_AFTER_S))
        server.enqueue(Script(fault=fault, match=prompt(9, 30)))
        assert run(batch, Office(), monkeypatch, concurrency=6, canary=0).status == 0
        batch.assert_complete()
        (refusal,) = [record for record in server.requests if record.status == 429]
        assert refusal.ended_ns is not None
        on_their_way = refusal.ended_ns + 100_000_000
        after = [r.arrived_ns for r in server.requests if r.arrived_ns > on_their_way]
        assert min(after) >= refusal.ended_ns + RETRY_AFTER_S * 1e9


def test_what_the_server_counted_is_told_by_workers_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OracleServer(Settings(features=(Feature.USAGE,), tokens_per_chunk=8)) as server:
        batch = Batch(tmp_path, server, items=6, length=40)
        assert run(batch, Office(), monkeypatch).tally.units == 6 * 40
