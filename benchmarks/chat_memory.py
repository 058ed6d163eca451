"""What a long reply costs a chat in memory: its resident set before and after (Linux).

A chat plays scripted replies of 20,000 tokens in a real terminal. Before the first, after it
and after each further one the pages that the process holds are read from ``/proc``: what the
first adds is what the screen, the conversation and the libraries need; what every further one
adds is what a reply costs.

``python benchmarks/chat_memory.py [--tokens 20000] [--replies 3]``
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import itertools

from tests.support.processes import HAS_PROC, Cli
from tests.support.pty_driver import PtyProgram

READY = re.compile(r"^> ?$", re.MULTILINE)
RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)
PATIENCE_S = 300.0


def script(folder: Path, tokens: int) -> str:
    """Write a reply of paragraphs, lists and code; return the model that plays it."""
    lines = ("Some **words** of prose, and `code`, and more words.", "- an item", "```", "x = 1")
    words = [f"{word} " for line in lines for word in [*line.split(), "\n"]]
    chunks = [{"text": words[number % len(words)], "tokens": 1} for number in range(tokens)]
    path = folder / "reply.json"
    path.write_text(json.dumps({"chunks": chunks}))
    return f"scripted:{path}"


def resident(pid: int) -> float:
    """Return the MB that a process holds."""
    found = RESIDENT.search(Path(f"/proc/{pid}/status").read_text())
    assert found is not None  # noqa: S101  (every process has it)
    return int(found[1]) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--replies", type=int, default=3)
    wanted = parser.parse_args()
    if not HAS_PROC:
        print("there is no /proc here to read it from")
        return
    with tempfile.TemporaryDirectory() as folder:
        cli = Cli(Path(folder))
        command = cli.command("chat", "-m", script(Path(folder), wanted.tokens))
        with PtyProgram(command, env=cli.env, cwd=cli.cwd, columns=100, rows=40) as chat:
            chat.wait_for_screen(READY, timeout_s=PATIENCE_S)
            figures = [resident(chat.pid)]
            for _ in range(wanted.replies):
                since = len(chat.output)
                chat.send("go\r")
                ended = chat.wait_for(
                    f"{wanted.tokens:,} tok · ", since=since, timeout_s=PATIENCE_S
                )
                chat.wait_for("\x1b[?2004h", since=ended.end, timeout_s=PATIENCE_S)
                figures.append(resident(chat.pid))
            chat.send_keys("ctrl-d")
            chat.wait(PATIENCE_S)
    print(f"replies of {wanted.tokens:,} tokens, 100x40")
    print(f"at the prompt                 {figures[0]:6.1f} MB")
    for number, (before, after) in enumerate(itertools.pairwise(figures), 1):
        print(f"after reply {number}                 {after:6.1f} MB  {after - before:+6.1f}")


if __name__ == "__main__":
    main()
