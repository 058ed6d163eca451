"""A reply that is live in one process, looked at and reached for from another."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Json, Program, checked
from tests.support.processes import CliProcess

WORDS = " ".join(f"w{n}" for n in range(60))


@pytest.fixture
def live(program: Program) -> Iterator[CliProcess]:
    """A reply that has begun, in a process that stands still."""
    model = program.script(WORDS, delay_s=0.05)
    with program.start("run", "-m", model, "-n", "slowly") as process:
        assert process.stdout is not None
        process.kill_after_bytes(len("w0 w1"), signal.SIGSTOP)
        assert process.stdout.wait_for(b"w1", 20)
        yield process


def ended(live: CliProcess) -> str:
    """Let the process go on to its end and return all that it wrote."""
    live.send_signal(signal.SIGCONT)
    return checked(live.wait()).text


def listed(program: Program) -> Json:
    """What ``resume --list`` says of the one reply there is."""
    (row,) = json.loads(program.run("resume", "--list", "--json").text)
    return dict(row)


def test_who_reaches_for_it_is_told_where_it_is(program: Program, live: CliProcess) -> None:
    row = listed(program)
    assert row["pid"] == live.pid
    run = ("run", "-m", program.script("x"), "-n", "-c", "more")
    fork = f"'llmctl conversations fork {row['generation']}'"
    for words in (
        ("resume", row["generation"]),
        ("resume", row["conversation"], "--full"),
        ("conversations", "delete", row["conversation"]),
        run,
        (*run, "--keep"),
        (*run, "--drop"),
    ):
        done = program.run(*words)
        assert (done.returncode, done.text) == (2, ""), words
        assert done.errors == (
            f"llmctl: Reply {row['generation']} is live in another process (pid {live.pid}).\n"
            f"hint: Wait for it, stop it there, or {fork}.\n"
        )
    assert program.run("resume").returncode == 2
    assert program.run(*fork.strip("'").split()[1:]).returncode == 0
    assert ended(live) == WORDS


def test_who_looks_at_it_sees_that_it_is_live(program: Program, live: CliProcess) -> None:
    conversation = listed(program)["conversation"]
    shown = program.run("conversations", "show", conversation).text
    assert f"## assistant (live: pid {live.pid}, at " in shown
    exported = program.run("conversations", "export", conversation, "--format", "json").text
    reply = json.loads(exported)["messages"][-1]
    assert (reply["status"], reply["resumable"]) == ("live", False)
    assert WORDS.startswith(reply["content"])


def test_it_may_be_forked_where_it_stands(program: Program, live: CliProcess) -> None:
    fork = program.run("conversations", "fork", listed(program)["conversation"]).text.strip()
    began = program.run("resume", fork, "--full")
    assert (began.returncode, began.text) == (0, WORDS)
    assert "(prefix, text)" in began.errors
    assert ended(live) == WORDS
