"""The record of a reply in flight: one append-only file, one writer.

A journal is a file of JSON lines. The first is the header: everything needed to ask for
the same reply again. Then, as it happens:

=============  ==========================================================================
``open``       a process took the journal: its pid and host
``conditions`` on what an exact replay depends, as the back end told it
``bound``      the bound on the whole reply from here on, where it was raised
``received``   a chunk, written *before* anything of it is output
``rewritten``  the text that stands for all of the reply so far: a person edited it
``delivered``  how far the reply was output, written *after* the write returned
``marker``     a marker that acted, and where the reply stood behind it
``paused``     by whom and in which mode
``resumed``    by which strategy and with which guarantee
``saved``      engine state kept for the ``kv`` strategy
``ended``      how this process's share of the reply ended
=============  ==========================================================================

Each record ends with a checksum of what stands before it: ``…,"crc":N}``, N being the CRC-32 of
the record's JSON without that member. One that does not fit is damaged, as one that is no JSON:
what stands before it counts, what stands behind is put aside.

``os.write`` of whole lines without a flush: what was written survives ``kill -9``; `sync`
makes it survive a power cut. A torn last line is dropped. A process holds the file's lock
for as long as it writes; a journal that nobody locks has been left behind and may be
continued or, if its reply ended for good, moved into the store.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from itertools import groupby
from pathlib import Path
from types import UnionType
from typing import Any, Self

from llmctl.conversation import Request
from llmctl.environment import FILE_MODE, open_private
from llmctl.errors import LlmctlError
from llmctl.events import (
    BEHIND_TEXT,
    Action,
    Channel,
    Chunk,
    Cursor,
    End,
    Guarantee,
    MarkerFound,
    Mode,
    Paused,
    Resumed,
    Started,
    Strategy,
    Timing,
    Usage,
)
from llmctl.turn import Mark

VERSION = 2
"""Version 1 had no checksums; such a journal is read, and gone on with under the new rule."""

_DAMAGE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What reading a record raises that is not as it was written."""

_BY_HAND = "it can be deleted by hand"

_BLOCK = 4096
"""Chunks that are folded into one where only the text is wanted."""

LONGEST_ENDED = 4096
"""Bytes within which the record of an end is found at the end of a journal."""

_BARE = Chunk()[1:]
"""A chunk that has content and nothing else; most are, so their records are made quickly."""

_LEAST = 2
"""Members of such a chunk's record: its type and its text."""

_TOO_MANY = 2**31
_SEAL = re.compile(rb',"crc":(\d{1,10})\}\n\Z')
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


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
            f"Reply {generation} is live in another process (pid {pid}).",
            f"Wait for it, stop it there, or 'llmctl conversations fork {generation}'.",
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
        parent: the stored message that this makes a branch behind; 0 for a branch from the
            very beginning, None where it goes on behind the conversation's last.
    """

    generation: str
    conversation: str
    created: float
    request: Request
    history: int
    target: Mapping[str, Any]
    markers: Mapping[str, Action]
    command: str
    parent: int | None = None

    def started(self, backend: str, api: str) -> Started:
        """Return the event that names the reply, asked of a back end by a protocol."""
        return Started(self.generation, self.conversation, self.request.model, backend, api)

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
            "parent": self.parent,
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
        resumable: whether there is anything to go on with.
        pause: the last pause's mode, None if delivery was not paused last.
        bound: the bound on the whole reply, in tokens, if one was set after the request.
        guarantee: the worst guarantee over all resumes so far.
        pid: the process that wrote last.
        updated: when the file last changed, in seconds since the epoch.
        aside: where what stood behind a damaged record was put; None if nothing was damaged.
    """

    header: Header
    chunks: list[Chunk] = field(default_factory=list)
    mark: Mark = Mark()  # noqa: RUF009  (immutable)
    end: End | None = None
    resumable: bool = True
    pause: Mode | None = None
    bound: int | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)
    saved: Mapping[str, Any] | None = None
    resumes: list[dict[str, Any]] = field(default_factory=list)
    markers_found: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    guarantee: Guarantee = Guarantee.EXACT
    pid: int | None = None
    updated: float = 0.0
    aside: Path | None = None

    @property
    def spent(self) -> int:
        """How many tokens it has at least, up to where a bound ended it.

        A delta is one where tokens are not told.
        """
        content = (c for c in self.chunks if c.channel is Channel.CONTENT and c.text)
        received = sum(1 if chunk.tokens is None else chunk.tokens for chunk in content)
        return received if self.bound is None else min(received, self.bound)

    def raise_bound(self, max_tokens: int | None) -> None:
        """Go on behind an end that the old bound brought about."""
        self.bound = max_tokens
        if self.chunks and self.chunks[-1].finish_reason == "length":
            self.chunks[-1] = self.chunks[-1]._replace(finish_reason=None)

    def rewrite(self, text: str) -> None:
        """Let ``text`` stand for the reply so far; nothing vouches for its tokens any more.

        Chunks that it begins with are kept: their tokens are counted.
        """
        thoughts = "".join(c.text for c in self.chunks if c.channel is Channel.REASONING)
        thoughts = thoughts[: self.mark.reasoning]
        kept, tail = _beginning(self.chunks, text)
        tokens = None if tail or any(c.tokens is None for c in kept) else _tokens(kept)
        self.chunks = [
            *([Chunk(thoughts, Channel.REASONING)] if thoughts else []),
            *kept,
            *([Chunk(tail)] if tail else []),
        ]
        self.mark = Mark(len(text), len(text), len(thoughts), tokens, len(text))
        self.markers_found = []
        self.conditions, self.saved = {}, None
        self.guarantee = self.guarantee.or_worse(Guarantee.TEXT)

    def join(self, strategy: Strategy) -> None:
        """The reply went on: behind its text alone, a token that was in no text is void."""
        if strategy in BEHIND_TEXT and self.chunks and self.chunks[-1].loose:
            self.chunks[-1] = self.chunks[-1]._replace(tokens=None, ids=None)

    @property
    def stopped(self) -> bool:
        """Whether a marker ended it: one that stops has acted where it stands."""
        return any(
            found["action"] == Action.STOP and found["end"] == self.mark.model
            for found in self.markers_found
        )

    @property
    def finished(self) -> bool:
        """Whether the back end's end of the reply was received."""
        return any(chunk.finish_reason for chunk in self.chunks[-1:])


