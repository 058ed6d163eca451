"""The terminal driver, shown on small Python programs and on a shell."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import clean_environment
from tests.support.pty_driver import PtyProgram

Start = Callable[..., PtyProgram]

# Raw mode; names each byte it reads; restores the terminal on q, not on x.
KEY_ECHO = """
import os, sys, termios, tty
before = termios.tcgetattr(0)
tty.setraw(0, termios.TCSANOW)
os.write(1, b"ready\\r\\n")
while (byte := os.read(0, 1)) not in b"qx":
    os.write(1, b"<%02x>" % byte[0])
if byte == b"q":
    termios.tcsetattr(0, termios.TCSANOW, before)
sys.exit(5)
"""


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def make(program: str, **options: int) -> PtyProgram:
        env = clean_environment(tmp_path)
        return PtyProgram([sys.executable, "-c", program], env=env, **options)  # type: ignore[arg-type]

    return make


def test_size_is_set_before_the_start(start: Start) -> None:
    with start("import os; print(os.get_terminal_size())", columns=91, rows=17) as program:
        program.wait_for("columns=91, lines=17")
        assert program.wait() == 0


def test_it_is_a_controlling_terminal(start: Start) -> None:
    check = (
        "import os; open('/dev/tty').close(); print(os.getsid(0) == os.getpid() == os.tcgetpgrp(0))"
    )
    with start(check) as program:
        program.wait_for("True")


def test_keys_arrive_and_reads_are_timed(start: Start) -> None:
    with start(KEY_ECHO) as program:
        program.wait_for("ready")
        pressed = program.send_keys("space", "up", "ctrl-c")
        seen = program.wait_for("<20><1b><5b><41><03>")
        assert pressed < seen.at_ns <= time.monotonic_ns()
        program.paste("hi")
        program.wait_for("<7e><68><69><1b>", since=seen.end)
        assert [read.at_ns for read in program.reads] == sorted(r.at_ns for r in program.reads)
        program.send("q")
        assert program.wait() == 5


def test_attributes_tell_restored_from_left_raw(start: Start) -> None:
    for key, restored in (("q", True), ("x", False)):
        with start(KEY_ECHO) as program:
            program.wait_for("ready")
            assert not program.echoes()
            program.send(key)
            assert program.wait() == 5
            assert (program.attributes() == program.attributes_at_start) is restored


def test_cursor_position_is_answered_even_when_the_request_is_split(start: Start) -> None:
    ask = (
        "import os, tty, termios; tty.setraw(0, termios.TCSANOW); os.write(1, b'abc\\r\\nde');"
        "os.write(1, b'\\x1b'); os.write(1, b'[6n'); print(repr(os.read(0, 20)))"
    )
    with start(ask) as program:
        program.wait_for(r"\x1b[2;3R")


def test_screen_is_what_a_person_sees(start: Start) -> None:
    with start("print('\\x1b[1mone\\x1b[0m\\ntwo\\x1b[1A\\rO世', end='', flush=True)") as program:
        program.wait()
        assert program.screen[:2] == ["O世", "two"]
        assert program.cursor == (3, 0)
        assert b"\x1b[1m" in program.output


def test_screen_scrolls_into_history(start: Start) -> None:
    with start("for n in range(40): print('row', n)", rows=10) as program:
        program.wait()
        assert [row for row in program.scrollback if row] == [f"row {n}" for n in range(40)]
        assert program.screen[0] == "row 31"


def test_wait_for_screen_sees_through_colours(start: Start) -> None:
    painted = "print('\\x1b[31mPAU\\x1b[32mSED\\x1b[0m at 12', flush=True); input()"
    with start(painted) as program:
        assert program.wait_for_screen(re.compile(r"PAUSED at (\d+)")).text == "PAUSED at 12"
        with pytest.raises(TimeoutError, match="PAUSED"):
            program.wait_for("PAUSED", timeout_s=0.02)


def test_waiting_in_vain_says_what_was_seen(start: Start) -> None:
    with start("print('only this', flush=True); input()") as program:
        program.wait_for("only")
        with pytest.raises(TimeoutError, match=r"(?s)not in .* only this"):
            program.wait_for("that", timeout_s=0.02)
        with pytest.raises(TimeoutError, match="still runs"):
            program.wait(0.02)


def test_the_end_of_the_program_ends_the_wait(start: Start) -> None:
    began = time.monotonic()
    with start("print('last words')") as program:
        with pytest.raises(TimeoutError, match="ended"):
            program.wait_for("never", timeout_s=30)
        program.wait_for("last words")
    assert time.monotonic() - began < 10


def test_output_is_drained_without_anyone_looking(start: Start) -> None:
    with start("import sys; sys.stdout.write('x' * 2_000_000)") as program:
        assert program.wait() == 0
        assert program.output.count(b"x") == 2_000_000


def test_resize_signals_the_program(start: Start) -> None:
    watch = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGWINCH,"
        " lambda *_: os.write(1, b'%d x %d' % os.get_terminal_size()))\n"
        "print('up', flush=True)\nwhile True: time.sleep(0.01)"
    )
    with start(watch) as program:
        program.wait_for("up")
        program.resize(60, 20)
        program.wait_for("60 x 20")
        assert len(program.screen) == 20


def test_hanging_up_is_sighup(start: Start) -> None:
    with start("print('up', flush=True)\nimport time; time.sleep(60)") as program:
        program.wait_for("up")
        program.hang_up()
        assert program.wait() == -signal.SIGHUP


def test_control_c_is_a_signal_in_cooked_mode(start: Start) -> None:
    with start("import time; print('up', flush=True)\nwhile 1: time.sleep(0.01)") as program:
        program.wait_for("up")
        program.send_keys("ctrl-c")
        program.wait_for("KeyboardInterrupt")
        assert program.wait() in (1, -signal.SIGINT)


def test_signals_go_to_the_program(start: Start) -> None:
    with start("print('up', flush=True); import time; time.sleep(60)") as program:
        program.wait_for("up")
        program.send_signal(signal.SIGTERM)
        assert program.wait() == -signal.SIGTERM


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_job_control_under_a_shell(tmp_path: Path) -> None:
    env = {**clean_environment(tmp_path), "PS1": "prompt> "}
    with PtyProgram(["bash", "--norc", "--noprofile", "-i"], env=env) as shell:
        shell.wait_for("prompt> ")
        shell.send("cat\r")
        shell.wait_until(lambda: shell.foreground_group() != shell.pid)
        shell.send("echoed\r")
        shell.wait_for(re.compile(r"echoed\r\nechoed"))
        stopped = shell.wait_for("prompt> ", since=_stop(shell))
        assert shell.foreground_group() == shell.pid
        shell.send("fg\r")
        shell.wait_for("cat", since=stopped.end)
        shell.wait_until(lambda: shell.foreground_group() != shell.pid)
        shell.send_keys("ctrl-d")
        shell.wait_until(lambda: shell.foreground_group() == shell.pid)
        shell.send("exit 3\r")
        assert shell.wait() == 3


def _stop(shell: PtyProgram) -> int:
    shell.send_keys("ctrl-z")
    return shell.wait_for("Stopped").end


def test_nothing_of_the_session_survives_the_block(start: Start) -> None:
    program = start("import time; print('up', flush=True); time.sleep(60)")
    with program:
        program.wait_for("up")
    assert program.poll() == -signal.SIGKILL


def test_attributes_are_comparable(start: Start) -> None:
    with start("input()") as program:
        assert program.attributes() == program.attributes()
        assert program.attributes()[3] & termios.ECHO
