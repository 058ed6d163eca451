"""The writer of standard output: it never blocks its caller and never miscounts."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llmctl import output as writer
from llmctl.output import HIGH_WATER, PACE_S, SLICE, Output
from llmctl.terminal.sanitizer import sanitize


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    out, into = os.pipe()
    try:
        yield out, into
    finally:
        for end in (out, into):
            with suppress(OSError):  # a test may have closed it
                os.close(end)


@contextmanager
def writing(fd: int, **options: object) -> Iterator[Output]:
    output = Output(fd, **options)  # type: ignore[arg-type]
    try:
        yield output
    finally:
        output.close()


def read_all(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return data


def test_all_goes_out_in_order_and_is_counted() -> None:
    counts: list[int] = []
    with pipe() as (out, into), writing(into) as output:
        for text in ("a", "世界", "b" * (3 * SLICE)):
            output.write(text, counts.append)
        data = read_all(out, 1 + 6 + 3 * SLICE)
        assert output.drain(5)
    assert data.decode() == "a世界" + "b" * (3 * SLICE)
    assert counts[-1] == 3 * SLICE


def test_a_part_that_is_out_is_reported_unless_only_the_whole_counts() -> None:
    parts: list[int] = []
    wholes: list[int] = []
    text = "x" * (64 * 1024 + 3 * SLICE)
    with pipe() as (out, into), writing(into) as output:
        output.write(text, parts.append)
        while not parts or parts[-1] < 64 * 1024 - 4 * SLICE:
            pass
        output.write("line\n", wholes.append, whole=True)
        assert not output.drain(0.01)
        assert wholes == []
        read_all(out, len(text) + 5)
        assert output.drain(5)
    assert parts == sorted(parts)
    assert parts[-1] == len(text)
    assert wholes == [5]


def test_a_stuck_reader_stops_nothing() -> None:
    with pipe() as (_out, into):
        output = Output(into)
        output.write("x" * (2 * HIGH_WATER))
        assert not output.drain(0.05)
        assert output.full
        while not output.blocked_for:
            pass
        output.close()
    assert not output._thread.is_alive()


def test_another_writer_that_took_the_last_room_stops_nothing() -> None:
    """Both saw room in the pipe; the other one was faster: our write hangs in the kernel."""
    entered, leave = threading.Event(), threading.Event()
    with pipe() as (out, into):
        output = Output(into)

        def hang(data: bytes) -> None:
            entered.set()
            leave.wait()
            os.write(into, data)

        output._write_all = hang  # type: ignore[method-assign]
        output.write("x")
        assert entered.wait(5)
        output.close()
        leave.set()
        assert os.read(out, 1) == b"x"
        output._thread.join()
    os.close(output._wake_in)
    os.close(output._wake_out)


@pytest.mark.parametrize("idle", [True, False])
def test_a_reader_that_goes_away_is_noticed(idle: bool) -> None:
    gone = threading.Event()
    errors: list[OSError] = []

    def on_broken(error: OSError) -> None:
        errors.append(error)
        gone.set()

    with pipe() as (out, into), writing(into, on_broken=on_broken) as output:
        output.write("a" if idle else "x" * 200_000)
        if idle:
            assert output.drain(5)
        os.close(out)
        assert gone.wait(5)
        output.write("nobody reads this")
        assert not output.drain(0.01)
    assert isinstance(errors[0], BrokenPipeError)
    assert len(errors) == 1


def test_a_full_device_is_told() -> None:
    errors: list[OSError] = []
    with Path("/dev/full").open("wb", buffering=0) as full:
        output = Output(full.fileno(), on_broken=errors.append)
        output.write("a")
        output.drain(5)
        output.close()
    assert [error.errno for error in errors] == [28]


def test_what_is_cleaned_is_counted_as_it_was_given() -> None:
    counts: list[int] = []
    with pipe() as (out, into), writing(into, clean=sanitize) as output:
        output.write("a\x1b[31mb", counts.append)
        assert output.drain(5)
        assert os.read(out, 100) == b"a[31mb"
    assert counts == [7]


def test_a_lone_surrogate_is_no_reason_to_fail() -> None:
    with pipe() as (out, into), writing(into) as output:
        output.write("a\ud83d")
        assert output.drain(5)
        assert os.read(out, 100) == b"a?"


def test_nothing_is_nothing() -> None:
    with pipe() as (_out, into), writing(into) as output:
        output.write("")
        assert output.drain(0)


@dataclass
class Clock:
    """Stands in for the module `time`: moves only when it is told to, or somebody sleeps."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_writes_keep_a_distance_and_what_comes_slowly_never_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(writer, "time", clock)
    with pipe() as (_, into), writing(into) as output:
        for passed in (0.0, PACE_S / 4, 2 * PACE_S):
            clock.now += passed
            output.write("x")
            assert output.drain(5)
        assert clock.slept == pytest.approx([3 / 4 * PACE_S])
