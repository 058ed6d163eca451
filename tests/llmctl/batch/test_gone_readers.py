"""Nobody reads what a run says any more: it stops once, keeps all, and says nothing of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmctl.batch import Job, run
from llmctl.batch.watchers import Quiet
from tests.support.batches import Batch, vllm
from tests.support.oracle_server import OracleServer


class Gone(Quiet):
    """Its reader leaves when it is told of this."""

    def __init__(self, moment: str) -> None:
        self._moment = moment
        self._is_gone = False
        self.heard_since = 0

    def _hear(self, moment: str) -> None:
        self.heard_since += self._is_gone
        if moment == self._moment:
            self._is_gone = True
            raise BrokenPipeError

    def begin(self, *_: Any) -> None:
        self._hear("begin")

    def ended(self, *_: Any) -> None:
        self._hear("ended")

    async def watch(self, *_: Any) -> None:
        if self._moment == "watch":
            self._hear("watch")
        await anyio.sleep_forever()

    def end(self, *_: Any) -> None:
        self._hear("end")


@pytest.mark.parametrize("moment", ["begin", "watch", "ended", "end"])
def test_a_reader_that_leaves_stops_the_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setenv("LLMCTL_HOME", str(tmp_path / "home"))
    with OracleServer(vllm(delay_s=0.002)) as server:
        batch = Batch(tmp_path, server, items=12)
        job = Job(input=batch.input, output=batch.output, base_urls=(server.base_url,), canary=0)
        gone = Gone(moment)
        report = run(job, model="oracle", progress=gone)
        assert (report.status, report.cause, report.error) == (141, "closed pipe", None)
        assert gone.heard_since == 0
        assert (report.left == 0) is (moment == "end")
        assert report.left == 12 - len(batch.rows())
        assert {row["llmctl"]["standing"] for row in batch.errors()} <= {"stopped"}
        done = {row["custom_id"] for row in batch.rows()}
        assert done.isdisjoint(row["custom_id"] for row in batch.errors())
        assert run(job, model="oracle").status == 0
        batch.assert_complete()
        assert batch.errors() == []


@pytest.mark.slow
def test_events_into_head_end_quietly_with_141(tmp_path: Path) -> None:
    with OracleServer(vllm(delay_s=0.002)) as server:
        batch = Batch(tmp_path, server, items=30)
        command = batch.cli.command(*batch.words("--json", "--concurrency", "4"))
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=batch.cli.env
        )
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            first = [process.stdout.readline() for _ in range(5)]
            process.stdout.close()
            said = process.stderr.read()
            assert (process.wait(30), said) == (141, b"")
        assert all(line.startswith(b'{"type"') for line in first)
        assert 0 < len(batch.rows()) < 30
        assert batch.run().returncode == 0
        batch.assert_complete()
