"""Replies in Markdown in a real chat on a pseudo-terminal: what it shows, what it never sends."""

from __future__ import annotations

import json
import random
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmctl.journal import read
from llmctl.terminal.markdown.stream import Markdown
from llmctl.terminal.spans import plain
from tests.support.markdown_corpus import CORPUS
from tests.support.oracle import VOCABULARY
from tests.support.oracle_server import OracleServer, Script
from tests.support.processes import Cli
from tests.support.pty_driver import PtyProgram

# All that this program sends besides text: line ends and these sequences.
OURS = re.compile(rb"\x1b(?:\[\?(?:2026|25|7|2004|12|1)[hl]|\[[\d;]*[A-DGHJKm]|D|7|8)|[\r\n]")
NASTY = (
    "\x1b]52;c;RVZJTA==\x07 \x1b]8;;javascript:alert(1)\x1b\\x\x1b]8;;\x1b\\ \x1bPq#EVIL\x1b\\ "
    "\x1b[6n\x1b[c\x1b[2J\x1b[?1049h \x9b31mE \x9d52;c;RVZJTA==\x9c \u202eE\u202c \u2066x\u2069 "
    "&#27;[2J &#x9b;1m `\x1b[5m` [a\x1b[7m](http://e\x1b]0;t\x07) \x07\x08\x0e\x7f\r &#13;&Tab; "
    "```\x1b[1m\n\x1b[31mcode\n```\n| a\x1b[1m | b |\n|---|---|\n| \x9b7m | \x1bc |\n\n\x1b]0;open"
)

Start = Callable[..., PtyProgram]


def pieces(text: str, longest: int = 7, **more: Any) -> list[dict[str, Any]]:
    """Cut a text into chunks of a token each."""
    drawn, found = random.Random(1), []  # noqa: S311
    while text:
        length = drawn.randint(1, longest)
        found.append({"text": text[:length], "tokens": 1, **more})
        text = text[length:]
    return found


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    cli = Cli(tmp_path)
    yield cli
    cli.assert_no_leftovers()


@pytest.fixture
def start(cli: Cli) -> Iterator[Start]:
    """Start a chat whose model answers with these chunks, and ask it."""
    running: list[PtyProgram] = []

    def begin(
        chunks: list[dict[str, Any]],
        *arguments: str,
        name: str = "reply",
        delay_s: float = 0.0,
        rows: int = 24,
        **variables: str,
    ) -> PtyProgram:
        file = cli.cwd / f"{name}.json"
        file.write_text(json.dumps({"chunks": chunks, "delay_s": delay_s}), "utf-8")
        words = cli.command("chat", "-m", f"scripted:{file.name}", *arguments)
        env = {**cli.env, **variables}
        chat = PtyProgram(words, env=env, cwd=cli.cwd, columns=80, rows=rows)
        running.append(chat.__enter__())
        chat.wait_for_screen(re.compile(r"^> ?$", re.MULTILINE), timeout_s=20)
        chat.send("go\r")
        return chat

    yield begin
    for chat in running:
        chat.__exit__(None, None, None)


def between(rows: list[str]) -> list[str]:
    """Return the rows of the reply: those between the question and how it ended."""
    begin = rows.index("> go") + 1
    end = next(place for place, row in enumerate(rows) if row.startswith("· ") and "tok" in row)
    return rows[begin:end]


def rows_above(rows: list[str], begin: str) -> list[str]:
    return rows[: next(place for place, row in enumerate(rows) if row.startswith(begin))]


def test_a_reply_is_in_the_scrollback_once_and_rendered(start: Start) -> None:
    text = "\n\n".join([CORPUS["a reply"], CORPUS["nested lists"], CORPUS["table"]])
    chat = start(pieces(text), delay_s=0.002)
    chat.wait_for_screen("· stop", timeout_s=30)
    markdown = Markdown(80)
    once = plain(markdown.feed(text) + markdown.finish()).split("\n")[:-1]
    assert between(chat.scrollback) == [row.rstrip() for row in once]


@pytest.mark.parametrize("arguments", [(), ("--plain",)])
def test_nothing_that_acts_on_a_terminal_comes_through(
    start: Start, arguments: tuple[str, ...]
) -> None:
    chunks = [*pieces(NASTY, 1, channel="reasoning"), *pieces(NASTY, 1), *pieces(NASTY, 9)]
    chat = start(chunks, *arguments, name="m\x1b[2J\x9b\u202e", rows=60)
    end = chat.wait_for("· stop", timeout_s=20).end
    begin = chat.output.index(b"> go")  # before that, the line editor moves back and forth
    sent = chat.output[begin:end].decode()
    rest = OURS.sub(b"", sent.encode()).decode()
    assert "52;c" in rest  # it has come, as text
    assert not [sign for sign in rest if sign < " " or "\x7f" <= sign < "\xa0"]
    assert not set(sent) & set("\u202e\u202c\u2066\u2069")
    assert "\x1b]" not in sent
    assert "\x1bP" not in sent


