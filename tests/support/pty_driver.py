r"""Run a program in a real pseudo-terminal and look at what a person would see.

::

    with PtyProgram([sys.executable, "-m", "llmctl", "chat"], env=env) as chat:
        chat.wait_for_screen("Space pause")
        pressed = chat.send_keys("space")            # monotonic ns of the key press
        seen = chat.wait_for("PAUSED")               # .at_ns: when its last byte was read
        assert seen.at_ns - pressed < 100_000_000
        assert chat.attributes() == chat.attributes_at_start   # after the end: restored

What makes it like a terminal: the size is set before the program starts; the program leads a
session whose controlling terminal this is, so Ctrl-C, Ctrl-Z and SIGWINCH work; a thread drains the
output all the time, so the program never waits for us; a request for the cursor's position
(``ESC[6n``) is answered. Nothing here sleeps blindly: every wait is for bytes, an exit or a time
(and returns late if ``LLMCTL_TEST_LATE_S`` says so, to find tests that depend on their speed).

For job control run a shell, and the program under it::

    with PtyProgram(["bash", "--norc", "--noprofile", "-i"], env=env) as shell:
        shell.send("llmctl chat\r")
        ...
        shell.send_keys("ctrl-z"); shell.wait_for("Stopped"); shell.send("fg\r")
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyte

from tests.support._late import be_late
from tests.support.emulator import Emulator
from tests.support.processes import HAS_PROC, Chunk, session_members

__all__ = ["KEYS", "Attributes", "PtyProgram", "Seen"]

# Attributes as termios.tcgetattr returns them, made hashable and comparable.
Attributes = tuple[Any, ...]

KEYS: Mapping[str, bytes] = {
    "space": b" ",
    "enter": b"\r",
    "alt-enter": b"\x1b\r",
    "esc": b"\x1b",
    "tab": b"\t",
    "backspace": b"\x7f",
    "up": b"\x1b[A",
    "down": b"\x1b[B",
    "right": b"\x1b[C",
    "left": b"\x1b[D",
    "home": b"\x1b[H",
    "end": b"\x1b[F",
    "delete": b"\x1b[3~",
    **{f"ctrl-{chr(96 + code)}": bytes([code]) for code in range(1, 27)},
    "ctrl-backslash": b"\x1c",
}
_READ = 1 << 16
_PASTE = (b"\x1b[200~", b"\x1b[201~")
_END_MARK = b"\x1b]7777;end\x07"
_MARK_PATIENCE_S = 2.0
_ASK_CURSOR = b"\x1b[6n"
# Takes the terminal on fd 0 as its controlling one, undoes what the interpreter did to signals,
# and becomes the program, keeping its pid.
_TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
for name in ("SIGPIPE", "SIGXFSZ"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A match in the output. ``end`` is where to search on from; ``at_ns`` when it was complete."""

    text: str
    end: int
    at_ns: int


