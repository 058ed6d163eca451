"""What goes wrong around a batch: a full disk, a state that vanishes, odd or growing input."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.batches import Batch, prompt, vllm
from tests.support.oracle_server import Fault, OracleServer, Script

pytestmark = pytest.mark.slow

FULL = ("prlimit", "--fsize=6000")
NO_PYC = {"PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def server() -> Iterator[OracleServer]:
    with OracleServer(vllm(delay_s=0.005)) as server:
        yield server


@pytest.fixture
def batch(tmp_path: Path, server: OracleServer) -> Batch:
    return Batch(tmp_path, server, items=30, length=40)


def test_a_full_disk_ends_it_and_damages_nothing(batch: Batch) -> None:
    with batch.start("--concurrency", "4", wrap=FULL, env=NO_PYC) as process:
        done = process.wait(60)
    assert done.returncode == 1, done.errors
    assert "what arrives is no longer being saved" in done.errors
    assert "OUTPUT can't be written" in done.errors
    assert "Traceback" not in done.errors
    before = batch.rows()  # every line of it is whole
    assert 0 < len(before) < 30
    assert batch.run("--concurrency", "8").returncode == 0
    assert batch.rows()[: len(before)] == before
    batch.assert_complete()


def test_a_state_that_vanishes_takes_no_result_along(batch: Batch, server: OracleServer) -> None:
    server.enqueue(Script(hold_at=20, match=prompt(9, 40)))
    with batch.start("--concurrency", "4") as process:
        server.wait_until(lambda counters: counters.held == 1, timeout_s=30)
        shutil.rmtree(batch.state)
        server.release()
        done = process.wait(60)
    assert done.returncode == 0, done.errors
    batch.assert_complete()
    asked = server.counters.requests
    assert batch.run().returncode == 0
    assert server.counters.requests == asked


def test_lines_that_come_while_it_runs_belong_to_the_next_run(
    batch: Batch, server: OracleServer
) -> None:
    batch.write(range(20))
    first = batch.input.read_bytes()
    batch.write(range(30))
    rest = batch.input.read_bytes()[len(first) :]
    batch.input.write_bytes(first)
    server.enqueue(Script(hold_at=20, match=prompt(1, 40)))
    with batch.start("--concurrency", "2") as process:
        server.wait_until(lambda counters: counters.held == 1, timeout_s=30)
        with batch.input.open("ab") as file:
            file.write(rest)
        server.release()
        done = process.wait(60)
    assert done.returncode == 0, done.errors
    batch.assert_complete(range(20))
    assert batch.run().returncode == 0
    batch.assert_complete()


def test_a_line_of_a_hundred_megabytes_is_refused_by_its_number(
    batch: Batch, server: OracleServer
) -> None:
    good = batch.input.read_bytes()
    with batch.input.open("ab") as file:
        file.write(b'{"id": "huge", "prompt": "')
        file.writelines([b"x" * (1 << 20)] * 100)
        file.write(b'"}\n')
    done = batch.run()
    assert done.returncode == 2
    assert "line 31: longer than 64 MiB" in done.errors
    assert server.counters.requests == 0
    batch.input.write_bytes(good)
    assert batch.run("--concurrency", "8").returncode == 0


def test_a_quota_that_ends_is_exit_3_and_the_rest_waits(batch: Batch, server: OracleServer) -> None:
    spent = Fault("http", status=429, code="insufficient_quota", message="You have no money left.")
    server.enqueue(Script(fault=spent, match=prompt(12, 40)))
    done = batch.run("--concurrency", "2")
    assert done.returncode == 3, done.errors
    assert "quota" in done.errors.lower() or "money" in done.errors
    assert 10 <= len(batch.rows()) < 30
    assert batch.run("--concurrency", "8").returncode == 0
    batch.assert_complete()


def test_an_output_that_cannot_be_made_is_told_before_anything_is_asked(
    batch: Batch, server: OracleServer, tmp_path: Path
) -> None:
    words = ["batch", str(batch.input), "-m", "oracle/oracle", "--state", str(tmp_path / "state")]
    done = batch.cli.run(*words, "-o", "/proc/replies.jsonl")
    assert done.returncode == 2
    assert "can't be written" in done.errors
    done = batch.cli.run(*words[:-2], "-o", "/proc/replies.jsonl")
    assert done.returncode == 2
    assert "--state DIR" in done.errors
    assert server.counters.requests == 0