class Journal:
    """The one writer of a reply's journal; its methods may be called from any thread.

    Args:
        path: the file; its lock is held until `close`.
        fd: an open descriptor of it, already locked.
        on_broken: told once when writing failed (disk full), in the thread that wrote; from
            then on nothing more is written and durability is lost, but the reply goes on.
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
            OSError: the file can't be made, or has no room for a header; nothing is left behind.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, FILE_MODE)
        try:
            os.fchmod(fd, FILE_MODE)  # a umask may have taken bits from the owner too
            fcntl.flock(fd, fcntl.LOCK_EX)
            _append(fd, sealed({"type": "header", "journal": VERSION, **header.as_json()}))
        except BaseException:
            path.unlink()
            os.close(fd)
            raise
        journal = cls(path, fd, on_broken)
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
            if not quiet and whole < os.fstat(fd).st_size:
                recorded.aside = _put_aside(path, fd, whole)
                os.ftruncate(fd, whole)  # also counts as activity: not for a mere look
        except BaseException:
            os.close(fd)
            raise
        journal = cls(path, fd, on_broken)
        if not quiet:
            journal._opened()
        return journal, recorded

    @property
    def saves(self) -> bool:
        """Whether all that it was told is in the file; false for good once it is not."""
        return self._fd >= 0 and not self._broken

    def conditions(self, conditions: Mapping[str, Any]) -> None:
        """Record on what an exact replay depends."""
        self._write({"type": "conditions", "conditions": dict(conditions)})

    def bound(self, max_tokens: int | None) -> None:
        """Record a new bound on the whole reply; one that reached the old goes on."""
        self._write({"type": "bound", "max_tokens": max_tokens})

    def received(self, chunk: Chunk) -> None:
        """Record a chunk; call it before anything of the chunk is output."""
        record = f'{{"type":"received","text":{_encode(chunk.text)}}}'
        if chunk[1:] != _BARE:
            record = f"{record[:-1]},{_encode(_besides_text(chunk))[1:]}"
        self._write(record)

    def rewritten(self, text: str) -> None:
        """Record the text that stands for all of the reply so far."""
        self._write({"type": "rewritten", "text": text})

    def delivered(self, mark: Mark) -> None:
        """Record how far the reply was output; call it after the write returned."""
        self._write({"type": "delivered", **mark._asdict()})

    def paused(self, event: Paused) -> None:
        """Record a pause."""
        self._write(event.as_json())

    def resumed(self, event: Resumed) -> None:
        """Record that delivery goes on, and how exactly."""
        self._write(event.as_json())

    def marker(self, event: MarkerFound, mark: Mark) -> None:
        """Record that a marker acted; ``mark`` is where the reply stands behind it."""
        self._write({**event.as_json(), "end": mark.model, "mark": mark._asdict()})

    def saved(self, state: Mapping[str, Any]) -> None:
        """Record where the engine's state was kept."""
        self._write({"type": "saved", "state": dict(state)})

    def ended(self, end: End, timing: Timing, *, resumable: bool) -> None:
        """Record how this process's share of the reply ended, and whether it may go on."""
        record = {"end": end.name, "resumable": resumable, "timing": timing.as_json()}
        self._write({"type": "ended", **record})

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

    def _write(self, record: Mapping[str, Any] | str) -> None:
        """Append a record, or the JSON of one."""
        if self._fd < 0:
            return
        data = sealed(record)
        with self._lock:
            if self._fd < 0 or self._broken:
                return
            try:
                _append(self._fd, data)
            except OSError as error:
                self._break(error)

    def _break(self, error: OSError) -> None:
        if not self._broken:
            self._broken = True
            self._on_broken(error)


