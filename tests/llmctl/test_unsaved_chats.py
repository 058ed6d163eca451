"""A chat's conversation when the disk, or another process, does what it likes with it."""

from __future__ import annotations

import resource
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmctl.chat.history import Remembered
from llmctl.conversation import Message, Request
from llmctl.errors import LlmctlError, UsageError
from llmctl.events import Chunk, End, Timing
from llmctl.journal import Header, Journal, JournalBusy
from llmctl.records import Records, ReplyGone, new_id
from llmctl.store import StoreUnusable
from llmctl.turn import Mark

TIMING = Timing(None, 0.0, 0.0, None)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with Records(tmp_path) as opened:
        yield opened


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Talk:
    """A conversation, and what was said of the disk."""

    def __init__(self, records: Records) -> None:
        self.history = Remembered(records)
        self.troubles: list[OSError] = []

    def begin(self, question: str) -> tuple[Header, Journal]:
        said = [message.as_message() for message in self.history.messages]
        what = Header(
            generation=new_id("g"),
            conversation=self.history.id,
            created=1.0,
            request=Request("m", (*said, Message("user", question))),
            history=len(said),
            target={"spec": "local", "path": None},
            markers={},
            command="chat",
            parent=self.history.parent,
        )
        return what, self.history.begin(what, self.troubles.append)

    def end(self, what: Header, journal: Journal, answer: str, end: End = End.COMPLETE) -> None:
        journal.received(Chunk(answer, tokens=1, ends=(len(answer),)))
        journal.delivered(Mark(len(answer), len(answer), 0, 1, len(answer)))
        journal.ended(end, TIMING, resumable=end.resumable)
        self.history.settle(journal, what, answer, end)

    def exchange(self, question: str, answer: str, end: End = End.COMPLETE) -> None:
        self.end(*self.begin(question), answer, end)

    @property
    def line(self) -> list[str]:
        return [message.content for message in self.history.messages]


def test_where_no_journal_can_be_made_the_chat_remembers_by_itself(
    records: Records, tmp_path: Path
) -> None:
    talk = Talk(records)
    talk.exchange("q1", "a1")
    shutil.rmtree(tmp_path / "journals")
    (tmp_path / "journals").write_text("no folder")
    talk.exchange("q2", "a2")
    talk.exchange("q3", "a3")
    assert talk.line == ["q1", "a1", "q2", "a2", "q3", "a3"]
    assert len(talk.troubles) == 1
    assert talk.history.rewind() == "q3"
    talk.exchange("other", "b3")
    assert talk.line == ["q1", "a1", "q2", "a2", "other", "b3"]
    assert [m.content for m in talk.history.whole().messages] == talk.line
    with pytest.raises(UsageError, match="out of reach"):
        talk.history.stand_behind("g")


def test_a_reply_in_whose_middle_the_disk_filled_up_is_remembered_whole(records: Records) -> None:
    talk = Talk(records)
    talk.exchange("q1", "a1")
    what, journal = talk.begin("q2")
    journal.received(Chunk("the first half "))
    with small_files(journal.path.stat().st_size + 10):
        journal.received(Chunk("the second half"))
    assert [error.strerror for error in talk.troubles] == ["No space left on device"]
    talk.end(what, journal, "the first half the second half")
    talk.exchange("q3", "a3")
    assert talk.line == ["q1", "a1", "q2", "the first half the second half", "q3", "a3"]
    assert talk.history.unfinished is None


def test_a_store_that_cant_have_a_reply_leaves_it_in_its_journal(
    records: Records, tmp_path: Path
) -> None:
    talk = Talk(records)
    what, journal = talk.begin("q1")
    (tmp_path / "conversations.db").write_bytes(b"no database" * 100)
    with pytest.raises(StoreUnusable):
        talk.end(what, journal, "a1")
    assert journal.path.exists()
    talk.exchange("q2", "a2")
    assert talk.line == ["q1", "a1", "q2", "a2"]
    assert not talk.troubles


def test_a_new_chat_needs_no_store(records: Records, tmp_path: Path) -> None:
    (tmp_path / "conversations.db").write_bytes(b"no database" * 100)
    assert Talk(records).line == []


@pytest.mark.parametrize("act", ["take", "keep", "drop"])
def test_a_reply_that_was_ended_elsewhere(records: Records, tmp_path: Path, act: str) -> None:
    talk = Talk(records)
    talk.exchange("q1", "part", End.SIGINT)
    assert talk.history.unfinished is not None
    with Records(tmp_path) as elsewhere:
        elsewhere.keep(talk.history.unfinished.generation)
    with pytest.raises(ReplyGone, match="ended elsewhere"):
        if act == "take":
            talk.history.take(talk.troubles.append)
        else:
            getattr(talk.history, act)()
    assert talk.line == ["q1", "part"]
    assert talk.history.parent is None
    talk.exchange("q2", "a2")
    assert talk.line == ["q1", "part", "q2", "a2"]


def test_a_reply_that_is_live_elsewhere(records: Records, tmp_path: Path) -> None:
    talk = Talk(records)
    talk.exchange("q1", "part", End.SIGINT)
    assert talk.history.unfinished is not None
    with Records(tmp_path) as elsewhere:
        journal, _ = elsewhere.take(talk.history.unfinished.generation, talk.troubles.append)
        with pytest.raises(JournalBusy):
            talk.history.keep()
        journal.close()
    talk.history.keep()
    assert talk.line == ["q1", "part"]


def test_a_reply_that_the_store_cant_have_can_still_be_taken(
    records: Records, tmp_path: Path
) -> None:
    talk = Talk(records)
    talk.exchange("q1", "part", End.SIGINT)
    (reply,) = records.in_flight()
    with sqlite3.connect(tmp_path / "conversations.db") as database:
        database.execute("DROP TABLE generation")
    for _ in range(2):
        with pytest.raises(LlmctlError, match="no such table"):
            talk.history.keep()
    journal, recorded = records.take(reply.generation, talk.troubles.append)
    journal.close()
    assert recorded.resumable
