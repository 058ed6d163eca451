"""The controlling terminal: raw while we are there, as it was when we are not.

Raw means that keys come as bytes, at once and unechoed: ECHO, ICANON, IEXTEN, ISIG, IXON
and ICRNL are off (POSIX, chapter 11). OPOST stays on. With ISIG off, Ctrl-C is a key like
the others; signals still come from outside.

What was there is put back by `Terminal.leave`, at the interpreter's exit at the latest. A
kill -9 cannot be caught; therefore a start that finds the terminal without an echo takes
that for somebody's accident, and restores a sane terminal instead of the broken one.

A process in the background must not touch the terminal: the kernel would stop it (SIGTTOU),
or the shell in the foreground would find its own settings changed. So every change looks
first who is in the foreground.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import os
import select
import signal
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from llmctl.terminal.keys import ESC_DELAY_S, KeyParser, Press

DEFAULT_SIZE = (80, 24)
"""Columns and rows of a terminal that does not tell."""

READ_BYTES = 65536

FOREGROUND_POLL_S = 0.1
"""Seconds between two looks whether the shell has put us into the foreground."""

WRITE_PATIENCE_S = 0.25
"""Seconds that a terminal which takes nothing gets to take the closing sequences."""

# xterm's ctlseqs, DECSET: 2004 marks what is pasted.
PASTE_ON = "\x1b[?2004h"
# End a frame (2026), wrap again (DECAWM), show the cursor (DECTCEM), no marks around pastes,
# plain letters (SGR 0): whatever of these was on when we were interrupted.
REST = "\x1b[?2026l\x1b[?7h\x1b[?25h\x1b[?2004l\x1b[0m"

_INPUT, _OUTPUT, _LOCAL, _CHARACTERS = 0, 1, 3, 6  # places in what tcgetattr returns


class Terminal:
    """The terminal we run in, between `enter` and `leave`; also a context manager.

    Args:
        keys: the descriptor that keys are read from.
        screen: the descriptor that leads to the screen; the same terminal.
    """

    def __init__(self, keys: int = 0, screen: int = 1) -> None:
        self.keys = keys
        self.screen = screen
        self._before: list[Any] | None = None
        self._keyboard: Keyboard | None = None
        self._early = b""

    def __enter__(self) -> Self:
        """Enter."""
        self.enter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Leave."""
        self.leave()

    def enter(self) -> None:
        """Make the terminal raw, and remember how it was.

        Raises:
            termios.error: the descriptor is no terminal.
        """
        if self._before is None:
            self._before = sane(termios.tcgetattr(self.keys))
            atexit.register(self.leave)
            if self.regain():
                self._early = self._typed_so_far()
        self.regain()

    def typed_early(self) -> bytes:
        """Return, once, what was typed before `enter`; its Enters are such again.

        Until then the terminal had made newlines of them (ICRNL), which are Ctrl-J to us.
        """
        early, self._early = self._early, b""
        return early.replace(b"\n", b"\r")

    def leave(self) -> None:
        """Put the terminal back as it was; safe at any time, and twice."""
        self._restore()
        self._before = None
        atexit.unregister(self.leave)

    @property
    def in_foreground(self) -> bool:
        """Whether the terminal is ours to read and to change."""
        return in_foreground(self.keys)

    def regain(self) -> bool:
        """Make the terminal raw again if it is ours; say whether it is."""
        if self._before is None or not self.in_foreground:
            return False
        self._set(raw(self._before))
        self._write(PASTE_ON)
        return True

    def suspend(self) -> bool:
        """Restore the terminal and stop, with the whole process group, as Ctrl-Z does.

        Returns when somebody continues us. Where nothing can stop us (nobody would be there
        to continue us, or the signal is ignored) it returns at once.

        Returns:
            As `continued`.
        """
        if self._keyboard is not None:
            self._keyboard.stop()
        self._restore()
        _stop_the_group()
        return self.continued()

    def continued(self) -> bool:
        """Take the terminal back after we were stopped; also when nobody asked us (SIGCONT).

        Returns:
            Whether it is ours and raw. If not, we run in the background: no key is read
            until a shell puts us into the foreground, which nobody tells us, so we look.
        """
        ours = self.regain()
        if self._keyboard is not None:
            self._keyboard.stop()
            self._keyboard.start() if ours else self._look_later()
        return ours

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Give the terminal, as it was, to another program while the block runs."""
        self._restore()
        try:
            yield
        finally:
            self.regain()

    def call_soon(self, call: Callable[..., object], *args: object) -> None:
        """Have the running loop call something; for handlers of signals.

        Raises:
            RuntimeError: no loop runs in this thread.
        """
        asyncio.get_running_loop().call_soon_threadsafe(call, *args)

    def size(self) -> tuple[int, int]:
        """Return the columns and rows there are now."""
        try:
            columns, rows = os.get_terminal_size(self.screen)
        except OSError:
            return DEFAULT_SIZE
        return columns or DEFAULT_SIZE[0], rows or DEFAULT_SIZE[1]

    @contextmanager
    def attach(
        self,
        on_press: Callable[[Press], None],
        on_gone: Callable[[], None] = lambda: None,
        *,
        ahead: bytes = b"",
    ) -> Iterator[Keyboard]:
        """Hear keys while the block runs; afterwards unread bytes are left to the next reader.

        Args:
            on_press: called in the running loop with each press.
            on_gone: called once when the terminal has been hung up.
            ahead: what the last reader read and did not use.
        """
        self._keyboard = keyboard = Keyboard(self.keys, on_press, on_gone)
        if self.continued():
            keyboard.take(ahead)
        try:
            yield keyboard
        finally:
            self._keyboard = None
            keyboard.stop()

    def _typed_so_far(self) -> bytes:
        typed = b""
        while select.select([self.keys], [], [], 0)[0]:
            try:
                data = os.read(self.keys, READ_BYTES)
            except OSError:  # it was hung up
                break
            if not data:
                break
            typed += data
        return typed

    def _look_later(self) -> None:
        asyncio.get_running_loop().call_later(FOREGROUND_POLL_S, self._look)

    def _look(self) -> None:
        if self._keyboard is not None and not self._keyboard.listens:
            self.continued()

    def _restore(self) -> None:
        if self._before is not None and self.in_foreground:
            self._write(REST)
            self._set(self._before)

    def _set(self, attributes: list[Any]) -> None:
        # At once (TCSANOW): a terminal that takes no output must not keep us. Should the
        # foreground be lost just now, a blocked SIGTTOU stops nobody.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            termios.tcsetattr(self.keys, termios.TCSANOW, attributes)
        except termios.error:  # it was hung up: there is nothing left to set
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _write(self, sequence: str) -> None:
        try:
            if select.select([], [self.screen], [], WRITE_PATIENCE_S)[1]:
                os.write(self.screen, sequence.encode())
        except OSError:  # it was hung up
            return


class Keyboard:
    """The reader of keys, for as long as it is attached to the running loop.

    Args:
        descriptor: where bytes come from; its flags are not changed.
        on_press: called with each press.
        on_gone: called once when the terminal has been hung up.
    """

    def __init__(
        self,
        descriptor: int,
        on_press: Callable[[Press], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._descriptor = descriptor
        self._parser = KeyParser()
        self._on_press = on_press
        self._on_gone = on_gone
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def listens(self) -> bool:
        """Whether keys are read now."""
        return self._loop is not None

    def start(self) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._read)

    def stop(self) -> None:
        """Listen no more; a key that had begun is forgotten."""
        if self._loop is not None:
            self._loop.remove_reader(self._descriptor)
            self._loop = None
        self._stop_timer()
        self._parser = KeyParser()
        self._settled.set()

    def take(self, data: bytes) -> None:
        """Take bytes as if they had been read."""
        self._tell(self._parser.feed(data))
        if self._parser.pending or self._parser.pasting:
            self._settled.clear()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(ESC_DELAY_S, self._nothing_followed)
        else:
            self._settled.set()

    async def settled(self) -> None:
        """Wait until no key is half read, so that the next reader finds whole ones.

        A paste whose end does not come is waited for `ESC_DELAY_S` after its last byte.
        """
        await self._settled.wait()

    def _read(self) -> None:
        data = self._receive()
        if data is None:
            self.stop()
            self._on_gone()
        elif data:
            self._stop_timer()
            self.take(data)

    def _receive(self) -> bytes | None:
        """Return the bytes that are there; None if the terminal is gone."""
        try:
            if not select.select([self._descriptor], [], [], 0)[0]:
                return b""  # somebody else was faster
            return os.read(self._descriptor, READ_BYTES) or None
        except OSError:
            return None

    def _nothing_followed(self) -> None:
        self._timer = None
        self._settled.set()
        self._tell(self._parser.flush())

    def _tell(self, presses: list[Press]) -> None:
        for press in presses:
            self._on_press(press)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def in_foreground(terminal: int) -> bool:
    """Say whether our process group may read and change a terminal."""
    try:
        # 0 is a group that can't be seen from this process's namespace.
        return os.tcgetpgrp(terminal) in (0, os.getpgrp())
    except OSError as error:
        return error.errno == errno.ENOTTY  # no job control here; else it was hung up


def is_gone(terminal: int) -> bool:
    """Say whether a terminal was hung up."""
    try:
        os.tcgetpgrp(terminal)
    except OSError as error:
        return error.errno != errno.ENOTTY
    return False


def raw(attributes: list[Any]) -> list[Any]:
    """Return the attributes of a raw terminal; see the module."""
    changed = _copy(attributes)
    changed[_INPUT] &= ~(termios.IXON | termios.ICRNL | termios.INLCR | termios.IGNCR)
    changed[_LOCAL] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    changed[_CHARACTERS][termios.VMIN] = 1
    changed[_CHARACTERS][termios.VTIME] = 0
    return changed


def sane(attributes: list[Any]) -> list[Any]:
    """Return the attributes, mended if their terminal was left without an echo."""
    changed = _copy(attributes)
    if changed[_LOCAL] & termios.ECHO:
        return changed
    changed[_INPUT] |= termios.ICRNL | termios.IXON | termios.BRKINT
    changed[_OUTPUT] |= termios.OPOST | termios.ONLCR
    changed[_LOCAL] |= termios.ECHO | termios.ECHOE | termios.ECHOK
    changed[_LOCAL] |= termios.ICANON | termios.IEXTEN | termios.ISIG
    return changed


def _copy(attributes: list[Any]) -> list[Any]:
    return [*attributes[:_CHARACTERS], list(attributes[_CHARACTERS])]


def _stop_the_group() -> None:
    """Stop every process of the group by SIGTSTP's default action; return when continued."""
    handler = signal.getsignal(signal.SIGTSTP)
    if handler is signal.SIG_IGN:
        return
    signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    try:
        os.kill(0, signal.SIGTSTP)
    finally:
        signal.signal(signal.SIGTSTP, handler or signal.SIG_DFL)
