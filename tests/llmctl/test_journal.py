"""The journal: torn anywhere it opens, and says no more and no less than was written."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.conversation import Message, Options, Request
from llmctl.events import (
    Action,
    Channel,
    Chunk,
    Cursor,
    End,
    Guarantee,
    MarkerFound,
    Mode,
    Paused,
    PauseReason,
    Position,
    Resumed,
    Strategy,
    Timing,
    Usage,
)
from llmctl.journal import (
    Header,
    Journal,
    JournalBusy,
    JournalDamaged,
    NoJournal,
    Recorded,
    has_ended,
    live_pid,
    read,
    read_header,
)
from llmctl.turn import Mark

HEADER = Header(
    generation="g1",
    conversation="c1",
    created=1.0,
    request=Request("m", (Message("user", "hi \U0001f642"),), Options(seed=7, stop=("x",))),
    history=0,
    target={"spec": "scripted:demo"},
    markers={"!!P": Action.PAUSE},
    command="run",
)
TIMING = Timing(0.1, 1.0, 0.0, 20.0)


def no_trouble(error: OSError) -> None:
    raise AssertionError(error)


def written(path: Path) -> Journal:
    """Write one record of every kind."""
    journal = Journal.create(path, HEADER, no_trouble)
    journal.conditions({"script": "abc"})
    journal.received(Chunk("think", Channel.REASONING))
    journal.received(Chunk("a世", tokens=2, ends=(1, 2), ids=(5, 6)))
    journal.delivered(Mark(chars=2, model=2, tokens=2, counted=2))
    journal.received(Chunk("!!Pb", tokens=2, ends=(3, 4), cursor=Cursor("run", 9, 50)))
    found = MarkerFound("!!P", Action.PAUSE, Position(2, 2))
    journal.marker(found, Mark(chars=2, model=5, tokens=2, counted=5))
    journal.paused(Paused(PauseReason.MARKER, Mode.HOLD, Position(2, 2)))
    journal.saved({"slot": "file"})
    journal.ended(End.PAUSED_BY_MARKER, TIMING, resumable=True)
    journal.resumed(Resumed(Strategy.PREFIX, Guarantee.TEXT, Position(2, 2)))
    journal.bound(99)
    journal.received(Chunk(finish_reason="stop", usage=Usage(1, 2, 3)))
    journal.ended(End.COMPLETE, TIMING, resumable=False)
    return journal


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "g1.jsonl"
    written(path).close()
    size, recorded = read(path)
    assert size == path.stat().st_size
    assert recorded.header == HEADER == read_header(path)
    assert [chunk.text for chunk in recorded.chunks] == ["think", "a世", "!!Pb", ""]
    assert [chunk.cursor for chunk in recorded.chunks] == [None, None, Cursor("run", 9, 50), None]
    assert recorded.chunks[1].ids == (5, 6)
    assert recorded.chunks[-1].usage == Usage(1, 2, 3)
    assert recorded.mark.model == 5
    assert (recorded.pause, recorded.guarantee, recorded.bound) == (None, Guarantee.TEXT, 99)
    assert (recorded.end, recorded.resumable) == (End.COMPLETE, False)
    assert (recorded.saved, recorded.conditions) == ({"slot": "file"}, {"script": "abc"})
    assert recorded.pid == os.getpid()
    assert has_ended(path)


def test_torn_at_every_byte_it_opens_and_is_a_prefix(tmp_path: Path) -> None:
    path = tmp_path / "g1.jsonl"
    written(path).close()
    data = path.read_bytes()
    whole = read(path)[1].chunks
    first = data.index(b"\n") + 1
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        if size < first:
            with pytest.raises(JournalDamaged):
                read(path)
            continue
        journal, recorded = Journal.reopen(path, no_trouble)
        assert recorded.chunks == whole[: len(recorded.chunks)]
        journal.received(Chunk("more"))
        journal.close()
        assert read(path)[1].chunks[-1].text == "more"
        assert data.startswith(path.read_bytes().partition(b'{"type":"open"')[0])


def test_a_marker_acts_once_whichever_record_came_last(tmp_path: Path) -> None:
    """The writer thread may report the text before a marker after the marker was recorded."""
    path = tmp_path / "g1.jsonl"
    journal = Journal.create(path, HEADER, no_trouble)
    journal.received(Chunk("ab!!P!!Pc", tokens=1))
    for end in (5, 8):
        found = MarkerFound("!!P", Action.PAUSE, Position(2, None))
        journal.marker(found, Mark(chars=2, model=end, tokens=0))
    assert read(path)[1].mark == Mark()
    journal.delivered(Mark(chars=2, model=2, tokens=0))
    assert read(path)[1].mark.model == 8
    journal.close()


def test_a_marker_that_was_found_again_is_one_marker(tmp_path: Path) -> None:
    path = tmp_path / "g1.jsonl"
    journal = Journal.create(path, HEADER, no_trouble)
    for _ in range(2):
        journal.marker(MarkerFound("!!P", Action.PAUSE, Position(2, 2)), Mark(model=5))
    journal.close()
    assert len(read(path)[1].markers_found) == 1


def test_a_raised_bound_takes_the_end_away(tmp_path: Path) -> None:
    path = tmp_path / "g1.jsonl"
    journal = Journal.create(path, HEADER, no_trouble)
    journal.received(Chunk("a", tokens=None))
    journal.received(Chunk("b c", tokens=2))
    journal.received(Chunk(finish_reason="length"))
    assert read(path)[1].finished
    assert read(path)[1].spent == 3
    journal.bound(6)
    assert not read(path)[1].finished
    journal.close()


def test_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "g1.jsonl"
    journal = written(path)
    assert live_pid(path) == os.getpid()
    with pytest.raises(JournalBusy, match=f"pid {os.getpid()}") as caught:
        Journal.reopen(path, no_trouble)
    assert caught.value.exit_code == 2
    journal.close()
    assert live_pid(path) is None
    again, _ = Journal.reopen(path, no_trouble)
    again.discard()
    with pytest.raises(FileNotFoundError):
        live_pid(path)


def test_a_look_is_no_activity(tmp_path: Path) -> None:
    path = tmp_path / "g1.jsonl"
    written(path).close()
    os.utime(path, (5.0, 5.0))
    journal, recorded = Journal.reopen(path, no_trouble, quiet=True)
    journal.close()
    assert recorded.updated == path.stat().st_mtime == 5.0


def test_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        written(tmp_path / "g1.jsonl").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "g1.jsonl").stat().st_mode) == 0o600


FULL = """
import resource, sys
from pathlib import Path
from tests.llmctl.test_journal import HEADER, Chunk, Journal, read
path, limit = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
told = []
journal = Journal.create(path, HEADER, told.append)
for n in range(50):
    journal.received(Chunk(f"piece {n}", tokens=1))
