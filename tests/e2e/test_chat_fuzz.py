"""Random keys while random replies stream: nothing crashes, hangs or is lost."""

from __future__ import annotations

import json
import os
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.markdown_corpus import CORPUS, made_up
from tests.support.processes import Cli
from tests.support.pty_driver import PtyProgram

FUZZ_S = float(os.environ.get("LLMCTL_FUZZ_S", "600"))
"""Seconds of the long form."""

KEYS = (
    *[b" "] * 12, *[b"\r"] * 3, *[b"a", b"b", b"\xc3\xa9", b"\xe6\x97\xa5", b"?"] * 2,
    b"\x7f", b"\x15", b"\x1b", b"\x1b\r", b"\n", b"\x03", b"\x0c", b"\x1b[A",
    b"\x1b[B", b"\x1b[200~pas te\x1b[201~",
    b"\x1b[", b"\x1b]11;rgb:0/0/0\x07", b"\x1b[1;1R", b"\x80", b"\x00", b"\x17",
    b"\x1b[24;80R", b"\x12\x07",
)  # fmt: skip
CRASH = re.compile(rb"Traceback|Error:|llmctl failed")


def reply(drawn: random.Random) -> list[dict[str, Any]]:
    """Return chunks of a reply: some reasoning, corpus and made-up text, nasty bytes."""
    texts = [made_up(drawn, 120, wild=True), drawn.choice(list(CORPUS.values()))[:3000]]
    if drawn.random() < 0.3:
        texts.append("\x1b]52;c;eA==\x07\x9b2J\u202e" * 3)
    drawn.shuffle(texts)
    chunks: list[dict[str, Any]] = []
    if drawn.random() < 0.3:
        chunks += [{"text": "hm, well ", "tokens": 1, "channel": "reasoning"}] * drawn.randrange(40)
    text = "\n\n".join(texts)
    while text:
        length = drawn.choice((1, 2, 4, 4, 4, 9, 60))
        chunks.append({"text": text[:length], "tokens": 1, "delay_s": drawn.choice((0, 0, 0.002))})
        text = text[length:]
    return chunks


def play(cli: Cli, drawn: random.Random, presses: int) -> None:
    """Press random keys for a while; then stop, leave and compare what is kept."""
    chunks = reply(drawn)
    file = cli.cwd / "reply.json"
    file.write_text(json.dumps({"chunks": chunks}), "utf-8")
    words = cli.command("chat", "-m", f"scripted:{file.name}")
    columns, rows = drawn.choice(((80, 24), (40, 10), (200, 50), (20, 5)))
    with PtyProgram(words, env=cli.env, cwd=cli.cwd, columns=columns, rows=rows) as chat:
        chat.wait_for_screen(re.compile(r"^> ?$", re.MULTILINE), timeout_s=30)
        chat.send("go\r")
        for _ in range(presses):
            chat.send(drawn.choice(KEYS))
            if drawn.random() < 0.05:
                chat.resize(drawn.randrange(10, 120), drawn.randrange(3, 40))
            time.sleep(drawn.choice((0, 0.001, 0.02)))
        leave(chat)
        assert not CRASH.search(chat.output), chat.output[-3000:]
        assert b"\x1b]52" not in chat.output
        assert b"\x9b2J" not in chat.output.replace(b"\xc2\x9b", b"")
    whole = "".join(chunk["text"] for chunk in chunks if chunk.get("channel") != "reasoning")
    for kept in replies(cli):
        assert whole.startswith(kept), (kept[-80:], len(kept))


def leave(chat: PtyProgram) -> None:
    """Leave the chat, however it stands: its keys must still be heard."""
    end = time.monotonic() + 60
    while chat.poll() is None:
        assert time.monotonic() < end, ("it hangs", chat.screen)
        # Stop the reply; at the prompt clear the line; leave.
        for keys in (b"\x03", b"\x15\x0b", b"\x04"):
            if chat.poll() is not None:
                return
            try:
                chat.send(keys)
            except OSError:  # it is gone
                return
            time.sleep(0.15)


def replies(cli: Cli) -> list[str]:
    """Return every reply that is kept, finished or not."""
    kept: list[str] = []
    for row in json.loads(cli.run("conversations", "list", "--json").text):
        shown = cli.run("conversations", "export", row["id"], "--format", "json")
        messages = json.loads(shown.text)["messages"]
        kept += [m["content"] for m in messages if m["role"] == "assistant"]
    return kept


@pytest.mark.parametrize("seed", [1, 2])
def test_random_keys(tmp_path: Path, seed: int) -> None:
    cli = Cli(tmp_path)
    play(cli, random.Random(seed), 60)  # noqa: S311
    cli.assert_no_leftovers()


@pytest.mark.exhaustive
def test_random_keys_for_ten_minutes(tmp_path: Path) -> None:
    end, seed, rounds = time.monotonic() + FUZZ_S, int(time.time()), 0
    while time.monotonic() < end:
        folder = tmp_path / str(rounds)
        folder.mkdir()
        cli = Cli(folder)
        print(f"seed {seed}")  # noqa: T201  (what a failure is told again with)
        play(cli, random.Random(seed), 250)  # noqa: S311
        cli.assert_no_leftovers()
        seed, rounds = seed + 1, rounds + 1
    print(f"{rounds} rounds")  # noqa: T201
