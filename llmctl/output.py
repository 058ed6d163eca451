"""The one writer of standard output: a thread behind a bounded queue.

A program that writes to a stuck pipe from its event loop outlives its own deadline. Here
the loop only queues; a thread waits until the descriptor takes something (``poll``), writes
at most ``PIPE_BUF`` bytes at a time, which then cannot block, and reports every write that
returned. So a stuck reader stops nothing, the number of characters that went out is always
known exactly, and a reader that goes away is noticed even while nothing is being written.
``O_NONBLOCK`` is never set: the descriptor is shared with whoever started the program.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

SLICE = select.PIPE_BUF // 4
"""Characters of one write; at most four bytes each, so never more than ``PIPE_BUF``."""

PACE_S = 0.001
"""Seconds between two writes at the least: faster than that, nobody reads, and each costs."""

HIGH_WATER = 256 * 1024
"""Characters queued above which `Output.full` says so."""

LAST_WRITE_S = 0.2
"""Seconds that a write under way has to return when the output is closed."""


@dataclass(slots=True)
class _Piece:
    text: str
    on_written: Callable[[int], None] | None
    whole: bool
    written: int = 0


class Output:
    """Writes text to a descriptor, in order, without ever blocking its caller.

    Args:
        fd: the descriptor; it is neither closed nor changed.
        on_broken: called once, from the writer thread, when the reader is gone.
        clean: applied to what is written; the counts stay those of the text given.
    """

    def __init__(
        self,
        fd: int,
        *,
        on_broken: Callable[[OSError], None] = lambda _error: None,
        clean: Callable[[str], str] = str,
    ) -> None:
        self._fd = fd
        self._on_broken = on_broken
        self._clean = clean
        self._pieces: deque[_Piece] = deque()
        self._queued = 0
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._wake_out, self._wake_in = os.pipe()
        self._settled = True
        self._closing = False
        self._broken = False
        self._waiting_since: float | None = None
        self._due = 0.0
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    def write(
        self, text: str, on_written: Callable[[int], None] | None = None, *, whole: bool = False
    ) -> None:
        """Queue ``text``.

        Args:
            text: what to write.
            on_written: called from the writer thread after a write that returned, with the
                number of characters of ``text`` that are out by then. Of the texts that one
                write finished, only the last one's is called: it speaks for those before.
            whole: report only once all of it is out (a line that means nothing in part).
        """
        if not text:
            return
        with self._lock:
            self._pieces.append(_Piece(text, on_written, whole))
            self._queued += len(text)
            self._settled = False
            was_idle = len(self._pieces) == 1
        if was_idle:
            self._wake()

    @property
    def full(self) -> bool:
        """Whether so much is queued that the caller should wait."""
        return self._queued > HIGH_WATER

    @property
    def broken(self) -> bool:
        """Whether the reader is gone; what is written then goes nowhere."""
        return self._broken

    @property
    def blocked_for(self) -> float:
        """For how many seconds the descriptor has now refused to take anything."""
        since = self._waiting_since
        return 0.0 if since is None else time.monotonic() - since

    def drain(self, timeout: float | None = None) -> bool:
        """Block until all is out or the reader is gone; say whether all is out.

        Args:
            timeout: seconds to wait at the most; None for ever.
        """
        with self._idle:
            self._idle.wait_for(lambda: self._settled or self._broken, timeout)
            return self._settled

    def close(self) -> None:
        """Stop writing at once; what is still queued is not written."""
        self._closing = True
        self._wake()
        self._thread.join(LAST_WRITE_S)
        if self._thread.is_alive():
            return  # another writer took the pipe's last room first: nothing wakes this one
        os.close(self._wake_in)
        os.close(self._wake_out)

    # -- the thread

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake_out, select.POLLIN)
        while not self._closing and not self._broken:
            poll.register(self._fd, select.POLLOUT if self._pieces else 0)
            ready = dict(self._wait(poll))
            if self._wake_out in ready:
                os.read(self._wake_out, 4096)
            state = ready.get(self._fd, 0)
            if state & select.POLLOUT and self._pieces and not self._closing:
                self._keep_pace()
                self._write_some()
            elif state & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                self._break(BrokenPipeError(32, "the reader is gone"))

    def _wait(self, poll: select.poll) -> list[tuple[int, int]]:
        ready = poll.poll(0)
        if ready:
            return ready
        self._waiting_since = time.monotonic() if self._pieces else None
        try:
            return poll.poll()
        finally:
            self._waiting_since = None

    def _keep_pace(self) -> None:
        """Let what comes at full speed gather; what comes slowly never waits."""
        early = self._due - time.monotonic()
        if early > 0:
            time.sleep(early)
        self._due = time.monotonic() + PACE_S

    def _write_some(self) -> None:
        slice_, taken = self._take()
        try:
            self._write_all(self._clean(slice_).encode("utf-8", "replace"))
        except OSError as error:
            self._break(error)
            return
        self._report(taken)

    def _write_all(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]

    def _take(self) -> tuple[str, int]:
        """Return the next characters to write: parts of as many pieces as fit."""
        with self._lock:
            parts, room = [], SLICE
            for piece in self._pieces:
                part = piece.text[piece.written : piece.written + room]
                parts.append(part)
                room -= len(part)
                if room == 0:
                    break
        text = "".join(parts)
        return text, len(text)

    def _report(self, taken: int) -> None:
        last: _Piece | None = None
        while taken:
            piece = self._pieces[0]
            step = min(taken, len(piece.text) - piece.written)
            piece.written += step
            taken -= step
            done = piece.written == len(piece.text)
            if piece.on_written and (done or not piece.whole):
                last = piece
            self._forget(step, done=done)
        if last and last.on_written:
            last.on_written(last.written)
        with self._idle:
            self._settled = not self._pieces
            self._idle.notify_all()

    def _forget(self, chars: int, *, done: bool) -> None:
        with self._lock:
            self._queued -= chars
            if done:
                self._pieces.popleft()

    def _break(self, error: OSError) -> None:
        with self._idle:
            self._broken = True
            self._idle.notify_all()
        self._on_broken(error)

    def _wake(self) -> None:
        os.write(self._wake_in, b".")
