"""``--engine ray``: workers and the process that leads them may be killed, as with one process."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.batches import Batch, vllm
from tests.support.oracle_server import OracleProcess
from tests.support.processes import CliProcess, descendants

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: make test-ray")
pytestmark = pytest.mark.slow

RAY = ("--engine", "ray", "--concurrency", "32", "--canary", "0")
START_S = 120


def workers(process: CliProcess) -> list[int]:
    return [found.pid for found in descendants(process.pid) if "ray::Worker" in found.command]


def assert_listens_here_only(process: CliProcess) -> None:
    """See that nobody beyond this machine can reach what was started."""
    pids = {process.pid, *(found.pid for found in descendants(process.pid))}
    told = subprocess.run(["ss", "-Htlnp"], capture_output=True, text=True, check=True).stdout
    ours = [line.split()[3] for line in told.splitlines() if any(f"pid={p}," in line for p in pids)]
    assert ours
    assert [address for address in ours if "127.0.0.1" not in address] == []


def go_through(batch: Batch) -> None:
    """Kill a worker, then all of it, then run to the end."""
    whole = batch.items * batch.length
    with batch.start(*RAY) as process:
        batch.server.wait_until(lambda c: c.tokens > 0.2 * whole, timeout_s=START_S)
        assert_listens_here_only(process)
        os.kill(workers(process)[0], signal.SIGKILL)
        batch.server.wait_until(lambda c: c.tokens > 0.5 * whole, timeout_s=START_S)
        assert b"a worker died with" in process.stderr.data
        process.send_signal(signal.SIGKILL)
        process.wait(START_S)
    done = batch.run(*RAY, timeout_s=600)
    assert done.returncode == 0, done.errors
    batch.assert_complete()
    assert batch.server.counters.tokens <= 1.05 * whole
    assert list(batch.state.glob("live-*")) == []
    batch.cli.assert_no_leftovers(START_S)  # Ray's agents look after their parent now and then


@needs_ray
def test_a_killed_worker_and_a_killed_leader(tmp_path: Path) -> None:
    with OracleProcess(vllm(delay_s=0.01)) as server:
        go_through(Batch(tmp_path, server, items=120, length=60))


@needs_ray
def test_sigterm_drains(tmp_path: Path) -> None:
    with OracleProcess(vllm(delay_s=0.05)) as server:
        batch = Batch(tmp_path, server, items=40, length=60)
        with batch.start(*RAY, "--concurrency", "4") as process:
            server.wait_until(lambda c: c.tokens > 20, timeout_s=START_S)
            process.send_signal(signal.SIGTERM)
            done = process.wait(60)
        assert done.returncode == 143, done.errors
        assert len(batch.rows()) == 4
        assert batch.run("--concurrency", "40").returncode == 0  # by the other engine
        batch.assert_complete()


@needs_ray
@pytest.mark.exhaustive
def test_two_thousand_items(tmp_path: Path) -> None:
    with OracleProcess(vllm(delay_s=0.01)) as server:
        go_through(Batch(tmp_path, server, items=2000, length=60))


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_it_is_said_what_to_install(tmp_path: Path) -> None:
    with OracleProcess(vllm()) as server:
        batch = Batch(tmp_path, server, items=2)
        done = batch.run("--engine", "ray")
        assert done.returncode == 2
        assert "llmctl[ray]" in done.errors


def test_the_embedded_engine_is_for_one_process(tmp_path: Path) -> None:
    with OracleProcess(vllm()) as server:
        batch = Batch(tmp_path, server, items=2)
        words = ["batch", str(batch.input), "-o", str(batch.output), "-m", "local"]
        done = batch.cli.run(*words, "--engine", "ray")
        assert done.returncode == 2
        assert "--engine ray asks servers" in done.errors
