"""Copying: into the clipboard by way of the terminal, else into a file that is named.

A terminal does not say whether it took the text; so those that are known not to are given a
file. Inside tmux, tmux itself is asked first: in its usual settings it sets the clipboard of
the terminal around it (``load-buffer -w``) but lets no program do so.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable

from llmctl.counts import counted
from llmctl.environment import Environment
from llmctl.terminal.clipboard import LONGEST, osc52

TMUX_PATIENCE_S = 2.0
"""Seconds that tmux gets to take a text."""

_WITHOUT = ("dumb", "unknown", "linux")
"""Terminals that have no clipboard."""


def copy(text: str, env: Environment, write: Callable[[str], object], *, plain: bool) -> str:
    """Copy a text; return the sentence that says where it went. Blocks for a moment.

    Args:
        text: what to copy.
        env: the process.
        write: takes a sequence for the terminal.
        plain: the terminal gets no sequences.

    Raises:
        OSError: no file could be written either.
    """
    size = counted(len(text), "character")
    if env.variable("TMUX") and _tmux_takes(text, env):
        return f"copied {size} to tmux's buffer and its terminal's clipboard"
    if plain or not _may_have_clipboard(text, env):
        return f"copied {size} to {_file_of(text)}"
    write(osc52(text, through_tmux=env.variable("TMUX") is not None))
    return f"sent {size} to the terminal's clipboard"


def _may_have_clipboard(text: str, env: Environment) -> bool:
    screen = env.variable("STY") is not None  # GNU screen cuts long sequences
    known = (env.variable("TERM") or "dumb") not in _WITHOUT
    return known and not screen and len(text.encode()) <= LONGEST


def _tmux_takes(text: str, env: Environment) -> bool:
    try:
        subprocess.run(
            ["tmux", "load-buffer", "-w", "-"],  # noqa: S607  (found as the person's shell would)
            input=text.encode(),
            env=dict(env.variables),
            capture_output=True,
            timeout=TMUX_PATIENCE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _file_of(text: str) -> str:
    """Write a file that only its owner may read; return its name."""
    descriptor, name = tempfile.mkstemp(prefix="llmctl-copy-", suffix=".md")
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    return name