def _append(fd: int, data: bytes) -> None:
    """Write all of it, in one call.

    Raises:
        OSError: it did not fit.
    """
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class NoJournal(Journal):
    """Keeps nothing (``--no-store``)."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull), -1, lambda _error: None)

    def sync(self) -> None:
        """Nothing to keep."""

    def discard(self) -> None:
        """Nothing to remove."""


def read(path: Path, *, folded: bool = False) -> tuple[int, Recorded]:
    """Read a journal; return the length of its whole lines in bytes, and what they say.

    Args:
        path: the file.
        folded: only the text is wanted: chunks come in blocks, without their tokens.

    Raises:
        JournalDamaged: it has no header of a version that is known here.
    """
    lines = _whole_lines(path)
    whole, header = _header(path, lines)
    recorded, blocks = Recorded(header, updated=path.stat().st_mtime), 0
    with suppress(*_DAMAGE):  # what stands before a damaged record counts
        for end, record in lines:
            _apply(recorded, record)
            whole = end
            if folded and len(recorded.chunks) - blocks > _BLOCK:
                recorded.chunks[blocks:] = _folded(recorded.chunks[blocks:])
                blocks = len(recorded.chunks) - 1
    _pass_markers(recorded)
    return whole, recorded


def _folded(chunks: list[Chunk]) -> list[Chunk]:
    """Return the same text in as few chunks as it has changes of channel; the last stays."""
    *before, last = chunks
    folded: list[Chunk] = []
    for (channel, plain), group in groupby(before, key=lambda c: (c.channel, c.usage is None)):
        run = list(group)
        folded += [Chunk("".join(c.text for c in run), channel)] if plain else run
    return [*folded, last]


def _header(path: Path, lines: Iterator[tuple[int, Any]]) -> tuple[int, Header]:
    whole, first = next(lines, (0, {}))
    if not isinstance(first, dict) or first.get("type") != "header":
        raise JournalDamaged(f"{path.name} has no header", _BY_HAND)
    if first.get("journal") not in range(1, VERSION + 1):
        raise JournalDamaged(
            f"{path.name} was written by another version of llmctl",
            "finish the reply with that version",
        )
    known = set(Header.__slots__)
    try:
        return whole, Header.from_json({k: v for k, v in first.items() if k in known})
    except _DAMAGE as error:
        raise JournalDamaged(f"{path.name} has a damaged header", _BY_HAND) from error


def read_header(path: Path) -> Header:
    """Read only what a journal's reply is.

    Raises:
        JournalDamaged: it has no header of a version that is known here.
    """
    return _header(path, _whole_lines(path))[1]


def has_ended(path: Path) -> bool:
    """Say whether a journal's reply has ended for good, by its last record alone."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LONGEST_ENDED))
        last = file.read().rpartition(b"\n")[0].rpartition(b"\n")[2]
    try:
        record = json.loads(last)
    except ValueError:
        return False
    return isinstance(record, dict) and record.get("resumable") is False


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


def _put_aside(path: Path, fd: int, whole: int) -> Path | None:
    """Keep what stands behind a damaged record; a torn last line is nothing to keep."""
    rest = os.pread(fd, os.fstat(fd).st_size - whole, whole)
    if b"\n" not in rest:
        return None
    aside = path.with_name(f"{path.name}.damaged")
    with open_private(aside, "ab") as file:
        file.write(rest)
    return aside


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalBusy(path.stem, read(path)[1].pid) from None
    if os.fstat(fd).st_nlink == 0:
        raise FileNotFoundError(path)


def sealed(record: Mapping[str, Any] | str) -> bytes:
    """Return a record, or the JSON of one, as the line that a journal keeps."""
    told = record if isinstance(record, str) else _encode(record)
    data = told.encode("utf-8", "replace")
    return b'%b,"crc":%d}\n' % (data[:-1], zlib.crc32(data))


