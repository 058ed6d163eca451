"""Branches: where a reply hangs, how they are drawn and exported, and what a fork takes along."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.chat.history import Forgotten, Remembered
from llmctl.conversation import Message, Options, Request
from llmctl.errors import UsageError
from llmctl.events import Action, Channel, Chunk, End, Guarantee, Timing
from llmctl.export import exported
from llmctl.journal import Header, NoJournal, read
from llmctl.records import Records, new_id
from llmctl.replies import content_of
from llmctl.tree import drawn, nodes
from llmctl.turn import Mark

TIMING = Timing(None, 0.0, 0.0, None)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with Records(tmp_path) as opened:
        yield opened


def no_trouble(error: OSError) -> None:
    raise AssertionError(error)


def header(history: Remembered | Forgotten, question: str) -> Header:
    said = [message.as_message() for message in history.messages]
    return Header(
        generation=new_id("g"),
        conversation=history.id,
        created=1.0,
        request=Request("m", (*said, Message("user", question)), Options(stop=("x",))),
        history=len(history.messages),
        target={"spec": "local", "path": None},
        markers={"!!P": Action.PAUSE},
        command="chat",
        parent=history.parent,
    )


def exchange(
    history: Remembered | Forgotten, question: str, answer: str, end: End = End.COMPLETE
) -> str:
    """Ask and answer where the history stands; return the reply's id."""
    what = header(history, question)
    journal = history.begin(what, no_trouble)
    journal.received(Chunk(answer, tokens=1, ends=(len(answer),)))
    journal.delivered(Mark(len(answer), len(answer), 0, 1, len(answer)))
    journal.ended(end, TIMING, resumable=end.resumable)
    history.settle(journal, what, answer, end)
    return what.generation


def line(history: Remembered | Forgotten) -> list[str]:
    return [message.content for message in history.messages]


def test_a_retry_is_a_branch_and_the_old_reply_stays(records: Records) -> None:
    history = Remembered(records)
    exchange(history, "q1", "a1")
    exchange(history, "q2", "a2")
    assert history.rewind() == "q2"
    assert line(history) == ["q1", "a1"]
    exchange(history, "q2", "b2")
    assert line(history) == ["q1", "a1", "q2", "b2"]
    whole = records.whole(history.id)
    assert [message.content for message in whole.branches] == ["q2", "a2"]
    assert [(node.number, node.parent) for node in nodes(whole)] == [
        (1, None), (2, 1), (3, 2), (4, 3), (5, 2), (6, 5),
    ]  # fmt: skip


def test_a_branch_that_was_not_sent_or_was_dropped_changes_nothing(records: Records) -> None:
    history = Remembered(records)
    exchange(history, "q1", "a1")
    assert history.rewind(5) is None
    assert history.rewind() == "q1"
    assert line(Remembered(records, history.id)) == ["q1", "a1"]
    exchange(history, "other", "b", End.SIGINT)
    assert line(history) == []
    assert line(Remembered(records, history.id)) == []
    history.drop()
    assert line(history) == ["q1", "a1"]
    history.rewind()
    history.rewind(0)
    assert (line(history), history.parent) == (["q1", "a1"], None)


def test_a_branch_from_the_very_beginning(records: Records) -> None:
    history = Remembered(records)
    exchange(history, "q1", "a1")
    history.rewind()
    assert history.parent == 0
    exchange(history, "p1", "b1")
    assert line(history) == ["p1", "b1"]
    assert [node.parent for node in nodes(records.whole(history.id))] == [None, 1, None, 3]


def test_an_unfinished_reply_that_is_gone_back_before_is_kept(records: Records) -> None:
    history = Remembered(records)
    exchange(history, "q1", "a1")
    exchange(history, "q2", "part", End.SIGINT)
    assert history.rewind() == "q2"
    history.keep()
    assert line(history) == ["q1", "a1"]
    exchange(history, "other", "b2")
    assert line(history) == ["q1", "a1", "other", "b2"]
    assert [m.content for m in records.whole(history.id).branches] == ["q2", "part"]


def test_standing_behind_a_reply_of_another_branch(records: Records) -> None:
    history = Remembered(records)
    exchange(history, "q1", "a1")
    old = exchange(history, "q2", "a2")
    history.rewind()
    exchange(history, "q2", "b2")
    history.stand_behind(old)
    assert line(history) == ["q1", "a1", "q2", "a2"]
    exchange(history, "q3", "a3")
    assert line(history) == ["q1", "a1", "q2", "a2", "q3", "a3"]
    with pytest.raises(UsageError, match="stands for 0 replies"):
        history.stand_behind("gnone")


def test_two_processes_are_told_apart_on_a_branch_too(records: Records, tmp_path: Path) -> None:
    history = Remembered(records)
    exchange(history, "q1", "a1")
    history.rewind()
    late = header(history, "late")
    with Records(tmp_path) as other:
        exchange(Remembered(other, history.id), "q2", "a2")
    records.begin(late, no_trouble).discard()  # a branch hangs where it says, whatever came
    with pytest.raises(UsageError, match="went on in another process"):
        records.begin(replace(late, parent=None, history=2), no_trouble)


def test_a_tree_is_drawn_with_each_reply_and_where_one_stands(records: Records) -> None:
    history = Remembered(records)
    exchange(history, "tell me " * 20, "a1")
    first = exchange(history, "q2", "a2")
    history.rewind()
    second = exchange(history, "q2", "line\nline", End.SIGINT)
    drawing = list(drawn(records.whole(history.id)))
    assert drawing[0] == f"1 user: {('tell me ' * 20)[:55]}…"
    assert drawing[1].startswith("2 assistant: a1  g")
    assert drawing[2:] == [
        "├─ 3 user: q2",
        f"│  4 assistant: a2  {first}",
        "└─ 5 user: q2",
        f"   6 assistant: line line  {second}, unfinished  ← here",
    ]


