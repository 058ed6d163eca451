"""The pictures of the README: a chat on the real engine, recorded.

``python -m tests.record [--seed N] [--folder FOLDER]``; ``make record`` runs it. Somebody types two
questions into `llmctl chat` in a terminal of 80 x 24, pauses the first reply, goes on with it,
and leaves. What the program wrote becomes ``docs/pictures/session.cast``, and two moments of it
pictures. Nothing is edited; the same seed gives the same words.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path

from tests.support.cast import Cast, picture
from tests.support.engine import obtain_weights
from tests.support.processes import REPOSITORY, Cli
from tests.support.pty_driver import PtyProgram

COLUMNS, ROWS = 80, 24
FOLDER = REPOSITORY / "docs" / "pictures"
CAST = FOLDER / "session.cast"
FIRST = "What is the sea? Answer in one short paragraph."
SECOND = "Write a Python function that adds two numbers, in a code block."
PAUSED = "PAUSED at "
PICTURES = {"paused.svg": PAUSED, "reply.svg": None}
"""What each shows: the first screen with a row that begins so; None is the last screen."""
SEED = 3
KEY_S = 0.06
LOOK_S = 1.5
READY = re.compile(r"^> ?$", re.MULTILINE)
WELL_BEGUN = re.compile(r"\b[3-9]\d tok\b(?!/)")
PATIENCE_S = 120.0


def type_in(chat: PtyProgram, text: str) -> None:
    """Type as a person does, one key after the other."""
    for key in text:
        chat.send(key)
        time.sleep(KEY_S)
    chat.send_keys("enter")


def record(seed: int) -> Cast:
    """Hold the session."""
    weights = obtain_weights()
    if weights is None:
        raise SystemExit("the engine's weights can't be had")
    with tempfile.TemporaryDirectory() as folder:
        cli = Cli(Path(folder), env={"LLMCTL_MODELS": str(weights.parent)})
        words = cli.command("chat", "--seed", str(seed))
        with PtyProgram(words, env=cli.env, cwd=cli.cwd, columns=COLUMNS, rows=ROWS) as chat:
            chat.wait_for_screen(READY, timeout_s=PATIENCE_S)
            time.sleep(LOOK_S)
            type_in(chat, FIRST)
            chat.wait_for_screen(WELL_BEGUN, timeout_s=PATIENCE_S)
            chat.send_keys("space")
            chat.wait_for_screen(PAUSED)
            time.sleep(LOOK_S)
            chat.send_keys("space")
            chat.wait_for_screen(READY, timeout_s=PATIENCE_S)
            time.sleep(LOOK_S)
            type_in(chat, SECOND)
            chat.wait_for_screen("Space pause", timeout_s=PATIENCE_S)
            chat.wait_for_screen(READY, timeout_s=PATIENCE_S)
            time.sleep(LOOK_S)
            chat.send_keys("ctrl-d")
            chat.wait(PATIENCE_S)
            return Cast.of_reads(chat.reads, chat.started_ns, columns=COLUMNS, rows=ROWS)


def main() -> None:
    """Record, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    wanted = parser.parse_args()
    cast = record(wanted.seed)
    cast.save(wanted.folder / CAST.name)
    for name, until in PICTURES.items():
        (wanted.folder / name).write_text(picture(cast.play(until), "llmctl chat"))


if __name__ == "__main__":
    main()
