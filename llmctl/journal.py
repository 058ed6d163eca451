"""The record of a reply in flight: one append-only file, one writer.

A journal is a file of JSON lines. The first is the header: everything needed to ask for
the same reply again. Then, as it happens:

=============  ==========================================================================
``open``       a process took the journal: its pid and host
``conditions`` on what an exact replay depends, as the back end told it
``received``   a chunk, written *before* anything of it is output
``delivered``  how far the reply was output, written *after* the write returned
``paused``     by whom and in which mode
``resumed``    by which strategy and with which guarantee
``saved``      engine state kept for the ``kv`` strategy
``ended``      how this process's share of the reply ended
=============  ==========================================================================

``os.write`` of whole lines without a flush: what was written survives ``kill -9``; `sync`
makes it survive a power cut. A torn last line is dropped. A process holds the file's lock
for as long as it writes; a journal that nobody locks has been left behind and may be
continued or, if its reply ended for good, moved into the store.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from llmctl.conversation import Request
from llmctl.errors import LlmctlError
from llmctl.events import (
    Action,
    Channel,
    Chunk,
    End,
    Guarantee,
    MarkerFound,
    Mode,
    Paused,
    Resumed,
    Timing,
    Usage,
)
from llmctl.turn import Mark

VERSION = 1


class JournalDamaged(LlmctlError):
    """A journal can't be read."""

    kind = "damaged"


class JournalBusy(LlmctlError):
    """Another process is writing this reply.

    Args:
        pid: that process.
    """

    kind = "busy"
    exit_code = 2

    def __init__(self, generation: str, pid: int | None) -> None:
        super().__init__(
            f"reply {generation} is live in another process (pid {pid})",
            "wait for it, or stop it there",
        )
        self.pid = pid


