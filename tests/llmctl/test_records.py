"""Journals and the store together: one truth at a time, whoever dies when."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.conversation import Message, Request
from llmctl.errors import UsageError
from llmctl.events import Action, Chunk, End, MarkerFound, Position, Timing
from llmctl.journal import Header, Journal, JournalBusy
from llmctl.records import Records, new_id
from llmctl.replies import content_of
from llmctl.store import Store, StoreUnusable
from llmctl.turn import Mark

TIMING = Timing(0.1, 1.0, 0.0, 20.0)


def header(**changes: object) -> Header:
    base = Header(
        generation=new_id("g"),
        conversation=new_id("c"),
        created=1.0,
        request=Request("m", (Message("user", "hi"),)),
        history=0,
        target={},
        markers={},
        command="run",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def no_trouble(error: OSError) -> None:
    raise AssertionError(error)


def said(journal: Journal, text: str, end: End | None) -> None:
    """Deliver a text and end, or die."""
    journal.received(Chunk(text, tokens=1, ends=(len(text),)))
    journal.delivered(Mark(len(text), len(text), 0, 1, len(text)))
    if end is not None:
        journal.ended(end, TIMING, resumable=end.resumable)


def begin(records: Records, text: str, end: End | None, **changes: object) -> Header:
    what = header(**changes)
    journal = records.begin(what, no_trouble)
    said(journal, text, end)
    records.settle(journal)
    return what


def test_an_ended_reply_is_in_the_store_and_its_journal_gone(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        what = begin(records, "hello", End.COMPLETE)
        assert records.in_flight() == []
        asked, answer = records.conversation(what.conversation).messages
    assert (asked.content, answer.content) == ("hi", "hello")
    assert answer.reply is not None
    assert (answer.reply["status"], answer.reply["tokens"]) == ("complete", 1)


def test_an_unfinished_reply_stays_in_its_journal(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        what = begin(records, "hel", End.SIGINT)
        (reply,) = records.in_flight()
        assert (reply.generation, reply.pid, reply.position.chars) == (what.generation, None, 3)
        assert records.conversation(what.conversation).messages == ()


def test_killed_between_add_and_discard(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        what = header()
        journal = records.begin(what, no_trouble)
        said(journal, "hello", End.COMPLETE)
        copy = journal.path.read_bytes()
        records.settle(journal)
    for _ in range(3):  # the journal is back, as if it had not been removed
        journal.path.write_bytes(copy)
        with Records(tmp_path) as records:
            assert records.in_flight() == []
            assert len(records.conversation(what.conversation).messages) == 2


def test_the_newest_activity_comes_first_however_often_one_looks(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        names = [begin(records, "x", End.SIGINT).generation for _ in range(4)]
        for when, name in enumerate(names):
            os.utime(tmp_path / "journals" / f"{name}.jsonl", (when, when))
    for _ in range(2):
        with Records(tmp_path) as records:
            assert [reply.generation for reply in records.in_flight()] == names[::-1]


def test_a_refusal_without_a_word_leaves_nothing(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        journal = records.begin(header(), no_trouble)
        journal.ended(End.REFUSED, TIMING, resumable=False)
        records.settle(journal)
        assert records.conversations() == []
        journal = records.begin(header(), no_trouble)
        journal.ended(End.REFUSED, TIMING, resumable=False)
        journal.close()
    with Records(tmp_path) as records:
        assert (records.conversations(), records.in_flight()) == ([], [])


def test_one_reply_at_a_time_in_a_conversation(tmp_path: Path) -> None:
    with Records(tmp_path) as records, Records(tmp_path) as other:
        what = header()
        journal = records.begin(what, no_trouble)
        with pytest.raises(JournalBusy, match=str(os.getpid())):
            other.begin(header(conversation=what.conversation), no_trouble)
        said(journal, "hel", End.SIGINT)
        records.settle(journal)
        with pytest.raises(UsageError, match="unfinished"):
            other.begin(header(conversation=what.conversation), no_trouble)


def test_a_conversation_that_went_on_elsewhere_is_noticed(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        what = begin(records, "hello", End.COMPLETE)
        begin(records, "again", End.COMPLETE, conversation=what.conversation, history=2)
        with pytest.raises(UsageError, match="went on in another process"):
            begin(records, "late", End.COMPLETE, conversation=what.conversation, history=2)


def test_keep_and_drop(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        kept, dropped = begin(records, "hel", None), begin(records, "hel", End.SIGINT)
        records.keep(kept.generation)
        records.drop(dropped.generation)
        assert records.in_flight() == []
        assert [m.content for m in records.conversation(kept.conversation).messages] == [
            "hi",
            "hel",
        ]
        assert records.conversation(dropped.conversation).messages == ()


def test_a_deletion_deletes_from_both(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        what = begin(records, "secret words", End.COMPLETE)
        begin(records, "more", End.SIGINT, conversation=what.conversation, history=2)
        records.delete(what.conversation)
        assert records.conversations() == []
        assert records.in_flight() == []
    assert list((tmp_path / "journals").glob("*.jsonl")) == []


def test_ids(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        one = begin(records, "a", End.COMPLETE, generation="gaa1", conversation="cab1")
        two = begin(records, "b", End.SIGINT, generation="gab2", conversation="cab2")
        assert records.find_reply("gaa") == (one.conversation, one.generation)
        assert records.find_reply("gab2") == (two.conversation, two.generation)
        assert records.find_reply("cab1") == (one.conversation, None)
        for prefix, words in (("g", "stands for 2"), ("ca", "stands for 2"), ("x", "Nothing")):
            with pytest.raises(UsageError, match=words):
                records.find_reply(prefix)


def test_a_damaged_journal_is_left_alone_and_named(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        begin(records, "a", End.SIGINT)
    damaged = tmp_path / "journals" / "g0.jsonl"
    damaged.write_bytes(b"\0\0\0")
    with Records(tmp_path) as records:
        assert len(records.in_flight()) == 1
        assert records.damaged == [damaged]
    assert damaged.exists()


def test_a_journal_without_a_header_is_discarded_by_its_writer(tmp_path: Path) -> None:
    """The disk was full from the start."""
    with Records(tmp_path) as records:
        journal = records.begin(header(), no_trouble)
        os.truncate(journal.path, 5)
        records.settle(journal)
        assert not journal.path.exists()


def test_a_store_that_cant_be_used_loses_nothing(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        journal = records.begin(header(), no_trouble, new=True)
        said(journal, "hello", End.COMPLETE)
        (tmp_path / "conversations.db").write_bytes(b"no database" * 100)
        with pytest.raises(StoreUnusable):
            records.settle(journal)
    assert journal.path.exists()


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with Records(tmp_path / "data") as records:
            begin(records, "a", End.COMPLETE)
            begin(records, "a", End.SIGINT)
            modes = {
                path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode)
                for path in (tmp_path / "data").rglob("*")
            }
    finally:
        os.umask(before)
    for name, mode in modes.items():
        assert mode == (0o700 if name == "data/journals" else 0o600), name


def test_markers_are_not_part_of_what_was_said(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        what = header(markers={"!!P": Action.PAUSE})
        journal = records.begin(what, no_trouble)
        journal.received(Chunk("a!!Pb!!Pc"))
        for end, chars in ((4, 1), (8, 2)):
            found = MarkerFound("!!P", Action.PAUSE, Position(chars))
            for _ in range(2):
                journal.marker(found, Mark(chars, end))
        journal.delivered(Mark(chars=3, model=9))
        journal.close()
        (reply,) = records.in_flight()
    assert content_of(reply.recorded) == ("abc", "")


def test_a_newer_store_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "conversations.db"
    store = Store(path)
    store._db.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(StoreUnusable, match="newer"):
        Store(path)
