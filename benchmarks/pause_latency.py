"""How long after the Space key a reply stands still, on a fast stream in a real terminal.

A chat plays a scripted reply of about a thousand tokens a second. Space is pressed at random
moments; every byte that the terminal gets is timed. Three figures a pause:

- key → state: until the reply is paused in the program, so that nothing more is delivered
  (p95 of 5 ms is the aim);
- key → painted: until the row below the reply says PAUSED;
- key → last new character: until the last of the reply's characters came (p95 of 50 ms).

All run from just before the key is written to the terminal. The last two end when the bytes
are read from it, so that the kernel and this program are part of them; the first ends where
the chat, which runs this file, notes the time on its way (the clock is the machine's).

``--markdown`` plays headings, lists, tables and code instead of plain words. With ``--delay-ms 0``
tokens come as fast as the chat takes them; each pause is then of a reply of its own. So it is with
``--server``, where they come from a server that is faster than any client.

``python benchmarks/pause_latency.py [--pauses 200] [--delay-ms 1] [--markdown] [--server]``
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.fast_server import serving
from llmctl.__main__ import main as llmctl
from tests.support.processes import Cli
from tests.support.pty_driver import PtyProgram

QUIET_S = 0.06
"""Seconds after the row says PAUSED in which a late character would be seen: two frames."""

NOTES = "--notes"
"""First word of the command line of the chat, which runs this file, too."""

WORDS = 200_000
WORD = re.compile(rb"w(\d+)")
STEPS = (50, 95, 99)


FORMS = (
    "\n\n## {}", "{}\n\n", *["{} "] * 30, "\n\n- **{}** ", *["`{}` ", "{} "] * 6, "\n- {} ",
    "\n\n```python\ndef {}(", "{}):\n    return '{}'  # ", "{}\n", "    {} = 12\n```\n\n",
    "| {} | b |\n|---|---|\n", "| *{}* | c |\n", "| {} | d |\n\n", "> {} ", "[{}](http://a.b) ",
)  # fmt: skip
"""Markdown around words, again and again."""


def script(folder: Path, delay_s: float, *, markdown: bool) -> tuple[str]:
    """Write a reply that outlasts the measurement; return the model that plays it."""
    forms = FORMS if markdown else ("{} ",)
    texts = [forms[number % len(forms)].replace("{}", f"w{number}") for number in range(WORDS)]
    chunks = [{"text": text, "tokens": 1} for text in texts]
    path = folder / "reply.json"
    path.write_text(json.dumps({"chunks": chunks, "delay_s": delay_s}))
    return (f"scripted:{path}",)


def chat_that_notes(file: str) -> None:
    """Be `llmctl`, and write down when a key has paused the reply."""
    from llmctl.chat.reply import LiveReply  # noqa: PLC0415  (only the chat needs it)

    notes = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    pause = LiveReply.pause

    def noted(reply: LiveReply) -> None:
        pause(reply)
        os.write(notes, b"%d\n" % time.monotonic_ns())

    LiveReply.pause = noted  # type: ignore[method-assign]
    llmctl()


def begin(chat: PtyProgram) -> None:
    """Ask for a reply and wait until it comes."""
    asked = len(chat.output)
    chat.send("go\r")
    chat.wait_for("streaming", timeout_s=30, since=asked)


def stop(chat: PtyProgram) -> None:
    """End the reply and wait until another can be asked for."""
    before = len(chat.output)
    chat.send_keys("ctrl-c")
    chat.wait_for("/resume goes on", since=before)


def pause(chat: PtyProgram, notes: Path) -> tuple[float, float, float]:
    """Pause; return the milliseconds to each of the three."""
    before = len(chat.output)
    pressed = chat.send_keys("space")
    paused = chat.wait_for("PAUSED at", since=before)
    time.sleep(QUIET_S)
    last = max(map(int, WORD.findall(chat.output[:before])), default=0)
    new = [
        read.at_ns
        for read in chat.reads
        if read.at_ns >= pressed and any(int(n) > last for n in WORD.findall(read.data))
    ]
    reached = (int(notes.read_text().split()[-1]), paused.at_ns, max(new, default=pressed))
    state, painted, character = ((at_ns - pressed) / 1e6 for at_ns in reached)
    return state, painted, character


def line(name: str, values: list[float]) -> str:
    """Return one row of figures."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    figures = "  ".join(f"p{step} {cuts[step - 1]:6.1f}" for step in STEPS)
    return f"{name:28} {figures}  max {max(values):6.1f}  ms"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pauses", type=int, default=100)
    parser.add_argument("--delay-ms", type=float, default=1.0)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--server", action="store_true")
    wanted = parser.parse_args()
    if wanted.server:
        wanted.delay_ms = 0.0
    drawn = random.Random(1)  # noqa: S311  (moments, no secrets)
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder, "notes")
        cli = Cli(Path(folder), program=(__file__, NOTES, str(notes)))
        with ExitStack() as stack:
            if wanted.server:
                url = stack.enter_context(serving(WORDS, "w{} "))
                model = ("m", "--api", "chat", "--base-url", url)
            else:
                model = script(Path(folder), wanted.delay_ms / 1000, markdown=wanted.markdown)
            command = cli.command("chat", "-m", *model, "--on-pause", "hold")
            chat = stack.enter_context(
                PtyProgram(command, env=cli.env, cwd=cli.cwd, columns=100, rows=40)
            )
            chat.wait_for_screen(">", timeout_s=30)
            begin(chat)
            figures = []
            for _ in range(wanted.pauses):
                time.sleep(drawn.uniform(0.05, 0.25))
                figures.append(pause(chat, notes))
                if wanted.delay_ms:
                    paused = len(chat.output)
                    chat.send_keys("space")
                    chat.wait_for("streaming", since=paused)
                else:
                    stop(chat)
                    begin(chat)
            stop(chat)
            chat.send_keys("ctrl-d")
            chat.wait()
    states, painted, characters = zip(*figures, strict=True)
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    source = " from a server" if wanted.server else ""
    pace = f"every {wanted.delay_ms:g} ms{source}" if wanted.delay_ms else f"at full speed{source}"
    print(f"{wanted.pauses} pauses, a token {pace}, 100x40, {load}")
    print(line("key to state", list(states)))
    print(line("key to PAUSED painted", list(painted)))
    print(line("key to last new character", list(characters)))


if __name__ == "__main__":
    if sys.argv[1:2] == [NOTES]:
        file = sys.argv[2]
        sys.argv[1:3] = []
        chat_that_notes(file)
    else:
        main()