@dataclass(frozen=True, slots=True)
class Header:
    """What a reply is, before anything of it exists.

    Attributes:
        generation: the reply's id, kept over all resumes.
        conversation: the id of the conversation it belongs to.
        created: when it was asked for, in seconds since the epoch.
        request: all that was asked of the model.
        history: how many of the request's messages the store already has.
        target: how to reach the back end again (never a key).
        markers: the texts that act, by default also in later processes.
        command: which command began it.
    """

    generation: str
    conversation: str
    created: float
    request: Request
    history: int
    target: Mapping[str, Any]
    markers: Mapping[str, Action]
    command: str

    def as_json(self) -> dict[str, Any]:
        """Return a form that `from_json` reads back."""
        return {
            "generation": self.generation,
            "conversation": self.conversation,
            "created": self.created,
            "request": self.request.as_json(),
            "history": self.history,
            "target": dict(self.target),
            "markers": {text: str(action) for text, action in self.markers.items()},
            "command": self.command,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `as_json` wrote."""
        fields = {**data}
        fields["request"] = Request.from_json(data["request"])
        fields["markers"] = {text: Action(a) for text, a in data["markers"].items()}
        return cls(**fields)


@dataclass(slots=True)
class Recorded:
    """A reply as its journal tells it.

    Attributes:
        chunks: all that was received, in order.
        mark: how far it was delivered.
        end: how the last process's share ended; None after a hard kill.
        pause: the last pause's mode, None if delivery was not paused last.
        guarantee: the worst guarantee over all resumes so far.
        pid: the process that wrote last.
        updated: when the file last changed, in seconds since the epoch.
    """

    header: Header
    chunks: list[Chunk] = field(default_factory=list)
    mark: Mark = Mark()  # noqa: RUF009  (immutable)
    end: End | None = None
    pause: Mode | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)
    saved: Mapping[str, Any] | None = None
    resumes: list[dict[str, Any]] = field(default_factory=list)
    markers_found: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    guarantee: Guarantee = Guarantee.EXACT
    pid: int | None = None
    updated: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether the back end's end of the reply was received."""
        return any(chunk.finish_reason for chunk in self.chunks[-1:])

    @property
    def resumable(self) -> bool:
        """Whether there is anything to go on with."""
        return self.end is None or self.end.resumable


class Journal:
    """The one writer of a reply's journal; its methods may be called from any thread.

    Args:
        path: the file; its lock is held until `close`.
        fd: an open descriptor of it, already locked.
        on_broken: told once when writing failed (disk full); from then on nothing more is
            written and durability is lost, but the reply goes on.
    """

    def __init__(self, path: Path, fd: int, on_broken: Callable[[OSError], None]) -> None:
        self.path = path
        self._fd = fd
        self._lock = threading.Lock()
        self._on_broken = on_broken
        self._broken = False

    @classmethod
    def create(cls, path: Path, header: Header, on_broken: Callable[[OSError], None]) -> Self:
        """Begin the journal of a new reply.

        Raises:
            OSError: the file can't be made.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        journal = cls(path, fd, on_broken)
        journal._write({"type": "header", "journal": VERSION, **header.as_json()})
        journal._opened()
        return journal

    @classmethod
    def reopen(
        cls, path: Path, on_broken: Callable[[OSError], None], *, quiet: bool = False
    ) -> tuple[Self, Recorded]:
        """Take over a journal that nobody is writing.

        Args:
            path: the file.
            on_broken: as for the constructor.
            quiet: only look at it; do not record that it was opened.

        Raises:
            JournalBusy: somebody is.
            JournalDamaged: it can't be read.
            FileNotFoundError: it has been moved into the store meanwhile.
        """
        fd = os.open(path, os.O_RDWR | os.O_APPEND)
        try:
            _lock(fd, path)
            whole, recorded = read(path)
            os.ftruncate(fd, whole)
        except BaseException:
            os.close(fd)
            raise
        journal = cls(path, fd, on_broken)
        if not quiet:
            journal._opened()
        return journal, recorded

    def conditions(self, conditions: Mapping[str, Any]) -> None:
        """Record on what an exact replay depends."""
        self._write({"type": "conditions", "conditions": dict(conditions)})

    def received(self, chunk: Chunk) -> None:
        """Record a chunk; call it before anything of the chunk is output."""
        record: dict[str, Any] = {"type": "received", "text": chunk.text}
        if chunk.channel is not Channel.CONTENT:
            record["channel"] = str(chunk.channel)
        for name in ("tokens", "ends", "ids", "finish_reason"):
            value = getattr(chunk, name)
            if value is not None:
                record[name] = value
        if chunk.context_full:
            record["context_full"] = True
        if chunk.usage:
            record["usage"] = chunk.usage.as_json()
        self._write(record)

    def delivered(self, mark: Mark) -> None:
        """Record how far the reply was output; call it after the write returned."""
        self._write({"type": "delivered", **asdict(mark)})

    def paused(self, event: Paused) -> None:
        """Record a pause."""
        self._write(event.as_json())

    def resumed(self, event: Resumed) -> None:
        """Record that delivery goes on, and how exactly."""
        self._write(event.as_json())

    def marker(self, event: MarkerFound, end: int) -> None:
        """Record that a marker acted, and where it ends in the model's text."""
        self._write({**event.as_json(), "end": end})

    def saved(self, state: Mapping[str, Any]) -> None:
        """Record where the engine's state was kept."""
        self._write({"type": "saved", "state": dict(state)})

    def ended(self, end: End, timing: Timing) -> None:
        """Record how this process's share of the reply ended."""
        self._write({"type": "ended", "end": end.name, "timing": timing.as_json()})

    def sync(self) -> None:
        """Make what was written survive a power cut; blocks, so call it in a thread."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            self._break(error)

    def close(self) -> None:
        """Give the journal up; it stays for a later resume."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def discard(self) -> None:
        """Remove the journal: its reply has ended for good and is in the store."""
        self.path.unlink(missing_ok=True)
        self.close()

    def _opened(self) -> None:
        self._write(
            {"type": "open", "pid": os.getpid(), "host": socket.gethostname(), "at": time.time()}
        )

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._fd < 0:
            return
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"
        data = line.encode("utf-8", "replace")
        with self._lock:
            if self._fd < 0 or self._broken:
                return
            try:
                if os.write(self._fd, data) != len(data):
                    raise OSError(28, "the record was cut short")
            except OSError as error:
                self._break(error)

    def _break(self, error: OSError) -> None:
        if not self._broken:
            self._broken = True
            self._on_broken(error)


class NoJournal(Journal):
    """Keeps nothing (``--no-store``)."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull), -1, lambda _error: None)

    def sync(self) -> None:
        """Nothing to keep."""

    def discard(self) -> None:
        """Nothing to remove."""


def read(path: Path) -> tuple[int, Recorded]:
    """Read a journal; return the length of its whole lines in bytes, and what they say.

    Raises:
        JournalDamaged: it has no header of a version that is known here.
    """
    lines = _whole_lines(path)
    whole, first = next(lines, (0, {}))
    if first.get("type") != "header":
        raise JournalDamaged(f"{path.name} has no header", "it can be deleted by hand")
    if first.get("journal") != VERSION:
        raise JournalDamaged(
            f"{path.name} was written by another version of llmctl",
            "finish the reply with that version",
        )
    known = set(Header.__slots__)
    header = Header.from_json({k: v for k, v in first.items() if k in known})
    recorded = Recorded(header, updated=path.stat().st_mtime)
    for end, record in lines:
        whole = end
        _apply(recorded, record)
    return whole, recorded


def live_pid(path: Path) -> int | None:
    """Return the pid of the process that is writing this journal, None if there is none.

    Raises:
        FileNotFoundError: the journal is gone.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        _lock(fd, path)
    except JournalBusy as busy:
        return busy.pid or -1
    finally:
        os.close(fd)
    return None


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalBusy(path.stem, read(path)[1].pid) from None
    if os.fstat(fd).st_nlink == 0:
        raise FileNotFoundError(path)


def _whole_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    end = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError:
                return
            end += len(line)
            yield end, record


def _apply(recorded: Recorded, record: Mapping[str, Any]) -> None:
    match record.get("type"):
        case "open":
            recorded.pid = record["pid"]
            recorded.end = None
        case "conditions":
            recorded.conditions = record["conditions"]
        case "received":
            recorded.chunks.append(_chunk(record))
        case "delivered":
            recorded.mark = Mark(**{k: record[k] for k in Mark.__slots__})
        case "marker":
            recorded.markers_found.append(dict(record))
        case "paused":
            recorded.pause = Mode(record["mode"])
        case "resumed":
            recorded.pause = None
            recorded.resumes.append(dict(record))
            recorded.guarantee = _worse(recorded.guarantee, Guarantee(record["guarantee"]))
        case "saved":
            recorded.saved = record["state"]
        case "ended":
            recorded.end = End[record["end"]]
            recorded.timings.append(record["timing"])


def _worse(one: Guarantee, other: Guarantee) -> Guarantee:
    return other if one.at_least(other) else one


def _chunk(record: Mapping[str, Any]) -> Chunk:
    usage = record.get("usage")
    return Chunk(
        text=record["text"],
        channel=Channel(record.get("channel", Channel.CONTENT)),
        tokens=record.get("tokens"),
        ends=_tuple(record.get("ends")),
        ids=_tuple(record.get("ids")),
        finish_reason=record.get("finish_reason"),
        context_full=record.get("context_full", False),
        usage=Usage(**usage) if usage else None,
    )


def _tuple(values: list[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)
