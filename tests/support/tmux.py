"""A person at a shell in tmux: keys go in, the screen that tmux shows comes out.

::

    with Tmux(env=cli.env, cwd=cli.cwd, columns=80, rows=24) as tmux:
        tmux.type("llmctl chat", "Enter")
        tmux.wait_for("^> ?$")
        tmux.type("hello", "Enter")
        tmux.press("Space")
        screen = tmux.wait_for("PAUSED at")

A terminal of its own kind: it wraps lines anew when it is resized, keeps what has scrolled
off, and marks pastes only where the program has asked for it. The server has a socket of its
own and reads no configuration. Nothing sleeps for long: every wait looks again and again until
a deadline, since tmux tells nobody when a screen has changed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["HAS_TMUX", "PROMPT", "Tmux"]

HAS_TMUX = shutil.which("tmux") is not None

PROMPT = "shell$"
"""What the shell asks with."""

PATIENCE_S = 20.0
"""Seconds that a screen gets to show what is waited for; the machine may be busy."""

POLL_S = 0.02

_SHELL = ("bash", "--norc", "--noprofile", "-i")


class Tmux:
    """A shell in a terminal, between ``__enter__`` and ``__exit__``.

    Args:
        folder: where the server's socket lies.
        env: the shell's environment.
        cwd: the shell's folder.
        columns: the terminal's width.
        rows: the terminal's height.
    """

    def __init__(
        self,
        folder: Path,
        *,
        env: Mapping[str, str],
        cwd: Path,
        columns: int = 80,
        rows: int = 24,
    ) -> None:
        self._socket = folder / "tmux"
        self._env = {**env, "PS1": f"{PROMPT} ", "PROMPT_COMMAND": ""}
        self._cwd = cwd
        self._size = ("-x", str(columns), "-y", str(rows))

    def __enter__(self) -> Self:
        """Start the server and the shell."""
        self._tmux("-f", "/dev/null", "new-session", "-d", *self._size, *_SHELL)
        self._tmux("set-option", "-s", "escape-time", "0")
        self.wait_for(rf"^{re.escape(PROMPT)} ?$")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the server and everything in it."""
        self._tmux("kill-server")

    # Keys.

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names: ``Space``, ``Escape``, ``C-c``, ``M-Enter``."""
        self._tmux("send-keys", *keys)

    def type(self, text: str, *keys: str) -> None:
        """Type text, letter by letter, then press keys."""
        self._tmux("send-keys", "-l", "--", text)
        if keys:
            self.press(*keys)

    def paste(self, text: str) -> None:
        """Paste text, with the marks of a paste where the program has asked for them."""
        self._tmux("load-buffer", "-", given=text)
        self._tmux("paste-buffer", "-d", "-p")

    def resize(self, columns: int, rows: int) -> None:
        """Change the terminal's size."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    # What is seen.

    @property
    def screen(self) -> str:
        """The rows on the screen now, without the empty ones at its end."""
        return self._tmux("capture-pane", "-p").rstrip("\n")

    @property
    def transcript(self) -> str:
        """Everything shown so far, scrolled off or not, the wrapped lines whole again."""
        joined = self._tmux("capture-pane", "-p", "-J", "-S", "-")
        return "\n".join(line.rstrip() for line in joined.rstrip("\n").split("\n"))

    @property
    def cursor(self) -> tuple[int, int]:
        """The cursor's column and row, from 0."""
        told = self._tmux("display-message", "-p", "#{cursor_x} #{cursor_y}")
        column, row = told.split()
        return int(column), int(row)

    @property
    def pid(self) -> int:
        """The shell's process id."""
        return int(self._tmux("display-message", "-p", "#{pane_pid}"))

    def wait_for(self, wanted: str, *, timeout_s: float = PATIENCE_S) -> str:
        """Wait until the screen holds a match of a regular expression; return that screen.

        ``^`` and ``$`` are a row's ends, and ``.`` stays on its row.

        Raises:
            TimeoutError: it has not come in time; the message shows the screen.
        """
        return self._wait(re.compile(wanted, re.MULTILINE), timeout_s)

    def wait_until_gone(self, unwanted: str, *, timeout_s: float = PATIENCE_S) -> str:
        """Wait until the screen holds no match any more; return that screen.

        Raises:
            TimeoutError: as `wait_for`.
        """
        return self._wait(re.compile(unwanted, re.MULTILINE), timeout_s, gone=True)

    def _wait(self, pattern: re.Pattern[str], timeout_s: float, *, gone: bool = False) -> str:
        deadline = time.monotonic() + timeout_s
        while bool(pattern.search(screen := self.screen)) is gone:
            if time.monotonic() > deadline:
                shown = "\n".join(f"| {row}" for row in screen.split("\n"))
                state = "still on" if gone else "not on"
                raise TimeoutError(f"{pattern.pattern!r} is {state} the screen:\n{shown}")
            time.sleep(POLL_S)
        return screen

    def _tmux(self, *words: str, given: str | None = None) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self._socket), *words],
            env=self._env,
            cwd=self._cwd,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            check=True,
            text=True,
        )
        return done.stdout