def test_exports_keep_branches(records: Records) -> None:
    history = Remembered(records)
    exchange(history, "q1", "a1")
    exchange(history, "q2", "a2")
    history.rewind()
    exchange(history, "q2", "b2", End.SIGINT)
    whole = records.whole(history.id)
    tree = json.loads(exported(whole, "json"))
    assert [(m["id"], m["parent"], m["content"]) for m in tree["messages"]] == [
        (1, None, "q1"), (2, 1, "a1"), (5, 2, "q2"), (6, 5, "b2"),
    ]  # fmt: skip
    assert [(m["id"], m["parent"], m["content"]) for m in tree["branches"]] == [
        (3, 2, "q2"), (4, 3, "a2"),
    ]  # fmt: skip
    assert tree["messages"][-1]["resumable"] is True
    rows = [json.loads(row) for row in exported(whole, "jsonl").splitlines()]
    assert [row for row in rows if "branch" not in row] == tree["messages"]
    assert [{k: v for k, v in r.items() if k != "branch"} for r in rows if "branch" in r] == tree[
        "branches"
    ]
    text = exported(whole, "markdown")
    assert text.index("b2") < text.index("# Branch behind message 2\n") < text.index("a2")


def test_a_fork_ends_where_it_is_told_to(records: Records) -> None:
    history = Remembered(records)
    exchange(history, "q1", "a1")
    old = exchange(history, "q2", "a2")
    history.rewind()
    exchange(history, "q2", "b2")
    assert line(Remembered(records, records.fork(history.id))) == ["q1", "a1", "q2", "b2"]
    assert line(Remembered(records, records.fork(history.id, old))) == ["q1", "a1", "q2", "a2"]


def test_a_fork_keeps_what_is_known_of_its_replies_when_the_other_is_deleted(
    records: Records,
) -> None:
    history = Remembered(records)
    shared = exchange(history, "q1", "a1")
    first, second = records.fork(history.id), records.fork(history.id)
    own = exchange(history, "q2", "a2")
    for gone, left in ((history.id, (first, second)), (first, (second,))):
        records.delete(gone)
        for fork in left:
            (_, answer) = records.conversation(fork).messages
            assert answer.generation == shared
            assert answer.reply is not None
            assert answer.reply["status"] == "complete"
        assert records.find(shared) in left
    assert records.find_reply(shared) == (second, shared)
    records.delete(second)
    for generation in (own, shared):
        with pytest.raises(UsageError, match="Nothing has the id"):
            records.find(generation)


@pytest.mark.parametrize("kept", [False, True])
def test_a_fork_takes_a_partial_reply_along_as_one(records: Records, kept: bool) -> None:
    history = Remembered(records)
    exchange(history, "q1", "a1")
    part = exchange(history, "q2", "part", End.SIGINT)
    if kept:
        history.keep()
        exchange(history, "q3", "a3")
    branch = Remembered(records, records.fork(history.id, part))
    assert line(branch) == ["q1", "a1"]
    assert branch.unfinished is not None
    recorded = branch.unfinished.recorded
    assert content_of(recorded) == ("part", "")
    assert (recorded.guarantee, recorded.end) == (Guarantee.TEXT, End.SIGINT)
    assert recorded.header.request.options == Options(stop=("x",))
    assert recorded.header.target == {"spec": "local", "path": None}
    assert recorded.header.markers == {"!!P": Action.PAUSE}
    branch.keep()
    assert line(branch) == ["q1", "a1", "q2", "part"]
    assert "part" in line(history) or not kept


def test_what_a_process_remembers_alone_can_be_rewound() -> None:
    history = Forgotten()
    for question in ("q1", "q2"):
        what = header(history, question)
        history.settle(NoJournal(), what, f"a{question}", End.COMPLETE)
    assert history.rewind() == "q2"
    history.settle(NoJournal(), header(history, "q2"), "", End.SIGINT)
    assert line(history) == ["q1", "aq1", "q2", "aq2"], "nothing came: nothing is lost"
    history.rewind()
    history.settle(NoJournal(), header(history, "q2"), "b", End.COMPLETE)
    assert line(history) == ["q1", "aq1", "q2", "b"]
    assert [found.excerpt for found in history.search(["AQ1"])] == ["aq1"]


def test_rewritten_text_stands_for_the_reply_and_nothing_vouches_for_it(
    records: Records,
) -> None:
    history = Remembered(records)
    what = header(history, "q")
    journal = history.begin(what, no_trouble)
    journal.conditions({"engine": "one"})
    journal.received(Chunk("hm, well", Channel.REASONING))
    for word in ("one", " two", " three"):
        journal.received(Chunk(word, tokens=1, ends=(len(word),), ids=(7,)))
    journal.delivered(Mark(chars=7, model=7, reasoning=2, tokens=2, counted=7))
    journal.saved({"slot": "x"})
    journal.rewritten("one twice")
    recorded = read(journal.path)[1]
    assert content_of(recorded) == ("one twice", "hm")
    assert [c.text for c in recorded.chunks] == ["hm", "one", " twice"]
    assert (recorded.conditions, recorded.saved) == ({}, None)
    assert recorded.mark.position.tokens is None
    journal.rewritten("one two")
    recorded = read(journal.path)[1]
    assert (recorded.mark.position.chars, recorded.guarantee) == (7, Guarantee.TEXT)
    journal.rewritten("one")
    assert read(journal.path)[1].mark.position.tokens == 1
    journal.discard()
