"""Every key of the contract's table, pressed by a person in tmux on the real engine.

One sitting a size of the terminal: at the prompt, while a reply streams, while it is paused.
After each key the screen is waited for that the person would see. In the end the records must
hold what was on the screen.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import weights_or_skip
from tests.support.processes import Cli
from tests.support.tmux import HAS_TMUX, PROMPT, Tmux

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_TMUX, reason="tmux is not installed"),
]

# A reply that does not end before the person has pressed every key.
CHAT = "chat --seed 7 --temperature 0 --max-tokens 1500"
QUESTION = "Tell me a long story about a river."
EMPTY = r"^> ?$\s*\Z"
STREAMING = r"^streaming · "
PAUSED = r"^PAUSED "
STOPPED = rf"^/resume goes on(.*\n)*{EMPTY}"
SHELL = rf"^{re.escape(PROMPT)} ?$\s*\Z"


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """A home in which ``chat`` opens one on the embedded model, and ``more`` goes on with it."""
    weights = weights_or_skip()
    cli = Cli(tmp_path, env={"LLMCTL_MODELS": str(weights.parent)})
    for name, options in (("chat", CHAT), ("more", "chat -c")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\nexec {shlex.join(cli.command())} {options}\n")
        program.chmod(0o755)
    cli.env["PATH"] = f"{tmp_path / 'bin'}:{cli.env['PATH']}"
    yield cli
    cli.assert_no_leftovers()


def messages(cli: Cli) -> list[dict[str, Any]]:
    """Return the one conversation that is on record."""
    (row,) = json.loads(cli.run("conversations", "list", "--json").text)
    shown = cli.run("conversations", "export", row["id"], "--format", "json")
    found: list[dict[str, Any]] = json.loads(shown.text)["messages"]
    return found


def suspend_and_come_back(tmux: Tmux, wanted: str) -> None:
    """Ctrl-Z gives the shell a sane terminal; ``fg`` brings back what is wanted."""
    tmux.press("C-z")
    tmux.wait_for(SHELL)
    tmux.type("clear; stty -a | grep -o ' icanon'", "Enter")
    tmux.wait_for("^ icanon")
    tmux.type("fg", "Enter")
    tmux.wait_for(wanted)


def at_the_prompt(tmux: Tmux) -> None:
    # Space is text; Alt-Enter and Ctrl-J are newlines; Ctrl-C clears, Up brings back.
    tmux.type("one two", "M-Enter")
    tmux.type("three", "C-j")
    tmux.type("four")
    tmux.wait_for(r"^> one two\n  three\n  four$")
    tmux.press("C-c")
    tmux.wait_for(EMPTY)
    tmux.press("Up")
    tmux.wait_for(r"^> one two\n  three\n  four$")
    # Down, behind the last line, is where the history ends; Ctrl-Z keeps what was typed.
    tmux.press("Down")
    tmux.wait_for(EMPTY)
    tmux.type("half a line")
    suspend_and_come_back(tmux, r"^> half a line$")
    tmux.press("C-c")
    tmux.wait_for(EMPTY)
    # Tab completes, Esc closes the list, and the line is as it was.
    tmux.type("/res", "Tab")
    tmux.wait_for(r"^> /resume")
    tmux.press("C-c")
    tmux.wait_for(EMPTY)
    tmux.type("/re", "Tab")
    tmux.wait_for(r"^> /re$\n +/resume")
    tmux.press("Escape")
    tmux.wait_for(r"^> /re$\s*\Z")
    tmux.press("C-c")
    tmux.wait_for(EMPTY)
    # Ctrl-R finds it, Esc takes it over.
    tmux.press("C-r")
    tmux.type("tw")
    tmux.wait_for(r"^> one two\n(.*\n)*.*search")
    tmux.press("Escape")
    tmux.wait_for(r"^> one two\n  three\n  four$\s*\Z")
    tmux.press("C-c")
    tmux.wait_for(EMPTY)
    # Ctrl-C with nothing to clear only says how to leave.
    tmux.press("C-c")
    tmux.wait_for(r"^Ctrl-C again")
    # Enter sends; stopped before its first token, the message is back.
    tmux.type(QUESTION, "Enter", "C-c")
    tmux.wait_for(rf"· stopped\n> {QUESTION}$".replace(".", r"\."))
    tmux.press("Enter")


def while_it_streams(tmux: Tmux) -> str:
    """Return what was on the screen of the reply before it was suspended."""
    tmux.wait_for(STREAMING)
    # Space pauses and goes on.
    tmux.press("Space")
    tmux.wait_for(PAUSED)
    tmux.press("Space")
    tmux.wait_for(STREAMING)
    # Ctrl-D only hints.
    tmux.press("C-d")
    tmux.wait_for(r"^Ctrl-C stops the reply")
    # With a draft, Space is text; Alt-Enter and Ctrl-J are newlines.
    tmux.type("a b")
    tmux.wait_for(r"^> a b▏$")
    tmux.press("M-Enter", "C-j")
    tmux.type("c d")
    tmux.wait_for(r"^> \(\+2 lines\) c d▏$")
    # Esc sets it aside, Up brings it back, Enter queues it.
    tmux.press("Escape")
    tmux.wait_until_gone("^> .*▏")
    tmux.press("Up")
    tmux.wait_for(r"c d▏$")
    tmux.press("Enter")
    tmux.wait_for(r"^queued: \(\+2 lines\) a b$")
    # A paste goes to the draft, whatever is in it.
    tmux.paste(" pasted\nlines")
    tmux.wait_for(r"^> \(\+1 line\) lines▏$")
    tmux.press("Escape")
    tmux.wait_until_gone("^> .*▏")
    tmux.wait_for(STREAMING)
    # With no draft Esc pauses; Ctrl-Z comes back paused.
    tmux.press("Escape")
    tmux.wait_for(PAUSED)
    seen = tmux.transcript
    assert seen.count("\nqueued: ") == 1  # what is painted again is not kept
    shown = reply_in(seen)
    tmux.press("Space")
    tmux.wait_for(STREAMING)
    suspend_and_come_back(tmux, PAUSED)
    tmux.press("Space")
    tmux.wait_for(STREAMING)
    # Ctrl-C stops it; pressed again it does nothing; what was queued is back.
    tmux.press("C-c")
    tmux.wait_for(r"^> a b\n *\n  c d$")
    tmux.press("C-c")
    tmux.type("!")
    tmux.wait_for(r"^> a b\n *\n  c d!$")
    tmux.press("C-c")
    tmux.wait_for(EMPTY)
    # Esc twice brings back the last message.
    tmux.press("Escape", "Escape")
    tmux.wait_for(rf"^> {re.escape(QUESTION)}$")
    tmux.press("C-c")
    tmux.wait_for(EMPTY)
    return shown


def while_it_is_paused(tmux: Tmux) -> None:
    tmux.type("/resume", "Enter")
    tmux.wait_for(STREAMING)
    tmux.press("Space")
    tmux.wait_for(PAUSED)
    # Esc hints; with a draft it sets it aside; Space is then text.
    tmux.press("Escape")
    tmux.wait_for(r"^Space goes on")
    tmux.type("d e", "M-Enter", "C-j")
    tmux.type("f g")
    tmux.wait_for(r"^> \(\+2 lines\) f g▏$")
    tmux.press("Escape")
    tmux.wait_until_gone("^> .*▏")
    tmux.wait_for(PAUSED)
    # Enter without a draft goes on; Ctrl-Z comes back as it was; Ctrl-C stops; /undo takes back.
    tmux.press("Enter")
    tmux.wait_for(STREAMING)
    tmux.press("Space")
    tmux.wait_for(PAUSED)
    suspend_and_come_back(tmux, PAUSED)
    tmux.press("C-c")
    tmux.wait_for(STOPPED)
    tmux.type("/undo", "Enter")
    tmux.wait_for(STREAMING)
    # A draft and Enter: the reply ends here, kept, and the draft is the next message.
    tmux.press("Space")
    tmux.wait_for(PAUSED)
    tmux.type("Rather this.", "Enter")
    tmux.wait_for(r"^> Rather this\.(.*\n)*streaming · ")
    # Ctrl-D leaves it paused, and says how to go on.
    tmux.press("Space")
    tmux.wait_for(PAUSED)
    tmux.press("C-d")
    tmux.wait_for(r"llmctl chat -c(.*\n)*" + SHELL)


def and_comes_back(tmux: Tmux) -> None:
    tmux.type("left=$?; clear; echo left with $left; more", "Enter")
    tmux.wait_for(r"^left with 5$(.*\n)*> Rather this\.(.*\n)*PAUSED ")
    tmux.press("Space")
    tmux.wait_for(STREAMING)
    tmux.press("C-c")
    tmux.wait_for(STOPPED)
    # Ctrl-D on an empty line leaves; Ctrl-C twice does, too.
    tmux.press("C-d")
    tmux.wait_for(SHELL)
    tmux.type("left=$?; clear; echo left with $left; chat", "Enter")
    tmux.wait_for(rf"^left with 0$(.*\n)*{EMPTY}")
    tmux.press("C-c", "C-c")
    tmux.wait_for(r"^Ctrl-C again(.*\n)*" + SHELL)
    tmux.type("left=$?; clear; echo left with $left; stty -a | grep -o ' echo '", "Enter")
    tmux.wait_for(r"^left with 130$\n echo$")


def reply_in(transcript: str) -> str:
    """Return the reply without what is above and below it."""
    return transcript.rpartition(f"> {QUESTION}\n")[2].partition("\nqueued: ")[0]


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 12)])
def test_every_key_does_what_the_table_says(cli: Cli, columns: int, rows: int) -> None:
    with Tmux(cli.home, env=cli.env, cwd=cli.cwd, columns=columns, rows=rows) as tmux:
        tmux.type("clear; chat", "Enter")
        tmux.wait_for(EMPTY)
        at_the_prompt(tmux)
        shown = while_it_streams(tmux)
        while_it_is_paused(tmux)
        and_comes_back(tmux)
    first, reply, second, last = messages(cli)
    words = shown.split()  # the screen breaks lines where they are full
    assert len(words) > 3
    assert " ".join(reply["content"].split()).startswith(" ".join(words))
    assert (first["content"], second["content"]) == (QUESTION, "Rather this.")
    assert (reply["status"], reply["cause"]) == ("complete", "steered")
    assert (last["status"], last["cause"]) == ("interrupted", "SIGINT")
