"""The input's lines, read as a stream: where they begin, and which belong to a shard.

A file is read in pieces, never whole. Its length is fixed when it is opened, so that lines
appended later belong to the next run. A shard is a contiguous range of bytes: it has the lines that
begin in it. Blank lines count, and are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

from llmctl.errors import UsageError, reason

LONGEST_LINE = 64 * 1024 * 1024
"""Bytes; a longer line is refused instead of being read into memory."""

_BLOCK = 1 << 20
_BOM = b"\xef\xbb\xbf"


class BadLine(Exception):
    """A line of the input can't be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``count`` equal parts of a job.

    Attributes:
        index: which, from 0.
        count: of how many.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``i/n``.

        >>> Shard.parse("3/16")
        Shard(index=3, count=16)

        Raises:
            UsageError: it is not that, or not 0 ≤ i < n.
        """
        first, _, second = text.partition("/")
        if first.isdecimal() and second.isdecimal() and int(first) < int(second):
            return cls(int(first), int(second))
        hint = "The first of four is --shard 0/4."
        raise UsageError(f"--shard takes i/n with 0 ≤ i < n, not '{text}'.", hint)

    def span(self, size: int) -> tuple[int, int]:
        """Return the part of ``size`` bytes that is this shard's, as begin and end."""
        return size * self.index // self.count, size * (self.index + 1) // self.count


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank.

    Attributes:
        number: where it stands in the whole file, from 1.
        data: its bytes, without the line end; None if it is too long.
    """

    number: int
    data: bytes | None

    @property
    def text(self) -> str:
        """The line as text.

        Raises:
            BadLine: it is too long, or not UTF-8.
        """
        if self.data is None:
            raise BadLine(f"longer than {LONGEST_LINE >> 20} MiB")
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise BadLine(f"not UTF-8 (byte {error.start + 1})") from None


class InputLines:
    """The lines of one file, as often as they are wanted.

    Attributes:
        path: the file.
        is_json: its lines are JSON objects, not prompts.
        is_whole: all of it is meant, not a part.

    Args:
        path: the file.
        shard: which part of it.

    Raises:
        UsageError: it can't be read.
    """

    def __init__(self, path: Path, shard: Shard = Shard()) -> None:
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                self.is_json = _is_json(path, file)
                self._start, self._end = shard.span(size)
                self._first = _count_lines(file, self._start) if self._start else 0
        except OSError as error:
            raise UsageError(
                f"{path} can't be read: {reason(error)}.", "Name another file."
            ) from error
        self.path = path
        self.is_whole = shard.count == 1

    def __iter__(self) -> Iterator[Line]:
        """Read from the beginning; each iteration opens the file anew."""
        with self.path.open("rb") as file:
            number = self._first + self._skip_to_start(file)
            while file.tell() < self._end:
                begins_file = file.tell() == 0
                data = _read_line(file)
                number += 1
                if begins_file and data is not None:
                    data = data.removeprefix(_BOM)
                if data is None or data.strip():
                    yield Line(number, data)

    def _skip_to_start(self, file: BinaryIO) -> int:
        """Go to the first line that begins in the span; return how many lines that passes."""
        if not self._start:
            return 0
        file.seek(self._start - 1)
        passes = file.read(1) != b"\n"
        if passes:
            _read_line(file)
        return int(passes)


def _read_line(file: BinaryIO) -> bytes | None:
    """Return the next line without its end; None, having passed it, if it is too long."""
    line = file.readline(LONGEST_LINE + 2)
    content = line.removesuffix(b"\n").removesuffix(b"\r")
    if len(content) <= LONGEST_LINE:
        return content
    while line and not line.endswith(b"\n"):
        line = file.readline(_BLOCK)
    return None


def _is_json(path: Path, file: BinaryIO) -> bool:
    """Say whether the lines are JSON objects: by the name, else by the first character."""
    if path.suffix.lower() in {".jsonl", ".ndjson"}:
        return True
    if path.suffix.lower() == ".txt":
        return False
    head = file.read(4096).removeprefix(_BOM).lstrip()
    return head.startswith(b"{")


def _count_lines(file: BinaryIO, end: int) -> int:
    """Return how many lines end before the byte ``end``."""
    file.seek(0)
    sizes = iter(lambda: min(_BLOCK, end - file.tell()), 0)
    blocks = takewhile(bool, (file.read(size) for size in sizes))
    return sum(block.count(b"\n") for block in blocks)
