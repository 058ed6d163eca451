"""What older versions wrote is read by this one; what a newer one wrote is left alone.

``data/versionN`` holds files as version N wrote them. They never change; a new version adds a
folder, and this file a test of how it is brought up.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llmctl.batch.index import Index, Standing
from llmctl.batch.state import State
from llmctl.errors import UsageError
from llmctl.events import Channel, Chunk, End, Guarantee
from llmctl.journal import Journal, JournalDamaged, read
from llmctl.records import Records
from llmctl.replies import as_reply
from llmctl.store import Store, StoreUnusable
from llmctl.store_repair import trouble

VERSION_1 = Path(__file__).parent / "data" / "version1"
VERSION_2 = Path(__file__).parent / "data" / "version2"


def not_told(error: OSError) -> None:
    raise AssertionError(error)


def store_of(version: Path, folder: Path) -> Path:
    """Make the store that a version wrote; return its file."""
    with closing(sqlite3.connect(folder / "s.db")) as db:
        db.executescript((version / "store.sql").read_text())
    return folder / "s.db"


def schema(path: Path) -> tuple[int, set[tuple[str, str]]]:
    """Return the version of a store, and the kinds and names of what is in it."""
    with closing(sqlite3.connect(path)) as db:
        names = db.execute("SELECT type, name FROM sqlite_schema").fetchall()
        return db.execute("PRAGMA user_version").fetchone()[0], set(names)


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2])
def test_an_older_store(tmp_path: Path, version: Path) -> None:
    store = Store(store_of(version, tmp_path))
    question, answer = store.messages("c0")
    assert (question.content, answer.content) == ("a question", "an answer")
    assert answer.reply is not None
    assert (answer.reply["guarantee"], answer.reply["reasoning"]) == ("exact", "thoughts")
    assert [found.role for found in store.search(["answer"])] == ["assistant"]
    assert store.delete("c0")
    store.close()


def test_a_store_of_version_1_is_brought_up(tmp_path: Path) -> None:
    path = store_of(VERSION_1, tmp_path)
    Store(path).close()
    Store(tmp_path / "new.db").close()
    assert schema(path) == schema(tmp_path / "new.db")
    assert schema(path)[0] == 2
    assert trouble(path) is None
    assert b"message_text" not in path.read_bytes()


def test_a_store_of_version_1_stays_as_it_is_if_it_cannot_be_brought_up(tmp_path: Path) -> None:
    path = store_of(VERSION_1, tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TRIGGER message_deleted")
    before = schema(path)
    with pytest.raises(StoreUnusable, match="message_deleted"):
        Store(path)
    assert schema(path) == before


def test_a_journal_of_version_1(tmp_path: Path) -> None:
    shutil.copy(VERSION_1 / "journal.jsonl", tmp_path / "g1.jsonl")
    whole, recorded = read(tmp_path / "g1.jsonl")
    assert whole == (tmp_path / "g1.jsonl").stat().st_size
    assert [chunk.text for chunk in recorded.chunks] == ["a", "b", "c"]
    assert recorded.chunks[1].channel is Channel.REASONING
    assert (recorded.end, recorded.resumable) == (End.COMPLETE, False)
    assert (recorded.guarantee, recorded.bound, recorded.pid) == (Guarantee.EXACT, 20, 4711)
    assert as_reply(recorded, 1.0).reasoning == "b"


def test_a_journal_of_version_1_is_gone_on_with_under_the_new_rule(tmp_path: Path) -> None:
    path = tmp_path / "g1.jsonl"
    shutil.copy(VERSION_1 / "journal.jsonl", path)
    journal, _ = Journal.reopen(path, not_told)
    journal.received(Chunk("more"))
    journal.close()
    assert [chunk.text for chunk in read(path)[1].chunks] == ["a", "b", "c", "more"]
    path.write_bytes(path.read_bytes().replace(b"more", b"mare"))
    assert [chunk.text for chunk in read(path)[1].chunks] == ["a", "b", "c"]


def test_a_journal_of_version_2(tmp_path: Path) -> None:
    shutil.copy(VERSION_2 / "journal.jsonl", tmp_path / "g1.jsonl")
    whole, recorded = read(tmp_path / "g1.jsonl")
    assert whole == (tmp_path / "g1.jsonl").stat().st_size
    assert [chunk.text for chunk in recorded.chunks] == ["a", "b", "c"]
    assert (recorded.end, recorded.resumable) == (End.COMPLETE, False)


def test_an_ended_journal_of_version_1_moves_into_the_store(tmp_path: Path) -> None:
    (tmp_path / "journals").mkdir()
    shutil.copy(VERSION_1 / "journal.jsonl", tmp_path / "journals" / "g1.jsonl")
    with Records(tmp_path) as records:
        assert records.in_flight() == []
        assert [row["id"] for row in records.conversations()] == ["c1"]


def test_a_batch_of_version_1(tmp_path: Path) -> None:
    shutil.copytree(VERSION_1 / "batch", tmp_path / "state")
    with State(tmp_path / "state") as state, Index() as index:
        for number in range(3):
            index.add(f"row-{number}", number, bytes([number] * 16))
        assert not state.compare(index)
        state.recall(index)
        standings = [_standing(index, number) for number in range(3)]
        assert standings == [Standing.STOPPED, Standing.STOPPED, Standing.REFUSED]
        assert state.damaged == 0
        kept = {end.id: end.kept.text for end in map(state.ended, index.ends())}
        assert kept == {"row-0": "ab", "row-1": "so far", "row-2": ""}


def _standing(index: Index, number: int) -> Standing:
    known = index.find(f"row-{number}")
    assert known is not None
    return known.standing


def test_a_newer_batch_is_left_alone(tmp_path: Path) -> None:
    with State(tmp_path):
        pass
    path = tmp_path / "version.json"
    assert json.loads(path.read_text()) == {"version": 1}
    path.write_text('{"version": 2}')
    with pytest.raises(UsageError, match="newer llmctl"):
        State(tmp_path)
    assert not (tmp_path / "lease").exists()


def test_a_newer_journal_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "g1.jsonl"
    text = (VERSION_1 / "journal.jsonl").read_text().replace('"journal":1', '"journal":99', 1)
    path.write_text(text)
    with pytest.raises(JournalDamaged, match="another version"):
        Journal.reopen(path, not_told)
    assert path.read_text() == text


def test_a_damaged_journal_goes_on_from_before_the_damage_and_keeps_the_rest(
    tmp_path: Path,
) -> None:
    path = tmp_path / "g1.jsonl"
    lines = (VERSION_1 / "journal.jsonl").read_bytes().splitlines(keepends=True)
    lines[5] = b"\x00garbage\n"
    path.write_bytes(b"".join(lines))
    journal, recorded = Journal.reopen(path, not_told)
    journal.close()
    assert [chunk.text for chunk in recorded.chunks] == ["a", "b"]
    assert recorded.aside == tmp_path / "g1.jsonl.damaged"
    assert recorded.aside.read_bytes() == b"".join(lines[5:])
    assert path.read_bytes().startswith(b"".join(lines[:5]))


def test_a_torn_last_line_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "g1.jsonl"
    path.write_bytes((VERSION_1 / "journal.jsonl").read_bytes()[:-10])
    journal, recorded = Journal.reopen(path, not_told)
    journal.close()
    assert recorded.aside is None
    assert [each.name for each in tmp_path.iterdir()] == ["g1.jsonl"]


def test_damaged_records_of_a_batch_cost_their_items_only(tmp_path: Path) -> None:
    shutil.copytree(VERSION_1 / "batch", tmp_path / "state")
    for name, line in (("items.jsonl", 0), ("ends.jsonl", 0)):
        path = tmp_path / "state" / name
        lines = path.read_bytes().splitlines(keepends=True)
        lines[line] = b"#garbage\n"
        path.write_bytes(b"".join(lines))
    with State(tmp_path / "state") as state, Index() as index:
        for number in range(3):
            index.add(f"row-{number}", number, bytes([number] * 16))
        assert not state.compare(index)
        state.recall(index)
        standings = [_standing(index, number) for number in range(3)]
        assert standings == [Standing.STOPPED, Standing.NEW, Standing.REFUSED]
        assert state.damaged == 2