def _whole_lines(path: Path) -> Iterator[tuple[int, Any]]:
    end, must = 0, False
    with path.open("rb") as file:
        for line in file:
            seal = _SEAL.search(line)
            if not line.endswith(b"\n") or (must and seal is None):
                return
            data = line if seal is None else line[: seal.start()] + b"}"
            if seal is not None and zlib.crc32(data) != int(seal[1]):
                return
            try:
                record = json.loads(data.decode("utf-8", "surrogatepass"))  # bytes take longer
            except (ValueError, RecursionError):
                return
            must = must or (isinstance(record, dict) and record.get("journal") == VERSION)
            end += len(line)
            yield end, record


def _apply(  # noqa: C901  (one case a record)
    recorded: Recorded, record: Mapping[str, Any]
) -> None:
    match record.get("type"):
        case "open":
            recorded.pid = _typed(record["pid"], int)
            recorded.end = None
            recorded.resumable = True
        case "conditions":
            recorded.conditions = _typed(record["conditions"], dict)
        case "received":
            recorded.chunks.append(_chunk(record))
        case "rewritten":
            recorded.rewrite(_typed(record["text"], str))
        case "bound":
            recorded.raise_bound(_typed(record["max_tokens"], int | None))
        case "delivered":
            recorded.mark = _mark(record)
        case "marker":
            fresh = _marker(record)
            known = [found for found in recorded.markers_found if found["end"] != fresh["end"]]
            recorded.markers_found = [*known, fresh]
        case "paused":
            recorded.pause = Mode(record["mode"])
        case "resumed":
            recorded.pause = None
            recorded.join(Strategy(record["strategy"]))
            recorded.resumes.append(dict(record))
            recorded.guarantee = recorded.guarantee.or_worse(Guarantee(record["guarantee"]))
        case "saved":
            recorded.saved = _typed(record["state"], dict)
        case "ended":
            recorded.end = End[record["end"]]
            recorded.resumable = _typed(record["resumable"], bool)
            recorded.timings.append(_typed(record["timing"], dict))


def _beginning(chunks: Sequence[Chunk], text: str) -> tuple[list[Chunk], str]:
    """Return the chunks of content that ``text`` begins with, and what is behind them."""
    kept: list[Chunk] = []
    for chunk in (chunk for chunk in chunks if chunk.channel is Channel.CONTENT):
        if not text or not text.startswith(chunk.text):
            break
        kept.append(chunk._replace(finish_reason=None, cursor=None))
        text = text[len(chunk.text) :]
    return kept, text


def _tokens(chunks: Sequence[Chunk]) -> int:
    return sum(chunk.tokens or 0 for chunk in chunks)


def _pass_markers(recorded: Recorded) -> None:
    """Stand behind the markers that acted where delivery stopped: none acts twice."""
    for found in recorded.markers_found:
        if found["end"] - len(found["marker"]) == recorded.mark.model:
            recorded.mark = _mark(found["mark"])


def _besides_text(chunk: Chunk) -> dict[str, Any]:
    """Return the members of a chunk's record that are not in every one."""
    record: dict[str, Any] = {}
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
    if chunk.cursor:
        record["cursor"] = astuple(chunk.cursor)
    return record


def _mark(record: Mapping[str, Any]) -> Mark:
    kinds = {name: int | None if name == "tokens" else int for name in Mark._fields}
    return Mark(**{name: _typed(record[name], kind) for name, kind in kinds.items()})


def _chunk(record: Mapping[str, Any]) -> Chunk:
    if len(record) == _LEAST:
        return Chunk(_typed(record["text"], str))
    usage = record.get("usage")
    return Chunk(
        text=_typed(record["text"], str),
        channel=Channel(record.get("channel", Channel.CONTENT)),
        tokens=_typed(record.get("tokens"), int | None),
        ends=_tuple(record.get("ends")),
        ids=_tuple(record.get("ids")),
        finish_reason=_typed(record.get("finish_reason"), str | None),
        context_full=record.get("context_full", False),
        usage=Usage(**{k: _typed(v, int | None) for k, v in usage.items()}) if usage else None,
        cursor=Cursor(*record["cursor"]) if "cursor" in record else None,
    )


def _marker(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a marker, all of which is wanted later."""
    _mark(record["mark"]), _typed(record["marker"], str), _typed(record["end"], int)
    Action(record["action"])
    return dict(record)


def _tuple(values: list[int] | None) -> tuple[int, ...] | None:
    if values is not None and not all(0 <= _typed(value, int) < _TOO_MANY for value in values):
        raise ValueError("no numbers of a reply")
    return None if values is None else tuple(values)


def _typed(value: object, kind: type | UnionType) -> Any:  # noqa: ANN401  (it is of the kind)
    """Return a value; one of another kind damages its record."""
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not of {kind}")
    return value
