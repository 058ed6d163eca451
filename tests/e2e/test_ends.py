"""Every way in which a reply ends, produced from outside: status, cause, exit code, resumable."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Program, told
from tests.support.fault_proxy import FaultProxy
from tests.support.oracle_server import Fault, OracleServer, Script, Settings
from tests.support.processes import clean_environment

pytestmark = pytest.mark.slow

WORDS = "one two three four five six seven eight nine ten"
CONTEXT_FULL = (
    'data: {"choices":[{"index":0,"delta":{},"finish_reason":"model_length"}]}\n\ndata: [DONE]'
)


@pytest.fixture
def server() -> Iterator[OracleServer]:
    with OracleServer(Settings(length=30)) as running:
        yield running


def at(server: OracleServer | FaultProxy, model: str = "oracle") -> tuple[str, ...]:
    return ("run", "--base-url", server.base_url, "-m", model, "hi")


def test_complete(program: Program) -> None:
    done = program.told("run", "-m", program.script(WORDS), "hi")
    done.ended("complete", "end", 0, resumable=False)
    assert done.text == WORDS
    assert done.end["position"] == {"chars": len(WORDS), "tokens": 10}
    assert done.end["error"] is None
    assert done.done.errors == ""


@pytest.mark.parametrize(
    ("action", "status", "code"),
    [("stop", "complete", 0), ("pause", "paused", 5), ("ask", "paused", 5)],
)
def test_marker(program: Program, action: str, status: str, code: int) -> None:
    model = program.script("one two !!M three")
    done = program.told("run", "-m", model, "--marker", f"!!M={action}", "hi")
    done.ended(status, "marker", code, resumable=code != 0)
    assert done.text == "one two "
    (found,) = done.of("marker")
    assert (found["marker"], found["action"], found["position"]["chars"]) == ("!!M", action, 8)
    if code:
        rest = program.told("resume")
        rest.ended("complete", "end", 0, resumable=False)
        assert rest.text == " three"


def test_pause_limit(program: Program) -> None:
    done = program.told("run", "-m", program.script(WORDS), "--pause-after", "3", "hi")
    done.ended("paused", "limit", 5, resumable=True)
    assert done.text == "one two three"
    (paused,) = done.of("paused")
    assert (paused["reason"], paused["mode"], paused["position"]["tokens"]) == ("limit", "cut", 3)


def test_token_limit(program: Program) -> None:
    model = program.script(WORDS)
    done = program.told("run", "-m", model, "--max-tokens", "4", "hi")
    done.ended("truncated", "token-limit", 6, resumable=True)
    assert done.text == "one two three four"
    assert done.end["finish_reason"] == "length"


def test_context_full(program: Program, server: OracleServer) -> None:
    server.enqueue(Script(fault=Fault("garbage", after_tokens=9, line=CONTEXT_FULL)))
    done = program.told(*at(server))
    done.ended("truncated", "context-full", 6, resumable=False)


def test_connect_timeout(program: Program) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # the backlog's few places
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        options = ("-m", "x", "--connect-timeout", "300ms")
        done = program.told("run", "--base-url", url, *options, "hi")
    done.ended("timeout", "connect", 124, resumable=True)


@pytest.mark.parametrize(
    ("script", "option", "cause"),
    [
        (Script(fault=Fault("no_headers")), "--first-token-timeout", "first-token"),
        (Script(hold_at=0), "--first-token-timeout", "first-token"),
        (Script(fault=Fault("stall", after_tokens=7, ping_s=0.05)), "--idle-timeout", "idle"),
        (Script(delay_s=0.05), "--timeout", "total"),
    ],
)
def test_timeouts(
    program: Program, server: OracleServer, script: Script, option: str, cause: str
) -> None:
    server.enqueue(script)
    done = program.told(*at(server), option, "400ms")
    done.ended("timeout", cause, 124, resumable=True)
    assert done.end["error"]["kind"] == "timeout"
    assert server.expected("hi").startswith(done.text)


def test_disconnect(program: Program) -> None:
    faults = [{"kind": "disconnect", "after": 3}]
    model = program.script(WORDS, faults=faults, supports=[])
    done = program.told("run", "-m", model, "hi")
    done.ended("interrupted", "disconnect", 4, resumable=True)
    assert done.text == "one two three"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals(program: Program, number: signal.Signals) -> None:
    model = program.script(WORDS, faults=[{"kind": "stall", "after": 4}])
    with program.start("run", "-m", model, "--json", "hi") as process:
        assert process.stdout is not None
        assert process.stdout.wait_for(b" four", 10)
        process.send_signal(number)
        done = told(process.wait(5))
    done.ended("interrupted", number.name, 128 + number, resumable=True)
    assert done.text == "one two three four"
    rest = program.told("resume")
    assert done.text + rest.text == WORDS


@pytest.mark.parametrize("bytes_read", [0, 10])
def test_closed_pipe_is_quiet(program: Program, bytes_read: int) -> None:
    out, into = os.pipe()
    with program.start("run", "-m", "scripted:long", "hi", stdout=into) as process:
        os.close(into)
        os.read(out, bytes_read)
        os.close(out)
        done = process.wait()
    assert (done.returncode, done.errors) == (141, "")
    (row,) = listed(program)
    assert row["cause"] == "closed-pipe"


def listed(program: Program) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(program.run("resume", "--list", "--json").text)
    return rows


@pytest.mark.parametrize("status", [401, 404, 400])
def test_refused(program: Program, server: OracleServer, status: int) -> None:
    server.enqueue(Script(fault=Fault("http", status=status, message="No, said the server.")))
    done = program.told(*at(server))
    done.ended("failed", "refused", 3, resumable=False)
    assert done.end["error"]["message"]
    assert listed(program) == []
    assert program.run("conversations", "list").text == ""


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(program: Program) -> None:
    with OracleServer(Settings(context=20)) as server:
        done = program.told(*at(server)[:-1], "hi " * 40)
    done.ended("failed", "refused", 3, resumable=False)
    assert "20" in done.end["error"]["message"]


def test_unreachable(program: Program) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        done = program.told("run", "--base-url", url, "-m", "x", "hi")
    done.ended("failed", "unreachable", 4, resumable=True)
    assert [event["delay_s"] for event in done.of("retrying")] == [0.5, 1.0]


def test_below_require(program: Program) -> None:
    pieces = ["one", " two", {"text": " three", "delay_s": 60}]
    model = program.script(chunks=pieces, supports=["held"])
    assert program.run("run", "-m", model, "--pause-after", "2", "hi").returncode == 5
    done = program.told("resume")
    done.ended("failed", "below-require", 7, resumable=True)
    assert done.text == ""
    again = program.told("resume", "--require", "best-effort", "--pause-after", "1")
    assert again.of("resumed")[0]["strategy"] == "instruct"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_device_without_room_is_an_error_of_its_own(
    program: Program, form: tuple[str, ...]
) -> None:
    words = ("run", "-m", program.script(WORDS), *form, "hi")
    with Path("/dev/full").open("wb", buffering=0) as full, program.start(*words, stdout=full) as p:
        done = p.wait()
    assert done.returncode == 1
    assert "No space left on device" in done.errors
    assert program.run("resume").text == WORDS


def test_usage_prints_no_events(program: Program) -> None:
    for wrong in (
        ("--pause-after", "0"),
        ("--no-store", "--pause-after", "3"),
        ("--keep", "--drop"),
    ):
        done = program.run("run", "-m", program.script(WORDS), "--json", *wrong, "hi")
        assert (done.returncode, done.text) == (2, "")
        assert done.errors.startswith("llmctl: ")
    assert program.run("run", "--json", "-m", program.script(WORDS)).returncode == 2
    for option in ("--model", "--seed", "--temperature"):
        assert program.run("resume", option, "1").returncode == 2
    listed = program.run("resume", "--list", "g-1")
    assert (listed.returncode, listed.text) == (2, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_modules_are_torn_down_does_not_change_the_status(
    tmp_path: Path, number: signal.Signals
) -> None:
    program = f"""
import os, sys
class Last:
    def __del__(self, kill=os.kill, me=os.getpid()):
        kill(me, {int(number)})
sys.argv = ["llmctl", "config", "path"]
from llmctl.__main__ import main
sys.modules["last"] = Last()
main()
"""
    environment = clean_environment(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
