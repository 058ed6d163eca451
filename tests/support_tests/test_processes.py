"""The process helpers, shown on small Python programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import (
    HAS_PROC,
    Cli,
    clean_environment,
    descendants,
    group_members,
    session_members,
)

needs_proc = pytest.mark.skipif(not HAS_PROC, reason="needs /proc")

COUNT = "import sys\nfor n in range(10**6): sys.stdout.write(f'{n:09}\\n')"
SLEEP = "import time; print('up', flush=True); time.sleep(60)"
# Starts a sleeper in a session of its own, with an empty environment, and leaves it behind.
ABANDON = """
import subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(60)"],
    start_new_session=True, env={}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
print(child.pid)
"""


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path, program=("-c",))
    yield made
    made.kill_leftovers()


def test_environment_inherits_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "HTTPS_PROXY", "XDG_CONFIG_HOME", "NO_COLOR"):
        monkeypatch.setenv(name, "leaked")
    env = clean_environment(tmp_path, {"EXTRA": "1"})
    assert "leaked" not in env.values()
    assert env["HOME"] == str(tmp_path)
    assert env["LLMCTL_HOME"].startswith(str(tmp_path))
    assert env["EXTRA"] == "1"


def test_run_collects_both_streams_and_the_status(cli: Cli) -> None:
    program = "import sys; print(sys.stdin.read()); print('bad', file=sys.stderr); sys.exit(7)"
    done = cli.run(program, stdin=b"hello")
    assert (done.returncode, done.text, done.errors) == (7, "hello\n", "bad\n")
    assert 0 < done.seconds < 30


def test_input_is_empty_unless_given(cli: Cli) -> None:
    assert cli.run("import sys; print(repr(sys.stdin.read()))").text == "''\n"


def test_kill_at_a_byte_is_exact_and_keeps_the_rest(cli: Cli) -> None:
    with cli.start(COUNT, kill_at=12_345) as process:
        done = process.wait()
    assert done.returncode == -signal.SIGKILL
    assert 12_345 <= len(done.stdout) < 10**7
    assert process.stdout is not None
    sizes = [len(chunk.data) for chunk in process.stdout.chunks]
    assert any(sum(sizes[:count]) == 12_345 for count in range(len(sizes) + 1))


def test_a_signal_after_so_many_bytes_of_a_running_program(cli: Cli) -> None:
    with cli.start(COUNT) as process:
        process.kill_after_bytes(100_000, signal.SIGTERM)
        done = process.wait()
    assert done.returncode == -signal.SIGTERM
    assert len(done.stdout) >= 100_000


def test_kill_after_seconds_with_any_signal(cli: Cli) -> None:
    with cli.start(SLEEP) as process:
        assert process.stdout is not None
        assert process.stdout.wait_for(b"up", 10)
        process.kill_after(0.01, signal.SIGTERM)
        assert process.wait().returncode == -signal.SIGTERM


def test_chunks_carry_times_in_order(cli: Cli) -> None:
    with cli.start(SLEEP) as process:
        assert process.stdout is not None
        assert process.stdout.wait_for_bytes(3, 10)
        (chunk,) = process.stdout.chunks
        assert process.started_ns < chunk.at_ns < process.send_signal(signal.SIGKILL)


def test_waiting_for_what_never_comes_fails(cli: Cli) -> None:
    with cli.start(SLEEP) as process:
        with pytest.raises(TimeoutError, match="still runs"):
            process.wait(0.02)
        assert process.stdout is not None
        assert not process.stdout.wait_for(b"never", 0.02)


def test_leaving_the_block_kills(cli: Cli) -> None:
    with cli.start(SLEEP) as process:
        pass
    assert process.poll() == -signal.SIGKILL


def test_wrapped_and_redirected(cli: Cli) -> None:
    target = cli.home / "out"
    with (
        target.open("wb") as out,
        cli.start("print(1)", wrap=("env", "-u", "HOME"), stdout=out) as p,
    ):
        assert p.wait().returncode == 0
    assert target.read_bytes() == b"1\n"


@needs_proc
def test_leftovers_are_found_though_orphaned_and_in_another_session(cli: Cli) -> None:
    pid = int(cli.run(ABANDON).text)
    assert [found.pid for found in cli.leftovers()] == [pid]
    with pytest.raises(AssertionError, match=r"left running: .*time\.sleep"):
        cli.assert_no_leftovers(timeout_s=0)
    os.kill(pid, signal.SIGKILL)
    cli.assert_no_leftovers()


@needs_proc
def test_leftovers_of_another_cli_are_not_ours(cli: Cli, tmp_path: Path) -> None:
    other = Cli(tmp_path / "other", program=("-c",))
    with cli.start(SLEEP) as process:
        assert [found.pid for found in cli.leftovers()] == [process.pid]
        assert other.leftovers() == []


@needs_proc
def test_groups_sessions_and_descendants(cli: Cli) -> None:
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}])"
    with cli.start(program) as process:
        assert process.stdout is not None
        assert process.stdout.wait_for(b"up", 10)
        (child,) = descendants(process.pid)
        assert child.parent == process.pid
        both = {process.pid, child.pid}
        assert {found.pid for found in group_members(process.pid)} == both
        assert {found.pid for found in session_members(process.pid)} == both
        process.send_group_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 10
    while group_members(process.pid):  # its child may still be on its way out
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_standard_input_can_be_a_pipe(cli: Cli) -> None:
    with cli.start("print(input())", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"typed\n")
        process.stdin.close()
        assert process.wait().stdout == b"typed\n"


def test_command_is_what_start_runs(cli: Cli) -> None:
    assert cli.command("x") == (sys.executable, "-c", "x")
