"""The state folder: leases, records of what is in flight, ends."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from llmctl.batch.appended import AppendFile
from llmctl.batch.index import Index, Standing
from llmctl.batch.journal import LiveJournal
from llmctl.batch.kept import Kept
from llmctl.batch.lease import SILENCE_S, BatchBusy, Lease, Owner, look
from llmctl.batch.records import live_files, read_live
from llmctl.batch.state import Ended, State
from llmctl.events import Channel, Chunk, Guarantee, Position, Resumed, Strategy, Usage
from llmctl.received import Received


def lease_of(folder: Path, owner: Owner, silent_s: float = 0.0) -> None:
    path = folder / "lease"
    path.write_text(json.dumps(asdict(owner)))
    then = path.stat().st_mtime - silent_s
    os.utime(path, (then, then))


@pytest.mark.parametrize("silent_s", [0.0, SILENCE_S - 5])
def test_a_live_lease_is_respected(tmp_path: Path, silent_s: float) -> None:
    lease_of(tmp_path, Owner("t", "elsewhere", 4711, 0.0), silent_s)
    with pytest.raises(BatchBusy, match="pid 4711 on elsewhere"):
        Lease(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lease"]


def test_a_silent_lease_is_taken_and_its_owner_notices(tmp_path: Path) -> None:
    old = Lease(tmp_path)
    lease_of(tmp_path, Owner("t", "elsewhere", 4711, 0.0), SILENCE_S + 1)
    new = Lease(tmp_path)
    with pytest.raises(BatchBusy):
        old.beat()
    new.beat()
    old.release()
    assert look(tmp_path) is not None
    new.release()
    assert look(tmp_path) is None
    with pytest.raises(BatchBusy, match="taken this batch over, and left it again"):
        old.beat()  # what the other has done must not be done once more


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_a_file_is_its_owner_s_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        AppendFile(tmp_path / "new").close()
        journal(tmp_path)
    finally:
        os.umask(before)
    made = [tmp_path / "new", *live_files(tmp_path)]
    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o600] * 2


def test_a_file_that_was_there_stays_as_its_owner_made_it(tmp_path: Path) -> None:
    (tmp_path / "old").touch(mode=0o640)
    (tmp_path / "old").chmod(0o640)
    AppendFile(tmp_path / "old").close()
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o640


def test_a_folder_that_is_gone_was_taken_by_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    lease = Lease(folder)
    shutil.rmtree(folder)
    with pytest.raises(OSError, match="No such file"):
        lease.beat()


def test_the_lease_of_a_dead_process_is_taken_at_once(tmp_path: Path) -> None:
    lease_of(tmp_path, Owner("t", socket.gethostname(), 2**22 + 1, 0.0))
    Lease(tmp_path).release()


def test_a_damaged_lease_is_taken_when_silent(tmp_path: Path) -> None:
    (tmp_path / "lease").write_text("{")
    with pytest.raises(BatchBusy):
        Lease(tmp_path)
    os.utime(tmp_path / "lease", (0, 0))
    Lease(tmp_path).release()


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b'{"a":1}\n{"b"')
    file = AppendFile(path)
    at = file.append({"c": "x" * 200_000})
    assert path.read_bytes().startswith(b'{"a":1}\n{"c":')
    assert json.loads(file.read_line(at)) == {"c": "x" * 200_000}
    file.close()


def journal(folder: Path, **settings: Any) -> LiveJournal:
    return LiveJournal(folder, lambda error: pytest.fail(str(error)), **settings)


def test_what_was_in_flight_is_read_again(tmp_path: Path) -> None:
    live, received = journal(tmp_path), Received()
    item = live.item("a", b"\1" * 16, Kept(attempts=1), received, lambda: None)
    other = live.item("b", b"\2" * 16, Kept(), Received(), lambda: None)
    chunks = [
        Chunk("think", Channel.REASONING, tokens=1),
        Chunk("Ünï", tokens=2, ids=(5, 6)),
        Chunk(" word"),
    ]
    for chunk in chunks:
        item.received(chunk)
        received.add(chunk)
    item.conditions({"engine": 1})
    item.resumed(Resumed(Strategy.PREFIX, Guarantee.TEXT, Position(3, 2)))
    item.saved({"start": 2})
    live.end(other)
    (path,) = live_files(tmp_path)
    with path.open("ab") as file:
        file.write(b'["got",1,"to')
    ((id_, digest, kept),) = read_live(path)
    assert (id_, digest) == ("a", b"\1" * 16)
    assert (kept.reasoning, kept.text, kept.tokens, kept.attempts) == ("think", "Ünï word", None, 1)
    assert (kept.conditions, kept.saved, kept.guarantee) == ({"engine": 1}, {"start": 2}, "text")
    assert kept.resumes[0]["position"] == {"chars": 3, "tokens": 2}


def test_a_reply_that_had_ended_is_whole(tmp_path: Path) -> None:
    live, received = journal(tmp_path), Received()
    item = live.item("a", b"\1" * 16, Kept(), received, lambda: {"head": {"id": "x"}})
    item.received(Chunk("word", tokens=1))
    item.received(Chunk(finish_reason="stop", usage=Usage(1, 2, 3)))
    ((_, _, kept),) = read_live(live_files(tmp_path)[0])
    assert kept.shape == {"head": {"id": "x"}}
    again = Received()
    for chunk in kept.chunks():
        again.add(chunk)
    assert (again.text, again.finish_reason, again.usage) == ("word", "stop", Usage(1, 2, 3))


def test_the_disk_it_takes_depends_on_what_is_in_flight(tmp_path: Path) -> None:
    live, first = journal(tmp_path, longest=2000), Received()
    stays = live.item("stays", b"\1" * 16, Kept(), first, lambda: None)
    for number in range(100):
        chunk = Chunk(f"{number} ", tokens=1)
        stays.received(chunk)
        first.add(chunk)
        item = live.item(f"item-{number}", b"\2" * 16, Kept(), Received(), lambda: None)
        item.received(Chunk("x" * 100))
        live.end(item)
    (path,) = live_files(tmp_path)
    assert path.stat().st_size < 4000
    ((id_, _, kept),) = read_live(path)
    assert (id_, kept.text, kept.tokens) == ("stays", first.text, 100)


def test_kept_goes_through_json() -> None:
    kept = Kept(text="a", tokens=1, ids=[3], resumes=[{"strategy": "prefix"}], wasted_tokens=2)
    assert Kept.from_json(json.loads(json.dumps(kept.as_json()))) == kept
    assert Kept().as_json() == {}
    kept.start_over()
    assert kept == Kept(wasted_tokens=3)


def test_what_was_killed_becomes_an_end(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        live, received = state.journal(lambda _error: None), Received()
        item = live.item("a", b"\1" * 16, Kept(), received, lambda: None)
        item.received(Chunk("word", tokens=1))
        state.end(Ended("b", b"\2" * 16, Standing.REFUSED, "refused", Kept(), {"kind": "x"}))
        state.end(Ended("c", b"\0" * 16, Standing.FAILED, "idle", Kept(text="old")))
    with State(tmp_path) as state, Index() as index:
        for number, id_ in enumerate("abc", 1):
            index.add(id_, number, bytes([number]) * 16)
        state.recall(index)
        assert live_files(tmp_path) == []
        known = {id_: index.find(id_) for id_ in "abc"}
        assert known["a"] is not None
        assert known["a"].at is not None
        assert state.ended(known["a"].at).kept.text == "word"
        assert known["b"] is not None
        assert known["b"].standing is Standing.REFUSED
        assert known["c"] is not None
        assert known["c"].standing is Standing.NEW  # its request is another one now
