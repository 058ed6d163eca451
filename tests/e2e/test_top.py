"""``llmctl top``: what runs now, and only that."""

from __future__ import annotations

import json
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Program
from tests.support.batches import Batch, vllm
from tests.support.oracle_server import OracleServer
from tests.support.processes import Cli
from tests.support.pty_driver import PtyProgram
from tests.support.tmux import HAS_TMUX, PROMPT, Tmux

WORDS = "word " * 2000


def running(cli: Cli) -> list[dict[str, Any]]:
    done = cli.run("top", "--json")
    assert (done.returncode, done.errors) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.text)["running"]
    return found


@pytest.mark.slow
def test_a_live_reply_is_there_and_an_unfinished_one_is_not(program: Program) -> None:
    program.run("run", "-m", program.script("a b c"), "--pause-after", "1", "left behind")
    model = program.script(WORDS, delay_s=0.02)
    with program.start("run", "-m", model, "count\x1b]0;evil\x07 slowly") as process:
        assert process.stdout is not None
        assert process.stdout.wait_for(b"word word", 20)
        [task] = running(program.cli)
        assert task["pid"] == process.pid
        assert (task["what"], task["state"]) == ("run", "streaming")
        assert task["tokens"] >= 2
        assert task["model"] == model
        listed = program.run("top").text.splitlines()
        assert listed[0].split() == [
            "PID",
            "WHAT",
            "STATE",
            "DONE",
            "TOK/S",
            "AGE",
            "MODEL",
            "ABOUT",
        ]
        assert len(listed) == 2
        assert listed[1].endswith("slowly")
        assert "\x1b" not in listed[1]
        process.send_signal(signal.SIGINT)
        process.wait()
    assert running(program.cli) == []
    assert program.run("top").text.splitlines()[1:] == ["nothing runs"]


@pytest.mark.slow
def test_on_a_terminal_it_is_kept_up_to_date_until_ctrl_c(program: Program) -> None:
    model = program.script(WORDS, delay_s=0.02)
    cli = program.cli
    with PtyProgram(cli.command("top"), env=cli.env, cwd=cli.cwd) as terminal:
        terminal.wait_for_screen("nothing runs")
        before = terminal.attributes()
        with program.start("run", "-m", model, "hello there") as process:
            terminal.wait_for_screen("streaming")
            terminal.wait_for_screen("hello there")
            terminal.wait_for_screen(re.compile(r"tok +\d+ "))
            process.send_signal(signal.SIGTERM)
            process.wait()
        terminal.wait_for_screen("nothing runs")
        assert terminal.attributes() == before
        terminal.send(b"\x03")
        assert terminal.wait() == 0
    assert b"\x1b[?1049" not in terminal.output


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TMUX, reason="tmux is not installed")
def test_a_window_that_is_made_narrower_leaves_one_table(program: Program, tmp_path: Path) -> None:
    cli = program.cli
    model = program.script(WORDS, delay_s=0.02)
    with (
        Tmux(tmp_path, env=cli.env, cwd=cli.cwd, columns=110, rows=20) as tmux,
        program.start("run", "-m", model, "a question of many words " * 3) as process,
    ):
        tmux.type("seq 30", "Enter")
        tmux.wait_for("^30$")
        tmux.type(shlex.join(cli.command("top")), "Enter")
        for columns in (110, 45, 30, 90, 20, 60):
            tmux.resize(columns, 20)
            tmux.wait_for(rf"^ *PID.*\n *{process.pid} .{{{columns - 8 - len(str(process.pid))}}}")
            assert tmux.screen.count("PID") == 1
        process.send_signal(signal.SIGTERM)
        tmux.wait_for("^nothing runs")
        tmux.press("C-c")
        tmux.wait_for(rf"^nothing runs\n{re.escape(PROMPT)}")
        rows = tmux.transcript.split("\n")
        assert rows[-3].split()[0] == "PID"
        assert sum("PID" in row for row in rows) == 1
        assert "30" in rows


@pytest.mark.slow
def test_a_batch_is_there_while_it_runs_and_its_notice_goes_with_it(tmp_path: Path) -> None:
    with OracleServer(vllm(delay_s=0.05)) as server:
        batch = Batch(tmp_path, server, items=4, length=60)
        with batch.start("--json") as process:
            assert process.stdout is not None
            assert process.stdout.wait_for(b'"progress"', 20)
            [task] = running(batch.cli)
            assert (task["pid"], task["what"], task["id"]) == (
                process.pid,
                "batch",
                str(batch.output),
            )
            assert task["done"].endswith("/4 items")
            process.send_signal(signal.SIGKILL)
            process.wait()
        notices = Path(batch.cli.env["LLMCTL_HOME"]) / "batches"
        assert len(list(notices.iterdir())) == 1
        assert running(batch.cli) == []
        assert list(notices.iterdir()) == []
