"""Server-sent events: bytes in, events out. Pure: no I/O, no clock.

The grammar is the WHATWG's ("Server-sent events", section "Interpreting an event
stream"), followed to the letter: lines end with CR, LF or CRLF; a line is a comment
(leading colon), or ``field: value`` with at most one space taken off the value; ``data``
lines add up; an empty line dispatches; one BOM at the very start is skipped; what the
stream's end leaves without its empty line is dropped.

Speed comes from one observation: `bytes.splitlines` splits at exactly the three line
ends of the grammar. So whatever a read brings is cut into lines by one call in C, and
Python only looks at whole lines. How the bytes were divided into reads never matters.
"""

from __future__ import annotations

from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    """One dispatched event.

    Attributes:
        data: the ``data`` lines, joined with line feeds.
        type: the ``event`` field; "message" where it was absent or empty.
        id: the last ``id`` seen on the stream so far.
    """

    data: str
    type: str = "message"
    id: str = ""


class SseDecoder:
    r"""Turns the bytes of one stream into events, whatever way they were split.

    Example:
        >>> decoder = SseDecoder()
        >>> decoder.feed(b"data: on")
        []
        >>> [event.data for event in decoder.feed(b"e\n\ndata: two\n\n")]
        ['one', 'two']
    """

    __slots__ = ("_after_cr", "_at_start", "_data", "_id", "_partial", "_retry_ms", "_type")

    def __init__(self) -> None:
        self._partial: list[bytes] = []
        self._after_cr = False
        self._at_start = True
        self._data: list[bytes] = []
        self._type = ""
        self._id = ""
        self._retry_ms: int | None = None

    @property
    def retry_ms(self) -> int | None:
        """The reconnection time the stream asked for, in milliseconds."""
        return self._retry_ms

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes and return the events they complete."""
        events: list[ServerSentEvent] = []
        pending = self._data
        for line in self._lines(data):
            if line.startswith(b"data: "):
                pending.append(line[6:])
            elif line:
                self._field(line)
            else:
                self._dispatch(events)
        return events

    def _lines(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes and keep its unfinished one."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")  # the second half of a CRLF
            self._after_cr = False
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if not end:
            self._partial.append(data)
            return []
        self._after_cr = data.endswith(b"\r")
        lines = b"".join((*self._partial, data[:end])).splitlines()
        self._partial = [data[end:]]
        if self._at_start:
            lines[0] = lines[0].removeprefix(_BOM)
            self._at_start = False
        return lines

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        if self._data:
            data = b"\n".join(self._data).decode("utf-8", "replace")
            events.append(ServerSentEvent(data, self._type or "message", self._id))
            self._data.clear()
        self._type = ""

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._data.append(value)
            case b"event":
                self._type = value.decode("utf-8", "replace")
            case b"id" if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
            case b"retry" if value.isdigit():
                self._retry_ms = int(value)
