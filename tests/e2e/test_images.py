"""Images with a message, from the command line to what a strict server takes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Program
from tests.support.batches import vllm
from tests.support.oracle import Message
from tests.support.oracle_server import Fault, OracleServer, Script, Settings
from tests.support.oracle_wire import Feature
from tests.support.pty_driver import PtyProgram

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
SEEN = f"[image {hashlib.sha256(PNG).hexdigest()[:8]}]"
QUESTION = "hello length=64"


@pytest.fixture
def server() -> Iterator[OracleServer]:
    with OracleServer(vllm(delay_s=0.001)) as server:
        yield server


@pytest.fixture
def picture(program: Program) -> str:
    (program.cli.cwd / "cat.png").write_bytes(PNG)
    return "cat.png"


def asking(server: OracleServer, *more: str) -> tuple[str, ...]:
    return ("run", "-n", "-m", "oracle", "--temperature", "0", "--base-url", server.base_url, *more)


def images_of(program: Program) -> list[Path]:
    return list((program.cli.data / "images").glob("*"))


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_an_image_is_seen_with_the_question_and_in_all_later_ones(
    program: Program, picture: str, api: str
) -> None:
    features = (Feature.RESPONSES, Feature.USAGE)
    with OracleServer(Settings(features=features)) as server:
        ask = asking(server, "--api", api)
        seen = Message("user", f"{QUESTION}\n\n{SEEN}")
        first = program.run(*ask, "--attach", picture, QUESTION)
        assert (first.returncode, first.text) == (0, server.expected(seen)), first.errors
        second = program.run(*ask, "-c", "and now")
        said = (seen, Message("assistant", first.text), Message("user", "and now"))
        assert (second.returncode, second.text) == (0, server.expected(*said)), second.errors


def test_a_killed_reply_goes_on_behind_the_image(
    program: Program, picture: str, server: OracleServer
) -> None:
    with program.start(*asking(server, "--attach", picture, QUESTION), kill_at=60) as process:
        process.wait()
    whole = program.run("resume", "--full")
    assert whole.returncode == 0, whole.errors
    assert whole.text == server.expected(f"{QUESTION}\n\n{SEEN}")
    asked = [record.body for record in server.requests if QUESTION in str(record.body)]
    first, again = (body["messages"][0]["content"] for body in asked)  # between them, probes
    assert first == again
    assert [part["type"] for part in first] == ["text", "image_url"]


def test_without_the_store_no_image_is_written(
    program: Program, picture: str, server: OracleServer
) -> None:
    done = program.run(*asking(server, "--no-store", "--attach", picture, QUESTION))
    assert done.text == server.expected(f"{QUESTION}\n\n{SEEN}")
    assert not any(PNG in p.read_bytes() for p in program.cli.data.rglob("*") if p.is_file())


def test_an_image_goes_with_the_last_conversation_that_has_it(
    program: Program, picture: str, server: OracleServer
) -> None:
    program.run(*asking(server, "--attach", picture, QUESTION))
    (row,) = json.loads(program.run("conversations", "list", "--json").text)
    program.run("conversations", "fork", row["id"])
    assert program.run("conversations", "delete", row["id"]).returncode == 0
    assert len(images_of(program)) == 1
    (copy,) = json.loads(program.run("conversations", "list", "--json").text)
    assert program.run("conversations", "delete", copy["id"]).returncode == 0
    assert images_of(program) == []


def test_who_takes_no_images_is_asked_nothing(
    program: Program, picture: str, server: OracleServer
) -> None:
    done = program.run(*asking(server, "--api", "completions", "--attach", picture, "hi"))
    assert (done.returncode, done.text) == (3, "")
    assert "takes no images" in done.errors
    assert "hint: " in done.errors
    assert server.requests == []
    rows = program.cli.cwd / "rows.txt"
    rows.write_text("hi\n")
    words = ("batch", str(rows), "-o", "out.jsonl", "-m", "oracle", "--base-url", server.base_url)
    assert program.run(*words, "--attach", picture).returncode == 2


def test_in_a_chat_the_image_stays_with_its_question(
    program: Program, picture: str, server: OracleServer
) -> None:
    server.enqueue(Script(fault=Fault("http", status=401)))
    words = program.cli.command("chat", "-m", "oracle", "--temperature", "0", "--base-url",
                                server.base_url, "--attach", picture)  # fmt: skip
    cli = program.cli
    with PtyProgram(words, env=cli.env, cwd=cli.cwd, columns=100, rows=30) as chat:
        chat.wait_for_screen("goes along with your first message")
        chat.send(f"{QUESTION}\r")
        chat.wait_for_screen('<image name="cat.png"')  # refused: the question is back, with it
        chat.send("\r")
        chat.wait_for_screen(re.compile(r"chars · .*\n>", re.DOTALL), timeout_s=20)
        chat.send("/retry\r")
        chat.wait_for_screen(re.compile(r"chars · .*chars · .*\n>", re.DOTALL), timeout_s=20)
        chat.send(b"\x04")
        assert chat.wait() == 0
    bodies: list[Any] = [record.body["messages"][-1]["content"] for record in server.requests]
    assert len(bodies) == 3
    assert all([part["type"] for part in body] == ["text", "image_url"] for body in bodies)