journal.sync()
journal.close()
print(len(told))
"""


@pytest.mark.slow
def test_a_full_disk_is_told_once_and_nothing_is_corrupted(tmp_path: Path) -> None:
    path = tmp_path / "g1.jsonl"
    done = with_room(path, 701)
    assert done.stdout.strip() == "1"
    texts = [chunk.text for chunk in read(path)[1].chunks]
    assert texts == [f"piece {n}" for n in range(len(texts))]
    assert len(texts) < 50


@pytest.mark.slow
@pytest.mark.parametrize("room", [0, 1, 100])
def test_without_room_for_a_header_there_is_no_journal(tmp_path: Path, room: int) -> None:
    done = with_room(tmp_path / "g1.jsonl", room)
    assert done.returncode == 1
    assert "OSError" in done.stderr
    assert list(tmp_path.iterdir()) == []


def with_room(path: Path, room: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", FULL, str(path), str(room)]
    here = Path(__file__).parents[2]
    return subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)


def test_nothing_is_kept_where_nothing_is_to_be(tmp_path: Path) -> None:
    journal = NoJournal()
    journal.received(Chunk("a"))
    journal.delivered(Mark())
    journal.sync()
    journal.discard()
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_another_version_is_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "g1.jsonl"
    path.write_text(json.dumps({"type": "header", "journal": 99, **HEADER.as_json()}) + "\n")
    with pytest.raises(JournalDamaged, match="another version"):
        read(path)


def test_an_unknown_field_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "g1.jsonl"
    header = {"type": "header", "journal": 1, **HEADER.as_json(), "colour": "red"}
    path.write_text(json.dumps(header) + "\n" + json.dumps({"type": "weather"}) + "\n")
    assert replace(read(path)[1].header, created=1.0) == HEADER


@pytest.mark.parametrize(
    ("strategy", "tokens"),
    [(Strategy.PREFIX, None), (Strategy.INSTRUCT, None), (Strategy.TOKENS, 3), (Strategy.HELD, 3)],
)
def test_a_token_that_told_no_text_is_void_behind_a_text(
    tmp_path: Path, strategy: Strategy, tokens: int | None
) -> None:
    path = tmp_path / "g1.jsonl"
    journal = Journal.create(path, HEADER, no_trouble)
    journal.received(Chunk("ab", tokens=3, ids=(1, 2, 3)))
    journal.resumed(Resumed(strategy, Guarantee.TEXT, Position(2, None)))
    journal.received(Chunk("c", tokens=1))
    journal.close()
    first, second = read(path)[1].chunks
    assert (first.tokens, second.tokens) == (tokens, 1)


def test_a_changed_bit_is_never_delivered(tmp_path: Path) -> None:
    """Whichever bit of whichever byte: what stands before its record counts, and nothing else."""
    path = tmp_path / "g1.jsonl"
    written(path).close()
    data = path.read_bytes()
    whole = read(path)[1].chunks
    first = data.index(b"\n") + 1
    for place in range(first, len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        size, recorded = read(path)
        assert size <= data.rindex(b"\n", 0, place) + 1
        assert recorded.chunks == whole[: len(recorded.chunks)]


def test_a_record_that_looks_sealed_inside_is_only_text(tmp_path: Path) -> None:
    path = tmp_path / "g1.jsonl"
    journal = Journal.create(path, HEADER, no_trouble)
    text = 'a,"crc":1}\n'
    journal.received(Chunk(text))
    journal.close()
    assert read(path)[1].chunks[-1].text == text


def test_a_folded_journal_says_the_same_in_fewer_chunks(tmp_path: Path) -> None:
    path = tmp_path / "g1.jsonl"
    journal = Journal.create(path, HEADER, no_trouble)
    for number in range(10_000):
        channel = Channel.REASONING if number < 5000 else Channel.CONTENT
        journal.received(Chunk(f"w{number} ", channel, tokens=1))
    journal.received(Chunk("end", finish_reason="stop", usage=Usage(1, 2, 3)))
    journal.close()
    (whole, plain), (length, folded) = read(path), read(path, folded=True)
    assert whole == length
    for name in Channel:
        assert text_of(plain, name) == text_of(folded, name)
    assert folded.chunks[-1] == plain.chunks[-1]
    assert len(folded.chunks) < 5000 < len(plain.chunks)


def text_of(recorded: Recorded, channel: Channel) -> str:
    return "".join(chunk.text for chunk in recorded.chunks if chunk.channel is channel)
