"""A damaged store is found out, never overwritten, and repaired as far as possible."""

from __future__ import annotations

import random
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from llmctl.cli import main
from llmctl.conversation import Message
from llmctl.store import Reply, Store, StoreUnusable
from llmctl.store_repair import repair, trouble
from tests.e2e.conftest import Program
from tests.support.fake_environment import fake_environment

PAGE = 4096


def filled(path: Path, conversations: int = 40) -> None:
    """Make a store of so many conversations with a question and an answer each."""
    store = Store(path)
    for number in range(conversations):
        store.add(
            Reply(
                generation=f"g{number}",
                conversation=f"c{number}",
                created=float(number),
                ended=number + 0.5,
                history=0,
                messages=(Message("user", f"question {number}"),),
                content=f"answer {number} " + "word " * 100,
                reasoning="",
                model="m",
                status="complete",
                cause="end",
                guarantee=None,
                tokens=1,
                details={},
            )
        )
    store.close()


def answers(path: Path) -> set[int]:
    """Return the conversations that are whole."""
    store = Store(path)
    found = set()
    for summary in store.conversations():
        messages, number = store.messages(summary.id), int(summary.id[1:])
        if len(messages) == 2 and messages[1].reply is not None:
            assert messages[0].content == f"question {number}"
            assert messages[1].content.startswith(f"answer {number} word")
            found.add(number)
    store.close()
    return found


def test_a_sound_store_has_no_trouble(tmp_path: Path) -> None:
    assert trouble(tmp_path / "none.db") is None
    filled(tmp_path / "s.db")
    assert trouble(tmp_path / "s.db") is None


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_page_costs_what_is_on_it_and_no_more(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "s.db"
    filled(path)
    data = bytearray(path.read_bytes())
    page = random.Random(seed).randrange(9, len(data) // PAGE - 1)  # noqa: S311  (repeatable)
    data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    path.write_bytes(data)
    assert trouble(path) is not None
    done = repair(path)
    assert done.aside.read_bytes() == data
    assert trouble(path) is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    whole = answers(path)
    assert len(whole) >= 20
    assert done.messages >= 2 * len(whole)
    filled(path, 41)  # it can be written again
    assert 40 in answers(path)


def test_of_what_is_no_database_nothing_is_lost_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"not a database" * 1000)
    assert "not a database" in str(trouble(path))
    done = repair(path)
    assert (done.messages, done.aside.read_bytes()) == (0, b"not a database" * 1000)
    assert answers(path) == set()


def test_a_newer_store_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    filled(tmp_path / "s.db", 1)
    with closing(sqlite3.connect(tmp_path / "s.db")) as db:
        db.execute("PRAGMA user_version = 99")
    assert "newer llmctl" in str(trouble(tmp_path / "s.db"))
    with pytest.raises(StoreUnusable, match="newer"):
        Store(tmp_path / "s.db")


def test_damage_that_shows_later_is_an_error_of_ours_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    filled(path)
    data = bytearray(path.read_bytes())
    data[2 * PAGE : -PAGE] = b"\xaa" * (len(data) - 3 * PAGE)
    path.write_bytes(data)
    store = Store(path)
    with pytest.raises(StoreUnusable) as caught:
        for number in range(40):
            store.messages(f"c{number}")
            store.search(["word"])
    assert caught.value.hint is not None
    assert "doctor --repair" in caught.value.hint
    store.close()


def test_the_doctor_repairs(tmp_path: Path) -> None:
    path = tmp_path / "data" / "conversations.db"
    path.parent.mkdir()
    path.write_bytes(b"x" * 10_000)
    with fake_environment(tmp_path) as fake:
        assert main(["doctor"], fake.env) == 1
        assert "fail  conversations" in fake.out
    with fake_environment(tmp_path) as fake:
        assert main(["doctor", "--repair"], fake.env) == 0
        assert "the damaged file is" in fake.err
    [aside] = path.parent.glob("conversations.db.damaged-*[0-9]")
    assert aside.read_bytes() == b"x" * 10_000


@pytest.mark.slow
def test_a_reply_needs_no_store_and_moves_into_it_when_there_is_one(tmp_path: Path) -> None:
    program = Program(tmp_path)
    database = program.cli.data / "conversations.db"
    program.cli.data.mkdir(mode=0o700, exist_ok=True)
    database.write_bytes(b"x" * 10_000)
    for _ in range(2):  # the second finds the first one's journal, too
        done = program.run("run", "-m", program.script("one two"), "hi")
        assert (done.returncode, done.text) == (0, "one two")
        assert "stays in its journal" in done.errors
    assert database.read_bytes() == b"x" * 10_000
    listed = program.run("conversations", "list")
    assert (listed.returncode, "doctor --repair" in listed.errors) == (1, True)
    assert program.run("doctor", "--repair").returncode == 0
    assert len(program.run("conversations", "list").text.splitlines()) == 2
