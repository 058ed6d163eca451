"""A file of JSON lines that one process appends to."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from llmctl.environment import FILE_MODE

_TAIL = 1 << 16
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class AppendFile:
    """Appends whole lines, each by one ``write``; a torn last line is cut off first.

    Args:
        path: the file; it is made if need be, for its owner alone.

    Raises:
        OSError: it can't be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, FILE_MODE)
        mode = stat.S_IMODE(os.fstat(self._fd).st_mode)
        if mode | FILE_MODE != mode:  # a umask has taken bits from the owner too
            os.fchmod(self._fd, mode | FILE_MODE)
        self.size = _whole_lines(self._fd)
        if _is_json(last := self.read_line(self.size)):  # only its end is missing
            os.write(self._fd, b"\n")
            self.size += len(last) + 1
        os.ftruncate(self._fd, self.size)

    def append(self, record: Any) -> int:  # noqa: ANN401  (JSON)
        """Write a record as a line and return where it begins, in bytes.

        Raises:
            OSError: there is no room; what was written of it is taken back.
        """
        return self._write(f"{_encode(record)}\n")

    def extend(self, records: Iterable[Any]) -> None:
        """Write many records, a thousand at a time.

        Raises:
            OSError: there is no room.
        """
        rest = iter(records)
        while lines := "".join(f"{_encode(record)}\n" for record in islice(rest, 1000)):
            self._write(lines)

    def clear(self) -> None:
        """Forget all records."""
        os.ftruncate(self._fd, 0)
        self.size = 0

    def read_line(self, at: int) -> bytes:
        """Return the line that begins at a place, in bytes."""
        parts: list[bytes] = []
        while not parts or b"\n" not in parts[-1]:
            part = os.pread(self._fd, _TAIL, at + sum(map(len, parts)))
            if not part:
                break
            parts.append(part)
        return b"".join(parts).partition(b"\n")[0]

    def sync(self) -> None:
        """Make what was written survive a power cut; blocks."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def _write(self, lines: str) -> int:
        at = self.size
        data = lines.encode("utf-8", "replace")
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[_some(os.write(self._fd, rest)) :]
        except OSError:
            os.ftruncate(self._fd, at)
            raise
        self.size += len(data)
        return at


def _is_json(line: bytes) -> bool:
    try:
        return json.loads(line) is not None
    except (ValueError, RecursionError):
        return False


def _some(written: int) -> int:
    if not written:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return written


def _whole_lines(fd: int) -> int:
    """Return the length of a file without a torn last line, in bytes."""
    end = os.fstat(fd).st_size
    while end:
        begin = max(0, end - _TAIL)
        found = os.pread(fd, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0
