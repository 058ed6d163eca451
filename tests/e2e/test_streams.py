"""stdin, stdout and stderr: what is written where, and what a stuck or absent end does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import Program
from tests.support.processes import CliProcess

pytestmark = pytest.mark.slow

LONG = "".join(f"line {n}\n" for n in range(12_000))  # longer than a pipe holds


@contextmanager
def stuck_pipe() -> Iterator[int]:
    """A pipe whose reader takes nothing."""
    out, into = os.pipe()
    try:
        yield into
    finally:
        os.close(out)
        os.close(into)


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_stdout_is_exactly_the_reply(program: Program) -> None:
    text = "a 世界 \U0001f642 e\u0301\n\n```py\nx = 1\n```\n"
    done = program.run("run", "-m", program.script(text), "hi")
    assert done.stdout == text.encode()
    assert done.errors == ""


def test_a_block_of_code_that_is_not_there_is_said_to_be_missing(program: Program) -> None:
    model = program.script("Look:\n```python\na = 1\n```\nThat is it.")
    done = program.run("run", "-m", model, "hi", "--extract", "python")
    assert (done.returncode, done.text, done.errors) == (0, "a = 1\n", "")
    done = program.run("run", "-m", model, "hi", "--extract", "rust")
    said = "llmctl: The reply has no block of code in rust.\n"
    assert (done.returncode, done.text, done.errors) == (0, "", said)
    done = program.run("run", "-m", model, "--extract", "hi")
    assert (done.returncode, done.text) == (2, "")
    assert "'hi' is the language for --extract" in done.errors


def test_reasoning_is_an_event_and_no_output(program: Program) -> None:
    model = program.script(chunks=[{"text": "hm", "channel": "reasoning"}, "so"])
    assert program.run("run", "-m", model, "hi").text == "so"
    done = program.told("run", "-m", model, "hi")
    assert [(e["channel"], e["position"]["chars"]) for e in done.of("delta")] == [
        ("reasoning", 0),
        ("content", 2),
    ]


def prompt_of(program: Program, words: list[str], stdin: bytes | None) -> str:
    """Return what the model was asked by a run with these arguments."""
    program.run("run", "-m", program.script("ok"), *words, stdin=stdin)
    shown = program.run("conversations", "export", "--format", "jsonl", newest(program)).text
    line = shown.splitlines()[0]
    return str(json.loads(line)["content"])


def newest(program: Program) -> str:
    return program.run("conversations", "list").text.split()[0]


@pytest.mark.parametrize(
    ("words", "stdin", "prompt"),
    [
        (["say", "this"], b"piped\n", "say this\n\npiped"),
        ([], b"only piped", "only piped"),
        (["-n", "say"], b"never read", "say"),
        (["\udcff odd"], None, "\ufffd odd"),
        (["-"], b"from the pipe\n", "from the pipe"),
    ],
)
def test_stdin_is_read_when_it_is_a_pipe(
    program: Program, words: list[str], stdin: bytes | None, prompt: str
) -> None:
    assert prompt_of(program, words, stdin) == prompt


def test_a_prompt_that_waits_for_stdin_says_so(program: Program) -> None:
    model = program.script("ok")
    with program.start("run", "-m", model, "hi", stdin=subprocess.PIPE) as process:
        assert process.stderr.wait_for(b"waiting for stdin", 20)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait().stdout == b"ok"


def test_standard_streams_may_be_closed(program: Program) -> None:
    command = " ".join(program.cli.command("run", "-m", program.script("ok"), "hi"))
    for redirect, code in (("<&-", 0), (">&-", 1), ("2>&-", 0), ("<&- 2>&-", 0)):
        done = subprocess.run(
            ["sh", "-c", f"exec {command} {redirect}"],
            env=program.cli.env,
            cwd=program.cli.cwd,
            capture_output=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == code, (redirect, done.stderr)
        assert done.stdout == (b"" if code else b"ok")
        assert b"Traceback" not in done.stderr


def stuck(program: Program, into: int, *options: str, both: bool = False) -> CliProcess:
    """Start a long reply into a pipe that nobody reads."""
    words = ("run", "-m", program.script(chunks=[LONG]), *options, "hi")
    wrap = ("sh", "-c", 'exec "$@" 2>&1', "sh") if both else ()
    return program.start(*words, stdout=into, wrap=wrap)


@pytest.mark.parametrize("both", [False, True])
def test_a_stuck_reader_is_subject_to_the_timeout(program: Program, both: bool) -> None:
    with stuck_pipe() as into, stuck(program, into, "--timeout", "500ms", both=both) as process:
        done = process.wait(15)
    assert done.returncode == 124
    if not both:
        assert "time limit" in done.errors


@pytest.mark.parametrize("both", [False, True])
def test_sigterm_ends_it_in_spite_of_a_stuck_reader(program: Program, both: bool) -> None:
    with stuck_pipe() as into, stuck(program, into, both=both) as process:
        journals = program.cli.data / "journals"
        until(lambda: any(b"delivered" in p.read_bytes() for p in journals.glob("*.jsonl")))
        sent_ns = process.send_signal(signal.SIGTERM)
        done = process.wait(15)
    assert done.returncode == 143
    assert (done.ended_ns - sent_ns) / 1e9 < 4.5  # promised: 1 s; the machine may be busy
    rest = program.run("resume", "--full")
    assert rest.text == LONG


def test_clocks_stand_still_while_a_slow_reader_reads(program: Program) -> None:
    out, into = os.pipe()
    model = program.script(chunks=[LONG])
    with program.start("run", "-m", model, "--timeout", "4s", "hi", stdout=into) as p:
        os.close(into)
        data = os.read(out, 8_000)
        for _ in range(6):  # longer than the limit in all, never in one go
            time.sleep(0.7)
            data += os.read(out, 8_000)
        while chunk := os.read(out, 1 << 16):
            data += chunk
        os.close(out)
        assert p.wait().returncode == 0
    assert data.decode() == LONG


def test_under_nohup_a_hangup_changes_nothing(program: Program) -> None:
    model = program.script(chunks=["one", {"text": " two", "delay_s": 0.4}])
    with program.start("run", "-m", model, "hi", wrap=("nohup",)) as process:
        process.kill_after_bytes(3, signal.SIGHUP)
        done = process.wait()
    assert (done.returncode, done.stdout) == (0, b"one two")


def test_a_job_in_the_background_leaves_interrupts_ignored(program: Program) -> None:
    model = program.script(chunks=["one", {"text": " two", "delay_s": 0.4}])
    wrap = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
    with program.start("run", "-m", model, "hi", wrap=wrap) as process:
        process.kill_after_bytes(3, signal.SIGINT)
        done = process.wait()
    assert (done.returncode, done.stdout) == (0, b"one two")


def test_the_first_cause_decides(program: Program) -> None:
    journals = program.cli.data / "journals"
    with stuck_pipe() as into, stuck(program, into) as process:
        until(lambda: any(b"delivered" in p.read_bytes() for p in journals.glob("*.jsonl")))
        process.send_signal(signal.SIGINT)
        # It has ended by then, and gives the reader who does not read another moment.
        until(lambda: any(b"SIGINT" in p.read_bytes() for p in journals.glob("*.jsonl")))
        process.send_signal(signal.SIGTERM)
        done = process.wait(15)
    assert done.returncode == 130
    assert "SIGINT" in done.errors


def test_of_signals_that_come_together_one_decides_alone(program: Program) -> None:
    # Which one, the system does not say: each may be handed to a thread of its own.
    model = program.script("one two", faults=[{"kind": "stall", "after": 1}])
    with program.start("run", "-m", model, "hi") as process:
        assert process.stdout is not None
        assert process.stdout.wait_for(b"one", 20)
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        done = process.wait()
    said = [name for name in ("SIGINT", "SIGTERM") if name in done.errors]
    assert (done.returncode, said) in [(130, ["SIGINT"]), (143, ["SIGTERM"])]


def test_stopped_time_does_not_count(program: Program) -> None:
    # Who is late for other reasons than this signal may run into the limit, but hardly thrice.
    assert b"one two" in (stopped_beyond_the_limit(program) for _ in range(3))


def stopped_beyond_the_limit(program: Program) -> bytes:
    model = program.script(chunks=["one", {"text": " two", "delay_s": 1.8}])
    with program.start("run", "-m", model, "--idle-timeout", "1s", "hi") as process:
        assert process.stdout is not None
        process.kill_after_bytes(3, signal.SIGSTOP)
        assert process.stdout.wait_for(b"one", 20)
        time.sleep(1.5)
        if process.stdout.data != b"one":
            return b""  # it was stopped too late
        process.send_signal(signal.SIGCONT)
        return process.wait().stdout


def test_no_store_leaves_nothing_on_disk(program: Program) -> None:
    before = files(program.cli.home)
    model = program.script("one !!M two")
    before |= files(program.cli.home)
    done = program.told("run", "-m", model, "--no-store", "hi")
    assert done.end["resumable"] is False
    paused = program.told("run", "-m", model, "--no-store", "--marker", "!!M", "hi")
    paused.ended("paused", "marker", 5, resumable=False)
    assert program.run("run", "-m", model, "--no-store", "-c", "hi").returncode == 2
    assert files(program.cli.home) == before


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}
