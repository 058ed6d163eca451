"""The body of an HTTP/1.1 answer, taken out of a buffer as far as it has come. Pure.

RFC 9112, section 6.3: in chunks, by its length, or to the end of the connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

_LONGEST_SIZE_LINE = 1024
_CRLF = b"\r\n"
_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
_LENGTH = re.compile(r"[0-9]{1,18}")


class BadBody(Exception):
    """The bytes are not a body."""


class Body(Protocol):
    """Takes a body out of a buffer.

    Attributes:
        complete: all of it was taken.
        ends_with_connection: nothing but the connection's end tells its end.
    """

    complete: bool
    ends_with_connection: bool

    def take(self, buffer: bytearray) -> bytes:
        """Remove from the buffer what is there of the body, and return its content."""


def body_of(headers: Mapping[str, str]) -> Body:
    """Return what reads the body that these headers announce."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return InChunks()
    length = headers.get("content-length", "")
    return ByLength(int(length)) if _LENGTH.fullmatch(length) else ToTheEnd()


class ToTheEnd:
    """A body that ends with the connection."""

    complete = False
    ends_with_connection = True

    def take(self, buffer: bytearray) -> bytes:
        """Take everything."""
        data = bytes(buffer)
        buffer.clear()
        return data


class ByLength:
    """A body of known length, in bytes."""

    ends_with_connection = False

    def __init__(self, length: int) -> None:
        self.complete = length == 0
        self._left = length

    def take(self, buffer: bytearray) -> bytes:
        """Take as much as belongs to it."""
        data = bytes(buffer[: self._left])
        del buffer[: len(data)]
        self._left -= len(data)
        self.complete = self._left == 0
        return data


class InChunks:
    r"""A body in chunks; what stands behind the last one is dropped.

    Example:
        >>> body, buffer = InChunks(), bytearray(b"3\r\nabc\r\n2\r\nd")
        >>> body.take(buffer), body.complete
        (b'abcd', False)
        >>> buffer += b"e\r\n0\r\n\r\n"
        >>> body.take(buffer), body.complete
        (b'e', True)
    """

    ends_with_connection = False

    def __init__(self) -> None:
        self.complete = False
        self._left = 0  # of the chunk
        self._closes = False  # its line end is next
        self._last = False

    def take(self, buffer: bytearray) -> bytes:
        """Take all chunks that have begun.

        Raises:
            BadBody: a chunk's size is none, or not that of the chunk.
        """
        at, parts = 0, []
        while not self.complete:
            if self._left:
                step = min(self._left, len(buffer) - at)
                parts.append(bytes(buffer[at : at + step]))
                at += step
                self._left -= step
                self._closes = not self._left
                if self._left:
                    break
                continue
            if self._closes:
                if not _CRLF.startswith(buffer[at : at + 2]):
                    raise BadBody("a chunk is longer than its size")
                if len(buffer) - at < len(_CRLF):
                    break
                at, self._closes = at + 2, False
                continue
            end = buffer.find(b"\r\n", at)
            if end < 0:
                self._check(buffer, at)
                break
            self._line(bytes(buffer[at:end]))
            at = end + 2
        del buffer[:at]
        return b"".join(parts)

    def _line(self, line: bytes) -> None:
        """Take the line before a chunk, or one behind the last."""
        if self._last:
            self.complete = not line
            return
        digits = line.partition(b";")[0].strip()
        if _SIZE.fullmatch(digits) is None:  # int() would take a sign, too
            raise BadBody("a chunk has no size")
        size = int(digits, 16)
        self._last = size == 0
        self._left = size

    def _check(self, buffer: bytearray, at: int) -> None:
        if len(buffer) - at > _LONGEST_SIZE_LINE:
            raise BadBody("a chunk has no size")
