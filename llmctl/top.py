"""What runs now on this machine: what ``llmctl top`` shows.

Everything is read from files that the running processes write anyway: journals whose lock is
held, and batches whose lease is alive. Nobody is asked, so nobody is slowed down; a look that
takes long, because journals are long, is followed by a longer wait.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread

from cancelable_core import Cancelable, CancelationToken, signal_hub
from llmctl.batch import notices
from llmctl.batch.watchers import duration
from llmctl.environment import Environment, ExitStatus
from llmctl.records import InFlight, Records
from llmctl.store import title_of
from llmctl.terminal.sanitizer import sanitize
from llmctl.terminal.width import cells, fit

LOOK_S = 1.0
"""Seconds between two looks."""
SHARE = 10
"""A look that took long is followed by a wait so many times longer."""

HEADINGS = ("PID", "WHAT", "STATE", "DONE", "TOK/S", "AGE", "MODEL", "ABOUT")
_NUMBERS = {"PID", "DONE", "TOK/S", "AGE"}
_ENDS = {signal.SIGINT: ExitStatus.OK, signal.SIGTERM: 143, signal.SIGHUP: 129}
"""Ctrl-C is how people leave: that is no failure."""


@dataclass(frozen=True, slots=True)
class Task:
    """A reply or a batch that a process works on.

    Attributes:
        pid: that process.
        what: run, chat or batch.
        id: the reply's id, or the batch's OUTPUT.
        state: what it does now.
        tokens: content tokens received so far; of a batch, those of complete items.
        done: how far it is, for people.
        since: when it was begun, in seconds since the epoch.
        model: the model's name; empty for a batch.
        about: the question, shortened, or the OUTPUT.
    """

    pid: int
    what: str
    id: str
    state: str
    tokens: int
    done: str
    since: float
    model: str
    about: str

    def as_json(self) -> dict[str, Any]:
        """Return the published form."""
        return {
            "pid": self.pid,
            "what": self.what,
            "id": self.id,
            "state": self.state,
            "tokens": self.tokens,
            "done": self.done,
            "since": self.since,
            "model": self.model or None,
            "about": self.about,
        }


def running(records: Records, env: Environment) -> list[Task]:
    """Return what runs now, the oldest first."""
    found = [*map(_reply, records.live()), *map(_batch, notices.running(env.data))]
    return sorted(found, key=lambda task: task.since)


def _reply(reply: InFlight) -> Task:
    header, recorded = reply.recorded.header, reply.recorded
    return Task(
        pid=reply.pid or 0,
        what=header.command,
        id=reply.generation,
        state=_state(reply),
        tokens=recorded.spent,
        done=f"{recorded.spent} tok",
        since=header.created,
        model=header.request.model,
        about=title_of(header.request.messages[header.history :]),
    )


def _state(reply: InFlight) -> str:
    recorded = reply.recorded
    if recorded.pause is not None:
        return f"paused, {recorded.pause}"
    if recorded.finished:
        return "ending"
    return "streaming" if recorded.chunks else "waiting"


def _batch(batch: notices.Running) -> Task:
    status = batch.status
    total = status.complete if status.items is None else status.items
    of = "" if status.items is None else f"/{total}"
    noun = "item" if total == 1 else "items"
    return Task(
        pid=batch.owner.pid,
        what="batch",
        id=str(batch.output),
        state="running",
        tokens=status.tokens,
        done=f"{status.complete}{of} {noun}",
        since=batch.owner.since,
        model="",
        about=str(batch.output),
    )


class Table:
    """Tasks as rows of text; a second table knows how fast they went since the first."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, int]] = {}

    def lines(self, tasks: Sequence[Task], now: float, width: int | None = None) -> list[str]:
        """Return the table.

        Args:
            tasks: what runs.
            now: seconds since the epoch.
            width: cells in a row; None for as many as it takes.
        """
        rows = [HEADINGS, *(self._row(task, now) for task in tasks)]
        self._before = {task.id: (now, task.tokens) for task in tasks}
        widths = [max(cells(row[n]) for row in rows) for n in range(len(HEADINGS))]
        lines = [_line(row, widths) for row in rows]
        lines += [] if tasks else ["nothing runs"]
        return lines if width is None else [fit(line, width) for line in lines]

    def _row(self, task: Task, now: float) -> tuple[str, ...]:
        then, tokens = self._before.get(task.id, (now, 0))
        rate = f"{max(0, task.tokens - tokens) / (now - then):.0f}" if now > then else "-"
        age = duration(max(0.0, now - task.since))
        told = (str(task.pid), task.what, task.state, task.done, rate, age, task.model, task.about)
        return tuple(" ".join(sanitize(word).split()) for word in told)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(_padded(row, widths)).rstrip()


def _padded(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for heading, word, width in zip(HEADINGS, row, widths, strict=True):
        room = " " * (width - cells(word))
        yield room + word if heading in _NUMBERS else word + room


class Watch:
    """One table on a terminal, kept up to date until a signal comes.

    It scrolls in with the terminal's own rows and is painted over in place: no other screen,
    no keys, no modes, so that nothing has to be put back whatever ends it. The cursor waits at
    its first row, so that no rows need be counted that a terminal has wrapped anew.
    """

    def __init__(self, records: Records, env: Environment) -> None:
        self._records = records
        self._env = env
        self._table = Table()
        self._painted = ""
        self._token = CancelationToken(name="top")
        self._ended = int(ExitStatus.OK)

    def run(self) -> int:
        """Paint until a signal comes; return the exit status."""
        with signal_hub.subscribe(tuple(_ENDS), self._stop, keep_ignored=True):
            anyio.run(self._watch)
        self._env.write(f"\r\x1b[J{self._painted}")
        return self._ended

    def _stop(self, number: int) -> None:
        if not self._token.is_cancelled:
            self._ended = int(_ENDS[signal.Signals(number)])
        self._token.cancel()

    async def _watch(self) -> None:
        async with Cancelable.with_token(self._token, when_cancelled="absorb"):
            while True:
                began = self._env.clock()
                tasks = await anyio.to_thread.run_sync(running, self._records, self._env)
                self._paint(tasks)
                await anyio.sleep(max(LOOK_S, SHARE * (self._env.clock() - began)))

    def _paint(self, tasks: Sequence[Task]) -> None:
        columns, rows = os.get_terminal_size(self._env.stdout)
        lines = self._table.lines(tasks, self._env.now(), columns - 1)[: rows - 1]
        self._painted = "".join(f"{line}\n" for line in lines)
        room = "\n" * len(lines) + f"\x1b[{len(lines)}A"
        self._env.write(f"\r{room}\x1b[J\x1b7{self._painted}\x1b8")