def test_without_colours_there_are_none_and_structure_stays(start: Start) -> None:
    chat = start(pieces(CORPUS["a reply"]), NO_COLOR="1")
    chat.wait_for_screen("· stop", timeout_s=20)
    used = {
        part for found in re.findall(rb"\x1b\[([\d;]*)m", chat.output) for part in found.split(b";")
    }
    assert used <= {b"", b"0", b"1", b"2", b"3", b"4", b"7", b"9"}
    assert any("`sorted()`" in row for row in chat.scrollback)
    assert any(re.match("Method +│ Returns", row) for row in chat.scrollback)


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [(("--plain",), {}), ((), {"TERM": "dumb"}), ((), {"LLMCTL_PLAIN": "1"})],
)
def test_where_nothing_moves_a_reply_is_its_source(
    start: Start, arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    chat = start(pieces(CORPUS["a reply"]), *arguments, **variables)
    chat.wait_for("· stop", timeout_s=20)
    assert CORPUS["a reply"].replace("\n", "\r\n").encode() in chat.output


def test_reasoning_is_dim_and_then_folded(start: Start) -> None:
    chat = start(
        [*pieces("thinking hard. " * 40, channel="reasoning"), *pieces("**Done**")], delay_s=0.005
    )
    chat.wait_for(re.compile(rb"\x1b\[2mthinking".decode()), timeout_s=20)
    chat.wait_for_screen("· stop", timeout_s=30)
    assert between(chat.scrollback) == ["· thought for 600 characters", "", "Done"]


def test_no_character_after_the_frame_that_says_paused(start: Start) -> None:
    text = "".join(f"Paragraph {n} has **bold** words and `code`.\n\n- item\n" for n in range(4000))
    chunks = pieces(text)
    for chunk in chunks[::16]:  # in bursts, and longer than the test takes
        chunk["delay_s"] = 0.03
    chat = start(chunks, "--on-pause", "hold")
    chat.wait_for_screen(re.compile(r"Paragraph \d+ has bold"), timeout_s=20)
    for _ in range(5):
        chat.send_keys("space")
        chat.wait_for_screen("PAUSED")
        frozen = rows_above(chat.scrollback, "PAUSED")
        chat.send("x")  # a draft: painted without any text of the reply that was not there
        chat.wait_for_screen("> x")
        assert rows_above(chat.scrollback, "> x") == frozen
        before = len(chat.output)
        chat.send("\x7f ")
        chat.wait_for("streaming", since=before)


def test_what_was_shown_when_it_is_killed_is_on_disk(start: Start, cli: Cli) -> None:
    """Disk before screen; and what the journal calls delivered has been shown."""
    text = "".join(
        f"w{n} **b{n}** `c{n}`{'.' if n % 9 else '.' + chr(10) * 2}" for n in range(3000)
    )
    chat = start(pieces(text), delay_s=0.0005)
    chat.wait_for_screen(re.compile(r"b\d{3}"), timeout_s=20)
    chat.send_signal(signal.SIGKILL)
    chat.wait()
    (journal,) = (cli.data / "journals").glob("*.jsonl")
    _, recorded = read(journal)
    received = "".join(chunk.text for chunk in recorded.chunks)
    seen = re.findall(r"[wbc]\d+", " ".join(between([*chat.scrollback, "· 1 tok"])))
    known = re.findall(r"[wbc]\d+", received)
    delivered = re.findall(r"[wbc]\d+", received[: recorded.mark.chars])
    assert seen[:-1] == known[: len(seen) - 1]
    assert known[len(seen) - 1].startswith(seen[-1])
    assert len(seen) >= len(delivered) - 1


def test_who_is_terminated_leaves_the_tail_and_the_cursor(start: Start) -> None:
    chat = start(pieces("one **two** three " * 2000), delay_s=0.002)
    chat.wait_for_screen("three one", timeout_s=20)
    chat.send_signal(signal.SIGTERM)
    assert chat.wait() == 143
    assert re.findall(rb"\x1b\[\?25[hl]", chat.output)[-1] == b"\x1b[?25h"
    assert any("two three" in row for row in between(chat.scrollback))


def test_another_width_in_the_middle_of_a_table(cli: Cli) -> None:
    rows = "".join(f"| row {n} | some words about row {n} |\n" for n in range(12))
    text = f"Before\n\n| name | text |\n|---|---|\n{rows}\nAfter it."
    middle = len(VOCABULARY.encode(text[: text.index("| row 6")]))
    with OracleServer() as server:
        server.enqueue(Script(text=text, hold_at=middle, delay_s=0.005))
        words = cli.command("chat", "-m", "oracle", "--base-url", server.base_url)
        with PtyProgram(words, env=cli.env, cwd=cli.cwd, columns=80, rows=24) as chat:
            chat.wait_for_screen(re.compile(r"^> ?$", re.MULTILINE), timeout_s=20)
            chat.send("go\r")
            server.wait_until(lambda counters: counters.held == 1)
            chat.wait_for_screen("row 5", timeout_s=20)
            chat.resize(50, 20)
            server.release()
            chat.wait_for_screen("row 8", timeout_s=20)
            chat.resize(100, 24)
            chat.wait_for(re.compile(r"first token \d"), timeout_s=20)
            rows_now = [row for row in chat.scrollback if " │ " in row]
    assert [row.split(" │ ")[0].strip() for row in rows_now] == [
        "name",
        *(f"row {n}" for n in range(12)),
    ]
