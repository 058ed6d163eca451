"""What becomes of a chat when other processes, the disk or the settings change under it."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.conftest import Program
from tests.support.oracle_server import OracleServer, Settings
from tests.support.processes import Cli
from tests.support.pty_driver import PtyProgram
from tests.support.read_only import can_be_read_only, read_only

pytestmark = pytest.mark.slow

PROMPT = re.compile(r"^>\s*\Z", re.MULTILINE)
TEXT = "".join(f"w{n} " for n in range(400))


@contextmanager
def chat(cli: Cli, model: str, *more: str, wrap: tuple[str, ...] = ()) -> Iterator[PtyProgram]:
    words = (*wrap, *cli.command("chat", "-m", model, *more))
    with PtyProgram(words, env=cli.env, cwd=cli.cwd, columns=100, rows=30) as terminal:
        terminal.wait_for_screen(PROMPT, timeout_s=20)
        yield terminal
        terminal.send(b"\x15\x04")
        assert terminal.wait() == 0


def stop_one(terminal: PtyProgram) -> None:
    terminal.send("hello\r")
    terminal.wait_for_screen("w5")
    terminal.send_keys("ctrl-c")
    terminal.wait_for_screen(re.compile(r"/resume goes on.*\n>\s*\Z", re.MULTILINE))


@pytest.mark.parametrize("act", ["more", "/resume", "/keep", "/drop", "/edit"])
def test_a_reply_that_was_ended_elsewhere_ends_no_chat(program: Program, act: str) -> None:
    program.cli.env["EDITOR"] = "sed -i s/w0/v0/"
    with chat(program.cli, program.script(TEXT, delay_s=0.01)) as terminal:
        stop_one(terminal)
        assert program.run("resume").returncode == 0
        terminal.send(f"{act}\r")
        terminal.wait_for("has just been ended elsewhere.")
        terminal.wait_for_screen(re.compile(r"^>( more)?\s*\Z", re.MULTILINE))
        seen = len(terminal.output)
        terminal.send("\x15again\r")
        terminal.wait_for("w5", since=seen)
        terminal.send_keys("ctrl-c")
        terminal.wait_for("/resume goes on", since=seen)
    (row,) = program.run("conversations", "list").text.splitlines()
    whole = program.run("conversations", "export", row.split()[0]).text
    assert f"{TEXT}\n" in whole
    assert "again" in whole


def test_a_message_waits_for_a_reply_that_is_live_elsewhere(program: Program) -> None:
    with chat(program.cli, program.script(TEXT, delay_s=0.01)) as terminal:
        stop_one(terminal)
        with program.start("resume") as elsewhere:
            assert elsewhere.stdout is not None
            assert elsewhere.stdout.wait_for(b"w", 20)
            terminal.send("more\r")
            terminal.wait_for("is live in another process")
            terminal.wait_for_screen(re.compile(r"^> more\s*\Z", re.MULTILINE))
            elsewhere.send_signal(signal.SIGINT)
            elsewhere.wait()
        seen = len(terminal.output)
        terminal.send("\r")  # it is there, and can be sent now
        terminal.wait_for("w5", since=seen)
        terminal.send_keys("ctrl-c")
        terminal.wait_for("/resume goes on", since=seen)


def test_a_model_that_is_not_there_any_more_leaves_the_reply_free(program: Program) -> None:
    config = program.cli.data / "config.toml"
    program.cli.data.mkdir()
    with OracleServer(Settings(length=30)) as server:
        config.write_text(f'[profiles.here]\nbase_url = "{server.base_url}"\n')
        program.run("run", "-m", "here/oracle", "--pause-after", "3", "hi")
    config.write_text("")
    with chat(program.cli, program.script("another answer"), "-c") as terminal:
        for _ in range(2):
            seen = len(terminal.output)
            terminal.send("/resume\r")
            terminal.wait_for("No back end is called", since=seen)
            terminal.wait_for_screen(PROMPT)
        terminal.send("more\r")
        terminal.wait_for("another answer")
        terminal.wait_for_screen(PROMPT)


def test_a_chat_in_a_home_that_can_only_be_read_goes_on_unsaved(program: Program) -> None:
    if not can_be_read_only(program.cli.home):
        pytest.skip("no mount can be made read-only here")
    wrap = read_only(program.cli.home)
    with chat(program.cli, program.script("the answer"), wrap=wrap) as terminal:
        for question in ("one", "two"):
            terminal.send(f"{question}\r")
            terminal.wait_for_screen(re.compile(r"· stop\s*\n>\s*\Z"))
            terminal.send("/clear\r")
            terminal.wait_for_screen(re.compile(r"\A\s*>\s*\Z"))
        terminal.send("/stats\r")
        terminal.wait_for_screen("4 messages")
    assert terminal.output.count(b"no longer being saved: Read-only file system.") == 1


def test_a_hint_is_for_the_prompt_at_which_it_was_given(program: Program) -> None:
    with chat(program.cli, program.script("the answer")) as terminal:
        terminal.send("\x03")
        terminal.wait_for("Ctrl-C again")
        seen = len(terminal.output)
        terminal.send("hi\r")
        terminal.wait_for("· stop", since=seen)
        terminal.wait_for_screen(PROMPT)
        terminal.send("\x03")
        terminal.wait_for("Ctrl-C again", since=seen)
