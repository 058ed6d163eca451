"""Handing the terminal to the person's editor, and taking it back."""

from __future__ import annotations

import shlex
import signal
import tempfile
from pathlib import Path

import anyio
import anyio.abc

from llmctl.environment import Environment
from llmctl.errors import UsageError
from llmctl.terminal.tty import Terminal

DEFAULT = "vi"
"""The editor where neither VISUAL nor EDITOR names one: every system has it (POSIX)."""

END_PATIENCE_S = 1.0
"""Seconds that an editor gets to put its own things right when the chat must end."""


class Editor:
    """Edits texts in the editor that ``VISUAL`` or ``EDITOR`` names.

    The editor is in our process group: a stop (Ctrl-Z) stops us with it.

    Args:
        terminal: what is handed over.
        env: the process.
    """

    def __init__(self, terminal: Terminal, env: Environment) -> None:
        self._terminal = terminal
        self._env = env
        self._scope: anyio.CancelScope | None = None

    @property
    def runs(self) -> bool:
        """Whether an editor has the terminal."""
        return self._scope is not None

    def end(self) -> None:
        """End an editor that runs: the chat must end."""
        if self._scope is not None:
            self._scope.cancel()

    def suspend(self) -> None:
        """Stop together with the editor; a shell continues both."""
        signal.raise_signal(signal.SIGSTOP)

    async def edit(self, text: str) -> str | None:
        """Let the person edit a text; None if the editor had to be ended.

        A newline at the end that editors add to a text without one is taken off again.

        Raises:
            UsageError: there is no such editor, it failed, or what it left is no text.
        """
        with tempfile.TemporaryDirectory(prefix="llmctl-") as folder:
            file = Path(folder) / "reply.md"
            file.write_text(text, "utf-8", newline="")
            self._scope = anyio.CancelScope()
            try:
                with self._scope as scope:
                    await self._run(file)
            finally:
                self._scope = None
            return None if scope.cancelled_caught else _read(file, text)

    async def _run(self, file: Path) -> None:
        words = self._words()
        with self._terminal.lent():
            try:
                process = await anyio.open_process(
                    [*words, str(file)],
                    stdin=None,
                    stdout=None,
                    stderr=None,
                    env=dict(self._env.variables),
                )
            except OSError as error:
                raise UsageError(
                    f"The editor '{words[0]}' can't be started: {error.strerror}.",
                    "Set EDITOR to another one.",
                ) from error
            await _ended(process)
        if process.returncode:
            raise UsageError(
                f"The editor ended with status {process.returncode}; nothing was changed.",
                "/edit opens it again.",
            )

    def _words(self) -> list[str]:
        named = self._env.variable("VISUAL") or self._env.variable("EDITOR") or DEFAULT
        try:
            words = shlex.split(named)
        except ValueError as error:
            raise UsageError(f"EDITOR can't be read: {error}.", "Set it anew.") from error
        return words or [DEFAULT]


async def _ended(process: anyio.abc.Process) -> None:
    """Wait for an editor; end it if the wait is cancelled."""
    try:
        await process.wait()
    except anyio.get_cancelled_exc_class():
        process.terminate()
        with anyio.move_on_after(END_PATIENCE_S, shield=True):
            await process.wait()
        if process.returncode is None:
            process.kill()
        raise


def _read(file: Path, before: str) -> str:
    try:
        text = file.read_bytes().decode()
    except OSError as error:
        raise UsageError(f"The edit is gone: {error.strerror}.", "/edit opens it again.") from error
    except UnicodeDecodeError as error:
        hint = "/edit opens it again."
        raise UsageError("The edit is not UTF-8 text; nothing was changed.", hint) from error
    return text if before.endswith("\n") else text.removesuffix("\n")