class PtyProgram:
    """A program in a terminal, between ``__enter__`` and ``__exit__``."""

    def __init__(  # noqa: PLR0913  (named, and mostly left out)
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        columns: int = 100,
        rows: int = 30,
        answer_cursor: bool = True,
        history: int = 10_000,
    ) -> None:
        """Choose the program and its terminal.

        Args:
            arguments: The command.
            env: The whole environment.
            cwd: Where it runs.
            columns: Width of the terminal.
            rows: Height of the terminal.
            answer_cursor: Answer requests for the cursor's position, as terminals do.
            history: How many rows that scrolled off are kept.
        """
        self._arguments = list(arguments)
        self._env = dict(env)
        self._cwd = cwd
        self._size = (columns, rows)
        self._answer_cursor = answer_cursor
        self._history = history
        self._changed = threading.Condition(threading.RLock())
        self._chunks: list[Chunk] = []
        self._raw = bytearray()
        self._answered = 0
        self._painted = 0
        self._closing = False
        self._drained = False

    # Life.

    def __enter__(self) -> Self:
        """Open the terminal and start the program in it."""
        self._master, self._slave = os.openpty()
        self._set_size(*self._size)
        columns, rows = self._size
        self._screen = Emulator(columns, rows, history=self._history)
        self._stream = pyte.ByteStream(self._screen)
        self.attributes_at_start = self.attributes()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _TAKE_TERMINAL, *self._arguments],
            env=self._env,
            cwd=self._cwd,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
        )
        self.started_ns = time.monotonic_ns()
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._drain, name="pty-drain", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill what is left in the session and close the terminal."""
        for found in session_members(self.pid) if HAS_PROC else ():
            _kill(found.pid)
        self._process.kill()
        self._process.wait()
        self._stop_draining()
        os.close(self._slave)
        self.hang_up()
        os.close(self._wake_read)
        os.close(self._wake_write)

    @property
    def pid(self) -> int:
        """The program's process id, which is also its session's."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit status (negative: a signal), or None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float = 10.0) -> int:
        """Wait for the end; return the exit status. All output is read afterwards.

        Raises:
            TimeoutError: If it still runs after ``timeout_s``; the message shows the screen.
        """
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(self._complaint("the program still runs")) from None
        self._drain_rest()
        return status

    def send_signal(self, sign: signal.Signals) -> int:
        """Send a signal to the program alone; return the monotonic time in ns."""
        self._process.send_signal(sign)
        return time.monotonic_ns()

    def hang_up(self) -> None:
        """Take the terminal away, as closing its window does: the session gets SIGHUP."""
        self._stop_draining()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    # Keys.

    def send(self, data: str | bytes) -> int:
        """Type ``data``; return the monotonic time, in ns, just before."""
        left = data.encode() if isinstance(data, str) else data
        at_ns = time.monotonic_ns()
        while left:
            left = left[os.write(self._master, left) :]
        return at_ns

    def send_keys(self, *names: str) -> int:
        """Press keys by their names in ``KEYS``; return the time just before, in ns."""
        return self.send(b"".join(KEYS[name] for name in names))

    def paste(self, text: str) -> int:
        """Paste as a terminal in bracketed-paste mode does."""
        return self.send(_PASTE[0] + text.encode() + _PASTE[1])

    # The terminal.

    def resize(self, columns: int, rows: int) -> None:
        """Change the size; the foreground process group gets SIGWINCH."""
        with self._changed:
            self._paint()
            self._screen.resize(lines=rows, columns=columns)
            self._set_size(columns, rows)

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def attributes(self) -> Attributes:
        """Return the terminal's attributes, read from the program's side; works after its end."""
        found = termios.tcgetattr(self._slave)
        return tuple(tuple(part) if isinstance(part, list) else part for part in found)

    def echoes(self) -> bool:
        """Tell whether the terminal echoes keys: False in raw mode."""
        return bool(self.attributes()[3] & termios.ECHO)

    def foreground_group(self) -> int:
        """Return the process group in the foreground."""
        return os.tcgetpgrp(self._master)

    # Looking.

    @property
    def output(self) -> bytes:
        """Every byte written so far."""
        with self._changed:
            return bytes(self._raw)

    @property
    def reads(self) -> list[Chunk]:
        """Every read with its time."""
        with self._changed:
            return list(self._chunks)

    @property
    def screen(self) -> list[str]:
        """The rows on the screen now, without trailing blanks."""
        with self._changed:
            self._paint()
            return [row.rstrip() for row in self._screen.display]

    @property
    def scrollback(self) -> list[str]:
        """The rows that scrolled off the top, then those on the screen."""
        with self._changed:
            self._paint()
            width = self._screen.columns
            above = [
                "".join(row[column].data for column in range(width)).rstrip()
                for row in self._screen.history.top
            ]
        return above + self.screen

    @property
    def cursor(self) -> tuple[int, int]:
        """The cursor's column and row, from 0."""
        with self._changed:
            self._paint()
            return self._screen.cursor.x, self._screen.cursor.y

    def wait_for(
        self, wanted: str | re.Pattern[str], *, timeout_s: float = 10.0, since: int = 0
    ) -> Seen:
        """Wait for text, or a match of a regular expression, in the raw output.

        Args:
            wanted: Literal text or a compiled pattern.
            timeout_s: How long at most.
            since: Search from this byte of the output on (``Seen.end``, ``len(output)``).

        Raises:
            TimeoutError: If it has not come in time, or the program ended without it.
        """
        pattern = _bytes_pattern(wanted)

        def look() -> Seen | None:
            match = pattern.search(self._raw, since)
            if match is None:
                return None
            text = match.group().decode("utf-8", "replace")
            return Seen(text, match.end(), self._read_at(match.end()))

        return self._wait(look, f"{wanted!r} in the output", timeout_s)

    def wait_for_screen(self, wanted: str | re.Pattern[str], *, timeout_s: float = 10.0) -> Seen:
        """Wait for text, or a match, on the screen as it stands; rows are joined by newlines.

        Raises:
            TimeoutError: As ``wait_for``.
        """
        pattern = wanted if isinstance(wanted, re.Pattern) else re.compile(re.escape(wanted))

        def look() -> Seen | None:
            self._paint()
            match = pattern.search("\n".join(row.rstrip() for row in self._screen.display))
            size = len(self._raw)
            return match and Seen(match.group(), size, self._read_at(size))

        return self._wait(look, f"{wanted!r} on the screen", timeout_s)

    def wait_until(
        self, condition: Callable[[], bool], *, timeout_s: float = 10.0, poll_s: float = 0.005
    ) -> None:
        """Wait for a condition that no output announces, such as a terminal attribute.

        Raises:
            TimeoutError: If it does not hold in time.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(self._complaint("the condition did not come to hold"))
            time.sleep(poll_s)

    def _wait(self, look: Callable[[], Seen | None], what: str, timeout_s: float) -> Seen:
        seen = self._wait_punctually(look, what, timeout_s)
        be_late()
        return seen

    def _wait_punctually(
        self, look: Callable[[], Seen | None], what: str, timeout_s: float
    ) -> Seen:
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                ended = self._process.poll() is not None
                if ended:
                    self._drain_rest()
                if seen := look():
                    return seen
                left = deadline - time.monotonic()
                if ended or left <= 0:
                    break
                self._changed.wait(min(left, 0.1))  # looks again for an end without output
        state = "the program ended" if ended else f"not in {timeout_s} s"
        raise TimeoutError(self._complaint(f"{what}: {state}"))

    def _complaint(self, what: str) -> str:
        shown = "\n".join(f"| {row}" for row in "\n".join(self.screen).rstrip().split("\n"))
        return f"{what}; the screen:\n{shown}\nlast bytes: {self.output[-300:]!r}"

    def _read_at(self, end: int) -> int:
        """Return when the byte before ``end`` was read."""
        size = len(self._raw)
        for chunk in reversed(self._chunks):
            size -= len(chunk.data)
            if size < end:
                return chunk.at_ns
        return self.started_ns

    # Draining.

    def _drain(self) -> None:
        while True:
            ready, _, _ = select.select([self._master, self._wake_read], [], [])
            if self._wake_read in ready:
                return
            with self._changed:
                if self._is_readable() and not self._take():
                    return

    def _is_readable(self) -> bool:
        return self._master >= 0 and bool(select.select([self._master], [], [], 0)[0])

    def _take(self) -> bool:
        """Read once; the lock is held. False at the end of the terminal."""
        try:
            data = os.read(self._master, _READ)
        except OSError:  # Linux: EIO when no one has the other side open
            return False
        self._keep(data)
        return bool(data)

    def _keep(self, data: bytes) -> None:
        self._chunks.append(Chunk(time.monotonic_ns(), data))
        self._raw += data
        self._answer()
        self._changed.notify_all()

    def _drain_rest(self) -> None:
        """Read all that was written before the program's end.

        The kernel hands output on with a delay, so that an empty terminal proves nothing. A mark
        is sent after the last output and followed through.
        """
        with self._changed:
            if self._drained:
                return
            self._drained = True
            rest = self._follow_mark()
            if rest:
                self._keep(rest)

    def _follow_mark(self) -> bytes:
        rest = b""
        sent = False
        deadline = time.monotonic() + _MARK_PATIENCE_S
        while self._master >= 0 and _END_MARK not in rest and time.monotonic() < deadline:
            outlets = [] if sent else [self._slave]
            ready, writable, _ = select.select([self._master], outlets, [], 0.05)
            try:
                if ready:
                    rest += os.read(self._master, _READ)
                elif writable:  # only now there is room for it for certain
                    sent = os.write(self._slave, _END_MARK) > 0
            except OSError:  # the terminal was hung up
                break
        return rest.replace(_END_MARK, b"")

    def _stop_draining(self) -> None:
        if not self._closing:
            self._closing = True
            os.write(self._wake_write, b"x")
            self._thread.join(5.0)

    def _answer(self) -> None:
        if not self._answer_cursor:
            return
        while (at := self._raw.find(_ASK_CURSOR, self._answered)) >= 0:
            self._answered = at + len(_ASK_CURSOR)
            self._paint(self._answered)
            row, column = self._screen.cursor.y + 1, self._screen.cursor.x + 1
            os.write(self._master, b"\x1b[%d;%dR" % (row, column))
        self._answered = max(self._answered, len(self._raw) - len(_ASK_CURSOR) + 1)

    def _paint(self, end: int | None = None) -> None:
        """Bring the screen up to date; only when somebody looks, for emulation is slow."""
        size = len(self._raw) if end is None else end
        if size > self._painted:
            self._stream.feed(bytes(self._raw[self._painted : size]))
            self._painted = size


def _bytes_pattern(wanted: str | re.Pattern[str]) -> re.Pattern[bytes]:
    if isinstance(wanted, str):
        return re.compile(re.escape(wanted.encode()))
    return re.compile(wanted.pattern.encode(), wanted.flags & ~re.UNICODE)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
