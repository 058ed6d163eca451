"""The ladder and its rungs: what is claimed is what was earned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import anyio
import pytest

from llmctl.backends.script import Script, script_from_json, script_from_text
from llmctl.backends.scripted import ScriptedBackEnd
from llmctl.conversation import Message, Prefix, Request
from llmctl.errors import BelowRequire, Disconnected
from llmctl.events import Channel, Chunk, Cursor, Guarantee, Strategy
from llmctl.received import Received
from llmctl.resume.instruct import Overlap
from llmctl.resume.ladder import Ladder, rungs

TEXT = "one two three four five"
REQUEST = Request("m", (Message("user", "hi"),))


def go_on(
    script: Script, prefix: Prefix, *, request: Request = REQUEST, **standing: Any
) -> tuple[Strategy | None, Guarantee | None, str]:
    """Go on behind a prefix; return by which way, how exactly, and with what text."""
    ladder = Ladder(ScriptedBackEnd(script), request, rungs("Go on."), **standing)

    async def run() -> tuple[Strategy | None, Guarantee | None, str]:
        async with ladder.go_on(prefix, lambda: None) as opened:
            text = "".join([chunk.text async for chunk in opened.chunks])
            return opened.strategy, opened.guarantee, text

    return anyio.run(run)


def script(*supports: str, text: str = TEXT) -> Script:
    return script_from_json("s", {"text": text, "supports": list(supports)})


def conditions(text: str = TEXT) -> Mapping[str, Any]:
    return {"script": script_from_text("s", text).digest}


@pytest.mark.parametrize("cut", range(1, len(TEXT)))
def test_a_replay_goes_on_behind_any_character(cut: int) -> None:
    found = go_on(script("replay"), Prefix(TEXT[:cut]), conditions=conditions())
    assert found == (Strategy.REPLAY, Guarantee.EXACT, TEXT[cut:])


@pytest.mark.parametrize(
    "recorded",
    [conditions(TEXT + " six"), {**conditions(), "threads": 4}, {}],
    ids=["another tail", "one more condition", "none recorded"],
)
def test_exact_is_a_statement_about_conditions(recorded: Mapping[str, Any]) -> None:
    """The prefix agrees in each of these; that proves nothing about the rest."""
    prefix = Prefix("one two", tokens=2)
    found = go_on(script("replay"), prefix, conditions=recorded)
    assert found == (Strategy.REPLAY, Guarantee.TOKEN, TEXT[7:])
    with pytest.raises(BelowRequire, match="reached only token"):
        go_on(script("replay"), prefix, conditions=recorded, require=Guarantee.EXACT)


def test_a_prefix_that_is_not_repeated_is_given_up_before_anything_is_shown() -> None:
    other = Prefix("one too", tokens=2)
    with pytest.raises(BelowRequire, match="did not repeat"):
        go_on(script("replay"), other, conditions=conditions())
    longer = Prefix(TEXT + " six")
    with pytest.raises(BelowRequire, match="ended before"):
        go_on(script("replay"), longer, conditions=conditions())


def test_the_next_rung_takes_over() -> None:
    other = script("replay", "prefix", text="one two and more")
    found = go_on(other, Prefix("one two", tokens=2), conditions=conditions())
    assert found[:2] == (Strategy.REPLAY, Guarantee.TOKEN)
    mended = go_on(script("replay", "prefix"), Prefix("one two"), guarantee=Guarantee.TEXT)
    assert mended == (Strategy.PREFIX, Guarantee.TEXT, TEXT[7:])


def test_no_resume_is_better_than_the_worst_before_it() -> None:
    ladder = Ladder(ScriptedBackEnd(script("prefix")), REQUEST, rungs("Go on."))

    async def run() -> None:
        async with ladder.go_on(Prefix("one"), lambda: None):
            pass

    anyio.run(run)
    assert ladder.guarantee is Guarantee.TEXT


def test_below_the_floor_nothing_is_asked() -> None:
    ladder = Ladder(ScriptedBackEnd(script("held")), REQUEST, rungs("Go on."))
    assert not ladder.may_go_on(Prefix("one"))
    ladder.require = Guarantee.BEST_EFFORT
    assert ladder.may_go_on(Prefix("one"))


def test_what_is_left_of_the_bound() -> None:
    bounded = REQUEST.with_options(max_tokens=3)
    ladder = Ladder(ScriptedBackEnd(script()), bounded, rungs("Go on."))
    assert not ladder.spent(Prefix("one two", tokens=2, spent=2))
    assert ladder.spent(Prefix("one two three", tokens=3, spent=3))
    assert not ladder.spent(Prefix("one two three", tokens=None, spent=3))
    found = go_on(script("prefix"), Prefix("one two", tokens=2, spent=2), request=bounded)
    assert found[2] == " three"
    assert Ladder(ScriptedBackEnd(script()), REQUEST, ()).spent(Prefix("x", tokens=9)) is False


# Reading the same run on.

LOST = {"text": TEXT, "supports": ["cursor", "prefix"]}


def read_on(after: int, spoil: Callable[[Prefix], Prefix] = lambda p: p, **changed: Any) -> Any:
    """Lose the connection behind so many chunks, then go on; say how, and with what text."""
    lost = {**LOST, "faults": [{"kind": "disconnect", "after": after}]}
    back_end = ScriptedBackEnd(script_from_json("s", lost))
    ladder = Ladder(back_end, REQUEST.with_options(max_tokens=4), rungs("Go on."))
    received = Received()

    async def run() -> Any:
        with pytest.raises(Disconnected):
            async with ladder.start() as opened:
                async for chunk in opened.chunks:
                    received.add(chunk)
        ladder.request = REQUEST.with_options(**{"max_tokens": 4, **changed})
        async with ladder.go_on(spoil(received.as_prefix()), lambda: None) as opened:
            text = "".join([chunk.text async for chunk in opened.chunks])
            return opened.strategy, opened.guarantee, text

    return anyio.run(run)


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_a_lost_connection_is_mended_by_reading_the_run_on(after: int) -> None:
    rest = "".join(f" {word}" for word in TEXT.split()[after:4])
    assert read_on(after) == (Strategy.CURSOR, Guarantee.EXACT, rest)


def test_a_run_that_would_end_elsewhere_is_not_read_on() -> None:
    assert read_on(2, max_tokens=5)[0] is Strategy.PREFIX
    assert read_on(2, max_tokens=None)[0] is Strategy.PREFIX


def test_a_run_the_server_let_go_of_is_gone_on_with_otherwise() -> None:
    assert read_on(2, lambda p: replace(p, cursor=Cursor("gone", 2, 4)))[0] is Strategy.PREFIX
    assert read_on(2, lambda p: replace(p, cursor=None))[0] is Strategy.PREFIX


def test_reading_on_mends_nothing_that_was_lost_before() -> None:
    back_end = ScriptedBackEnd(script("cursor"))
    ladder = Ladder(back_end, REQUEST, rungs("Go on."), guarantee=Guarantee.TEXT)
    ladder.require = Guarantee.TOKEN
    assert not ladder.may_go_on(Prefix("one", cursor=Cursor("run", 1)))
    ladder.guarantee = Guarantee.TOKEN
    assert ladder.may_go_on(Prefix("one", cursor=Cursor("run", 1)))


def test_what_has_ended_has_no_cursor() -> None:
    received = Received()
    received.add(Chunk("one", tokens=1, cursor=Cursor("run", 1)))
    received.add(Chunk())
    assert received.as_prefix().cursor == Cursor("run", 1)
    received.add(Chunk(finish_reason="length"))
    assert received.as_prefix().cursor is None


def test_thoughts_alone_are_asked_for_anew() -> None:
    """There is no text to show the model: it is asked again, and what it thought stays."""
    prefix = Prefix("", reasoning="hm")
    found = go_on(script(), prefix, require=Guarantee.BEST_EFFORT)
    assert found == (Strategy.INSTRUCT, Guarantee.BEST_EFFORT, TEXT)


# The overlap of a model that was asked to go on.


def new_part(known: str, pieces: list[str]) -> str:
    overlap = Overlap(known)
    chunks = [*map(Chunk, pieces), Chunk(finish_reason="stop")]
    return "".join(new.text for chunk in chunks for new in overlap.feed(chunk))


KNOWN = "The quick brown fox jumps over"


@pytest.mark.parametrize(
    ("answer", "new"),
    [
        ("fox jumps over the dog", " the dog"),
        (" the dog", " the dog"),
        ("over the dog", "over the dog"),  # too short to be a repetition
        (KNOWN + " the dog", " the dog"),
        ("brown fox jumps over", ""),
        ("brown fox jumps, then", "brown fox jumps, then"),
        ("", ""),
    ],
)
def test_what_is_repeated_is_taken_off_in_any_chunking(answer: str, new: str) -> None:
    assert new_part(KNOWN, [answer]) == new
    assert new_part(KNOWN, list(answer)) == new
    assert new_part(KNOWN, [answer[:7], answer[7:]]) == new


def test_reasoning_is_not_part_of_an_overlap() -> None:
    overlap = Overlap(KNOWN)
    thought = Chunk("hm", Channel.REASONING)
    assert overlap.feed(thought) == [thought]
